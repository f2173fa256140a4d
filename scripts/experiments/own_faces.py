"""`fer-jax train --data DIR` against what else one would try on a small folder of faces, with the same weights.

    python scripts/experiments/own_faces.py --output docs/results/own_faces.jsonl --data fer2013-100,fer2013-300

Data are stratified parts of FER2013 (`fer2013-300`: 300 training images, another choice for each seed, and 1,500 of
PrivateTest) and CK+48 (`--ck48 DIR`: 15 % of the people are tested, others for each seed). Methods: `own_faces`, the
config that looks at the data; `quickstart`, that config on the same data; `timm`, the defaults of its train.py but for
the epochs; `fastai`, its vision_learner and fine_tune. All of them start from ImageNet's EfficientNet-Lite0 and see the
same pixels. Configs of fer_jax select on a part of the training images, timm and fastai train on all and score the last
epoch. The same command leaves finished cells alone.
"""

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax import pretrained
from fer_jax.cli import run_command
from fer_jax.config.files import get_config
from fer_jax.data.sources import folder, prepared
from fer_jax.data.tables import splitting
from fer_jax.data.tables.table import Table
from fer_jax.evaluation.metrics import balanced_accuracy
from fer_jax.pretrained import convert_back
from fer_jax.training.train import train
from fer_jax.utils import cache
from scripts.experiments.common import Row, choose, write_rows

TESTED = 1500  # images of PrivateTest
TIMM_NAME = 'tf_efficientnet_lite0'
SUBJECT = 'S[0-9]+'  # of CK+48, in the file name


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, 2 where the input is wrong, 75 where it was stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--output', type=Path, required=True, help='.jsonl to write; the table goes beside it as .md')
    parser.add_argument('--data', default='fer2013-100,fer2013-300,fer2013-1000,fer2013-3000')
    parser.add_argument('--ck48', type=Path, help='folder of class folders, for --data ck48')
    parser.add_argument('--methods', default=','.join(METHODS))
    parser.add_argument('--seeds', default='0,1,2')
    parser.add_argument('--image_size', type=int, default=64)
    parser.add_argument('--epochs', type=int, default=30, help='of timm and fastai')
    arguments = parser.parse_args(argv)

    def command() -> None:
        fill(arguments)

    return run_command(command)


def fill(arguments: argparse.Namespace) -> None:
    """Runs the cells that are not finished, and writes what there is after each."""
    rows = [json.loads(line) for line in arguments.output.read_text().splitlines()] if arguments.output.exists() else []
    methods = choose('methods', arguments.methods, METHODS)
    for data in arguments.data.split(','):
        for seed in map(int, arguments.seeds.split(',')):
            for method in methods:
                cell = {'data': data, 'seed': seed, 'method': method}
                if any(cell.items() <= row.items() for row in rows):
                    continue
                with tempfile.TemporaryDirectory() as scratch:
                    faces = Path(scratch, 'faces')
                    write_faces(faces, data, seed, arguments.ck48)
                    begun = time.perf_counter()
                    scores = METHODS[method](faces, seed, arguments)
                row = cell | scores | {'minutes': round((time.perf_counter() - begun) / 60, 2)}
                rows.append(row | {'image_size': arguments.image_size})
                print(json.dumps(rows[-1]), flush=True)
                write_rows(arguments.output, rows, table)
    print(table(rows))


def write_faces(target: Path, data: str, seed: int, ck48: Path | None) -> None:
    """Writes train/<class>/ and test/<class>/ of a cell."""
    if data == 'ck48':
        assert ck48 is not None, '--ck48 is missing'
        source = folder.scan(ck48, subject=SUBJECT)
        own = splitting.assign(source, split_seed=seed)
        parts = {'train': np.concatenate([own['train'], own['validation']]), 'test': own['test']}
    else:
        source = prepared.open_table('fer2013', cache.root() / 'datasets')
        own = splitting.assign(source)
        count = int(data.partition('-')[2])
        parts = {
            'train': splitting.stratified(source, own['train'], count, seed),
            'test': splitting.stratified(source, own['test'], TESTED),
        }
    for split, positions in parts.items():
        _write_part(target / split, source, positions)


def _write_part(target: Path, source: Table, positions: np.ndarray) -> None:
    for position, content in zip(positions, source.fetch(positions), strict=True):
        name = str(source.ids[position]).rpartition('/')[2].removesuffix('.png')
        path = target / source.classes[source.labels[position]] / f'{name}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def train_config(name: str, faces: Path, seed: int, arguments: argparse.Namespace) -> Row:
    """Trains a config of fer_jax and returns the scores of the test split."""
    config = get_config(name)
    config.data.update({'name': '', 'dir': str(faces), 'subject': SUBJECT if any(faces.rglob('S[0-9]*')) else ''})
    config.model.image_size = arguments.image_size
    config.seed = config.data.split_seed = seed
    scores = train(config, faces.parent / 'run')['splits']['test']
    return {name: scores[name] for name in ('n', 'accuracy', 'balanced_accuracy')}


def train_own_faces(faces: Path, seed: int, arguments: argparse.Namespace) -> Row:
    """fer-jax train --data DIR"""
    return train_config('own_faces', faces, seed, arguments)


def train_quickstart(faces: Path, seed: int, arguments: argparse.Namespace) -> Row:
    """the quickstart's config"""
    return train_config('quickstart', faces, seed, arguments)


def train_timm(faces: Path, seed: int, arguments: argparse.Namespace) -> Row:
    """timm, defaults of its train.py but the epochs"""
    import torch

    from tests.torch_reference import declare_torchvision_operators

    declare_torchvision_operators()
    import timm
    from timm.data import ImageDataset, create_transform, resolve_data_config
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2

    torch.manual_seed(seed)
    classes = len(list((faces / 'train').iterdir()))
    overlay = {'file': str(timm_file())}
    model = timm.create_model(TIMM_NAME, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=classes)
    size = (3, arguments.image_size, arguments.image_size)
    shown = resolve_data_config({'input_size': size}, model=model)
    train_set = ImageDataset(
        str(faces / 'train'), transform=create_transform(**shown, is_training=True, color_jitter=0.4)
    )
    test_set = ImageDataset(str(faces / 'test'), transform=create_transform(**shown))
    batch = min(128, len(train_set))
    optimizer = create_optimizer_v2(model, opt='sgd', lr=0.1 * batch / 256, weight_decay=2e-5, momentum=0.9)
    warmup = {'warmup_epochs': 5, 'warmup_lr': 1e-5, 'min_lr': 0.0}
    scheduler, _ = create_scheduler_v2(optimizer, sched='cosine', num_epochs=arguments.epochs, **warmup)
    loss_of = LabelSmoothingCrossEntropy(0.1)
    loader = torch.utils.data.DataLoader(train_set, batch, shuffle=True, drop_last=True)
    for epoch in range(arguments.epochs):
        model.train()
        for images, labels in loader:
            optimizer.zero_grad()
            loss_of(model(images), labels).backward()
            optimizer.step()
        scheduler.step(epoch + 1)
    model.eval()
    told, labels = [], []
    with torch.no_grad():
        for images, truth in torch.utils.data.DataLoader(test_set, 100):
            told.append(model(images).numpy())
            labels.append(truth.numpy())
    return _scores(np.concatenate(told), np.concatenate(labels))


def train_fastai(faces: Path, seed: int, arguments: argparse.Namespace) -> Row:
    """fastai, vision_learner and fine_tune"""
    from tests.torch_reference import declare_torchvision_operators

    declare_torchvision_operators()
    from fastai.vision.all import ImageDataLoaders, Resize, aug_transforms, set_seed, vision_learner

    set_seed(seed, reproducible=True)
    transforms = {'item_tfms': Resize(arguments.image_size), 'batch_tfms': aug_transforms()}
    loaders = ImageDataLoaders.from_folder(faces, train='train', valid='test', num_workers=0, **transforms)
    learner = vision_learner(loaders, TIMM_NAME, pretrained=True, pretrained_cfg_overlay={'file': str(timm_file())})
    with learner.no_bar(), learner.no_logging(), contextlib.redirect_stdout(None):
        learner.fine_tune(arguments.epochs)
        probabilities, labels = learner.get_preds()
    return _scores(probabilities.numpy(), labels.numpy())


def timm_file() -> Path:
    """Returns ImageNet's weights of EfficientNet-Lite0 under timm's names, written once."""
    path = cache.root() / 'weights' / f'{TIMM_NAME}.safetensors'
    if not path.is_file():
        from safetensors.numpy import save_file

        weights = pretrained.resolve('imagenet', 'efficientnet_lite0', cache=cache.root())
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(convert_back.torch_state(weights, 'timm'), path)
    return path


def _scores(outputs: np.ndarray, labels: np.ndarray) -> Row:
    predicted = outputs.argmax(1)
    confusion = np.zeros((outputs.shape[1],) * 2, int)
    np.add.at(confusion, (labels, predicted), 1)
    accuracy = float((predicted == labels).mean())
    return {'n': len(labels), 'accuracy': accuracy, 'balanced_accuracy': balanced_accuracy(confusion)}


METHODS: dict[str, Callable[[Path, int, argparse.Namespace], Row]] = {
    'own_faces': train_own_faces,
    'quickstart': train_quickstart,
    'timm': train_timm,
    'fastai': train_fastai,
}


def table(rows: Sequence[Row]) -> str:
    """Returns Markdown: a line for each kind of data, a column a method, the mean of the seeds and each of them."""
    methods = [method for method in METHODS if any(row['method'] == method for row in rows)]
    lines = [f'| data | {" | ".join(str(METHODS[method].__doc__) for method in methods)} |']
    lines.append('|---' * (1 + len(methods)) + '|')
    for data in dict.fromkeys(row['data'] for row in rows):
        cells: list[Any] = []
        for method in methods:
            each = [100 * row['accuracy'] for row in rows if (row['data'], row['method']) == (data, method)]
            listed = ', '.join(f'{value:.1f}' for value in each)
            cells.append(f'{statistics.mean(each):.1f} % ({listed})' if each else '-')
        lines.append(f'| {data} | {" | ".join(cells)} |')
    return '\n'.join(lines) + '\n'


if __name__ == '__main__':
    sys.exit(main())
