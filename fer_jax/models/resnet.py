"""ResNet (He et al. 2015), in torchvision's v1.5: the stride of a bottleneck stands at its 3x3 convolution."""

from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from fer_jax.models.kernels import Kernels
from fer_jax.models.layers import BatchNorm, Head, adaptive_average_pool, conv, uniform

DEPTHS = {
    'resnet18': (2, 2, 2, 2),
    'resnet34': (3, 4, 6, 3),
    'resnet50': (3, 4, 6, 3),
    'resnet101': (3, 4, 23, 3),
    'resnet152': (3, 8, 36, 3),
}


class BasicBlock(nnx.Module):
    expansion = 1

    def __init__(self, features_in: int, width: int, *, stride: int, **shared: Any):
        self.conv1 = conv(features_in, width, 3, stride=stride, **shared)
        self.bn1 = BatchNorm(width)
        self.conv2 = conv(width, width, 3, **shared)
        self.bn2 = BatchNorm(width)
        self.downsample = shortcut(features_in, width, stride=stride, **shared)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        y = nnx.relu(self.bn1(self.conv1(x), train=train))
        y = self.bn2(self.conv2(y), train=train)
        return nnx.relu(y + shorten(self.downsample, x, train=train))


class Bottleneck(nnx.Module):
    expansion = 4

    def __init__(self, features_in: int, width: int, *, stride: int, **shared: Any):
        self.conv1 = conv(features_in, width, 1, **shared)
        self.bn1 = BatchNorm(width)
        self.conv2 = conv(width, width, 3, stride=stride, **shared)
        self.bn2 = BatchNorm(width)
        self.conv3 = conv(width, 4 * width, 1, **shared)
        self.bn3 = BatchNorm(4 * width)
        self.downsample = shortcut(features_in, 4 * width, stride=stride, **shared)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        y = nnx.relu(self.bn1(self.conv1(x), train=train))
        y = nnx.relu(self.bn2(self.conv2(y), train=train))
        y = self.bn3(self.conv3(y), train=train)
        return nnx.relu(y + shorten(self.downsample, x, train=train))


def shortcut(features_in: int, features_out: int, *, stride: int, **shared: Any) -> nnx.List | None:
    """A 1x1 convolution and BatchNorm where the block changes size or width; None for the identity."""
    if stride == 1 and features_in == features_out:
        return None
    return nnx.List([conv(features_in, features_out, 1, stride=stride, **shared), BatchNorm(features_out)])


def shorten(downsample: nnx.List | None, x: jax.Array, *, train: bool) -> jax.Array:
    if downsample is None:
        return x
    return downsample[1](downsample[0](x), train=train)


class ResNet(nnx.Module):
    """Stages stem, layer1 to layer4, pool, head. Input float [B, H, W, channels] of any size."""

    stages: Mapping[str, tuple[str, ...]] = {
        'stem': ('conv1', 'bn1'),
        **{f'layer{number}': (f'layer{number}',) for number in range(1, 5)},
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
        shared = {'dtype': dtype, 'kernels': kernels, 'rngs': rngs}
        block = BasicBlock if name in ('resnet18', 'resnet34') else Bottleneck
        self.max_pool = kernels.max_pool
        self.conv1 = conv(channels, 64, 7, stride=2, **shared)
        self.bn1 = BatchNorm(64)
        features = 64
        for number, depth in enumerate(DEPTHS[name], 1):
            width = 32 * 2**number
            blocks = []
            for index in range(depth):
                stride = 2 if number > 1 and index == 0 else 1
                blocks.append(block(features, width, stride=stride, **shared))
                features = width * block.expansion
            setattr(self, f'layer{number}', nnx.List(blocks))
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
            return self.max_pool(nnx.relu(self.bn1(self.conv1(x), train=train)), 3, 2, 1)
        if name == 'pool':
            return adaptive_average_pool(x, 7) if self.pooled == 7 else x.mean((1, 2))
        if name == 'head':
            return self.head(x, train=train, key=key)
        for block in getattr(self, name):
            x = block(x, train=train)
        return x
