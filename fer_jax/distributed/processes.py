"""Several processes as one run: who this is, and what a run asks of the others.

In an ordinary run there is one process, and all of this answers at once.
"""

import contextlib
import itertools
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fer_jax.distributed.launch import Place, gpus, own_gpus
from fer_jax.distributed.rendezvous import HERE, RESOLVING_SECONDS, await_processes, join_processes
from fer_jax.distributed.watchdog import Peers
from fer_jax.errors import UserError
from fer_jax.utils import progress

_peers: Peers | None = None
_count = 1
_broadcasts, _barriers = itertools.count(), itertools.count()


def start(here: Place | None, settings: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Connects this process to the others of the run, and starts JAX on all of them; does nothing where it is alone.

    It runs before any device is used. An error in `jax.distributed.initialize` aborts the process, so all processes
    connect to process 0 first.

    Args:
      here: the place of this process; None where it is alone.
      settings: `config.parallel`.
      about: what has to be the same in all processes, see `distributed.rendezvous.await_processes`.

    Raises:
      UserError: process 0 is not found, or not all processes come.
    """
    global _peers, _count
    if here is None:
        return
    host, _, text = here.coordinator.rpartition(':')
    port, wait = int(text), settings['wait']
    if here.index == 0:
        lines = await_processes(port, here.count, about, wait)
    else:
        # a pod has a name once it is started
        names = wait if 'JOB_COMPLETION_INDEX' in os.environ else RESOLVING_SECONDS
        name, line = join_processes(host.strip('[]'), port, here.index, here.count, about, wait, names)
        lines = {0: (name, line)}
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # gloo prints too
        progress.silence()
        logging.disable(logging.WARNING)
    times = {name: settings[name] for name in ('lost_after', 'stuck_after')}
    _peers, _count = Peers(here.index, lines, end=_end, **times), here.count
    _start_jax(here, f'localhost:{port}' if here.index == 0 else here.coordinator, settings['lost_after'])


def _start_jax(here: Place, coordinator: str, lost_after: float) -> None:
    import jax

    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
    jax.config.update('jax_cpu_enable_async_dispatch', False)  # programs side by side would mix up their messages
    jax.config.update('jax_enable_preemption_service', False)  # it would take SIGTERM
    jax.distributed.initialize(
        coordinator,
        here.count,
        here.index,
        local_device_ids=own_gpus(here, os.environ, gpus()),
        cluster_detection_method='deactivate',
        heartbeat_timeout_seconds=int(3 * lost_after) + 10,  # it ends a process with an abort: we look first
    )


def count() -> int:
    return _count


def index() -> int:
    return 0 if _peers is None else _peers.index


def is_main_process() -> bool:
    """Returns whether this is process 0, which writes files and prints."""
    return index() == 0


def broadcast_from_main(value: str) -> str:
    """Returns the `value` of process 0 in all processes.

    All processes call it in the same order, in their main threads.
    """
    return value if _peers is None else _peers.broadcast_from_main(f'told {next(_broadcasts)}', value)


def barrier(name: str = '') -> None:
    """Waits until all processes have called it.

    Args:
      name: a name that is used once; '' in main threads, in the same order in all processes.
    """
    if _peers is not None:
        _peers.barrier(name or f'meeting {next(_barriers)}')


@contextlib.contextmanager
def main_process_first() -> Iterator[None]:
    """Runs the block in process 0 before the others, so that these find the files it writes."""
    if not is_main_process():
        barrier()
    yield
    if is_main_process():
        barrier()


def step_finished(more: bool = True) -> None:
    """Reports that a step, or a scored batch, has ended, and restarts the timeout for the next one.

    Args:
      more: whether another step follows, which has to end within `stuck_after` seconds; False stops the timeout.
    """
    if _peers is not None:
        _peers.finished(more)


def shared_file(path: Path) -> None:
    """Waits for a file that process 0 has written, for at most 30 seconds.

    Raises:
      UserError: the file does not appear.
    """
    deadline = time.monotonic() + 30  # file systems remember for a while that something is not there
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    if not path.exists():
        raise UserError(
            f'{path} is not on {HERE}, though process 0 has written it: all processes need one file system for '
            '--workdir and FER_JAX_CACHE'
        )


def leave(status: int, message: str) -> None:
    """Ends this process once that does not harm the others; returns only where there are no others.

    A message that process 0 has already printed with the same status is not repeated, unless the status is 1.

    Args:
      status: exit status.
      message: message for standard error; '' for none.
    """
    if _peers is None:
        return
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):  # the status is earned
        signal.signal(number, signal.SIG_IGN)
    if status == 1:  # it may be because of another process, which will be found in a moment
        time.sleep(3.0)
    delivered = _peers.leave(status)
    if message and not (delivered and status != 1):
        prefix = '' if is_main_process() else f'process {index()} on {HERE}: '
        os.write(2, f'{prefix}{message}\n'.encode())
    _peers.linger(status)
    _end(status)


def _end(status: int) -> None:
    """Without what Python and JAX do at their exit: it would wait for the other processes."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)
