"""Residual networks for faces of 36 to 64 pixels, sized for training from fresh weights on a CPU; this project's own.

Basic blocks (He et al. 2015) behind a 3x3 stem of stride 2 without a max-pool, as ResNets for small images have them,
with most of the arithmetic at 128 and more channels on maps of 12x12 and less, where a CPU computes fastest.
"""

from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from fer_jax.models.kernels import Kernels
from fer_jax.models.layers import BatchNorm, Head, adaptive_average_pool, conv, run_blocks, spread_drop, uniform
from fer_jax.models.resnet import TORCH, BasicBlock
from fer_jax.models.stages import Staged

WIDTHS = (32, 128, 256)
DEPTHS = {'resnet8_small': (1, 1, 1), 'resnet12_small': (1, 2, 2), 'resnet16_small': (1, 3, 3)}


class SmallResNet(Staged):
    """A small ResNet with the stages stem, layer1 to layer3, pool, head.

    The input is float [B, H, W, channels] of any size.
    """

    stages: Mapping[str, tuple[str, ...]] = {
        'stem': ('conv1', 'bn1'),
        **{f'layer{number}': (f'layer{number}',) for number in range(1, 4)},
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
        shared = {'dtype': dtype, 'kernels': kernels, 'rngs': rngs}
        features = WIDTHS[0]
        self.conv1 = conv(channels, features, 3, stride=2, **shared)
        self.bn1 = BatchNorm(features)
        chain = []
        for number, (width, depth) in enumerate(zip(WIDTHS, DEPTHS[name], strict=True), 1):
            blocks = []
            for index in range(depth):
                stride = 2 if number > 1 and index == 0 else 1
                blocks.append(BasicBlock(features, width, stride=stride, form=TORCH, **shared))
                features = width
            chain += blocks
            setattr(self, f'layer{number}', nnx.List(blocks))
        spread_drop(chain, stochastic_depth)
        self.pooled = 7 if head == 'mlp' else 1
        near = uniform(features**-0.5)
        self.head = Head(
            head,
            features * self.pooled**2,
            classes,
            rate=dropout,
            kernel_init=near,
            bias_init=near,
            dtype=dtype,
            rngs=rngs,
        )

    def stage(self, name: str, x: jax.Array, *, train: bool, key: jax.Array | None) -> Any:
        """Applies one stage; `head` returns logits {task: float32 [B, classes]}."""
        if name == 'stem':
            return nnx.relu(self.bn1(self.conv1(x), train=train))
        if name == 'pool':
            return adaptive_average_pool(x, 7) if self.pooled == 7 else x.mean((1, 2))
        if name == 'head':
            return self.head(x, train=train, key=key)
        return run_blocks(getattr(self, name), x, train=train, key=key)
