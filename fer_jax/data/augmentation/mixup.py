"""Mixing of examples: mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019).

Both blend an example with a partner by a weight for each pixel, constant or a rectangle, and the targets by the mean of
these weights; so which of them a batch gets is a choice of values.
"""

import jax
import jax.numpy as jnp

from fer_jax.data.augmentation.geometry import rectangle


def mix(
    x: jax.Array, targets: jax.Array, key: jax.Array, *, mixup: float = 0.0, cutmix: float = 0.0
) -> tuple[jax.Array, jax.Array]:
    """Blends each example with the one before it in the batch.

    One share is drawn from Beta(alpha, alpha) for the whole batch, as in the code of both papers: whatever it is, the
    parts of an example in all rows add up to one, so that none counts twice in a step and none is lost. The partner is
    the neighbouring row because a random permutation would gather the whole batch on every device.

    Args:
      x: float [B, H, W, C].
      targets: float32 [B, classes], distributions.
      mixup, cutmix: alpha, 0 turns one off; with both on, each batch gets one of them at random.

    Returns:
      (x, targets), mixed.
    """
    if not (mixup or cutmix):
        return x, targets
    choice_key, share_key, middle_key = jax.random.split(key, 3)
    cuts = jax.random.uniform(choice_key) < (0.5 if mixup and cutmix else float(bool(cutmix)))
    share = symmetric_beta(share_key, jnp.where(cuts, cutmix, mixup))
    weights = jnp.full(x.shape[1:3], share)
    if cutmix:
        middle = jax.random.uniform(middle_key, (2,))
        weights = jnp.where(cuts, 1 - cut(share, middle, x.shape[1:3]), weights)
    kept, weights = weights.mean(), weights[..., None].astype(x.dtype)
    return weights * x + (1 - weights) * jnp.roll(x, 1, 0), kept * targets + (1 - kept) * jnp.roll(targets, 1, 0)


def symmetric_beta(key: jax.Array, alpha: jax.Array) -> jax.Array:
    """Draws from Beta(alpha, alpha), by way of Student's t with 2 alpha degrees of freedom (Bailey 1994).

    jax.random.beta draws by rejection, which takes seconds to compile.
    """
    uniform, turn = jax.random.uniform(key, (2,))
    power, cos = uniform ** (1 / alpha), jnp.cos(2 * jnp.pi * turn)
    square = (1 - power) * cos**2
    return 0.5 + 0.5 * jnp.sign(cos) * jnp.sqrt(square / (square + power))


def cut(share: jax.Array, middle: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """Returns the mask of CutMix's rectangle.

    Args:
      share: share of the area that stays outside; what the image's border cuts off stays outside too.
      middle: [2], (y, x) in units of the sides.
      size: (H, W); corners are rounded to whole pixels.

    Returns:
      float32 [H, W], 1 inside the rectangle.
    """
    sides = jnp.asarray(size, jnp.float32)
    half = 0.5 * jnp.sqrt(1 - share)
    start, end = jnp.round((middle - half) * sides), jnp.round((middle + half) * sides)
    return rectangle(size, start, end).astype(jnp.float32)
