"""`~` in whatever names a path."""

import argparse
import pwd
import re
from pathlib import Path

import pytest

import fer_jax
from fer_jax import main, prepare_dataset
from fer_jax.data import dataset
from fer_jax.errors import UserError
from fer_jax.inference import media
from fer_jax.runs import restore
from fer_jax.training import initial_weights
from fer_jax.utils import cache
from fer_jax.utils.paths import path_argument, user_path
from tests.data.images import link_ck48

PACKAGE = Path(fer_jax.__file__).parent


def test_no_flag_takes_a_path_as_it_is_typed():
    """A shell leaves the ~ of --flag=~/x to the program."""
    files = {path: path.read_text() for path in PACKAGE.glob('*.py')}
    assert not [path for path, text in files.items() if re.search(r'type=Path\b', text)]
    assert sum(text.count('type=path_argument') for text in files.values()) > 20


def test_a_home_that_is_not_known_is_one_message(monkeypatch):
    assert path_argument('~/x') == Path.home() / 'x'
    with pytest.raises(UserError, match="'~nobody_here/x': the home folder is not known; set HOME"):
        user_path('~nobody_here/x')
    with pytest.raises(argparse.ArgumentTypeError, match='set HOME'):
        path_argument('~nobody_here/x')


def test_an_unknown_home_is_one_message_where_it_is_needed(monkeypatch, capsys):
    """A container may run as a user without an entry in its passwd."""

    def unknown(user):
        raise KeyError(f'getpwuid(): uid not found: {user}')

    for name in ('HOME', 'FER_JAX_CACHE'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, 'getpwuid', unknown)
    with pytest.raises(UserError, match='the home folder is not known, .* set FER_JAX_CACHE to a folder, or HOME'):
        cache.root()
    cache.use_compilation_cache()
    assert prepare_dataset.main(['--dataset', 'fer2013', '--check']) == 2
    assert 'set FER_JAX_CACHE to a folder, or HOME' in capsys.readouterr().err
    monkeypatch.setenv('FER_JAX_CACHE', '~/cache')
    with pytest.raises(UserError, match="'~/cache': the home folder is not known; set HOME"):
        cache.root()
    modules = {path: path.read_text() for path in PACKAGE.rglob('*.py')}
    aware = [path for path, text in modules.items() if re.search(r'Path\.home\(|Path\(.*\)\.expanduser\(', text)]
    assert aware == [PACKAGE / 'utils' / 'paths.py']
    assert not [path for path, text in modules.items() if 'read_text()' in text]  # in the encoding of the locale


def test_fields_and_functions_know_the_home_folder(shared_data, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setenv('FER_JAX_CACHE', str(tmp_path / 'cache'))
    faces = link_ck48(shared_data, tmp_path / 'faces', ('happy', 'anger'), 12)
    settings = {'splits': {'train': 'train', 'test': 'test'}, 'image_size': 48, 'channels': 1, 'root': tmp_path}
    data = dataset.load_dataset(dir='~/faces', **settings)
    assert data.fingerprint == dataset.load_dataset(dir=str(faces), **settings).fingerprint
    (tmp_path / 'list.csv').write_text(
        'path,label\n' + ''.join(f'~/faces/{name},{name[:3]}\n' for name in data.splits['train'].ids)
    )
    assert len(dataset.load_dataset(manifest='~/list.csv', **settings).splits['train'].ids) > 8
    assert len(dataset.open_split('~/faces')) == 24
    assert [source.name for source in media.find_sources(['~/faces/happy']).sources][0].startswith(str(faces))
    assert restore.resolve_workdir('~/run') == tmp_path / 'run'
    (tmp_path / 'weights.safetensors').write_bytes(b'no weights')
    with pytest.raises(UserError, match=str(tmp_path / 'weights.safetensors')):
        initial_weights.source('~/weights.safetensors', 'resnet18', partial=True)
    (tmp_path / 'config.py').write_text('raise ValueError("found")')
    assert main.main(['main', '--config=~/config.py']) == 2
    assert 'found' in capsys.readouterr().err
