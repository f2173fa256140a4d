"""The trained network of a run as a function of images."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from fer_jax.data.quality.unreadable import check_some_readable, read_images
from fer_jax.data.tables.table import Table
from fer_jax.data.tasks import PRIMARY
from fer_jax.inference import face_pipeline, host_batches, saliency
from fer_jax.inference.eval_step import eval_step
from fer_jax.inference.host_batches import check_images
from fer_jax.inference.tta import check_views, input_size
from fer_jax.runs import restore
from fer_jax.utils import progress
from fer_jax.utils.forked import check_not_forked

PREDICT_BATCH_SIZE = 256
TINY = np.finfo(np.float32).tiny


class TableLogits(NamedTuple):
    """The predictions of the images of a table.

    Attributes:
      positions: int [N], in the table, of the images that can be decoded.
      logits: float32 [N, classes], up to a constant per row: the logarithms of the probabilities.
      unreadable: id -> reason of the other images.
    """

    positions: np.ndarray
    logits: np.ndarray
    unreadable: dict[str, str]


class Predictor:
    """Classifies face crops with the selected checkpoint of a run.

    Attributes:
      classes: class names, in the order of the probabilities.
      image_size: side in pixels to which images are resized.
      step: training step of the checkpoint.
      folder: workdir of the run.
      temperature: temperature that calibrates the logits, fitted on the split that selected the checkpoint; 1 where the
        run has none.
    """

    def __init__(self, workdir: str | Path, *, tta: str = 'none'):
        """Restores the selected checkpoint of a run.

        Args:
          workdir: folder of the run, or 'release' for the network that comes with fer_jax.
          tta: views of each image whose probabilities are averaged: 'none', 'flip', 'tencrop' or a number of random
            ones, see `inference.tta.views`.

        Raises:
          UserError: there is no run, no evaluated checkpoint yet, no such views, or the process is a fork of one in
            which JAX had started.
        """
        check_not_forked()
        check_views(tta)
        self.folder = restore.resolve_workdir(workdir)
        network, self.step, self._variables = restore.restore_selected(workdir)
        spec, self._network, self._tta = network.spec, network, tta
        self._activation = jax.nn.sigmoid if spec.activation == 'sigmoid' else jax.nn.softmax
        self._step = jax.jit(lambda *inputs: self._activation(eval_step(*inputs, network=network, tta=tta)))
        self._hidden_logits = saliency.compile_hidden_logits(network)
        self.classes = spec.classes[PRIMARY]
        self.image_size, self._channels = spec.image_size, spec.channels
        self.temperature = restore.temperature(self.folder)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the workdir; the receiving process loads the checkpoint again."""
        return functools.partial(Predictor, tta=self._tta), (self.folder,)

    def __call__(self, images: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """Classifies face crops.

        Images are resized on the host and batches are padded to one of `host_batches.BATCH_SIZES`: a program is
        compiled at the first call with each of these sizes, and none for other sizes of images and batches.

        Args:
          images: uint8 [B, H, W, 1 or 3], grey or RGB; or one image [H, W, C], grey ones [B, H, W], or a list of images
            of different sizes, each [H, W, C] or [H, W].

        Returns:
          Probabilities float32 [B, classes]; where the run learnt attributes, the probability of each attribute.

        Raises:
          ValueError: an image is not uint8 or has another shape.
          UserError: the process is a fork of one in which JAX had started.
        """
        check_not_forked()
        batch = check_images(images)
        side = input_size(self.image_size, self._tta)
        rows = [np.zeros((0, len(self.classes)), np.float32)]
        for first, last, size in host_batches.split_into_parts(len(batch)):
            part = host_batches.pad_batch(host_batches.stack_images(batch[first:last], side), size)
            inputs = {'x': part, 'id': np.arange(first, first + size, dtype=np.int32)}
            rows.append(np.asarray(self._step(self._variables, inputs))[: last - first])
        return np.concatenate(rows)

    def calibrated(self, images: np.ndarray) -> np.ndarray:
        """Classifies images with the logits divided by the run's temperature.

        Args:
          images: see `__call__`.

        Returns:
          Calibrated probabilities float32 [B, classes]; those of attributes are not calibrated.
        """
        probabilities = self(images)
        if self._activation is jax.nn.sigmoid:
            return probabilities
        return face_pipeline.calibrated(probabilities, self.temperature)

    def explain(self, images: np.ndarray, classes: np.ndarray) -> saliency.Explanation:
        """Computes occlusion maps of images and tests them by deletion, see `inference.saliency.explain`.

        As in `__call__`, images are resized on the host and batches are padded to a few sizes.

        Args:
          images: see `__call__`.
          classes: int [B], the class index that is explained for each image.

        Raises:
          ValueError: an image is not uint8 or has another shape, or there is not one class for each image.
        """
        batch, classes = check_images(images), np.asarray(classes)
        if not len(batch) or classes.shape != (len(batch),):
            raise ValueError(f'expected images and one class for each, got {len(batch)} and {list(classes.shape)}')
        parts = []
        for first, last, size in host_batches.split_into_parts(len(batch)):
            part = host_batches.stack_images(batch[first:last], self.image_size).astype(np.float32)
            maps = saliency.explain(
                self._network,
                self._variables,
                host_batches.pad_batch(part, size),
                host_batches.pad_batch(classes[first:last], size),
                hidden_logits=self._hidden_logits,
            )
            parts.append([values[: last - first] for values in maps])
        return saliency.Explanation(*map(np.concatenate, zip(*parts, strict=True)))

    def predict_table(self, table: Table) -> TableLogits:
        """Computes the logits of the images of a table, each decoded once, as in training.

        Raises:
          UserError: none of the images can be decoded.
        """
        height, width, channels = table.shape
        own = height is not None and height == width and height <= self.image_size
        size = None if own else self.image_size
        parts, unreadable = [], dict[str, str]()
        with progress.bar(None, f'images of {table.name}', len(table)) as shown:
            for first in range(0, len(table), PREDICT_BATCH_SIZE):
                index = np.arange(first, min(first + PREDICT_BATCH_SIZE, len(table)))
                read = read_images(table, index, size, min(self._channels, channels))
                unreadable |= read.unreadable
                if read.images:
                    parts.append((read.positions, np.log(np.maximum(self(np.stack(read.images)), TINY))))
                shown.update(len(index))
        check_some_readable(table, unreadable)
        indices, logits = zip(*parts, strict=True)
        return TableLogits(np.concatenate(indices), np.concatenate(logits), unreadable)


def load(workdir: str | Path, *, tta: str = 'none') -> Predictor:
    """Loads the selected checkpoint of a run as a function of images: `fer_jax.load('runs/x')(images)`.

    Args:
      workdir: folder of a run with an evaluated checkpoint, or 'release'.
      tta: see `Predictor`.

    Raises:
      UserError: see `Predictor`.
    """
    return Predictor(workdir, tta=tta)
