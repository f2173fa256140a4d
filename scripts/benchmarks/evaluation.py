"""How much of the time of an evaluation is not the network's: images, batches, transfers, scores.

    python scripts/benchmarks/evaluation.py --out docs/results/evaluation_cpu.jsonl

All splits of a prepared set are scored twice as `fer_jax.evaluate` scores them, from the prepared files on, by fresh
weights, which take the same time as any; the second time counts, when compiled programs are found in their cache. Then
once more with a step that only sums the pixels of its batch: what is left is not the network's. The network's step on
one batch that lies on the device already, before and after, says the same by a difference, as exactly as the machine
keeps its speed.
"""

import argparse
import functools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fer_jax.data import dataset
from fer_jax.data.loading import batch_loop
from fer_jax.distributed import sharding
from fer_jax.evaluation.network_scorer import NetworkScorer
from fer_jax.inference.eval_step import eval_step
from fer_jax.models.network import ModelSpec, build
from fer_jax.utils import cache

SPLITS = {'train': 'train', 'validation': 'validation', 'test': 'test'}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default='fer2013', help='a prepared set')
    parser.add_argument('--model', default='resnet18')
    parser.add_argument('--image_size', type=int, default=64)
    parser.add_argument('--batch_size', type=int, default=128)
    parser.add_argument('--placement', default='auto')
    parser.add_argument('--devices', type=int, default=0, help='to spread batches over; 0: all')
    parser.add_argument('--constant', type=int, default=40, help='batches of the network alone, before and after')
    parser.add_argument('--out', type=Path, help='append one JSON line')
    arguments = parser.parse_args(argv)
    data = dataset.load_dataset(
        name=arguments.data,
        splits=SPLITS,
        image_size=arguments.image_size,
        channels=3,
        root=cache.root() / 'datasets',
    )
    network = build(ModelSpec(arguments.model, {'primary': data.classes}, arguments.image_size))
    mesh = sharding.make_mesh(arguments.devices)
    variables = jax.device_put(network.init(0), sharding.replicated(mesh))
    place = {'batch_size': arguments.batch_size, 'placement': arguments.placement, 'mesh': mesh}
    cache.use_compilation_cache()
    images = data.splits['test'].read(np.arange(arguments.batch_size))
    batch = {'x': images, 'id': np.arange(arguments.batch_size, dtype=np.int32)}
    batch = jax.device_put(batch, sharding.batch(mesh))
    step = jax.jit(functools.partial(eval_step, network=network))

    def network_alone() -> float:
        """Seconds a batch."""
        step(variables, batch).block_until_ready()
        begun = time.perf_counter()
        for _ in range(arguments.constant):
            output = step(variables, batch)
        output.block_until_ready()
        return (time.perf_counter() - begun) / arguments.constant

    def no_network(variables: Any, batches: dict[str, jax.Array], count: jax.Array, start: None) -> jax.Array:
        """float32 [K, B, classes] of each image's mean."""

        def means(batch: dict[str, jax.Array]) -> jax.Array:
            return jnp.tile(jnp.mean(batch['x'], (1, 2, 3))[:, None], len(data.classes))

        return batch_loop.map_batches(means, batches, count)

    for _ in range(2):
        before, begun = network_alone(), time.perf_counter()
        scorer = NetworkScorer(network, data, **place)
        counts = [scorer.score(role, variables)[role]['n'] for role in SPLITS]
        seconds, after = time.perf_counter() - begun, network_alone()
        print(f'{sum(counts):,} images in {seconds:.1f} s; a batch alone {before:.4f} s before, {after:.4f} s after')
    scorer = NetworkScorer(network, data, **place)
    scorer._steps = jax.jit(no_network, static_argnames='start')
    begun = time.perf_counter()
    for role in SPLITS:
        scorer.score(role, variables)
    outside = time.perf_counter() - begun
    batches = sum(-(-n // arguments.batch_size) for n in counts)
    alone = batches * (before + after) / 2
    entry = {
        'part': 'evaluation',
        'cpus': os.cpu_count(),
        'device': jax.devices()[0].device_kind,
        'model': arguments.model,
        'image_size': arguments.image_size,
        'batch_size': arguments.batch_size,
        'placement': arguments.placement,
        'devices': mesh.size,
        'n': sum(counts),
        'seconds': seconds,
        'network_seconds': alone,
        'outside_seconds': outside,
        'images_per_second': sum(counts) / seconds,
    }
    print(f'{entry["images_per_second"]:.0f} images/s, {outside / seconds:.1%} of the time outside the network')
    print(f'by the difference to the network alone {1 - alone / seconds:.1%}')
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        with arguments.out.open('a') as file:
            file.write(json.dumps(entry) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
