"""Two runs in one folder."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fer_jax.errors import UserError
from fer_jax.runs import lock

HOLDER = """
import sys, time
from pathlib import Path
from fer_jax.runs.lock import one_writer
with one_writer(Path(sys.argv[1])):
    print('held', flush=True)
    time.sleep(60)
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
        lock.one_writer(tmp_path).__enter__()
    holder.send_signal(end)
    holder.wait()
    with lock.one_writer(tmp_path):
        assert json.loads((tmp_path / 'writer.json').read_text())['pid'] == os.getpid()


def test_a_stopped_writer_still_holds(holder, tmp_path):
    holder.send_signal(signal.SIGSTOP)
    with pytest.raises(UserError, match='is being written by'):
        lock.one_writer(tmp_path).__enter__()


def test_a_writer_on_another_machine_is_dead_after_a_minute_of_silence(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, 'DEAD', 3.0)
    path = tmp_path / 'writer.json'
    path.write_text(json.dumps({'host': 'elsewhere', 'pid': 7, 'since': 'then'}))
    beat = threading.Timer(1.2, os.utime, (path,))
    beat.start()
    with pytest.raises(UserError, match='process 7 on elsewhere since then'):
        lock.one_writer(tmp_path).__enter__()
    beat.join()
    begun = time.monotonic()
    with lock.one_writer(tmp_path):
        assert 1 < time.monotonic() - begun < 10


def test_the_holder_gives_signs_of_life_and_leaves_none_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, 'BEAT', 0.05)
    path = tmp_path / 'new' / 'writer.json'
    with lock.one_writer(path.parent):
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert path.stat().st_mtime > 0
    assert path.read_text() == ''


def test_a_damaged_file_holds_nobody_up(tmp_path):
    (tmp_path / 'writer.json').write_text('{"pid"')
    with lock.one_writer(tmp_path):
        pass
