"""The command line as its users meet it: every mistake is one message and status 2."""

import errno
import functools
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_jax import convert_weights, main
from tests.command import call_main
from tests.torch_reference import torchvision_model
from tests.wait import LIMIT, wait_for

REPOSITORY = Path(__file__).parents[1]
SMALL = [
    '--config=configs/resnet50.py', '--config.model.name=resnet18', '--config.model.weights=scratch',
    '--config.model.image_size=32', '--config.data.name=', '--config.data.batch_size=8', '--config.log_every=1',
]  # fmt: skip


@pytest.fixture
def faces(tmp_path):
    """Two classes of noise, 20 images each."""
    root = tmp_path / 'faces'
    noise = np.random.default_rng(0)
    for name in ('happy', 'sad'):
        (root / name).mkdir(parents=True)
        for index in range(20):
            Image.fromarray(noise.integers(0, 256, (32, 32, 3), np.uint8)).save(root / name / f'{index}.png')
    return root


@pytest.fixture(autouse=True)
def repository(monkeypatch, tmp_path):
    """Configs are named relative to it; nothing of the user's cache is read."""
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv('FER_JAX_CACHE', str(tmp_path / 'cache'))


@pytest.fixture
def run(capsys):
    """The command in this process."""
    return functools.partial(call_main, capsys)


def broken_image(faces, tmp_path):
    for path in (faces / 'sad').iterdir():
        path.write_bytes(path.read_bytes()[:40])


def no_classes(faces, tmp_path):
    for folder in ('happy', 'sad'):
        for path in (faces / folder).iterdir():
            path.unlink()
        (faces / folder).rmdir()


def checkpoints_is_a_file(faces, tmp_path):
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run' / 'checkpoints').write_text('')


def weights_of_another_model(faces, tmp_path):
    from fer_jax import pretrained

    params = {'conv1.kernel': np.zeros((7, 7, 3, 64), np.float32)}
    preprocessing = pretrained.Preprocessing((0.5,) * 3, (0.5,) * 3)
    pretrained.save(tmp_path / 'w.safetensors', pretrained.Weights('resnet50', params, {}, preprocessing, {}))


def config_that_fails(faces, tmp_path):
    (tmp_path / 'broken.py').write_text('def get_config():\n    return undefined\n')


def config_of_nothing(faces, tmp_path):
    (tmp_path / 'bare.py').write_text(
        'from ml_collections import ConfigDict\n\ndef get_config():\n    return ConfigDict({"seed": 0})\n'
    )


@pytest.mark.parametrize(
    ('prepare', 'arguments', 'message'),
    [
        (None, ['--config=configs/absent.py'], "--config='configs/absent.py' is not a file or the name of a config"),
        (None, ['--config=resnt50'], 'the nearest is resnet50, of default, fer2013_lite0'),
        (None, ['--config=vgg16_transfer:both'], "'both' is no form; choose vgg16_transfer or vgg16_transfer:joint"),
        (None, ['--config.seed=1'], '--config is missing'),
        (None, [], '--config is missing'),
        (None, [*SMALL, '--confg=x'], '--confg is not a flag; the nearest is --config'),
        (None, [*SMALL, '--config.model.nam=x'], 'the nearest are --config.model.name'),
        (None, [*SMALL, '--config.phases[7].epochs=1'], 'the nearest are --config.phases[1].epochs'),
        (
            None,
            [*SMALL, '--config.data.batch_size=many'],
            'config.data.batch_size=many; expected a whole number from 1',
        ),
        (None, [*SMALL, '--config.loss=5'], '--config.loss=5; what lies below it has flags of its own'),
        (None, [*SMALL, '--config.batch_size=5'], 'not a config key; the nearest is --config.data.batch_size'),
        (None, ['--epochs', '5'], '--epochs is not a flag; the nearest is --config.phases[0].epochs'),
        (None, [*SMALL, '--lr=1e-3'], 'nearest are --config.phases[1].learning_rate, --config.phases[0].learning_rate'),
        (None, [*SMALL, '--config.lr=1e-3'], 'key; the nearest are --config.phases[1].learning_rate'),
        (None, [*SMALL, '--batch-size', '8'], '--batch-size is not a flag; the nearest is --config.data.batch_size'),
        (None, [*SMALL, '--output_dir=x'], '--output_dir is not a flag; the nearest is --workdir'),
        (None, [*SMALL, '--config.data.shares=(0.5,0.5)'], 'that add up to less than 1'),
        (None, ['--data=absent'], "data.dir='absent' is not a folder"),
        (None, [*SMALL, '--config.phases[0].learning_rate=nan'], 'phases[0].learning_rate=nan; expected a number abo'),
        (None, [*SMALL, '--config.data.items=3'], '--config.data.items is not a config key'),
        (None, [*SMALL, '--noconfig.deterministc'], 'the nearest is --config.deterministic'),
        (None, [*SMALL, '--num_processes=x'], '--num_processes=x: invalid literal'),
        (config_that_fails, ['--config={tmp}/broken.py', '--config.seed=1'], "NameError: name 'undefined'"),
        (None, [*SMALL, '--config.model.name=resnet19'], "model.name='resnet19' is unknown; the nearest are resnet18"),
        (None, [*SMALL, '--config.data.dir=absent'], "data.dir='absent' is not a folder"),
        (no_classes, SMALL, 'has no class folders'),
        (broken_image, SMALL, '--drop unreadable --keep'),
        (checkpoints_is_a_file, SMALL, 'run/checkpoints is a file'),
        (None, [*SMALL, '--config.data.batch_size=64'], 'data.batch_size=64 is larger than the training split, 28'),
        (
            weights_of_another_model,
            [*SMALL, '--config.model.weights={tmp}/w.safetensors'],
            "is of resnet50, model.name is 'resnet18'",
        ),
        (None, [*SMALL, '--config.model.weights=imagenet'], '--config.model.weights=scratch'),
        (
            None,
            [*SMALL, '--config.checkpoint.select=test/accuracy'],
            'the test split is not allowed, its score would be optimistic',
        ),
        (
            None,
            [*SMALL, '--config.checkpoint.select=train/accuracy'],
            'of validation/accuracy, validation/balanced_accuracy',
        ),
        (config_of_nothing, ['--config={tmp}/bare.py'], 'has no model, data, '),
        (None, [*SMALL, '--config.seed=-1'], 'seed=-1; expected a whole number from 0'),
        (None, [*SMALL, '--config.data.splits.validation=test'], 'is the test split'),
        (None, [*SMALL, '--config.data.dir=', '--config.data.name=fer2013'], 'fer_jax.prepare_dataset'),
        (None, [*SMALL, '--config.data.dir=', '--config.data.name=fer2014'], "data set 'fer2014' is unknown"),
        (None, [*SMALL, '--profile', '--seeds=0,1'], '--profile is of one training run'),
        (None, [*SMALL, '--config.phases[0].optimizer=adm'], "optimizer='adm' is unknown; the nearest is adam"),
    ],
)
def test_a_mistake_is_one_message(run, faces, tmp_path, prepare, arguments, message):
    if prepare:
        prepare(faces, tmp_path)
    given = [argument.format(tmp=tmp_path) for argument in arguments]
    if '--config.data.name=' in given and not any(a.startswith('--config.data.dir') for a in given):
        given.append(f'--config.data.dir={faces}')
    done = run(*given, f'--workdir={tmp_path}/run')
    assert done.returncode == 2, done.stderr
    assert message in done.stderr and 'Traceback' not in done.stderr
    assert sum(line.startswith('fer_jax: ') for line in done.stderr.splitlines()) == 1


def test_all_mistakes_are_one_message(run):
    flags = ['--config.data.batch_size', '-many', '--config.loss=5', '--confg=3', '--config.seed=-1', '--folds=some']
    done = run(*SMALL, *flags, '--config.foo=1', '--config.model.name=resnet19', 'extra')
    assert done.returncode == 2
    first, *lines = done.stderr.splitlines()
    assert first == 'fer_jax: there are 8 mistakes:'
    begins = (
        '--config.foo is not a config key', '--config.data.batch_size=-many; expected', '--config.loss=5; what lies',
        'flag --folds=some: value should be one of', '--confg is not a flag; the nearest',
        "unexpected argument 'extra'",
       
        'seed=-1; expected', "model.name='resnet19' is unknown",
    )  # fmt: skip
    for line, begin in zip(lines, begins, strict=True):
        assert line.startswith(f'  {begin}'), line


def test_each_call_has_its_own_flags(monkeypatch):
    """Whatever sys.argv holds, and whatever the call before has given."""
    monkeypatch.setattr(sys, 'argv', ['other', '--config=configs/vgg16.py', '--config.seed=9'])
    seen = []
    monkeypatch.setattr(main, 'run', lambda config: seen.append((config, main.WORKDIR.value, main.SEEDS.value)))
    rates = '--config.phases[0].rates=(("head/.*",0.5),)'
    assert main.main(['x', '--config=resnet50', '--config.seed=3', rates, '--workdir=one', '--seeds=1,2']) == 0
    assert main.main(['x', '--config=resnet50', '--config.data.batch_size', '8', rates.replace('0.5', '0.7')]) == 0
    (first, *where), (second, *then) = seen
    assert (first.seed, first.data.batch_size, first.phases[0].rates) == (3, 64, (('head/.*', 0.5),))
    assert (second.seed, second.data.batch_size, second.phases[0].rates) == (0, 8, (('head/.*', 0.7),))
    assert (where, then) == (['one', ['1', '2']], ['', []])


def test_a_mistake_ends_the_process_with_status_2(tmp_path):
    command = [sys.executable, '-m', 'fer_jax.main', *SMALL, '--config.data.dir=absent', f'--workdir={tmp_path}/run']
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr == "fer_jax: data.dir='absent' is not a folder; expected absent/<class>/<image>\n"


@pytest.mark.slow
def test_a_dry_run_writes_nothing(run, faces, tmp_path):
    done = run(*SMALL, f'--config.data.dir={faces}', f'--workdir={tmp_path}/run', '--dry_run')
    assert done.returncode == 0, done.stderr
    assert 'phase 1: ' in done.stdout and 'GB a device' in done.stdout and 'frozen' in done.stdout
    assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_the_first_command_people_type(run, faces, tmp_path):
    """configs/resnet50.py without weights says what to do, and with converted ones trains."""
    torch = pytest.importorskip('torch')
    common = [
        '--config=configs/resnet50.py', f'--workdir={tmp_path}/run', '--config.data.name=',
        f'--config.data.dir={faces}', '--config.data.batch_size=10', '--config.model.image_size=32',
        '--config.phases[0].epochs=0.3', '--config.phases[1].epochs=0.7', '--config.phases[1].warmup_epochs=0.0',
    ]  # fmt: skip
    done = run(*common)
    assert done.returncode == 2 and '--config.model.weights=scratch' in done.stderr
    torch.save(torchvision_model('resnet50').state_dict(), tmp_path / 'resnet50.pth')
    assert convert_weights.main(['--model=resnet50', f'--source={tmp_path}/resnet50.pth']) == 0
    done = run(*common)
    assert done.returncode == 0, done.stderr
    assert 'test, by class' in done.stdout
    assert done.stdout.count('validation accuracy') >= 2


@pytest.mark.slow
def test_a_run_goes_on_when_nobody_reads_its_output(faces, tmp_path):
    command = [sys.executable, '-m', 'fer_jax.main', *SMALL, f'--config.data.dir={faces}', f'--workdir={tmp_path}/run']
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().startswith('workdir')
        process.stdout.close()
        process.stderr.close()
        assert process.wait(LIMIT) == 0
    assert (tmp_path / 'run' / 'results.json').exists()


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_exits_with_75(faces, tmp_path, number):
    command = [sys.executable, '-m', 'fer_jax.main', *SMALL, f'--config.data.dir={faces}', f'--workdir={tmp_path}/run']
    command += ['--config.phases[0].epochs=2000', '--config.phases[1].epochs=1']
    with (tmp_path / 'log').open('w') as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        records = tmp_path / 'run' / 'timing.jsonl'
        wait_for(lambda: process.poll() is not None or (records.exists() and records.stat().st_size))
        process.send_signal(number)
        assert process.wait(LIMIT) == 75, (tmp_path / 'log').read_text()
    said = (tmp_path / 'log').read_text()
    assert f'stopped by {signal.Signals(number).name} after step' in said and 'Traceback' not in said


def test_a_signal_at_the_very_end_does_not_change_the_status():
    code = 'import atexit, os, signal\nfrom fer_jax import cli\nprint("done")\n'
    code += 'atexit.register(os.kill, os.getpid(), signal.SIGTERM)\n'
    code += 'class Last:\n    def __del__(self, kill=os.kill, me=os.getpid()): kill(me, 10), kill(me, 15)\n'
    code += 'last = Last()\ncli.run_and_exit(lambda: 0)'
    done = subprocess.run([sys.executable, '-c', code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, 'done\n')


@pytest.mark.parametrize(
    ('number', 'remedy'), [(errno.ENOSPC, 'the disk is full: make room'), (errno.EROFS, 'choose another --workdir')]
)
def test_a_disk_that_takes_no_more_is_one_message(monkeypatch, capsys, number, remedy):
    def fail(*_):
        raise OSError(number, os.strerror(number), '/runs/x/metrics.jsonl')

    monkeypatch.setattr(main, 'parse', fail)
    assert main.main(['fer_jax']) == 2
    said = capsys.readouterr().err
    assert said.startswith('fer_jax: [Errno') and '/runs/x/metrics.jsonl' in said and remedy in said
    full = RuntimeError('RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes.\nmore')
    monkeypatch.setattr(main, 'parse', lambda _: (_ for _ in ()).throw(full))
    assert main.main(['fer_jax']) == 2
    assert '9 bytes.; the memory of the device is full: lower data.batch_size' in capsys.readouterr().err
    monkeypatch.setattr(main, 'parse', lambda _: (_ for _ in ()).throw(OSError(errno.EBADF, 'ours')))
    with pytest.raises(OSError, match='ours'):
        main.main(['fer_jax'])
