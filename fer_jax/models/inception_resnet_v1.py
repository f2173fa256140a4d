"""Inception-ResNet-v1 (Szegedy et al. 2016) as FaceNet (Schroff et al. 2015) embeds faces, in facenet-pytorch's form.

The network narrows to a linear embedding of 512 with BatchNorm, from which the head classifies: 8,631 identities for
VGGFace2's weights, 10,575 for CASIA-WebFace's.
"""

from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from fer_jax.models.inception_blocks import Chains, ConvBN, InceptionResNet, Reduction, Residual
from fer_jax.models.kernels import Kernels
from fer_jax.models.layers import BatchNorm, Head, dropout, uniform

EMBEDDING = 512
EMBEDDING_DROPOUT = 0.6
BLOCK35: Chains = [[(32, 1)], [(32, 1), (32, 3)], [(32, 1), (32, 3), (32, 3)]]
BLOCK17: Chains = [[(128, 1)], [(128, 1), (128, (1, 7)), (128, (7, 1))]]
BLOCK8: Chains = [[(192, 1)], [(192, 1), (192, (1, 3)), (192, (3, 1))]]


class InceptionResNetV1(InceptionResNet):
    """Inception-ResNet-v1 with the stage names of facenet-pytorch.

    The input is float [B, H, W, channels], H and W 75 or more; published weights were trained at 160. The stage
    `embedding` returns [B, 512], before FaceNet's scaling to length 1. With `head='mlp'` the head reads the embedding.
    """

    stages: Mapping[str, tuple[str, ...]] = {
        'stem': ('conv2d_1a', 'conv2d_2a', 'conv2d_2b', 'conv2d_3b', 'conv2d_4a', 'conv2d_4b'),
        **{name: (name,) for name in ('repeat_1', 'mixed_6a', 'repeat_2', 'mixed_7a', 'repeat_3', 'block8')},
        'pool': (),
        'embedding': ('last_linear', 'last_bn'),
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
        self.conv2d_4b = ConvBN(192, 256, 3, stride=2, padding=0, **shared)
        self.repeat_1 = nnx.List([Residual(256, BLOCK35, scale=0.17, **shared) for _ in range(5)])
        self.mixed_6a = Reduction(256, [[(384, 3, 2)], [(192, 1), (192, 3), (256, 3, 2)]], **shared)
        self.repeat_2 = nnx.List([Residual(896, BLOCK17, scale=0.10, **shared) for _ in range(10)])
        self.mixed_7a = Reduction(
            896, [[(256, 1), (384, 3, 2)], [(256, 1), (256, 3, 2)], [(256, 1), (256, 3), (256, 3, 2)]], **shared
        )
        self.repeat_3 = nnx.List([Residual(1792, BLOCK8, scale=0.20, **shared) for _ in range(5)])
        self.block8 = Residual(1792, BLOCK8, scale=1.0, rectified=False, **shared)
        init = uniform(1792**-0.5)
        self.last_linear = nnx.Linear(1792, EMBEDDING, use_bias=False, kernel_init=init, dtype=dtype, rngs=rngs)
        self.last_bn = BatchNorm(EMBEDDING, eps=1e-3)
        init = uniform(EMBEDDING**-0.5)
        self.kind = head
        self.head = Head(
            head, EMBEDDING, classes, rate=dropout, kernel_init=init, bias_init=init, dtype=dtype, rngs=rngs
        )

    def stage(self, name: str, x: jax.Array, *, train: bool, key: jax.Array | None) -> Any:
        """Applies one stage; `head` returns logits {task: float32 [B, classes]}."""
        if name == 'stem':
            return self.conv2d_4b(self.stem(x, train=train), train=train)
        if name == 'pool':
            return x.mean((1, 2))
        if name == 'embedding':
            x = dropout(x, EMBEDDING_DROPOUT, train=train, key=key)
            return self.last_bn(self.last_linear(x), train=train)
        if name == 'head':
            return self.head(x[:, None, None] if self.kind == 'mlp' else x, train=train, key=key)
        return self.blocks(name, x, train=train)
