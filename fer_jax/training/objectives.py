"""What a run learns: the primary task, and others beside it, each with its own images, loss and, mostly, head."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from fer_jax.data import dataset
from fer_jax.data.dataset import Dataset
from fer_jax.data.loading.loader import TrainFeed
from fer_jax.errors import UserError
from fer_jax.models.network import PRIMARY
from fer_jax.runs import config as run_config
from fer_jax.training import losses
from fer_jax.training.losses import Loss
from fer_jax.utils import cache

HINTS = 'hints'  # what teachers' features are called, and the head that tells them
ALONE = {'weight': 1.0, 'head': '', 'align': 0.0}  # the primary task's own of the fields that a joint task has


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
    feed: TrainFeed


def fields(config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """{task: {'data', 'loss', 'weight', 'head', 'align'}}, the primary task first, then those of `joint` by name.

    Raises:
      UserError: a name or a head cannot be.
    """
    found: dict[str, Mapping[str, Any]] = {PRIMARY: {'data': config['data'], 'loss': config['loss'], **ALONE}}
    for name, task in sorted(config.get('joint', {}).items()):
        if not name.isidentifier() or name == PRIMARY:
            raise UserError(f'joint.{name}: a task needs a name of letters and digits, other than {PRIMARY}')
        if task['head'] not in ('', PRIMARY):
            raise UserError(f"joint.{name}.head={task['head']!r} is unknown; '' is a head of its own, or {PRIMARY!r}")
        for field in ('weight', 'align'):
            if not 0 <= task[field] < float('inf'):
                raise UserError(f'joint.{name}.{field}={task[field]}; expected 0 or more')
        if task['loss']['consistency']:
            raise UserError(f'joint.{name}.loss.consistency is for the primary task; set it to 0')
        if task['data']['label'] == 'none' and not task['align']:
            raise UserError(f'joint.{name}: without labels there is only align, which is 0; give it a strength')
        found[name] = task
    return found


def load(config: Mapping[str, Any], *, image_size: int, channels: int) -> dict[str, Dataset]:
    """The data of every task.

    No joint task trains on an image that is, to the byte, one on which the primary task is selected or tested, and none
    is scored on one on which another task trains.

    Raises:
      UserError: see `dataset.load`; the primary task has no labels.
    """
    found: dict[str, Dataset] = {}
    for name, task in fields(config).items():
        data = task['data']
        levels = task['loss']['name'] == 'squared_error'
        if name == PRIMARY and (data.get('label') == 'none' or levels):
            raise UserError(
                "data.label='none' and loss.name='squared_error' are for joint tasks; the primary one tells "
                'classes or attributes'
            )
        primary = found.get(PRIMARY)
        others: dict[str, Any] = {}
        if primary is not None:
            others['held_out'] = scored(primary)
            if task['head'] == PRIMARY:
                others['classes'] = primary.classes
        with _named(name):
            found[name] = dataset.load(
                **{field: data[field] for field in dataset.SOURCE if field in data},
                splits={role: split for role, split in data['splits'].items() if split},
                image_size=image_size,
                channels=channels,
                levels=levels,
                root=cache.root() / 'datasets',
                **others,
            )
    return _apart(found)


def scored(data: Dataset) -> np.ndarray:
    """uint8 [M, 32]: digests of the images on which it is selected or tested."""
    found = [split.digests for role, split in data.splits.items() if role != 'train']
    return np.concatenate([np.empty((0, 32), np.uint8), *found])


def _apart(found: Mapping[str, Dataset]) -> dict[str, Dataset]:
    """No joint task is scored on an image on which another task trains.

    The primary task's scored images are left out of the others' training instead, see `load`.
    """
    apart = dict(found)
    for name in list(found)[1:]:
        trained = np.concatenate([data.splits['train'].digests for other, data in found.items() if other != name])
        apart[name] = found[name].unscored(trained[dataset.among(trained, scored(found[name]))])
    return apart


def of_run(workdir: Path) -> dict[str, Dataset]:
    """The data of every task of a run, as long as they are where they were."""
    from fer_jax.checkpoints import read_spec  # a step does not need Orbax

    spec = read_spec(workdir)
    return load(run_config.read(workdir), image_size=spec.image_size, channels=spec.channels)


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


def heads(config: Mapping[str, Any], data: Mapping[str, Dataset]) -> dict[str, tuple[str, ...]]:
    """{task: class names} of the tasks that have a head of their own."""
    return {
        name: data[name].classes for name, task in fields(config).items() if data[name].classes and not task['head']
    }


def objective(name: str, task: Mapping[str, Any], data: Dataset, distil: Mapping[str, Any]) -> Objective:
    """What is minimised of the task of this name; the primary one has teachers where its images were shown to any.

    Raises:
      UserError: the loss is unknown, or does not fit the data.
    """
    train, loss, settings = data.splits['train'], task['loss'], task['data']
    if settings['label'] == 'none':
        return Objective(None, None, align=task['align'])
    counts = np.bincount(train.labels[train.labels >= 0], minlength=len(data.classes))
    with _named(name):
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
    if train.said:
        teaching = Teaching(distil['temperature'], distil['weight'], distil['hints'] if HINTS in train.said else 0.0)
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


def feed(name: str, task: Mapping[str, Any], data: Dataset, config: Mapping[str, Any], mesh: Mesh) -> TrainFeed:
    """The training split of the task of this name, in an order of its own."""
    with _named(name):
        return TrainFeed(
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
    return f'{data.name}: {counts}; {learnt}{aligned}; batch {task.feed.batch_size}{apart}'


@contextmanager
def _named(task: str) -> Iterator[None]:
    """Says of a mistake which joint task it is in."""
    try:
        yield
    except UserError as error:
        raise error if task == PRIMARY else UserError(f'joint.{task}: {error}') from None
