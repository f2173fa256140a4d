"""Final scores and pictures of a run for TensorBoard."""

import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.data.dataset import Dataset
from fer_jax.utils import image_grid

SAMPLES = 32


class TensorBoard:
    """Writes scalars and pictures for TensorBoard, in this thread: where a disk fails, the call raises.

    tensorboardX's own writer has a thread, which prints a traceback then, and whoever writes on waits for it for ever.
    """

    def __init__(self, folder: Path, purge_step: int | None = None):
        """Begins a new file of events.

        Args:
          folder: where the file goes.
          purge_step: first step of earlier files that is no longer shown; None to show all.
        """
        hide_torch = 'torch' not in sys.modules  # tensorboardX imports it where it is installed: seconds
        if hide_torch:
            sys.modules['torch'] = None  # type: ignore[assignment]
        try:
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto import event_pb2
        finally:
            if hide_torch:
                del sys.modules['torch']

        folder.mkdir(parents=True, exist_ok=True)
        self._event, self._writer = event_pb2.Event, EventsWriter(str(folder / 'events'))
        if purge_step is not None:
            self._write(step=purge_step, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """Adds a number."""
        from tensorboardX.summary import scalar

        self._write(step=step, summary=scalar(tag, value))

    def add_image(self, tag: str, pixels: np.ndarray, step: int) -> None:
        """Adds a picture, uint8 [H, W, 3]."""
        from tensorboardX.summary import image

        self._write(step=step, summary=image(tag, pixels, dataformats='HWC'))

    def _write(self, **fields: Any) -> None:
        self._writer.write_event(self._event(wall_time=time.time(), **fields))

    def flush(self) -> None:
        """Writes all that was added to the disk."""
        self._writer.flush()

    def close(self) -> None:
        """Writes all that was added to the disk, and closes the file."""
        self._writer.close()


def write_final_results(workdir: Path, results: Mapping[str, Any], data: Dataset) -> None:
    """Writes scores of the splits not used for selection, the figures, and labelled training images to TensorBoard.

    Args:
      workdir: folder of the run; the figures of its splits are read from it.
      results: results in the form of results.json.
      data: the run's data set.
    """
    board, step = TensorBoard(workdir / 'tensorboard'), results['step']
    for split, scores in results['splits'].items():
        for name, value in scores.items() if split != results['selected_on'].split('/')[0] else ():
            if isinstance(value, float):
                board.add_scalar(f'{split}/{"loss" if name == "nll" else name}', value, step)
        for kind in ('confusion', 'attributes'):
            path = workdir / f'{kind}_{split.replace("/", "_")}.png'
            if path.is_file():
                board.add_image(f'{kind}/{split}', _read_png(path), step)
    index = np.unique(np.linspace(0, len(data.splits['train'].labels) - 1, SAMPLES).astype(int))
    labels = [data.describe_example('train', each) for each in index]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'samples.png')
        split = data.splits['train']
        image_grid.write_image_grid(path, split.ids[index].tolist(), labels, split.read(index))
        board.add_image('train/samples', _read_png(path), 0)
    board.close()


def _read_png(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert('RGB'))
