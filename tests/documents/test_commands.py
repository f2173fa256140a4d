"""Every command in README and docs is parsed by the program that it calls; those that are quick are run, in order."""

import argparse
import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from fer_jax import cli
from fer_jax import main as train_command
from tests.documents.pages import PAGES, REPOSITORY, text_of

MODULES = {command.module: name for name, command in cli.COMMANDS.items()}
PROGRAMS = ('fer-jax', 'scripts/run')
SUFFIXES = ('python', '.sbatch')


class Parsed(Exception):
    """The arguments of a command were accepted."""


def commands_of(page: Path) -> list[list[str]]:
    """Returns the commands of the shell blocks, and the scripts in inline code; those with an ellipsis are left out."""
    blocks = '\n'.join(re.findall(r'```sh\n(.*?)```', text_of(page), re.S)).replace('\\\n', ' ')
    inline = re.findall(r'`(python scripts/[^`[<]*)`', text_of(page))
    lines = [*blocks.splitlines(), *(' '.join(code.split()) for code in inline)]
    commands = []
    for line in lines:
        if 'python -m sphinx' in line or line.startswith('curl'):
            continue
        words = shlex.split(line, comments=True)
        starts = [number for number, word in enumerate(words[:-1]) if word in PROGRAMS or word.endswith(SUFFIXES)]
        if starts and '...' not in words:
            commands.append(words[starts[0] :])
    return commands


def normalised(words: list[str]) -> list[str]:
    """Returns ['fer-jax', NAME, arguments...], or ['python', SCRIPT, arguments...]."""
    program, *rest = words
    if program == 'scripts/run':
        return ['fer-jax', 'train', *(rest or ['--config', 'quickstart'])]
    if program.endswith('.sbatch'):
        own = rest[1:] if 'seeds' in program else rest
        return ['fer-jax', 'train', *own]
    if program.endswith('python') and rest[0] == '-m' and rest[1].startswith('fer_jax.'):
        return ['fer-jax', MODULES[rest[1].removeprefix('fer_jax.')], *rest[2:]]
    return ['python' if program.endswith('python') else program, *rest]


@pytest.fixture
def parse_only(monkeypatch):
    """Commands end when their arguments were accepted."""

    def parsed(parse):
        def wrapper(self, *arguments, **options):
            found = parse(self, *arguments, **options)
            raise Parsed(found)

        return wrapper

    def trained(config):
        raise Parsed(config)

    monkeypatch.setattr(train_command, 'run', trained)
    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', parsed(argparse.ArgumentParser.parse_args))
    monkeypatch.setattr(cli, 'outcome', lambda command: command())


def check(words: list[str], monkeypatch) -> None:
    """Raises where a command would not be understood."""
    program, *rest = words
    if program == 'fer-jax':
        if rest[0] == 'preview':
            return  # its other flags are those of training
        with pytest.raises(Parsed):
            cli.main([*rest])
    elif program == 'python' and rest[0].startswith(('scripts/', 'docs/', 'examples/')):
        assert (REPOSITORY / rest[0]).exists(), rest[0]
        if 'experiments' in rest[0] or 'robustness' in rest[0] or 'benchmarks' in rest[0]:
            monkeypatch.setattr(sys, 'argv', rest)
            with pytest.raises(Parsed):
                runpy.run_path(str(REPOSITORY / rest[0]), run_name='__main__')


@pytest.mark.parametrize('page', [page for page in PAGES if commands_of(page)], ids=str)
def test_every_command_is_understood(page, parse_only, monkeypatch, tmp_path):
    monkeypatch.chdir(REPOSITORY)
    wrong = []
    for words in commands_of(page):
        try:
            check(normalised(words), monkeypatch)
        except BaseException as error:  # pytest's Failed, argparse's SystemExit
            if isinstance(error, SystemExit) and not error.code:
                continue  # --help
            wrong.append((' '.join(words), f'{type(error).__name__}: {error}'))
    assert not wrong


QUICK = [
    'prepare --dataset folder --source data --check',
    'prepare --dataset folder --source data --drop duplicates --keep kept.csv',
    'evaluate --workdir runs/x --split validation',
    'evaluate --workdir runs/x --tta flip',
    'evaluate --workdir runs/x --data other/faces',
    'evaluate --workdir runs/x runs/y',
    'evaluate --workdir runs/x --predictions peer.csv',
    'cross-evaluate --workdir runs/x --workdir runs/y --data other/faces --output matrix.jsonl',
    'report runs/x runs/y --output compare.html',
    'checkpoints runs/x',
    'checkpoints runs/x --digest',
    'predict --workdir runs/x crops/ --faces given',
    'pseudo-label --workdir runs/x --data unlabelled --output round1.csv --threshold 0.9',
    'group --workdir runs/x --data unlabelled --groups 2 --output groups',
    'export --workdir runs/x --format safetensors --output faces.safetensors',
]


@pytest.mark.slow
def test_commands_run(finished, faces, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('x', 'y'):
        shutil.copytree(finished[0], tmp_path / 'runs' / name)
    for name in ('data', 'other/faces', 'crops'):
        shutil.copytree(faces, tmp_path / name)
    Path('unlabelled').mkdir()
    for number, path in enumerate(sorted(faces.rglob('*.png'))[::5]):
        image = Image.open(path)
        image.putpixel((0, 0), 255)  # images of their own
        image.save(f'unlabelled/{number}.png')
    peer_csv(Path('runs/x'), Path('peer.csv'))
    for line in QUICK:
        assert cli.main(shlex.split(line)) == 0, line
    assert Path('kept.csv').exists() and Path('faces.safetensors.md').exists() and Path('compare.html').exists()


def peer_csv(workdir: Path, path: Path) -> None:
    """Writes the predictions of a run as those of another program."""
    import numpy as np

    from fer_jax.runs.data import data_of_run

    data = data_of_run(workdir)['primary']
    rows = [['id', *data.classes]]
    rows += [[name, *map(str, np.full(len(data.classes), 1 / len(data.classes)))] for name in data.splits['test'].ids]
    path.write_text('\n'.join(map(','.join, rows)))
