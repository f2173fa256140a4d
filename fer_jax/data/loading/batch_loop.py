"""A loop over several batches inside one program; `training.multi_step` says why."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

IMAGE_BATCHES_PER_CALL = 4  # batches of one program at most


def of_images() -> int:
    """Returns how many batches of images one call of a compiled program takes."""
    return IMAGE_BATCHES_PER_CALL if jax.default_backend() == 'cpu' else 1


def map_batches(function: Callable[[Any], jax.Array], batches: Any, count: jax.Array) -> jax.Array:
    """Applies a function to each of the first `count` batches, inside jit.

    Args:
      function: function of one batch.
      batches: tree with leaves [K, B, ...].
      count: int, at most K.

    Returns:
      [K, ...], zeros for the other batches. For K = 1 the batch is always computed.
    """

    def nth(element: jax.Array | int) -> jax.Array:
        return function(jax.tree.map(lambda leaf: leaf[element], batches))

    many = len(jax.tree.leaves(batches)[0])
    if many == 1:
        return nth(0)[None]
    shape = jax.eval_shape(nth, 0)
    nothing = jnp.zeros((many, *shape.shape), shape.dtype)
    return jax.lax.fori_loop(0, count, lambda index, rows: rows.at[index].set(nth(index)), nothing)


def filled(weight: np.ndarray) -> np.int32:
    """Counts the batches that hold an example of non-zero weight.

    Args:
      weight: float32 [K, B].
    """
    return np.int32((weight > 0).any(1).sum())
