"""How much of the time of an evaluation is not the network's: images, batches, transfers, scores.

    python scripts/benchmark_evaluation.py --out docs/results/evaluation_cpu.jsonl

All splits of a prepared set are scored twice as `fer_jax.evaluate` scores them, from the prepared files on, by fresh
weights, which take the same time as any; the second time counts, when compiled programs are found in their cache. The
same step on one batch of images that lies on the device already, before and after, says what the network alone takes.
"""

import argparse
import functools
import json
import os
import sys
import time
from pathlib import Path

import jax
import numpy as np

from fer_jax import cache, sharding
from fer_jax.data import datasets
from fer_jax.network import ModelSpec, build
from fer_jax.scorer import Scorer
from fer_jax.steps import eval_step

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
    data = datasets.load(
        name=arguments.data,
        splits=SPLITS,
        image_size=arguments.image_size,
        channels=3,
        root=cache.root() / 'datasets',
    )
    network = build(ModelSpec(arguments.model, {'primary': data.classes}, arguments.image_size))
    mesh = sharding.make_mesh(arguments.devices)
    params, stats = jax.device_put(network.init(0), sharding.replicated(mesh))
    place = {'batch_size': arguments.batch_size, 'placement': arguments.placement, 'mesh': mesh}
    cache.use_compilation_cache()
    images = data.splits['test'].read(np.arange(arguments.batch_size))
    batch = {'x': images, 'id': np.arange(arguments.batch_size, dtype=np.int32)}
    batch = jax.device_put(batch, sharding.batch(mesh))
    step = jax.jit(functools.partial(eval_step, network=network))

    def network_alone() -> float:
        """Seconds a batch."""
        step(params, stats, batch).block_until_ready()
        begun = time.perf_counter()
        for _ in range(arguments.constant):
            told = step(params, stats, batch)
        told.block_until_ready()
        return (time.perf_counter() - begun) / arguments.constant

    for _ in range(2):
        before, begun = network_alone(), time.perf_counter()
        scorer = Scorer(network, data, **place)
        counts = [scorer.score(role, params, stats)[role]['n'] for role in SPLITS]
        seconds, after = time.perf_counter() - begun, network_alone()
        print(f'{sum(counts):,} images in {seconds:.1f} s; a batch alone {before:.4f} s before, {after:.4f} s after')
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
        'outside': 1 - alone / seconds,
        'images_per_second': sum(counts) / seconds,
    }
    print(f'{entry["images_per_second"]:.0f} images/s, {entry["outside"]:.1%} of the time outside the network')
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        with arguments.out.open('a') as file:
            file.write(json.dumps(entry) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
