"""The table of parameters: how many each stage has, and what each phase does with them."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from fer_jax.models.layers import norm_paths
from fer_jax.models.network import Network
from fer_jax.models.parameters import stage_of
from fer_jax.training.phases import Phase


def parameter_table(network: Network, phases: Sequence[Phase]) -> str:
    """Returns a table of the stages in order, their parameters, and whether each phase trains or freezes them."""
    from clu import parameter_overview

    columns = ('stage', 'tensors', 'parameters', *(f'phase_{phase.index}' for phase in phases))
    row: Any = dataclasses.make_dataclass('Row', columns)

    def count(paths: Iterable[str]) -> int:
        return int(parameter_overview.count_parameters({path: network.params[path] for path in paths}))

    by_stage: dict[str, list[str]] = {}
    for path in network.params:
        by_stage.setdefault(stage_of(path, network.stages), []).append(path)
    rows = []
    for stage in filter(by_stage.get, network.stages):
        paths = by_stage[stage]
        rows.append(
            row(stage, len(paths), count(paths), *(describe_stage(network, stage, phase, paths) for phase in phases))
        )
    trained = (count(phase.partition.split(network.params)[0]) for phase in phases)
    rows.append(row('total', len(network.params), count(network.params), *(f'{number:,} train' for number in trained)))
    return parameter_overview.make_table(rows).replace('Phase_', 'Phase ')


def describe_stage(network: Network, stage: str, phase: Phase, paths: Sequence[str]) -> str:
    """Returns how a phase treats a stage: 'frozen', or 'train x' the rates, and how many BatchNorms are frozen."""
    rates = sorted({phase.partition.rates[path] for path in paths})
    if rates == [0]:
        return 'frozen'
    norms = [path for path in norm_paths(network.batch_stats) if stage_of(path, network.stages) == stage]
    frozen = len(phase.frozen_norms.intersection(norms))
    few = f'{frozen} of {len(norms)} ' if frozen < len(norms) else ''
    return 'train x ' + ', '.join(f'{rate:g}' for rate in rates) + (f', {few}BatchNorm frozen' if frozen else '')
