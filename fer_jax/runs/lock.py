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

log = logging.getLogger('fer_jax')
BEAT_SECONDS = 10.0  # seconds between signs of life
DEAD_SECONDS = 6 * BEAT_SECONDS  # without one for so long, a writer on another machine is taken for dead


@contextlib.contextmanager
def workdir_lock(workdir: Path) -> Iterator[None]:
    """Locks `<workdir>/writer.json` within the block; of several processes of a run, process 0 holds the lock for all.

    The lock is the operating system's, which ends with the process. Shared file systems may keep such locks to one
    machine, so the file also names host and process, and its time is renewed every `BEAT_SECONDS` seconds.

    Raises:
      UserError: another process writes there. For one on another machine, this waits to see whether it is alive.
    """
    if not processes.is_main_process():
        yield
        return
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / 'writer.json'
    with path.open('a+', errors='replace') as file:
        _take(file, path)
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
            file.truncate(0)  # the next one need not wait for this to be taken for dead


def _beats(path: Path, seconds: float) -> bool:
    """Whether a sign of life comes within so many seconds."""
    before, deadline = path.stat().st_mtime, time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(min(1.0, seconds))
        if path.stat().st_mtime != before:
            return True
    return False


def _take(file: IO[str], path: Path) -> None:
    file.seek(0)
    text = file.read()
    age = time.time() - os.fstat(file.fileno()).st_mtime
    try:
        holder: dict[str, Any] = dict(json.loads(text)) if text.strip() else {}
    except (ValueError, TypeError, RecursionError):
        holder = {}
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held = False
    except BlockingIOError:
        held = True
    except OSError:  # this file system has no locks: the signs of life decide
        held = bool(holder) and age < DEAD_SECONDS
    elsewhere = holder.get('host', socket.gethostname()) != socket.gethostname()
    if elsewhere and not held and age < DEAD_SECONDS:
        log.info('%s was written on %s %.0f s ago: waiting for a sign of life', path.parent, holder['host'], age)
        held = _beats(path, DEAD_SECONDS - age)
    if held:
        who = f'process {holder.get("pid", "?")} on {holder.get("host", "?")} since {holder.get("since", "?")}'
        raise UserError(
            f'{path.parent} is being written by {who}, last seen {max(age, 0):.0f} s ago; wait for it, stop it, or '
            f'choose another --workdir (a writer on another machine is taken for dead after {DEAD_SECONDS:.0f} s)'
        )
