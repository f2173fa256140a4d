"""Speed against PyTorch, on the same machine in the same run.

    python scripts/benchmark.py data --rounds 5 --out docs/results/data_cpu.jsonl

Every measurement runs in a process of its own, in alternating rounds; a ratio is one of medians. `--threads 1` gives
both one thread and counts images per CPU-second; otherwise both use every core, and images per second count. PyTorch
needs torch and torchvision, see the extra `parity`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 128
FLIP, SHIFT, SCALE, ROTATE = 0.5, 0.08, 0.1, 10.0  # the augmentation of both
CASES = {'48 to 64': (48, 1, 64), '48 to 224': (48, 1, 224), 'JPEG 224': (224, 3, 224)}
CONTENDERS = ('fer_jax device', 'fer_jax stream', 'PyTorch')


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('part', choices=['data', 'wait', 'measure'])
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--seconds', type=float, default=8.0, help='of each measurement, after warming up')
    parser.add_argument('--threads', type=int, default=0, help='1: one thread each; 0: all cores')
    parser.add_argument('--out', type=Path, help='append one JSON line a measurement')
    parser.add_argument('--case', choices=CASES)
    parser.add_argument('--contender', choices=CONTENDERS)
    parser.add_argument('--images', type=Path)
    arguments = parser.parse_args(argv)
    if arguments.part == 'measure':
        json.dump(measure(arguments), sys.stdout)
    elif arguments.part == 'wait':
        print(json.dumps(waiting(arguments.seconds)))
    else:
        compare(arguments)
    return 0


def compare(arguments: argparse.Namespace) -> None:
    """All cases and contenders, round by round, and a table of medians."""
    rates: dict[tuple[str, str], list[float]] = {}
    metric = 'images_per_cpu_second' if arguments.threads == 1 else 'images_per_second'
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.rounds):
            for case in CASES:
                images = write_images(Path(folder) / case.replace(' ', '_'), *CASES[case][:2])
                for contender in CONTENDERS:
                    if case == 'JPEG 224' and contender == 'fer_jax device':
                        continue
                    found = in_process(arguments, case, contender, images)
                    if found is None:
                        continue
                    rates.setdefault((case, contender), []).append(found[metric])
                    record = {'part': 'data', 'round': number, 'case': case, 'contender': contender, **found}
                    if arguments.out:
                        arguments.out.parent.mkdir(parents=True, exist_ok=True)
                        with arguments.out.open('a') as file:
                            file.write(json.dumps(record) + '\n')
    print(f'{metric}, median of {arguments.rounds} [least, most]; ratio to PyTorch')
    for (case, contender), values in rates.items():
        peer = rates.get((case, 'PyTorch'))
        ratio = f'{statistics.median(values) / statistics.median(peer):.2f}' if peer else ''
        spread = f'[{min(values):,.0f}, {max(values):,.0f}]'
        print(f'{case:<12}{contender:<18}{statistics.median(values):>9,.0f} {spread:<20}{ratio:>6}')


def in_process(arguments: argparse.Namespace, case: str, contender: str, images: Path) -> dict[str, Any] | None:
    command = [sys.executable, __file__, 'measure', '--case', case, '--contender', contender, '--images', str(images)]
    command += ['--seconds', str(arguments.seconds), '--threads', str(arguments.threads)]
    environment = dict(os.environ)
    if arguments.threads == 1:
        command = ['taskset', '-c', '0', *command]
        flags = ' --xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1'
        environment |= {'OMP_NUM_THREADS': '1', 'XLA_FLAGS': environment.get('XLA_FLAGS', '') + flags}
    run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    if run.returncode:
        print(f'{case}, {contender}: left out, status {run.returncode}', file=sys.stderr)
        return None
    return json.loads(run.stdout)


def write_images(folder: Path, side: int, channels: int) -> Path:
    """1,024 smooth random images in two class folders, PNG where small, JPEG where large; returns the folder."""
    from PIL import Image

    if folder.is_dir():
        return folder
    generator = np.random.default_rng(0)
    for label in ('a', 'b'):
        (folder / label).mkdir(parents=True)
    for number in range(1024):
        rough = generator.integers(0, 256, (12, 12, channels), np.uint8)
        image = Image.fromarray(rough.squeeze()).resize((side, side), Image.Resampling.BICUBIC)
        noisy = np.clip(np.asarray(image, int) + generator.integers(-12, 13, np.asarray(image).shape), 0, 255)
        image = Image.fromarray(noisy.astype(np.uint8))
        name = folder / 'ab'[number % 2] / f'{number:04d}'
        image.save(name.with_suffix('.png')) if side < 100 else image.save(name.with_suffix('.jpg'), quality=90)
    return folder


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Images per second and per CPU-second of one contender, data ready for a training step."""
    side, channels, size = CASES[arguments.case]
    ours = arguments.contender.startswith('fer_jax')
    batches = (jax_batches if ours else torch_batches)(arguments, side, channels, size)
    for _ in range(4):
        next(batches)
    images, begun, cpu = 0, time.perf_counter(), cpu_seconds()
    while time.perf_counter() - begun < arguments.seconds:
        images += next(batches)
    seconds, cpu = time.perf_counter() - begun, cpu_seconds() - cpu
    return {'images_per_second': images / seconds, 'images_per_cpu_second': images / cpu, 'cpus': os.cpu_count()}


def cpu_seconds() -> float:
    """Of this process and of the workers that live: PyTorch's loader has some."""
    total = time.process_time()
    for path in Path(f'/proc/{os.getpid()}/task').glob('*/children'):
        for child in path.read_text().split():
            fields = Path(f'/proc/{child}/stat').read_text().rsplit(')', 1)[1].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')
    return total


def jax_batches(arguments: argparse.Namespace, side: int, channels: int, size: int) -> Iterator[int]:
    import jax

    from fer_jax import sharding
    from fer_jax.data import datasets
    from fer_jax.data.augment import Augment, augment, example_keys
    from fer_jax.data.feed import TrainFeed, gather

    data = datasets.load(
        dir=str(arguments.images), splits={'train': 'train'}, image_size=side, channels=channels, root=arguments.images
    )
    feed = TrainFeed(
        data.splits['train'],
        batch_size=BATCH,
        seed=0,
        placement=arguments.contender.split()[1],
        mesh=sharding.make_mesh(),
    )
    settings = Augment(flip=FLIP, shift=SHIFT, scale=SCALE, rotate=ROTATE)

    @jax.jit
    def batch(resident: Any, host: Any, step: int) -> jax.Array:
        keys = example_keys(jax.random.fold_in(jax.random.key(0), step), BATCH)
        return augment(gather(resident, host)['x'], keys, size, settings)

    step = 0
    while True:
        batch(feed.resident, feed.host(step), step).block_until_ready()
        step += 1
        yield BATCH


def torch_batches(arguments: argparse.Namespace, side: int, channels: int, size: int) -> Iterator[int]:
    """ImageFolder and torchvision's transforms on PIL images, as the field writes them; small sets held in memory."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import torch

    from tests.torch_reference import declare_torchvision_operators

    declare_torchvision_operators()
    from PIL import Image
    from torchvision import datasets, transforms

    if arguments.threads == 1:
        torch.set_num_threads(1)
    steps: list[Callable[[Any], Any]] = [transforms.Resize(size)] if side != size else []
    steps += [
        transforms.RandomHorizontalFlip(FLIP),
        transforms.RandomAffine(ROTATE, (SHIFT, SHIFT), (1 / (1 + SCALE), 1 + SCALE), interpolation=BILINEAR),
        transforms.ToTensor(),
    ]
    transform = transforms.Compose(steps)
    folder = datasets.ImageFolder(str(arguments.images), transform)

    class InMemory(torch.utils.data.Dataset):
        def __init__(self) -> None:
            self.images = [
                np.asarray(Image.open(path).convert('L' if channels == 1 else 'RGB')) for path, _ in folder.imgs
            ]

        def __len__(self) -> int:
            return len(self.images)

        def __getitem__(self, index: int) -> tuple[Any, int]:
            return transform(Image.fromarray(self.images[index])), folder.imgs[index][1]

    workers = 0 if arguments.threads == 1 else os.cpu_count() or 1
    loader = torch.utils.data.DataLoader(
        InMemory() if side < 100 else folder,
        BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    while True:
        for images, _ in loader:
            yield len(images)


BILINEAR = 2  # PIL's and torchvision's number for it


def waiting(seconds: float) -> dict[str, float]:
    """The share of a ResNet-18 step at 64 px, from device-resident images, that the host spends on the batch."""
    from configs import fer2013_resnet18
    from fer_jax import setup

    config = fer2013_resnet18.get_config()
    config.data.name = 'synthetic_faces'
    config.parallel.devices = 0
    run = setup.prepare(json.loads(config.to_json()))
    phase = run.phases[0]
    state, fixed = run.enter(phase, 0, *run.initial())
    step = run.step_function(phase)
    state = step(state, fixed, run.feed.resident, run.feed.host(0))
    state.step.block_until_ready()
    begun, host, count = time.perf_counter(), 0.0, 0
    while time.perf_counter() - begun < seconds:
        before = time.perf_counter()
        batch = run.feed.host(count + 1)
        host += time.perf_counter() - before
        state = step(state, fixed, run.feed.resident, batch)
        state.step.block_until_ready()
        count += 1
    total = time.perf_counter() - begun
    return {'steps': count, 'step_ms': 1e3 * total / count, 'batch_ms': 1e3 * host / count, 'share': host / total}


if __name__ == '__main__':
    sys.exit(main())
