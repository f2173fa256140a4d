"""The tasks of a config, the primary one and those beside it, and the data of each."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from fer_jax.data import dataset
from fer_jax.data.dataset import Dataset
from fer_jax.data.tables.table import Table
from fer_jax.errors import UserError
from fer_jax.utils import cache

PRIMARY = 'primary'
ALONE = {'weight': 1.0, 'head': '', 'align': 0.0}  # the primary task's own of the fields that a joint task has


def task_configs(config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Returns {task: {'data', 'loss', 'weight', 'head', 'align'}}, the primary task first, then `joint` by name.

    Raises:
      UserError: a task has a loss that it cannot have, or none at all.
    """
    configs: dict[str, Mapping[str, Any]] = {PRIMARY: {'data': config['data'], 'loss': config['loss'], **ALONE}}
    for name, task in sorted(config.get('joint', {}).items()):
        if task['loss']['consistency']:
            raise UserError(f'joint.{name}.loss.consistency is for the primary task; set it to 0')
        if task['data']['label'] == 'none' and not task['align']:
            raise UserError(f'joint.{name}: without labels there is only align, which is 0; give it a strength')
        configs[name] = task
    return configs


def load_tasks(
    config: Mapping[str, Any], *, image_size: int, channels: int, given: Table | None = None
) -> dict[str, Dataset]:
    """Loads the data of every task.

    No joint task trains on an image that is, to the byte, one on which the primary task is selected or tested, and none
    is scored on one on which another task trains.

    Args:
      given: the data of the primary task, in place of those that the config names.

    Raises:
      UserError: see `dataset.load_dataset`; the primary task has no labels.
    """
    datasets: dict[str, Dataset] = {}
    for name, task in task_configs(config).items():
        data = task['data']
        levels = task['loss']['name'] == 'squared_error'
        if name == PRIMARY and (data.get('label') == 'none' or levels):
            raise UserError(
                "data.label='none' and loss.name='squared_error' are for joint tasks; the primary one tells "
                'classes or attributes'
            )
        primary = datasets.get(PRIMARY)
        others: dict[str, Any] = {}
        if primary is not None:
            others['held_out'] = eval_digests(primary)
            if task['head'] == PRIMARY:
                others['classes'] = primary.classes
        with in_task(name):
            datasets[name] = dataset.load_dataset(
                **{field: data[field] for field in dataset.SOURCE if field in data},
                splits={role: split for role, split in data['splits'].items() if split},
                image_size=image_size,
                channels=channels,
                levels=levels,
                root=cache.root() / 'datasets',
                given=given if name == PRIMARY else None,
                **others,
            )
    return _apart(datasets)


def eval_digests(data: Dataset) -> np.ndarray:
    """Returns uint8 [M, 32]: digests of the images on which it is selected or tested."""
    digests = [split.digests for role, split in data.splits.items() if role != 'train']
    return np.concatenate([np.empty((0, 32), np.uint8), *digests])


def _apart(datasets: Mapping[str, Dataset]) -> dict[str, Dataset]:
    """No joint task is scored on an image on which another task trains.

    The primary task's scored images are left out of the others' training instead, see `load_tasks`.
    """
    apart = dict(datasets)
    for name in list(datasets)[1:]:
        trained = np.concatenate([data.splits['train'].digests for other, data in datasets.items() if other != name])
        apart[name] = datasets[name].unscored(trained[dataset.among(trained, eval_digests(datasets[name]))])
    return apart


def heads(config: Mapping[str, Any], data: Mapping[str, Dataset]) -> dict[str, tuple[str, ...]]:
    """Returns {task: class names} of the tasks that have a head of their own."""
    return {
        name: data[name].classes
        for name, task in task_configs(config).items()
        if data[name].classes and not task['head']
    }


@contextmanager
def in_task(task: str) -> Iterator[None]:
    """Adds the name of a joint task to the messages of UserErrors that the block raises.

    Args:
      task: name of the task; the messages of the primary task stay as they are.
    """
    try:
        yield
    except UserError as error:
        raise error if task == PRIMARY else UserError(f'joint.{task}: {error}') from None
