"""ResNet-v2 (He et al. 2016, "Identity Mappings"), pre-activation, as Keras Applications has it.

A stack's last block strides, not its first, and its shortcut is then every second pixel.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from fer_jax.models import resnet
from fer_jax.models.kernels import Kernels
from fer_jax.models.layers import Head, adaptive_average_pool, conv, drop_branch, run_blocks, spread_drop
from fer_jax.models.resnet import keras_init, keras_norm
from fer_jax.models.stages import Staged

DEPTHS = {f'resnet{depth}_v2': resnet.DEPTHS[depth] for depth in (50, 101, 152)}


class PreactivationBottleneck(nnx.Module):
    """A bottleneck with BatchNorm and ReLU before each convolution and none after the sum.

    The shortcut of `projected` blocks is a 1x1 convolution of the first activation.
    """

    drop = 0.0

    def __init__(self, features_in: int, width: int, *, stride: int, projected: bool, **shared: Any):
        self.preact_bn = keras_norm(features_in)
        self.conv1 = conv(features_in, width, 1, **shared)
        self.bn1 = keras_norm(width)
        self.conv2 = conv(width, width, 3, stride=stride, **shared)
        self.bn2 = keras_norm(width)
        self.conv3 = conv(width, 4 * width, 1, bias=True, **shared)
        self.downsample = conv(features_in, 4 * width, 1, bias=True, **shared) if projected else None
        self.stride = stride

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array | None = None) -> jax.Array:
        y = nnx.relu(self.preact_bn(x, train=train))
        kept = self.downsample(y) if self.downsample else x[:, :: self.stride, :: self.stride]
        y = nnx.relu(self.bn1(self.conv1(y), train=train))
        y = nnx.relu(self.bn2(self.conv2(y), train=train))
        return kept + drop_branch(self.conv3(y), self.drop, train=train, key=key)


class ResNetV2(Staged):
    """A ResNet v2 with the stages stem, layer1 to layer4 (which ends with BatchNorm and ReLU), pool, head.

    The input is float [B, H, W, channels] of any size.
    """

    stages: Mapping[str, tuple[str, ...]] = {
        'stem': ('conv1',),
        **{f'layer{number}': (f'layer{number}',) for number in range(1, 4)},
        'layer4': ('layer4', 'post_bn'),
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
        stochastic_depth: float,
        dtype: Any,
        kernels: Kernels,
        rngs: nnx.Rngs,
    ):
        shared = {'kernel_init': keras_init, 'dtype': dtype, 'kernels': kernels, 'rngs': rngs}
        self.max_pool = kernels.max_pool
        self.conv1 = conv(channels, 64, 7, stride=2, bias=True, **shared)
        features, chain = 64, []
        for number, depth in enumerate(DEPTHS[name], 1):
            width = 32 * 2**number
            blocks = []
            for index in range(depth):
                stride = 2 if number < 4 and index == depth - 1 else 1
                blocks.append(PreactivationBottleneck(features, width, stride=stride, projected=index == 0, **shared))
                features = 4 * width
            chain += blocks
            setattr(self, f'layer{number}', nnx.List(blocks))
        spread_drop(chain, stochastic_depth)
        self.post_bn = keras_norm(features)
        self.pooled = 7 if head == 'mlp' else 1
        self.head = Head(
            head,
            features * self.pooled**2,
            classes,
            rate=dropout,
            kernel_init=keras_init,
            dtype=dtype,
            rngs=rngs,
        )

    def stage(self, name: str, x: jax.Array, *, train: bool, key: jax.Array | None) -> Any:
        """Applies one stage; `head` returns logits {task: float32 [B, classes]}."""
        if name == 'stem':
            # nothing is rectified here, so the zeros at the edges are part of the maximum, as in Keras
            return self.max_pool(jnp.pad(self.conv1(x), ((0, 0), (1, 1), (1, 1), (0, 0))), 3, 2, 0)
        if name == 'pool':
            return adaptive_average_pool(x, 7) if self.pooled == 7 else x.mean((1, 2))
        if name == 'head':
            return self.head(x, train=train, key=key)
        x = run_blocks(getattr(self, name), x, train=train, key=key)
        return nnx.relu(self.post_bn(x, train=train)) if name == 'layer4' else x
