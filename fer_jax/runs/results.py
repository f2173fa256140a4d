"""results.json and predictions.npz of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.errors import UserError
from fer_jax.utils import checked_files

SCORES_ANEW = 'run the same command again, which scores anew'
PREDICTED = ('ids', 'labels', 'subjects', 'groups', 'logits')


def write_predictions(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name as one .npz file, atomically. They are those of `NetworkScorer.predictions`."""
    checked_files.write_arrays(path, arrays)


def read_predictions(path: Path, split: str) -> dict[str, np.ndarray]:
    """Reads the predictions on one split.

    Returns:
      {'ids', 'subjects', 'groups': str [N], 'labels': int32 [N] or float32 [N, C], 'logits': float32 [N, C]}.

    Raises:
      UserError: the file does not hold them, or is damaged.
    """
    with checked_files.open_arrays(path, SCORES_ANEW) as file:
        if missing := [name for name in PREDICTED if f'{split}/{name}' not in file]:
            raise UserError(f'{path} holds no {missing[0]} of {split}; {SCORES_ANEW}')
        return {name: file[f'{split}/{name}'] for name in PREDICTED}


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Writes results as JSON, atomically."""
    checked_files.write_json(path, results)


def read_results(workdir: Path) -> dict[str, Any]:
    """Reads results.json of a finished run.

    Raises:
      UserError: the file is missing or damaged.
    """
    path = workdir / 'results.json'
    if not path.is_file():
        raise UserError(f'{workdir} holds no finished run (no {path.name}); the command that began it goes on with it')
    return checked_files.read_json(path, SCORES_ANEW)
