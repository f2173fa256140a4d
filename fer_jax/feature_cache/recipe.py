"""Which features of an image are kept, and where a phase may train on them."""

import dataclasses
from typing import Any

from fer_jax.data.augmentation.augment import Augment
from fer_jax.errors import UserError
from fer_jax.models.network import Network


@dataclasses.dataclass(frozen=True)
class FeatureSpec:
    """The specification of the features of an image.

    Attributes:
      stages: names of the stages whose outputs are the features.
      pool: each output is averaged to this number of cells a side, and all are concatenated; 0 for one output as it is.
      image_size: side of the images, in pixels.
      views: number of views of each image. The first is the plain image, the others are augmented.
      settings, seed: of the augmented views.
      dtype: 'float32' or 'bfloat16', in which they are stored.
    """

    stages: tuple[str, ...]
    image_size: int
    pool: int = 0
    views: int = 1
    settings: Augment = Augment()
    seed: int = 0
    dtype: str = 'float32'

    def __post_init__(self) -> None:
        if self.views > 1 and self.settings == Augment():
            raise UserError(f'cache_views={self.views} of images that are not augmented would all be the same; give 1')


def check_feature_spec(network: Network, boundary: str, settings: Augment) -> None:
    """Checks that a phase can train on the features that enter `boundary`.

    Raises:
      UserError: there is no stage below the boundary, the head reads a stage below it, or images are mixed.
    """
    if boundary == next(iter(network.stages)):
        raise UserError(
            f'cache_views keeps what frozen stages compute, but the first stage, {boundary}, trains: freeze it by '
            'rates, or set cache_views to 0'
        )
    order, inputs = list(network.stages), network.spec.head_inputs
    if boundary != 'head' and any(order.index(stage) < order.index(boundary) for stage in inputs):
        raise UserError(
            f'cache_views keeps what enters {boundary}, but the head reads {", ".join(inputs)}: train the head alone, '
            'or from the lowest of them, or set cache_views to 0'
        )
    if settings.mixup or settings.cutmix:
        raise UserError(
            f'cache_views with mixup={settings.mixup}, cutmix={settings.cutmix}: features are of one image each; set '
            'both to 0 in this phase, or cache_views to 0'
        )


def boundary_spec(network: Network, boundary: str, image_size: int, **fields: Any) -> FeatureSpec:
    """Returns the spec of the activations that enter the stage `boundary`.

    Args:
      fields: other fields of `FeatureSpec`.
    """
    order = list(network.stages)
    if boundary == 'head' and network.spec.head_inputs:
        return FeatureSpec(tuple(sorted(network.spec.head_inputs, key=order.index)), image_size, pool=1, **fields)
    return FeatureSpec((order[order.index(boundary) - 1],), image_size, **fields)
