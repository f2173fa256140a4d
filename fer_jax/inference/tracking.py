"""Who is who in a video: faces of successive frames that belong to one person have one number, `face_id`.

A face is where the motion of a track leads to, of a similar size, and looks alike; the pairs of all tracks and faces
of a frame are chosen together, with the least total cost (the Hungarian method).
"""

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from fer_jax.data.imaging import faces
from fer_jax.data.imaging.faces import Face
from fer_jax.inference.face_pipeline import FacePrediction
from fer_jax.inference.media import Frame, Source

MOST_GAP_SECONDS = 1.5  # without the face, after which its track ends
REACH = 0.7  # sides of a face by which it may be away from where its track leads to
REACH_PER_SECOND = 2.0  # by which more for every second without it
MOST_SIZE_RATIO = 2.0
LEAST_LIKENESS = 0.1  # correlation of the pixels of two faces
CUT_LIKENESS = 0.4  # of two successive frames: less is a cut, after which all faces are new
VELOCITY_SECONDS = 0.3  # over which a velocity is averaged
APPEARANCE_SHARE = 0.2  # of a new frame in the appearance of a track
THUMBNAIL_SIDE = 12  # px
IMPOSSIBLE = 1e6  # cost


class Track:
    """The track of one person: the last known position, velocity, appearance and probabilities."""

    def __init__(self, number: int, face: Face, look: np.ndarray, seconds: float, probabilities: np.ndarray):
        self.number, self.probabilities = number, probabilities
        self._middle, self._side = _middle(face), _side(face)
        self._velocity = np.zeros(2)
        self._look, self.seconds = look, seconds

    def cost(self, face: Face, look: np.ndarray, seconds: float) -> float:
        """Computes the cost of assigning a face to this track.

        Args:
          face: the face.
          look: float64 thumbnail of the face, normalised, see `_thumbnail`.
          seconds: time of its frame since the beginning of the video.

        Returns:
          0 for an equal face at the expected position, more for one that differs more; `IMPOSSIBLE` where distance,
          size or appearance differ too much.
        """
        gap = seconds - self.seconds
        distance = float(np.linalg.norm(_middle(face) - self._middle - gap * self._velocity))
        distance /= (self._side + _side(face)) / 2
        ratio = abs(math.log(_side(face) / self._side))
        likeness = float((look * self._look).sum())
        if distance > REACH + REACH_PER_SECOND * gap or ratio > math.log(MOST_SIZE_RATIO) or likeness < LEAST_LIKENESS:
            return IMPOSSIBLE
        return distance + ratio + (1 - likeness)

    def update(self, face: Face, look: np.ndarray, seconds: float, probabilities: np.ndarray, smoothing: float) -> None:
        """Assigns a face to the track and updates its position, velocity, appearance and probabilities.

        Args:
          face: the face.
          look: float64 thumbnail of the face, normalised, see `_thumbnail`.
          seconds: time of its frame since the beginning of the video.
          probabilities: float [classes] of the face.
          smoothing: time constant, in seconds, of the exponential average of the probabilities; 0 does not average.
        """
        gap = max(seconds - self.seconds, 1e-6)
        share = 1 - math.exp(-gap / VELOCITY_SECONDS)
        self._velocity += share * ((_middle(face) - self._middle) / gap - self._velocity)
        self._middle, self._side, self.seconds = _middle(face), _side(face), seconds
        self._look = _normalised(self._look + APPEARANCE_SHARE * (look - self._look))
        share = 1 - math.exp(-gap / smoothing) if smoothing else 1.0
        self.probabilities = self.probabilities + share * (probabilities - self.probabilities)


class Tracker:
    """Assigns track numbers to the faces of one video, frame by frame."""

    def __init__(self, smoothing_seconds: float = 0.0):
        """Creates a tracker without tracks.

        Args:
          smoothing_seconds: time constant of the averaging of each person's probabilities; 0 does not average.
        """
        self._smoothing = smoothing_seconds
        self._tracks: list[Track] = []
        self._count = 0
        self._scene: np.ndarray | None = None

    def update(self, image: np.ndarray, predictions: list[FacePrediction], seconds: float) -> list[FacePrediction]:
        """Assigns the faces of the next frame to tracks.

        Args:
          image: uint8 RGB [H, W, 3].
          predictions: its faces.
          seconds: time since the beginning of the video, more than that of the frame before.

        Returns:
          The predictions with `face_id` set and probabilities averaged.
        """
        from scipy.optimize import linear_sum_assignment

        scene = _thumbnail(image, (0.0, 0.0, float(image.shape[1]), float(image.shape[0])))
        if self._scene is not None and (scene * self._scene).sum() < CUT_LIKENESS:
            self._tracks.clear()
        self._scene = scene
        self._tracks = [track for track in self._tracks if seconds - track.seconds <= MOST_GAP_SECONDS]
        looks = [_thumbnail(image, prediction.face.box) for prediction in predictions]
        costs = np.array(
            [
                [track.cost(prediction.face, look, seconds) for track in self._tracks]
                for prediction, look in zip(predictions, looks, strict=True)
            ]
        ).reshape(len(predictions), len(self._tracks))
        matched = {
            row: self._tracks[column]
            for row, column in zip(*linear_sum_assignment(costs), strict=True)
            if costs[row, column] < IMPOSSIBLE
        }
        result = []
        for row, (prediction, look) in enumerate(zip(predictions, looks, strict=True)):
            if row in matched:
                track = matched[row]
                track.update(prediction.face, look, seconds, prediction.probabilities, self._smoothing)
            else:
                track = Track(self._count, prediction.face, look, seconds, prediction.probabilities)
                self._tracks.append(track)
                self._count += 1
            result.append(prediction._replace(face_id=track.number, probabilities=track.probabilities))
        return result


def track_faces(
    seen: Iterable[tuple[Frame, list[FacePrediction]]], *, smoothing_seconds: float = 0.0
) -> Iterator[tuple[Frame, list[FacePrediction]]]:
    """Yields the pairs of `face_pipeline.look` with a `face_id` for every face of a video or camera.

    Args:
      seen: frames with their faces; those of one source follow each other.
      smoothing_seconds: see `Tracker`.
    """
    for source, frames in itertools.groupby(seen, lambda pair: pair[0].source):
        tracker = Tracker(smoothing_seconds)
        for frame, predictions in frames:
            if source.moves and frame.image is not None:
                yield frame, tracker.update(frame.image, predictions, frame.seconds)
            else:
                yield frame, predictions


class Person(NamedTuple):
    """A summary of all frames of one track.

    Attributes:
      face_id: number of the track.
      frames: number of frames that show this person.
      first, last: time in seconds of the first and the last of these frames.
      probabilities: float [classes], mean over the frames.
    """

    face_id: int
    frames: int
    first: float
    last: float
    probabilities: np.ndarray


class Persons:
    """Collects a summary of every person in one video."""

    def __init__(self) -> None:
        self._persons: dict[int, Person] = {}

    def add(self, predictions: Iterable[FacePrediction], seconds: float) -> None:
        """Adds the tracked faces of one frame; faces without a `face_id` are ignored.

        Args:
          predictions: the faces of the frame.
          seconds: time of the frame since the beginning of the video.
        """
        for prediction in predictions:
            number = prediction.face_id
            if number is None:
                continue
            new = Person(number, 0, seconds, seconds, np.zeros_like(prediction.probabilities))
            old = self._persons.get(number, new)
            mean = old.probabilities + (prediction.probabilities - old.probabilities) / (old.frames + 1)
            self._persons[number] = Person(number, old.frames + 1, old.first, seconds, mean)

    def records(self, source: Source, classes: tuple[str, ...]) -> list[dict]:
        """Returns one JSON record per person: `prediction_writers.PERSON_COLUMNS` and the probabilities."""
        result = []
        for person in self._persons.values():
            best = int(person.probabilities.argmax())
            result.append(
                {
                    'file': source.label,
                    'face_id': person.face_id,
                    'frames': person.frames,
                    'first_seconds': round(person.first, 3),
                    'last_seconds': round(person.last, 3),
                    'label': classes[best],
                    'confidence': round(float(person.probabilities[best]), 4),
                    'probabilities': {
                        name: round(float(value), 4) for name, value in zip(classes, person.probabilities, strict=True)
                    },
                }
            )
        return result


def _middle(face: Face) -> np.ndarray:
    x, y, width, height = face.box
    return np.array([x + width / 2, y + height / 2])


def _side(face: Face) -> float:
    return max(1.0, math.sqrt(face.box[2] * face.box[3]))


def _thumbnail(image: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    return _normalised(faces.crop(image, box, 0.0, THUMBNAIL_SIDE).astype(np.float64))


def _normalised(values: np.ndarray) -> np.ndarray:
    """Returns float [...] of mean 0 and length 1, so that a sum of products is a correlation."""
    values = values - values.mean()
    return values / max(float(np.linalg.norm(values)), 1e-9)
