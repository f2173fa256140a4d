"""Files that are found as they were or as they are to be, whenever a process is killed."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_write(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """Gives a path to write to, which takes the place of `path` at the end of the block; nothing is left if that fails.

    Args:
      sync: wait until the content is on the disk, so that the file is whole after a power cut too.
    """
    scratch = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        yield scratch
        if sync:
            with scratch.open('rb') as file:
                os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically: a process that is killed leaves the old file or the new one."""
    with atomic_write(path) as scratch:
        scratch.write_text(text)
