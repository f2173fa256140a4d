"""What is left behind when a step gives a number that is not finite: the step, its examples, how to look into it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fer_jax.data.tasks import PRIMARY
from fer_jax.distributed import processes
from fer_jax.errors import UserError
from fer_jax.training.phases import Phase
from fer_jax.training.run import Run
from fer_jax.training.train_state import TrainState
from fer_jax.utils import image_grid


@jax.jit
def all_finite(tree: Any) -> jax.Array:
    """Returns a bool scalar: whether all numbers of all leaves are finite."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def report_nonfinite(
    workdir: Path, *, step: int, rate: float, ids: Sequence[str], labels: Sequence[str], images: np.ndarray
) -> UserError:
    """Writes nonfinite_step_<step>.json and .png into the workdir and returns the error that ends the run.

    Args:
      step: the first step, counted from 1, whose update was not kept.
      ids, labels, images: of its examples; uint8 [B, H, W, C].
    """
    name = workdir / f'nonfinite_step_{step}'
    if processes.is_main_process():
        examples = [{'id': example, 'label': label} for example, label in zip(ids, labels, strict=True)]
        name.with_suffix('.json').write_text(
            json.dumps({'step': step, 'learning_rate': rate, 'examples': examples}, indent=1) + '\n'
        )
        image_grid.write_image_grid(name.with_suffix('.png'), ids, labels, images)
    return UserError(
        f'step {step} gives numbers that are not finite, at learning rate {rate:g}; its update was not kept, and the '
        f'last checkpoint is good. Its examples are in {name}.png and .json. Lower the learning rate, set '
        'phases[i].clip, or leave such steps out with --config.on_nonfinite=skip. To see which operation it '
        'is, run the same command with JAX_DEBUG_NANS=1 in its environment'
    )


def check_finite(run: Run, phase: Phase, state: TrainState, workdir: Path) -> None:
    """Checks that the phase has not halted because too many updates were not finite.

    Raises:
      UserError: it has halted; the step and its examples are written into the workdir.
    """
    step = int(state.health['halted_at'])
    if not step:
        if not all_finite(state.trainable):  # finite gradients can still carry them over the largest number
            raise UserError(
                f'parameters are no longer finite after step {int(state.step)}: an update was too large. The last '
                'checkpoint is good; lower the learning rate in a new --workdir, or set phases[i].clip there'
            )
        return
    split, index = run.data.splits['train'], run.tasks[PRIMARY].loader.indices(step - 1)
    raise report_nonfinite(
        workdir,
        step=step,
        rate=float(phase.schedule(step - 1 - phase.first)) * float(state.scale),
        ids=[str(split.ids[row]) for row in index],
        labels=[run.data.describe_example('train', row) for row in index],
        images=split.read(index),
    )
