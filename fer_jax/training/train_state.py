"""What a training step changes, and what it only reads."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fer_jax.models.kernels import at_least_float32
from fer_jax.models.parameters import Flat, Variables


class TrainState(NamedTuple):
    """Donated to the step and returned by it.

    Attributes:
      step: int32 scalar, steps done since the start of the run.
      trainable: the parameters of this phase that are differentiated.
      batch_stats: BatchNorm statistics of the whole network.
      opt_state: of the trainable parameters alone.
      sums: float32 scalars added up since the last record, those of `zero_sums`; part of the state so that a resumed
        run writes the records of an uninterrupted one.
      scale: float32 scalar, share of the learning rate that a plateau of the validation score has left.
      health: int32 scalars of this phase: 'skipped', steps whose update was not finite and so not kept; 'halted_at',
        the one (counted from 1) after which there were too many and none was kept any more, 0 while there is none.
      ema: exponential moving averages of {'params': trainable, 'batch_stats': batch_stats}; {} where they are off.
    """

    step: jax.Array
    trainable: Flat
    batch_stats: Flat
    opt_state: optax.OptState
    sums: dict[str, jax.Array]
    scale: jax.Array
    health: dict[str, jax.Array]
    ema: dict[str, Flat]


class FrozenState(NamedTuple):
    """Read by the step and not donated.

    Attributes:
      frozen: the parameters with rate 0, in the type in which they are kept.
      source: the trainable parameters' values in the weights that the run started from, those that L2-SP pulls back.
    """

    frozen: Flat
    source: Flat


def zero_sums(tasks: Iterable[str]) -> dict[str, jax.Array]:
    """Of the steps, and of each task: '<task>/loss' (means of a batch), '<task>/correct' and '<task>/examples'."""
    names = [f'{task}/{name}' for task in tasks for name in ('loss', 'correct', 'examples')]
    return {name: jnp.zeros((), jnp.float32) for name in ('gradient_norm', 'steps', *names)}


def create(
    step: int,
    trainable: Flat,
    batch_stats: Flat,
    tx: optax.GradientTransformation,
    *,
    tasks: Iterable[str] = (),
    ema: dict[str, Flat] | None = None,
) -> TrainState:
    """The state at the first step of a phase: fresh optimizer state.

    Args:
      tasks: those whose sums are kept.
      ema: averages of an earlier phase, {} if there are none, None to keep none. Leaves without one enter at their
        current value.
    """
    averages = {}
    if ema is not None:
        current = {'params': trainable, 'batch_stats': batch_stats}
        averages = {
            name: {path: jnp.copy(leaf) for path, leaf in (tree | ema.get(name, {})).items() if path in tree}
            for name, tree in current.items()
        }
    return TrainState(
        step=jnp.asarray(step, jnp.int32),
        trainable=trainable,
        batch_stats=batch_stats,
        opt_state=tx.init(trainable),
        sums=zero_sums(tasks),
        scale=jnp.ones((), jnp.float32),
        health={name: jnp.zeros((), jnp.int32) for name in ('skipped', 'halted_at')},
        ema=averages,
    )


def cast_frozen(frozen: Flat) -> Flat:
    """Frozen kernels below the head in bfloat16, half their size; what BatchNorm and heads read stays as it is."""
    kernels = {path for path, leaf in frozen.items() if leaf.ndim > 1 and not path.startswith('head.')}
    return {path: leaf.astype(jnp.bfloat16) if path in kernels else leaf for path, leaf in frozen.items()}


def all_variables(state: TrainState, fixed: FrozenState) -> Variables:
    """Puts trainable and frozen parameters together, float32, beside the statistics."""
    frozen = {path: at_least_float32(leaf) for path, leaf in fixed.frozen.items()}
    return Variables(state.trainable | frozen, state.batch_stats)


def eval_variables(state: TrainState, fixed: FrozenState) -> Variables:
    """Gives the variables that are evaluated, selected and kept: the averages where there are any."""
    variables = all_variables(state, fixed)
    if not state.ema:
        return variables
    return Variables(variables.params | state.ema['params'], state.ema['batch_stats'])


def to_items(state: TrainState, fixed: FrozenState) -> dict[str, dict[str, Any]]:
    """Gives what a checkpoint holds, see `runs.checkpoints.Checkpoints`: 'model' is scored, 'train' is the rest."""
    return {'model': eval_variables(state, fixed)._asdict(), 'train': train_item(state)}


def train_item(state: TrainState) -> dict[str, Any]:
    """What going on needs beside what is scored."""
    current = {'trainable': state.trainable, 'batch_stats': state.batch_stats} if state.ema else {}
    fields = {name: getattr(state, name) for name in ('step', 'opt_state', 'sums', 'scale', 'health')}
    return fields | {'current': current}


def with_item(state: TrainState, item: dict[str, Any]) -> TrainState:
    """`state`, entered with the parameters of a checkpoint's item 'model', as its item 'train' says."""
    return state._replace(**item.pop('current'), **item)
