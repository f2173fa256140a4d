"""Processes that look for each other, and one of them dies or freezes; without JAX."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from fer_jax.distributed import processes, rendezvous
from fer_jax.distributed.launch import Place, first_host, own_gpus, place, tasks_of_nodes
from fer_jax.errors import UserError
from tests.cluster import REPOSITORY, environment, free_port
from tests.wait import LIMIT


def test_a_place_is_found_in_what_starts_processes():
    slurm = {'SLURM_JOB_ID': '7', 'SLURM_STEP_NUM_TASKS': '4', 'SLURM_STEP_NUM_NODES': '2', 'SLURM_PROCID': '3'}
    slurm |= {'SLURM_STEP_NODELIST': 'gpu[003-007,9]-ib,cpu1', 'SLURM_LOCALID': '1'}
    assert place(slurm) == Place('gpu003-ib:61007', 4, 3, 1, 2, 'SLURM')
    uneven = {'SLURM_STEP_TASKS_PER_NODE': '3(x2),1', 'SLURM_NODEID': '2'}
    assert place(slurm | uneven).beside == 1 and tasks_of_nodes('3(x2),1') == [3, 3, 1]
    mpi = {'OMPI_COMM_WORLD_SIZE': '2', 'OMPI_COMM_WORLD_LOCAL_SIZE': '2', 'OMPI_COMM_WORLD_RANK': '1'}
    found = place(mpi | {'OMPI_COMM_WORLD_LOCAL_RANK': '1'})
    assert (found.count, found.index, found.local, found.beside) == (2, 1, 1, 2)
    assert found.coordinator.startswith('localhost:')
    job = {'FER_JAX_COORDINATOR': 'a-0.a:62000', 'FER_JAX_NUM_PROCESSES': '3', 'JOB_COMPLETION_INDEX': '2'}
    assert (place(job).coordinator, place(job).count, place(job).index) == ('a-0.a:62000', 3, 2)
    assert place(job | slurm, 'here:1', 5, 4).count == 5  # flags come first
    in_a_script = {'SLURM_JOB_ID': '7', 'SLURM_NTASKS': '4', 'SLURM_PROCID': '0'}
    for alone in ({}, in_a_script, slurm | {'SLURM_STEP_NUM_TASKS': '1'}):
        assert place(alone) is None


EIGHT = '0,1,2,3,4,5,6,7'


@pytest.mark.parametrize(
    ('beside', 'variables', 'there', 'own'),
    [
        (1, {'CUDA_VISIBLE_DEVICES': EIGHT}, 8, None),
        (8, {'CUDA_VISIBLE_DEVICES': EIGHT, 'SLURM_GPUS_ON_NODE': '8'}, 8, [1]),
        (8, {'CUDA_VISIBLE_DEVICES': '1'}, 8, None),  # one of its own
        (2, {'CUDA_VISIBLE_DEVICES': '4,5,6,7', 'SLURM_GPUS_ON_NODE': '8', 'SLURM_GPUS_PER_TASK': '4'}, 8, None),
        (2, {'CUDA_VISIBLE_DEVICES': '4,5,6,7'}, 8, None),
        (2, {'CUDA_VISIBLE_DEVICES': '0,1', 'SLURM_GPUS_ON_NODE': '4'}, 4, None),  # two of its own
        (4, {'CUDA_VISIBLE_DEVICES': '0,1', 'SLURM_GPUS_PER_TASK': '2'}, 8, None),
        (8, {}, 8, [1]),
        (2, {}, 0, [1]),
        (2, {'CUDA_VISIBLE_DEVICES': EIGHT, 'SLURM_GPUS_ON_NODE': '8'}, 8, '2 processes on .* see the same 8 GPUs'),
        (2, {}, 8, '2 processes on .* see the same 8 GPUs; start one process a machine, or one a GPU'),
    ],
)
def test_processes_of_one_machine_share_its_gpus(beside, variables, there, own):
    here = Place('n1:1', 16, 1, 1, beside, 'SLURM')
    if isinstance(own, str):
        with pytest.raises(UserError, match=own):
            own_gpus(here, variables, there)
    else:
        assert own_gpus(here, variables, there) == own


@pytest.mark.parametrize(
    ('nodes', 'first'), [('n1', 'n1'), ('n1,n2', 'n1'), ('n[1-2]', 'n1'), ('rack1-n[07,09]', 'rack1-n07')]
)
def test_the_first_host_of_a_list(nodes, first):
    assert first_host(nodes) == first


@pytest.mark.parametrize(
    ('variables', 'flags', 'message'),
    [
        ({}, ('host:1', 0, -1), 'without --num_processes'),
        ({}, ('', 2, 0), "coordinator '' of 2 processes .* expected host:port"),
        ({}, ('host', 2, 0), "coordinator 'host' of 2"),
        ({}, ('host:99999', 2, 0), "coordinator 'host:99999'"),
        ({}, ('host:1', 2, 2), 'process 2 of 2'),
        ({}, ('host:1', 2, -1), 'process -1 of 2'),
        ({'FER_JAX_NUM_PROCESSES': 'two'}, (), "FER_JAX_NUM_PROCESSES='two' is no whole number"),
        ({'OMPI_COMM_WORLD_SIZE': '4', 'OMPI_COMM_WORLD_RANK': '0'}, (), 'give --coordinator'),
    ],
)
def test_a_wrong_place_is_one_message(variables, flags, message):
    with pytest.raises(UserError, match=message):
        place(variables, *flags)


def meet(count, others, about=None, wait=LIMIT):
    """What process 0 finds, or the error of it and of each of the `others`, {index: (count, about)}."""
    port, found = free_port(), {}

    def run(index, how):
        try:
            found[index] = how()
        except UserError as error:
            found[index] = str(error)

    def joining(index, count, about):
        return lambda: rendezvous.join_processes('localhost', port, index, count, about, wait)

    threads = [
        threading.Thread(target=run, args=(0, lambda: rendezvous.await_processes(port, count, about or {}, wait)))
    ]
    threads += [threading.Thread(target=run, args=(at, joining(at % 10, *one))) for at, one in others.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_all_processes_meet():
    found = meet(3, {1: (3, {}), 2: (3, {})})
    assert set(found[0]) == {1, 2} and found[1][0] == found[2][0] == socket.gethostname()


@pytest.mark.parametrize(
    ('others', 'message'),
    [
        ({}, r'process 1, 2 of 3 did not come to .* in 5 s'),
        ({1: (3, {})}, r'process 2 of 3 did not come'),
        ({1: (2, {})}, r'process 1 on .* says that there are 2 processes, process 0 on .* says 3'),
        ({1: (3, {}), 11: (3, {})}, r'process 1 on .* is there twice'),
        ({1: (3, {'config': 'b'})}, r'process 1 on .* has another config, b, than process 0 on .*, a; start all'),
    ],
)
def test_processes_that_do_not_fit_are_told(others, message):
    about = {'config': 'a'} if 'another config' in message else {}
    found = meet(3, others, about, wait=5.0 if 'did not come' in message else LIMIT)
    assert isinstance(found[0], str) and re.search(message, found[0])
    assert all(isinstance(found[at], str) for at in others)  # nobody is left waiting


def test_a_coordinator_that_is_not_there_is_one_message():
    with pytest.raises(UserError, match=r'process 0 does not answer at localhost:\d+ \(Connection refused\)'):
        rendezvous.join_processes('localhost', free_port(), 1, 2, {}, 0.5)
    with pytest.raises(UserError, match=r'does not answer at nowhere.invalid:1 \(.*\)'):
        rendezvous.join_processes('nowhere.invalid', 1, 1, 2, {}, 0.5)
    with socket.socket() as taken:
        taken.bind(('', 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f'port {port} of .* is taken; give another'):
            rendezvous.await_processes(port, 2, {}, 0.5)
        threading.Thread(target=lambda: taken.accept()[0].sendall(b'SSH-2.0-OpenSSH_9.2\r\n')).start()
        with pytest.raises(UserError, match='is no process 0 of fer_jax'):
            rendezvous.join_processes('localhost', port, 1, 2, {}, LIMIT)


def test_names_of_pods_are_waited_for(monkeypatch):
    """They are known once the pod of process 0 is started, which may be when its image is there."""
    waited = []
    monkeypatch.setattr(processes, 'join_processes', lambda *arguments: waited.append(arguments[-1]) or 1 / 0)
    for variables in ({}, {'JOB_COMPLETION_INDEX': '1'}):
        monkeypatch.setattr(processes.os, 'environ', variables)
        with pytest.raises(ZeroDivisionError):
            processes.start(Place('a-0.a:62000', 2, 1, 0, 1, ''), {'wait': 300.0}, {})
    assert waited == [rendezvous.RESOLVING_SECONDS, 300.0]
    with pytest.raises(UserError, match='does not answer at nowhere.invalid:1'):
        rendezvous.join_processes('nowhere.invalid', 1, 1, 2, {}, 60, resolving=0.1)


MEMBER = """
import os, sys, time
from fer_jax.distributed import rendezvous, watchdog
index, port, stuck = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
if index == 0:
    lines = rendezvous.await_processes(port, 3, {}, 600)
else:
    lines = {0: rendezvous.join_processes('localhost', port, index, 3, {}, 600)}
others = watchdog.Peers(index, lines, lost_after=4.0, stuck_after=stuck, end=os._exit)
others.barrier('start')
assert others.broadcast_from_main('word', f'of {index}') == 'of 0'
print('there', flush=True)
sys.stdin.readline()
others.finished()
if sys.argv[4] == str(index):
    others.leave(int(sys.argv[5]))
    others.linger(int(sys.argv[5]))
    os._exit(int(sys.argv[5]))
sys.stdin.readline()
for number in range(8):  # seconds: twice the time after which another process is lost
    time.sleep(1)
    others.barrier(f'again {number}')
print('still there', flush=True)
sys.stdin.readline()
"""


def go_on(processes):
    for process in processes:
        process.stdin.write('\n')
        process.stdin.flush()


@pytest.fixture
def three():
    """Three processes, started by a call."""
    made = []

    def start(stuck=600.0, leaves='', status=0):
        port = free_port()
        for index in range(3):
            arguments = [sys.executable, '-c', MEMBER, *map(str, (index, port, stuck, leaves, status))]
            made.append(
                subprocess.Popen(
                    arguments, cwd=REPOSITORY, env=environment(),
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                )
            )  # fmt: skip
        for process in made:
            assert process.stdout.readline() == 'there\n', process.communicate()
        go_on(made)
        return made

    yield start
    for process in made:
        process.kill()
        process.communicate()


@pytest.mark.parametrize('which', [0, 2])
@pytest.mark.parametrize(
    ('how', 'said'),
    [(signal.SIGKILL, 'has ended without a word'), (signal.SIGSTOP, r'has given no sign of life for (\d+) s')],
)
def test_a_process_that_dies_or_freezes_ends_all(three, which, how, said):
    made = three()
    os.kill(made[which].pid, how)
    for index, process in enumerate(made):
        if index != which:
            process.wait(LIMIT)
            error = process.stderr.read()
            assert process.returncode == 69
            found = re.search(rf'process {index} on .* ends: process {which} on \S+ {said}', error)
            assert found and (how == signal.SIGKILL or int(found[1]) >= 4), error


def test_a_job_that_was_suspended_as_a_whole_goes_on(three):
    """For longer than a process may be silent; they still meet for longer than that afterwards."""
    made = three()
    for number, seconds in ((signal.SIGSTOP, 6), (signal.SIGCONT, 0)):
        for process in made:
            os.kill(process.pid, number)
        time.sleep(seconds)
    go_on(made)
    assert [process.stdout.readline() for process in made] == ['still there\n'] * 3, [p.communicate() for p in made]


def test_a_step_that_does_not_end_ends_all(three):
    for process in three(stuck=0.5):
        process.wait(LIMIT)
        said = process.stderr.read()
        assert 'has finished no step, or no checkpoint, for' in said and process.returncode == 69


@pytest.mark.parametrize(('status', 'seen'), [(75, ''), (3, 'process 1 has ended with status 3')])
def test_a_process_that_leaves_in_error_takes_the_others_along(three, status, seen):
    for index, process in enumerate(three(leaves='1', status=status)):
        process.wait(LIMIT)
        error = process.stderr.read()
        assert process.returncode == status
        assert seen in error if index != 1 else not error


def test_a_mistake_in_a_jobset_is_not_tried_again():
    yaml = pytest.importorskip('yaml')
    spec = yaml.safe_load((REPOSITORY / 'scripts' / 'kubernetes' / 'jobset.yaml').read_text())['spec']
    (rule,) = spec['failurePolicy']['rules']
    assert rule == {'action': 'FailJobSet', 'onJobFailureReasons': ['PodFailurePolicy']}
    job = spec['replicatedJobs'][0]['template']['spec']
    (rule,) = job['podFailurePolicy']['rules']
    assert rule['action'] == 'FailJob' and rule['onExitCodes']['values'] == [2]
    assert rule['onExitCodes']['containerName'] == job['template']['spec']['containers'][0]['name']
