"""The batch script: what it does of each end of its tasks, and on a real SLURM cluster on this machine."""

import functools
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import REPOSITORY, Run, write_config
from tests.distributed.test_processes import bits
from tests.wait import LIMIT, wait_for

SCRIPT = 'scripts/slurm/train.sbatch'
PROGRAMS = ('slurmctld', 'slurmd', 'sbatch', 'munged', 'ip', 'unshare', 'nsenter')
PACKAGES = 'slurmctld slurmd slurm-client munge iproute2 util-linux'
RUNNING, TERM = 'echo RUNNING None', 'kill -TERM $PPID; trap "exit 75" USR1; while sleep 0.05; do :; done'


@pytest.fixture
def job(tmp_path):
    """Runs the batch script with stand-ins of SLURM's commands; (status, what it says) of it."""

    def run(srun, squeue=RUNNING, scontrol='true', **variables):
        scancel = 'kill -USR1 $(cat srun.pid)'
        (tmp_path / 'said').unlink(missing_ok=True)
        for name, does in {'srun': srun, 'squeue': squeue, 'scontrol': scontrol, 'scancel': scancel}.items():
            script = f'#!/bin/bash\ncd {tmp_path}\necho $$ >{name}.pid\necho {name} "$@" >>said\n{does}\n'
            (tmp_path / name).write_text(script)
            (tmp_path / name).chmod(0o755)
        environment = os.environ | {'SLURM_JOB_ID': '7', 'PATH': f'{tmp_path}:{os.environ["PATH"]}'} | variables
        done = subprocess.run(
            ['bash', SCRIPT, '--workdir=x'],
            cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=LIMIT,
        )  # fmt: skip
        return done.returncode, done.stdout + (tmp_path / 'said').read_text()

    return run


@pytest.mark.parametrize('status', [0, 1, 2])
def test_a_job_that_did_not_stop_by_itself_ends_with_its_status(job, status):
    ended, said = job(f'exit {status}')
    assert ended == status and '-m fer_jax.main --workdir=x' in said and 'requeue' not in said


@pytest.mark.parametrize(('srun', 'status'), [('exit 75', 75), ('exit 143', 143), (TERM, 75)])
def test_a_job_that_stopped_queues_again(job, srun, status):
    ended, said = job(srun)
    assert ended == status and 'queues again, time 0 + 1' in said and 'scontrol requeue 7\n' in said
    assert ('scancel --signal=TERM 7.0' in said) == (srun == TERM)


@pytest.mark.parametrize('status', [69, 134, 137])
def test_a_job_that_lost_a_process_queues_again_a_few_times(job, status):
    ended, said = job(f'exit {status}', SLURM_RESTART_COUNT='2')
    assert ended == status and 'queues again, time 2 + 1' in said and 'scontrol requeue 7\n' in said
    ended, said = job(f'exit {status}', SLURM_RESTART_COUNT='3')
    assert ended == status and 'not queued again after 3 times' in said and 'requeue' not in said


def test_a_job_of_an_array_queues_again_alone(job):
    said = job(TERM, SLURM_ARRAY_JOB_ID='7', SLURM_ARRAY_TASK_ID='3')[1]
    assert 'scancel --signal=TERM 7_3.0' in said and 'scontrol requeue 7_3\n' in said


@pytest.mark.parametrize(
    ('squeue', 'again'),
    [('echo COMPLETING None', False), ('echo COMPLETING TimeLimit', True), ('exit 1', True)],
)
def test_a_job_that_somebody_cancelled_stays_so(job, squeue, again):
    ended, said = job('exit 75', squeue=squeue)
    assert ended == 75 and ('requeue' in said) == again and ('cancelled, and not queued again' in said) != again


def test_a_job_that_cannot_queue_again_says_so(job):
    assert 'could not queue again; submit it once more' in job('exit 75', scontrol='exit 1')[1]
    ended, said = job('exit 75', SLURM_RESTART_COUNT='3', FER_JAX_RESTARTS='3')
    assert ended == 75 and 'not queued again after 3 times' in said and 'requeue' not in said


@pytest.fixture(scope='module')
def slurm(tmp_path_factory):
    """Runs a command in a cluster of two nodes of two CPUs; returns what it says."""
    search = f'{os.environ["PATH"]}:/usr/sbin:/sbin'
    if missing := [name for name in PROGRAMS if not shutil.which(name, path=search)]:
        pytest.skip(f'NO SLURM TEST: without {", ".join(missing)}; apt-get install -y {PACKAGES}')
    if os.geteuid():
        pytest.skip('NO SLURM TEST: namespaces of its own need root')
    folder = str(tmp_path_factory.mktemp('slurm'))

    def cluster(action, *arguments, **kinds):
        command = ['bash', 'tests/slurm_cluster.sh', action, folder, *arguments]
        return subprocess.run(command, env=os.environ | {'PATH': search}, cwd=REPOSITORY, timeout=LIMIT, **kinds)

    # not by pipes: what it leaves running would keep them open
    if cluster('start', '2', '2', stdout=subprocess.DEVNULL).returncode:
        cluster('stop')
        pytest.skip('NO SLURM TEST: the cluster does not start here')

    def run(*command, check=True):
        done = cluster('in', 'timeout', '300', *command, capture_output=True, text=True)
        assert not check or done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    yield run
    run('scancel', '--full', '--signal=KILL', '--user=root', check=False)
    cluster('stop')


def submitted(slurm, config, workdir, log, *flags, pace, **variables):
    """The number of a job on both nodes."""
    variables |= {
        'FER_JAX_PYTHON': sys.executable,
        'FER_JAX_CONTAINER': 'env FER_JAX_IN_A_CONTAINER=1',
        'FER_JAX_CACHE': str(config.parent / 'cache'),
        'JAX_PLATFORMS': 'cpu',
        'PACE': str(pace),
        'PYTHONPATH': str(REPOSITORY),
    }
    said = slurm(
        'env', *(f'{name}={value}' for name, value in variables.items()),
        'sbatch', '--nodes=2', '--time=20', '--signal=TERM@60', f'--output={log}', SCRIPT,
        f'--config={config}', f'--workdir={workdir}', *flags,
    )  # fmt: skip
    return re.search(r'\d+', said)[0]


def wait_with(log, condition):
    return wait_for(condition, lambda: log.read_text() if log.exists() else 'no log')


def reached(workdir, step):
    metrics = workdir / 'metrics.jsonl'
    return lambda: metrics.exists() and f'"step": {step},' in metrics.read_text()


def pid_of(job, task):
    """Of the Python that is this task of the job."""
    wanted = {f'SLURM_JOB_ID={job}', f'SLURM_PROCID={task}', 'FER_JAX_IN_A_CONTAINER=1'}
    for process in Path('/proc').glob('[0-9]*'):
        try:
            if wanted <= set((process / 'environ').read_text(errors='replace').split('\0')):
                return int(process.name)
        except OSError:  # it has ended
            continue
    raise AssertionError(f'no task {task} of job {job}')


def finished(slurm, job):
    """What is said of a job that is over; '' while it is not."""
    said = slurm('scontrol', '--oneliner', 'show', 'job', job)
    return said if re.search('JobState=(COMPLETED|FAILED|CANCELLED|TIMEOUT) ', said) else ''


def test_a_job_that_is_cancelled_is_over_and_one_that_is_told_to_stop_is_not(slurm, tmp_path):
    """By tasks that save nothing and say so."""
    stand_in, logs = tmp_path / 'python', [tmp_path / 'told', tmp_path / 'cancelled']
    stand_in.write_text('#!/bin/bash\ntrap "exit 75" TERM\necho begun\nwhile :; do sleep 0.1; done\n')
    stand_in.chmod(0o755)
    jobs = []
    for log in logs:
        said = slurm('env', f'FER_JAX_PYTHON={stand_in}', 'sbatch', '--nodes=2', f'--output={log}', SCRIPT)
        jobs.append(re.search(r'\d+', said)[0])
    for log in logs:
        wait_with(log, lambda log=log: log.exists() and log.read_text().count('begun') == 2)
    slurm('scancel', '--batch', '--signal=TERM', jobs[0])
    slurm('scancel', jobs[1])
    assert 'JobState=CANCELLED' in wait_with(logs[1], lambda: finished(slurm, jobs[1]))
    wait_with(logs[1], lambda: 'cancelled, and not queued again' in logs[1].read_text())
    wait_with(logs[0], lambda: 'Restarts=1' in slurm('scontrol', '--oneliner', 'show', 'job', jobs[0]))
    slurm('scancel', jobs[0])
    assert 'queues again, time 0 + 1' in logs[0].read_text()
    assert 'Restarts=0' in finished(slurm, jobs[1]) and 'queues again' not in logs[1].read_text()


@pytest.mark.parametrize('how', [signal.SIGSTOP, pytest.param(signal.SIGKILL, marks=pytest.mark.campaign)])
def test_a_task_that_is_killed_or_frozen_ends_the_job(slurm, tmp_path, how):
    """With a message of who it was; without restarts left it is not queued again."""
    config, log = write_config(tmp_path / 'config'), tmp_path / 'log'
    lost, wait = 15, 10
    flags = ('--config.phases[0].epochs=1000', f'--config.parallel.lost_after={lost}')
    variables = {'SLURM_WAIT': str(wait), 'FER_JAX_LOST_RESTARTS': '0'}
    job = submitted(slurm, config, tmp_path / 'run', log, *flags, pace=0.2, **variables)
    wait_with(log, reached(tmp_path / 'run', 2))
    os.kill(pid_of(job, 1), how)
    wait_with(log, lambda: 'ends: process 1 on' in log.read_text())
    state = wait_with(log, functools.partial(finished, slurm, job))
    assert 'JobState=FAILED' in state and 'Restarts=0' in state and 'ExitCode=0:0' not in state
    text = log.read_text()
    assert 'the same command goes on' in text and 'queues again' not in text and 'Traceback' not in text, text


@pytest.mark.campaign
def test_a_job_that_is_preempted_twice_ends_in_the_bits_of_one_that_is_not(slurm, tmp_path):
    """First by a signal to its script, then by its time limit."""
    config, workdir, log = write_config(tmp_path / 'config'), tmp_path / 'run', tmp_path / 'log'
    with Run(config, tmp_path / 'whole') as run:
        assert [status for status, _, _ in run.ends()] == [0, 0]
    job = submitted(slurm, config, workdir, log, pace=6)

    def said(text, times):
        return lambda: log.exists() and log.read_text().count(text) >= times

    def state():
        return slurm('scontrol', '--oneliner', 'show', 'job', job)

    wait_with(log, reached(workdir, 2))
    slurm('scancel', '--batch', '--signal=TERM', job)
    wait_with(log, said('queues again', 1))
    wait_with(log, said('resuming at step', 1))
    elapsed = re.search(r'RunTime=\d+:(\d+):\d+', state())[1]
    slurm('scontrol', 'update', f'JobId={job}', f'TimeLimit={int(elapsed) + 2}')
    wait_with(log, said('queues again', 2))
    wait_with(log, lambda: 'JobState=PENDING' in state() or 'Restarts=2' in state())
    slurm('scontrol', 'update', f'JobId={job}', 'TimeLimit=60')
    wait_with(log, lambda: 'JobState=COMPLETED' in state())
    text = log.read_text()
    assert text.count('stopped by SIGTERM after step') == 2 and text.count('resuming at step') == 2, text
    assert 'in 2 processes' in text and 'Traceback' not in text
    assert bits(workdir) == bits(tmp_path / 'whole')
