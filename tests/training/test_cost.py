"""Compiled FLOPs of a training step."""

import functools
import json

import jax
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

import fer_jax
from configs import default
from fer_jax import models
from fer_jax.models.parameters import Variables, merge_module
from fer_jax.training import setup
from fer_jax.training.phase_program import PhaseProgram
from fer_jax.training.train_state import FrozenState
from tests.small_run import config_of


@pytest.mark.slow
@pytest.mark.parametrize(
    ('model', 'last'),
    [
        ('resnet18', ('layer4', 'head')),
        pytest.param('resnet50', ('layer4', 'head'), marks=pytest.mark.campaign),
        pytest.param('vgg16', ('block5', 'fc6', 'fc7', 'head'), marks=pytest.mark.campaign),
        pytest.param('efficientnet_lite0', ('blocks6', 'conv_head', 'head'), marks=pytest.mark.campaign),
    ],
)
def test_a_step_costs_a_forward_pass_and_the_backward_pass_of_what_trains(faces, model, last):
    """Compiled FLOPs, with clipping and the gradient's norm; the images are at model size and not augmented."""
    size = 64
    config = config_of(faces)
    config.model.update({'name': model, 'image_size': size, 'channels': 3, 'dropout': 0.0})
    config.data.augment = ConfigDict({})
    config.data.batch_size = 8
    config.phases = tuple(
        default.phase(rates=rates, clip=1.0) for rates in (default.HEAD_ONLY, default.train_from(*last), default.ALL)
    )
    run = setup.prepare(json.loads(config.to_json()))
    images = np.zeros((8, size, size, 3), np.uint8)
    batch = {'x': images[None], 'y': np.zeros((1, 8), np.int32), 'weight': np.ones((1, 8), np.float32)}
    params, stats = run.network.params, run.network.batch_stats

    def flops(function, *arguments):
        return jax.jit(function).lower(*arguments).compile().cost_analysis()['flops']

    def up_to(stage, params, stats, x):
        network = merge_module(run.network.graphdef, Variables(params, stats))
        return models.run(network, run.network.normalise(x.astype(np.float32)), stop=stage)

    costs, expected = [], []
    for phase in run.phases:
        trainable, frozen = phase.partition.split(params)
        create = functools.partial(fer_jax.training.train_state.create, 0, tx=phase.tx, tasks=['primary'])
        state = jax.eval_shape(create, trainable, stats)
        step = PhaseProgram(run, phase).jitted_step()
        costs.append(
            flops(
                step,
                state,
                FrozenState(frozen, {}),
                {'primary': {}},
                {'primary': batch},
                1,
            )
        )
        below = functools.partial(up_to, phase.partition.boundary)
        x = jax.eval_shape(below, params, stats, images)

        def loss(trainable, frozen, stats, x, phase=phase):
            where = {'start': phase.partition.boundary, 'train': phase.partition.stages, 'key': jax.random.key(0)}
            logits, stats, _ = run.network.forward(Variables(trainable | frozen, stats), x, **where)
            return -jax.nn.log_softmax(logits['primary'])[:, 0].mean(), stats

        def update(gradients, state, phase=phase):
            updates, opt_state = phase.tx.update(gradients, state.opt_state, state.trainable)
            return optax.apply_updates(state.trainable, updates), opt_state, optax.tree.norm(gradients)

        forward = (
            0 if phase.partition.boundary == next(iter(run.network.stages)) else flops(below, params, stats, images)
        )
        backward = flops(jax.value_and_grad(loss, has_aux=True), trainable, frozen, stats, x)
        expected.append(forward + backward + flops(update, trainable, state))
    assert costs == pytest.approx(expected, rel=0.02)
    alone = flops(functools.partial(up_to, None), params, stats, images)
    assert costs[0] == pytest.approx(alone, rel=0.02)
    assert costs[2] > 2.3 * alone
