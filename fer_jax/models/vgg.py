"""VGG (Simonyan and Zisserman 2014), in torchvision's form, with and without BatchNorm."""

from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from fer_jax.models.kernels import Kernels
from fer_jax.models.layers import BatchNorm, Head, adaptive_average_pool, conv, dropout, flatten_channels_first
from fer_jax.models.stages import Staged

WIDTHS = (64, 128, 256, 512, 512)
DEPTHS = {
    'vgg11': (1, 1, 2, 2, 2),
    'vgg13': (2, 2, 2, 2, 2),
    'vgg16': (2, 2, 3, 3, 3),
    'vgg19': (2, 2, 4, 4, 4),
}


def layout(name: str) -> list[list[tuple[str, int]]]:
    """Returns the layers of each of the five blocks of a VGG.

    Returns:
      For each block a list of ('conv' | 'bn' | 'relu' | 'pool', index in torchvision's `features`).
    """
    kinds = ('conv', 'bn', 'relu') if name.endswith('_bn') else ('conv', 'relu')
    blocks, index = [], 0
    for depth in DEPTHS[name.removesuffix('_bn')]:
        block = [*kinds * depth, 'pool']
        blocks.append([(kind, index + position) for position, kind in enumerate(block)])
        index += len(block)
    return blocks


class VGG(Staged):
    """A VGG with the stages block1 to block5, pool, fc6, fc7, head.

    The stage `pool` averages to 7x7, for any input of 32 pixels or more. With `head='mlp'` the head replaces fc6 and
    fc7.
    """

    min_size = 32  # five times halved

    def __init__(
        self,
        name: str,
        *,
        classes: Mapping[str, int],
        channels: int,
        head: str,
        dropout: float,
        dtype: Any,
        kernels: Kernels,
        rngs: nnx.Rngs,
    ):
        self.layout = tuple(tuple(block) for block in layout(name))
        self.max_pool = kernels.max_pool
        features, modules = channels, []
        for width, block in zip(WIDTHS, self.layout, strict=True):
            for kind, _ in block:
                module: nnx.Module | None = None  # holds the place of a ReLU or pool, as torchvision numbers them
                if kind == 'conv':
                    module = conv(features, width, 3, bias=True, dtype=dtype, kernels=kernels, rngs=rngs)
                    features = width
                elif kind == 'bn':
                    module = BatchNorm(width)
                modules.append(module)
        self.features = nnx.List(modules)
        normal = nnx.initializers.normal(0.01)
        features = 7 * 7 * WIDTHS[-1]
        if head == 'linear':
            self.fc6 = nnx.Linear(features, 4096, kernel_init=normal, dtype=dtype, rngs=rngs)
            self.fc7 = nnx.Linear(4096, 4096, kernel_init=normal, dtype=dtype, rngs=rngs)
            features = 4096
        self.head = Head(head, features, classes, rate=dropout, kernel_init=normal, dtype=dtype, rngs=rngs)
        self.classifier = ('fc6', 'fc7') if head == 'linear' else ()

    @property
    def stages(self) -> dict[str, tuple[str, ...]]:
        blocks = {
            f'block{number}': tuple(f'features.{index}' for kind, index in block if kind in ('conv', 'bn'))
            for number, block in enumerate(self.layout, 1)
        }
        return blocks | {'pool': ()} | {name: (name,) for name in (*self.classifier, 'head')}

    def stage(self, name: str, x: jax.Array, *, train: bool, key: jax.Array | None) -> Any:
        """Applies one stage; `head` returns logits {task: float32 [B, classes]}."""
        if name == 'pool':
            return adaptive_average_pool(x, 7)
        if name in self.classifier:
            x = flatten_channels_first(x) if name == 'fc6' else x
            return dropout(nnx.relu(getattr(self, name)(x)), 0.5, train=train, key=key)
        if name == 'head':
            return self.head(x, train=train, key=key)
        for kind, index in self.layout[int(name.removeprefix('block')) - 1]:
            if kind == 'conv':
                x = self.features[index](x)  # type: ignore[misc]
            elif kind == 'bn':
                x = self.features[index](x, train=train)  # type: ignore[misc]
            elif kind == 'relu':
                x = nnx.relu(x)
            else:
                x = self.max_pool(x, 2, 2, 0)
        return x
