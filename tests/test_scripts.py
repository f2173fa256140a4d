"""scripts/run and scripts/test in copies of the repository; nothing is installed, a stand-in for pip keeps a diary."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fer_jax import models
from tests.wait import LIMIT, wait_for

REPOSITORY = Path(__file__).parents[1]

# An interpreter whose `-m pip` and `-m venv` write down their arguments; `-m venv FOLDER` puts itself there.
PYTHON = f"""#!/bin/bash
case "$1 $2" in
  "-m pip") [ "$3" = --version ] || {{ echo "pip $*" >>"$DIARY"; [ ! -e "$DIARY.fails" ]; }} ;;
  "-m venv")
    echo "venv" >>"$DIARY"
    while [ -e "$DIARY.holds" ]; do sleep 0.1; done
    mkdir -p "$4/bin" && touch "$4/pyvenv.cfg" && cp "$0" "$4/bin/python" ;;
  *) exec {sys.executable} "$@" ;;
esac
"""
OLD_PYTHON = f"""#!/bin/bash
exec {sys.executable} -c 'import sys; sys.version_info = (3, 8, 18); exec(sys.argv.pop(1))' "${{@:2}}"
"""


def executable(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


class Sandbox:
    """A copy of the repository without environment, and a PATH on which the only Pythons are those put there."""

    def __init__(self, folder: Path) -> None:
        self.repository = folder / 'a copy'
        self.bin = folder / 'bin'
        self.diary = folder / 'diary'
        self.bin.mkdir()
        self.elsewhere = folder / 'elsewhere'
        self.elsewhere.mkdir()
        for name in ('bash', 'cat', 'cksum', 'cp', 'dirname', 'flock', 'mkdir', 'rm', 'sleep', 'touch'):
            if found := shutil.which(name):
                (self.bin / name).symlink_to(found)
        for name in ('fer_jax', 'scripts', 'configs'):
            shutil.copytree(REPOSITORY / name, self.repository / name)
        for name in ('pyproject.toml', 'constraints.txt'):
            shutil.copy(REPOSITORY / name, self.repository / name)

    def command(self, script: str, *arguments: str) -> list[str]:
        return [str(self.repository / 'scripts' / script), *arguments]

    def environment(self, **variables: str) -> dict[str, str]:
        own = {'PATH': str(self.bin), 'DIARY': str(self.diary), 'FER_JAX_CUDA': '0', 'PYTHONPATH': str(self.repository)}
        return {'HOME': os.environ.get('HOME', '/'), **own, **variables}

    def __call__(self, script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(script, *arguments),
            env=self.environment(**variables),
            cwd=self.elsewhere,
            capture_output=True,
            text=True,
        )

    def diary_since(self) -> list[str]:
        """What was installed since the last call."""
        lines = self.diary.read_text().splitlines() if self.diary.exists() else []
        self.diary.unlink(missing_ok=True)
        return lines


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    return Sandbox(tmp_path)


def test_active_environment_runs_this_checkout_and_installs_nothing(sandbox):
    executable(sandbox.bin / 'python', PYTHON)
    main = sandbox.repository / 'fer_jax' / 'main.py'
    main.write_text('print(__file__)\n' + main.read_text())
    result = sandbox('run', '--help', FER_JAX_ENV='active', PYTHONPATH='')
    assert result.returncode == 0
    assert result.stdout.startswith(f'{main}\n')
    assert '--workdir' in result.stdout
    assert f'using the active environment: {sandbox.bin}/python, Python {sys.version_info[0]}.' in result.stderr
    assert sandbox.diary_since() == []
    assert not (sandbox.repository / '.venv').exists()


def test_active_environment_without_the_packages_is_one_message(sandbox):
    bare = f'#!/bin/bash\nexec {sys.executable} -S -E "$@"\n'
    executable(sandbox.bin / 'python', bare)
    result = sandbox('test', FER_JAX_ENV='active')
    assert result.returncode == 2
    assert result.stderr.count('\n') == 1
    assert 'without jax, flax, pytest, xdist' in result.stderr


@pytest.mark.parametrize('variables', [{}, {'FER_JAX_ENV': 'active'}, {'PYTHON': 'python3.12'}])
def test_too_old_python_is_one_message(sandbox, variables):
    for name in ('python', 'python3', 'python3.12'):
        executable(sandbox.bin / name, OLD_PYTHON)
    result = sandbox('run', '--help', **variables)
    assert result.returncode == 2
    assert result.stderr.count('\n') == 1
    assert 'Python 3.8.18, too old' in result.stderr
    assert '3.11 or newer' in result.stderr
    assert result.stdout == ''


def test_no_python_is_one_message(sandbox):
    result = sandbox('run')
    assert result.returncode == 2
    assert 'found none' in result.stderr
    assert result.stderr.count('\n') == 1


def test_installs_once(sandbox):
    executable(sandbox.bin / 'python3', PYTHON)
    executable(sandbox.bin / 'python3.12', OLD_PYTHON)
    assert '--workdir' in sandbox('run', '--help').stdout
    first = sandbox.diary_since()
    assert first[0] == 'venv'
    assert len(first) == 2
    assert first[1].startswith('pip -m pip install')
    assert first[1].endswith('--editable .')

    again = sandbox('run', '--help')
    assert '--workdir' in again.stdout
    assert again.stderr == ''
    assert sandbox.diary_since() == []


def test_installs_again_where_something_changed(sandbox):
    executable(sandbox.bin / 'python3', PYTHON)
    sandbox('run', '--help')
    sandbox.diary_since()

    assert 'pytest' in sandbox('test', '--version').stdout
    assert [line.split()[-1] for line in sandbox.diary_since()] == ['.[test]']
    sandbox('run', '--help')
    assert sandbox.diary_since() == []

    sandbox('run', '--help', FER_JAX_CUDA='1')
    assert [line.split()[-1] for line in sandbox.diary_since()] == ['.[cuda12]']

    constraints = sandbox.repository / 'constraints.txt'
    constraints.write_text(constraints.read_text() + '\n# changed\n')
    sandbox('run', '--help')
    assert len(sandbox.diary_since()) == 1

    (sandbox.repository / '.venv' / 'bin' / 'python').unlink()
    sandbox('run', '--help')
    assert sandbox.diary_since()[0] == 'venv'


def test_a_failed_installation_is_tried_again(sandbox):
    executable(sandbox.bin / 'python3', PYTHON)
    sandbox('run', '--help')
    sandbox.diary_since()

    fails = sandbox.diary.with_suffix('.fails')
    fails.touch()
    result = sandbox('test', '--version')
    assert result.returncode == 1
    assert 'installation failed' in result.stderr
    fails.unlink()
    sandbox.diary_since()
    sandbox('run', '--help')  # what it had before may be half gone
    assert len(sandbox.diary_since()) == 1
    sandbox('test', '--version')
    assert len(sandbox.diary_since()) == 1


@pytest.mark.skipif(not shutil.which('flock'), reason='no flock here')
def test_two_at_once_install_once(sandbox):
    executable(sandbox.bin / 'python3', PYTHON)
    holds = sandbox.diary.with_suffix('.holds')
    holds.touch()
    where = {'env': sandbox.environment(), 'cwd': sandbox.elsewhere, 'text': True}
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE}
    with subprocess.Popen(sandbox.command('run', '--help'), **pipes, **where) as first:
        wait_for(sandbox.diary.exists)
        with subprocess.Popen(sandbox.command('run', '--help'), **pipes, **where) as second:
            assert 'waiting for another installation' in second.stderr.readline()
            holds.unlink()
            for running in (first, second):
                assert 'waiting' not in running.communicate(timeout=LIMIT)[1] and running.returncode == 0
    assert len(sandbox.diary_since()) == 2


def test_a_folder_that_is_no_environment_is_left_alone(sandbox):
    executable(sandbox.bin / 'python3', PYTHON)
    (sandbox.elsewhere / 'precious').mkdir()
    result = sandbox('run', FER_JAX_ENV='precious')
    assert result.returncode == 2
    assert f'{sandbox.elsewhere}/precious exists and is not a Python environment' in result.stderr
    assert (sandbox.elsewhere / 'precious').is_dir()
    assert sandbox.diary_since() == []


def test_flags_status_and_signals_go_through(sandbox):
    (sandbox.repository / 'fer_jax' / 'main.py').write_text(
        'import os, sys, time\nprint(os.getcwd(), *sys.argv[1:], flush=True)\n'
        "if 'wait' in sys.argv: print(os.getpid(), flush=True), time.sleep(600)\nsys.exit(75)\n"
    )
    executable(sandbox.bin / 'python3', PYTHON)
    result = sandbox('run', '--workdir', 'runs/a b')
    assert (result.returncode, result.stdout) == (75, f'{sandbox.elsewhere} --workdir runs/a b\n')
    assert sandbox('run').stdout == f'{sandbox.elsewhere} --config {sandbox.repository}/configs/quickstart.py\n'

    where = {'env': sandbox.environment(), 'cwd': sandbox.elsewhere}
    with subprocess.Popen(sandbox.command('run', 'wait'), stdout=subprocess.PIPE, text=True, **where) as running:
        assert running.stdout is not None
        assert 'wait' in running.stdout.readline()
        assert int(running.stdout.readline()) == running.pid  # no shell in between to swallow a signal
        running.send_signal(signal.SIGTERM)
        assert running.wait(timeout=LIMIT) == -signal.SIGTERM


def test_every_network_stands_in_the_table_of_networks():
    text = (REPOSITORY / 'docs' / 'reference' / 'networks.md').read_text()
    rows = {line.split('`')[1]: line for line in text.splitlines() if line.startswith('| `')}
    assert list(rows)[1:] == list(models.NAMES)  # after the line of titles
    assert '11,689,512' in rows['resnet18'] and '55,843,464' in rows['inception_resnet_v2']  # as published
