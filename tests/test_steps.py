"""The training step on a linear classifier, whose loss and gradient have a closed form."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fer_jax import losses, train_state
from fer_jax.data.augment import Augment, augment_batch
from fer_jax.network import PRIMARY
from fer_jax.steps import train_step

COUNT, SIZE, CLASSES, RATE = 24, 6, 3, 0.5
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, SIZE, SIZE, 1), np.uint8)
LABELS = (np.arange(COUNT) % CLASSES).astype(np.int32)
KERNEL = np.random.default_rng(1).normal(size=(SIZE * SIZE, CLASSES)).astype(np.float32)


def forward(params, stats, x, **_):
    return {PRIMARY: x.reshape(len(x), -1) @ params['kernel']}, stats


NETWORK = SimpleNamespace(
    spec=SimpleNamespace(image_size=SIZE, classes={PRIMARY: tuple('abc')}), forward=forward, normalise=lambda x: x / 255
)


def stepped(settings, **loss):
    tx = optax.sgd(RATE)
    state = train_state.create(5, {'kernel': jnp.asarray(KERNEL)}, {}, tx)
    step = functools.partial(
        train_step,
        network=NETWORK,
        partition=SimpleNamespace(stages=frozenset()),
        loss=losses.make('cross_entropy', **loss),
        tx=tx,
        settings=settings,
        image_size=SIZE,
        seed=3,
    )
    run = jax.jit(step, compiler_options={'xla_backend_optimization_level': 0})  # compiled quickly
    state = run(state, {}, {}, {'x': IMAGES, 'y': LABELS, 'weight': np.ones(COUNT, np.float32)})
    return np.asarray(state.trainable['kernel']), {name: float(value) for name, value in state.sums.items()}


def closed_form(images, targets, weights):
    """(loss, gradient, correct) of a softmax regression with targets [B, C] and one weight an example."""
    x = np.asarray(images, float).reshape(COUNT, -1) / 255
    odds = np.exp(x @ KERNEL)
    shares = odds / odds.sum(1, keepdims=True)
    loss = -(weights * (targets * np.log(shares)).sum(1)).sum() / weights.sum()
    gradient = x.T @ (weights[:, None] * (shares - targets)) / weights.sum()
    return loss, gradient, (shares.argmax(1) == targets.argmax(1)).sum()


def assert_step(result, loss, gradient, correct):
    kernel, sums = result
    np.testing.assert_allclose(kernel, KERNEL - RATE * gradient, atol=1e-4)
    assert sums == {
        'loss': pytest.approx(loss, rel=1e-4),
        'correct': pytest.approx(correct),
        'weight': COUNT,
        'steps': 1,
    }


@pytest.mark.parametrize('settings', [Augment(mixup=0.4), Augment(flip=0.5, cutmix=1.0)])
def test_mixed_targets_are_learnt_and_counted_by_their_largest_share(settings):
    key = jax.random.split(jax.random.fold_in(jax.random.key(3), 5))[0]
    batch = jax.jit(augment_batch, static_argnames=('size', 'classes', 'settings'))
    images, targets = batch(IMAGES, LABELS, key, size=SIZE, classes=CLASSES, settings=settings)
    assert targets.shape == (COUNT, CLASSES)
    expected = closed_form(images, np.asarray(targets), np.ones(COUNT))
    assert_step(stepped(settings), *expected)


def test_labels_that_are_not_mixed_keep_their_class_weights():
    weights = np.array([0.5, 1.0, 3.0])
    expected = closed_form(IMAGES, np.eye(CLASSES)[LABELS], weights[LABELS])
    assert_step(stepped(Augment(), class_weights=tuple(weights)), *expected)
