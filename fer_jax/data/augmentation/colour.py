"""What an augmentation does to the values of the pixels: colour and blur.

Saturation and hue scale and turn the chrominance of the YIQ space (FCC 1953), so that they are one 3 x 3 matrix about
the grey axis (Haeberli 1993, Matrix Operations for Image Processing) and keep the luma of every pixel. The usual hue of
HSV, as in torchvision and OpenCV, turns about the same axis on a hexagon and keeps max(R, G, B) instead: the same share
of a turn gives a similar, not an equal, colour.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_RED, _, _BLUE = np.eye(3) - LUMA
YIQ = np.stack([LUMA, 0.74 * _RED - 0.27 * _BLUE, 0.48 * _RED + 0.41 * _BLUE])
RGB = np.linalg.inv(YIQ)
# A turn by a of the chrominance is I - P + cos(a) P + sin(a) Q, with P the projection onto it, Q a quarter turn.
PROJECTION = RGB @ np.diag([0, 1, 1]) @ YIQ
QUARTER = RGB @ np.array([[0, 0, 0], [0, 0, -1], [0, 1, 0]]) @ YIQ


def chrominance(saturation: jax.Array, turn: jax.Array) -> jax.Array:
    """Returns the float32 [3, 3] matrix on RGB that changes saturation and hue.

    Args:
      saturation: factor.
      turn: turn of the hue, as a share of the circle.
    """
    angle = 2 * jnp.pi * turn
    grey = jnp.asarray(np.eye(3) - PROJECTION, jnp.float32)
    return grey + saturation * (jnp.cos(angle) * PROJECTION + jnp.sin(angle) * QUARTER)


def recolour(
    image: jax.Array, matrix: jax.Array | None, *, contrast: jax.Array | float, brightness: jax.Array | float
) -> jax.Array:
    """Changes colours, then contrast, then brightness of an image, as one affine map of the channels.

    Args:
      image: float32 [H, W, C], 0..255.
      matrix: see `chrominance`; None leaves the colours as they are.
      contrast: factor, about the mean of the image's luma.
      brightness: what is added, as a share of 255.

    Returns:
      float32 [H, W, C], not clipped.
    """
    channels = image.shape[-1]
    luma = jnp.asarray(LUMA if channels == 3 else [1.0], jnp.float32)
    offset = (1 - contrast) * jnp.sum(image.mean((0, 1)) * luma) + brightness * 255
    if matrix is None:
        return contrast * image + offset
    # Sums, not a product of matrices: an accelerator would round those to fewer bits.
    scaled = contrast * matrix
    rows = [sum(image[..., source] * scaled[row, source] for source in range(channels)) for row in range(channels)]
    return jnp.stack(rows, -1) + offset


def blur(image: jax.Array, sigma: jax.Array, largest: float) -> jax.Array:
    """Blurs an image with a Gaussian, by two one-dimensional kernels that reach 3 times `largest`; edges are repeated.

    Args:
      image: float32 [H, W, C].
      sigma: standard deviation in pixels, from 0 to `largest`.
      largest: largest standard deviation, which sets the size of the kernels.

    Returns:
      float32 [H, W, C].
    """
    reach = max(1, math.ceil(3 * largest))
    taps = jnp.arange(-reach, reach + 1)
    kernel = jnp.exp(-0.5 * (taps / jnp.maximum(sigma, 1e-2)) ** 2)
    kernel = kernel / kernel.sum()
    for axis in (0, 1):
        length = image.shape[axis]
        pads = [(reach, reach) if axis == other else (0, 0) for other in range(3)]
        padded = jnp.pad(image, pads, mode='edge')
        shifted = (jax.lax.slice_in_dim(padded, tap, tap + length, axis=axis) for tap in range(2 * reach + 1))
        image = sum((kernel[tap] * part for tap, part in enumerate(shifted)), jnp.zeros_like(image))
    return image
