"""What saves memory changes no result, and the largest batch is the largest."""

import dataclasses
import json
import logging
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from configs import default
from fer_jax.distributed import sharding
from fer_jax.errors import UserError
from fer_jax.models import network
from fer_jax.models.network import ModelSpec
from fer_jax.training import memory, setup, train_state
from fer_jax.training.phase_program import PhaseProgram

COUNT, BATCH, SIZE = 64, 8, 16
STAGES = ('stem', 'layer1', 'layer2', 'layer3')


@pytest.fixture(scope='module')
def faces(tmp_path_factory):
    """Two classes of noise, 64 images."""
    root, draw = tmp_path_factory.mktemp('faces'), np.random.default_rng(0)
    for index in range(COUNT):
        (root / 'ab'[index % 2]).mkdir(exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (SIZE, SIZE), np.uint8)).save(root / 'ab'[index % 2] / f'{index}.png')
    return root


def prepared(faces, rates=default.ALL, dtype='float32', frozen_dtype='float32', remat=()):
    config = default.get_config()
    config.model.update({'name': 'resnet8_small', 'weights': 'scratch', 'image_size': SIZE, 'channels': 1})
    config.model.update({'dropout': 0.3, 'dtype': dtype, 'frozen_dtype': frozen_dtype})
    config.data.update({'name': '', 'dir': str(faces), 'batch_size': BATCH})
    config.parallel.remat = remat
    config.phases = (default.phase(rates=rates, learning_rate=1e-2),)
    return setup.prepare(json.loads(config.to_json()))


def stepped(run, steps=2):
    """(state, fixed) after some steps."""
    phase = run.phases[0]
    program = PhaseProgram(run, phase)
    state, fixed = program.init_state(0, run.initial())
    step = program.step_function()
    for at in range(steps):
        state = step(state, fixed, run.loader.device_data, run.loader.host_batches([at]), 1)
    return jax.device_get(state), fixed


@pytest.mark.slow
def test_stages_computed_again_train_alike(faces):
    """XLA's CPU compiler merges what is computed twice; the program that it is given shows that it would be."""
    runs = prepared(faces), prepared(faces, remat=STAGES)
    one, other = (stepped(run)[0] for run in runs)
    assert one.sums['primary/loss'] == pytest.approx(other.sums['primary/loss'], rel=1e-5)
    assert one.sums['gradient_norm'] == pytest.approx(other.sums['gradient_norm'], rel=1e-4)
    for path, leaf in one.batch_stats.items():
        np.testing.assert_allclose(leaf, other.batch_stats[path], rtol=1e-4, atol=1e-5, err_msg=path)
    texts = [lowered(run) for run in runs]
    assert [text.count('optimization_barrier') for text in texts] == [0, len(STAGES)]
    assert texts[1].count('stablehlo.convolution') > texts[0].count('stablehlo.convolution')


def lowered(run):
    phase = run.phases[0]
    program = PhaseProgram(run, phase)
    step = program.jitted_step()
    return step.lower(*program.init_state(0, run.initial()), *program.abstract_batch()).as_text()


def test_a_stage_that_is_none_is_one_message(faces):
    with pytest.raises(UserError, match='no stage layer9; choose of stem, layer1'):
        prepared(faces, remat=('stem', 'layer9'))


@pytest.mark.slow
@pytest.mark.parametrize(('dtype', 'tolerance'), [('float32', 2e-2), ('bfloat16', 1e-3)])
def test_frozen_kernels_in_half_the_width_train_alike(faces, dtype, tolerance):
    """Nearly to the bit where the network computes in bfloat16: it rounds them at every use anyway."""
    runs = [prepared(faces, default.HEAD_ONLY, dtype, kept) for kept in ('float32', 'bfloat16')]
    (one, whole), (other, half) = map(stepped, runs)
    assert one.sums['primary/loss'] == pytest.approx(other.sums['primary/loss'], rel=tolerance, abs=0)
    sizes = [sum(leaf.nbytes for leaf in fixed.frozen.values()) for fixed in (whole, half)]
    assert sizes[1] < 0.51 * sizes[0]
    scored = train_state.eval_variables(other, half).params
    assert {leaf.dtype for leaf in scored.values()} == {np.dtype('float32')}
    np.testing.assert_allclose(scored['conv1.kernel'], whole.frozen['conv1.kernel'], rtol=2**-8)
    assert not np.array_equal(scored['conv1.kernel'], whole.frozen['conv1.kernel'])


@pytest.mark.parametrize('budget', [10, 600, 5_000, 123_456, 10**9])
@pytest.mark.parametrize('step', [1, 16, 500])
def test_the_largest_count_within_a_budget(budget, step):
    def needed(count):
        asked.append(count)
        return 500 + 37 * count + 20 * step * (count // step)

    asked: list[int] = []
    found = memory.largest(needed, budget, 20_000)
    fits = [count for count in range(1, 20_001) if 500 + 37 * count + 20 * step * (count // step) <= budget]
    best = max(fits, default=0)
    assert best / (1 + memory.EXACT_SHARE) - 1 <= found <= best or (found == 0) == (best == 0) and step == 500
    assert len(asked) <= memory.MOST_COMPILATIONS and (found == 0 or found in fits)


def test_the_largest_batch_is_that_of_the_phase_that_needs_most(faces, monkeypatch, capsys):
    config = default.get_config()
    config.update({key: value for key, value in prepared(faces).config.items() if key != 'phases'})
    config.phases = (default.phase(rates=default.HEAD_ONLY), default.phase(accumulate=2))
    monkeypatch.setattr(memory, 'needs', lambda run, phase: lambda size: (1 + 9 * phase.index) * size * 10**6)
    monkeypatch.setattr(memory.loader, 'free_memory', lambda _: 10**9)
    found = memory.largest_batch(json.loads(config.to_json()))
    assert found == 44 and f'--config.data.batch_size={found}' in capsys.readouterr().out  # of 54: all images of train


def test_gpus_without_bfloat16_compute_in_float32_and_say_so(monkeypatch, caplog):
    cards = {'7.0': False, '7.5': False, '8.0': True, '9.0': True, '10.0': True, 'gfx90a': True}
    for capability, computes in cards.items():
        assert sharding.computes_bfloat16(SimpleNamespace(compute_capability=capability)) == computes
    assert sharding.computes_bfloat16(jax.devices()[0])
    spec = ModelSpec('resnet8_small', {'primary': ('a', 'b')}, SIZE, dtype='bfloat16')
    assert network.build(spec).spec == spec
    card = SimpleNamespace(compute_capability='7.5', device_kind='Tesla T4')
    monkeypatch.setattr(network.jax, 'devices', lambda: [card])
    with caplog.at_level(logging.WARNING, 'fer_jax'):
        assert network.build(spec).spec == dataclasses.replace(spec, dtype='float32')
    assert 'Tesla T4 does not compute in bfloat16' in caplog.text
