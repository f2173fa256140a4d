"""`fer-jax NAME` is `python -m fer_jax.<module>`."""

import subprocess
import sys
from pathlib import Path

import pytest

from fer_jax import cli
from fer_jax.errors import UserError
from fer_jax.utils.signals import Stopped
from tests.test_layers import COMMANDS

REPOSITORY = Path(__file__).parents[1]


def run(*command):
    return subprocess.run([sys.executable, *command], cwd=REPOSITORY, capture_output=True, text=True, check=False)


def fer_jax(*arguments):
    return run('-c', 'from fer_jax.cli import main; main()', *arguments)


def test_every_command_has_a_name():
    assert set(cli.COMMANDS.values()) == COMMANDS


@pytest.mark.parametrize(('name', 'module'), [('checkpoints', 'checkpoints'), ('train', 'main')])
def test_it_does_what_the_module_does(name, module, tmp_path):
    arguments = [str(tmp_path)] if name == 'checkpoints' else ['--config=absent.py']
    ours, theirs = fer_jax(name, *arguments), run('-m', f'fer_jax.{module}', *arguments)
    assert (ours.returncode, ours.stdout, ours.stderr) == (theirs.returncode, theirs.stdout, theirs.stderr)
    assert ours.returncode == 2 and ours.stderr.startswith('fer_jax: ')


def test_another_name_is_refused():
    for done in (fer_jax(), fer_jax('trian')):
        assert done.returncode == 2 and done.stderr.startswith('usage: fer-jax train | evaluate')


def raising(error):
    def command():
        raise error

    return command


def test_a_mistake_becomes_a_line_and_a_status(capsys):
    assert cli.run_command(lambda: None) == 0 and cli.run_command(lambda: 3) == 3
    assert cli.run_command(raising(UserError('wrong'))) == 2
    assert cli.run_command(raising(FileNotFoundError('gone')), OSError) == 2
    assert cli.run_command(raising(Stopped('stopped'))) == 75
    assert capsys.readouterr().err == 'fer_jax: wrong\nfer_jax: gone\nstopped\n'
    with pytest.raises(FileNotFoundError):
        cli.run_command(raising(FileNotFoundError('gone')))
