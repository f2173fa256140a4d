"""Weights put into a network's parameters, with their head or with a fresh one."""

from collections.abc import Mapping

import jax
import numpy as np

from fer_jax.distributed.sharding import put
from fer_jax.errors import UserError
from fer_jax.models.parameters import Flat, Variables
from fer_jax.pretrained.weights import Weights


def _grey(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that the kernel of a colour network's stem has in a grey one; others as they are."""
    return (*shape[:2], 1, shape[3]) if len(shape) == 4 and shape[2] == 3 else shape


def _few(what: str, names: list[str]) -> str:
    return f'{len(names)} {what}' + (f' ({", ".join(names[:3])}{", ..." if len(names) > 3 else ""})' if names else '')


def fresh_prefixes(params: Flat, weights: Weights) -> tuple[str, ...]:
    """Returns the prefixes of the parameters that start fresh.

    They are the head's, and those of a VGG's fc6 and fc7 where the weights have none.
    """
    classifier = ('fc6.', 'fc7.')
    lacking = any(path.startswith(classifier) for path in params) and not any(
        path.startswith(classifier) for path in weights.params
    )
    return ('head.', *(classifier if lacking else ()))


def fill(
    variables: Variables, weights: Weights, *, head: bool, sharding: jax.sharding.Sharding | None = None
) -> Variables:
    """Replaces parameters and statistics by those of `weights`, which must match exactly, one after the other.

    Args:
      variables: of the network; for those that are replaced, shapes are enough.
      head: whether to use the weights' head too; otherwise this network keeps its own, and the weights' is left out,
        with the layers that this head replaces (fc6 and fc7 of a VGG).
      sharding: of each array; the first device if None.

    Raises:
      UserError: a leaf is missing on either side, or the shapes differ. A stem for colour fills one for grey: its
        kernel is summed over the input channels, so that equal channels have the same response.
    """
    own_head = {path for path in variables.params if path.startswith(fresh_prefixes(variables.params, weights))}
    if head and own_head - set(weights.params):
        raise UserError('the weights have no head that fits; give the number of classes, so that a fresh one is made')
    replaced = {path.removeprefix('head.') for path in own_head if path.startswith('head.')}

    def take(own: Flat, source: Mapping[str, np.ndarray]) -> Flat:
        given = {path for path in source if head or not (path.startswith('head.') or path in replaced)}
        needed = set(own) if head else set(own) - own_head
        if needed != given:
            raise UserError(
                'the weights do not fit this network: '
                f'{_few("missing", sorted(needed - given))}; {_few("not used", sorted(given - needed))}'
            )
        leaves = {}
        for path in own:
            leaf = _fitted(path, source[path], own[path].shape) if path in given else own[path]
            leaves[path] = put(leaf, sharding) if sharding else jax.device_put(leaf)
        return leaves

    return Variables(take(variables.params, weights.params), take(variables.batch_stats, weights.stats))


def _fitted(path: str, leaf: np.ndarray | jax.Array, shape: tuple[int, ...]) -> np.ndarray | jax.Array:
    if leaf.shape != shape == _grey(leaf.shape):
        return leaf.sum(2, keepdims=True)
    if leaf.shape != shape:
        raise UserError(f'the weights do not fit this network: {path} is {list(leaf.shape)}, expected {list(shape)}')
    return leaf
