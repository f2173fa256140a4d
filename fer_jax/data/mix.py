"""Mixing of examples: mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019).

Both blend an example with a partner by a weight for each pixel, constant or a rectangle, and the targets by the mean of
these weights; so which of them a batch gets is a choice of values.
"""

import jax
import jax.numpy as jnp

from fer_jax.data.geometry import rectangle


def mix(
    x: jax.Array, targets: jax.Array, key: jax.Array, *, mixup: float = 0.0, cutmix: float = 0.0
) -> tuple[jax.Array, jax.Array]:
    """Blends each example with the one before it in the batch.

    Every example draws its own share from Beta(alpha, alpha), as the papers write it. Their code draws one a batch, so
    that whole steps are mixed hardly or fully; own shares give gradients that vary less, at no cost. The partner is the
    neighbouring row because a random permutation would gather the whole batch on every device.

    Args:
      x: float [B, H, W, C].
      targets: float32 [B, classes], distributions.
      mixup, cutmix: alpha, 0 turns one off; with both on, each batch gets one of them at random.

    Returns:
      (x, targets), mixed.
    """
    if not (mixup or cutmix):
        return x, targets
    count, height, width, _ = x.shape
    choice_key, share_key, middle_key = jax.random.split(key, 3)
    if mixup and cutmix:
        cuts = jax.random.bernoulli(choice_key)
        alpha = jnp.where(cuts, cutmix, mixup)
    else:
        cuts, alpha = jnp.asarray(bool(cutmix)), jnp.asarray(mixup or cutmix, jnp.float32)
    share = symmetric_beta(share_key, alpha, count)
    weights = jnp.broadcast_to(share[:, None, None], (count, height, width))
    if cutmix:
        middles = jax.random.uniform(middle_key, (count, 2))
        weights = jnp.where(cuts, 1 - cut(share, middles, (height, width)), weights)
    kept = weights.mean((1, 2))[:, None]
    weights = weights[..., None].astype(x.dtype)
    return weights * x + (1 - weights) * jnp.roll(x, 1, 0), kept * targets + (1 - kept) * jnp.roll(targets, 1, 0)


def symmetric_beta(key: jax.Array, alpha: jax.Array, count: int) -> jax.Array:
    """[count] draws from Beta(alpha, alpha), from Student's t of 2 alpha degrees of freedom (Bailey 1994).

    jax.random.beta draws by rejection, which takes seconds to compile.
    """
    uniform, turn = jax.random.uniform(key, (2, count))
    power, cos = uniform ** (1 / alpha), jnp.cos(2 * jnp.pi * turn)
    square = (1 - power) * cos**2
    return 0.5 + 0.5 * jnp.sign(cos) * jnp.sqrt(square / (square + power))


def cut(share: jax.Array, middles: jax.Array, size: tuple[int, int]) -> jax.Array:
    """CutMix's rectangles: float32 [B, H, W], 1 inside.

    Args:
      share: [B] of the area that is to stay outside; what the image's border cuts off stays outside too.
      middles: [B, 2], (y, x) in units of the sides.
      size: (H, W); corners are rounded to whole pixels.
    """
    sides = jnp.asarray(size, jnp.float32)
    half = 0.5 * jnp.sqrt(1 - share)[:, None]
    start, end = jnp.round((middles - half) * sides), jnp.round((middles + half) * sides)
    return jax.vmap(lambda low, high: rectangle(size, low, high))(start, end).astype(jnp.float32)
