"""GoogLeNet (Szegedy et al. 2015) in torchvision's form: BatchNorm, and 3x3 kernels where the paper has 5x5."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from fer_jax.models.inception_blocks import ConvBN
from fer_jax.models.kernels import Kernels
from fer_jax.models.layers import Head, adaptive_average_pool, uniform
from fer_jax.models.stages import Staged

# Widths of the 1x1, the two 3x3 branches (before and in the 3x3), and the convolution behind the pool
BLOCKS = {
    'inception3a': (64, (96, 128), (16, 32), 32),
    'inception3b': (128, (128, 192), (32, 96), 64),
    'inception4a': (192, (96, 208), (16, 48), 64),
    'inception4b': (160, (112, 224), (24, 64), 64),
    'inception4c': (128, (128, 256), (24, 64), 64),
    'inception4d': (112, (144, 288), (32, 64), 64),
    'inception4e': (256, (160, 320), (32, 128), 128),
    'inception5a': (256, (160, 320), (32, 128), 128),
    'inception5b': (384, (192, 384), (48, 128), 128),
}
POOLED = {'inception3b': 3, 'inception4e': 2}  # blocks before a max-pool that halves the map -> side of its window


class Inception(nnx.Module):
    """Four parallel branches, whose outputs are concatenated."""

    def __init__(
        self,
        features: int,
        plain: int,
        first: tuple[int, int],
        second: tuple[int, int],
        pooled: int,
        *,
        kernels: Kernels,
        **shared: Any,
    ):
        shared = {'kernels': kernels, **shared}
        self.max_pool = kernels.max_pool
        self.branch1 = ConvBN(features, plain, 1, **shared)
        self.branch2 = nnx.List([ConvBN(features, first[0], 1, **shared), ConvBN(*first, 3, **shared)])
        self.branch3 = nnx.List([ConvBN(features, second[0], 1, **shared), ConvBN(*second, 3, **shared)])
        self.branch4 = nnx.List([None, ConvBN(features, pooled, 1, **shared)])  # the pool has a number in torchvision
        self.features = plain + first[1] + second[1] + pooled

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        outputs = [self.branch1(x, train=train)]
        for first, second in (self.branch2, self.branch3):
            outputs.append(second(first(x, train=train), train=train))
        outputs.append(self.branch4[1](self.max_pool(x, 3, 1, 1), train=train))  # type: ignore[misc]
        return jnp.concatenate(outputs, -1)


class GoogLeNet(Staged):
    """A GoogLeNet with the stages stem, inception3a to inception5b, pool, head, and no auxiliary heads.

    The input is float [B, H, W, channels], H and W 15 or more.
    """

    min_size = 15  # torchvision's
    stages: Mapping[str, tuple[str, ...]] = {
        'stem': ('conv1', 'conv2', 'conv3'),
        **{name: (name,) for name in BLOCKS},
        'pool': (),
        'head': ('head',),
    }

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
        shared: dict[str, Any] = {'dtype': dtype, 'kernels': kernels, 'rngs': rngs}
        self.max_pool = kernels.max_pool
        self.conv1 = ConvBN(channels, 64, 7, stride=2, **shared)
        self.conv2 = ConvBN(64, 64, 1, **shared)
        self.conv3 = ConvBN(64, 192, 3, **shared)
        features = 192
        for block, widths in BLOCKS.items():
            module = Inception(features, *widths, **shared)
            setattr(self, block, module)
            features = module.features
        self.pooled = 7 if head == 'mlp' else 1
        init = uniform(features**-0.5)
        self.head = Head(
            head,
            features * self.pooled**2,
            classes,
            rate=dropout,
            kernel_init=init,
            bias_init=init,
            dtype=dtype,
            rngs=rngs,
        )

    def stage(self, name: str, x: jax.Array, *, train: bool, key: jax.Array | None) -> Any:
        """Applies one stage; `head` returns logits {task: float32 [B, classes]}."""
        if name == 'stem':
            x = self.halve(self.conv1(x, train=train), 3)
            return self.halve(self.conv3(self.conv2(x, train=train), train=train), 3)
        if name == 'pool':
            return adaptive_average_pool(x, 7) if self.pooled == 7 else x.mean((1, 2))
        if name == 'head':
            return self.head(x, train=train, key=key)
        x = getattr(self, name)(x, train=train)
        return self.halve(x, POOLED[name]) if name in POOLED else x

    def halve(self, x: jax.Array, window: int) -> jax.Array:
        """Applies a max-pool with stride 2, as torch's with ceil_mode, to rectified x [B, H, W, C]."""
        edges = [(0, (window - size) % 2) for size in x.shape[1:3]]
        return self.max_pool(jnp.pad(x, ((0, 0), *edges, (0, 0))), window, 2, 0)
