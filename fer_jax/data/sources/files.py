"""Image files below a folder: their content and their digests."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fer_jax.errors import UserError
from fer_jax.utils import cache, progress
from fer_jax.utils.atomic_files import atomic_write
from fer_jax.utils.threads import threads

MIN_NEW_FILES = 1000  # new files


def open_files(directory: Path, ids: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], list[bytes]]]:
    """(digests uint8 [N, 32], fetch) of the files `directory/ids[i]`.

    Digests are kept between runs, by path, size and time of change, so that a large folder is read only once.

    Raises:
      UserError: a file cannot be read.
    """

    def read(name: str) -> bytes:
        try:
            return (directory / name).read_bytes()
        except OSError as error:
            raise UserError(f'{directory / name} cannot be read ({error.strerror})') from error

    def fetch(index: np.ndarray) -> list[bytes]:
        return [read(str(ids[at])) for at in index]

    return _digests(directory, ids, read), fetch


def _digests(directory: Path, ids: np.ndarray, read: Callable[[str], bytes]) -> np.ndarray:
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
    missing = [at for at, stamp in enumerate(stamps) if stamp not in known]
    with threads() as pool:
        made = pool.map(lambda at: hashlib.sha256(read(str(ids[at]))).digest(), missing)
        for at, digest in zip(missing, progress.bar(made, 'reading files', len(missing)), strict=True):
            known[stamps[at]] = digest
    digests = np.frombuffer(b''.join(known[stamp] for stamp in stamps), np.uint8).reshape(-1, 32)
    if len(missing) >= MIN_NEW_FILES:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as scratch, scratch.open('wb') as file:
            np.savez(file, stamps=np.array(stamps, np.str_), digests=digests)
    return digests


def _stamp(path: Path) -> str:
    """What changes when a file does."""
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(f'{path} cannot be read ({error.strerror})') from error
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return f'{name}-{status.st_size}-{status.st_mtime_ns}-{status.st_ino}'
