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
    """How much of what teachers say enters a task's loss, see `fer_jax.training.distillation`.

    Attributes:
      weight: share of the distillation loss, the task's own has the rest.
      hints: factor of the squared error of the teachers' features; 0 for none.
    """

    temperature: float
    weight: float
    hints: float = 0.0


class Objective(NamedTuple):
    """What a step minimises of one task: weight * mean loss + align * CORAL distance from the primary task.

    Attributes:
      loss: (logits [B, C], labels [B] or distributions [B, C]) -> per-example loss [B] and weight [B], of which the
        latter depends on the targets alone; None for images without labels.
      hits: of the same -> [B], what of an example is right, from 0 to 1; None where that is no question.
      head: the task whose head it uses.
      draw_targets: each example's label is drawn from its distribution, anew at every step.
      teaching: None without teachers.
      consistency: strength at which attention is to be that of the mirror images; of the primary task.
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
    """One task, ready to train."""

    data: Dataset
    objective: Objective
    loader: TrainLoader


def check_aligned(fields: Mapping[str, Mapping[str, Any]], accumulate: int) -> None:
    """Raises UserError where a microbatch has one image, of which there is no covariance for CORAL to compare."""
    aligned = [name for name, task in fields.items() if task['align']]
    for name in (PRIMARY, *aligned) if aligned else ():
        if (size := fields[name]['data']['batch_size']) // accumulate < 2:
            where = '' if name == PRIMARY else f'joint.{name}.'
            raise UserError(
                f'{where}data.batch_size={size} in {accumulate} microbatches: align compares covariances, which take 2 '
                'images or more; raise it, or lower accumulate'
            )


def objective(name: str, task: Mapping[str, Any], data: Dataset, distil: Mapping[str, Any]) -> Objective:
    """What is minimised of the task of this name; the primary one has teachers where its images were shown to any.

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
    """The training split of the task of this name, in an order of its own."""
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
    """Of a joint task's order: where two tasks share a set, a step shows each its own examples."""
    return int.from_bytes(hashlib.sha256(f'{seed}\0{name}'.encode()).digest()[:4])


def describe(task: Task) -> str:
    """What a joint task learns of what, in one line."""
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
