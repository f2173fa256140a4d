"""Files that are found as they were or as they are to be, whenever a process is killed."""

import contextlib
import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

_HOST = re.sub(r'[^\w-]', '-', socket.gethostname())


@contextlib.contextmanager
def atomic_write(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """Gives a path to write to, which takes the place of `path` at the end of the block; nothing is left if that fails.

    Args:
      sync: wait until the content is on the disk, so that the file is whole after a power cut too.
    """
    scratch = path.with_name(f'.{path.name}.{_HOST}.{os.getpid()}.tmp')
    try:
        yield scratch
        if sync:
            with scratch.open('rb') as file:
                os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        with contextlib.suppress(OSError):  # what failed before counts
            scratch.unlink(missing_ok=True)


@contextlib.contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Gives a folder beside `path` for the block, in which files that belong together are written before they move."""
    is_new = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent)
    scratch = path.with_name(f'.{path.name}.{_HOST}.{os.getpid()}.tmp')
    scratch.mkdir()
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if is_new:
            with contextlib.suppress(OSError):  # it has got files
                path.parent.rmdir()


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically: a process that is killed leaves the old file or the new one."""
    with atomic_write(path) as scratch:
        scratch.write_text(text, encoding='utf-8', errors='surrogateescape')


def sweep(folder: Path) -> None:
    """Removes what killed processes of this machine have left in a folder, half written."""
    for old in folder.glob(f'.*.{_HOST}.*.tmp'):
        process = old.name.split('.')[-2]
        if process.isdecimal() and not _lives(int(process)):
            with contextlib.suppress(OSError):  # another process may sweep too
                shutil.rmtree(old) if old.is_dir() else old.unlink()


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True
