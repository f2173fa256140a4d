"""Records of a run in .jsonl files: append, verify, read back, and find the best evaluations."""

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fer_jax.errors import UserError
from fer_jax.utils import bounded_files, checked_files, limits
from fer_jax.utils.atomic_files import atomic_write

log = logging.getLogger('fer_jax')
REMEDY = 'take it from a copy of that run'


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Reads the records of a .jsonl file, up to the first line that is no record.

    A killed run may have written a part of its last line.

    Raises:
      UserError: a finished run wrote another file than this.
    """
    checked_files.check_file(path, REMEDY)
    return [record for _, record in _lines(path)]


def _lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """The records of a file, each with the line that holds it, up to the first line that is no record."""
    try:
        content = bounded_files.read_bytes(path, limits.TABLE_BYTES) if path.exists() else b''
    except (OSError, ValueError) as error:
        raise UserError(f'{path} cannot be read ({error}); {REMEDY}') from None
    for line in content.splitlines(keepends=True):
        try:
            record = json.loads(line.decode(errors='replace'))
        except (ValueError, RecursionError):
            return
        if not isinstance(record, dict):
            return
        yield line, record


class RecordFile:
    """A .jsonl file of a run, of which the records up to a step are kept and further ones are appended.

    Attributes:
      sha256: digest of all that is in the file.
    """

    def __init__(self, path: Path, step: int, expected: str = ''):
        """Opens the file and removes the records after `step`: the run goes on from there and writes them again.

        Args:
          expected: sha256 of the records up to `step`, as a checkpoint keeps it; '' where it is not known.

        Raises:
          UserError: there are other records in the file.
        """
        self.path, self._hash = path, hashlib.sha256()
        steps = ((line, record.get('step')) for line, record in _lines(path))
        kept = [line for line, of_line in steps if isinstance(of_line, int) and of_line <= step]
        self._hash.update(b''.join(kept))
        if expected and not path.exists():
            log.warning('%s is missing: the run goes on without its records up to step %d', path, step)
        elif expected and expected != self.sha256:
            raise UserError(
                f'{path} is damaged: its records up to step {step} are not those that the checkpoint of that step was '
                f'saved with, and past scores decide how a run goes on; {REMEDY}, or remove it to go on without them'
            )
        checked_files.forget_file(path)
        with atomic_write(path) as scratch:
            scratch.write_bytes(b''.join(kept))
        self._file = path.open('ab', buffering=0)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def append(self, record: Mapping[str, Any]) -> None:
        """Appends a record as one line."""
        line = json.dumps(record).encode() + b'\n'
        self._hash.update(line)
        while line:  # a full disk takes a part, and fails at the rest
            line = line[self._file.write(line) :]

    def flush(self) -> None:
        """Waits until all records are on the disk."""
        os.fsync(self._file.fileno())

    def read(self) -> list[dict[str, Any]]:
        """Reads all records back.

        Raises:
          UserError: they are not what was written.
        """
        if checked_files.file_sha256(self.path) != self.sha256:
            raise UserError(f'{self.path} is damaged: something else has changed it since it was written; {REMEDY}')
        return [record for _, record in _lines(self.path)]

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def best_of_phases(
    history: list[dict[str, Any]], role: str, metric: str, *, larger: bool = True
) -> list[dict[str, Any]]:
    """Returns the best evaluation of each phase.

    Args:
      history: evaluations, each with 'split', 'phase' and the metric.
      role: split whose evaluations count.
      metric: name of the selection metric.
      larger: whether a larger value is better.
    """
    sign = 1 if larger else -1
    phases: dict[int, list[dict[str, Any]]] = {}
    for entry in history:
        if entry['split'] == role:
            phases.setdefault(entry['phase'], []).append(entry)
    return [max(entries, key=lambda entry: sign * entry[metric]) for _, entries in sorted(phases.items())]
