"""dlib's face ResNet (King 2017): 29 convolutions, 150 px, an embedding of 128 values.

Its BatchNorms are folded into a scale and a bias for each channel. Where a block halves its map it pads nothing, and
its shortcut is an average of 2x2 pixels; of two maps of different size or width the smaller is continued by zeros.
Embeddings of the same person lie nearer than 0.6.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from fer_jax.models.kernels import Kernels
from fer_jax.models.layers import Affine, Head, conv
from fer_jax.models.stages import Staged

STEM_WIDTH = 32
LEVELS = {'level4': (3, 32), 'level3': (4, 64), 'level2': (3, 128), 'level1': (3, 256), 'level0': (1, 256)}
NOT_HALVED = 'level4'  # by its first block
EMBEDDING = 128
KERNEL = 3  # side of a block's kernels
SAME_PERSON = 0.6  # distance of two embeddings


class DlibBlock(nnx.Module):
    """Two 3x3 convolutions, each with a scale and a bias for each channel, and a shortcut; ReLU at the end."""

    def __init__(self, features_in: int, features_out: int, *, stride: int, **shared: Any):
        padding = 0 if stride > 1 else KERNEL // 2
        self.conv1 = conv(features_in, features_out, KERNEL, stride=stride, padding=padding, bias=True, **shared)
        self.affine1 = Affine(features_out)
        self.conv2 = conv(features_out, features_out, KERNEL, bias=True, **shared)
        self.affine2 = Affine(features_out)
        self.stride = stride

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        wide, shortcut = x, x
        if self.stride > 1:  # a map of two pixels, which images of less than 103 leave, is continued by zeros
            wide = extend(x, (1, KERNEL, KERNEL, 1))
            shortcut = nnx.avg_pool(x, (self.stride, self.stride), strides=(self.stride, self.stride))
        y = nnx.relu(self.affine1(self.conv1(wide), train=train))
        y = self.affine2(self.conv2(y), train=train)
        return nnx.relu(extend(y, shortcut.shape) + extend(shortcut, y.shape))


def extend(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Adds zeros at the end of each axis of x that is shorter than in `shape`."""
    return jnp.pad(x, [(0, max(0, wanted - size)) for size, wanted in zip(x.shape, shape, strict=True)])


class DlibResNet(Staged):
    """dlib's face ResNet with the stages stem, level4 to level0, pool, embedding, head.

    The input is float [B, H, W, channels], H and W 71 or more; dlib itself takes 150 alone. The stage `embedding`
    returns [B, 128]. With `head='mlp'` the head reads the embedding.
    """

    min_size = 71  # leaves two pixels to the last block that halves
    stages: Mapping[str, tuple[str, ...]] = {
        'stem': ('conv1', 'affine1'),
        **{level: (level,) for level in LEVELS},
        'pool': (),
        'embedding': ('embedding',),
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
        self.conv1 = conv(channels, STEM_WIDTH, 7, stride=2, padding=0, bias=True, **shared)
        self.affine1 = Affine(STEM_WIDTH)
        features = STEM_WIDTH
        for level, (count, width) in LEVELS.items():
            blocks = []
            for index in range(count):
                stride = 1 if index or level == NOT_HALVED else 2
                blocks.append(DlibBlock(features, width, stride=stride, **shared))
                features = width
            setattr(self, level, nnx.List(blocks))
        init = nnx.initializers.glorot_uniform()
        self.embedding = nnx.Linear(features, EMBEDDING, use_bias=False, kernel_init=init, dtype=dtype, rngs=rngs)
        self.kind = head
        self.head = Head(head, EMBEDDING, classes, rate=dropout, kernel_init=init, dtype=dtype, rngs=rngs)

    def stage(self, name: str, x: jax.Array, *, train: bool, key: jax.Array | None) -> Any:
        """Applies one stage; `head` returns logits {task: float32 [B, classes]}."""
        if name == 'stem':
            return self.max_pool(nnx.relu(self.affine1(self.conv1(x), train=train)), 3, 2, 0)
        if name == 'pool':
            return x.mean((1, 2))
        if name == 'embedding':
            return self.embedding(x)
        if name == 'head':
            return self.head(x[:, None, None] if self.kind == 'mlp' else x, train=train, key=key)
        for block in getattr(self, name):
            x = block(x, train=train)
        return x
