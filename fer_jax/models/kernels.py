"""Convolution and max-pooling as XLA runs them fast: lax on accelerators, reformulated where its CPU code is slow.

The CPU forms are chosen by shape while tracing and compute what lax computes, values and gradients, up to rounding.
Measured on AMD Zen 5, fp32: a 3x3 convolution on a 2x2 map is 35 to 500 times slower in lax than as im2col and a dot,
the weight gradient of a 1x1 convolution 3 to 12 times slower than a dot's, max-pooling with its gradient 4 to 14 times
slower than a maximum over slices, a depthwise convolution 2 to 40 times slower than a sum of shifted products; on AMD
Zen 4, the weight gradient of 3x3 and 7x7 convolutions of few channels 1.3 to 2.3 times slower than im2col in blocks,
and 3x3 convolutions of 64 and more images on maps of up to 7x7 1.2 to 2.2 times slower than without their padding.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fer_jax.models.windows import Padding, Part, edges_of, size_after, spread, taps_of

BLOCK_BYTES = 512 * 1024  # bytes of im2col that stay in a core's cache
ALIASED_BYTES = 32 * 1024  # bytes after which addresses fall into the same few sets of a cache
TALL_ROWS = 1024  # rows from which on x^T g is computed as (g^T x)^T where x is the wider one
CUT_IMAGES = 64  # images a device from which on small maps are cut: the kernel is copied once for each part


class Kernels(NamedTuple):
    """The implementations of convolution and max-pool that a network uses.

    Attributes:
      conv: as `lax.conv_general_dilated` for NHWC images and HWIO kernels.
      max_pool: (x [B, H, W, C], window, stride, padding) -> [B, H', W', C]. One implementation pads with 0 and the
        other ignores padding, so an input that is padded must be rectified.
    """

    conv: Callable[..., jax.Array]
    max_pool: Callable[[jax.Array, int, int, int], jax.Array]


def choose(name: str = 'auto') -> Kernels:
    """Returns the kernels called 'lax' or 'cpu'; 'auto' is 'cpu' where the default backend is the CPU, else 'lax'."""
    forms = {'lax': Kernels(lax.conv_general_dilated, lax_max_pool), 'cpu': Kernels(cpu_conv, cpu_max_pool)}
    if name == 'auto':
        name = 'cpu' if jax.default_backend() == 'cpu' else 'lax'
    return forms[name]


def lax_max_pool(x: jax.Array, window: int, stride: int, padding: int) -> jax.Array:
    edges = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, window, window, 1), (1, stride, stride, 1), edges)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def cpu_max_pool(x: jax.Array, window: int, stride: int, padding: int) -> jax.Array:
    """Computes a max-pool over strided slices; the gradient goes to the first of equal values, as in torch."""
    return _max_and_place(x, window, stride, padding)[0]


def _max_and_place(x: jax.Array, window: int, stride: int, padding: int) -> tuple[jax.Array, jax.Array]:
    """The maximum of each window, and which of its elements that is, counted by rows: uint8."""
    edge = (padding, padding)
    out = [size_after(size, window, stride, edge) for size in x.shape[1:3]]
    (_, most), *taps = taps_of(x, (window, window), (stride, stride), (edge, edge), out)
    place = jnp.zeros(most.shape, jnp.uint8)
    for (i, j), tap in taps:
        place = jnp.where(tap > most, np.uint8(window * i + j), place)
        most = jnp.maximum(most, tap)
    return most, place


def _max_pool_forward(
    x: jax.Array, window: int, stride: int, padding: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    most, place = _max_and_place(x, window, stride, padding)
    return most, (place, x)


def _max_pool_backward(
    window: int, stride: int, padding: int, saved: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array]:
    place, x = saved

    def there(i: int, j: int, place: jax.Array, g: jax.Array) -> jax.Array:
        return jnp.where(place == window * i + j, g, 0)

    edges = ((padding, padding), (padding, padding))
    return (spread(there, (place, g), (window, window), (stride, stride), edges, x.shape),)


cpu_max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def cpu_conv(
    x: jax.Array,
    kernel: jax.Array,
    window_strides: Sequence[int],
    padding: str | Padding,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    **options: Any,
) -> jax.Array:
    """Computes `lax.conv_general_dilated` on NHWC and HWIO by the fastest of five implementations."""
    window, strides = kernel.shape[:2], tuple(window_strides)
    edges = edges_of(padding, x.shape[1:3], window, strides)
    dilated = any(factor != 1 for factor in (*(lhs_dilation or (1,)), *(rhs_dilation or (1,))))
    if not dilated:
        out = tuple(size_after(*sizes) for sizes in zip(x.shape[1:3], window, strides, edges, strict=True))
        depthwise = feature_group_count == x.shape[-1] == kernel.shape[-1] and kernel.shape[2] == 1
        if window == (1, 1) and feature_group_count == 1 and not any(map(any, edges)):
            return _pointwise(x[:, :: strides[0], :: strides[1]], kernel[0, 0])
        if depthwise:
            return _depthwise(x, kernel, strides, tuple(edges))
        if feature_group_count == 1 and _is_small(x.shape, window, edges, out):
            return _small_conv(x, kernel, strides, edges, out)
        if feature_group_count == 1:
            return _conv(x, kernel, strides, tuple(edges))
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        edges,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers,
        feature_group_count=feature_group_count,
        **options,
    )


def _pointwise(x: jax.Array, matrix: jax.Array) -> jax.Array:
    """[B, H, W, C] x [C, D] as one matrix product, whose gradients are matrix products too."""
    return _product(x.reshape(-1, x.shape[-1]), matrix).reshape(*x.shape[:-1], matrix.shape[-1])


@jax.custom_vjp
def _product(x: jax.Array, matrix: jax.Array) -> jax.Array:
    """[N, C] x [C, D]."""
    return x @ matrix


def _product_backward(saved: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The wider of both goes to the right: XLA takes up to twice as long for it on the left.

    The barrier keeps XLA from turning the product back.
    """
    x, matrix = saved
    of_x = g @ matrix.T
    if x.shape[1] > g.shape[1] and len(x) >= TALL_ROWS:
        return of_x, lax.optimization_barrier(g.T @ x).T
    return of_x, x.T @ g


_product.defvjp(lambda x, matrix: (x @ matrix, (x, matrix)), _product_backward)


def _is_small(shape: tuple[int, ...], window: Sequence[int], edges: Padding, out: Sequence[int]) -> bool:
    """Maps for which im2col is faster than lax; larger ones where a batch is large enough to cut them, see below.

    Every output sees a part of the map, so that no part of a cut one is empty.
    """
    sees = all(max(edge) < size for edge, size in zip(edges, window, strict=True))
    cut = max(out) <= 7 and max(window) <= 3 and _is_cut(shape)
    return max(window) > 1 and sees and (max(shape[1:3]) <= 3 or max(out) <= 2 or cut)


def _is_cut(shape: tuple[int, ...]) -> bool:
    """Not between processes: the gradient of every part is summed over devices by itself."""
    return shape[0] // jax.device_count() >= CUT_IMAGES and jax.process_count() == 1


def _small_conv(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, ...], edges: Padding, out: Sequence[int]
) -> jax.Array:
    """im2col and a matrix product; of a large batch one for each part of the map that sees the same taps.

    Then nothing is multiplied by the zeros around the map, which with a 3x3 kernel are in 5 of 9 products on a 2x2 map,
    in 3 of 10 on 4x4.
    """
    axes = [*zip(x.shape[1:3], kernel.shape, strides, edges, out, strict=False)]
    if _is_cut(x.shape):
        cut = [_parts(*axis) for axis in axes]
    else:
        cut = [[((0, count), (0, window))] for _, window, _, _, count in axes]
    padded = jnp.pad(x, ((0, 0), *edges, (0, 0)))

    def part(rows: Part, columns: Part) -> jax.Array:
        places, taps = zip(rows, columns, strict=True)
        top, left = (place[0] * stride + tap[0] for place, tap, stride in zip(places, taps, strides, strict=True))
        count, window = ([last - first for first, last in spans] for spans in (places, taps))
        under = kernel[slice(*taps[0]), slice(*taps[1])].reshape(-1, kernel.shape[-1])
        return _pointwise(_columns(padded[:, top:, left:], window, strides, count), under)

    lines = [jnp.concatenate([part(rows, columns) for columns in cut[1]], 2) for rows in cut[0]]
    return jnp.concatenate(lines, 1)


def _columns(x: jax.Array, window: Sequence[int], strides: Sequence[int], out: Sequence[int]) -> jax.Array:
    """im2col, [B, H', W', R C]: of two places by place, which compiles faster, of more by tap, which runs faster."""
    if out[0] * out[1] > 2:
        return jnp.concatenate([tap for _, tap in taps_of(x, window, strides, ((0, 0), (0, 0)), out)], -1)
    starts = itertools.product(*(range(0, stride * size, stride) for stride, size in zip(strides, out, strict=True)))
    places = [x[:, top : top + window[0], left : left + window[1]].reshape(len(x), -1) for top, left in starts]
    return jnp.stack(places, 1).reshape(len(x), *out, -1)


def _parts(size: int, window: int, stride: int, edge: tuple[int, int], out: int) -> list[Part]:
    """Neighbouring outputs along one axis that see the same taps, and these taps, as (first, last + 1) each."""
    parts: list[Part] = []
    for place in range(out):
        start = place * stride - edge[0]
        taps = max(0, -start), min(window, size - start)
        first = parts.pop()[0][0] if parts and parts[-1][1] == taps else place
        parts.append(((first, place + 1), taps))
    return parts


def at_least_float32(x: jax.Array) -> jax.Array:
    """Casts x to float32, in which sums of bfloat16 are computed; float64 stays float64."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _shifted_products(x: jax.Array, kernel: jax.Array, strides: tuple[int, ...], edges: Padding) -> jax.Array:
    window = kernel.shape[:2]
    out = [size_after(*sizes) for sizes in zip(x.shape[1:3], window, strides, edges, strict=True)]
    wide = at_least_float32(kernel)  # as lax does
    products = [tap * wide[i, j, 0] for (i, j), tap in taps_of(x, window, strides, edges, out)]
    return functools.reduce(jnp.add, products).astype(x.dtype)


_depthwise = jax.custom_vjp(_shifted_products, nondiff_argnums=(2, 3))


def _depthwise_forward(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, ...], edges: Padding
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _shifted_products(x, kernel, strides, edges), (x, kernel)


def _depthwise_backward(
    strides: tuple[int, ...], edges: Padding, saved: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    window = kernel.shape[:2]
    if strides == (1, 1) and max(map(max, edges)) < min(window):
        turned = tuple((size - 1 - low, size - 1 - high) for size, (low, high) in zip(window, edges, strict=True))
        of_x = _shifted_products(g, kernel[::-1, ::-1], strides, turned)
    else:
        wide = at_least_float32(kernel)
        of_x = spread(lambda i, j, g: g * wide[i, j, 0], (g,), window, strides, edges, x.shape).astype(x.dtype)
    # All taps in one reduction over each image, 5 to 15 times faster than a sum over the batch for each tap. The
    # barriers keep XLA from fusing the padding into it, and it into the stacking: both would undo that.
    padded = lax.optimization_barrier(jnp.pad(x, ((0, 0), *edges, (0, 0))))
    taps = taps_of(padded, window, strides, ((0, 0), (0, 0)), g.shape[1:3])
    products = [at_least_float32(tap * g) for _, tap in taps]
    zeros = [np.zeros((), products[0].dtype)] * len(products)
    sums = lax.reduce(products, zeros, lambda a, b: [p + q for p, q in zip(a, b, strict=True)], (1, 2))
    of_kernel = jnp.stack(lax.optimization_barrier(sums)).sum(1)
    return of_x, of_kernel.reshape(kernel.shape).astype(kernel.dtype)


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


_lax_conv = functools.partial(lax.conv_general_dilated, dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(x: jax.Array, kernel: jax.Array, strides: tuple[int, ...], edges: Padding) -> jax.Array:
    return _lax_conv(x, kernel, strides, edges)


def _conv_forward(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, ...], edges: Padding
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _lax_conv(x, kernel, strides, edges), (x, kernel)


def _conv_backward(
    strides: tuple[int, ...], edges: Padding, saved: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """lax's gradients, as convolutions of NHWC by HWIO.

    XLA for CPUs turns others into such outside of loops only. In a loop, as in programs of several steps, it would run
    them element by element, ten times slower.
    """
    x, kernel = saved
    sizes = [*zip(x.shape[1:3], kernel.shape, strides, edges, g.shape[1:3], strict=False)]
    around = [(k - 1 - low, size - 1 - (out - 1) * stride + low) for size, k, stride, (low, _), out in sizes]
    of_x = _lax_conv(g, kernel[::-1, ::-1].swapaxes(2, 3), (1, 1), around, lhs_dilation=strides)
    if _in_blocks(x.shape, kernel.shape, x.dtype.itemsize):
        return of_x, _weight_gradient_in_blocks(x, kernel, strides, edges, g)
    around = [(low, k + (out - 1) * stride - size - low) for size, k, stride, (low, _), out in sizes]
    of_kernel = _lax_conv(x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3), (1, 1), around, rhs_dilation=strides)
    return of_x, of_kernel.transpose(1, 2, 0, 3)


_conv.defvjp(_conv_forward, _conv_backward)


def _weight_gradient_in_blocks(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, ...], edges: Padding, g: jax.Array
) -> jax.Array:
    """im2col and a dot over blocks of rows whose columns stay in the cache.

    lax transposes x and g for it, by strides that fall into the same few sets of the cache. Each device goes over its
    own part of the batch, so that devices meet once, at the end.
    """
    (high, wide, features, outputs), (count, rows, columns, _) = kernel.shape, g.shape
    parts, size = jax.device_count(), high * wide * features
    row = columns * size * x.dtype.itemsize
    lines = _largest_divisor(rows, BLOCK_BYTES // row)
    images = _largest_divisor(count // parts, BLOCK_BYTES // (row * rows)) if lines == rows else 1
    padded = jnp.pad(x, ((0, 0), *edges, (0, 0)))
    padded, own = (leaf.reshape(parts, count // parts, *leaf.shape[1:]) for leaf in (padded, g))
    tall = (lines - 1) * strides[0] + high
    turned = size > outputs and size % 64 == 0  # see _product_backward; 147 of a stem would fill tiles of 64 badly

    def add(total: jax.Array, block: jax.Array) -> tuple[jax.Array, None]:
        image, line = images * (block // (rows // lines)), lines * (block % (rows // lines))
        seen = lax.dynamic_slice(padded, (0, image, strides[0] * line, 0, 0), (parts, images, tall, *padded.shape[3:]))
        of_g = lax.dynamic_slice(own, (0, image, line, 0, 0), (parts, images, lines, columns, outputs))
        taps = taps_of(seen.reshape(-1, *seen.shape[2:]), (high, wide), strides, ((0, 0), (0, 0)), (lines, columns))
        columns_of = jnp.concatenate([tap for _, tap in taps], -1).reshape(parts, -1, size)
        pair = columns_of, of_g.reshape(parts, -1, outputs)
        product = lax.dot_general(*(pair[::-1] if turned else pair), (((1,), (1,)), ((0,), (0,))))
        return total + product.astype(total.dtype), None

    zeros = at_least_float32(jnp.zeros((parts, outputs, size) if turned else (parts, size, outputs), x.dtype))
    of_kernel = lax.scan(add, zeros, jnp.arange(count // parts // images * (rows // lines)))[0].sum(0)
    return (of_kernel.T if turned else of_kernel).reshape(kernel.shape).astype(kernel.dtype)


def _in_blocks(x: tuple[int, ...], kernel: tuple[int, ...], itemsize: int) -> bool:
    """Where that gains: images a multiple of 32 KB apart and a kernel that fits a cache, or hardly any channels."""
    apart = x[1] * x[2] * x[3] * itemsize
    few = kernel[2] <= 4 or (apart % ALIASED_BYTES == 0 and kernel[2] * kernel[3] <= 256 * 256)
    return few and max(kernel[:2]) > 1 and x[0] % jax.device_count() == 0


def _largest_divisor(number: int, limit: int) -> int:
    return max((part for part in range(1, number + 1) if number % part == 0 and part <= limit), default=1)
