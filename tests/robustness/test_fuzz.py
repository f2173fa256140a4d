"""A short form of scripts/robustness/fuzz.py, and that it finds what it looks for. In own processes: it forks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PLANTED = """
import os, sys, time
from scripts.robustness import fuzz
from scripts.robustness.mutations import Target

def read(data, folder):
    if data == b'valid':
        return
    kind = data[-1] % 5
    if kind == 0: raise KeyError('lost')
    if kind == 1: time.sleep(600)
    if kind == 2: os.abort()
    if kind == 3: b'x' * (300 << 20)
    if kind == 4: raise fuzz.UserError('no')

numbers = lambda random, data: b'changed' + bytes([int(random.integers(5))])
fuzz.TARGETS['planted'] = Target(lambda: [b'valid'], read, numbers)
fuzz.mutate = lambda random, valid, rebuild: rebuild(random, valid[0])
# every kind, and once the one that waits
drawn = ['--count=10', '--seed=7']
sys.exit(fuzz.main(['--only=planted', *drawn, '--seconds=9', '--megabytes=200', '--output=' + sys.argv[1]]))
"""


def run(*command):
    environment = os.environ | {'PYTHONPATH': str(REPOSITORY)}
    return subprocess.run(
        [sys.executable, *command], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_what_is_planted_is_found(tmp_path):
    done = run('-c', PLANTED, str(tmp_path / 'found.jsonl'))
    assert done.returncode == 1, done.stderr
    report, *findings = map(json.loads, (tmp_path / 'found.jsonl').read_text().splitlines())
    assert report['inputs'] == 10 and report['findings'] == len(findings) and report['refused'] > 1
    kinds = {finding['what'].split('(')[0].strip() for finding in findings}
    assert {"KeyError: 'lost'", 'more than 9 s', 'the process ends with -6'} <= kinds
    assert any(kind.endswith(' MB') for kind in kinds)


@pytest.mark.slow
def test_readers_refuse_or_read_whatever_they_are_given(tmp_path):
    done = run(
        'scripts/robustness/fuzz.py', '--count=40', '--seed=1', '--seconds=200', f'--output={tmp_path}/found.jsonl'
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '| all |' in done.stdout


def test_input_is_changed_the_same_way_in_every_run():
    code = 'import numpy as np\nfrom scripts.robustness.mutations import mutate\n'
    code += 'from scripts.robustness.targets import TARGETS\n'
    code += 'import hashlib\nfor name in TARGETS:\n    target = TARGETS[name]\n'
    code += '    valid = target.valid()\n    for n in range(30):\n'
    code += '        print(hashlib.sha256(mutate(np.random.default_rng([0, n]), valid, target.rebuild)).hexdigest())\n'
    first, second = (run('-c', code) for _ in range(2))
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout and len(set(first.stdout.split())) > 200
