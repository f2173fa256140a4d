"""results.json and predictions.npz of a run."""

import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.errors import UserError
from fer_jax.utils import atomic_files

PREDICTED = ('ids', 'labels', 'subjects', 'groups', 'logits')


def write_predictions(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name as one .npz file, atomically. They are those of `NetworkScorer.predictions`."""
    with atomic_files.atomic_write(path) as scratch, scratch.open('wb') as file:
        np.savez(file, **dict[str, Any](arrays))


def read_predictions(path: Path, split: str) -> dict[str, np.ndarray]:
    """Reads the predictions on one split.

    Returns:
      {'ids', 'subjects', 'groups': str [N], 'labels': int32 [N] or float32 [N, C], 'logits': float32 [N, C]}.

    Raises:
      UserError: the file does not hold them, or is damaged.
    """
    try:
        with np.load(path) as file:
            if missing := [name for name in PREDICTED if f'{split}/{name}' not in file]:
                raise UserError(f'{path} holds no {missing[0]} of {split}; run the same command again, to score anew')
            return {name: file[f'{split}/{name}'] for name in PREDICTED}
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f'{path} is damaged ({error}); run the same command again, which scores anew') from None


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Writes results as JSON, atomically."""
    atomic_files.write_text(path, json.dumps(results, indent=2) + '\n')


def read_results(workdir: Path) -> dict[str, Any]:
    """Reads results.json of a finished run.

    Raises:
      UserError: the file is missing or damaged.
    """
    path = workdir / 'results.json'
    if not path.is_file():
        raise UserError(f'{workdir} holds no finished run (no {path.name}); the command that began it goes on with it')
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f'{path} is damaged ({error}); run the same command again, which scores anew') from None
