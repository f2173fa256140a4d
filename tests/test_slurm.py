"""A real SLURM cluster on this machine: a job that is preempted twice, and queues again by itself."""

import os
import re
import shutil
import subprocess
import sys
import time

import pytest

from tests.cluster import REPOSITORY, Run, write_config
from tests.test_processes import bits

PROGRAMS = ('slurmctld', 'slurmd', 'sbatch', 'munged', 'ip', 'unshare', 'nsenter')
PACKAGES = 'slurmctld slurmd slurm-client munge iproute2 util-linux'


@pytest.fixture(scope='module')
def slurm(shared_data, tmp_path_factory):
    """Runs a command of SLURM in a cluster of two nodes of two CPUs; returns what it says."""
    cluster = shared_data.parent / 'slurm' / 'cluster.sh'
    search = f'{os.environ["PATH"]}:/usr/sbin:/sbin'
    if not cluster.is_file():
        pytest.skip(f'NO SLURM TEST: no {cluster}')
    if missing := [name for name in PROGRAMS if not shutil.which(name, path=search)]:
        pytest.skip(f'NO SLURM TEST: without {", ".join(missing)}; apt-get install -y {PACKAGES}')
    if os.geteuid():
        pytest.skip('NO SLURM TEST: namespaces of its own need root')
    environment = os.environ | {'SLURM_DIR': str(tmp_path_factory.mktemp('slurm')), 'PATH': search}

    def run(*command, check=True):
        whole = ['bash', str(cluster), *command]
        done = subprocess.run(whole, env=environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
        assert not check or done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    up = ['bash', str(cluster), 'up', '2', '2']
    started = subprocess.run(up, env=environment, stdout=subprocess.DEVNULL, timeout=60)
    if started.returncode:
        pytest.skip('NO SLURM TEST: the cluster does not start here')
    yield lambda *command, check=True: run('run', 'timeout', '20', *command, check=check)
    run('run', 'timeout', '20', 'scancel', '--full', '--signal=KILL', '--user=root', check=False)
    run('down', check=False)


def wait_for(true, seconds, log):
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, log.read_text() if log.exists() else 'no log'
        time.sleep(0.3)
    return found


@pytest.mark.slow
def test_a_job_that_is_preempted_twice_ends_in_the_bits_of_one_that_is_not(slurm, tmp_path):
    """First by a signal to its script, then by its time limit."""
    config, workdir, log = write_config(tmp_path / 'config'), tmp_path / 'run', tmp_path / 'log'
    with Run(config, tmp_path / 'whole') as run:
        assert [status for status, _, _ in run.ends()] == [0, 0]
    variables = {
        'FER_JAX_PYTHON': sys.executable,
        'FER_JAX_CONTAINER': 'env FER_JAX_IN_A_CONTAINER=1',
        'FER_JAX_CACHE': str(config.parent / 'cache'),
        'JAX_PLATFORMS': 'cpu',
        'PACE': '6',
        'PYTHONPATH': str(REPOSITORY),
    }
    submitted = slurm(
        'env', *(f'{name}={value}' for name, value in variables.items()),
        'sbatch', '--nodes=2', '--time=20', '--signal=TERM@60', f'--output={log}', 'scripts/slurm/train.sbatch',
        f'--config={config}', f'--workdir={workdir}',
    )  # fmt: skip
    job = re.search(r'\d+', submitted)[0]

    def said(text, times):
        return lambda: log.exists() and log.read_text().count(text) >= times

    def state():
        return slurm('scontrol', '--oneliner', 'show', 'job', job)

    metrics = workdir / 'metrics.jsonl'
    wait_for(lambda: metrics.exists() and '"step": 2,' in metrics.read_text(), 600, log)
    slurm('scancel', '--batch', '--signal=TERM', job)
    wait_for(said('queues again', 1), 120, log)
    wait_for(said('resuming at step', 1), 600, log)
    elapsed = re.search(r'RunTime=\d+:(\d+):\d+', state())[1]
    slurm('scontrol', 'update', f'JobId={job}', f'TimeLimit={int(elapsed) + 2}')
    wait_for(said('queues again', 2), 300, log)
    wait_for(lambda: 'JobState=PENDING' in state() or 'Restarts=2' in state(), 60, log)
    slurm('scontrol', 'update', f'JobId={job}', 'TimeLimit=60')
    wait_for(lambda: 'JobState=COMPLETED' in state(), 900, log)
    text = log.read_text()
    assert text.count('stopped by SIGTERM after step') == 2 and text.count('resuming at step') == 2, text
    assert 'in 2 processes' in text and 'Traceback' not in text
    assert bits(workdir) == bits(tmp_path / 'whole')
