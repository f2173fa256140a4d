"""One writer a workdir: a lock that a dead process cannot keep, also from another machine."""

import contextlib
import fcntl
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from fer_jax.distributed import processes
from fer_jax.errors import UserError
from fer_jax.utils import atomic_files, limits

log = logging.getLogger('fer_jax')
BEAT_SECONDS = 10.0  # seconds between signs of life
DEAD_SECONDS = 6 * BEAT_SECONDS  # without one for so long, a writer on another machine is taken for dead


@contextlib.contextmanager
def workdir_lock(workdir: Path) -> Iterator[None]:
    """Locks `<workdir>/writer.json` within the block; of several processes of a run, process 0 holds the lock for all.

    The lock is the operating system's, which ends with the process. Shared file systems may keep such locks to one
    machine, so the file also names host and process, and its time changes every `BEAT_SECONDS` seconds. Whether it
    changes is what others look at, not how old it is: the clocks of machines differ.

    Raises:
      UserError: another process writes there. For one on another machine, this waits to see whether it is alive.
    """
    if not processes.is_main_process():
        yield
        return
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / 'writer.json'
    if path.exists() and not path.is_file():
        raise UserError(f'{path} is no regular file; remove it, or choose another --workdir')
    with path.open('a+', errors='replace') as file:
        _take(file, path)
        for folder in (workdir, workdir / 'checkpoints'):
            atomic_files.sweep(folder)
        me = {'host': socket.gethostname(), 'pid': os.getpid(), 'since': time.strftime('%F %T')}
        file.truncate(0)
        file.write(json.dumps(me) + '\n')
        file.flush()
        stop = threading.Event()

        def beat() -> None:
            while not stop.wait(BEAT_SECONDS):
                with contextlib.suppress(OSError):
                    os.utime(path)

        heart = threading.Thread(target=beat, daemon=True)
        heart.start()
        try:
            yield
        finally:
            stop.set()
            heart.join()
            with contextlib.suppress(OSError):  # what the block has raised counts
                file.truncate(0)  # the next one need not wait for this to be taken for dead


def _shows_life(path: Path, seconds: float) -> bool:
    """Returns whether the file changes within so many seconds of this process; no clocks are compared."""
    before, deadline = _content(path), time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(min(1.0, seconds))
        if _content(path) != before:
            return True
    return False


def _content(path: Path) -> tuple[bytes, int]:
    with path.open('rb') as file:  # opened anew, which asks a file server
        return file.read(limits.LINE_CHARACTERS), os.fstat(file.fileno()).st_mtime_ns


def _take(file: IO[str], path: Path) -> None:
    file.seek(0)
    text = file.read(limits.LINE_CHARACTERS)
    try:
        holder: dict[str, Any] = dict(json.loads(text)) if text.strip() else {}
    except (ValueError, TypeError, RecursionError):
        holder = {}
    has_locks = True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held = False
    except BlockingIOError:
        held = True
    except OSError:
        held = has_locks = False
    here = socket.gethostname()
    if not held and holder and (not has_locks or holder.get('host', here) != here):
        log.info(
            '%s was written on %s: waiting %.0f s for a sign of life',
            path.parent,
            holder.get('host', here),
            DEAD_SECONDS,
        )
        held = _shows_life(path, DEAD_SECONDS)
    if held:
        who = f'process {holder.get("pid", "?")} on {holder.get("host", "?")} since {holder.get("since", "?")}'
        raise UserError(
            f'{path.parent} is being written by {who}; wait for it, stop it, or choose another --workdir (a writer on '
            f'another machine is taken for dead after {DEAD_SECONDS:.0f} s without a sign of life)'
        )
