"""ResNet (He et al. 2015) in the forms in which its weights are published, under torchvision's layer names.

`resnet50` is torchvision's and timm's v1.5, whose bottlenecks stride at the 3x3 convolution. The original strides at
the first 1x1: `resnet50_v1` as Keras Applications keeps it, `resnet50_caffe` and `senet50_caffe` as the networks of
VGGFace2 (Cao et al. 2018), the latter with squeeze-and-excite (Hu et al. 2018). Weights of one form are not another's.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from fer_jax.models.kernels import Kernels
from fer_jax.models.layers import (
    BatchNorm,
    Head,
    SqueezeExcite,
    adaptive_average_pool,
    conv,
    drop_branch,
    kaiming_fan_out,
    run_blocks,
    spread_drop,
    uniform,
)
from fer_jax.models.stages import Staged


class Form(NamedTuple):
    """The differences between the published ResNets besides their depth.

    Attributes:
      early: whether a bottleneck strides at its first convolution instead of its second.
      bias: whether convolutions have biases.
      norm: BatchNorm of a number of features.
      caffe_pool: whether the stem's max-pool has no padding but a last window that hangs over the edge (ceil mode).
      squeeze: whether bottlenecks end in a squeeze-and-excite.
      init: of the convolutions' kernels.
    """

    early: bool = False
    bias: bool = False
    norm: Callable[[int], BatchNorm] = BatchNorm
    caffe_pool: bool = False
    squeeze: bool = False
    init: Any = kaiming_fan_out


keras_norm = functools.partial(BatchNorm, eps=1.001e-5, momentum=0.01, unbiased=False)
keras_init = nnx.initializers.glorot_uniform()

TORCH = Form()
KERAS = Form(early=True, bias=True, norm=keras_norm, init=keras_init)
CAFFE = Form(early=True, caffe_pool=True)
DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
FORMS = {
    **{f'resnet{depth}': (depth, TORCH) for depth in DEPTHS},
    **{f'resnet{depth}_v1': (depth, KERAS) for depth in (50, 101, 152)},
    'resnet50_caffe': (50, CAFFE),
    'senet50_caffe': (50, CAFFE._replace(squeeze=True)),
}


class BasicBlock(nnx.Module):
    expansion = 1
    drop = 0.0

    def __init__(self, features_in: int, width: int, *, stride: int, form: Form, **shared: Any):
        self.conv1 = conv(features_in, width, 3, stride=stride, **shared)
        self.bn1 = form.norm(width)
        self.conv2 = conv(width, width, 3, **shared)
        self.bn2 = form.norm(width)
        self.downsample = shortcut(features_in, width, stride=stride, form=form, **shared)

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array | None = None) -> jax.Array:
        y = nnx.relu(self.bn1(self.conv1(x), train=train))
        y = self.bn2(self.conv2(y), train=train)
        y = drop_branch(y, self.drop, train=train, key=key)
        return nnx.relu(y + shorten(self.downsample, x, train=train))


class Bottleneck(nnx.Module):
    expansion = 4
    drop = 0.0

    def __init__(self, features_in: int, width: int, *, stride: int, form: Form, **shared: Any):
        first, second = (stride, 1) if form.early else (1, stride)
        self.conv1 = conv(features_in, width, 1, stride=first, **shared)
        self.bn1 = form.norm(width)
        self.conv2 = conv(width, width, 3, stride=second, **shared)
        self.bn2 = form.norm(width)
        self.conv3 = conv(width, 4 * width, 1, **shared)
        self.bn3 = form.norm(4 * width)
        own = {name: shared[name] for name in ('dtype', 'kernels', 'rngs')}
        self.se = SqueezeExcite(4 * width, width // 4, act=nnx.relu, **own) if form.squeeze else None
        self.downsample = shortcut(features_in, 4 * width, stride=stride, form=form, **shared)

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array | None = None) -> jax.Array:
        y = nnx.relu(self.bn1(self.conv1(x), train=train))
        y = nnx.relu(self.bn2(self.conv2(y), train=train))
        y = self.bn3(self.conv3(y), train=train)
        y = self.se(y) if self.se else y
        y = drop_branch(y, self.drop, train=train, key=key)
        return nnx.relu(y + shorten(self.downsample, x, train=train))


def shortcut(features_in: int, features_out: int, *, stride: int, form: Form, **shared: Any) -> nnx.List | None:
    """Creates a 1x1 convolution and BatchNorm for a block that changes size or width; returns None for the identity."""
    if stride == 1 and features_in == features_out:
        return None
    return nnx.List([conv(features_in, features_out, 1, stride=stride, **shared), form.norm(features_out)])


def shorten(downsample: nnx.List | None, x: jax.Array, *, train: bool) -> jax.Array:
    if downsample is None:
        return x
    return downsample[1](downsample[0](x), train=train)


class ResNet(Staged):
    """A ResNet with the stages stem, layer1 to layer4, pool, head.

    The input is float [B, H, W, channels] of any size.
    """

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
        stochastic_depth: float,
        dtype: Any,
        kernels: Kernels,
        rngs: nnx.Rngs,
    ):
        number_of_layers, form = FORMS[name]
        shared = {'bias': form.bias, 'kernel_init': form.init, 'dtype': dtype, 'kernels': kernels, 'rngs': rngs}
        block = BasicBlock if number_of_layers < 50 else Bottleneck
        self.max_pool, self.caffe_pool = kernels.max_pool, form.caffe_pool
        self.conv1 = conv(channels, 64, 7, stride=2, **shared)
        self.bn1 = form.norm(64)
        features, chain = 64, []
        for number, depth in enumerate(DEPTHS[number_of_layers], 1):
            width = 32 * 2**number
            blocks = []
            for index in range(depth):
                stride = 2 if number > 1 and index == 0 else 1
                blocks.append(block(features, width, stride=stride, form=form, **shared))
                features = width * block.expansion
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
            kernel_init=keras_init if form is KERAS else near,
            bias_init=nnx.initializers.zeros if form is KERAS else near,
            dtype=dtype,
            rngs=rngs,
        )

    def stage(self, name: str, x: jax.Array, *, train: bool, key: jax.Array | None) -> Any:
        """Applies one stage; `head` returns logits {task: float32 [B, classes]}."""
        if name == 'stem':
            x = nnx.relu(self.bn1(self.conv1(x), train=train))
            if self.caffe_pool:  # an odd side's windows end before what is added
                return self.max_pool(jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0))), 3, 2, 0)
            return self.max_pool(x, 3, 2, 1)
        if name == 'pool':
            return adaptive_average_pool(x, 7) if self.pooled == 7 else x.mean((1, 2))
        if name == 'head':
            return self.head(x, train=train, key=key)
        return run_blocks(getattr(self, name), x, train=train, key=key)
