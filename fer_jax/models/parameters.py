"""Parameter paths and what they decide: the stage, the learning-rate multiplier, trainable or frozen.

Outside the modules a tree is a flat dict `{'layer1.0.conv1.kernel': leaf}`, so that selecting, splitting and merging
are dict comprehensions and a rule is a regular expression on a string.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

Flat = dict[str, Any]
Stages = Mapping[str, Sequence[str]]


class Variables(NamedTuple):
    """The variables of a network, as flat trees of arrays or their shapes.

    Attributes:
      params: {path: parameter}.
      batch_stats: {path: running mean or variance of a BatchNorm}.
    """

    params: Flat
    batch_stats: Flat


def flatten(state: nnx.State) -> Flat:
    """Flattens an `nnx.State` to {'layer1.0.conv1.kernel': leaf}; list indices become decimal components."""
    flat = {}
    for path, leaf in nnx.to_flat_state(state):
        flat['.'.join(map(str, path))] = leaf.get_value() if isinstance(leaf, nnx.Variable) else leaf
    return flat


def split_module(module: nnx.Module) -> tuple[nnx.GraphDef, Variables]:
    """Splits a network into its graph and its variables, which must be parameters and BatchNorm statistics only."""
    split: Any = nnx.split(module, nnx.Param, nnx.BatchStat)
    graphdef, params, stats = split
    return graphdef, Variables(flatten(params), flatten(stats))


def merge_module(graphdef: nnx.GraphDef, variables: Variables) -> Any:
    """Builds a network from the parts that `split_module` returned, with copies of the arrays."""
    return nnx.merge(graphdef, *map(unflatten, variables), copy=True)


def unflatten(flat: Mapping[str, Any]) -> dict:
    """Converts a flat tree to the nested dict that `nnx.merge` accepts; decimal components become integer keys."""
    nested: dict = {}
    for path, leaf in flat.items():
        *parents, name = (int(part) if part.isdigit() else part for part in path.split('.'))
        node = nested
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return nested


def stage_of(path: str, stages: Stages) -> str:
    """Returns the stage that holds `path`: the one whose table entry is `path` or a leading part of it.

    Raises:
      ValueError: no stage or more than one holds it; the model's table is wrong.
    """
    owners = [
        stage
        for stage, prefixes in stages.items()
        if any(path == prefix or path.startswith(f'{prefix}.') for prefix in prefixes)
    ]
    if len(owners) != 1:
        raise ValueError(f'{path!r} belongs to {owners or "no stage"}; expected exactly one of {list(stages)}')
    return owners[0]


def digest_of(leaves: Flat) -> 'hashlib._Hash':
    """Computes a sha256 over arrays, from their paths, shapes, dtypes and contents.

    Returns:
      The hash object, to which more can be added.
    """
    digest = hashlib.sha256()
    for path, leaf in sorted(leaves.items()):
        digest.update(f'{path}\0{leaf.shape}\0{leaf.dtype}\0'.encode() + np.asarray(leaf).tobytes())
    return digest
