"""The learning-rate range test: the loss of a phase's steps while the learning rate rises from step to step."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from fer_jax.data.tasks import PRIMARY
from fer_jax.distributed import sharding
from fer_jax.errors import UserError
from fer_jax.training import own_faces, setup, train_state
from fer_jax.training.multi_step import StepsPerCall
from fer_jax.training.phase_program import PhaseProgram
from fer_jax.utils import plotting, progress

SMOOTHING = 0.8  # share of the mean so far in the running mean of the loss
DIVERGED = 4.0  # times the least loss, at which the test ends
FEWEST_STEPS = 10


class RangeTest(NamedTuple):
    """The losses of a range test.

    Attributes:
      phase: index of the phase that was tried.
      rates: float [N], learning rate of each step.
      losses: float [N], running mean of the training loss, without the bias of its start.
    """

    phase: int
    rates: np.ndarray
    losses: np.ndarray

    @property
    def lowest(self) -> float:
        """Returns the learning rate at the least loss."""
        return float(self.rates[self.losses.argmin()])

    @property
    def suggestion(self) -> float:
        """Returns a tenth of the learning rate at the least loss, but not less than the first one."""
        return max(self.lowest / 10, float(self.rates[0]))


def find_learning_rate(
    config: Mapping[str, Any], *, phase: int = -1, steps: int = 100, low: float = 1e-5, high: float = 1.0
) -> RangeTest:
    """Trains from the initial weights with a learning rate that rises from `low` to `high`, and records the loss.

    Args:
      config: checked config; its data, network, optimizer and rates are used.
      phase: index of the phase; -1 is the last.
      steps: number of steps, unless the loss diverges before.
      low, high: learning rate of the first and of the last step.

    Raises:
      UserError: the config or the data are wrong, there is no such phase, or the limits are not in order.
    """
    if 'probe' in config:
        raise UserError('a probe tries several learning rates already; leave out --find_lr')
    settled = own_faces.settle(config, '')
    count = len(settled['phases'])
    if not -count <= phase < count:
        raise UserError(f'--find_lr={phase}: the config has {count} phases, counted from 0; -1 is the last')
    if not 0 < low < high < math.inf or steps < FEWEST_STEPS:
        raise UserError(
            f'low={low}, high={high}, steps={steps}; expected 0 < low < high and {FEWEST_STEPS} steps or more'
        )
    phase %= count
    growth = (high / low) ** (1 / (steps - 1))
    rising = {'learning_rate': low, 'schedule': 'exponential', 'step_epochs': 0.0, 'step_factor': growth}
    fixed_fields = {'warmup_epochs': 0.0, 'ema': 0.0, 'epochs': 1e6}
    settled['phases'] = [settled['phases'][phase] | rising | fixed_fields]
    settled['checkpoint']['every'] = 1e6
    run = setup.prepare(settled)
    program = PhaseProgram(run, run.phases[0])
    state, fixed = program.init_state(0, run.initial())
    loader, take_steps = program.make_loader(state, fixed), program.step_function()
    pace = StepsPerCall(features=program.cached, last=steps, ends=range(steps + 1), every=1)
    rates: list[float] = []
    losses: list[float] = []
    mean = 0.0
    for step in progress.bar(range(steps), 'learning rates', unit='step'):
        state = take_steps(state, fixed, loader.device_data, *pace.batch(loader, step, 1))
        sums = jax.device_get(state.sums)
        if not float(sums['steps']) or not math.isfinite(float(sums[f'{PRIMARY}/loss'])):
            break
        mean = SMOOTHING * mean + (1 - SMOOTHING) * float(sums[f'{PRIMARY}/loss'])
        rates.append(low * growth**step)
        losses.append(mean / (1 - SMOOTHING ** (step + 1)))
        if losses[-1] > DIVERGED * min(losses):
            break
        state = state._replace(sums=sharding.put(train_state.zero_sums(run.tasks), run.replicated))
    if len(losses) < FEWEST_STEPS:
        raise UserError(f'the loss is not finite after {len(losses)} steps from a rate of {low}; give a smaller `low`')
    return RangeTest(phase, np.array(rates), np.array(losses))


def suggest(config: Mapping[str, Any], phase: int, path: Path) -> None:
    """Runs the test, writes its plot, and prints the suggestion and how to use it.

    Args:
      config, phase: see `find_learning_rate`.
      path: the picture to write.

    Raises:
      UserError: see `find_learning_rate`.
    """
    result = find_learning_rate(config, phase=phase)
    plot(path, result)
    print(f'the loss is least at a learning rate of {result.lowest:.1e}; a tenth of that is a good start:')
    print(f'--config.phases[{result.phase}].learning_rate={result.suggestion:.1e}; the plot is {path}')


def plot(path: Path, result: RangeTest) -> None:
    """Writes the plot of the loss against the learning rate, with the suggestion marked."""
    figure = plotting.figure(6, 4)
    axes = figure.subplots()
    axes.plot(result.rates, result.losses, color=plotting.VALIDATION)
    axes.axvline(
        result.suggestion, color=plotting.SELECTED, linestyle='--', label=f'suggestion {result.suggestion:.1e}'
    )
    axes.set_xscale('log')
    axes.xaxis.set_major_formatter('{x:g}')
    top = min(result.losses.max(), 1.5 * result.losses[: len(result.losses) // 2].max())
    axes.set_ylim(top=top, bottom=result.losses.min() - 0.05 * (top - result.losses.min()))
    axes.set_xlabel(f'learning rate of phase {result.phase}')
    axes.set_ylabel('training loss, running mean')
    axes.grid(color=plotting.GRID)
    figure.legend(loc='outside upper right', frameon=False)
    figure.savefig(path)
