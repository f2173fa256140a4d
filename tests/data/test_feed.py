import jax
import numpy as np
import pytest

from fer_jax import sharding
from fer_jax.data.datasets import Split
from fer_jax.data.feed import Feed, TrainFeed, gather
from fer_jax.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (37, 6, 6, 3), np.uint8)
LABELS = (np.arange(37) % 5).astype(np.int32)
SPLIT = Split(np.arange(37).astype(str), LABELS, (6, 6, 3), {}, lambda index: IMAGES[index])


def feed(placement, batch_size=8):
    return TrainFeed(SPLIT, batch_size=batch_size, seed=1, placement=placement, mesh=sharding.make_mesh())


def batches(one, steps):
    return [jax.device_get(jax.jit(gather)(one.resident, one.host(step))) for step in steps]


def test_both_placements_give_the_same_bits_from_any_step():
    device = batches(feed('device'), range(15))
    for start in (0, 1, 6, 14):
        stream = batches(feed('stream'), range(start, 15))
        for ours, theirs in zip(device[start:], stream, strict=True):
            assert set(ours) == set(theirs)
            for name in ours:
                np.testing.assert_array_equal(ours[name], theirs[name])
    for x, y in zip(device[3]['x'], device[3]['y'], strict=True):
        assert LABELS[(x == IMAGES).all((1, 2, 3))] == [y]


@pytest.mark.parametrize('placement', ['device', 'stream'])
@pytest.mark.parametrize('batch_size', [1, 8, 37, 64])
def test_in_order_every_example_counts_once(placement, batch_size):
    one = Feed(SPLIT, placement=placement, mesh=sharding.make_mesh(), role='test')
    seen = []
    for host, weight in one.in_order(batch_size):
        batch = jax.device_get(gather(one.resident, host))
        assert len(batch['x']) == batch_size
        seen.append(batch['x'][weight > 0])
    np.testing.assert_array_equal(np.concatenate(seen), IMAGES)


def test_auto_says_what_it_chose(caplog, monkeypatch):
    with caplog.at_level('INFO', 'fer_jax'):
        assert feed('auto').placement == 'device'
        monkeypatch.setattr('fer_jax.data.feed.free_memory', lambda mesh: 1000)
        assert feed('auto').placement == 'stream'
    assert 'placement device' in caplog.text and 'placement stream' in caplog.text


def test_wrong_settings_are_named():
    with pytest.raises(UserError, match='data.batch_size=38 is larger than the training split, 37 images'):
        feed('device', 38)
    with pytest.raises(UserError, match="data.placement='gpu' is unknown"):
        feed('gpu')
