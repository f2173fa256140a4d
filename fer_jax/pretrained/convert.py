"""From a torch state dict to a network's parameters, strictly in both directions."""

from collections.abc import Mapping, Sequence

import jax
import numpy as np
from flax import nnx

from fer_jax import models
from fer_jax.errors import UserError
from fer_jax.partition import Flat, split_module
from fer_jax.pretrained.torch_names import IGNORED, TABLES, Rule, all_tables, module_path

LEAVES = {'bias': 'bias', 'running_mean': 'mean', 'running_var': 'var'}


def expected(model: str, classes: int) -> tuple[Flat, Flat]:
    """Shapes of (params, batch_stats) of a network with one head of `classes`."""
    made = nnx.eval_shape(lambda: models.create(model, classes=classes, rngs=nnx.Rngs(0)))
    return split_module(made)[1:]


def convert(entries: Mapping[str, np.ndarray], model: str) -> tuple[Flat, Flat, list[str]]:
    """(params, batch_stats, ignored names): float32, in Flax's layout.

    Convolutions go from [out, in, h, w] to [h, w, in, out], matrices are transposed.

    Raises:
      UserError: an entry is unknown, missing or of another shape; another network that it fits is named.
    """
    models.check_name(model)
    attempts = [_rename(entries, table) for table in TABLES[model]]
    named, unknown = min(attempts, key=lambda attempt: len(attempt[1]))
    ignored = [name for name in entries if IGNORED.fullmatch(name)]
    head = named.get('head.primary.bias')
    params, stats = expected(model, 1000 if head is None else len(head))
    wanted = params | stats
    missing = [path for path in wanted if path not in named]
    unused = unknown + [path for path in named if path not in wanted]
    if missing or unused:
        raise UserError(
            f'these are not weights of {model}: {_few("missing", missing)}; {_few("not used", unused)}'
            + _looks_like(entries, model)
        )
    for path, leaf in wanted.items():
        if named[path].shape != leaf.shape:
            raise UserError(
                f'these are not weights of {model}: {path} has the shape {list(named[path].shape)}, expected '
                f'{list(leaf.shape)}' + _looks_like(entries, model)
            )
    return {path: named[path] for path in params}, {path: named[path] for path in stats}, ignored


def _rename(entries: Mapping[str, np.ndarray], table: Sequence[Rule]) -> tuple[Flat, list[str]]:
    named, unknown = {}, []
    for name, value in entries.items():
        if IGNORED.fullmatch(name):
            continue
        module, _, leaf = name.rpartition('.')
        path = module_path(module, table)
        if path is None or leaf not in (*LEAVES, 'weight'):
            unknown.append(name)
            continue
        array = np.asarray(value, np.float32)
        if leaf == 'weight':
            leaf = 'scale' if array.ndim == 1 else 'kernel'
            array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
        named[f'{path}.{LEAVES.get(leaf, leaf)}'] = np.ascontiguousarray(array)
    return named, unknown


def _few(what: str, names: list[str]) -> str:
    return f'{len(names)} {what}' + (f' ({", ".join(names[:3])}{", ..." if len(names) > 3 else ""})' if names else '')


def _looks_like(entries: Mapping[str, np.ndarray], model: str) -> str:
    for other, table in all_tables():
        named, unknown = _rename(entries, table)
        if other == model or unknown or 'head.primary.bias' not in named:
            continue
        params, stats = expected(other, len(named['head.primary.bias']))
        if {path: leaf.shape for path, leaf in (params | stats).items()} == {p: a.shape for p, a in named.items()}:
            return f'; they fit {other}: use --model {other}'
    return ''


def fill(params: Flat, stats: Flat, source_params: Flat, source_stats: Flat, *, head: bool) -> tuple[Flat, Flat]:
    """Replaces parameters and statistics by the source's, strictly in both directions.

    Args:
      head: whether to take the head too; otherwise this network's own stays, and the source's is left out.

    Raises:
      UserError: a leaf is missing in either, or the shapes differ. A stem for colour fills one for grey: its kernel is
        summed over the input channels, which gives equal channels the same response.
    """

    def take(own: Flat, source: Flat) -> Flat:
        source = {path: leaf for path, leaf in source.items() if head or not path.startswith('head.')}
        needed = {path for path in own if head or not path.startswith('head.')}
        if needed - set(source) or set(source) - needed:
            raise UserError(
                'the weights do not fit this network: '
                f'{_few("missing", sorted(needed - set(source)))}; {_few("not used", sorted(set(source) - needed))}'
            )
        return own | {path: _fitted(path, leaf, own[path].shape) for path, leaf in source.items()}

    return take(params, source_params), take(stats, source_stats)


def _fitted(path: str, leaf: np.ndarray | jax.Array, shape: tuple[int, ...]) -> np.ndarray | jax.Array:
    if leaf.ndim == 4 and leaf.shape[2] == 3 and shape == (*leaf.shape[:2], 1, leaf.shape[3]):
        return leaf.sum(2, keepdims=True)
    if leaf.shape != shape:
        raise UserError(f'the weights do not fit this network: {path} is {list(leaf.shape)}, expected {list(shape)}')
    return leaf
