"""Augmentation inside jit: one bilinear affine resampling, then brightness and contrast, then erasing.

Every example draws from its own key, so it looks the same whatever else is in its batch and wherever it is computed.
Values are chosen at random, never code: `lax.switch` under `vmap` would run every branch.
"""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from fer_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Augment:
    """Ranges of the random transformations; 0 turns one off.

    Attributes:
      flip: probability of a mirror image.
      shift: largest shift in either direction, as a share of the side.
      scale: largest change of size: factors are log-uniform in [1 / (1 + scale), 1 + scale].
      rotate: largest angle, in degrees.
      brightness: largest change, as a share of the range 0..255.
      contrast: factors are uniform in [1 - contrast, 1 + contrast], about the image's mean.
      erase: probability that a rectangle is replaced by the image's mean (Zhong et al. 2020).
      erase_area: share of the image that the rectangle covers, smallest and largest; its aspect is in [0.3, 3.3].
    """

    flip: float = 0.0
    shift: float = 0.0
    scale: float = 0.0
    rotate: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    erase: float = 0.0
    erase_area: tuple[float, float] = (0.02, 0.2)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> 'Augment':
        """From a config's fields.

        Raises:
          UserError: a field is unknown or out of its range.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name, value in settings.items():
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
                raise UserError(f'augment.{name} is unknown; the nearest is {near}, of {", ".join(known)}')
            largest = 180 if name == 'rotate' else 1
            if name != 'erase_area' and not 0 <= value <= largest:
                raise UserError(f'augment.{name}={value} is out of range; expected 0 to {largest}')
            if name == 'erase_area' and not (len(value) == 2 and 0 < value[0] <= value[1] <= 1):
                raise UserError(f'augment.erase_area={value}; expected (smallest, largest), shares above 0 up to 1')
        fields: dict[str, Any] = dict(settings)
        if 'erase_area' in fields:
            fields['erase_area'] = tuple(fields['erase_area'])
        return cls(**fields)

    @property
    def geometric(self) -> bool:
        return any((self.shift, self.scale, self.rotate))


def example_keys(key: jax.Array, batch_size: int) -> jax.Array:
    """[B] keys, one a position of the batch."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(batch_size))


def resize(images: jax.Array, size: int) -> jax.Array:
    """[B, h, w, C] of 0..255 -> float32 [B, size, size, C]: bilinear, antialiased where it shrinks."""
    images = images.astype(jnp.float32)
    if images.shape[1:3] == (size, size):
        return images
    shape = (images.shape[0], size, size, images.shape[3])
    return jax.image.resize(images, shape, 'linear', antialias=True)


def augment(images: jax.Array, keys: jax.Array, size: int, settings: Augment) -> jax.Array:
    """Transforms a batch.

    Args:
      images: uint8 [B, h, w, C].
      keys: [B] keys, see `example_keys`.
      size: side of the result.

    Returns:
      float32 [B, size, size, C], 0..255.
    """
    if not settings.geometric or images.shape[1] > size:  # bilinear samples alone would alias where they shrink
        images = resize(images, size)
    return jax.vmap(lambda image, key: _augment_one(image, key, size, settings))(images, keys)


def _augment_one(image: jax.Array, key: jax.Array, size: int, settings: Augment) -> jax.Array:
    draw = jax.random.uniform(key, (12,))
    signed = 2 * draw - 1
    mirror = draw[0] < settings.flip
    if settings.geometric:
        factor = jnp.exp(signed[1] * jnp.log1p(settings.scale))
        angle = jnp.deg2rad(signed[2] * settings.rotate)
        shift = signed[3:5] * settings.shift
        image = _resample(image.astype(jnp.float32), size, factor, angle, shift, mirror, turns=settings.rotate > 0)
    elif settings.flip:
        image = jnp.where(mirror, image[:, ::-1], image)
    if settings.contrast:
        mean = image.mean()
        image = mean + (image - mean) * (1 + signed[5] * settings.contrast)
    if settings.brightness:
        image = image + signed[6] * settings.brightness * 255
    if settings.contrast or settings.brightness:
        image = jnp.clip(image, 0, 255)
    if settings.erase:
        image = _erase(image, draw[7:12], settings)
    return image


def _resample(
    image: jax.Array,
    size: int,
    factor: jax.Array,
    angle: jax.Array,
    shift: jax.Array,
    mirror: jax.Array,
    *,
    turns: bool,
) -> jax.Array:
    """Bilinear samples of [h, w, C] at the affine image of a size x size grid; edges are repeated outwards.

    Output pixel centres, in [-0.5, 0.5] about the middle, are turned by `angle`, divided by `factor` and moved by
    -`shift` into the input. Without rotation the map is separable, and two small matrix products do it.
    """
    height, width = image.shape[:2]
    grid = (jnp.arange(size) + 0.5) / size - 0.5
    across = jnp.where(mirror, -grid, grid)
    if not turns:
        rows = (grid / factor - shift[0] + 0.5) * height - 0.5
        columns = (across / factor - shift[1] + 0.5) * width - 0.5
        return jnp.einsum('ih,hwc,jw->ijc', _weights(rows, height), image, _weights(columns, width))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    down, across = jnp.meshgrid(grid, across, indexing='ij')
    rows = ((cos * down + sin * across) / factor - shift[0] + 0.5) * height - 0.5
    columns = ((cos * across - sin * down) / factor - shift[1] + 0.5) * width - 0.5
    rows, columns = jnp.clip(rows, 0, height - 1), jnp.clip(columns, 0, width - 1)
    top, left = jnp.floor(rows).astype(jnp.int32), jnp.floor(columns).astype(jnp.int32)
    bottom, right = jnp.minimum(top + 1, height - 1), jnp.minimum(left + 1, width - 1)
    low, high = (rows - top)[..., None], (columns - left)[..., None]
    upper = image[top, left] * (1 - high) + image[top, right] * high
    lower = image[bottom, left] * (1 - high) + image[bottom, right] * high
    return upper * (1 - low) + lower * low


def _weights(positions: jax.Array, length: int) -> jax.Array:
    """[n] positions -> the [n, length] matrix that interpolates there."""
    inside = jnp.clip(positions, 0, length - 1)
    return jnp.maximum(0, 1 - jnp.abs(inside[:, None] - jnp.arange(length)))


def _erase(image: jax.Array, draw: jax.Array, settings: Augment) -> jax.Array:
    height, width = image.shape[:2]
    low, high = settings.erase_area
    area = low + draw[1] * (high - low)
    aspect = jnp.exp(jnp.log(0.3) + draw[2] * (jnp.log(3.3) - jnp.log(0.3)))
    tall = jnp.minimum(jnp.sqrt(area * aspect), 1.0) * height
    wide = jnp.minimum(jnp.sqrt(area / aspect), 1.0) * width
    top, left = draw[3] * (height - tall), draw[4] * (width - wide)
    rows, columns = jnp.arange(height) + 0.5, jnp.arange(width) + 0.5
    inside = ((rows >= top) & (rows < top + tall))[:, None] & ((columns >= left) & (columns < left + wide))[None]
    return jnp.where((inside & (draw[0] < settings.erase))[..., None], image.mean((0, 1)), image)
