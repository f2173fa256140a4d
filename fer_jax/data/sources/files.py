"""Image files below a folder: their content and their digests."""

import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fer_jax.errors import UserError
from fer_jax.utils import bounded_files, cache, limits, progress
from fer_jax.utils.atomic_files import atomic_write, sweep
from fer_jax.utils.threads import threads

log = logging.getLogger('fer_jax')
MIN_NEW_FILES = 1000  # new files
UNREADABLE = bytes(32)  # in place of a digest
EMPTY = hashlib.sha256().digest()  # of a file of no bytes


def open_files(directory: Path, ids: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], list[bytes]]]:
    """Opens the files `directory/ids[i]`.

    Digests are kept between runs, by path, size and time of change, so that a large folder is read only once.

    Returns:
      Digests uint8 [N, 32], `UNREADABLE` of a file that cannot be read; and a function int [B] positions -> contents,
      which raises UserError where one of them cannot be read.
    """

    def fetch(index: np.ndarray) -> list[bytes]:
        return [_read(directory / str(ids[row])) for row in index]

    return _digests(directory, ids), fetch


def _read(path: Path) -> bytes:
    """Reads a regular file; whatever else has a name, such as /dev/zero, is refused and not read."""
    try:
        return bounded_files.read_bytes(path, limits.IMAGE_BYTES)
    except (OSError, ValueError) as error:
        raise UserError(f'{path} cannot be read ({getattr(error, "strerror", None) or error})') from error


def _digest(path: Path) -> bytes:
    try:
        with bounded_files.open_regular(path, limits.IMAGE_BYTES) as file:
            return hashlib.file_digest(file, 'sha256').digest()
    except (OSError, ValueError):
        return UNREADABLE


def _digests(directory: Path, ids: np.ndarray) -> np.ndarray:
    place = hashlib.sha256(os.fsencode(directory.resolve())).hexdigest()[:16]
    path = cache.root() / 'digests' / f'{place}.npz'
    stamps = [_stamp(directory / name) for name in ids]
    known: dict[str, bytes] = {}
    if path.exists():
        try:
            kept = bounded_files.read_arrays(path)
            known = {str(stamp): row.tobytes() for stamp, row in zip(kept['stamps'], kept['digests'], strict=True)}
        except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
            log.warning('%s is damaged (%s): the digests are made anew', path, error)
            known = {}
    known[''] = UNREADABLE
    missing = [index for index, stamp in enumerate(stamps) if stamp not in known]
    with threads() as pool:
        made = pool.map(lambda index: _digest(directory / str(ids[index])), missing)
        for index, digest in zip(missing, progress.bar(made, 'reading files', len(missing)), strict=True):
            known[stamps[index]] = digest
    digests = np.frombuffer(b''.join(known[stamp] for stamp in stamps), np.uint8).reshape(-1, 32)
    if len(missing) >= MIN_NEW_FILES and cache.is_writable(path.parent):
        sweep(path.parent)
        with atomic_write(path) as scratch, scratch.open('wb') as file:
            np.savez(file, stamps=np.array(stamps, np.str_), digests=digests)
    return digests


def _stamp(path: Path) -> str:
    """Returns what changes when a file does, also where its time is set back; '' where it is not there."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return ''
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return f'{name}-{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}-{status.st_ino}'
