"""Runs of several processes on this machine, that meet through gloo: as one process, stopped, killed, frozen."""

import hashlib
import json
import shutil
import signal

import numpy as np
import pytest

from fer_jax import evaluate
from fer_jax.runs import checkpoints
from tests.cluster import Run, write_config
from tests.wait import LIMIT


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    return write_config(tmp_path_factory.mktemp('config'))


@pytest.fixture(scope='module')
def whole(config, tmp_path_factory):
    """A run of two processes that is left alone, and what they said."""
    workdir = tmp_path_factory.mktemp('whole') / 'run'
    with Run(config, workdir) as run:
        return workdir, run.ends()


@pytest.fixture(scope='module')
def alone(config, tmp_path_factory):
    """The same in one process of two devices, in double precision."""
    workdir = tmp_path_factory.mktemp('alone') / 'run'
    with Run(config, workdir, '--config.data.placement=stream', count=1, devices=2, double=True) as run:
        assert run.ends()[0][0] == 0
    return workdir


def bits(workdir):
    """Digests of what is the same in runs that end in the same bits."""
    steps = checkpoints.step_folders(workdir / 'checkpoints')
    found = {folder.name: checkpoints.digest(folder) for folder in steps}
    for name in ('metrics.jsonl', 'results.json'):
        found[name] = hashlib.sha256((workdir / name).read_bytes()).hexdigest()
    return found


def records(workdir):
    return [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]


def assert_near(one, other):
    """The records of two runs in double precision differ by what the loss, summed in float32, is rounded by.

    In single precision seventeen steps make 1e-4 of the order in which a processor adds.
    """
    assert len(records(one)) == len(records(other)) > 16
    for ours, theirs in zip(records(one), records(other), strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours.keys() & {'loss', 'nll', 'gradient_norm'}:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-6), (ours['step'], name)
    ours, theirs = (json.loads((workdir / 'results.json').read_text())['splits'] for workdir in (one, other))
    for name, scores in ours.items():
        assert scores['n'] == theirs[name]['n'] == 6  # of a batch of 8


@pytest.mark.slow
def test_one_of_two_processes_speaks_and_writes(whole):
    workdir, (first, second) = whole
    assert (first[0], second[0]) == (0, 0), (first, second)
    assert 'in 2 processes, batch 8' in first[1] and 'selected on validation/accuracy' in first[1]
    assert second[1:] == ('', '')
    assert len(list((workdir / 'tensorboard').iterdir())) == 2 and (workdir / 'report.html').exists()
    assert json.loads((workdir / 'environment.json').read_text())['processes'] == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ('count', 'flags'),
    [
        (2, ('--config.data.placement=stream', '--config.parallel.optimizer=sharded')),
        pytest.param(2, (), marks=pytest.mark.campaign),
        pytest.param(
            4,
            ('--config.data.placement=stream', '--config.parallel.optimizer=sharded'),
            marks=pytest.mark.campaign,
        ),
    ],
)
def test_several_processes_train_as_one(alone, config, tmp_path, count, flags):
    with Run(config, tmp_path / 'run', *flags, count=count, double=True) as run:
        ends = run.ends()
    assert [status for status, _, _ in ends] == [0] * count, ends
    assert_near(alone, tmp_path / 'run')


@pytest.mark.slow
def test_a_signal_to_one_stops_all_and_all_go_on_to_the_same_bits(whole, config, tmp_path, capsys):
    """Stopped twice; then a copy goes on in one process, and is evaluated there."""
    saved = 0
    for which, number in ((1, signal.SIGTERM), (0, signal.SIGUSR1)):
        with Run(config, tmp_path / 'run', pace=1.0) as run:
            run.reach(saved + 2)
            run.processes[which].send_signal(number)
            ends = run.ends()
        assert [status for status, _, _ in ends] == [75, 75], ends
        assert f'stopped by {"another process" if which else "SIGUSR1"} after step' in ends[0][2]
        assert not ends[1][1] and not ends[1][2]
        assert not saved or f'resuming at step {saved} of 17' in ends[0][1]
        saved = int(checkpoints.step_folders(tmp_path / 'run' / 'checkpoints')[-1].name)
    assert saved < 17
    with Run(config, tmp_path / 'run') as run:
        ends = run.ends()
    assert [status for status, _, _ in ends] == [0, 0], ends
    assert f'resuming at step {saved} of 17' in ends[0][1]
    assert bits(tmp_path / 'run') == bits(whole[0])
    assert evaluate.main(['--workdir', str(tmp_path / 'run')]) == 0
    with Run(config, tmp_path / 'run', '--config.phases[0].epochs=5', count=1) as run:
        status, said, error = run.ends()[0]
    assert status == 0, error
    assert 'began on 2 cpu devices in 2 processes, goes on on 1 cpu devices in 1 processes' in said


@pytest.mark.slow
@pytest.mark.parametrize(('which', 'how'), [(0, signal.SIGKILL), (1, signal.SIGSTOP)])
def test_a_process_that_dies_or_freezes_ends_the_other(config, tmp_path, which, how):
    flags = ('--config.phases[0].epochs=1000', f'--config.parallel.lost_after={20 if how == signal.SIGSTOP else 120}')
    with Run(config, tmp_path / 'run', *flags, pace=0.1) as run:
        run.reach(4)
        run.processes[which].send_signal(how)
        other = run.processes[1 - which]
        said = other.communicate(timeout=LIMIT)[1]
    if (which, how) == (0, signal.SIGKILL):  # JAX's service was in it, and may be faster
        assert other.returncode in (69, -signal.SIGABRT)
        assert f'process {which} on' in said or 'another task died' in said
    else:
        assert other.returncode == 69
        assert f'ends: process {which} on' in said and 'the same command goes on' in said


@pytest.mark.slow
def test_a_workdir_that_is_removed_keeps_nobody_waiting(config, tmp_path):
    """What one process cannot write the other waits for."""
    with Run(config, tmp_path / 'run', '--config.phases[0].epochs=1000', '--config.parallel.stuck_after=40') as run:
        run.reach(4)
        shutil.rmtree(tmp_path / 'run')
        ends = run.ends()
    assert all(status in (1, 2, -signal.SIGABRT) for status, _, _ in ends), ends
    said = ''.join(error for _, _, error in ends)
    assert 'was removed, or its disk taken away' in said or 'no checkpoint, for' in said or 'cannot be written' in said


@pytest.mark.slow
def test_a_dry_run_of_two_processes_is_told_by_one(config, tmp_path):
    with Run(config, tmp_path / 'run', '--dry_run') as run:
        (status, said, error), other = run.ends()
    assert status == 0, error
    assert 'in 2 processes, batch 8' in said and 'GB a device' in said and other == (0, '', '')
    assert not (tmp_path / 'run').exists()


def test_a_mistake_is_told_once(config, tmp_path):
    with Run(config, tmp_path / 'run', '--config.data.batch_size=3') as run:
        (status, _, said), other = run.ends()
    assert status == 2 and 'data.batch_size=3 cannot be spread over 2 devices' in said
    assert other == (2, '', '')
    assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_features_are_computed_together(config, tmp_path):
    """A frozen backbone: one process writes the cache, both read it."""
    flags = ('--config.phases[0].cache_views=1', "--config.phases[0].rates=(('head/',1.0),('.*',0.0))")
    flags += ('--config.data.augment.flip=0.0',)
    losses = []
    for name, count in (('two', 2), ('one', 1)):
        with Run(config, tmp_path / name, *flags, count=count, devices=2 // count) as run:
            ends = run.ends()
        assert all(status == 0 for status, _, _ in ends), ends
        losses.append([record['loss'] for record in records(tmp_path / name) if 'loss' in record])
    np.testing.assert_allclose(*losses, rtol=1e-5)
