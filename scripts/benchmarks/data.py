"""The part `data` of scripts/benchmarks/run.py: images until they lie ready for a training step."""

import argparse
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from scripts.benchmarks.clock import cpu_seconds

BATCH = 128
AUGMENT = {'flip': 0.5, 'shift': 0.08, 'scale': 0.1, 'rotate': 10.0}  # of both
CASES = {'48 to 64': (48, 1, 64), '48 to 224': (48, 1, 224), 'JPEG 224': (224, 3, 224)}
CONTENDERS = ('fer_jax, device', 'fer_jax, stream', 'PyTorch')
BILINEAR = 2  # PIL's and torchvision's number for it


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
    return {'images_per_second': images / seconds, 'images_per_cpu_second': images / cpu}


def jax_batches(arguments: argparse.Namespace, side: int, channels: int, size: int) -> Iterator[int]:
    import jax

    from fer_jax.data import dataset
    from fer_jax.data.augmentation.augment import Augment, augment, example_keys
    from fer_jax.data.loading.loader import TrainLoader, assemble_batch
    from fer_jax.distributed import sharding

    data = dataset.load_dataset(
        dir=str(arguments.images), splits={'train': 'train'}, image_size=side, channels=channels, root=arguments.images
    )
    loader = TrainLoader(
        data.splits['train'],
        batch_size=BATCH,
        seed=0,
        placement=arguments.contender.split()[1],
        mesh=sharding.make_mesh(),
    )
    settings = Augment(**AUGMENT)

    @jax.jit
    def batch(device_data: Any, host_batches: Any, step: int) -> jax.Array:
        keys = example_keys(jax.random.fold_in(jax.random.key(0), step), BATCH)
        return augment(assemble_batch(device_data, host_batches)['x'][0], keys, size, settings)

    step = 0
    while True:
        batch(loader.device_data, loader.host_batches([step]), step).block_until_ready()
        step += 1
        yield BATCH


def torch_batches(arguments: argparse.Namespace, side: int, channels: int, size: int) -> Iterator[int]:
    """ImageFolder and torchvision's transforms on PIL images, as the field writes them; small sets held in memory."""
    from tests.torch_reference import declare_torchvision_operators

    declare_torchvision_operators()
    from PIL import Image
    from torchvision import datasets

    folder = datasets.ImageFolder(str(arguments.images), transform(side, size))
    if side < 100:
        mode = 'L' if channels == 1 else 'RGB'
        images = [np.asarray(Image.open(path).convert(mode)) for path, _ in folder.imgs]
        folder = InMemory(images, [label for _, label in folder.imgs], transform(side, size))
    loader = loader_of(folder, BATCH, arguments.threads)
    while True:
        for images, _ in loader:
            yield len(images)


class InMemory:
    """What a DataLoader takes: images, uint8 [H, W] or [H, W, 3], through a transform of PIL images."""

    def __init__(self, images: Any, labels: Any, transform: Callable[[Any], Any]):
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def transform(side: int, size: int) -> Callable[[Any], Any]:
    """The augmentation in torchvision's transforms, from `side` to `size` pixels."""
    from torchvision import transforms

    shift, scale = AUGMENT['shift'], AUGMENT['scale']
    steps: list[Callable[[Any], Any]] = [transforms.Resize(size)] if side != size else []
    steps += [
        transforms.RandomHorizontalFlip(AUGMENT['flip']),
        transforms.RandomAffine(
            AUGMENT['rotate'], (shift, shift), (1 / (1 + scale), 1 + scale), interpolation=BILINEAR
        ),
        transforms.ToTensor(),
    ]
    return transforms.Compose(steps)


def loader_of(images: Any, batch_size: int, threads: int) -> Any:
    """A DataLoader with a worker a core, or none where there is one thread."""
    import torch

    if threads == 1:
        torch.set_num_threads(1)
    workers = 0 if threads == 1 else os.cpu_count() or 1
    options = {'num_workers': workers, 'persistent_workers': workers > 0, 'pin_memory': torch.cuda.is_available()}
    return torch.utils.data.DataLoader(images, batch_size, shuffle=True, drop_last=True, **options)
