"""The measurement of checkpoints, on a network that takes no time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fer_jax.data.tasks import PRIMARY
from fer_jax.models.network import ModelSpec, build

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.slow
def test_both_parts_measure_a_save(tmp_path):
    command = [sys.executable, 'scripts/benchmarks/checkpoints.py', '--model=resnet8_small', '--image_size=16']
    command += ['--rounds=1', '--steps=3', f'--out={tmp_path}/out.jsonl']
    environment = os.environ | {'PYTHONPATH': str(REPOSITORY), 'FER_JAX_CACHE': str(tmp_path / 'cache')}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    steps, signalled = map(json.loads, (tmp_path / 'out.jsonl').read_text().splitlines())
    network = build(ModelSpec('resnet8_small', {PRIMARY: ('happy', 'sad')}, 16))
    floats = sum(leaf.size for tree in (network.params, network.params, network.params) for leaf in tree.values())
    assert 1e6 * steps['megabytes'] == pytest.approx(4 * floats, rel=0.25)  # parameters and two moments
    assert 0 < steps['blocked_seconds'] <= steps['sealed_seconds'] and steps['step_seconds'] > 0
    assert 0 < signalled['saved_seconds'] <= signalled['ended_seconds']
