"""Several processes as one run: who this is, and what a run asks of the others.

In an ordinary run there is one process, and all of this answers at once.
"""

import contextlib
import importlib.util
import itertools
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fer_jax.distributed.watchdog import HERE, RESOLVING, Peers, gather, join
from fer_jax.errors import UserError
from fer_jax.utils import progress

_peers: Peers | None = None
_count = 1
_told, _met = itertools.count(), itertools.count()


@dataclass(frozen=True)
class Place:
    """Which of how many processes this is.

    Attributes:
      coordinator: 'host:port' of process 0.
      local: which of the processes of its machine it is.
      beside: how many those are, itself included.
      source: what said so.
    """

    coordinator: str
    count: int
    index: int
    local: int
    beside: int
    source: str


def place(environment: Mapping[str, str], coordinator: str = '', count: int = 0, index: int = -1) -> Place | None:
    """What flags, or else the environment, say of this process; None where it is alone.

    In this order: `--coordinator`, `--num_processes`, `--process_id`; FER_JAX_COORDINATOR, FER_JAX_NUM_PROCESSES,
    FER_JAX_PROCESS_ID or the JOB_COMPLETION_INDEX of an indexed Kubernetes job; Open MPI's OMPI_*; the SLURM_* of a
    step that srun starts.

    Raises:
      UserError: they do not fit.
    """
    coordinator = coordinator or environment.get('FER_JAX_COORDINATOR', '')
    count = count or _number(environment, 'FER_JAX_NUM_PROCESSES', 0)
    if count:
        if index < 0:
            by_job = _number(environment, 'JOB_COMPLETION_INDEX', -1)
            index = _number(environment, 'FER_JAX_PROCESS_ID', by_job)
        found = Place(coordinator, count, index, 0, 1, '--num_processes or FER_JAX_NUM_PROCESSES')
    elif _number(environment, 'OMPI_COMM_WORLD_SIZE', 1) > 1:
        found = _of_open_mpi(environment, coordinator)
    elif _number(environment, 'SLURM_STEP_NUM_TASKS', 1) > 1:
        found = _of_slurm(environment, coordinator)
    elif coordinator or index >= 0:
        raise UserError('--coordinator and --process_id say nothing without --num_processes; give it, or neither')
    else:
        return None
    return _checked(found)


def _of_open_mpi(environment: Mapping[str, str], coordinator: str) -> Place:
    count, local = (_number(environment, f'OMPI_COMM_WORLD_{name}', 1) for name in ('SIZE', 'LOCAL_SIZE'))
    if not coordinator and count == local:
        coordinator = f'localhost:{_port(os.getppid())}'
    return Place(
        coordinator,
        count,
        _number(environment, 'OMPI_COMM_WORLD_RANK', -1),
        _number(environment, 'OMPI_COMM_WORLD_LOCAL_RANK', 0),
        local,
        'Open MPI',
    )


def _of_slurm(environment: Mapping[str, str], coordinator: str) -> Place:
    count, nodes = (_number(environment, f'SLURM_STEP_NUM_{name}', 1) for name in ('TASKS', 'NODES'))
    if not coordinator:
        job = _number(environment, 'SLURM_JOB_ID', 0)
        coordinator = f'{first_host(environment.get("SLURM_STEP_NODELIST", "localhost"))}:{_port(job)}'
    local, node = (_number(environment, f'SLURM_{name}', 0) for name in ('LOCALID', 'NODEID'))
    beside = tasks_of_nodes(environment.get('SLURM_STEP_TASKS_PER_NODE', ''))[node:][:1] or [-(-count // nodes)]
    return Place(coordinator, count, _number(environment, 'SLURM_PROCID', -1), local, beside[0], 'SLURM')


def tasks_of_nodes(tasks: str) -> list[int]:
    """'4(x2),3' -> [4, 4, 3]."""
    runs = re.findall(r'(\d+)(?:\(x(\d+)\))?', tasks)
    return [int(count) for count, times in runs for _ in range(int(times or 1))]


def first_host(nodes: str) -> str:
    """'gpu[003-007,9]-ib,cpu1' -> 'gpu003-ib'."""
    found = re.match(r'([^,\[]*)(?:\[(\w+)[^\]]*\])?([^,\[]*)', nodes)
    return ''.join(part or '' for part in found.groups()) if found else nodes


def _port(job: int) -> int:
    """One for each job, out of the way of what systems hand out by themselves."""
    return 61000 + job % 4000


def _number(environment: Mapping[str, str], name: str, otherwise: int) -> int:
    text = environment.get(name, '').strip()
    if text and not text.isdecimal():
        raise UserError(f'{name}={text!r} is no whole number, 0 or more')
    return int(text) if text else otherwise


def _checked(found: Place) -> Place | None:
    if not 0 <= found.index < found.count:
        raise UserError(
            f'process {found.index} of {found.count} (by {found.source}); numbers go from 0 to {found.count - 1}: give '
            '--process_id, or FER_JAX_PROCESS_ID'
        )
    if found.count == 1:
        return None
    host, _, port = found.coordinator.rpartition(':')
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise UserError(
            f'coordinator {found.coordinator!r} of {found.count} processes (by {found.source}); expected host:port of '
            'process 0: give --coordinator, or FER_JAX_COORDINATOR'
        )
    return found


def start(here: Place | None, settings: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Finds the other processes, and JAX on all of them, before any device is touched; nothing if there are none.

    What goes wrong in `jax.distributed.initialize` aborts the process, so all of them meet before.

    Args:
      settings: `config.parallel`.
      about: what has to be the same in all processes, see `distributed.watchdog.gather`.

    Raises:
      UserError: process 0 is not found, or not all come.
    """
    global _peers, _count
    if here is None:
        return
    host, _, text = here.coordinator.rpartition(':')
    port, wait = int(text), settings['wait']
    if here.index == 0:
        lines = gather(port, here.count, about, wait)
    else:
        names = wait if 'JOB_COMPLETION_INDEX' in os.environ else RESOLVING  # a pod has a name once it is started
        name, line = join(host.strip('[]'), port, here.index, here.count, about, wait, names)
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
        local_device_ids=own_gpus(here, os.environ, _gpus()),
        cluster_detection_method='deactivate',
        heartbeat_timeout_seconds=int(3 * lost_after) + 10,  # it ends a process with an abort: we look first
    )


def own_gpus(here: Place, environment: Mapping[str, str], there: int) -> list[int] | None:
    """Which of the GPUs that it sees this process uses, counted from 0; None for all of them.

    Processes of one machine that see its GPUs use one each. Where whoever started them has shared the GPUs out, each
    sees its own alone.

    Args:
      there: GPUs of the machine, of which it sees all where nothing says otherwise; 0 where that is not known.

    Raises:
      UserError: they see the same GPUs, more than one each.
    """
    listed = environment.get('CUDA_VISIBLE_DEVICES', '')
    seen = listed.count(',') + 1 if listed else there
    of_node = _number(environment, 'SLURM_GPUS_ON_NODE', 0) or here.beside
    by_task = here.source == 'SLURM' and 'SLURM_GPUS_PER_TASK' in environment
    shared_out = by_task or (listed and (seen != of_node or seen < here.beside))
    if here.beside == 1 or shared_out:
        return None
    if seen not in (0, here.beside):
        raise UserError(
            f'{here.beside} processes on {HERE} see the same {seen} GPUs; start one process a machine, or one a GPU, '
            'or name those of each in CUDA_VISIBLE_DEVICES, as SLURM does with --gpus-per-task'
        )
    return [here.local]


def _gpus() -> int:
    """How many GPUs JAX will find by itself, by NVIDIA's device files; 0 where it looks for none."""
    plugins = [importlib.util.find_spec(f'jax_cuda{version}_plugin') for version in (12, 13)]
    if os.environ.get('JAX_PLATFORMS', 'cuda') == 'cpu' or not any(plugins):
        return 0
    return len(list(Path('/dev').glob('nvidia[0-9]*')))


def count() -> int:
    return _count


def index() -> int:
    return 0 if _peers is None else _peers.index


def first() -> bool:
    """Whether this is the process that writes and speaks."""
    return index() == 0


def tell(value: str) -> str:
    """Process 0's value, in all processes, which have to ask in the same order, in their main threads."""
    return value if _peers is None else _peers.tell(f'told {next(_told)}', value)


def meet(name: str = '') -> None:
    """Returns once all processes are here.

    Args:
      name: one that is used once; '' in main threads, in the same order in all processes.
    """
    if _peers is not None:
        _peers.meet(name or f'meeting {next(_met)}')


@contextlib.contextmanager
def first_alone() -> Iterator[None]:
    """Process 0 goes through the block before the others do: what it makes and keeps, they find."""
    if not first():
        meet()
    yield
    if first():
        meet()


def step_finished(more: bool = True) -> None:
    """A step, or a scored batch, has ended; the next is to within `stuck_after` seconds, unless no `more` come."""
    if _peers is not None:
        _peers.finished(more)


def shared_file(path: Path) -> None:
    """Raises UserError where a file that process 0 has written is not here."""
    deadline = time.monotonic() + 30  # file systems remember for a while that something is not there
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    if not path.exists():
        raise UserError(
            f'{path} is not on {HERE}, though process 0 has written it: all processes need one file system for '
            '--workdir and FER_JAX_CACHE'
        )


def leave(status: int, said: str) -> None:
    """Ends this process as soon as that harms no other; one of several processes that say the same speaks.

    Returns only where there are no others.
    """
    if _peers is None:
        return
    for number in (signal.SIGTERM, signal.SIGUSR1):  # the status is earned
        signal.signal(number, signal.SIG_IGN)
    if status == 1:  # it may be because of another process, which will be found in a moment
        time.sleep(3.0)
    told = _peers.leave(status)
    if said and not (told and status != 1):
        prefix = '' if first() else f'process {index()} on {HERE}: '
        os.write(2, f'{prefix}{said}\n'.encode())
    _peers.linger(status)
    _end(status)


def _end(status: int) -> None:
    """Without what Python and JAX do at their exit: it would wait for the other processes."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)
