"""The table of rates: which parameters a phase trains, and at which share of the learning rate."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from fer_jax.errors import UserError
from fer_jax.models.layers import norm_paths
from fer_jax.models.parameters import Flat, Stages, stage_of
from fer_jax.utils.patterns import compile_pattern

Rates = Sequence[tuple[str, float]]


class Partition(NamedTuple):
    """The partition of a network's parameters into trainable and frozen ones in one phase.

    Attributes:
      rates: {path: learning-rate multiplier} of all parameters, 0 where a parameter is frozen.
      stages: names of the stages with a trainable parameter; only these run in training mode.
      boundary: the lowest of these stages. The stages below it have no backward pass.
    """

    rates: dict[str, float]
    stages: frozenset[str]
    boundary: str

    def split(self, params: Mapping[str, Any]) -> tuple[Flat, Flat]:
        """Splits `params` into (trainable, frozen) by their rates."""
        trainable = {path: leaf for path, leaf in params.items() if self.rates[path] > 0}
        frozen = {path: leaf for path, leaf in params.items() if self.rates[path] == 0}
        return trainable, frozen


def frozen_norms(partition: Partition, batch_stats: Iterable[str], mode: str) -> frozenset[str]:
    """Lists the paths of the BatchNorms that normalise by their running statistics and do not update them.

    Args:
      batch_stats: paths of the running statistics.
      mode: one of `config.choices.BATCH_NORM`.
    """
    rates = partition.rates
    trained = {path for path in norm_paths(batch_stats) if rates[f'{path}.scale'] or rates[f'{path}.bias']}
    kept = {'by_rates': trained, 'frozen': set(), 'train': set(norm_paths(batch_stats))}[mode]
    return frozenset(norm_paths(batch_stats)) - kept


def partition(paths: Sequence[str], stages: Stages, rates: Rates) -> Partition:
    """Applies an ordered table (regex on `<stage>/<path>`, multiplier) to all parameters; the first match wins.

    A pattern of `compile_pattern` is searched from the start of the name.

    Raises:
      UserError: a rule matches nothing, a parameter is not covered, or nothing is left to train.
    """
    rules = [(compile_pattern(pattern), float(rate)) for pattern, rate in rates]
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
