"""A small run on real faces, for the tests that need a finished one."""

from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from configs import default
from fer_jax.models.network import build
from fer_jax.models.parameters import Flat
from fer_jax.runs import checkpoints, model_file

FINE_TUNING = {'epochs': 2, 'optimizer': 'sgd', 'learning_rate': 0.02, 'weight_decay': 1e-4, 'ema': 0.9}
FINE_TUNING |= {'schedule': 'plateau', 'patience': 0}


def config_of(faces, **phase) -> ConfigDict:
    config = default.get_config()
    config.model.update({'name': 'resnet8_small', 'weights': 'scratch', 'image_size': 32, 'channels': 1})
    config.model.dropout = 0.3
    config.data.update({'name': '', 'dir': str(faces), 'batch_size': 16})
    config.data.augment.update({'shift': 0.1, 'rotate': 10.0, 'erase': 0.5})
    config.log_every = 3
    frozen = default.phase(**{'epochs': 1, 'rates': default.HEAD_ONLY, 'learning_rate': 1e-2} | phase)
    config.phases = (frozen, default.phase(**FINE_TUNING))
    return config


def restored(workdir, best=False) -> dict[str, Flat]:
    """The newest or the best model."""
    spec = model_file.read_spec(workdir)
    store = checkpoints.Checkpoints(workdir, spec, read_only=True)
    step = store.best_step() if best else store.latest_step()
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    params, stats = store.restore_model(step, build(spec).abstract(device))
    return {'params': params, 'stats': stats}


def assert_same_model(one: Path, other: Path) -> None:
    one, other = restored(one), restored(other)
    for tree in one:
        assert set(one[tree]) == set(other[tree])
        for path in one[tree]:
            assert np.array_equal(one[tree][path], other[tree][path]), path
