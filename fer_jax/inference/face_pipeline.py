"""Faces in photographs and videos, and what they show: first located, then classified.

The two are apart: a detector, a network of its own, chooses the region; the trained network gives the distribution.
"""

import contextlib
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
from fer_jax.utils import checked_files

FACE_BATCH_SIZE = 16  # faces that are classified at once, always so many, so that one program does
MOST_WAITING = 16  # pictures that wait, decoded, for their faces' batch to fill
MOST_WAITING_BYTES = 200 * 2**20  # bytes of theirs; a picture that is larger waits for no other
MARGIN = 0.2

Classify = Callable[[np.ndarray], np.ndarray]  # uint8 [B, size, size, 3] -> float32 [B, classes]; B: FACE_BATCH_SIZE


class FacePrediction(NamedTuple):
    """A detected face and its predicted probabilities.

    Attributes:
      face: the detected face: box, confidence and landmarks.
      probabilities: float32 [classes].
      face_id: number of its person in a video; None where faces are not tracked.
    """

    face: Face
    probabilities: np.ndarray
    face_id: int | None = None


class Trained(NamedTuple):
    """The form of the training faces of a run, as the run records it.

    Attributes:
      cut: how the faces were cropped; None where it is not recorded.
      grey: True where the faces are grey.
      place: name of the file or data set that this was read from; '' where it is not recorded.
    """

    cut: Cut | None
    grey: bool
    place: str


def trained_on(workdir: Path) -> Trained:
    """Reads how the training faces of a run were cropped.

    It is read from environment.json in `workdir`, or for runs of earlier versions from the data set or folder that
    config.json names.
    """
    with contextlib.suppress(KeyError, TypeError, ValueError):
        crop = provenance.read_environment(workdir / 'environment.json')['data']['faces']
        cut = Cut(float(crop['margin']), bool(crop['aligned'])) if 'margin' in crop else None
        return Trained(cut, bool(crop['grey']), 'environment.json')
    with contextlib.suppress(FileNotFoundError, KeyError, TypeError, ValueError):
        data = checked_files.read_json(workdir / 'config.json', 'take it from a copy of that run')['data']
        if data['name']:
            return Trained(prepared.cut_of(data['name']), data['name'] in prepared.CROPS, data['name'])
        if data['dir']:
            return Trained(crop_folder.logged(Path(data['dir'])), False, str(Path(data['dir']) / crop_folder.LOG))
    return Trained(None, False, '')


class Cutting(NamedTuple):
    """The settings with which faces are cropped for a network.

    Attributes:
      margin: see `faces.crop` and `faces.align`.
      grey: True to convert crops to grey.
      description: text that describes the settings and their source.
      aligned: True to align faces by the five landmarks of the detector.
      whole: True where each picture is a face already; it is cropped to its middle square, as in evaluation.
    """

    margin: float
    grey: bool = False
    description: str = ''
    aligned: bool = False
    whole: bool = False


def cutting(workdir: Path, margin: float | None, *, aligns: bool) -> Cutting:
    """Returns the settings with which faces are cropped for a run.

    They are those of the run's training faces where the run records them, otherwise the margin is `MARGIN`.

    Args:
      workdir: folder of the run.
      margin: margin that overrides the recorded one; None keeps it.
      aligns: whether to align faces where the run does not record it.
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
    """Crops a face out of a picture in the form that the network takes.

    Args:
      image: uint8 RGB [H, W, 3].
      face: the face; a face without landmarks is not aligned.
      size: side of the crop in pixels.
      cutting: see `Cutting`.

    Returns:
      uint8 [size, size, 3].
    """
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
    """Yields every picture, in order, with its classified faces.

    Faces of several pictures are classified together in batches of `FACE_BATCH_SIZE`. At most `MOST_WAITING` pictures
    or about `MOST_WAITING_BYTES` bytes wait for a batch to fill; pictures of a live source do not wait.

    Args:
      frames: pictures; those with `faces` set are not searched.
      detect: see `faces.detector`.
      classify: see `Classify`.
      size: side of the crops in pixels.
      cutting: see `Cutting`.
    """
    waiting: list[tuple[Frame, list[Face]]] = []
    crops: list[np.ndarray] = []
    held = 0

    def classified() -> Iterator[tuple[Frame, list[FacePrediction]]]:
        starts = range(0, len(crops), FACE_BATCH_SIZE)
        parts = [_classified(classify, crops[start : start + FACE_BATCH_SIZE]) for start in starts]
        rows = iter(np.concatenate(parts) if parts else ())
        for frame, detections in waiting:
            yield frame, [FacePrediction(face, next(rows)) for face in detections]
        waiting.clear()
        crops.clear()

    for frame in frames:
        detections = frame.faces or []
        if frame.faces is None and frame.image is not None:
            detections = detect(frame.image)
        waiting.append((frame, detections))
        if frame.image is not None:
            crops += [cut_out(frame.image, face, size, cutting) for face in detections]
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
    """Divides the logits of probabilities by a temperature and applies softmax again.

    Args:
      probabilities: float [..., classes].
      temperature: above 0; 1 leaves the probabilities.

    Returns:
      float32 [..., classes].
    """
    logits = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny)) / temperature
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True)).astype(np.float32)


def record(
    frame: Frame, prediction: FacePrediction, classes: tuple[str, ...], *, number: int, abstain_below: float
) -> dict[str, Any]:
    """Returns the JSON record of one face: a line of `fer-jax predict`.

    Args:
      frame: the picture.
      prediction: the face and its probabilities.
      classes: class names.
      number: index of the face in its picture.
      abstain_below: probability of the label below which `abstained` is True.
    """
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
    """Returns the fields that identify a picture: 'file', and for a video or camera 'frame' and 'seconds'."""
    if not frame.source.moves:
        return {'file': frame.source.label}
    return {'file': frame.source.label, 'frame': frame.number, 'seconds': round(frame.seconds, 3)}
