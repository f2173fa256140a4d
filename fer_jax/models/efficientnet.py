"""EfficientNet-B and EfficientNet-Lite (Tan and Le 2019, and TensorFlow's edge variant), under timm's names.

`efficientnet_b*` is torchvision's and timm's form, `tf_efficientnet_b*` the one of TensorFlow, Keras Applications and
timm's weights from there: they differ in padding and in BatchNorm's eps, so weights of one are not the other's.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from flax import nnx

from fer_jax.models.kernels import Kernels
from fer_jax.models.layers import (
    BatchNorm,
    Head,
    SqueezeExcite,
    adaptive_average_pool,
    conv,
    drop_branch,
    goog_conv,
    run_blocks,
    spread_drop,
    uniform,
)
from fer_jax.models.stages import Staged

# B0 and Lite0, one row a stage: repeats, kernel, stride of the first, expansion, width
BLOCKS = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)

SCALES = {'b0': (1.0, 1.0), 'b2': (1.1, 1.2), 'lite0': (1.0, 1.0), 'lite1': (1.0, 1.1), 'lite2': (1.1, 1.2)}

# timm draws the head from +-1/sqrt(classes), here for ImageNet's 1,000: seven classes would start at logits of +-10,
# and the first epochs of a fine-tuning would go into shrinking them.
HEAD_RANGE = 1000**-0.5

# as `goog_conv`: a depthwise kernel's fan out is that of one group
goog_depthwise = nnx.initializers.variance_scaling(2.0, 'fan_in', 'normal')


class Form(NamedTuple):
    """The differences between the members of the family besides their size.

    Attributes:
      act: activation.
      squeeze: whether blocks have a squeeze-and-excite.
      padding: of convolutions over more than a pixel, as in `layers.conv`.
      eps: of BatchNorm.
    """

    act: Callable[[jax.Array], jax.Array]
    squeeze: bool
    padding: str | None
    eps: float


LITE = Form(nnx.relu6, squeeze=False, padding='SAME', eps=1e-3)
TORCH = Form(nnx.silu, squeeze=True, padding=None, eps=1e-5)
TENSORFLOW = Form(nnx.silu, squeeze=True, padding='SAME', eps=1e-3)
FORMS = {
    **{f'efficientnet_lite{number}': LITE for number in range(3)},
    **{f'efficientnet_b{number}': TORCH for number in (0, 2)},
    **{f'tf_efficientnet_b{number}': TENSORFLOW for number in (0, 2)},
}
LITES = tuple(name for name, form in FORMS.items() if form is LITE)


def blocks_of(name: str) -> tuple[tuple[int, int, int, int, int], ...]:
    """Returns the rows of `BLOCKS` scaled to the width and depth of `name`.

    A Lite keeps the repeats of the first and last stage.

    Returns:
      For each stage (repeats, kernel size, stride, expansion, features).
    """
    width, depth = SCALES[name.rpartition('_')[2]]
    rows = []
    for stage, (repeats, kernel, stride, expansion, features) in enumerate(BLOCKS):
        if name not in LITES or 0 < stage < len(BLOCKS) - 1:
            repeats = math.ceil(repeats * depth)
        rows.append((repeats, kernel, stride, expansion, _to_eights(features * width)))
    return tuple(rows)


def _to_eights(features: float) -> int:
    """The nearest multiple of 8, but not below 9/10 of it."""
    near = max(8, int(features + 4) // 8 * 8)
    return near if near >= 0.9 * features else near + 8


class DepthwiseSeparable(nnx.Module):
    """A depthwise and a linear pointwise convolution: the block of the first stage."""

    drop = 0.0

    def __init__(self, features_in: int, features_out: int, *, kernel: int, stride: int, form: Form, **shared: Any):
        self.conv_dw = depthwise(features_in, kernel, stride, form, **shared)
        self.bn1 = BatchNorm(features_in, eps=form.eps)
        self.se = SqueezeExcite(features_in, features_in // 4, act=form.act, **shared) if form.squeeze else None
        self.conv_pw = conv(features_in, features_out, 1, kernel_init=goog_conv, **shared)
        self.bn2 = BatchNorm(features_out, eps=form.eps)
        self.act, self.added = form.act, stride == 1 and features_in == features_out

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array | None = None) -> jax.Array:
        y = self.act(self.bn1(self.conv_dw(x), train=train))
        y = self.se(y) if self.se else y
        y = self.bn2(self.conv_pw(y), train=train)
        return x + drop_branch(y, self.drop, train=train, key=key) if self.added else y


class InvertedResidual(nnx.Module):
    """A residual block of an expanding, a depthwise and a projecting convolution (Sandler et al. 2018)."""

    drop = 0.0

    def __init__(
        self,
        features_in: int,
        features_out: int,
        *,
        kernel: int,
        stride: int,
        expansion: int,
        form: Form,
        **shared: Any,
    ):
        wide = features_in * expansion
        self.conv_pw = conv(features_in, wide, 1, kernel_init=goog_conv, **shared)
        self.bn1 = BatchNorm(wide, eps=form.eps)
        self.conv_dw = depthwise(wide, kernel, stride, form, **shared)
        self.bn2 = BatchNorm(wide, eps=form.eps)
        self.se = SqueezeExcite(wide, features_in // 4, act=form.act, **shared) if form.squeeze else None
        self.conv_pwl = conv(wide, features_out, 1, kernel_init=goog_conv, **shared)
        self.bn3 = BatchNorm(features_out, eps=form.eps)
        self.act, self.added = form.act, stride == 1 and features_in == features_out

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array | None = None) -> jax.Array:
        y = self.act(self.bn1(self.conv_pw(x), train=train))
        y = self.act(self.bn2(self.conv_dw(y), train=train))
        y = self.se(y) if self.se else y
        y = self.bn3(self.conv_pwl(y), train=train)
        return x + drop_branch(y, self.drop, train=train, key=key) if self.added else y


def depthwise(features: int, kernel: int, stride: int, form: Form, **shared: Any) -> nnx.Conv:
    return conv(
        features,
        features,
        kernel,
        stride=stride,
        padding=form.padding,
        groups=features,
        kernel_init=goog_depthwise,
        **shared,
    )


class EfficientNet(Staged):
    """An EfficientNet with the stages stem, blocks0 to blocks6, conv_head, pool, head.

    The input is float [B, H, W, channels] of any size.
    """

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
        stochastic_depth: float,
        dtype: Any,
        kernels: Kernels,
        rngs: nnx.Rngs,
    ):
        shared: dict[str, Any] = {'dtype': dtype, 'kernels': kernels, 'rngs': rngs}
        form = FORMS[name]
        self.act = form.act
        self.conv_stem = conv(channels, 32, 3, stride=2, padding=form.padding, kernel_init=goog_conv, **shared)
        self.bn1 = BatchNorm(32, eps=form.eps)
        features, stages = 32, []
        for repeats, kernel, first_stride, expansion, width in blocks_of(name):
            blocks: list[nnx.Module] = []
            for index in range(repeats):
                options = {'kernel': kernel, 'stride': first_stride if index == 0 else 1, 'form': form, **shared}
                if expansion == 1:
                    blocks.append(DepthwiseSeparable(features, width, **options))
                else:
                    blocks.append(InvertedResidual(features, width, expansion=expansion, **options))
                features = width
            stages.append(nnx.List(blocks))
        spread_drop([block for stage in stages for block in stage], stochastic_depth)
        self.blocks = nnx.List(stages)
        wide = 4 * features if form is not LITE else 1280
        self.conv_head = conv(features, wide, 1, kernel_init=goog_conv, **shared)
        self.bn2 = BatchNorm(wide, eps=form.eps)
        self.pooled = 7 if head == 'mlp' else 1
        self.head = Head(
            head,
            wide * self.pooled**2,
            classes,
            rate=dropout,
            kernel_init=uniform(HEAD_RANGE),
            dtype=dtype,
            rngs=rngs,
        )

    def stage(self, name: str, x: jax.Array, *, train: bool, key: jax.Array | None) -> Any:
        """Applies one stage; `head` returns logits {task: float32 [B, classes]}."""
        if name == 'stem':
            return self.act(self.bn1(self.conv_stem(x), train=train))
        if name == 'conv_head':
            return self.act(self.bn2(self.conv_head(x), train=train))
        if name == 'pool':
            return adaptive_average_pool(x, 7) if self.pooled == 7 else x.mean((1, 2))
        if name == 'head':
            return self.head(x, train=train, key=key)
        return run_blocks(self.blocks[int(name.removeprefix('blocks'))], x, train=train, key=key)
