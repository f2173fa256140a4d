"""`fer-jax NAME` is `python -m fer_jax.<module>`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fer_jax import __version__, cli
from fer_jax.errors import UserError
from fer_jax.utils.signals import Stopped
from tests.test_layers import COMMANDS

REPOSITORY = Path(__file__).parents[1]


def run(*command):
    return subprocess.run([sys.executable, *command], cwd=REPOSITORY, capture_output=True, text=True, check=False)


def fer_jax(*arguments):
    return run('-m', 'fer_jax.cli', *arguments)


def test_every_command_has_a_name():
    assert {command.module for command in cli.COMMANDS.values()} == COMMANDS


@pytest.mark.parametrize(('name', 'module'), [('checkpoints', 'checkpoints'), ('train', 'main')])
def test_it_does_what_the_module_does(name, module, tmp_path):
    arguments = [str(tmp_path)] if name == 'checkpoints' else ['--config=absent.py']
    ours, theirs = fer_jax(name, *arguments), run('-m', f'fer_jax.{module}', *arguments)
    assert (ours.returncode, ours.stdout, ours.stderr) == (theirs.returncode, theirs.stdout, theirs.stderr)
    assert ours.returncode == 2 and ours.stderr.startswith('fer_jax: ')


def test_it_lists_its_commands(capsys):
    assert cli.main(['--help']) == 0
    told = capsys.readouterr()
    assert not told.err and cli.main([]) == 2
    assert capsys.readouterr() == ('', told.out)
    for name, command in cli.COMMANDS.items():
        assert any(line.split() == [name, *command.help.split()] for line in told.out.splitlines())
    assert cli.main(['--version']) == 0 and capsys.readouterr().out == f'fer_jax {__version__}\n'


def test_another_name_is_refused(capsys):
    assert cli.main(['trian']) == 2
    assert capsys.readouterr().err.startswith("fer_jax: 'trian' is not a command; the nearest is train, of train, ")


@pytest.mark.parametrize('name', cli.COMMANDS)
def test_every_command_has_help(name, capsys):
    try:
        status = cli.main([name, '--help'])
    except SystemExit as ended:
        status = ended.code
    told = capsys.readouterr()
    assert not status and not told.err
    assert told.out.startswith('Trains: `fer-jax train ' if name == 'train' else f'usage: fer-jax {name} ')


@pytest.mark.parametrize('buffered', ['', '1'])
@pytest.mark.parametrize(
    'command', ['cli --help', 'cli checkpoints --help', 'main --help', 'main --help_config', 'checkpoints --help']
)
def test_output_that_nobody_reads_is_no_mistake(command, buffered):
    name, *arguments = command.split()
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run(
        [sys.executable, '-m', f'fer_jax.{name}', *arguments], cwd=REPOSITORY, stdout=theirs, stderr=subprocess.PIPE,
        env=os.environ | {'PYTHONUNBUFFERED': buffered}, check=False,
    )  # fmt: skip
    os.close(theirs)
    assert done.stderr == b''
    assert done.returncode in ((0, 141) if buffered else (141,))  # argparse leaves out what it cannot write


def test_another_broken_pipe_is_told():
    code = 'from fer_jax import cli\ndef main():\n    raise BrokenPipeError("of another")\ncli.run_and_exit(main)'
    done = run('-c', code)
    assert done.returncode == 1 and done.stderr.endswith('BrokenPipeError: of another\n')


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


def test_names_that_are_not_ascii_are_known_in_any_locale(tmp_path):
    """Python takes them for ASCII where its UTF-8 mode is turned off; output and files are UTF-8 all the same."""
    environment = os.environ | {'LC_ALL': 'C', 'PYTHONUTF8': '0'}
    folder = tmp_path / 'donn\u00e9es \u9ad8'
    folder.mkdir()
    (folder / 'config.py').write_text("raise ValueError('\u00e9')", encoding='utf-8')
    command = [sys.executable, '-m', 'fer_jax.cli', 'train', f'--config={folder / "config.py"}']
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, check=False)
    assert done.returncode == 2
    assert f'{folder}/config.py' in done.stderr.decode() and '\u00e9' in done.stderr.decode()
