"""Optimizers and schedules over the flat tree of trainable parameters."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import optax

from fer_jax.errors import UserError
from fer_jax.utils.choices import check_choice

Schedule = Callable[[Any], Any]
OPTIMIZERS = ('sgd', 'adam', 'adamw', 'radam', 'lion', 'lamb', 'muon')
SCHEDULES = ('constant', 'step', 'exponential', 'cosine', 'one_cycle', 'plateau')
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
    """Step of the phase, from 0 -> learning rate.

    After a linear rise over `warmup_steps` (the first step takes 1 / warmup_steps of the rate) follows one of
    'constant'; 'plateau', the same until the validation score stalls, see `phases.Phase.scale`; 'step', times
    `step_factor` every `step_every` steps; 'exponential', the same without steps; 'cosine' to 0 at `steps` (Loshchilov
    and Hutter 2016). 'one_cycle' (Smith and Topin 2019) rises from a 25th of the rate over `warmup_steps` and falls to
    a 10,000th of that, both along cosines.

    Raises:
      UserError: the name is unknown, or the warm-up leaves no step.
    """
    check_choice('schedule', name, SCHEDULES)
    if warmup_steps >= steps and warmup_steps:
        raise UserError(f'warmup_epochs takes {warmup_steps} steps of a phase that has {steps}; shorten it')

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


def make(
    name: str,
    *,
    schedule: Schedule,
    rates: Mapping[str, float],
    decay_mask: Mapping[str, bool],
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    clip: float = 0.0,
    sam: float = 0.0,
) -> optax.GradientTransformation:
    """The optimizer of one phase.

    Args:
      name: 'sgd' and 'adam' add `weight_decay` times the parameter to its gradient (L2, as torch.optim.SGD and Adam);
        'adamw' decays apart from the gradient (Loshchilov and Hutter 2017), and so do 'radam' (Liu et al. 2020), 'lion'
        (Chen et al. 2023; wants a tenth of the rate), 'lamb' (You et al. 2020) and 'muon' (Jordan et al. 2024), which
        makes the momentum of kernels orthogonal, at the size of Adam's updates (Liu et al. 2025: rates carry over), and
        leaves the head, vectors, and kernels of one input channel to Nesterov's Adam.
      schedule: step -> learning rate.
      rates: learning-rate multiplier of each trainable parameter.
      decay_mask: which of them decay.
      momentum, nesterov: of SGD.
      clip: largest global norm of the trainable gradients; 0 turns it off.
      sam: radius of sharpness-aware minimisation (Foret et al. 2021): the gradient is taken anew on the same batch, at
        a step of that length up the first one. Its update wants `grad_fn`. 0 turns it off.

    Raises:
      UserError: the name is unknown.
    """
    check_choice('optimizer', name, OPTIMIZERS)
    decay = optax.add_decayed_weights(weight_decay, mask=dict(decay_mask)) if weight_decay else optax.identity()
    if name == 'sgd':
        chain = [decay, optax.trace(momentum, nesterov=nesterov) if momentum else optax.identity()]
    elif name == 'adam':
        chain = [decay, optax.scale_by_adam()]
    elif name == 'adamw':
        chain = [optax.scale_by_adam(), decay]
    elif name == 'radam':
        chain = [optax.scale_by_radam(), decay]
    elif name == 'lion':
        chain = [optax.scale_by_lion(), decay]
    elif name == 'muon':
        chain = [optax.contrib.muon(-1.0, consistent_rms=0.2, muon_weight_dimension_numbers=_matrices), decay]
    else:
        chain = [optax.scale_by_adam(eps=1e-6), decay, optax.scale_by_trust_ratio()]
    if clip:
        chain.insert(0, optax.clip_by_global_norm(clip))
    tx = optax.chain(*chain, _scale_groups(rates), optax.scale_by_learning_rate(schedule))
    if not sam:
        return tx
    climb = optax.chain(optax.contrib.normalize(), optax.sgd(sam))
    return optax.contrib.sam(tx, climb, sync_period=2, opaque_mode=True)


def _matrices(params: Mapping[str, Any]) -> dict[str, Any]:
    """Which axes of each parameter are the rows of a matrix, which its columns; None for what muon leaves to Adam."""

    def axes(path: str, shape: Sequence[int]) -> Any:
        if len(shape) < 2 or shape[-2] == 1 or path.startswith('head.'):
            return None
        return optax.contrib.MuonDimensionNumbers(tuple(range(len(shape) - 1)), len(shape) - 1)

    # optax asks again with what it left out masked: nodes without a shape
    return {path: axes(path, getattr(leaf, 'shape', ())) for path, leaf in params.items()}


def _scale_groups(rates: Mapping[str, float]) -> optax.GradientTransformation:
    """Multiplies each parameter's update by its rate: one partition a distinct rate."""
    groups = {f'{rate:g}': optax.scale(rate) for rate in set(rates.values())}
    if set(groups) == {'1'}:
        return optax.identity()
    return optax.partition(groups, {path: f'{rate:g}' for path, rate in rates.items()})
