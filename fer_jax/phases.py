"""From a config's phases to steps: when each begins, what it trains, how fast."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optax

from fer_jax import optimizers
from fer_jax.data.augment import Augment
from fer_jax.errors import UserError
from fer_jax.network import Network
from fer_jax.partition import Partition, partition


@dataclass(frozen=True)
class Phase:
    """Steps `first` up to, not including, `last` of the run.

    Attributes:
      index: from 0.
      epochs: the epoch, counted over the run, at which it ends.
      schedule: step of the phase -> learning rate.
      image_size: side in pixels at which this phase trains; evaluation is at the network's.
    """

    index: int
    first: int
    last: int
    epochs: float
    partition: Partition
    tx: optax.GradientTransformation
    schedule: Callable[[Any], Any]
    augment: Augment
    image_size: int


def steps_of(epochs: float, examples: int, batch_size: int) -> int:
    """Steps until every example was seen `epochs` times: a batch may straddle two epochs, nothing is dropped."""
    return math.ceil(round(epochs * examples, 6) / batch_size)


def plan(
    phases: Sequence[Mapping[str, Any]],
    network: Network,
    *,
    augment: Mapping[str, Any],
    examples: int,
    batch_size: int,
) -> list[Phase]:
    """The phases in order, end to end.

    Raises:
      UserError: there is none, one has no epochs, or its table of rates is wrong.
    """
    if not phases:
        raise UserError('phases is empty; give at least one, see configs/default.py')
    planned: list[Phase] = []
    epochs, first = 0.0, 0
    for index, fields in enumerate(phases):
        if fields['epochs'] <= 0:
            raise UserError(f'phases[{index}].epochs={fields["epochs"]}; expected more than 0')
        epochs += fields['epochs']
        last = steps_of(epochs, examples, batch_size)
        try:
            split = partition(list(network.params), network.stages, fields['rates'])
        except UserError as error:
            raise UserError(f'phases[{index}].{error}') from None
        schedule = optimizers.make_schedule(
            fields['schedule'],
            learning_rate=fields['learning_rate'],
            steps=last - first,
            warmup_steps=steps_of(fields['warmup_epochs'], examples, batch_size),
            step_every=max(1, steps_of(fields['step_epochs'], examples, batch_size)),
            step_factor=fields['step_factor'],
        )
        trainable, _ = split.split(network.params)
        tx = optimizers.make(
            fields['optimizer'],
            schedule=schedule,
            momentum=fields['momentum'],
            nesterov=fields['nesterov'],
            weight_decay=fields['weight_decay'],
            clip=fields['clip'],
            rates={path: split.rates[path] for path in trainable},
            decay_mask={path: leaf.ndim > 1 for path, leaf in trainable.items()},
        )
        settings = Augment.of({**augment, **fields['augment']})
        size = fields['image_size'] or network.spec.image_size
        if not 8 <= size <= network.spec.image_size:
            raise UserError(
                f'phases[{index}].image_size={size}; expected 0 (the same), or 8 up to model.image_size='
                f'{network.spec.image_size}'
            )
        planned.append(Phase(index, first, last, epochs, split, tx, schedule, settings, size))
        first = last
    return planned


def evaluation_steps(phases: Sequence[Phase], *, every: float, examples: int, batch_size: int) -> dict[int, float]:
    """step -> epochs done, at every `every` epochs and at the end of each phase."""
    if every <= 0:
        raise UserError(f'checkpoint.every={every}; expected a number of epochs above 0')
    total = phases[-1].epochs
    marks = {every * count for count in range(1, math.floor(total / every) + 1)} | {phase.epochs for phase in phases}
    return {steps_of(epoch, examples, batch_size): epoch for epoch in sorted(marks)}
