"""When a phase ends or slows down, by the scores of its evaluations."""

import dataclasses

import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.models.network import ModelSpec, build
from fer_jax.training.freezing import partition
from fer_jax.training.phases import Phase, describe_untrained, evaluation_steps

PHASE = Phase(0, 0, 10, 1.0, *[None] * 4, 64)


@pytest.mark.parametrize('patience', [0, 1, 3])
def test_the_rate_falls_as_torchs_reduce_on_plateau(patience):
    torch = pytest.importorskip('torch')
    phase = dataclasses.replace(PHASE, plateau=(patience, 0.5))
    scores = np.random.default_rng(patience).normal(size=40).round(1).tolist()
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode='max', factor=0.5, patience=patience, threshold=0, eps=0
    )
    for count, score in enumerate(scores, 1):
        schedule.step(score)
        assert phase.scale(scores[:count]) == optimizer.param_groups[0]['lr'], count
    assert phase.scale(scores) < 1


def test_without_a_plateau_the_rate_stays():
    assert PHASE.scale([3, 2, 1, 0]) == 1


@pytest.mark.parametrize(
    ('scores', 'stalled'),
    [([], False), ([5], False), ([5, 4], False), ([5, 4, 5], True), ([5, 4, 6], False), ([1, 5, 4, 6, 6, 6], True)],
)
def test_a_phase_ends_after_two_evaluations_without_a_better_score(scores, stalled):
    assert dataclasses.replace(PHASE, stop_after=2).stalled(scores) == stalled
    assert not PHASE.stalled(scores)


def test_evaluations_are_marked_at_epochs_and_are_not_too_many():
    lengths = {'examples': 100, 'batch_size': 10}
    assert evaluation_steps([dataclasses.replace(PHASE, epochs=2.5)], every=1.0, **lengths) == {10: 1, 20: 2, 25: 2.5}
    with pytest.raises(UserError, match='checkpoint.every=0.001 would evaluate 1,000,000 times in 1000 epochs; raise'):
        evaluation_steps([dataclasses.replace(PHASE, epochs=1000.0)], every=0.001, **lengths)


def test_frozen_stages_that_start_at_random_are_told():
    spec = ModelSpec(name='resnet8_small', classes={'primary': ('a', 'b')}, image_size=32, channels=1)
    network = build(spec)
    tables = [(('head/.*', 1.0), ('.*', 0.0))], [(('.*', 1.0),)], [(('head/.*', 1.0), ('.*', 0.0))]
    phases = [
        dataclasses.replace(PHASE, index=index, partition=partition(list(network.params), network.stages, rates))
        for index, (rates,) in enumerate(tables)
    ]
    (line,) = describe_untrained(phases, network)
    assert line.startswith('WARNING: phase 0 freezes ') and 'head' not in line.split(', which')[0]
    assert not describe_untrained(phases[1:], network)
