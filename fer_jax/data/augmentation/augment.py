"""Augmentation inside jit: one resampling, then blur, colour and noise, then erasing.

Every example draws from its own key, so it looks the same whatever else is in its batch and wherever it is computed.
Values are chosen at random, never code: `lax.switch` under `vmap` would run every branch.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fer_jax.data.augmentation import colour, geometry
from fer_jax.data.augmentation.mixup import mix

# What `trivial` chooses from, besides nothing, and the largest strengths in the units of `Augment`..
TRIVIAL = {
    'shift': 0.3,
    'scale': 0.3,
    'rotate': 30.0,
    'shear': 0.3,
    'brightness': 0.3,
    'contrast': 0.9,
    'blur': 1.5,
    'noise': 0.1,
    'saturation': 0.9,
    'hue': 0.2,
}
OF_COLOUR = ('saturation', 'hue')
PAIRS = ('erase_area', 'erase_aspect')


@dataclasses.dataclass(frozen=True)
class Augment:
    """Ranges of the random transformations; 0 turns one off. Strengths are uniform in their range.

    Attributes:
      flip: probability of a mirror image.
      crop: smallest share of the area that a random resized crop keeps, see `geometry.crop_box`.
      shift: largest shift in either direction, as a share of the side.
      scale: largest change of size: factors are 1 + s or 1 / (1 + s), with s up to `scale`.
      rotate: largest angle, in degrees.
      shear: largest tangent of the angle by which each side leans.
      brightness: largest change, as a share of the range 0..255.
      contrast: factors are in [1 - contrast, 1 + contrast], about the mean of the image's luma.
      saturation: factors are in [1 - saturation, 1 + saturation].
      hue: largest turn, as a share of the circle, see `colour`.
      grey: probability that the colours are taken away.
      blur: largest standard deviation of a Gaussian blur, in pixels of the result.
      noise: largest standard deviation of Gaussian noise, as a share of 255.
      erase: probability that a rectangle is replaced by the image's mean (Zhong et al. 2020).
      erase_area: share of the image that the rectangle covers, smallest and largest.
      erase_aspect: height / width of the rectangle, smallest and largest, log-uniform.
      trivial: probability that the range of one of `TRIVIAL`, or none, is widened to the one given there; alone, it
        does one thing at a random strength to each example (after TrivialAugment, Mueller and Hutter 2021).
      mixup, cutmix: alpha of the Beta distribution, see `mixup.mix`.
    """

    flip: float = 0.0
    crop: float = 0.0
    shift: float = 0.0
    scale: float = 0.0
    rotate: float = 0.0
    shear: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    grey: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    erase: float = 0.0
    erase_area: tuple[float, float] = (0.02, 0.2)
    erase_aspect: tuple[float, float] = (0.3, 3.3)
    trivial: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> 'Augment':
        """Makes the ranges from the fields of a config.

        Args:
          settings: fields of `data.augment` that `fer_jax.config.check.check_config` has accepted.
        """
        fields: dict[str, Any] = {
            name: tuple(map(float, value)) if name in PAIRS else float(value) for name, value in settings.items()
        }
        return cls(**fields)

    @property
    def geometric(self) -> bool:
        return any((self.crop, self.shift, self.scale, self.rotate, self.shear, self.trivial))


class AugmentParams(NamedTuple):
    """The transformation parameters of one example.

    Attributes:
      mirror: bool; flips left and right.
      back: float32 [2, 3], the whole geometry, mirror included; see `geometry.backward_map`.
      brightness, noise: shares of 255.
      contrast, saturation: factors.
      blur: standard deviation in pixels.
      hue: share of the circle.
      hole: float32 [2, 2], corners (y, x) of the erased rectangle, in units of the sides; empty for no erasing.
    """

    mirror: jax.Array
    back: jax.Array
    brightness: jax.Array
    contrast: jax.Array
    blur: jax.Array
    noise: jax.Array
    saturation: jax.Array
    hue: jax.Array
    hole: jax.Array


def example_keys(key: jax.Array, batch_size: int) -> jax.Array:
    """Returns [B] random keys, one for each position of the batch."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(batch_size))


def augment(images: jax.Array, keys: jax.Array, size: int, settings: Augment) -> jax.Array:
    """Transforms each image of a batch.

    Args:
      images: uint8 [B, h, w, C], C 1 or 3.
      keys: [B] keys, see `example_keys`.
      size: side of the result.

    Returns:
      float32 [B, size, size, C], 0..255.
    """
    if not settings.geometric or max(images.shape[1:3]) > size:  # bilinear samples alone would alias where they shrink
        images = geometry.resize(images, size)
    return jax.vmap(lambda image, key: _augment_one(image, key, size, settings))(images, keys)


def augment_batch(
    images: jax.Array, targets: jax.Array, key: jax.Array, *, size: int, classes: int, settings: Augment
) -> tuple[jax.Array, jax.Array]:
    """Transforms the images of a batch, then mixes them with each other where `settings` ask for it.

    Args:
      images: uint8 [B, h, w, C].
      targets: int [B] of classes, or float [B, classes] of distributions.
      key: of this step.

    Returns:
      Images as of `augment`, and targets: as they were, or float32 [B, classes] where examples are mixed.
    """
    augment_key, mix_key = jax.random.split(key)
    augmented = augment(images, example_keys(augment_key, images.shape[0]), size, settings)
    if not (settings.mixup or settings.cutmix):
        return augmented, targets
    soft = jax.nn.one_hot(targets, classes) if targets.ndim == 1 else targets
    return mix(augmented, soft, mix_key, mixup=settings.mixup, cutmix=settings.cutmix)


def _augment_one(image: jax.Array, key: jax.Array, size: int, settings: Augment) -> jax.Array:
    draw_key, noise_key = jax.random.split(key)
    params = draw_params(draw_key, settings, image.shape[-1])
    widest = {name: max(getattr(settings, name), TRIVIAL[name] * bool(settings.trivial)) for name in TRIVIAL}
    if settings.geometric:
        image = geometry.resample(image, params.back, size)
    elif settings.flip:
        image = jnp.where(params.mirror, image[:, ::-1], image)
    if widest['blur']:
        image = colour.blur(image, params.blur, widest['blur'])
    chromatic = image.shape[-1] == 3 and any((widest['saturation'], widest['hue'], settings.grey))
    if chromatic or widest['contrast'] or widest['brightness']:
        matrix = colour.chrominance(params.saturation, params.hue) if chromatic else None
        image = colour.recolour(image, matrix, contrast=params.contrast, brightness=params.brightness)
    if widest['noise']:
        image = image + params.noise * 255 * jax.random.normal(noise_key, image.shape)
    image = jnp.clip(image, 0, 255)
    if settings.erase:
        start, end = params.hole * size
        image = jnp.where(geometry.rectangle((size, size), start, end)[..., None], image.mean((0, 1)), image)
    return image


def draw_params(key: jax.Array, settings: Augment, channels: int) -> AugmentParams:
    """Draws the parameters of one example. To turn one transformation on leaves the draws of the others as they are."""
    value_key, crop_key = jax.random.split(key)
    draws = jax.random.uniform(value_key, (2 * len(TRIVIAL) + 9,))
    strengths, (flipped, greyed, widened, choice), hole = jnp.split(draws, [2 * len(TRIVIAL), 2 * len(TRIVIAL) + 4])
    ranges = jnp.asarray([getattr(settings, name) for name in TRIVIAL])
    if settings.trivial:
        useful = [channels == 3 or name not in OF_COLOUR for name in TRIVIAL]
        table = np.vstack([np.diag(list(TRIVIAL.values()))[useful], np.zeros(len(TRIVIAL))])
        row = jnp.asarray(table)[(choice * len(table)).astype(jnp.int32)]
        ranges = jnp.maximum(ranges, jnp.where(widened < settings.trivial, row, 0))
    values = (2 * strengths.reshape(-1, 2) - 1) * ranges[:, None]
    pair = dict(zip(TRIVIAL, values, strict=True))
    params = {name: both[0] for name, both in pair.items()}
    mirror = flipped < settings.flip
    middle, sides = geometry.crop_box(crop_key, settings.crop) if settings.crop else (jnp.zeros(2), jnp.ones(2))
    back = geometry.backward_map(
        mirror=mirror,
        middle=middle,
        sides=sides,
        shift=pair['shift'],
        factor=jnp.where(params['scale'] < 0, 1 / (1 - params['scale']), 1 + params['scale']),
        angle=jnp.deg2rad(params['rotate']),
        shear=pair['shear'],
    )
    return AugmentParams(
        mirror=mirror,
        back=back,
        brightness=params['brightness'],
        contrast=1 + params['contrast'],
        blur=jnp.abs(params['blur']),
        noise=jnp.abs(params['noise']),
        saturation=jnp.where(greyed < settings.grey, 0.0, 1 + params['saturation']),
        hue=params['hue'],
        hole=_hole(hole, settings),
    )


def _hole(draws: jax.Array, settings: Augment) -> jax.Array:
    """[2, 2], see `AugmentParams.hole`. A rectangle that would not fit is made squarer at the same area."""
    chance, across_area, across_aspect, top, left = draws
    smallest, largest = settings.erase_area
    area = smallest + across_area * (largest - smallest)
    flattest, tallest = np.log(settings.erase_aspect)
    aspect = jnp.clip(jnp.exp(flattest + across_aspect * (tallest - flattest)), area, 1 / area)
    sides = jnp.where(chance < settings.erase, jnp.sqrt(area * jnp.stack([aspect, 1 / aspect])), 0.0)
    start = jnp.stack([top, left]) * (1 - sides)
    return jnp.stack([start, start + sides])
