"""Windows of convolutions and of pooling: their edges, their number, and where they lie."""

import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

Padding = Sequence[tuple[int, int]]
Span = tuple[int, int]  # the first, and the last + 1
Part = tuple[Span, Span]  # outputs along an axis, and the taps they see
Tap = tuple[tuple[int, int], jax.Array]  # an element (i, j) of the window, and what lies under it [B, H', W', C]


def spread(
    part: Callable[..., jax.Array],
    arrays: Sequence[jax.Array],
    window: Sequence[int],
    strides: Sequence[int],
    edges: Padding,
    shape: tuple[int, ...],
) -> jax.Array:
    """Computes the transpose of `taps_of`: adds each part to the pixels [B, H, W, C] from which its tap was taken.

    All places with one remainder by the stride form a dense array, and these arrays are interleaved. The transpose that
    jax derives from the slices, zeros between the elements of every part, is 10 times slower, and so is padding the
    parts: XLA computes every one of them again at every element.

    Args:
      part: (i, j, *arrays) -> [B, H'', W'', C], the part of the window's element (i, j), from `arrays`, shifted.
      arrays: [B, H', W', C], padded with zeros, for which `part` must return zeros.
      shape: of the result, (B, H, W, C).
    """
    reach = [(size - 1) // stride for size, stride in zip(window, strides, strict=True)]
    padded = [jnp.pad(array, ((0, 0), *((far, far) for far in reach), (0, 0))) for array in arrays]
    rows, columns = (size + far for size, far in zip(arrays[0].shape[1:3], reach, strict=True))
    phases: dict[tuple[int, int], jax.Array] = {}
    for i, j in itertools.product(range(window[0]), range(window[1])):
        (row, down), (column, right) = divmod(i, strides[0]), divmod(j, strides[1])
        top, left = reach[0] - row, reach[1] - column
        shifted = [array[:, top : top + rows, left : left + columns] for array in padded]
        shifted_window = part(i, j, *shifted)
        phases[down, right] = phases[down, right] + shifted_window if (down, right) in phases else shifted_window
    batch, height, width, features = phases[0, 0].shape
    lines = [jnp.stack([phases[i, j] for j in range(strides[1])], axis=3) for i in range(strides[0])]
    whole = jnp.stack(lines, axis=2).reshape(batch, height * strides[0], width * strides[1], features)
    (top, _), (left, _) = edges
    missing = [max(0, top + shape[1] - whole.shape[1]), max(0, left + shape[2] - whole.shape[2])]
    whole = jnp.pad(whole, ((0, 0), (0, missing[0]), (0, missing[1]), (0, 0)))
    return whole[:, top : top + shape[1], left : left + shape[2]]


def edges_of(padding: str | Padding, sizes: Sequence[int], window: Sequence[int], strides: Sequence[int]) -> Padding:
    if isinstance(padding, str):
        return lax.padtype_to_pads(sizes, window, strides, padding)
    return [(low, high) for low, high in padding]


def size_after(size: int, window: int, stride: int, edge: tuple[int, int]) -> int:
    return (size + edge[0] + edge[1] - window) // stride + 1


def taps_of(
    x: jax.Array, window: Sequence[int], strides: Sequence[int], edges: Padding, out: Sequence[int]
) -> list[Tap]:
    """Returns the inputs under each element (i, j) of the window, with zeros beyond the edges.

    Returns:
      A list of ((i, j), [B, H', W', C]), `out` being (H', W').
    """
    if any(map(any, edges)):
        x = jnp.pad(x, ((0, 0), *edges, (0, 0)))
    return [
        (
            (i, j),
            x[
                :,
                i : i + (out[0] - 1) * strides[0] + 1 : strides[0],
                j : j + (out[1] - 1) * strides[1] + 1 : strides[1],
            ],
        )
        for i in range(window[0])
        for j in range(window[1])
    ]
