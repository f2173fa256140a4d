"""From a torch state dict to a network's parameters, strictly in both directions."""

import functools
import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx

from fer_jax import models
from fer_jax.errors import UserError
from fer_jax.partition import Flat, split_module
from fer_jax.pretrained.torch_names import IGNORED, TABLES, Source
from fer_jax.pretrained.weights import Preprocessing, Weights

LEAVES = {'bias': 'bias', 'running_mean': 'mean', 'running_var': 'var'}


def convert(
    entries: Mapping[str, np.ndarray],
    model: str,
    *,
    metadata: Mapping[str, str],
    preprocessing: Preprocessing | None = None,
) -> Weights:
    """A torch state dict in fer_jax's names and layout, float32.

    Convolutions go from [out, in, h, w] to [h, w, in, out], matrices are transposed; where a matrix is wanted, a
    convolution over the whole map is one on its channels-first flattening.

    Args:
      metadata: source, sha256, licence; the number of classes and what was ignored are added.
      preprocessing: that of the source's framework if None.

    Raises:
      UserError: an entry is unknown, missing or of another shape; another network that it fits is named.
    """
    models.check_name(model)
    attempts = [Attempt.of(entries, model, source) for source in TABLES[model]]
    best = min(attempts, key=lambda attempt: len(attempt.unknown))
    if best.difference:
        raise UserError(f'these are not weights of {model}: {best.difference}' + _looks_like(entries, model))
    leaves = {path: np.ascontiguousarray(leaf, np.float32) for path, leaf in best.named.items()}
    ignored = sum(IGNORED.fullmatch(name) is not None for name in entries)
    counted = {'classes': str(len(leaves['head.primary.bias'])), 'ignored': f'{ignored} num_batches_tracked'}
    return Weights(
        model,
        {path: leaves[path] for path in best.params},
        {path: leaves[path] for path in best.stats},
        preprocessing or best.source.look,
        {**metadata, **counted},
    )


@functools.cache
def expected(model: str, classes: int) -> tuple[Flat, Flat]:
    """Shapes of (params, batch_stats) of a network with one head of `classes`."""
    made = nnx.eval_shape(lambda: models.create(model, classes=classes, rngs=nnx.Rngs(0)))
    return split_module(made)[1:]


class Attempt(NamedTuple):
    """A state dict read as one source's form of a network.

    Attributes:
      named: path -> view in Flax's layout.
      unknown: entries that have no path, or one that another entry has.
      params, stats: the shapes that the network wants.
      difference: what does not fit, in words; empty if all does.
    """

    source: Source
    named: Flat
    unknown: list[str]
    params: Flat
    stats: Flat
    difference: str

    @classmethod
    def of(cls, entries: Mapping[str, np.ndarray], model: str, source: Source) -> 'Attempt':
        named, unknown = _rename(entries, source)
        head = named.get('head.primary.bias')
        classes = head.size if head is not None and head.ndim == 1 else 0
        params, stats = expected(model, classes or 1000)
        wanted = params | stats
        named = {path: _laid_out(leaf, wanted[path].ndim if path in wanted else 0) for path, leaf in named.items()}
        return cls(source, named, unknown, params, stats, _difference(named, unknown, wanted))


def _rename(entries: Mapping[str, np.ndarray], source: Source) -> tuple[Flat, list[str]]:
    named: Flat = {}
    unknown = []
    for name, value in entries.items():
        if IGNORED.fullmatch(name):
            continue
        module, _, leaf = name.rpartition('.')
        leaves = LEAVES | {'weight': 'scale' if value.ndim == 1 else 'kernel'}
        path = source.module_path(module)
        if path is None or leaf not in leaves or f'{path}.{leaves[leaf]}' in named:
            unknown.append(name)
        else:
            named[f'{path}.{leaves[leaf]}'] = value
    return named, unknown


def _laid_out(array: np.ndarray, ndim: int) -> np.ndarray:
    """`array` in Flax's layout for a leaf of `ndim` dimensions; as it is where it cannot be one."""
    if ndim == 4 and array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if ndim == 2 and array.ndim in (2, 4):
        return array.reshape(array.shape[0], math.prod(array.shape[1:])).T
    return array


def _difference(named: Flat, unknown: list[str], wanted: Flat) -> str:
    missing = [path for path in wanted if path not in named]
    unused = unknown + [path for path in named if path not in wanted]
    if missing or unused:
        return f'{_few("missing", missing)}; {_few("not used", unused)}'
    for path, leaf in wanted.items():
        if named[path].shape != leaf.shape:
            return f'{path} has the shape {list(named[path].shape)}, expected {list(leaf.shape)}'
    return ''


def _few(what: str, names: list[str]) -> str:
    return f'{len(names)} {what}' + (f' ({", ".join(names[:3])}{", ..." if len(names) > 3 else ""})' if names else '')


def _looks_like(entries: Mapping[str, np.ndarray], model: str) -> str:
    for other, sources in TABLES.items():
        if other != model and any(not Attempt.of(entries, other, source).difference for source in sources):
            return f'; they fit {other}: use --model {other}'
    return ''


def fill(params: Flat, stats: Flat, weights: Weights, *, head: bool) -> tuple[Flat, Flat]:
    """Replaces parameters and statistics by those of `weights`, strictly in both directions.

    Args:
      head: whether to take the head too; otherwise this network's own stays, and the weights' is left out, with those
        layers that this head has in their place (fc6 and fc7 of a VGG).

    Raises:
      UserError: a leaf is missing in either, or the shapes differ. A stem for colour fills one for grey: its kernel is
        summed over the input channels, which gives equal channels the same response.
    """
    own_head = {path for path in params if path.startswith('head.')}
    replaced = {path.removeprefix('head.') for path in own_head}

    def take(own: Flat, source: Flat) -> Flat:
        if not head:
            source = {p: leaf for p, leaf in source.items() if not p.startswith('head.') and p not in replaced}
        needed = set(own) if head else set(own) - own_head
        if needed != set(source):
            raise UserError(
                'the weights do not fit this network: '
                f'{_few("missing", sorted(needed - set(source)))}; {_few("not used", sorted(set(source) - needed))}'
            )
        return own | {path: _fitted(path, leaf, own[path].shape) for path, leaf in source.items()}

    return take(params, weights.params), take(stats, weights.stats)


def _fitted(path: str, leaf: np.ndarray | jax.Array, shape: tuple[int, ...]) -> np.ndarray | jax.Array:
    if leaf.ndim == 4 and leaf.shape[2] == 3 and shape == (*leaf.shape[:2], 1, leaf.shape[3]):
        return leaf.sum(2, keepdims=True)
    if leaf.shape != shape:
        raise UserError(f'the weights do not fit this network: {path} is {list(leaf.shape)}, expected {list(shape)}')
    return leaf
