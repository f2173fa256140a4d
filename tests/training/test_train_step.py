"""The training step on a linear classifier, whose loss and gradient have a closed form."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fer_jax.data.augmentation.augment import Augment, augment_batch
from fer_jax.data.tasks import PRIMARY
from fer_jax.training import losses, optimizers, train_state
from fer_jax.training.freezing import Partition
from fer_jax.training.objectives import Objective
from fer_jax.training.phases import Phase
from fer_jax.training.train_state import FrozenState
from fer_jax.training.train_step import StepProgram, train_step

COUNT, SIZE, CLASSES, RATE = 24, 6, 3, 0.5
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, SIZE, SIZE, 1), np.uint8)
LABELS = (np.arange(COUNT) % CLASSES).astype(np.int32)
KERNEL = np.random.default_rng(1).normal(size=(SIZE * SIZE, CLASSES)).astype(np.float32)


def forward(variables, x, **_):
    return {PRIMARY: x.reshape(len(x), -1) @ variables.params['kernel']}, variables.batch_stats, x


NETWORK = SimpleNamespace(
    spec=SimpleNamespace(image_size=SIZE, classes={PRIMARY: tuple('abc')}), forward=forward, normalise=lambda x: x / 255
)


def stepped(settings=Augment(), *, sam=0.0, fields=None, source=None, scale=1.0, weight=1.0, health=None, **loss):  # noqa: B008
    """The state after one step at learning rate 0.5, as arrays."""
    tx = optimizers.make(
        'sgd', schedule=lambda _: RATE, rates={'kernel': 1.0}, decay_mask={'kernel': True}, momentum=0.0, sam=sam
    )
    phase = Phase(0, 0, 10, 1.0, Partition({}, frozenset(), ''), tx, lambda _: RATE, settings, SIZE, **(fields or {}))
    averages = {} if phase.ema else None
    state = train_state.create(5, {'kernel': jnp.asarray(KERNEL)}, {}, tx, tasks=[PRIMARY], ema=averages)
    state = state._replace(scale=scale, health=state.health | (health or {}))
    objectives = {PRIMARY: Objective(losses.make('cross_entropy', **loss))}
    step = functools.partial(train_step, program=StepProgram(NETWORK, phase, objectives, seed=3, guard=2))
    run = jax.jit(step, compiler_options={'xla_backend_optimization_level': 0})  # compiled quickly
    batch = {'x': IMAGES, 'y': LABELS, 'weight': np.full(COUNT, weight, np.float32)}
    return jax.device_get(run(state, FrozenState({}, source or {}), {PRIMARY: {}}, {PRIMARY: batch}))


def closed_form(images, targets, weights, kernel=KERNEL):
    """(loss, gradient, correct) of a softmax regression with targets [B, C] and one weight an example."""
    x = np.asarray(images, float).reshape(COUNT, -1) / 255
    odds = np.exp(x @ kernel)
    shares = odds / odds.sum(1, keepdims=True)
    loss = -(weights * (targets * np.log(shares)).sum(1)).sum() / weights.sum()
    gradient = x.T @ (weights[:, None] * (shares - targets)) / weights.sum()
    return loss, gradient, (shares.argmax(1) == targets.argmax(1)).sum()


def assert_step(state, loss, gradient, correct):
    np.testing.assert_allclose(state.trainable['kernel'], KERNEL - RATE * gradient, atol=1e-4)
    assert state.sums.pop('gradient_norm') > 0
    assert state.sums == {
        'primary/loss': pytest.approx(loss, rel=1e-4),
        'primary/correct': pytest.approx(correct),
        'primary/examples': COUNT,
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


@pytest.mark.parametrize('count', [2, 8])
def test_microbatches_add_up_to_the_batch(count):
    """Also where their weights differ: the mean is over the batch, not over the microbatches' means."""
    weights = np.array([0.5, 1.0, 3.0])
    expected = closed_form(IMAGES, np.eye(CLASSES)[LABELS], weights[LABELS])
    assert_step(stepped(fields={'accumulate': count}, class_weights=tuple(weights)), *expected)


def test_microbatches_are_augmented_by_keys_of_their_own():
    """Two halves of the same images, under one key, would be flipped alike."""
    whole, cut = (stepped(Augment(flip=0.5), fields={'accumulate': count}) for count in (1, 2))
    assert np.abs(whole.trainable['kernel'] - cut.trainable['kernel']).max() > 1e-4


def test_sharpness_aware_minimisation_takes_the_gradient_uphill():
    targets, ones = np.eye(CLASSES)[LABELS], np.ones(COUNT)
    loss, gradient, correct = closed_form(IMAGES, targets, ones)
    uphill = KERNEL + 0.3 * gradient / np.linalg.norm(gradient)
    there = closed_form(IMAGES, targets, ones, kernel=uphill)[1]
    assert np.abs(there - gradient).max() > 0.01
    assert_step(stepped(sam=0.3), loss, there, correct)
    assert_step(stepped(sam=0.3, fields={'accumulate': 4}), loss, there, correct)


def test_l2_sp_pulls_toward_the_source_and_stays_out_of_the_loss():
    source = KERNEL + 1.0
    loss, gradient, correct = closed_form(IMAGES, np.eye(CLASSES)[LABELS], np.ones(COUNT))
    state = stepped(fields={'l2_sp': 0.2}, source={'kernel': source})
    assert_step(state, loss, gradient + 0.2 * (KERNEL - source), correct)


def test_what_a_plateau_has_left_scales_the_update():
    loss, gradient, correct = closed_form(IMAGES, np.eye(CLASSES)[LABELS], np.ones(COUNT))
    assert_step(stepped(scale=0.25), loss, 0.25 * gradient, correct)


@pytest.mark.parametrize(('decay', 'share'), [(0.999, 9 / 15), (0.3, 0.7)])
def test_averages_follow_with_a_decay_that_rises(decay, share):
    """At the phase's step 5 the decay is (1 + 5) / (10 + 5), unless that is above the one asked for."""
    state = stepped(fields={'ema': decay})
    expected = KERNEL + share * (state.trainable['kernel'] - KERNEL)
    np.testing.assert_allclose(state.ema['params']['kernel'], expected, rtol=1e-5)


def test_averages_go_on_in_the_next_phase_and_new_leaves_enter_as_they_are():
    trainable = {'old': jnp.ones(2), 'new': jnp.full(2, 3.0)}
    earlier = {'params': {'old': jnp.zeros(2), 'frozen since': jnp.zeros(2)}, 'batch_stats': {}}
    state = train_state.create(0, trainable, {'mean': jnp.ones(1)}, optax.identity(), ema=earlier)
    assert {path: float(leaf[0]) for path, leaf in state.ema['params'].items()} == {'old': 0, 'new': 3}
    params, stats = train_state.eval_variables(state, FrozenState({'frozen since': jnp.full(2, 7.0)}, {}))
    assert {path: float(leaf[0]) for path, leaf in (params | stats).items()} == {
        'old': 0, 'new': 3, 'frozen since': 7, 'mean': 1,
    }  # fmt: skip
    assert train_state.create(0, trainable, {}, optax.identity()).ema == {}


@pytest.mark.parametrize(
    ('weight', 'skipped', 'halted_at', 'moves', 'after'),
    [
        (1.0, 0, 0, True, (0, 0)),
        (np.nan, 0, 0, False, (1, 0)),
        (np.inf, 1, 0, False, (2, 0)),
        (np.nan, 2, 0, False, (3, 6)),  # one more than may be: halted
        (1.0, 3, 4, False, (3, 4)),  # and nothing is kept any more
        (1.0, 2, 0, True, (2, 0)),
    ],
)
def test_an_update_that_is_not_finite_is_not_kept(weight, skipped, halted_at, moves, after):
    """Two such steps may be; the step counts on, and sums and averages stay as they were."""
    health = {'skipped': np.int32(skipped), 'halted_at': np.int32(halted_at)}
    state = stepped(weight=weight, health=health, fields={'ema': 0.5})
    assert state.step == 6 and tuple(int(state.health[name]) for name in ('skipped', 'halted_at')) == after
    for leaf in (state.trainable['kernel'], state.ema['params']['kernel']):
        assert np.array_equal(leaf, KERNEL) != moves
    assert state.sums['steps'] == (1 if moves else 0)
