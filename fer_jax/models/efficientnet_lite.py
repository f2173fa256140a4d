"""EfficientNet-Lite (Tan and Le 2019, TensorFlow's edge variant), under timm's names for tf_efficientnet_lite*.

ReLU6, no squeeze-and-excite, TensorFlow's SAME padding, BatchNorm with eps 1e-3.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from fer_jax.models.kernels import Kernels
from fer_jax.models.layers import BatchNorm, Head, adaptive_average_pool, conv, uniform

# Lite0, one row a stage: repeats, kernel, stride of the first, expansion, width
BLOCKS = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
SCALES = {'efficientnet_lite0': (1.0, 1.0), 'efficientnet_lite1': (1.0, 1.1), 'efficientnet_lite2': (1.1, 1.2)}
EPS = 1e-3

# timm draws the head from +-1/sqrt(classes), here for ImageNet's 1,000: seven classes would start at logits of +-10,
# and the first epochs of a fine-tuning would go into shrinking them.
HEAD_RANGE = 1000**-0.5

# timm: normal with variance 2 / fan out, where a depthwise kernel's fan out is that of one group
goog_conv = nnx.initializers.variance_scaling(2.0, 'fan_out', 'normal')
goog_depthwise = nnx.initializers.variance_scaling(2.0, 'fan_in', 'normal')


def blocks_of(name: str) -> tuple[tuple[int, int, int, int, int], ...]:
    """`BLOCKS` in the width and depth of `name`; the repeats of the first and last stage stay, as the stem does."""
    width, depth = SCALES[name]
    rows = []
    for at, (repeats, kernel, stride, expansion, features) in enumerate(BLOCKS):
        if 0 < at < len(BLOCKS) - 1:
            repeats = math.ceil(repeats * depth)
        rows.append((repeats, kernel, stride, expansion, _to_eights(features * width)))
    return tuple(rows)


def _to_eights(features: float) -> int:
    """The nearest multiple of 8, but not below 9/10 of it."""
    near = max(8, int(features + 4) // 8 * 8)
    return near if near >= 0.9 * features else near + 8


class DepthwiseSeparable(nnx.Module):
    """Depthwise, then linear pointwise: the block of the first stage."""

    def __init__(self, features_in: int, features_out: int, *, kernel: int, stride: int, **shared: Any):
        self.conv_dw = depthwise(features_in, kernel, stride, **shared)
        self.bn1 = BatchNorm(features_in, eps=EPS)
        self.conv_pw = conv(features_in, features_out, 1, kernel_init=goog_conv, **shared)
        self.bn2 = BatchNorm(features_out, eps=EPS)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        y = nnx.relu6(self.bn1(self.conv_dw(x), train=train))
        y = self.bn2(self.conv_pw(y), train=train)
        return x + y if x.shape == y.shape else y


class InvertedResidual(nnx.Module):
    """Expand, depthwise, project (Sandler et al. 2018)."""

    def __init__(self, features_in: int, features_out: int, *, kernel: int, stride: int, expansion: int, **shared: Any):
        wide = features_in * expansion
        self.conv_pw = conv(features_in, wide, 1, kernel_init=goog_conv, **shared)
        self.bn1 = BatchNorm(wide, eps=EPS)
        self.conv_dw = depthwise(wide, kernel, stride, **shared)
        self.bn2 = BatchNorm(wide, eps=EPS)
        self.conv_pwl = conv(wide, features_out, 1, kernel_init=goog_conv, **shared)
        self.bn3 = BatchNorm(features_out, eps=EPS)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        y = nnx.relu6(self.bn1(self.conv_pw(x), train=train))
        y = nnx.relu6(self.bn2(self.conv_dw(y), train=train))
        y = self.bn3(self.conv_pwl(y), train=train)
        return x + y if x.shape == y.shape else y


def depthwise(features: int, kernel: int, stride: int, **shared: Any) -> nnx.Conv:
    return conv(
        features, features, kernel, stride=stride, padding='SAME', groups=features, kernel_init=goog_depthwise, **shared
    )


class EfficientNetLite(nnx.Module):
    """Stages stem, blocks0 to blocks6, conv_head, pool, head. Input float [B, H, W, channels] of any size."""

    stages: Mapping[str, tuple[str, ...]] = {
        'stem': ('conv_stem', 'bn1'),
        **{f'blocks{index}': (f'blocks.{index}',) for index in range(len(BLOCKS))},
        'conv_head': ('conv_head', 'bn2'),
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
        self.conv_stem = conv(channels, 32, 3, stride=2, padding='SAME', kernel_init=goog_conv, **shared)
        self.bn1 = BatchNorm(32, eps=EPS)
        features, stages = 32, []
        for repeats, kernel, first_stride, expansion, width in blocks_of(name):
            blocks: list[nnx.Module] = []
            for index in range(repeats):
                stride = first_stride if index == 0 else 1
                if expansion == 1:
                    blocks.append(DepthwiseSeparable(features, width, kernel=kernel, stride=stride, **shared))
                else:
                    blocks.append(
                        InvertedResidual(features, width, kernel=kernel, stride=stride, expansion=expansion, **shared)
                    )
                features = width
            stages.append(nnx.List(blocks))
        self.blocks = nnx.List(stages)
        self.conv_head = conv(features, 1280, 1, kernel_init=goog_conv, **shared)
        self.bn2 = BatchNorm(1280, eps=EPS)
        self.pooled = 7 if head == 'mlp' else 1
        self.head = Head(
            head,
            1280 * self.pooled**2,
            classes,
            rate=dropout,
            kernel_init=uniform(HEAD_RANGE),
            dtype=dtype,
            rngs=rngs,
        )

    def stage(self, name: str, x: jax.Array, *, train: bool, key: jax.Array | None) -> Any:
        """Applies one stage; `head` returns logits {task: float32 [B, classes]}."""
        if name == 'stem':
            return nnx.relu6(self.bn1(self.conv_stem(x), train=train))
        if name == 'conv_head':
            return nnx.relu6(self.bn2(self.conv_head(x), train=train))
        if name == 'pool':
            return adaptive_average_pool(x, 7) if self.pooled == 7 else x.mean((1, 2))
        if name == 'head':
            return self.head(x, train=train, key=key)
        for block in self.blocks[int(name.removeprefix('blocks'))]:
            x = block(x, train=train)
        return x
