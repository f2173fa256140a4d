"""What a training step changes, and what it only reads."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fer_jax.models.kernels import at_least_float32
from fer_jax.models.parameters import Flat, Variables


class TrainState(NamedTuple):
    """The state that a step takes, donates and returns.

    Attributes:
      step: int32 scalar, steps done since the start of the run.
      trainable: the parameters of this phase that are differentiated.
      batch_stats: BatchNorm statistics of the whole network.
      opt_state: optimizer state of the trainable parameters.
      sums: float32 scalars summed since the last record, see `zero_sums`; they are part of the state so that a resumed
        run writes the same records as an uninterrupted one.
      scale: float32 scalar, factor of the learning rate after plateaus of the validation score.
      health: int32 scalars of this phase: 'skipped', the number of steps whose update was not finite and not kept;
        'halted_at', the step (counted from 1) after which no update is kept as there were too many, 0 before that.
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
    """The state that a step reads and does not donate.

    Attributes:
      frozen: the parameters with rate 0, in the dtype in which they are kept.
      source: initial values of the trainable parameters that L2-SP pulls toward the weights that the run started from.
    """

    frozen: Flat
    source: Flat


def zero_sums(tasks: Iterable[str]) -> dict[str, jax.Array]:
    """Returns the sums of a state, all float32 zeros.

    They are 'gradient_norm' and 'steps', and for each task '<task>/loss' (means of a batch), '<task>/correct' and
    '<task>/examples'.
    """
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
    """Creates the state at the first step of a phase, with a fresh optimizer state.

    Args:
      tx: the phase's optimizer.
      tasks: names of the tasks whose sums are kept.
      ema: averages of an earlier phase, {} if there are none, None to keep none. Leaves without an average start at
        their current value.
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
    """Casts frozen kernels below the head to bfloat16, half their size; BatchNorm and heads are unchanged."""
    kernels = {path for path, leaf in frozen.items() if leaf.ndim > 1 and not path.startswith('head.')}
    return {path: leaf.astype(jnp.bfloat16) if path in kernels else leaf for path, leaf in frozen.items()}


def all_variables(state: TrainState, fixed: FrozenState) -> Variables:
    """Merges trainable and frozen parameters, as float32, with the BatchNorm statistics."""
    frozen = {path: at_least_float32(leaf) for path, leaf in fixed.frozen.items()}
    return Variables(state.trainable | frozen, state.batch_stats)


def eval_variables(state: TrainState, fixed: FrozenState) -> Variables:
    """Returns the variables that are evaluated, selected and saved: the moving averages where there are any."""
    variables = all_variables(state, fixed)
    if not state.ema:
        return variables
    return Variables(variables.params | state.ema['params'], state.ema['batch_stats'])


def to_items(state: TrainState, fixed: FrozenState) -> dict[str, dict[str, Any]]:
    """Returns the items of a checkpoint, see `runs.checkpoints.Checkpoints`: 'model' is scored, 'train' is the rest."""
    return {'model': eval_variables(state, fixed)._asdict(), 'train': train_item(state)}


def train_item(state: TrainState) -> dict[str, Any]:
    """Returns the item 'train' of a checkpoint: everything needed to resume that the item 'model' does not hold."""
    current = {'trainable': state.trainable, 'batch_stats': state.batch_stats} if state.ema else {}
    fields = {name: getattr(state, name) for name in ('step', 'opt_state', 'sums', 'scale', 'health')}
    return fields | {'current': current}


def with_item(state: TrainState, item: dict[str, Any]) -> TrainState:
    """Returns `state` with the fields of a checkpoint's item 'train'; the key 'current' is removed from `item`.

    Args:
      state: made from the checkpoint's item 'model'. Where that holds averages, `item['current']` replaces its
        trainable parameters and BatchNorm statistics.
    """
    return state._replace(**item.pop('current'), **item)
