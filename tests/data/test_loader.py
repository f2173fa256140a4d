import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from fer_jax.data.loading.loader import SplitLoader, TrainLoader, assemble_batch
from fer_jax.distributed import sharding
from fer_jax.errors import UserError
from tests.data.splits import split_of

IMAGES = np.random.default_rng(0).integers(0, 256, (37, 6, 6, 3), np.uint8)
LABELS = (np.arange(37) % 5).astype(np.int32)
SPLIT = split_of(IMAGES, LABELS, weights=np.linspace(0.5, 2, 37, dtype=np.float32))


def train_loader(placement, batch_size=8):
    return TrainLoader(SPLIT, batch_size=batch_size, seed=1, placement=placement, mesh=sharding.make_mesh())


def batches(one, steps):
    found = (jax.device_get(jax.jit(assemble_batch)(one.device_data, one.host_batches([step]))) for step in steps)
    return [{name: leaf[0] for name, leaf in batch.items()} for batch in found]


def test_both_placements_give_the_same_bits_from_any_step():
    device = batches(train_loader('device'), range(15))
    for start in (0, 1, 6, 14):
        stream = batches(train_loader('stream'), range(start, 15))
        for ours, theirs in zip(device[start:], stream, strict=True):
            assert set(ours) == set(theirs)
            for name in ours:
                np.testing.assert_array_equal(ours[name], theirs[name])
    for x, y, at in zip(device[3]['x'], device[3]['y'], device[3]['id'], strict=True):
        assert np.flatnonzero((x == IMAGES).all((1, 2, 3))) == [at]
        assert LABELS[at] == y
    np.testing.assert_array_equal(device[3]['weight'], SPLIT.weights[device[3]['id']])


@pytest.mark.parametrize('placement', ['device', 'stream'])
def test_several_batches_are_those_of_their_steps(placement):
    one = train_loader(placement)
    expected = batches(train_loader('device'), (2, 3, 4, 4))
    for _ in range(2):  # a stream goes back
        together = jax.device_get(jax.jit(assemble_batch)(one.device_data, one.host_batches((2, 3, 4, 4))))
        for name, leaf in together.items():
            np.testing.assert_array_equal(leaf, np.stack([batch[name] for batch in expected]))


@pytest.mark.parametrize('placement', ['device', 'stream'])
@pytest.mark.parametrize('batch_size', [1, 8, 37, 64])
def test_in_order_every_example_counts_once(placement, batch_size):
    one = SplitLoader(SPLIT, placement=placement, mesh=sharding.make_mesh(), role='test')
    seen = []
    for host_batches, weight in one.in_order(batch_size, 3):
        batches = jax.device_get(assemble_batch(one.device_data, host_batches))
        assert batches['x'].shape == (3, batch_size, 6, 6, 3)
        seen.append(batches['x'][weight > 0])
    np.testing.assert_array_equal(np.concatenate(seen), IMAGES)


def test_auto_says_what_it_chose(caplog, monkeypatch):
    with caplog.at_level('INFO', 'fer_jax'):
        assert train_loader('auto').placement == 'device'
        monkeypatch.setattr('fer_jax.data.loading.loader.free_memory', lambda mesh: 1000)
        assert train_loader('auto').placement == 'stream'
    assert 'placement device' in caplog.text and 'placement stream' in caplog.text


def test_wrong_settings_are_named():
    with pytest.raises(UserError, match='data.batch_size=38 is larger than the training split, 37 images'):
        train_loader('device', 38)
    with pytest.raises(UserError, match="data.placement='gpu' is unknown"):
        train_loader('gpu')


@pytest.mark.slow
@pytest.mark.parametrize('balance', ['none', 'classes'])
def test_the_order_is_one_and_the_same_however_it_is_fed(balance):
    """Unsorted ids over three epochs: every placement, 0 to 2 workers, 1, 2 and 8 devices, from every step on."""
    command = [sys.executable, '-m', 'tests.data.order_script', balance]
    root = Path(__file__).parents[2]
    environment = os.environ | {'JAX_PLATFORMS': 'cpu'}
    run = subprocess.run(command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(run.stdout)
    assert len(found) == 2 * 3 * 5 + 2 + (2 + 2)
    whole = found['device, 0 workers, 1 devices, from step 0']
    assert len({tuple(batch) for batch in whole}) == 5 and whole[0] != sorted(whole[0])
    for way, batches in found.items():
        assert batches == whole[5 - len(batches) :], way
    taken = np.concatenate(whole)
    if balance == 'none':
        assert sorted(taken[:13]) == sorted(taken[13:26]) == list(range(13))
    else:
        assert (np.bincount(taken[:39] % 3) == 13).all()


def test_distributions_take_the_place_of_labels():
    shares = np.random.default_rng(1).dirichlet(np.ones(5), 37).astype(np.float32)
    split = split_of(IMAGES, LABELS, distributions=shares)
    settings = {'batch_size': 8, 'seed': 1, 'mesh': sharding.make_mesh()}
    for placement in ('device', 'stream'):
        one = TrainLoader(split, placement=placement, **settings)
        batch = jax.device_get(assemble_batch(one.device_data, one.host_batches([2])))
        np.testing.assert_array_equal(batch['y'], shares[batch['id']])
