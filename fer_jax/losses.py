"""Losses: a value and a weight for each example, so that the mean over a sharded batch is exact."""

import difflib
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from fer_jax.errors import UserError

Loss = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def cross_entropy(
    logits: jax.Array,
    targets: jax.Array,
    *,
    label_smoothing: float = 0.0,
    class_weights: tuple[float, ...] = (),
) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy of softmax(logits).

    Args:
      logits: [B, C].
      targets: int [B] of classes, or float [B, C] of distributions.
      label_smoothing: share of each target spread evenly over all classes (Szegedy et al. 2015).
      class_weights: [C], above 0. As in torch.nn.CrossEntropyLoss class c's term of an example is multiplied by its
        weight, and the batch mean divides by the sum of the labels' weights, or by B where targets are distributions.

    Returns:
      (loss [B], weight [B]), float32; the batch loss is sum(loss * weight) / sum(weight).
    """
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32))
    count = logits.shape[-1]
    hard = targets.ndim == 1
    distribution = jax.nn.one_hot(targets, count) if hard else targets.astype(jnp.float32)
    smoothed = distribution * (1 - label_smoothing) + label_smoothing / count
    if not class_weights:
        return -jnp.sum(smoothed * log_probabilities, -1), jnp.ones(logits.shape[0])
    weights = jnp.asarray(class_weights, jnp.float32)
    loss = -jnp.sum(smoothed * weights * log_probabilities, -1)
    weight = weights[targets] if hard else jnp.ones(logits.shape[0])
    return loss / weight, weight


def class_weights(counts: np.ndarray, scheme: str) -> tuple[float, ...]:
    """Weights [C] from the training counts: 'none' -> (), 'inverse' -> n / (C count), of mean 1 over the examples.

    Raises:
      UserError: the scheme is unknown, or a class has no example to weigh.
    """
    if scheme == 'none':
        return ()
    if scheme != 'inverse':
        raise UserError(f'loss.class_weights={scheme!r} is unknown; choose none or inverse')
    if not np.all(counts):
        raise UserError(f'loss.class_weights={scheme!r}: class {int(np.argmin(counts))} has no training example')
    return tuple((counts.sum() / (len(counts) * counts)).tolist())


def multi_target(logits: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """-log of the largest target times probability (Barsoum et al. 2016): any of several labels is right.

    Args:
      logits: [B, C].
      targets: float [B, C], of which the labels are above 0.

    Returns:
      (loss [B], weight [B]), float32.
    """
    log_targets = jnp.where(targets > 0, jnp.log(jnp.where(targets > 0, targets, 1)), -jnp.inf)
    loss = -jnp.max(jax.nn.log_softmax(logits.astype(jnp.float32)) + log_targets, -1)
    return loss, jnp.ones(logits.shape[0])


LOSSES = ('cross_entropy', 'multi_target')


def make(
    name: str, *, target: str = 'label', label_smoothing: float = 0.0, class_weights: tuple[float, ...] = ()
) -> Loss:
    """The loss called `name`, its arguments bound.

    Args:
      target: what is trained on, see `data.targets`; 'multi_target' and the loss of that name go together.

    Raises:
      UserError: there is none, it does not fit the target or has no such argument, the smoothing is not in [0, 1), or a
        weight is not a number above 0.
    """
    if name not in LOSSES:
        near = difflib.get_close_matches(name, LOSSES, n=1, cutoff=0.0)[0]
        raise UserError(f'loss.name={name!r} is unknown; the nearest is {near}, of {", ".join(LOSSES)}')
    if not 0 <= label_smoothing < 1:
        raise UserError(f'loss.label_smoothing={label_smoothing}; expected 0 up to, not including, 1')
    for index, weight in enumerate(class_weights):
        if not 0 < weight < float('inf'):
            raise UserError(f'loss.class_weights: class {index} has {weight}; expected a number above 0')
    if (name == 'multi_target') != (target == 'multi_target'):
        raise UserError(f'loss.name={name!r} with data.target={target!r}; multi_target needs to be set in both')
    if name == 'multi_target':
        if label_smoothing or class_weights:
            raise UserError('loss.label_smoothing and loss.class_weights do not apply to the loss multi_target')
        return multi_target
    return functools.partial(cross_entropy, label_smoothing=label_smoothing, class_weights=class_weights)
