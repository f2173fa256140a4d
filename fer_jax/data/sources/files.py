"""Image files below a folder: their content and their digests."""

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fer_jax.errors import UserError
from fer_jax.utils import cache, progress
from fer_jax.utils.atomic_files import atomic_write
from fer_jax.utils.threads import threads

MIN_NEW_FILES = 1000  # new files
LARGEST_FILE_BYTES = 1 << 28  # bytes; 85 megapixels of RGB, not compressed
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
        return [_read(directory / str(ids[at])) for at in index]

    return _digests(directory, ids), fetch


def _read(path: Path) -> bytes:
    """Reads a regular file; whatever else has a name, such as /dev/zero, is refused without being opened."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f'{path} cannot be read (it is no regular file)')
        if status.st_size > LARGEST_FILE_BYTES:
            raise UserError(f'{path} cannot be read ({status.st_size:,} bytes are more than {LARGEST_FILE_BYTES:,})')
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise UserError(f'{path} cannot be read ({getattr(error, "strerror", None) or error})') from error


def _digest(path: Path) -> bytes:
    try:
        return hashlib.sha256(_read(path)).digest()
    except UserError:
        return UNREADABLE


def _digests(directory: Path, ids: np.ndarray) -> np.ndarray:
    place = hashlib.sha256(os.fsencode(directory.resolve())).hexdigest()[:16]
    path = cache.root() / 'digests' / f'{place}.npz'
    stamps = [_stamp(directory / name) for name in ids]
    known: dict[str, bytes] = {}
    if path.exists():
        try:
            with np.load(path) as kept:
                known = {str(stamp): row.tobytes() for stamp, row in zip(kept['stamps'], kept['digests'], strict=True)}
        except Exception:  # damaged: made anew; the reader of archives raises anything
            known = {}
    known[''] = UNREADABLE
    missing = [at for at, stamp in enumerate(stamps) if stamp not in known]
    with threads() as pool:
        made = pool.map(lambda at: _digest(directory / str(ids[at])), missing)
        for at, digest in zip(missing, progress.bar(made, 'reading files', len(missing)), strict=True):
            known[stamps[at]] = digest
    digests = np.frombuffer(b''.join(known[stamp] for stamp in stamps), np.uint8).reshape(-1, 32)
    if len(missing) >= MIN_NEW_FILES:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as scratch, scratch.open('wb') as file:
            np.savez(file, stamps=np.array(stamps, np.str_), digests=digests)
    return digests


def _stamp(path: Path) -> str:
    """Returns what changes when a file does; '' where it is not there."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return ''
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return f'{name}-{status.st_size}-{status.st_mtime_ns}-{status.st_ino}'
