"""Finds the fault of a disk behind the exception of any library that wrote to it, and makes the message for it."""

import contextlib
import errno
import logging
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from fer_jax.errors import UserError

GOES_ON = 'what was saved is whole, and the same command goes on'
REMEDIES = {
    errno.ENOSPC: f'the disk is full: make room, or set FER_JAX_CACHE to another disk; {GOES_ON}',
    errno.EDQUOT: f'the quota is used up: make room, or set FER_JAX_CACHE to another disk; {GOES_ON}',
    errno.EFBIG: f'files of that size are not allowed: raise `ulimit -f`; {GOES_ON}',
    errno.EROFS: 'nothing can be written there: choose another --workdir, or set FER_JAX_CACHE to another folder',
    errno.EACCES: 'this user may not write there: choose another --workdir, or set FER_JAX_CACHE to another folder',
    errno.ENOTDIR: 'a file stands where a folder should: choose another --workdir',
    errno.EIO: f'the disk fails; {GOES_ON}, from the newest checkpoint that can be read',
    errno.ESTALE: f'the file server has lost it; {GOES_ON}',
    errno.ENODEV: f'the disk is gone; {GOES_ON}, once it is there again',
    errno.ENXIO: f'the disk is gone; {GOES_ON}, once it is there again',
}
# Of libraries that raise their own words, in which the system's stand
_WORDS = {os.strerror(number): number for number in REMEDIES}


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an exception, and those that led to it."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        current = waiting.pop(0)
        if current is not None and id(current) not in seen:
            seen.add(id(current))
            yield current
            waiting += [current.__cause__, current.__context__, *getattr(current, 'exceptions', ())]


def fault_number(error: BaseException) -> int:
    """Returns the errno of the fault of a disk that led to an exception; 0 where it was something else."""
    for each in chain(error):
        if isinstance(each, OSError) and each.errno in REMEDIES:
            return each.errno
        if not isinstance(each, UserError):
            for words, number in _WORDS.items():
                if words in str(each):
                    return number
    return 0


def describe_fault(error: BaseException) -> str:
    """Returns the message for a fault of a disk: what failed, and what to do; '' where it was something else."""
    number = fault_number(error)
    if not number:
        return ''
    for each in chain(error):
        if isinstance(each, OSError) and each.errno == number:
            return f'{each}; {REMEDIES[number]}'
    return f'{os.strerror(number)}; {REMEDIES[number]}'


def removed_folder(folder: Path) -> UserError:
    """Returns the error for a folder that went while the run wrote to it."""
    return UserError(
        f'{folder} was removed, or its disk taken away, or it was renamed, while the run wrote to it; put it back '
        'there, and the same command goes on'
    )


def free_space(folder: Path) -> str:
    """Returns what is left of the disk of a folder, in words."""
    try:
        free, inodes = shutil.disk_usage(folder).free / 1e9, os.statvfs(folder)
    except OSError:
        return 'the disk does not answer'
    none_left = inodes.f_files and not inodes.f_favail
    return f'{free:.1f} GB are free there' + (', but no more files may be made (inodes)' if none_left else '')


@contextlib.contextmanager
def faults_named(folder: Path) -> Iterator[None]:
    """Turns what libraries raise within the block, where the disk of `folder` is the cause, into one message.

    Raises:
      UserError: the disk is full, fails, or the folder has gone.
    """
    there = _identity(folder)
    try:
        yield
    except Exception as error:
        if _identity(folder) != there:  # a library may have made another of that name
            raise removed_folder(folder) from error
        if isinstance(error, UserError) or not fault_number(error):
            raise
        raise UserError(f'{describe_fault(error)}; {free_space(folder)}') from error


def _identity(folder: Path) -> tuple[int, int]:
    try:
        status = folder.stat()
    except OSError:
        return 0, 0
    return status.st_dev, status.st_ino


def silence_threads() -> None:
    """Keeps threads, futures and finalizers from printing, at the end of the process, what its message has said."""
    logging.getLogger('asyncio').setLevel(logging.CRITICAL + 1)
    threading.excepthook = lambda _: None
    sys.unraisablehook = lambda _: None
    sys.excepthook = lambda *_: None  # of callbacks of TensorStore on a loop that is closed
