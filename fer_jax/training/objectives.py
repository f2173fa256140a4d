"""What a run learns: the primary task, and others beside it, each with its own images, loss and, mostly, head."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from fer_jax.data.dataset import Dataset
from fer_jax.data.loading.loader import TrainLoader
from fer_jax.data.tasks import PRIMARY, in_task
from fer_jax.errors import UserError
from fer_jax.training import losses
from fer_jax.training.losses import Loss

HINTS = 'hints'  # what teachers' features are called, and the head that tells them


class Teaching(NamedTuple):
    """The settings of distillation in a task's loss, see `fer_jax.training.distillation`.

    Attributes:
      temperature: by which logits are divided before the softmax.
      weight: share of the distillation loss; the task's own loss has the rest.
      hints: factor of the squared error of the teachers' features; 0 for none.
    """

    temperature: float
    weight: float
    hints: float = 0.0


class Objective(NamedTuple):
    """The objective of one task: weight * mean loss + align * CORAL distance to the primary task.

    Attributes:
      loss: (logits [B, C], labels [B] or distributions [B, C]) -> per-example (loss [B], weight [B]); the weight
        depends on the targets alone. None for images without labels.
      hits: (logits, targets) -> [B], the share of an example that is predicted correctly, from 0 to 1; None where that
        is not defined.
      head: the task whose head it uses.
      draw_targets: whether each example's label is drawn from its distribution, anew at every step.
      teaching: settings of distillation; None without teachers.
      consistency: factor of the attention-consistency loss; of the primary task only.
    """

    loss: Loss | None
    hits: Callable[[jax.Array, jax.Array], jax.Array] | None = losses.class_hits
    head: str = PRIMARY
    weight: float = 1.0
    align: float = 0.0
    draw_targets: bool = False
    teaching: Teaching | None = None
    consistency: float = 0.0


@dataclass(frozen=True)
class Task:
    """One task with its data, its objective and its loader of training batches."""

    data: Dataset
    objective: Objective
    loader: TrainLoader


def check_aligned(fields: Mapping[str, Mapping[str, Any]], accumulate: int) -> None:
    """Checks that tasks with `align` have two images or more in a microbatch: CORAL estimates covariances.

    Raises:
      UserError: a microbatch would have a single image.
    """
    aligned = [name for name, task in fields.items() if task['align']]
    for name in (PRIMARY, *aligned) if aligned else ():
        if (size := fields[name]['data']['batch_size']) // accumulate < 2:
            where = '' if name == PRIMARY else f'joint.{name}.'
            raise UserError(
                f'{where}data.batch_size={size} in {accumulate} microbatches: align compares covariances, which take 2 '
                'images or more; raise it, or lower accumulate'
            )


def objective(name: str, task: Mapping[str, Any], data: Dataset, distil: Mapping[str, Any]) -> Objective:
    """Builds the objective of the task called `name`, with distillation where its training split has teacher outputs.

    Args:
      task: the task's config.
      distil: the config's fields under `distil`.

    Raises:
      UserError: the loss is unknown, or does not fit the data.
    """
    train, loss, settings = data.splits['train'], task['loss'], task['data']
    if settings['label'] == 'none':
        return Objective(None, None, align=task['align'])
    counts = np.bincount(train.labels[train.labels >= 0], minlength=len(data.classes))
    with in_task(name):
        made = losses.make(
            loss['name'],
            target=settings['target'],
            attributes=train.attributes is not None,
            levels=train.levels is not None,
            label_smoothing=loss['label_smoothing'],
            positive_weights=losses.positive_weights(train.attributes, loss['positive_weights']),
            class_weights=losses.class_weights(counts, loss['class_weights'], beta=loss['beta']),
            gamma=loss['gamma'],
            alpha=loss['alpha'],
            q=loss['q'],
            tau=loss['tau'],
            counts=counts,
        )
    hits = losses.class_hits if train.attributes is None else losses.attribute_hits
    teaching = None
    if train.teacher_outputs:
        hints = distil['hints'] if HINTS in train.teacher_outputs else 0.0
        teaching = Teaching(distil['temperature'], distil['weight'], hints)
    return Objective(
        made,
        hits=None if train.levels is not None else hits,
        head=task['head'] or name,
        weight=task['weight'],
        align=task['align'],
        draw_targets=settings['target'] == 'probability',
        teaching=teaching,
        consistency=loss['consistency'],
    )


def make_train_loader(
    name: str, task: Mapping[str, Any], data: Dataset, config: Mapping[str, Any], mesh: Mesh
) -> TrainLoader:
    """Builds the training loader of the task called `name`; each joint task has its own sampling order."""
    with in_task(name):
        return TrainLoader(
            data.splits['train'],
            batch_size=task['data']['batch_size'],
            seed=config['seed'] if name == PRIMARY else seed_of(config['seed'], name),
            placement=config['data']['placement'],
            mesh=mesh,
            balance=task['data']['balance'],
            workers=config['data']['workers'],
        )


def seed_of(seed: int, name: str) -> int:
    """Returns the seed of a joint task's sampling order, so that two tasks on the same data get different examples."""
    return int.from_bytes(hashlib.sha256(f'{seed}\0{name}'.encode()).digest()[:4])


def describe(task: Task) -> str:
    """Returns one line that describes a joint task: its data, classes, head, weights and batch size."""
    objective, data = task.objective, task.data
    counts = ', '.join(f'{role} {len(split.labels):,}' for role, split in data.splits.items())
    learnt = 'no labels'
    if objective.loss is not None:
        learnt = f'{len(data.classes)} classes at {"the primary head" if objective.head == PRIMARY else "its own head"}'
        learnt += f', weight {objective.weight:g}'
    aligned = f', aligned by {objective.align:g}' if objective.align else ''
    shared = ', '.join(f'{count:,} of {role}' for role, count in data.left_out.items())
    apart = f'; left out, as another task trains on them: {shared}' if shared else ''
    return f'{data.name}: {counts}; {learnt}{aligned}; batch {task.loader.batch_size}{apart}'
