"""The table of parameters: how many each stage has, and what each phase does with them."""

import math
from collections.abc import Sequence

from fer_jax.models.network import Network
from fer_jax.models.parameters import stage_of
from fer_jax.training.phases import Phase


def parameter_table(network: Network, phases: Sequence[Phase]) -> str:
    """Stages in order: their parameters, and what each phase does with them."""
    rows: dict[str, list[str]] = {stage: [] for stage in network.stages}
    for path in network.params:
        rows[stage_of(path, network.stages)].append(path)
    header = f'{"stage":<12}{"tensors":>8}{"parameters":>13}' + ''.join(f'  {f"phase {p.index}":<18}' for p in phases)
    lines = [header, '-' * len(header)]
    for stage, paths in rows.items():
        if paths:
            count = sum(math.prod(network.params[path].shape) for path in paths)
            cells = ''.join(f'  {_rates(phase, paths):<18}' for phase in phases)
            lines.append(f'{stage:<12}{len(paths):>8}{count:>13,}{cells}')
    total = sum(math.prod(leaf.shape) for leaf in network.params.values())
    cells = ''
    for phase in phases:
        trained = sum(math.prod(network.params[path].shape) for path, rate in phase.partition.rates.items() if rate > 0)
        cells += f'  {f"{trained:,} train":<18}'
    lines += ['-' * len(header), f'{"total":<12}{len(network.params):>8}{total:>13,}{cells}']
    return '\n'.join(line.rstrip() for line in lines)


def _rates(phase: Phase, paths: list[str]) -> str:
    rates = sorted({phase.partition.rates[path] for path in paths})
    if rates == [0]:
        return 'frozen'
    return 'train x ' + ', '.join(f'{rate:g}' for rate in rates)
