"""How a network wants its images: mean, deviation, order of channels."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from fer_jax.errors import UserError


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing of images with which a network's weights were trained.

    Attributes:
      mean, std: of x / 255, one value a channel, in the order of `order`. A range of -1 to 1 is 0.5 and 0.5; weights
        trained on 0..255 less a mean have std 1 / 255.
      order: of the channels, 'RGB' or 'BGR' (Caffe).
      size: side in pixels at which the weights were evaluated; any size is admitted.
      interpolation: to that size, 'bilinear' or 'bicubic'.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    order: str = 'RGB'
    size: int = 224
    interpolation: str = 'bilinear'

    def __post_init__(self) -> None:
        usable = len(self.mean) == len(self.std) in (1, 3) and all(map(math.isfinite, (*self.mean, *self.std)))
        if not usable or min(self.std) <= 0:
            raise UserError(
                f'preprocessing by mean={list(self.mean)}, std={list(self.std)}: expected one number or three '
                'each, of x / 255, the deviations above 0'
            )
        if self.order not in ('RGB', 'BGR') or self.size < 1 or self.interpolation not in ('bilinear', 'bicubic'):
            raise UserError(
                f'preprocessing by order={self.order!r}, size={self.size}, interpolation={self.interpolation!r}: '
                'expected RGB or BGR, a number of pixels, bilinear or bicubic'
            )

    def normalise(self, images: jax.typing.ArrayLike) -> jax.Array:
        """Normalises images by mean and standard deviation, after a conversion to BGR where `order` says so.

        Args:
          images: any dtype [B, H, W, C] of 0..255, RGB or grey.

        Returns:
          float32 [B, H, W, C]; C is 3 for grey images where mean and std have three values.
        """
        x = jnp.asarray(images, jnp.float32)
        if self.order == 'BGR' and x.shape[-1] == 3:
            x = x[..., ::-1]
        mean, std = (255 * np.array(values, np.float32) for values in (self.mean, self.std))
        return (x - mean) / std
