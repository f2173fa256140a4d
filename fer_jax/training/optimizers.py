"""Optimizers and schedules over the flat tree of trainable parameters."""

from collections.abc import Mapping, Sequence
from typing import Any

import optax

from fer_jax.config.choices import OPTIMIZERS
from fer_jax.training.schedules import Schedule
from fer_jax.utils.choices import check_choice


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
    """Builds the optimizer of one phase.

    Args:
      name: 'sgd' and 'adam' add `weight_decay` times the parameter to its gradient (L2, as torch.optim.SGD and Adam);
        'adamw' decays apart from the gradient (Loshchilov and Hutter 2017), and so do 'radam' (Liu et al. 2020), 'lion'
        (Chen et al. 2023; needs a tenth of the rate), 'lamb' (You et al. 2020) and 'muon' (Jordan et al. 2024). The
        last orthogonalises the momentum of kernels, scaled to Adam's updates (Liu et al. 2025: rates carry over), and
        applies Adam with Nesterov momentum to the head, vectors, and kernels of one input channel.
      schedule: step -> learning rate.
      rates: learning-rate multiplier of each trainable parameter.
      decay_mask: whether weight decay applies to each of them.
      momentum, nesterov: of SGD.
      clip: largest global norm of the trainable gradients; 0 turns it off.
      sam: radius of sharpness-aware minimisation (Foret et al. 2021): the gradient is computed again on the same batch,
        after a step of that length along the first one. Its update requires `grad_fn`. 0 turns it off.

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
