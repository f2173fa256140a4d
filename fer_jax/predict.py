"""A trained network as a function of images, and on photographs and videos.

    python -m fer_jax.predict --workdir runs/x photo.jpg holiday/ film.mp4 camera:0 --out seen

finds the faces and says what each shows: JSON lines on standard output or, with --out, in predictions.jsonl there,
beside annotated copies of the pictures and a timeline of each video.
"""

import argparse
import contextlib
import functools
import itertools
import json
import logging
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

import jax
import numpy as np

from fer_jax.data.imaging import faces
from fer_jax.data.imaging.codec import decode
from fer_jax.data.tables.table import Table
from fer_jax.data.tasks import PRIMARY
from fer_jax.errors import UserError
from fer_jax.inference import drawing, face_pipeline, media, saliency
from fer_jax.inference.face_pipeline import Told
from fer_jax.inference.media import Frame, Source
from fer_jax.runs import restore
from fer_jax.training.train_step import check_views, eval_step
from fer_jax.utils import progress
from fer_jax.utils.signals import Stopped, stop_request

BATCH = 256
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
            ones, see `training.train_step.views`.

        Raises:
          UserError: there is no run, or no evaluated checkpoint yet, or no such views.
        """
        check_views(tta)
        self.folder = restore.located(workdir)
        network, self.step, self._params, self._stats = restore.restore(workdir)
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

    def explain(self, images: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Where in images the evidence is; see `inference.saliency.explain`.

        Args:
          images: uint8 [B, H, W, C].
          classes: int [B], numbers in `classes`.

        Returns:
          For these classes float32 [B, h, w], 0 or more; for and against every class float32 [B, classes, h, w], or
          None where the head is not linear in the last map.
        """
        return saliency.explain(self._network, self._params, self._stats, images, classes)

    def of_table(self, table: Table) -> np.ndarray:
        """Logits float32 [N, classes], up to a constant a row, of every image of a table, decoded as in training."""
        height, width, channels = table.shape
        own = height is not None and height == width and height <= self.image_size
        size = None if own else self.image_size
        parts = []
        with progress.bar(None, f'images of {table.name}', len(table)) as shown:
            for first in range(0, len(table), BATCH):
                index = np.arange(first, min(first + BATCH, len(table)))
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


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, 2 where an input is wrong (the others are done), 75 where it was stopped."""
    parser = argparse.ArgumentParser(
        prog='python -m fer_jax.predict', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('paths', nargs='+', metavar='PATH', help='photograph, video, folder of them, or camera:0')
    parser.add_argument('--workdir', required=True, help='of a run with an evaluated checkpoint, or release')
    parser.add_argument('--out', type=Path, help='folder for predictions.jsonl and annotated copies')
    parser.add_argument('--margin', type=float, help="around each face, as a share of it; the training data's, or 0.2")
    parser.add_argument('--abstain_below', type=float, default=0.0, help='probability below which it does not say')
    parser.add_argument('--every', type=int, default=1, help='of a video, look at every so many frames')
    parser.add_argument('--yunet', type=Path, help="ONNX file of OpenCV's YuNet: faces are aligned by its landmarks")
    parser.add_argument('--tta', default='none', help='views of each face: none, flip, tencrop or a number')
    arguments = parser.parse_args(argv)
    logging.getLogger('absl').setLevel(logging.ERROR)  # Orbax warns of every run that it only reads
    try:
        with stop_request() as request:
            return _predict(arguments)
    except Stopped:
        print(f'stopped by {request.name}; what was looked at is written', file=sys.stderr)
        return 75
    except UserError as error:
        print(f'fer_jax: {error}', file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read the lines has seen enough
        _drop_lines()
        return 0
    except OSError as error:
        if not arguments.out:
            _drop_lines()
        place, reason = error.filename or arguments.out or 'the output', error.strerror or error
        print(f'fer_jax: {place}: {reason}; make room, or name what may be read and written', file=sys.stderr)
        return 2


def _drop_lines() -> None:
    """What is buffered could not be written at exit either."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _predict(arguments: argparse.Namespace) -> int:
    for name, fits, expected in (
        ('margin', arguments.margin is None or 0 <= arguments.margin <= 10, '0 to 10'),
        ('abstain_below', 0 <= arguments.abstain_below <= 1, 'a probability'),
        ('every', arguments.every >= 1, '1 or more'),
    ):
        if not fits:
            raise UserError(f'--{name}={getattr(arguments, name)}; expected {expected}')
    given = media.sources(arguments.paths)
    if arguments.out:
        _make(arguments.out, arguments.paths, given)
    detect = faces.detector(arguments.yunet)
    predictor = Predictor(arguments.workdir, tta=arguments.tta)
    cutting = face_pipeline.cutting(predictor.folder, arguments.margin, aligns=arguments.yunet is not None)
    print(cutting.told, file=sys.stderr)
    pictures = itertools.chain.from_iterable(media.read(source, every=arguments.every) for source in given)
    size = predictor.image_size
    seen = face_pipeline.look(pictures, detect, predictor.calibrated, size=size, cutting=cutting)
    missed = 0
    with contextlib.ExitStack() as stack:
        written: TextIO = sys.stdout
        if arguments.out:
            written = stack.enter_context((arguments.out / 'predictions.jsonl').open('w'))
        total = sum(-(-source.frames // arguments.every) for source in given)
        shown = stack.enter_context(progress.bar(None, 'looking', total if all(s.frames for s in given) else None))
        names = _names(given)
        for source, of_source in itertools.groupby(seen, lambda one: one[0].source):
            missed += _write(source, names[source], of_source, predictor.classes, arguments, written, shown)
    if arguments.out:
        print(f'predictions.jsonl and annotated copies are in {arguments.out}')
    if missed:
        print(f'fer_jax: {missed} of {len(given)} could not be read, or not whole; see above', file=sys.stderr)
    return 2 if missed else 0


def _write(
    source: Source,
    name: str,
    seen: Iterable[tuple[Frame, list[Told]]],
    classes: tuple[str, ...],
    arguments: argparse.Namespace,
    written: TextIO,
    shown: Any,
) -> bool:
    """Writes what was seen of one source, as lines and as its annotated copy; whether some of it could not be read."""
    missed = False
    out: Path | None = arguments.out
    say = shown.write if sys.stderr.isatty() else print  # past a bar that moves
    with contextlib.ExitStack() as stack:
        film = None
        if out and source.moves:
            film = stack.enter_context(drawing.Film(out, name, source.rate / arguments.every, classes))
        for frame, told in seen:
            if frame.image is None:
                missed = True
                say(f'fer_jax: {frame.error}', file=sys.stderr)
                print(json.dumps(face_pipeline.place(frame) | {'error': frame.error}), file=written, flush=True)
                continue
            options = {'abstain_below': arguments.abstain_below}
            lines = [face_pipeline.record(frame, one, classes, number=at, **options) for at, one in enumerate(told)]
            for line in lines or [face_pipeline.place(frame) | {'faces': 0}]:
                print(json.dumps(line), file=written, flush=True)
            if film:
                largest = max(told, key=lambda one: one.face.box[2] * one.face.box[3], default=None)
                picture = drawing.drawn(frame.image, lines)
                film.add(picture, frame.seconds, None if largest is None else largest.probabilities)
            elif out:
                drawing.save_jpeg(out / f'{name}.jpg', drawing.drawn(frame.image, lines))
            if not told and not source.moves:
                say(f'{source.name}: no face', file=sys.stderr)
            shown.update()
    return missed


def _make(out: Path, paths: Sequence[str], given: Sequence[Source]) -> None:
    """Makes the folder of the copies, which have the names of what they are copies of, and may not be where that is."""
    for path in paths:
        if Path(path).is_dir() and out.resolve().is_relative_to(Path(path).resolve()):
            raise UserError(f'--out={str(out)!r} lies inside {path!r}; the next call would take copies for photographs')
    for file in (Path(source.name) for source in given if not source.live):
        if out.resolve() in (file.parent.resolve(), file.resolve().parent):
            said = f'--out={str(out)!r} is the folder of {str(file)!r}, whose copy would replace it; give another'
            raise UserError(said)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'--out={str(out)!r} cannot be made ({error.strerror}); give another folder') from None


def _names(given: Sequence[Source]) -> dict[Source, str]:
    """Of the annotated copies: each source's own, with a number where two would be the same."""
    names: dict[Source, str] = {}
    taken: set[str] = set()
    for source in given:
        stem = Path(source.name.replace(':', '_')).stem
        candidates = itertools.chain([stem], (f'{stem}~{count}' for count in itertools.count(2)))
        names[source] = next(name for name in candidates if name not in taken)
        taken.add(names[source])
    return names


if __name__ == '__main__':
    sys.exit(main())
