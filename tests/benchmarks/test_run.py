"""Short forms of scripts/benchmarks/run.py, and what it needs where nothing is installed that reads data sets."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.benchmarks import run

REPOSITORY = Path(__file__).parents[2]
BLOCKED = ('ml_collections', 'tensorflow_datasets', 'grain', 'clu', 'orbax', 'torch', 'matplotlib', 'tensorboardX')


@pytest.mark.slow
@pytest.mark.parametrize('part', ['frozen', 'pipeline'])
def test_a_measurement_needs_no_reader_of_data_sets(part):
    code = f"""
import sys
sys.modules.update(dict.fromkeys({BLOCKED}))
from scripts.benchmarks import run
arguments = ['{part}', '--case', 'resnet8_small@16x4', '--contender', 'fer_jax', '--seconds', '0.01', '--devices', '1']
run.main(arguments)
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found['images_per_second'] > 0 and found['first_seconds'] > 0 and found['peak_bytes'] > 0
    # 2 x multiply-adds: a stem of 3x3x1x32 on 8x8 is the least of it
    assert found['forward_flops'] > 2 * 8 * 8 * 9 * 3 * 32


def test_ratios_are_of_medians_and_above_one_where_we_are_better():
    found = {
        ('a', 'fer_jax'): [{'images_per_second': rate, 'forward_flops': 10.0} for rate in (30.0, 10.0, 20.0)],
        ('a', 'PyTorch'): [{'images_per_second': rate} for rate in (10.0, 10.0, 40.0)],
    }
    ours, theirs = run.table(found, 'images_per_second', 1200.0, 'train').splitlines()[2:]
    assert ours == '| a, fer_jax | 20 [10, 30] | 2.00 [0.50, 3.00] | 50% |  |  |'
    assert theirs.startswith('| a, PyTorch | 10 [10, 40] | 1.00 [1.00, 1.00] | 25% |')
    seconds = {('a', name): [{'seconds': value}] for name, value in (('fer_jax', 2.0), ('PyTorch', 6.0))}
    assert ' 3.00 [3.00, 3.00] ' in run.table(seconds, 'seconds', 0.0, 'startup').splitlines()[2]
