"""Learning-rate schedules."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fer_jax.config.choices import SCHEDULES
from fer_jax.errors import UserError
from fer_jax.utils.choices import check_choice

Schedule = Callable[[Any], Any]
ONE_CYCLE_START, ONE_CYCLE_END = 1 / 25, 1 / 25e4  # of the largest rate, as in torch's OneCycleLR


def make_schedule(
    name: str,
    *,
    learning_rate: float,
    steps: int,
    warmup_steps: int = 0,
    step_every: int = 1,
    step_factor: float = 0.5,
) -> Schedule:
    """Returns a function from the step of the phase, from 0, to the learning rate.

    The rate rises linearly over `warmup_steps` (the first step has 1 / warmup_steps of it). Then it follows `name`:
    'constant'; 'plateau', constant until the validation score stalls, see `phases.Phase.scale`; 'step', multiplied by
    `step_factor` every `step_every` steps; 'exponential', the same curve without steps; 'cosine' to 0 at `steps`
    (Loshchilov and Hutter 2016). 'one_cycle' (Smith and Topin 2019) rises from a 25th of the rate over `warmup_steps`
    and falls to a 10,000th of that, both along cosines.

    Raises:
      UserError: the name is unknown, or the warm-up leaves no step.
    """
    check_choice('schedule', name, SCHEDULES)
    if warmup_steps >= steps and warmup_steps:
        raise UserError(f'warmup_epochs takes {warmup_steps} steps of a phase that has {steps}; shorten it')

    @jax.jit
    def schedule(step: Any) -> Any:
        step = jnp.asarray(step, jnp.float32)
        after = step - warmup_steps
        if name in ('constant', 'plateau'):
            factor = jnp.ones(())
        elif name == 'step':
            factor = step_factor ** jnp.floor(after / step_every)
        elif name == 'exponential':
            factor = step_factor ** (after / step_every)
        elif name == 'one_cycle':
            return learning_rate * _one_cycle(step, warmup_steps, steps)
        else:
            factor = 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(after / max(steps - warmup_steps, 1), 1)))
        return learning_rate * jnp.where(step < warmup_steps, (step + 1) / max(warmup_steps, 1), factor)

    return schedule


def _one_cycle(step: Any, rise: int, steps: int) -> Any:
    """Share of the largest rate: a rise to it at step rise - 1, the end at step steps - 1."""

    def along(share: Any, start: float, end: float) -> Any:
        return end + (start - end) * 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(share, 0, 1)))

    up = along(step / max(rise - 1, 1), ONE_CYCLE_START, 1.0)
    down = along((step - max(rise - 1, 0)) / max(steps - max(rise, 1), 1), 1.0, ONE_CYCLE_END)
    return jnp.where(step < rise - 1, up, down)
