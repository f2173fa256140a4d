"""Short forms of the campaigns of scripts/robustness/kills.py, and that these notice what is lost."""

import json
import time

import pytest

from fer_jax.runs import checksums
from scripts.robustness import damaged_checkpoints, kills


@pytest.fixture(scope='module')
def work(tmp_path_factory):
    """Where the campaigns lie; the ResNet-18 that is damaged is made once."""
    return tmp_path_factory.mktemp('work')


def test_damage_of_every_sort_is_found(work, tmp_path, capsys):
    output = tmp_path / 'flips.jsonl'
    assert kills.flips(work, output, count=1, seed=0) == 0
    assert [json.loads(line)['sort'] for line in output.read_text().splitlines()] == list(damaged_checkpoints.SORTS)
    assert '| zeroed page | 1 | 1 |' in capsys.readouterr().out
    before = output.read_bytes()
    assert kills.flips(work, output, count=1, seed=0) == 0
    assert output.read_bytes() == before  # it goes on, and all is done


def test_damage_that_nobody_looks_for_is_told(work, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(checksums, 'find_damage', lambda folder: '')
    assert kills.flips(work, tmp_path / 'flips.jsonl', count=1, seed=0) == 1
    assert 'step 2 is used' in capsys.readouterr().out


class Pretended(kills.Campaign):
    """Runs that write what `said` and `saved` say, a process after another, and come to ends of their own."""

    def __init__(self, name, work, script):
        super().__init__(name, work, work / 'out.jsonl', 0, ['everything'])
        self.script = iter(script)

    def reference(self, kind):
        return {'ready': 0.0, 'seconds': 1.0, 'outcome': {'checkpoint 2': 'good'}}

    def start(self, kind, folder, delay):
        status, said, saved = next(self.script)
        time.sleep(0.02)  # the clock of files is coarse
        board = folder / 'run' / 'tensorboard'
        board.mkdir(parents=True, exist_ok=True)
        (board / str(saved)).write_text('')
        (folder / 'run' / 'metrics.jsonl').write_text(f'{{"step": {saved}}}\n')
        step = folder / 'run' / 'checkpoints' / str(saved)
        step.mkdir(parents=True, exist_ok=True)
        checksums.write_checksums(step)
        return status, said


def stopped(step):
    return f'stopped by SIGTERM after step {step}, saved; the same command'


@pytest.mark.parametrize(
    ('name', 'script', 'ends', 'wrong'),
    [
        ('kills', [(-9, '', 1), (-9, 'resuming at step 1 of 2', 1), (0, 'resuming at step 1 of 2', 2)], 'good', ''),
        ('kills', [(-9, '', 1), (0, 'resuming at step 1 of 2', 2)], 'bad', 'differs in checkpoint 2'),
        ('kills', [(-9, '', 1), (0, '', 2)], 'good', 'resumed at 0, 1 was saved'),
        ('kills', [(-9, '', 1), (1, 'Traceback', 2)], 'good', 'exit status 1'),
        ('signals', [(75, stopped(1), 1), (0, 'resuming at step 1 of 2', 2)], 'good', ''),
        ('signals', [(75, stopped(2), 1), (0, 'resuming at step 1 of 2', 2)], 'good', 'step 1 is not saved'),
        ('signals', [(75, stopped(1), 1), (-15, '', 1), (0, 'resuming at step 1 of 2', 2)], 'good', ''),
        ('signals', [(-15, 'workdir', 1), (0, 'resuming at step 1 of 2', 2)], 'good', 'exit status -15'),
    ],
)
def test_what_is_lost_is_told(tmp_path, monkeypatch, capsys, name, script, ends, wrong):
    monkeypatch.setattr(kills, 'outcome', lambda workdir: {'checkpoint 2': ends})
    interrupted = sum(status in (-9, 75) for status, _, _ in script)
    if wrong.startswith('exit'):
        script = [*script, (75 if name == 'signals' else -9, stopped(1), 1), (0, 'resuming at step 1 of 2', 2)]
        interrupted += 1 if name == 'kills' else 0
    campaign = Pretended(name, tmp_path, script)
    assert campaign.run(max(1, interrupted)) == int(bool(wrong))
    assert wrong in capsys.readouterr().out


@pytest.mark.campaign
def test_a_killed_run_ends_in_the_same_bits(work, capsys):
    campaign = kills.Campaign('kills', work, work / 'kills.jsonl', 0, ['feature_cache'])
    assert campaign.run(1) == 0
    assert '| feature_cache | 1 |' in (said := capsys.readouterr().out) and ' 0 wrong' in said
