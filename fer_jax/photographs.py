"""Faces in photographs and videos, and what they show: first located, then classified.

The two are apart: a detector, a network of its own, chooses the region; the trained network gives the distribution.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fer_jax.data import crop_folder, faces
from fer_jax.data.faces import Detector, Face
from fer_jax.frames import Frame

BATCH = 16  # faces that are classified at once, always so many, so that one program does
AHEAD = 16  # pictures that wait, decoded, for their faces' batch to fill
HELD = 200 * 2**20  # bytes of theirs; a picture that is larger waits for no other
MARGIN = 0.2
MARGINS = {'fer2013': 0.0, 'ferplus': 0.0, 'ckplus': 0.0}  # of published crops, see docs/photographs.md

Classify = Callable[[np.ndarray], np.ndarray]  # uint8 [BATCH, size, size, 3] -> float32 [BATCH, classes]


class Told(NamedTuple):
    """One face and the probabilities of its classes, float32 [classes]."""

    face: Face
    probabilities: np.ndarray


def margin_of(workdir: Path) -> float:
    """What was left around the faces that a run was trained on, where its data tell; else `MARGIN`.

    A folder that `prepare_dataset.py --crop_faces` made says it in its log; sets that are published as crops have that
    of `MARGINS`.
    """
    try:
        data = json.loads((workdir / 'config.json').read_text())['data']
        if data['name'] in MARGINS:
            return MARGINS[data['name']]
        with (Path(data['dir']) / crop_folder.LOG).open() as log:
            return float(json.loads(log.readline())['margin'])
    except (OSError, ValueError, KeyError, TypeError):
        return MARGIN


def cut_out(image: np.ndarray, face: Face, size: int, margin: float) -> np.ndarray:
    """uint8 [size, size, 3]: the face as the network is to see it, aligned where the detector found its points."""
    if face.landmarks is None:
        return faces.crop(image, face.box, margin, size)
    return faces.align(image, face.landmarks, size, margin)


def look(
    frames: Iterable[Frame],
    detect: Detector,
    classify: Classify,
    *,
    size: int,
    margin: float,
) -> Iterator[tuple[Frame, list[Told]]]:
    """Every picture, in order, with its faces, the most certain first.

    Faces of several pictures are classified together; at most `AHEAD` pictures, of `HELD` bytes, wait for that.

    Args:
      detect: see `faces.detector`.
      classify: see `Classify`.
      size: side of the crops in pixels.
      margin: see `faces.crop`.
    """
    waiting: list[tuple[Frame, list[Face]]] = []
    crops: list[np.ndarray] = []
    held = 0

    def told() -> Iterator[tuple[Frame, list[Told]]]:
        parts = [_classified(classify, crops[at : at + BATCH]) for at in range(0, len(crops), BATCH)]
        rows = iter(np.concatenate(parts) if parts else ())
        for frame, found in waiting:
            yield frame, [Told(face, next(rows)) for face in found]
        waiting.clear()
        crops.clear()

    for frame in frames:
        found = [] if frame.image is None else detect(frame.image)
        waiting.append((frame, found))
        if frame.image is not None:
            crops += [cut_out(frame.image, face, size, margin) for face in found]
            held += frame.image.nbytes
        if len(crops) >= BATCH or len(waiting) >= AHEAD or held > HELD:
            yield from told()
            held = 0
    yield from told()


def _classified(classify: Classify, crops: list[np.ndarray]) -> np.ndarray:
    batch = np.zeros((BATCH, *crops[0].shape), np.uint8)
    batch[: len(crops)] = crops
    return classify(batch)[: len(crops)]


def calibrated(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Of softmax: those of the logits divided by `temperature`, float32 [..., classes]."""
    logits = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny)) / temperature
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True)).astype(np.float32)


def record(frame: Frame, told: Told, classes: tuple[str, ...], *, number: int, abstain_below: float) -> dict[str, Any]:
    """One face as it is written: a line of JSON."""
    best = int(told.probabilities.argmax())
    return {
        **place(frame),
        'face': number,
        'box': [round(value, 1) for value in told.face.box],
        'detector': round(told.face.confidence, 4),
        'label': classes[best],
        'confidence': round(float(told.probabilities[best]), 4),
        'abstained': bool(told.probabilities[best] < abstain_below),
        'probabilities': dict(zip(classes, [round(float(p), 4) for p in told.probabilities], strict=True)),
    }


def place(frame: Frame) -> dict[str, Any]:
    """{'file', 'frame', 'seconds'}: which picture; a photograph has no frames."""
    if not frame.source.moves:
        return {'file': frame.source.name}
    return {'file': frame.source.name, 'frame': frame.number, 'seconds': round(frame.seconds, 3)}
