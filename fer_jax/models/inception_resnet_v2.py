"""Inception-ResNet-v2 (Szegedy et al. 2016), under timm's names; timm and Keras Applications compute the same."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from fer_jax.models.inception_blocks import Branches, Chains, ConvBN, InceptionResNet, Reduction, Residual
from fer_jax.models.kernels import Kernels
from fer_jax.models.layers import Head, adaptive_average_pool, average_pool, uniform

BLOCK35: Chains = [[(32, 1)], [(32, 1), (32, 3)], [(32, 1), (48, 3), (64, 3)]]
BLOCK17: Chains = [[(192, 1)], [(128, 1), (160, (1, 7)), (192, (7, 1))]]
BLOCK8: Chains = [[(192, 1)], [(192, 1), (224, (1, 3)), (256, (3, 1))]]


class Mixed5b(Branches):
    """An Inception-A block with an average pool in its fourth branch."""

    def __init__(self, **shared: Any):
        super().__init__(192, [[(96, 1)], [(48, 1), (64, 5)], [(64, 1), (96, 3), (96, 3)]], **shared)
        self.branch3: Any = nnx.List([None, ConvBN(192, 64, 1, **shared)])  # the first is the pool's place

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        pooled = self.branch3[1](average_pool(x, 3), train=train)
        return jnp.concatenate([*self.branches(x, train=train), pooled], axis=-1)


class InceptionResNetV2(InceptionResNet):
    """Inception-ResNet-v2 with the stage names of the paper.

    The input is float [B, H, W, channels], H and W 75 or more; published weights were trained at 299.
    """

    stages: Mapping[str, tuple[str, ...]] = {
        'stem': ('conv2d_1a', 'conv2d_2a', 'conv2d_2b', 'conv2d_3b', 'conv2d_4a'),
        'mixed_5b': ('mixed_5b',),
        'block35': ('repeat',),
        'mixed_6a': ('mixed_6a',),
        'block17': ('repeat_1',),
        'mixed_7a': ('mixed_7a',),
        'block8': ('repeat_2', 'block8'),
        'conv_7b': ('conv2d_7b',),
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
        super().__init__(channels, **shared)
        self.mixed_5b = Mixed5b(**shared)
        self.repeat = nnx.List([Residual(320, BLOCK35, scale=0.17, **shared) for _ in range(10)])
        self.mixed_6a = Reduction(320, [[(384, 3, 2)], [(256, 1), (256, 3), (384, 3, 2)]], **shared)
        self.repeat_1 = nnx.List([Residual(1088, BLOCK17, scale=0.10, **shared) for _ in range(20)])
        self.mixed_7a = Reduction(
            1088, [[(256, 1), (384, 3, 2)], [(256, 1), (288, 3, 2)], [(256, 1), (288, 3), (320, 3, 2)]], **shared
        )
        self.repeat_2 = nnx.List([Residual(2080, BLOCK8, scale=0.20, **shared) for _ in range(9)])
        self.block8 = Residual(2080, BLOCK8, scale=1.0, rectified=False, **shared)
        self.conv2d_7b = ConvBN(2080, 1536, 1, **shared)
        self.pooled = 7 if head == 'mlp' else 1
        init = uniform(1536**-0.5)
        self.head = Head(
            head,
            1536 * self.pooled**2,
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
            return self.max_pool(self.stem(x, train=train), 3, 2, 0)
        if name == 'pool':
            return adaptive_average_pool(x, 7) if self.pooled == 7 else x.mean((1, 2))
        if name == 'head':
            return self.head(x, train=train, key=key)
        return self.blocks(name, x, train=train)
