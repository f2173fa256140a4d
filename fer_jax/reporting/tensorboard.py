"""Final scores and pictures of a run for TensorBoard."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.data.dataset import Dataset
from fer_jax.utils import image_grid

SAMPLES = 32


def write_final_results(workdir: Path, results: Mapping[str, Any], data: Dataset) -> None:
    """Writes scores of the splits not used for selection, the figures, and labelled training images to TensorBoard.

    Args:
      workdir: folder of the run; the figures of its splits are read from it.
      results: results in the form of results.json.
      data: the run's data set.
    """
    from tensorboardX import SummaryWriter

    board, step = SummaryWriter(str(workdir / 'tensorboard')), results['step']
    for split, scores in results['splits'].items():
        for name, value in scores.items() if split != results['selected_on'].split('/')[0] else ():
            if isinstance(value, float):
                board.add_scalar(f'{split}/{"loss" if name == "nll" else name}', value, step)
        for kind in ('confusion', 'attributes'):
            path = workdir / f'{kind}_{split.replace("/", "_")}.png'
            if path.is_file():
                board.add_image(f'{kind}/{split}', _read_png(path), step, dataformats='HWC')
    index = np.unique(np.linspace(0, len(data.splits['train'].labels) - 1, SAMPLES).astype(int))
    labels = [data.describe_example('train', each) for each in index]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'samples.png')
        split = data.splits['train']
        image_grid.write_image_grid(path, split.ids[index].tolist(), labels, split.read(index))
        board.add_image('train/samples', _read_png(path), 0, dataformats='HWC')
    board.close()


def _read_png(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert('RGB'))
