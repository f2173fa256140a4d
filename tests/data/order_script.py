"""Prints the ids of every step by each way of feeding; run by test_feed.py in a process with eight devices."""

import itertools
import json
import sys

import jax
import numpy as np

from fer_jax.data.loading.loader import TrainLoader, assemble_batch
from fer_jax.distributed import sharding
from tests.data.splits import split_of

STEPS = 5  # three epochs of 13 examples in batches of 8


def main(balance: str) -> None:
    jax.config.update('jax_num_cpu_devices', 8)
    assert len(jax.devices()) == 8
    images = np.random.default_rng(0).integers(0, 256, (13, 4, 4, 1), np.uint8)
    split = split_of(images, np.arange(13) % 3)
    found = {}
    for placement, workers, devices in itertools.product(('device', 'stream'), (0, 1, 2), (1, 2, 8)):
        if (placement == 'device' and workers) or (workers == 1 and devices > 1):
            continue
        restarts = range(STEPS) if not workers else (0, 3) if devices == 1 else (0,)
        for start in restarts:
            loader = TrainLoader(
                split,
                batch_size=8,
                seed=3,
                placement=placement,
                mesh=sharding.make_mesh(devices),
                balance=balance,
                workers=workers,
            )
            batches = [
                jax.device_get(assemble_batch(loader.device_data, loader.host_batches([step])))
                for step in range(start, STEPS)
            ]
            for batch in batches:
                assert (batch['x'] == images[batch['id']]).all()
            found[f'{placement}, {workers} workers, {devices} devices, from step {start}'] = [
                batch['id'][0].tolist() for batch in batches
            ]
    json.dump(found, sys.stdout)


if __name__ == '__main__':
    main(sys.argv[1])
