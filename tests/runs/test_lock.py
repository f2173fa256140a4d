"""Two runs in one folder."""

import json
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.runs import lock
from tests.wait import wait_for

HOLDER = """
import sys, time
from pathlib import Path
from fer_jax.runs.lock import workdir_lock
with workdir_lock(Path(sys.argv[1])):
    print('held', flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that writes to `tmp_path`."""
    process = subprocess.Popen(
        [sys.executable, '-c', HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    assert process.stdout.readline() == 'held\n'
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize('end', [signal.SIGKILL, signal.SIGTERM])
def test_a_second_writer_is_refused_while_the_first_lives_and_takes_over_after(holder, tmp_path, end):
    with pytest.raises(UserError, match=rf'is being written by process {holder.pid} on .*another --workdir'):
        lock.workdir_lock(tmp_path).__enter__()
    holder.send_signal(end)
    holder.wait()
    with lock.workdir_lock(tmp_path):
        assert json.loads((tmp_path / 'writer.json').read_text())['pid'] == os.getpid()


def test_a_stopped_writer_still_holds(holder, tmp_path):
    holder.send_signal(signal.SIGSTOP)
    with pytest.raises(UserError, match='is being written by'):
        lock.workdir_lock(tmp_path).__enter__()


@pytest.mark.parametrize('ahead', [-7200, 0, 3600])
def test_a_writer_on_another_machine_is_dead_after_a_minute_of_silence(tmp_path, monkeypatch, ahead):
    """By a clock that goes on in `sleep` alone: whoever waits sees a sign of life after three seconds, then none.

    The clock of the other machine may be hours ahead or behind.
    """
    path, clock = tmp_path / 'writer.json', {'now': 0.0, 'beats at': 3.0}
    path.write_text(json.dumps({'host': 'elsewhere', 'pid': 7, 'since': 'then'}))
    written = path.stat().st_mtime + ahead
    os.utime(path, (written, written))

    def sleep(seconds):
        clock['now'] += seconds
        if clock['now'] >= clock['beats at']:
            os.utime(path, (written + clock['now'],) * 2)
            clock['beats at'] = np.inf

    own = {'monotonic': lambda: clock['now'], 'sleep': sleep}
    monkeypatch.setattr(lock, 'time', types.SimpleNamespace(**own, strftime=time.strftime))
    with pytest.raises(UserError, match='process 7 on elsewhere since then'):
        lock.workdir_lock(tmp_path).__enter__()
    assert clock['now'] == pytest.approx(3, abs=1)
    with lock.workdir_lock(tmp_path):
        assert clock['now'] == pytest.approx(3 + lock.DEAD_SECONDS, abs=2)


def test_the_holder_gives_signs_of_life_and_leaves_none_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, 'BEAT_SECONDS', 0.05)
    path = tmp_path / 'new' / 'writer.json'
    with lock.workdir_lock(path.parent):
        os.utime(path, (0, 0))
        wait_for(lambda: path.stat().st_mtime > 0)
    assert path.read_text() == ''


def test_a_damaged_file_holds_nobody_up(tmp_path):
    (tmp_path / 'writer.json').write_text('{"pid"')
    with lock.workdir_lock(tmp_path):
        pass
