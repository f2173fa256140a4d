"""What the feature cache saves: epochs of a head on a frozen ResNet-50, against PyTorch on the same machine.

    python scripts/benchmarks/feature_cache.py --epochs 10,100 --out docs/results/cache_cpu.jsonl

Contenders, each in a process of its own: fer_jax with the feature cache (empty at the start), once compiling all and
once with the programs that the first run kept, fer_jax without the cache, PyTorch with its frozen backbone run every
epoch, PyTorch on features that it computes once, and fer_jax's grid of 64 heads against one. Time is that of the whole
training, from prepared images, which all read by fer_jax's reader, to the validation score, compilation included;
imports, and the pictures and the page that end a run, are not. Where a frozen backbone runs every epoch, `--most`
epochs are run, and the time of all is computed from them. Weights are random: they do not matter for time.
Needs torch and torchvision, and FER2013 prepared.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.data import dataset
from fer_jax.utils import cache

BATCH, FEATURES = 128, 2048
KEPT = 'fer_jax cached, programs kept'
CACHED, LOOPS = ('fer_jax cached', KEPT, 'PyTorch cached'), ('fer_jax', 'PyTorch')
CONTENDERS = (*CACHED, *LOOPS, 'probe')
HEADS = (1, 64)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--epochs', default='10,100', help='of the head, one or several')
    parser.add_argument('--examples', type=int, default=0, help='training images; 0: all 28,709')
    parser.add_argument('--image_size', type=int, default=64)
    parser.add_argument('--contenders', default=';'.join(CONTENDERS), help='by semicolons')
    parser.add_argument('--most', type=int, default=1, help='epochs of a frozen backbone that are run')
    parser.add_argument('--out', type=Path, help='append one JSON line a measurement')
    parser.add_argument('--measure', choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument('--cache', type=Path, help=argparse.SUPPRESS)
    parser.add_argument('--heads', type=int, default=1, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.measure:
        with contextlib.redirect_stdout(sys.stderr):
            figures = measure(arguments)
        print(json.dumps(figures))
        return 0
    compare(arguments)
    return 0


def compare(arguments: argparse.Namespace) -> None:
    """All contenders at each number of epochs, their ratios, and the grid of heads."""
    chosen = arguments.contenders.split(';')
    if unknown := set(chosen).difference(CONTENDERS):
        sys.exit(f'--contenders: {", ".join(unknown)} is none; choose from {"; ".join(CONTENDERS)}')
    loops: dict[str, dict[str, Any]] = {}
    for contender in (name for name in LOOPS if name in chosen):
        loops[contender] = in_process(arguments, contender, arguments.most)
        record(arguments, {'contender': contender, 'epochs_run': arguments.most, **loops[contender]})
    for epochs in map(int, arguments.epochs.split(',')):
        seconds: dict[str, float] = {}
        with tempfile.TemporaryDirectory() as programs:
            for contender in (name for name in CACHED if name in chosen):
                figures = in_process(arguments, contender.partition(',')[0], epochs, programs=programs)
                seconds[contender] = figures['seconds']
                record(arguments, {'contender': contender, 'epochs_run': epochs, **figures})
        for contender, figures in loops.items():
            seconds[contender] = figures['once'] + (figures['seconds'] - figures['once']) * epochs / arguments.most
        for contender, taken in seconds.items():
            computed = f', computed from {arguments.most}' if contender in loops else ''
            print(f'{epochs} epochs, {contender}: {taken:.1f} s{computed}')
        for ours in (name for name in CACHED[:2] if name in seconds):
            for peer in (name for name in seconds if name not in CACHED[:2]):
                print(f'{epochs} epochs, {peer} / {ours}: {seconds[peer] / seconds[ours]:.2f}', flush=True)
    if 'probe' in chosen:
        heads_of_a_grid(arguments)


def heads_of_a_grid(arguments: argparse.Namespace) -> None:
    """A grid of 64 heads beside one head: the training alone, and the whole command."""
    with tempfile.TemporaryDirectory() as cache:
        in_process(arguments, 'probe', 1, heads=1, cache=Path(cache))  # fills the cache
        grid = {heads: in_process(arguments, 'probe', 10, heads=heads, cache=Path(cache)) for heads in HEADS}
    with tempfile.TemporaryDirectory() as cache:
        whole = {}
        for heads in HEADS:
            whole[heads] = in_process(arguments, 'probe', 10, heads=heads, cache=Path(cache) / str(heads))
    for heads in HEADS:
        record(arguments, {'contender': 'probe', 'heads': heads, 'cached': grid[heads], 'whole': whole[heads]})
    print(f'64 heads / one head, training alone: {grid[64]["heads_seconds"] / grid[1]["heads_seconds"]:.2f}')
    print(f'64 heads / one head, whole command: {whole[64]["seconds"] / whole[1]["seconds"]:.2f}')


def record(arguments: argparse.Namespace, entry: dict[str, Any]) -> None:
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        with arguments.out.open('a') as file:
            settings = {'part': 'cache', 'cpus': os.cpu_count(), 'image_size': arguments.image_size}
            file.write(json.dumps(settings | entry) + '\n')


def in_process(
    arguments: argparse.Namespace, contender: str, epochs: int, programs: str = '', **options: Any
) -> dict[str, Any]:
    command = [sys.executable, __file__, '--measure', contender, '--epochs', str(epochs)]
    command += ['--examples', str(arguments.examples), '--image_size', str(arguments.image_size)]
    for name, value in options.items():
        command += [f'--{name}', str(value)]
    environment = os.environ | ({'JAX_COMPILATION_CACHE_DIR': programs} if programs else {})
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if run.returncode:
        sys.exit(f'{contender}: status {run.returncode}\n{run.stderr[-2000:]}')
    return json.loads(run.stdout)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """One contender; seconds of the training, and of what of it is done once whatever the epochs."""
    epochs = int(arguments.epochs)
    if arguments.measure.startswith('PyTorch'):
        return torch_head(arguments, epochs, cached=arguments.measure.endswith('cached'))
    if arguments.measure == 'probe':
        return jax_probe(arguments, epochs)
    return jax_head(arguments, epochs, cached=arguments.measure.endswith('cached'))


def config_of(arguments: argparse.Namespace, epochs: int, cached: bool) -> Any:
    from configs import default

    config = default.get_config()
    config.model.update({'name': 'resnet50', 'weights': 'scratch', 'image_size': arguments.image_size})
    config.data.update({'name': 'fer2013', 'train_examples': arguments.examples, 'batch_size': BATCH})
    config.data.augment = default.augment('none')
    config.data.splits.test = ''
    config.parallel.devices = os.cpu_count() if cpu_only() else 0
    config.checkpoint.every = float(epochs)
    phase = {'epochs': epochs, 'rates': default.HEAD_ONLY, 'learning_rate': 1e-3, 'cache_views': int(cached)}
    config.phases = (default.phase(**phase),)
    return config


def cpu_only() -> bool:
    import jax

    return jax.config.jax_platforms == 'cpu' or not Path('/proc/driver/nvidia').exists()  # type: ignore[attr-defined]


def jax_head(arguments: argparse.Namespace, epochs: int, *, cached: bool) -> dict[str, Any]:
    import fer_jax
    from fer_jax.distributed import sharding
    from fer_jax.feature_cache import store as feature_store
    from fer_jax.training import loop  # noqa: F401

    with tempfile.TemporaryDirectory() as folder:
        feature_store.cache.root, root = (lambda: Path(folder)), feature_store.cache.root
        (Path(folder) / 'datasets').symlink_to(root() / 'datasets')
        config = config_of(arguments, epochs, cached)
        sharding.make_mesh(config.parallel.devices)  # before JAX starts
        config.model.weights = random_weights(Path(folder) / 'weights.safetensors', arguments.image_size)
        begun = time.time()
        results = fer_jax.train(config, Path(folder) / 'run')
        seconds = (Path(folder) / 'run' / 'results.json').stat().st_mtime - begun
        records = [json.loads(line) for line in (Path(folder) / 'run' / 'timing.jsonl').read_text().splitlines()]
        training = sum(timing['seconds'] for timing in records if timing['event'] == 'train')
        return {
            'seconds': seconds,
            'once': seconds - training,
            'accuracy': results['splits']['validation']['accuracy'],
        }


def random_weights(path: Path, size: int) -> str:
    """A file of weights as transfer starts from, which the clock need not wait for."""
    from fer_jax import pretrained
    from fer_jax.models.network import ModelSpec, build

    params, stats = build(ModelSpec('resnet50', {'primary': tuple('abcdefg')}, size)).init(0)
    leaves = [{name: np.asarray(leaf) for name, leaf in tree.items()} for tree in (params, stats)]
    preprocessing = pretrained.Preprocessing((0.5,) * 3, (0.25,) * 3, 'RGB')
    pretrained.save(path, pretrained.Weights('resnet50', *leaves, preprocessing, {}))
    return str(path)


def jax_probe(arguments: argparse.Namespace, epochs: int) -> dict[str, Any]:
    import fer_jax
    from fer_jax.feature_cache import store as feature_store
    from fer_jax.training import loop  # noqa: F401

    root = feature_store.cache.root()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    if not (arguments.cache / 'datasets').exists():
        (arguments.cache / 'datasets').symlink_to(root / 'datasets')
    feature_store.cache.root = lambda: arguments.cache
    from configs import probe

    config = probe.get_config()
    config.update(config_of(arguments, 1, False))
    grid = {'learning_rates': (1e-3,), 'weight_decays': (0.1,), 'seeds': (0,)}
    if arguments.heads == 64:
        grid = {
            'learning_rates': (1e-4, 3e-4, 1e-3, 3e-3),
            'weight_decays': (0.01, 0.1, 1.0, 3.0),
            'seeds': (0, 1, 2, 3),
        }
    config.probe.update({'stages': ('pool',), 'pool': 1, 'ridge': (), 'epochs': epochs, 'dtype': 'float32', **grid})
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        results = fer_jax.train(config, Path(folder) / 'run')
        return {'seconds': time.perf_counter() - begun, 'heads_seconds': results['seconds']['heads']}


def torch_head(arguments: argparse.Namespace, epochs: int, *, cached: bool) -> dict[str, Any]:
    """The usual loop: the frozen backbone in evaluation mode under no_grad, channels last, on all cores."""
    import torch

    from tests.torch_reference import declare_torchvision_operators

    declare_torchvision_operators()
    import torchvision

    begun = time.perf_counter()
    train, validation = arrays(arguments)
    backbone = torchvision.models.resnet50(weights=None)
    backbone.fc = torch.nn.Identity()
    backbone.eval().to(memory_format=torch.channels_last).requires_grad_(False)
    head = torch.nn.Linear(FEATURES, 7)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * -(-len(train[0]) // BATCH))

    def features(images: np.ndarray) -> Any:
        x = torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255)
        x = torch.nn.functional.interpolate(x, arguments.image_size, mode='bilinear', antialias=True)
        x = ((x - 0.5) / 0.25).expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            return backbone(x)

    def all_features(images: np.ndarray) -> Any:
        return torch.cat([features(images[start : start + BATCH]) for start in range(0, len(images), BATCH)])

    labels = torch.from_numpy(train[1]).long()
    kept = all_features(train[0]) if cached else None
    once = time.perf_counter() - begun if cached else 0.0
    for _ in range(epochs):
        for index in torch.randperm(len(labels)).split(BATCH):
            x = features(train[0][index.numpy()]) if kept is None else kept[index]
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(head(x), labels[index]).backward()
            optimizer.step()
            schedule.step()
    trained = time.perf_counter()
    predicted = head(all_features(validation[0])).argmax(1).numpy()
    seconds = time.perf_counter() - begun
    once += time.perf_counter() - trained
    return {'seconds': seconds, 'once': once, 'accuracy': float(np.mean(predicted == validation[1]))}


def arrays(arguments: argparse.Namespace) -> list[tuple[np.ndarray, np.ndarray]]:
    """(uint8 [N, 48, 48, 1], int [N]) of the training and the validation split."""
    data = dataset.load_dataset(
        name='fer2013',
        splits={'train': 'train', 'validation': 'validation'},
        image_size=arguments.image_size,
        channels=1,
        root=cache.root() / 'datasets',
        train_examples=arguments.examples,
    )
    return [
        (data.splits[role].read(np.arange(len(data.splits[role].labels))), data.splits[role].labels)
        for role in ('train', 'validation')
    ]


if __name__ == '__main__':
    sys.exit(main())
