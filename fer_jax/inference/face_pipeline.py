"""Faces in photographs and videos, and what they show: first located, then classified.

The two are apart: a detector, a network of its own, chooses the region; the trained network gives the distribution.
"""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fer_jax.data.imaging import crop_folder, faces
from fer_jax.data.imaging.codec import fit_square
from fer_jax.data.imaging.crop_folder import Cut
from fer_jax.data.imaging.faces import Detector, Face
from fer_jax.data.sources import prepared
from fer_jax.inference.media import Frame
from fer_jax.runs import provenance

FACE_BATCH_SIZE = 16  # faces that are classified at once, always so many, so that one program does
MOST_WAITING = 16  # pictures that wait, decoded, for their faces' batch to fill
MOST_WAITING_BYTES = 200 * 2**20  # bytes of theirs; a picture that is larger waits for no other
MARGIN = 0.2

Classify = Callable[[np.ndarray], np.ndarray]  # uint8 [B, size, size, 3] -> float32 [B, classes]; B: FACE_BATCH_SIZE


class FacePrediction(NamedTuple):
    """One face and what it shows.

    Attributes:
      face: where it is.
      probabilities: float32 [classes].
      face_id: number of its person in a video, None where faces are not tracked.
    """

    face: Face
    probabilities: np.ndarray
    face_id: int | None = None


class Trained(NamedTuple):
    """The training faces of a run, as the run records them.

    Attributes:
      cut: how they were cut out, None where it does not tell.
      grey: they have no colour.
      place: where that stands.
    """

    cut: Cut | None
    grey: bool
    place: str


def trained_on(workdir: Path) -> Trained:
    """Reads how the training faces of a run were cut out: from its record, or for an earlier version from its data."""
    with contextlib.suppress(KeyError, TypeError, ValueError):
        found = provenance.read_environment(workdir / 'environment.json')['data']['faces']
        cut = Cut(float(found['margin']), bool(found['aligned'])) if 'margin' in found else None
        return Trained(cut, bool(found['grey']), 'environment.json')
    with contextlib.suppress(OSError, KeyError, TypeError, ValueError):
        data = json.loads((workdir / 'config.json').read_text())['data']
        if data['name']:
            return Trained(prepared.cut_of(data['name']), data['name'] in prepared.CROPS, data['name'])
        if data['dir']:
            return Trained(crop_folder.logged(Path(data['dir'])), False, str(Path(data['dir']) / crop_folder.LOG))
    return Trained(None, False, '')


class Cutting(NamedTuple):
    """How faces are cut out for a network.

    Attributes:
      margin: see `faces.crop`, `faces.align`.
      grey: crops lose their colour.
      description: that, and where it is known from, in words.
      aligned: by the five points of the detector.
      whole: pictures are faces, and are read as in evaluation: the middle square.
    """

    margin: float
    grey: bool = False
    description: str = ''
    aligned: bool = False
    whole: bool = False


def cutting(workdir: Path, margin: float | None, *, aligns: bool) -> Cutting:
    """Returns how to cut out faces for a run: as its training faces were where it tells, else with `MARGIN`.

    Args:
      margin: one that is wanted instead.
      aligns: whether to align faces where the run does not tell.
    """
    cut, grey, place = trained_on(workdir)
    if margin is not None:
        description = f'margin {margin:g}, as given'
        if cut and cut.margin != margin:
            description += f'; it was trained on faces with {cut.margin:g} ({place})'
    elif cut:
        margin = cut.margin
        description = f'margin {margin:g}, that of the faces it was trained on ({place})'
    else:
        margin = MARGIN
        description = f'margin {margin:g}: the run does not tell how its faces were cut out; --margin sets another'
    aligned = cut.aligned if cut else aligns
    if aligned:
        description += '; aligned by five points' + (', as those are' if cut else '')
    return Cutting(margin, grey, description + ('; made grey, as those are' if grey else ''), aligned)


def cut_out(image: np.ndarray, face: Face, size: int, cutting: Cutting) -> np.ndarray:
    """Cuts a face out as the network is to see it: uint8 [size, size, 3]."""
    if cutting.whole:
        cut = fit_square(image, size)
    elif cutting.aligned and face.landmarks is not None:
        cut = faces.align(image, face.landmarks, size, cutting.margin)
    else:
        cut = faces.crop(image, face.box, cutting.margin, size)
    if not cutting.grey:
        return cut
    import cv2

    return np.repeat(cv2.cvtColor(cut, cv2.COLOR_RGB2GRAY)[..., None], 3, -1)


def look(
    frames: Iterable[Frame],
    detect: Detector,
    classify: Classify,
    *,
    size: int,
    cutting: Cutting,
) -> Iterator[tuple[Frame, list[FacePrediction]]]:
    """Yields every picture, in order, with its faces, the most certain first.

    Faces of several pictures are classified together; at most `MOST_WAITING` pictures, of `MOST_WAITING_BYTES`, wait
    for that, but none of a camera.

    Args:
      detect: see `faces.detector`; for frames whose faces are not known already.
      classify: see `Classify`.
      size: side of the crops in pixels.
    """
    waiting: list[tuple[Frame, list[Face]]] = []
    crops: list[np.ndarray] = []
    held = 0

    def classified() -> Iterator[tuple[Frame, list[FacePrediction]]]:
        starts = range(0, len(crops), FACE_BATCH_SIZE)
        parts = [_classified(classify, crops[start : start + FACE_BATCH_SIZE]) for start in starts]
        rows = iter(np.concatenate(parts) if parts else ())
        for frame, found in waiting:
            yield frame, [FacePrediction(face, next(rows)) for face in found]
        waiting.clear()
        crops.clear()

    for frame in frames:
        found = frame.faces or []
        if frame.faces is None and frame.image is not None:
            found = detect(frame.image)
        waiting.append((frame, found))
        if frame.image is not None:
            crops += [cut_out(frame.image, face, size, cutting) for face in found]
            held += frame.image.nbytes
        full = len(crops) >= FACE_BATCH_SIZE or len(waiting) >= MOST_WAITING or held > MOST_WAITING_BYTES
        if frame.source.live or full:
            yield from classified()
            held = 0
    yield from classified()


def _classified(classify: Classify, crops: list[np.ndarray]) -> np.ndarray:
    batch = np.zeros((FACE_BATCH_SIZE, *crops[0].shape), np.uint8)
    batch[: len(crops)] = crops
    return classify(batch)[: len(crops)]


def calibrated(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Divides the logits of probabilities by `temperature`; returns the new softmax, float32 [..., classes]."""
    logits = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny)) / temperature
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True)).astype(np.float32)


def record(
    frame: Frame, prediction: FacePrediction, classes: tuple[str, ...], *, number: int, abstain_below: float
) -> dict[str, Any]:
    """Returns one face as it is written: a line of JSON."""
    best = int(prediction.probabilities.argmax())
    return {
        **place(frame),
        'face': number,
        **({} if prediction.face_id is None else {'face_id': prediction.face_id}),
        'box': [round(value, 1) for value in prediction.face.box],
        'detector': round(prediction.face.confidence, 4),
        'label': classes[best],
        'confidence': round(float(prediction.probabilities[best]), 4),
        'abstained': bool(prediction.probabilities[best] < abstain_below),
        'probabilities': dict(zip(classes, [round(float(p), 4) for p in prediction.probabilities], strict=True)),
    }


def place(frame: Frame) -> dict[str, Any]:
    """Returns {'file', 'frame', 'seconds'} of a picture; a photograph has no frames."""
    if not frame.source.moves:
        return {'file': frame.source.label}
    return {'file': frame.source.label, 'frame': frame.number, 'seconds': round(frame.seconds, 3)}
