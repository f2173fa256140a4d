"""What a phase trains, and at which size."""

import json

import jax
import numpy as np
import pytest

import fer_jax
from configs import default
from fer_jax.errors import UserError
from fer_jax.models.parameters import Variables
from fer_jax.training import setup
from fer_jax.training.phase_program import PhaseProgram
from tests.small_run import config_of


@pytest.mark.slow
def test_frozen_parameters_and_statistics_stand_still(faces, tmp_path):
    """Fifty steps of a last stage and head leave every leaf below bit-identical, and move every leaf above."""
    config = config_of(faces)
    config.phases = (
        default.phase(epochs=12, rates=default.train_from('layer3', 'head'), optimizer='adamw', weight_decay=0.1),
    )
    run = setup.prepare(json.loads(config.to_json()))
    params, stats = run.initial()
    before = jax.device_get((params, stats))
    phase = run.phases[0]
    program = PhaseProgram(run, phase)
    state, fixed = program.init_state(0, Variables(params, stats))
    assert {leaf.shape for leaf in jax.tree.leaves(state.opt_state)} == {()} | {
        leaf.shape for leaf in state.trainable.values()
    }
    step = program.step_function()
    for index in range(50):
        state = step(state, fixed, run.loader.device_data, run.loader.host_batches([index]), 1)
    for path, leaf in (state.trainable | fixed.frozen).items():
        moved = not np.array_equal(leaf, before[0][path])
        assert moved == path.startswith(('layer3', 'head')), path
    for path, leaf in state.batch_stats.items():
        assert (not np.array_equal(leaf, before[1][path])) == path.startswith('layer3'), path


@pytest.mark.slow
def test_a_phase_trains_at_a_size_of_its_own(faces):
    """Half the side, a quarter of the FLOPs; the network is evaluated at its own."""
    config = config_of(faces)
    config.model.image_size = 64
    config.phases = tuple(default.phase(rates=default.HEAD_ONLY, image_size=size) for size in (32, 0))
    run = setup.prepare(json.loads(config.to_json()))
    assert [phase.image_size for phase in run.phases] == [32, 64] and run.network.spec.image_size == 64
    costs = []
    for phase in run.phases:
        program = PhaseProgram(run, phase)
        state, fixed = program.init_state(0, run.initial())
        lowered = program.jitted_step().lower(state, fixed, run.loader.device_data, run.loader.host_batches([0]), 1)
        costs.append(lowered.compile().cost_analysis()['flops'])
    assert costs[0] == pytest.approx(costs[1] / 4, rel=0.1)
    config.phases[0].image_size = 65
    with pytest.raises(UserError, match=r'phases\[0\].image_size=65; expected 0 .the same., or 8 up to'):
        setup.prepare(json.loads(config.to_json()))


@pytest.mark.slow
def test_a_phase_whose_scores_stall_ends_early(faces, tmp_path, capsys):
    """At a rate of nothing no evaluation is better than the first; the next phase begins where it would have."""
    config = config_of(faces, epochs=6, learning_rate=1e-9, stop_after=2)
    config.phases[1].epochs = 1
    fer_jax.train(config, tmp_path)
    records = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
    steps = {(record['phase'], record['step']) for record in records if record['split'] == 'validation'}
    assert steps == {(0, 5), (0, 9), (0, 13), (1, 29)}
    assert 'phase 0 ends early: 2 evaluations brought no better accuracy' in capsys.readouterr().out
    before = (tmp_path / 'metrics.jsonl').read_bytes()
    fer_jax.train(config, tmp_path)
    assert (tmp_path / 'metrics.jsonl').read_bytes() == before
