"""Configs by their names: where they are found, in a checkout and in an installed package."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fer_jax
from fer_jax.config import files
from fer_jax.errors import UserError

REPOSITORY = Path(__file__).parents[2]
OWN = 'from fer_jax.config import defaults\n\n\ndef get_config(seed="7"):\n    config = defaults.get_config()\n'
OWN += '    config.seed = int(seed)\n    return config\n'


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_nearest_file_wins(elsewhere):
    assert fer_jax.get_config('resnet50').seed == 0  # the packaged one
    (elsewhere / 'configs').mkdir()
    (elsewhere / 'configs' / 'resnet50.py').write_text(OWN)
    assert fer_jax.get_config('resnet50').seed == 7
    (elsewhere / 'resnet50').write_text(OWN.replace('"7"', '"8"'))
    assert fer_jax.get_config('resnet50').seed == 8
    assert fer_jax.get_config('configs/resnet50.py:9').seed == 9
    assert fer_jax.get_config('vgg16_transfer:joint').joint.source.weight == 1.0


def test_own_names_are_listed_too(elsewhere):
    (elsewhere / 'configs').mkdir()
    (elsewhere / 'configs' / 'mine.py').write_text(OWN)
    assert {'mine', 'quickstart'} <= set(files.config_names())
    with pytest.raises(
        UserError, match="--config='configs/mien.py' is not a file .*; the nearest is mine, of default, "
    ):
        fer_jax.get_config('configs/mien.py')


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', "KeyError: 'get_config'"),
        ('def get_config():\n    raise ValueError("no")', 'cannot be loaded: ValueError: no'),
        ('def get_config():\n    open("gone")', 'cannot be loaded: FileNotFoundError'),
        ('def get_config():\n    return {}', 'gives dict; it has to give a ConfigDict'),
    ],
)
def test_a_file_that_makes_no_config_is_named(elsewhere, text, message):
    (elsewhere / 'own.py').write_text(text)
    with pytest.raises(UserError, match=f'--config=own.py.*{message}'):
        fer_jax.get_config('own.py')


def test_an_installed_package_has_its_configs_inside(elsewhere):
    shutil.copytree(REPOSITORY / 'fer_jax', elsewhere / 'site' / 'fer_jax')
    shutil.copytree(REPOSITORY / 'configs', elsewhere / 'site' / 'fer_jax' / 'configs')
    code = 'import fer_jax; print(fer_jax.__file__, fer_jax.get_config("quickstart").model.name)'
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=elsewhere / 'site', env={}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(elsewhere / 'site' / 'fer_jax' / '__init__.py'), 'efficientnet_lite0']
