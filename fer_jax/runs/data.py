"""The data of a finished run: as long as they are where they were, and the digests that it keeps of them."""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fer_jax.config.source import PLACES
from fer_jax.data.dataset import Dataset
from fer_jax.data.tasks import load_tasks
from fer_jax.errors import UserError
from fer_jax.runs import config as run_config
from fer_jax.runs import model_file
from fer_jax.utils import checked_files

log = logging.getLogger('fer_jax')
DIGESTS = 'image_digests.npz'
ROLES = ('train', 'validation', 'test')


def data_of_run(workdir: Path) -> dict[str, Dataset]:
    """Loads the data of every task of a run from where they were during training.

    Raises:
      UserError: the data are no longer there, or cannot be read.
    """
    spec, config = model_file.read_spec(workdir), run_config.read_run_config(workdir)
    if not any(config['data'].get(place) for place in PLACES):
        raise UserError(
            f'{workdir} was trained on arrays, which it does not keep; write them as images to use them here'
        )
    return load_tasks(config, image_size=spec.image_size, channels=spec.channels)


def write_image_digests(workdir: Path, data: Mapping[str, Dataset]) -> None:
    """Writes the digests of the images of all tasks, by role, to `workdir`, joined with those already written there."""
    try:
        kept = _stored(workdir)
    except UserError as error:
        log.warning('%s', error)
        kept = _nothing()
    for role in ROLES:
        parts = [task.splits[role].digests for task in data.values() if role in task.splits]
        kept[role] = np.unique(np.concatenate([kept[role], *parts]), axis=0)
    checked_files.write_arrays(workdir / DIGESTS, kept)


def image_digests(workdir: Path) -> dict[str, np.ndarray]:
    """Returns the digests of the images of all tasks of a run, from its folder or else from its data.

    Returns:
      role -> uint8 [N, 32], sha256 of the encoded images.

    Raises:
      UserError: the run has written no digests, and its data are no longer where they were; or they are damaged.
    """
    stored = _stored(workdir)
    if any(map(len, stored.values())):
        return stored
    for task in data_of_run(workdir).values():
        for role, split in task.splits.items():
            stored[role] = np.concatenate([stored[role], split.digests])
    return stored


def _stored(workdir: Path) -> dict[str, np.ndarray]:
    remedy = 'run the same command again, which makes those of its present data anew'
    try:
        with checked_files.open_arrays(workdir / DIGESTS, remedy) as file:
            return {role: file[role].astype(np.uint8).reshape(-1, 32) for role in ROLES}
    except FileNotFoundError:
        return _nothing()


def _nothing() -> dict[str, np.ndarray]:
    return {role: np.empty((0, 32), np.uint8) for role in ROLES}
