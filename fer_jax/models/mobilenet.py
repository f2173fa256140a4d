"""MobileNet v1 (Howard et al. 2017) in Keras's form, and with its BatchNorms folded.

`mobilenet_v1` and its narrower forms are those of Keras Applications. `mobilenet_v1_folded` is the form in which
trained networks are shipped for inference: the statistics of each BatchNorm are part of a scale and a bias for each
channel, so that nothing can be normalised by a batch, and convolutions are padded as TensorFlow does (SAME), which
differs from Keras's form where a map of odd size is halved.
"""

from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from fer_jax.models.kernels import Kernels
from fer_jax.models.layers import Affine, BatchNorm, Head, adaptive_average_pool, conv
from fer_jax.models.stages import Staged

FOLDED = 'mobilenet_v1_folded'
WIDTHS = {'mobilenet_v1': 1.0, 'mobilenet_v1_075': 0.75, 'mobilenet_v1_050': 0.5, 'mobilenet_v1_025': 0.25, FOLDED: 1.0}
BLOCKS = ((1, 64), (2, 128), (2, 256), (6, 512), (2, 1024))  # blocks of a stage, which but the first halves, and width
HALVING = ((0, 1), (0, 1))  # Keras's padding of a depthwise convolution with stride 2


def norm(features: int, folded: bool, *, scaled: bool) -> BatchNorm | Affine:
    """Creates a BatchNorm with Keras's defaults, or what is left of it in the folded form."""
    if folded:
        return Affine(features, scaled=scaled)
    return BatchNorm(features, eps=1e-3, momentum=0.01, unbiased=False)


class SeparableBlock(nnx.Module):
    """A depthwise and a pointwise convolution, each with normalisation and ReLU6."""

    def __init__(self, features_in: int, features_out: int, *, stride: int, folded: bool, **shared: Any):
        padding: Any = 'SAME' if folded or stride == 1 else HALVING
        self.conv_dw = conv(features_in, features_in, 3, stride=stride, padding=padding, groups=features_in, **shared)
        self.bn1 = norm(features_in, folded, scaled=True)
        self.conv_pw = conv(features_in, features_out, 1, **shared)
        self.bn2 = norm(features_out, folded, scaled=False)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = nnx.relu6(self.bn1(self.conv_dw(x), train=train))
        return nnx.relu6(self.bn2(self.conv_pw(x), train=train))


class MobileNetV1(Staged):
    """A MobileNet v1 with the stages stem, blocks0 to blocks4, pool, head.

    The input is float [B, H, W, channels], H and W 32 or more.
    """

    min_size = 32  # five times halved
    stages: Mapping[str, tuple[str, ...]] = {
        'stem': ('conv_stem', 'bn1'),
        **{f'blocks{index}': (f'blocks.{index}',) for index in range(len(BLOCKS))},
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
        init = nnx.initializers.glorot_uniform()
        shared: dict[str, Any] = {'kernel_init': init, 'dtype': dtype, 'kernels': kernels, 'rngs': rngs}
        alpha, folded = WIDTHS[name], name == FOLDED
        features = int(32 * alpha)
        self.conv_stem = conv(channels, features, 3, stride=2, padding='SAME', **shared)
        self.bn1 = norm(features, folded, scaled=False)
        stages = []
        for number, (count, width) in enumerate(BLOCKS):
            blocks = []
            for index in range(count):
                stride, wide = 2 if number and not index else 1, int(width * alpha)
                blocks.append(SeparableBlock(features, wide, stride=stride, folded=folded, **shared))
                features = wide
            stages.append(nnx.List(blocks))
        self.blocks = nnx.List(stages)
        self.pooled = 7 if head == 'mlp' else 1
        self.head = Head(
            head, features * self.pooled**2, classes, rate=dropout, kernel_init=init, dtype=dtype, rngs=rngs
        )

    def stage(self, name: str, x: jax.Array, *, train: bool, key: jax.Array | None) -> Any:
        """Applies one stage; `head` returns logits {task: float32 [B, classes]}."""
        if name == 'stem':
            return nnx.relu6(self.bn1(self.conv_stem(x), train=train))
        if name == 'pool':
            return adaptive_average_pool(x, 7) if self.pooled == 7 else x.mean((1, 2))
        if name == 'head':
            return self.head(x, train=train, key=key)
        for block in self.blocks[int(name.removeprefix('blocks'))]:
            x = block(x, train=train)
        return x
