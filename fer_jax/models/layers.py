"""Layers with the conventions of the source frameworks."""

import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fer_jax.errors import UserError
from fer_jax.models.kernels import Kernels, at_least_float32
from fer_jax.models.windows import Padding

kaiming_fan_out = nnx.initializers.variance_scaling(2.0, 'fan_out', 'normal')


def uniform(bound: float) -> Any:
    """Returns an initialiser that draws from U(-bound, bound).

    With a bound of 1/sqrt(fan in) it is torch's default for weight and bias of a linear layer.
    """

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32, out_sharding: Any = None) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


# timm's: normal with variance 2 / fan out
goog_conv = nnx.initializers.variance_scaling(2.0, 'fan_out', 'normal')


class BatchNorm(nnx.Module):
    """Batch normalisation over all axes but the last (Ioffe and Szegedy 2015), as torch.nn.BatchNorm2d.

    running = (1 - momentum) running + momentum batch, with the unbiased batch variance. Keras uses the biased variance,
    and its momentum is 1 - momentum. Statistics are float32 for any compute dtype.
    """

    def __init__(self, features: int, *, eps: float = 1e-5, momentum: float = 0.1, unbiased: bool = True):
        self.scale = nnx.Param(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features))
        self.mean = nnx.BatchStat(jnp.zeros(features))
        self.var = nnx.BatchStat(jnp.ones(features))
        self.eps, self.momentum, self.unbiased = eps, momentum, unbiased
        self.frozen = False

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Normalises x [..., C]: in training mode by the batch's statistics, which are then kept, unless `frozen`.

        Raises:
          UserError: the batch has one value a channel, which by its own statistics is the bias, whatever it is.
        """
        if not train or self.frozen:
            factor = self.scale[...] * jax.lax.rsqrt(self.var[...] + self.eps)
            offset = self.bias[...] - self.mean[...] * factor
            return (at_least_float32(x) * factor + offset).astype(x.dtype)
        count = x.size // x.shape[-1]
        if count == 1:
            raise UserError(f'BatchNorm in training mode takes more than one value a channel, and gets {list(x.shape)}')
        y, mean, var = _normalise(x, self.scale[...], self.bias[...], self.eps)
        self.mean[...] = (1 - self.momentum) * self.mean[...] + self.momentum * mean
        kept = var * (count / (count - 1)) if self.unbiased else var
        self.var[...] = (1 - self.momentum) * self.var[...] + self.momentum * kept
        return y


class Affine(nnx.Module):
    """A scale and a bias for each channel: a BatchNorm whose statistics are part of them.

    It computes the same in training mode: there are no statistics to normalise by or to keep.
    """

    def __init__(self, features: int, *, scaled: bool = True):
        self.scale = nnx.Param(jnp.ones(features)) if scaled else None
        self.bias = nnx.Param(jnp.zeros(features))

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        y = at_least_float32(x)
        return ((y if self.scale is None else y * self.scale[...]) + self.bias[...]).astype(x.dtype)


def norm_paths(batch_stats: Iterable[str]) -> list[str]:
    """Lists the paths of the BatchNorms of these statistics."""
    return [path.removesuffix('.mean') for path in batch_stats if path.endswith('.mean')]


def freeze_norms(model: nnx.Module, paths: Collection[str]) -> None:
    """Sets the BatchNorms at these paths to use and keep their running statistics in training mode."""
    if paths:
        for path, module in nnx.iter_modules(model):
            if isinstance(module, BatchNorm) and '.'.join(map(str, path)) in paths:
                module.frozen = True


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _normalise(x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(y, mean, var). The gradient is written out, through y alone: half of the derived one is known to be zero.

    It makes a pass over the activations where the derived one makes two, which on a CPU is what the layer costs.
    """
    axes = tuple(range(x.ndim - 1))
    wide = at_least_float32(x)
    mean = wide.mean(axes)
    var = jnp.square(wide - mean).mean(axes)
    factor = scale * jax.lax.rsqrt(var + eps)
    return (wide * factor + (bias - mean * factor)).astype(x.dtype), mean, var


def _normalise_forward(x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float) -> tuple[Any, Any]:
    y, mean, var = _normalise(x, scale, bias, eps)
    return (y, mean, var), (x, scale, mean, jax.lax.rsqrt(var + eps))


def _normalise_backward(eps: float, saved: Any, gradients: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, scale, mean, inverse = saved
    axes, count = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
    g = at_least_float32(gradients[0])
    centred = at_least_float32(x) - mean
    of_bias = g.sum(axes)
    of_scale = (g * centred).sum(axes) * inverse
    of_x = (scale * inverse) * (g - of_bias / count - centred * (inverse * of_scale / count))
    return of_x.astype(x.dtype), of_scale, of_bias


_normalise.defvjp(_normalise_forward, _normalise_backward)


def conv(
    features_in: int,
    features_out: int,
    size: int | tuple[int, int],
    *,
    stride: int = 1,
    padding: int | str | Padding | None = None,
    groups: int = 1,
    bias: bool = False,
    kernel_init: Any = kaiming_fan_out,
    dtype: Any,
    kernels: Kernels,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """Creates a convolution layer.

    Args:
      size: side of the kernel, or (height, width).
      padding: pixels at each edge, or (before, after) for each axis, or a padding that `nnx.Conv` accepts by name; None
        means size // 2, as in torch.
    """
    window = (size, size) if isinstance(size, int) else size
    edges: Any = padding
    if padding is None or isinstance(padding, int):
        edges = tuple((edge, edge) for edge in (side // 2 if padding is None else padding for side in window))
    return nnx.Conv(
        features_in,
        features_out,
        window,
        strides=(stride, stride),
        padding=edges,
        feature_group_count=groups,
        use_bias=bias,
        kernel_init=kernel_init,
        dtype=dtype,
        conv_general_dilated=kernels.conv,
        rngs=rngs,
    )


def dropout(x: jax.Array, rate: float, *, train: bool, key: jax.Array | None) -> jax.Array:
    """Zeros a share `rate` of x and scales the rest up (Srivastava et al. 2014); returns x where not in training.

    Raises:
      ValueError: training without a key.
    """
    if not train or rate == 0.0:
        return x
    if key is None:
        raise ValueError(f'dropout of {rate} needs a key in training')
    kept = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(kept, x / (1 - rate), 0)


def drop_branch(y: jax.Array, rate: float, *, train: bool, key: jax.Array | None) -> jax.Array:
    """Zeros a residual branch, y [B, ...], for a share `rate` of the examples, and scales the others up.

    This is stochastic depth (Huang et al. 2016). It returns y itself where not in training.

    Raises:
      ValueError: training without a key.
    """
    if not train or rate == 0.0:
        return y
    if key is None:
        raise ValueError(f'stochastic depth of {rate} needs a key in training')
    kept = jax.random.bernoulli(key, 1 - rate, (y.shape[0],) + (1,) * (y.ndim - 1))
    return jnp.where(kept, y / (1 - rate), 0)


def spread_drop(blocks: Sequence[Any], rate: float) -> None:
    """Sets the drop rates of residual blocks, linearly from 0 for the first to `rate` for the last."""
    for index, block in enumerate(blocks):
        block.drop = rate * index / max(len(blocks) - 1, 1)


def run_blocks(blocks: Iterable[Any], x: jax.Array, *, train: bool, key: jax.Array | None) -> jax.Array:
    """Applies residual blocks one after the other, each with its own fold of the key."""
    for index, block in enumerate(blocks):
        x = block(x, train=train, key=None if key is None else jax.random.fold_in(key, index))
    return x


def adaptive_average_pool(x: jax.Array, size: int) -> jax.Array:
    """Averages [B, H, W, C] into [B, size, size, C], as torch.nn.AdaptiveAvgPool2d.

    Cell i averages rows floor(i H / size) to ceil((i + 1) H / size). H and W may be smaller than `size`.
    """
    rows, columns = (jnp.asarray(_averages(length, size), x.dtype) for length in x.shape[1:3])
    return jnp.einsum('ih,bhwc,jw->bijc', rows, x, columns)


def _averages(length: int, size: int) -> np.ndarray:
    matrix = np.zeros((size, length))
    for cell in range(size):
        low, high = cell * length // size, -(-(cell + 1) * length // size)
        matrix[cell, low:high] = 1 / (high - low)
    return matrix


def average_pool(x: jax.Array, size: int) -> jax.Array:
    """Averages the `size` x `size` pixels around each pixel, without padding values at the edges; the shape is kept.

    This is torch's padding with count_include_pad=False and TensorFlow's SAME.

    Args:
      x: float [B, H, W, C].
      size: odd.
    """
    return nnx.avg_pool(x, (size, size), padding='SAME', count_include_pad=False)


def flatten_channels_first(x: jax.Array) -> jax.Array:
    """Flattens [B, H, W, C] to [B, C H W] in torch's order, so that linear weights convert by transposition."""
    return x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)


class Head(nnx.Module):
    """One linear layer for each task, on pooled features ('linear') or on two hidden layers of 4096 ('mlp').

    Linear: dropout(rate) before it. MLP: ReLU and dropout 0.5 after each hidden layer (Simonyan and Zisserman 2014).
    """

    RESERVED = ('fc6', 'fc7', 'kind', 'rate', 'tasks')  # attributes, so no names for a task

    def __init__(
        self,
        kind: str,
        features: int,
        classes: Mapping[str, int],
        *,
        rate: float,
        kernel_init: Any,
        bias_init: Any = nnx.initializers.zeros,
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        if kind == 'mlp':
            normal = nnx.initializers.normal(0.01)
            self.fc6 = nnx.Linear(features, 4096, kernel_init=normal, dtype=dtype, rngs=rngs)
            self.fc7 = nnx.Linear(4096, 4096, kernel_init=normal, dtype=dtype, rngs=rngs)
            features, kernel_init, bias_init = 4096, normal, nnx.initializers.zeros
        self.kind, self.rate, self.tasks = kind, rate, tuple(classes)
        for task, count in classes.items():
            layer = nnx.Linear(features, count, kernel_init=kernel_init, bias_init=bias_init, rngs=rngs)
            setattr(self, task, layer)

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array | None) -> dict[str, jax.Array]:
        """x [B, features], or [B, 7, 7, C] for 'mlp' -> float32 logits {task: [B, classes]}."""
        if self.kind == 'mlp':
            keys = (None, None) if key is None else jax.random.split(key)
            x = flatten_channels_first(x)
            x = dropout(nnx.relu(self.fc6(x)), 0.5, train=train, key=keys[0])
            x = dropout(nnx.relu(self.fc7(x)), 0.5, train=train, key=keys[1])
        else:
            x = dropout(x, self.rate, train=train, key=key)
        return {task: getattr(self, task)(at_least_float32(x)) for task in self.tasks}


class SqueezeExcite(nnx.Module):
    """Squeeze-and-excite: scales each channel by a gate computed from the channels' averages (Hu et al. 2018)."""

    def __init__(self, features: int, squeezed: int, *, act: Callable[[jax.Array], jax.Array], **shared: Any):
        self.conv_reduce = conv(features, squeezed, 1, bias=True, kernel_init=goog_conv, **shared)
        self.conv_expand = conv(squeezed, features, 1, bias=True, kernel_init=goog_conv, **shared)
        self.act = act

    def __call__(self, x: jax.Array) -> jax.Array:
        gate = self.conv_expand(self.act(self.conv_reduce(x.mean((1, 2), keepdims=True))))
        return x * nnx.sigmoid(gate)
