"""Which of how many processes this is, by flags, SLURM, Open MPI or Kubernetes, and which GPUs it uses."""

import importlib.util
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fer_jax.distributed.rendezvous import HERE
from fer_jax.errors import UserError


@dataclass(frozen=True)
class Place:
    """The place of this process among those of a run.

    Attributes:
      coordinator: 'host:port' of process 0.
      count: number of processes.
      index: number of this process, from 0.
      local: number of this process among those of its machine, from 0.
      beside: number of processes on its machine, itself included.
      source: the flags or variables that gave the place.
    """

    coordinator: str
    count: int
    index: int
    local: int
    beside: int
    source: str


def place(environment: Mapping[str, str], coordinator: str = '', count: int = 0, index: int = -1) -> Place | None:
    """Reads from flags, or else from the environment, which process this is; returns None where it is the only one.

    In this order: `--coordinator`, `--num_processes`, `--process_id`; FER_JAX_COORDINATOR, FER_JAX_NUM_PROCESSES,
    FER_JAX_PROCESS_ID or the JOB_COMPLETION_INDEX of an indexed Kubernetes job; Open MPI's OMPI_*; the SLURM_* of a
    step that srun starts.

    Args:
      environment: variables by name.
      coordinator, count, index: values of the flags; '', 0 and -1 where not given.

    Raises:
      UserError: the values contradict each other.
    """
    coordinator = coordinator or environment.get('FER_JAX_COORDINATOR', '')
    count = count or _number(environment, 'FER_JAX_NUM_PROCESSES', 0)
    if count:
        if index < 0:
            by_job = _number(environment, 'JOB_COMPLETION_INDEX', -1)
            index = _number(environment, 'FER_JAX_PROCESS_ID', by_job)
        given = Place(coordinator, count, index, 0, 1, '--num_processes or FER_JAX_NUM_PROCESSES')
    elif _number(environment, 'OMPI_COMM_WORLD_SIZE', 1) > 1:
        given = _of_open_mpi(environment, coordinator)
    elif _number(environment, 'SLURM_STEP_NUM_TASKS', 1) > 1:
        given = _of_slurm(environment, coordinator)
    elif coordinator or index >= 0:
        raise UserError('--coordinator and --process_id say nothing without --num_processes; give it, or neither')
    else:
        return None
    return _checked(given)


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
    """Expands SLURM's number of tasks on each node: '4(x2),3' -> [4, 4, 3]."""
    runs = re.findall(r'(\d+)(?:\(x(\d+)\))?', tasks)
    return [int(count) for count, times in runs for _ in range(int(times or 1))]


def first_host(nodes: str) -> str:
    """Returns the first host of a SLURM node list: 'gpu[003-007,9]-ib,cpu1' -> 'gpu003-ib'."""
    match = re.match(r'([^,\[]*)(?:\[(\w+)[^\]]*\])?([^,\[]*)', nodes)
    return ''.join(part or '' for part in match.groups()) if match else nodes


def _port(job: int) -> int:
    """One for each job, out of the way of what systems hand out by themselves."""
    return 61000 + job % 4000


def _number(environment: Mapping[str, str], name: str, otherwise: int) -> int:
    text = environment.get(name, '').strip()
    if text and not text.isdecimal():
        raise UserError(f'{name}={text!r} is no whole number, 0 or more')
    return int(text) if text else otherwise


def _checked(given: Place) -> Place | None:
    if not 0 <= given.index < given.count:
        raise UserError(
            f'process {given.index} of {given.count} (by {given.source}); numbers go from 0 to {given.count - 1}: give '
            '--process_id, or FER_JAX_PROCESS_ID'
        )
    if given.count == 1:
        return None
    host, _, port = given.coordinator.rpartition(':')
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise UserError(
            f'coordinator {given.coordinator!r} of {given.count} processes (by {given.source}); expected host:port of '
            'process 0: give --coordinator, or FER_JAX_COORDINATOR'
        )
    return given


def own_gpus(here: Place, environment: Mapping[str, str], there: int) -> list[int] | None:
    """Returns which of the GPUs that it sees this process uses, counted from 0; None for all of them.

    Processes of one machine that see the same GPUs use one each. Where the launcher gave each process its own GPUs, a
    process uses all that it sees.

    Args:
      there: number of GPUs of the machine; the process sees all unless a variable restricts it. 0 where unknown.

    Raises:
      UserError: the processes of a machine see the same GPUs, and their number is not that of the processes.
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


def gpus() -> int:
    """Counts the GPUs that JAX will find, by NVIDIA's device files; 0 where JAX looks for none."""
    plugins = [importlib.util.find_spec(f'jax_cuda{version}_plugin') for version in (12, 13)]
    if os.environ.get('JAX_PLATFORMS', 'cuda') == 'cpu' or not any(plugins):
        return 0
    return len(list(Path('/dev').glob('nvidia[0-9]*')))
