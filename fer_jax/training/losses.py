"""Losses: a value and a weight for each example, so that the mean over a sharded batch is exact."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from fer_jax.config.choices import LOSSES
from fer_jax.errors import UserError
from fer_jax.utils.choices import check_choice

Loss = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
SMALLEST_PROBABILITY = 1e-12
REGISTERED: dict[str, Loss] = {}


def register_loss(name: str, loss: Loss) -> None:
    """Adds a loss of your own under the name that `loss.name` of a config gives.

    Register it again in every program that trains or resumes a run of it. It applies to classes or votes.

    Args:
      name: the new name.
      loss: (logits [B, C], int [B] labels or float [B, C] distributions) -> (loss [B], weight [B]). JAX traces it.

    Raises:
      UserError: the name is taken by a loss of fer_jax.
    """
    if name in LOSSES and name not in REGISTERED:
        raise UserError(f'a loss called {name!r} comes with fer_jax; choose another name')
    if name not in REGISTERED:
        LOSSES.append(name)
    REGISTERED[name] = loss


def cross_entropy(
    logits: jax.Array,
    targets: jax.Array,
    *,
    label_smoothing: float = 0.0,
    class_weights: tuple[float, ...] = (),
    gamma: float = 0.0,
    alpha: float = 1.0,
) -> tuple[jax.Array, jax.Array]:
    """Computes the cross-entropy of softmax(logits), or the focal loss.

    Args:
      logits: [B, C].
      targets: int [B] of classes, or float [B, C] of distributions.
      label_smoothing: share of each target spread evenly over all classes (Szegedy et al. 2015).
      class_weights: [C], above 0. As in torch.nn.CrossEntropyLoss class c's term of an example is multiplied by its
        weight, and the batch mean divides by the sum of the labels' weights, or by B where targets are distributions.
      gamma, alpha: each class's term is multiplied by alpha (1 - its probability)^gamma (Lin et al. 2017, whose
        per-class alpha is `class_weights` here).

    Returns:
      (loss [B], weight [B]), float32; the batch loss is sum(loss * weight) / sum(weight).
    """
    terms = jax.nn.log_softmax(logits.astype(jnp.float32))
    if gamma:
        terms *= jnp.maximum(-jnp.expm1(terms), SMALLEST_PROBABILITY) ** gamma
    terms *= alpha
    count = logits.shape[-1]
    smoothed = _distribution(targets, count) * (1 - label_smoothing) + label_smoothing / count
    if not class_weights:
        return -jnp.sum(smoothed * terms, -1), jnp.ones(logits.shape[0])
    weights = jnp.asarray(class_weights, jnp.float32)
    weight = weights[targets] if targets.ndim == 1 else jnp.ones(logits.shape[0])
    return -jnp.sum(smoothed * weights * terms, -1) / weight, weight


def logit_adjusted(
    logits: jax.Array, targets: jax.Array, *, prior: Sequence[float], tau: float, label_smoothing: float = 0.0
) -> tuple[jax.Array, jax.Array]:
    """Computes the cross-entropy of logits + tau log prior (Menon et al. 2021), for classes of very different sizes.

    Predictions still use the logits without the adjustment.

    Args:
      logits, targets, label_smoothing: as in `cross_entropy`.
      prior: [C], the share of each class in training.
      tau: factor of the adjustment.

    Returns:
      (loss [B], weight [B]), float32.
    """
    adjusted = logits.astype(jnp.float32) + tau * jnp.log(jnp.asarray(prior, jnp.float32))
    return cross_entropy(adjusted, targets, label_smoothing=label_smoothing)


def generalised_cross_entropy(logits: jax.Array, targets: jax.Array, *, q: float) -> tuple[jax.Array, jax.Array]:
    """Computes (1 - p^q) / q, p the label's probability (Zhang and Sabuncu 2018), for noisy labels.

    The loss approaches cross-entropy as q goes to 0, and is the mean absolute error at 1.

    Args:
      logits, targets: as in `cross_entropy`.
      q: above 0, up to 1.

    Returns:
      (loss [B], weight [B]), float32.
    """
    powers = jnp.exp(q * jax.nn.log_softmax(logits.astype(jnp.float32)))
    loss = jnp.sum(_distribution(targets, logits.shape[-1]) * (1 - powers), -1) / q
    return loss, jnp.ones(logits.shape[0])


def multi_target(logits: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Computes -log(max over classes of target * probability) (Barsoum et al. 2016): any of several labels is right.

    Args:
      logits: [B, C].
      targets: float [B, C], above 0 for the labels.

    Returns:
      (loss [B], weight [B]), float32.
    """
    log_targets = jnp.where(targets > 0, jnp.log(jnp.where(targets > 0, targets, 1)), -jnp.inf)
    loss = -jnp.max(jax.nn.log_softmax(logits.astype(jnp.float32)) + log_targets, -1)
    return loss, jnp.ones(logits.shape[0])


def kl_divergence(logits: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Computes the KL divergence of softmax(logits) from the targets: their cross-entropy minus the targets' entropy.

    The gradient equals that of cross-entropy; the minimum of the loss is 0.

    Args:
      logits, targets: as in `cross_entropy`.

    Returns:
      (loss [B], weight [B]), float32.
    """
    loss, weight = cross_entropy(logits, targets)
    shares = _distribution(targets, logits.shape[-1])
    entropy = -jnp.sum(shares * jnp.log(jnp.where(shares > 0, shares, 1)), -1)
    return loss - entropy, weight


def binary_cross_entropy(
    logits: jax.Array, targets: jax.Array, *, positive_weights: tuple[float, ...] = ()
) -> tuple[jax.Array, jax.Array]:
    """Computes the cross-entropy of sigmoid(logits), averaged over the known attributes of each example.

    Args:
      logits: [B, K].
      targets: float [B, K] from 0 to 1; NaN where unknown, which is left out.
      positive_weights: [K], factors of the terms of present attributes, as in torch.nn.BCEWithLogitsLoss.

    Returns:
      (loss [B], weight [B]), float32; the weight is 0 where nothing is known.
    """
    logits = logits.astype(jnp.float32)
    known = ~jnp.isnan(targets)
    shares = jnp.where(known, targets, 0)
    positive = shares * jax.nn.softplus(-logits)
    if positive_weights:
        positive *= jnp.asarray(positive_weights, jnp.float32)
    terms = jnp.where(known, positive + (1 - shares) * jax.nn.softplus(logits), 0)
    count = known.sum(-1)
    return terms.sum(-1) / jnp.maximum(count, 1), (count > 0).astype(jnp.float32)


def squared_error(logits: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Computes the squared error, averaged over the known levels of each example.

    Args:
      logits: [B, K], predictions as they are.
      targets: float [B, K]; NaN where unknown, which is left out.

    Returns:
      (loss [B], weight [B]), float32; the weight is 0 where nothing is known.
    """
    known = ~jnp.isnan(targets)
    errors = jnp.where(known, logits.astype(jnp.float32) - jnp.where(known, targets, 0), 0)
    count = known.sum(-1)
    return jnp.square(errors).sum(-1) / jnp.maximum(count, 1), (count > 0).astype(jnp.float32)


def class_hits(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns bool [B]: whether the largest logit is that of the label, or of the targets' most probable class."""
    labels = targets if targets.ndim == 1 else jnp.argmax(targets, -1)
    return jnp.argmax(logits, -1) == labels


def attribute_hits(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns float32 [B]: the share of the known attributes [B, K] predicted correctly at a threshold of 0.5."""
    known = ~jnp.isnan(targets)
    right = ((logits > 0) == (targets > 0.5)) & known
    return right.sum(-1) / jnp.maximum(known.sum(-1), 1)


def _distribution(targets: jax.Array, classes: int) -> jax.Array:
    return jax.nn.one_hot(targets, classes) if targets.ndim == 1 else targets.astype(jnp.float32)


def class_weights(counts: np.ndarray, scheme: str | Sequence[float], *, beta: float = 0.999) -> tuple[float, ...]:
    """Computes class weights [C] from the training counts; those of a scheme have mean 1 over the examples.

    Args:
      counts: int [C], training examples of each class.
      scheme: 'none' gives (); 'inverse' weighs by 1 / count; 'effective' by the inverse effective number of examples,
        (1 - beta) / (1 - beta^count) (Cui et al. 2019); a sequence of C numbers is used as it is.

    Raises:
      UserError: a class has no training example, or the number of weights is not the number of classes.
    """
    if not isinstance(scheme, str):
        if len(scheme) != len(counts):
            raise UserError(
                f'loss.class_weights has {len(scheme)} numbers, the data {len(counts)} classes; give one each'
            )
        return tuple(map(float, scheme))
    if scheme == 'none':
        return ()
    if not np.all(counts):
        raise UserError(f'loss.class_weights={scheme!r}: class {int(np.argmin(counts))} has no training example')
    sizes = counts if scheme == 'inverse' else (1 - beta**counts) / (1 - beta)
    return tuple((counts.sum() / (np.sum(counts / sizes) * sizes)).tolist())


def positive_weights(attributes: np.ndarray | None, scheme: str | Sequence[float]) -> tuple[float, ...]:
    """Computes the weights [K] of present attributes.

    Args:
      attributes: [N, K] of the training split, 0, 1 or NaN; None where classes are trained.
      scheme: 'none' gives (); 'inverse' the number of examples without an attribute over the number with it; a sequence
        of K numbers is used as it is.

    Raises:
      UserError: there are no attributes, an attribute is the same in all examples, or the number of weights is not K.
    """
    if isinstance(scheme, str) and scheme == 'none':
        return ()
    if attributes is None:
        raise UserError(f"loss.positive_weights={scheme!r} are for attributes; set data.annotation, or this to 'none'")
    if isinstance(scheme, str):
        present, absent = (attributes > 0.5).sum(0), (attributes <= 0.5).sum(0)
        if not (present.all() and absent.all()):
            label = int(np.argmin(np.minimum(present, absent)))
            raise UserError(f"loss.positive_weights='inverse': attribute {label} is the same in all training examples")
        return tuple((absent / present).tolist())
    if len(scheme) != attributes.shape[1]:
        raise UserError(f'loss.positive_weights={scheme!r}; expected {attributes.shape[1]} numbers')
    return tuple(map(float, scheme))


PLAIN = (
    'generalised_cross_entropy',
    'multi_target',
    'kl_divergence',
    'binary_cross_entropy',
    'squared_error',
)  # no label smoothing


def make(
    name: str,
    *,
    target: str = 'label',
    label_smoothing: float = 0.0,
    attributes: bool = False,
    levels: bool = False,
    class_weights: tuple[float, ...] = (),
    positive_weights: tuple[float, ...] = (),
    gamma: float = 2.0,
    alpha: float = 1.0,
    q: float = 0.7,
    tau: float = 1.0,
    counts: np.ndarray | None = None,
) -> Loss:
    """Returns the loss called `name` with its arguments bound.

    Args:
      target: what is trained on, see `data.tables.soft_labels`; 'multi_target' requires the loss of that name.
      attributes: whether the data have attributes, which require 'binary_cross_entropy'.
      levels: whether the data have levels, which require 'squared_error'.
      label_smoothing: of 'cross_entropy', 'focal' and 'logit_adjusted'.
      positive_weights: of 'binary_cross_entropy'.
      class_weights: of 'cross_entropy' and 'focal'.
      gamma and alpha, tau, q: of 'focal', 'logit_adjusted', 'generalised_cross_entropy'.
      counts: int [C], training examples of each class; for 'logit_adjusted'.

    Raises:
      UserError: the name is unknown, or the loss does not fit the target or does not take an argument.
    """
    check_choice('loss.name', name, LOSSES)
    if (name == 'multi_target') != (target == 'multi_target'):
        raise UserError(f'loss.name={name!r} with data.target={target!r}; multi_target needs to be set in both')
    if (name == 'binary_cross_entropy') != attributes:
        what = 'attributes' if attributes else 'classes; for attributes set data.annotation'
        raise UserError(f'loss.name={name!r}, but the data has {what}; binary_cross_entropy is for attributes alone')
    if (name == 'squared_error') != levels:
        raise UserError(f'loss.name={name!r} learns the numbers of an annotation; set data.annotation')
    if class_weights and name not in ('cross_entropy', 'focal'):
        raise UserError(f'loss.class_weights do not apply to the loss {name}; set them to none')
    if label_smoothing and name in (*PLAIN, *REGISTERED):
        raise UserError(f'loss.label_smoothing={label_smoothing} does not apply to the loss {name}; set it to 0')
    if name in REGISTERED:
        return REGISTERED[name]
    if name == 'multi_target':
        return multi_target
    if name == 'kl_divergence':
        return kl_divergence
    if name == 'squared_error':
        return squared_error
    if name == 'binary_cross_entropy':
        return functools.partial(binary_cross_entropy, positive_weights=positive_weights)
    if name == 'generalised_cross_entropy':
        return functools.partial(generalised_cross_entropy, q=q)
    if name == 'logit_adjusted':
        if counts is None or not np.all(counts):
            raise UserError('loss.name=logit_adjusted needs training examples of every class')
        prior = tuple((counts / counts.sum()).tolist())
        return functools.partial(logit_adjusted, prior=prior, tau=tau, label_smoothing=label_smoothing)
    return functools.partial(
        cross_entropy,
        label_smoothing=label_smoothing,
        class_weights=class_weights,
        gamma=gamma if name == 'focal' else 0.0,
        alpha=alpha if name == 'focal' else 1.0,
    )
