"""Parameter paths and what they decide: the stage, the learning-rate multiplier, trainable or frozen.

Outside the modules a tree is a flat dict `{'layer1.0.conv1.kernel': leaf}`, so that selecting, splitting and merging
are dict comprehensions and a rule is a regular expression on a string.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from fer_jax.errors import UserError

Flat = dict[str, Any]
Stages = Mapping[str, Sequence[str]]
Rates = Sequence[tuple[str, float]]


def flatten(state: nnx.State) -> Flat:
    """`nnx.State` -> `{'layer1.0.conv1.kernel': leaf}`; list indices become decimal components."""
    flat = {}
    for path, leaf in nnx.to_flat_state(state):
        flat['.'.join(map(str, path))] = leaf.get_value() if isinstance(leaf, nnx.Variable) else leaf
    return flat


def split_module(module: nnx.Module) -> tuple[nnx.GraphDef, Flat, Flat]:
    """(graphdef, params, batch_stats); a network holds nothing else."""
    split: Any = nnx.split(module, nnx.Param, nnx.BatchStat)
    graphdef, params, stats = split
    return graphdef, flatten(params), flatten(stats)


def unflatten(flat: Mapping[str, Any]) -> dict:
    """The nested dict that `nnx.merge` accepts, with integer keys where a component is decimal."""
    nested: dict = {}
    for path, leaf in flat.items():
        *parents, name = (int(part) if part.isdigit() else part for part in path.split('.'))
        node = nested
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return nested


def stage_of(path: str, stages: Stages) -> str:
    """The stage that holds `path`: the one whose table entry is `path` or a leading part of it.

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


class Partition(NamedTuple):
    """What one phase trains.

    Attributes:
      rates: learning-rate multiplier of every parameter, 0 where it is frozen.
      stages: names of the stages with a trainable parameter; they alone run in training mode.
      boundary: the lowest of them. Everything below runs forward only.
    """

    rates: dict[str, float]
    stages: frozenset[str]
    boundary: str

    def split(self, params: Mapping[str, Any]) -> tuple[Flat, Flat]:
        """`params` -> (trainable, frozen)."""
        trainable = {path: leaf for path, leaf in params.items() if self.rates[path] > 0}
        frozen = {path: leaf for path, leaf in params.items() if self.rates[path] == 0}
        return trainable, frozen


def partition(paths: Sequence[str], stages: Stages, rates: Rates) -> Partition:
    """Applies an ordered table (regex on `<stage>/<path>`, multiplier) to all parameters; the first match wins.

    A pattern is searched from the start of the name (`re.match`).

    Raises:
      UserError: a rule is malformed or matches nothing, a parameter is not covered, a multiplier is negative, or
        nothing is left to train.
    """
    rules = []
    for pattern, rate in rates:
        try:
            rules.append((re.compile(pattern), float(rate)))
        except re.error as error:
            raise UserError(f'rates: {pattern!r} is not a regular expression ({error})') from None
        if not 0 <= float(rate) < float('inf'):
            raise UserError(f'rates: the multiplier of {pattern!r} is {rate}; expected a number of 0 (frozen) or more')

    assigned: dict[str, float] = {}
    used = set()
    stage_by_path = {path: stage_of(path, stages) for path in paths}
    for path, stage in stage_by_path.items():
        name = f'{stage}/{path}'
        for index, (regex, rate) in enumerate(rules):
            if regex.match(name):
                assigned[path] = rate
                used.add(index)
                break
        else:
            raise UserError(f'rates: no rule covers {name!r}; end the table with (".*", 0.0) or (".*", 1.0)')
    for index, (regex, _) in enumerate(rules):
        if index not in used:
            raise UserError(
                f'rates: {regex.pattern!r} matches no parameter that an earlier rule has not taken; '
                f'names read <stage>/<path>, stages are {", ".join(stages)}'
            )

    trained = frozenset(stage_by_path[path] for path, rate in assigned.items() if rate > 0)
    if not trained:
        raise UserError(f'rates: {list(rates)} freeze everything; give at least one stage a multiplier above 0')
    boundary = next(stage for stage in stages if stage in trained)
    return Partition(assigned, trained, boundary)


def digest_of(leaves: Flat) -> 'hashlib._Hash':
    """sha256 over arrays, by path, shape, type and content."""
    digest = hashlib.sha256()
    for path, leaf in sorted(leaves.items()):
        digest.update(f'{path}\0{leaf.shape}\0{leaf.dtype}\0'.encode() + np.asarray(leaf).tobytes())
    return digest
