"""A trained network as a function of images."""

import functools
from pathlib import Path

import jax
import numpy as np

from fer_jax.data.imaging.codec import decode
from fer_jax.data.tables.table import Table
from fer_jax.data.tasks import PRIMARY
from fer_jax.inference import face_pipeline, saliency
from fer_jax.inference.eval_step import eval_step
from fer_jax.inference.tta import check_views
from fer_jax.runs import restore
from fer_jax.utils import progress

PREDICT_BATCH_SIZE = 256
TINY = np.finfo(np.float32).tiny


class Predictor:
    """Images in, probabilities out.

    Attributes:
      classes: class names, in the order of the probabilities.
      image_size: side at which faces were scored; others are resized to it.
      step: of the checkpoint.
      folder: of the run.
      temperature: that calibrates it, fitted on the selecting split; 1 where none is known.
    """

    def __init__(self, workdir: str | Path, *, tta: str = 'none'):
        """Restores the selected checkpoint of the run in `workdir`, or the network that comes with fer_jax, 'release'.

        Args:
          tta: views of each image whose probabilities are averaged: 'none', 'flip', 'tencrop' or a number of random
            ones, see `inference.tta.views`.

        Raises:
          UserError: there is no run, or no evaluated checkpoint yet, or no such views.
        """
        check_views(tta)
        self.folder = restore.resolve_workdir(workdir)
        network, self.step, self._params, self._stats = restore.restore_selected(workdir)
        spec, self._network = network.spec, network
        self._step = jax.jit(functools.partial(eval_step, network=network, tta=tta))
        self._activation = jax.nn.sigmoid if spec.activation == 'sigmoid' else jax.nn.softmax
        self.classes = spec.classes[PRIMARY]
        self.image_size, self._channels = spec.image_size, spec.channels
        self.temperature = restore.temperature(self.folder)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Classifies aligned face crops.

        Args:
          images: uint8 [B, H, W, 1 or 3] of any one size, grey or RGB; one image [H, W, C] and
            grey ones [B, H, W] are understood too.

        Returns:
          Probabilities float32 [B, classes], of each attribute where the run learnt attributes.

        Raises:
          ValueError: the array is not uint8 or has another shape.
        """
        images = np.asarray(images)
        if images.ndim == 3:
            images = images[None] if images.shape[-1] in (1, 3) else images[..., None]
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
            raise ValueError(f'expected uint8 images [B, H, W, 1 or 3], got {images.dtype} {list(images.shape)}')
        batch = {'x': images, 'id': np.arange(len(images), dtype=np.int32)}
        logits = self._step(self._params, self._stats, batch)
        return np.asarray(self._activation(logits))

    def calibrated(self, images: np.ndarray) -> np.ndarray:
        """As a call, with the run's temperature: a probability is then a share of right answers."""
        probabilities = self(images)
        if self._activation is jax.nn.sigmoid:
            return probabilities
        return face_pipeline.calibrated(probabilities, self.temperature)

    def explain(self, images: np.ndarray, classes: np.ndarray) -> saliency.Explanation:
        """Computes occlusion maps, and tests them; see `inference.saliency.explain`.

        Args:
          images: uint8 [B, H, W, C].
          classes: int [B], numbers in `classes`.
        """
        return saliency.explain(self._network, self._params, self._stats, images, classes)

    def of_table(self, table: Table) -> np.ndarray:
        """Logits float32 [N, classes], up to a constant a row, of every image of a table, decoded as in training."""
        height, width, channels = table.shape
        own = height is not None and height == width and height <= self.image_size
        size = None if own else self.image_size
        parts = []
        with progress.bar(None, f'images of {table.name}', len(table)) as shown:
            for first in range(0, len(table), PREDICT_BATCH_SIZE):
                index = np.arange(first, min(first + PREDICT_BATCH_SIZE, len(table)))
                faces = [
                    decode(data, size, min(self._channels, channels), f'{table.name}/{table.ids[at]}')
                    for at, data in zip(index, table.fetch(index), strict=True)
                ]
                parts.append(np.log(np.maximum(self(np.stack(faces)), TINY)))
                shown.update(len(index))
        return np.concatenate(parts)


def load(workdir: str | Path, *, tta: str = 'none') -> Predictor:
    """`fer_jax.load('runs/x')(images)`: the selected checkpoint of a run as a function."""
    return Predictor(workdir, tta=tta)
