"""What a training step changes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from fer_jax.partition import Flat


class TrainState(NamedTuple):
    """Donated to the step and returned by it. Frozen parameters are a separate argument, which is not donated.

    Attributes:
      step: int32 scalar, steps done since the start of the run.
      trainable: the parameters of this phase that are differentiated.
      batch_stats: BatchNorm statistics of the whole network.
      opt_state: of the trainable parameters alone.
      sums: float32 scalars added up since the last record, {'loss', 'correct', 'weight', 'steps'}; part of the state
        so that a resumed run writes the records of an uninterrupted one.
    """

    step: jax.Array
    trainable: Flat
    batch_stats: Flat
    opt_state: optax.OptState
    sums: dict[str, jax.Array]


def zero_sums() -> dict[str, jax.Array]:
    return {name: jnp.zeros((), jnp.float32) for name in ('loss', 'correct', 'weight', 'steps')}


def create(step: int, trainable: Flat, batch_stats: Flat, tx: optax.GradientTransformation) -> TrainState:
    """The state at the first step of a phase: fresh optimizer state."""
    return TrainState(jnp.asarray(step, jnp.int32), trainable, batch_stats, tx.init(trainable), zero_sums())
