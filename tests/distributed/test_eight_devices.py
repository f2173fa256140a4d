"""Twenty steps on eight devices against one."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from configs import default
from tests.small_run import config_of

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.campaign
def test_eight_devices_train_as_one(shared_data, tmp_path):
    """Twenty fp32 steps of the last stage and the head, in two processes: JAX fixes its devices when it starts.

    The stem stays frozen: the gradient of a fresh stem is a sum that nearly cancels, and twenty steps blow its rounding
    up to 1e-3 on any two ways of adding. Running statistics are sums of 2,304 products of the parameters, and are held
    to a wider bound, of their own size.
    """
    script = """
import json, sys, jax, numpy as np
from fer_jax.training import setup
from fer_jax.training.phase_program import PhaseProgram
config = json.load(open(sys.argv[1])); config['parallel']['devices'] = int(sys.argv[2])
run = setup.prepare(config)
assert run.mesh.size == int(sys.argv[2])
program = PhaseProgram(run, run.phases[0])
state, fixed = program.init_state(0, run.initial())
step, losses = program.step_function(), []
for index in range(20):
    state = step(state, fixed, run.loader.device_data, run.loader.host_batches([index]), 1)
    losses.append(float(state.sums['primary/loss']))
leaves = {path: np.asarray(leaf) for path, leaf in (state.trainable | state.batch_stats).items()}
np.savez(sys.argv[3], losses=np.array(losses), **leaves)
"""
    config = config_of(shared_data / 'ck48')
    config.model.image_size = 64
    config.data.batch_size = 32
    rates = default.train_from('layer3', 'head')
    config.phases = (default.phase(epochs=20, rates=rates, optimizer='sgd', learning_rate=1e-4),)
    (tmp_path / 'config.json').write_text(config.to_json())
    for devices in (1, 8):
        arguments = [
            sys.executable,
            '-c',
            script,
            str(tmp_path / 'config.json'),
            str(devices),
            str(tmp_path / f'{devices}.npz'),
        ]
        subprocess.run(arguments, check=True, cwd=REPOSITORY, env=os.environ | {'JAX_PLATFORMS': 'cpu'})
    with np.load(tmp_path / '1.npz') as one, np.load(tmp_path / '8.npz') as eight:
        for name in one.files:
            statistic = name.endswith(('.mean', '.var'))
            bound = 1e-4 * np.abs(one[name]).max() if statistic else 1e-5
            np.testing.assert_allclose(eight[name], one[name], atol=bound, rtol=1e-5, err_msg=name)
