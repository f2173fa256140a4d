"""Files with their digests: what is damaged is named, and what is killed is old or new."""

import json
import os
import subprocess

import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.utils import atomic_files, checked_files

REMEDY = 'make it anew'


@pytest.fixture
def folder(tmp_path):
    checked_files.write_json(tmp_path / 'a.json', {'x': [1, 2], 'y': 'happy'})
    checked_files.write_arrays(tmp_path / 'b.npz', {'logits': np.arange(6.0), 'ids': np.array(['p', 'q'])})
    (tmp_path / 'c.jsonl').write_text('{"step": 1}\n')
    checked_files.add_files(tmp_path, ['c.jsonl'])
    return tmp_path


def read(folder):
    checked_files.check_file(folder / 'c.jsonl', REMEDY)
    with checked_files.open_arrays(folder / 'b.npz', REMEDY) as file:
        arrays = {name: file[name].tolist() for name in file}
    return checked_files.read_json(folder / 'a.json', REMEDY), arrays


def test_what_is_whole_is_read_and_any_tool_verifies_it(folder):
    assert read(folder) == ({'x': [1, 2], 'y': 'happy'}, {'logits': [0, 1, 2, 3, 4, 5], 'ids': ['p', 'q']})
    done = subprocess.run(['sha256sum', '-c', '--strict', 'SHA256SUMS'], cwd=folder, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, 'a.json: OK\nb.npz: OK\nc.jsonl: OK\n')


@pytest.mark.parametrize('name', ['a.json', 'b.npz', 'c.jsonl', 'SHA256SUMS'])
def test_every_flipped_bit_and_every_cut_is_named(folder, name):
    data = (folder / name).read_bytes()
    for bit in range(0, 8 * len(data), max(1, 8 * len(data) // 97)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        for harmed in (bytes(flipped), data[: bit // 8]):
            (folder / name).write_bytes(harmed)
            with pytest.raises(UserError, match=f'{name} is damaged: '):
                read(folder)


def test_files_of_earlier_versions_are_read_as_they_are(folder):
    (folder / 'SHA256SUMS').unlink()
    (folder / 'a.json').write_text('{"x": 1}')
    assert read(folder)[0] == {'x': 1}
    checked_files.write_json(folder / 'a.json', {'x': 2})
    assert read(folder)[0] == {'x': 2} and list(checked_files.read_sums(folder)) == ['a.json']
    with pytest.raises(FileNotFoundError):
        checked_files.read_json(folder / 'absent.json', REMEDY)


def test_a_file_that_goes_loses_its_digest(folder):
    checked_files.remove_file(folder / 'a.json')
    (folder / 'a.json').write_text('{}')
    assert read(folder)[0] == {}


@pytest.mark.parametrize('call', range(6))
def test_a_kill_at_any_write_leaves_the_old_or_the_new_whole(folder, monkeypatch, call):
    calls = []

    def killed(function):
        def counted(*given, **named):
            if len(calls) == call:
                os._exit(9)
            calls.append(function)
            return function(*given, **named)

        return counted

    process = os.fork()
    if not process:
        for name in ('fsync', 'replace'):
            monkeypatch.setattr(os, name, killed(getattr(os, name)))
        monkeypatch.setattr(atomic_files.Path, 'replace', lambda path, target: os.replace(path, target))
        checked_files.write_json(folder / 'a.json', {'x': 'new'})
        os._exit(0)
    os.waitpid(process, 0)
    assert read(folder)[0]['x'] in ([1, 2], 'new')
    checked_files.write_json(folder / 'a.json', {'x': 'later'})
    assert read(folder)[0]['x'] == 'later'
    atomic_files.sweep(folder)
    assert sorted(os.listdir(folder)) == ['SHA256SUMS', 'a.json', 'b.npz', 'c.jsonl']
    assert json.loads((folder / 'a.json').read_text()) == {'x': 'later'}


def test_what_a_living_process_or_another_machine_writes_is_not_swept(tmp_path):
    with atomic_files.atomic_write(tmp_path / 'x') as scratch:
        scratch.write_text('x')
        (tmp_path / '.y.elsewhere.1.tmp').write_text('')
        atomic_files.sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ['.y.elsewhere.1.tmp', 'x']
