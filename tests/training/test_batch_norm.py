"""Which BatchNorms take the statistics of the batch, and that a batch has some."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import default
from fer_jax.errors import UserError
from fer_jax.models.layers import BatchNorm
from fer_jax.training import setup
from fer_jax.training.parameter_table import parameter_table
from fer_jax.training.phase_program import PhaseProgram
from tests.small_run import config_of

KERNELS_ALONE = ((r'(stem|layer\d)/.*(scale|bias)', 0.0), ('.*', 1.0))
ABOVE = (('(stem|layer1)/.*(scale|bias)', 0.0), ('.*', 1.0))


def prepared(faces, **fields):
    config = config_of(faces)
    config.data.batch_size = fields.pop('batch_size', 16)
    config.model.image_size = fields.pop('image_size', 32)
    config.joint = fields.pop('joint', {})
    config.phases = (default.phase(**fields),)
    return setup.prepare(json.loads(config.to_json()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ('fields', 'moves', 'shown'),
    [
        ({}, {'stem', 'layer1', 'layer2', 'layer3'}, '| train x 1 '),
        ({'rates': KERNELS_ALONE}, set(), '| train x 0, 1, BatchNorm frozen '),
        ({'rates': KERNELS_ALONE, 'batch_norm': 'train'}, {'stem', 'layer1', 'layer2', 'layer3'}, '| train x 0, 1 '),
        ({'rates': ABOVE}, {'layer2', 'layer3'}, '| train x 0, 1, BatchNorm frozen '),
        ({'batch_norm': 'frozen'}, set(), '| train x 1, BatchNorm frozen '),
        ({'rates': default.train_from('layer3', 'head'), 'batch_norm': 'train'}, {'layer3'}, '| frozen '),
    ],
)
def test_statistics_move_where_the_batch_is_normalised_by_its_own(faces, fields, moves, shown):
    run = prepared(faces, optimizer='sgd', learning_rate=1e-2, **fields)
    program = PhaseProgram(run, run.phases[0])
    variables = run.initial()
    before = jax.device_get(variables)
    state, fixed = program.init_state(0, variables)
    state = program.step_function()(state, fixed, run.loader.device_data, run.loader.host_batches([0]), 1)
    moved = {path for path, leaf in state.batch_stats.items() if not np.array_equal(leaf, before.batch_stats[path])}
    stage = {path: 'stem' if path.startswith('bn1') else path.split('.')[0] for path in state.batch_stats}
    assert moved == {path for path in stage if stage[path] in moves}
    still = {path for path, leaf in state.trainable.items() if np.array_equal(leaf, before.params[path])}
    assert not still
    assert shown in parameter_table(run.network, run.phases)


@pytest.mark.parametrize(
    'fields',
    [
        {'batch_size': 4, 'accumulate': 4, 'image_size': 8},
        {'batch_size': 1, 'image_size': 8},
        {'batch_size': 1, 'image_size': 8, 'rates': default.train_from('layer3', 'head')},
    ],
)
def test_one_value_a_channel_is_refused_before_a_step(faces, fields):
    message = r'phases\[0\]: BatchNorm .* one value a channel, and gets \[1, 1, 1, \d+\], in layer3 of resnet8_small'
    with pytest.raises(UserError, match=message + r'.*one image of 8 px \(data.batch_size=\d, accumulate=\d\)'):
        prepared(faces, **fields)


def test_a_phase_of_smaller_images_is_refused_too(faces):
    config = config_of(faces)
    config.data.batch_size = 1
    config.phases = (default.phase(), default.phase(image_size=8))
    with pytest.raises(UserError, match=r'phases\[1\]: BatchNorm'):
        setup.prepare(json.loads(config.to_json()))


@pytest.mark.parametrize(
    'fields',
    [
        {'batch_size': 1, 'image_size': 16},
        {'batch_size': 2, 'image_size': 8},
        {'batch_size': 1, 'image_size': 8, 'batch_norm': 'frozen'},
        {'batch_size': 1, 'image_size': 8, 'rates': default.HEAD_ONLY},
        {'batch_size': 1, 'image_size': 8, 'rates': KERNELS_ALONE},
    ],
)
def test_what_has_statistics_is_not_refused(faces, fields):
    assert prepared(faces, **fields).phases


def test_images_of_a_joint_task_count(faces):
    joint = {'other': default.task(0.5, name='', dir=str(faces), batch_size=1)}
    assert prepared(faces, batch_size=1, image_size=8, joint=joint).phases


def test_the_layer_itself_refuses():
    with pytest.raises(UserError, match=r'more than one value a channel, and gets \[1, 1, 1, 3\]'):
        BatchNorm(3)(jnp.ones((1, 1, 1, 3)), train=True)
    assert BatchNorm(3)(jnp.ones((1, 1, 1, 3)), train=False).shape == (1, 1, 1, 3)
