"""Runs as a source of weights for other runs."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import fer_jax
from configs import default
from fer_jax.errors import UserError
from fer_jax.exporters import export_run
from fer_jax.runs import restore
from fer_jax.training import setup
from tests.small_run import config_of, restored

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_run_is_a_source_of_weights(finished, faces, tmp_path):
    workdir, _ = finished
    config = config_of(faces)
    config.model.weights = str(workdir)
    config.phases = (default.phase(epochs=1, rates=default.HEAD_ONLY),)
    fer_jax.train(config, tmp_path)
    ours, source = restored(tmp_path)['params'], restored(workdir, best=True)['params']
    assert np.array_equal(ours['layer3.0.conv1.kernel'], source['layer3.0.conv1.kernel'])
    assert not np.array_equal(ours['head.primary.kernel'], source['head.primary.kernel'])
    config.model.name = 'resnet50'
    with pytest.raises(UserError, match="is a run of resnet8_small, model.name is 'resnet50'"):
        fer_jax.train(config, tmp_path / 'other')


def test_a_run_on_two_devices_is_a_source_on_one(finished, tmp_path):
    workdir, _ = finished
    script = """
import sys, jax, optax
from pathlib import Path
from fer_jax.distributed import sharding; from fer_jax.runs import restore; from fer_jax.training import train_state
from fer_jax.runs.checkpoints import Checkpoints
from fer_jax.runs.model_file import read_spec
from fer_jax.training.train_state import FrozenState
source, target = map(Path, sys.argv[1:])
weights, everywhere = restore.weights_of_run(source), sharding.replicated(sharding.make_mesh(2))
state = train_state.create(1, dict(weights.params), dict(weights.stats), optax.identity())
store = Checkpoints(target, read_spec(source))
store.save(train_state.to_items(jax.device_put(state, everywhere), FrozenState({}, {})), 0.5)
store.close()
"""
    environment = os.environ | {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': '--xla_force_host_platform_device_count=2'}
    command = [sys.executable, '-c', script, str(workdir), str(tmp_path)]
    subprocess.run(command, check=True, cwd=REPOSITORY, env=environment)
    ours, theirs = (restore.weights_of_run(folder) for folder in (tmp_path, workdir))
    for path in theirs.params:
        np.testing.assert_array_equal(ours.params[path], theirs.params[path])


@pytest.mark.slow
def test_a_larger_network_starts_from_a_smaller_one(of_resnet18, faces, tmp_path, capsys):
    """A ResNet-18 has the stem of a ResNet-34 and the first blocks of its stages; of a ResNet-50 far less."""
    config = config_of(faces)
    config.model.update({'name': 'resnet34', 'weights': str(of_resnet18), 'partial': True})
    run = setup.prepare(config.to_dict())
    (params, stats), source = run.initial(), restored(of_resnet18, best=True)
    taken = run.weights.metadata['taken'].split(', ')
    assert set(taken) == {*source['params'], *source['stats']} - {'head.primary.kernel', 'head.primary.bias'}
    for path in taken:
        np.testing.assert_array_equal((params | stats)[path], (source['params'] | source['stats'])[path])
    assert '(resnet18; stem 3 of 3, layer1 12 of 18, layer2 15 of 27, ' in run.describe()
    assert 'head 0 of 2)' in run.describe()
    export_run.export(of_resnet18, 'torchvision', tmp_path / 'theirs.safetensors')
    config.model.weights = str(tmp_path / 'theirs.safetensors')
    assert setup.prepare(config.to_dict()).weights.metadata['taken'].split(', ') == taken
    assert 'theirs.safetensors: converted on the way as resnet18; ' in capsys.readouterr().out
    (tmp_path / 'other.safetensors').write_bytes(safetensors.numpy.save({'x': np.zeros(3, np.float32)}))
    config.model.weights = str(tmp_path / 'other.safetensors')
    with pytest.raises(UserError, match='model.partial: the weights are those of no network .*; as resnet34: .*other'):
        setup.prepare(config.to_dict())
    config.model.weights = str(of_resnet18)
    config.model.name = 'resnet50'
    assert 'stem 3 of 3' in setup.prepare(config.to_dict()).describe()
    config.model.name = 'vgg11'
    with pytest.raises(UserError, match='model.partial: nothing of resnet18 fits vgg11'):
        setup.prepare(config.to_dict())
