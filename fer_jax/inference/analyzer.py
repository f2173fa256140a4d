"""Finds and classifies the faces of photographs and videos, for Python; the results are typed."""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.data.imaging import faces
from fer_jax.errors import UserError
from fer_jax.inference import face_pipeline, media, prediction_writers, tracking
from fer_jax.inference.media import Frame, Source
from fer_jax.inference.predictor import Predictor
from fer_jax.utils.forked import check_not_forked

CHANNELS = {'RGB': 3, 'RGBA': 4, 'BGR': 3, 'BGRA': 4, 'grey': 1}
COLUMN_TYPES = {int: 'Int64', float: 'float64', bool: 'boolean', str: 'object'}


@dataclasses.dataclass(frozen=True)
class FaceResult:
    """One face with the fields and values of a line of `fer-jax predict`.

    Attributes:
      file: path of the photograph or video; 'array' for an array.
      face: index of the face in its picture, from 0, in order of decreasing detector confidence.
      box: x, y, width and height in pixels of the upright picture.
      detector: confidence of the detector, 0 to 1.
      label: the most probable class.
      confidence: probability of the label.
      abstained: True where the confidence is below the analyzer's `abstain_below`.
      probabilities: calibrated probability of every class, by its name.
      frame: index of the video frame, from 0; None for a photograph.
      seconds: time of the frame since the beginning of the video; None for a photograph.
      face_id: number of the person's track in the video; None for a photograph.
    """

    file: str
    face: int
    box: tuple[float, float, float, float]
    detector: float
    label: str
    confidence: float
    abstained: bool
    probabilities: dict[str, float]
    frame: int | None = None
    seconds: float | None = None
    face_id: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields that are not None as a dict, in the order of a line of `fer-jax predict`."""
        names = ('file', 'frame', 'seconds', 'face', 'face_id', 'box')
        ordered = {name: getattr(self, name) for name in names} | dataclasses.asdict(self)
        return {name: value for name, value in ordered.items() if value is not None} | {'box': list(self.box)}


@dataclasses.dataclass(frozen=True)
class PhotoResult:
    """The faces of one photograph.

    Attributes:
      file: path of the photograph; 'array' for an array.
      width, height: size of the upright photograph in pixels.
      faces: one result per face, in order of decreasing detector confidence.
      classes: class names.
    """

    file: str
    width: int
    height: int
    faces: tuple[FaceResult, ...]
    classes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns a dict that can be written as JSON, in the form in which the web service answers."""
        records = [face.to_dict() for face in self.faces]
        return {'file': self.file, 'width': self.width, 'height': self.height, 'faces': records}

    def to_pandas(self) -> Any:
        """Returns a DataFrame with one row per face and the columns of `fer-jax predict --format csv` except `error`.

        Raises:
          UserError: pandas is not installed.
        """
        return _to_pandas(self.faces, self.classes)


@dataclasses.dataclass(frozen=True)
class FrameResult:
    """The faces of one frame of a video.

    Attributes:
      frame: index of the frame, from 0.
      seconds: time of the frame since the beginning of the video.
      faces: one result per face, in order of decreasing detector confidence.
    """

    frame: int
    seconds: float
    faces: tuple[FaceResult, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns a dict that can be written as JSON."""
        records = [face.to_dict() for face in self.faces]
        return {'frame': self.frame, 'seconds': self.seconds, 'faces': records}


@dataclasses.dataclass(frozen=True)
class VideoResult:
    """The faces of a video, frame by frame.

    Attributes:
      file: path of the video.
      frames: every frame that was analyzed, with and without faces.
      classes: class names.
      error: a message about the part of the video that could not be read; '' where all of it was read.
    """

    file: str
    frames: tuple[FrameResult, ...]
    classes: tuple[str, ...]
    error: str = ''

    @property
    def faces(self) -> tuple[FaceResult, ...]:
        """The faces of all frames."""
        return tuple(face for frame in self.frames for face in frame.faces)

    def to_dict(self) -> dict[str, Any]:
        """Returns a dict that can be written as JSON."""
        return {'file': self.file, 'error': self.error, 'frames': [frame.to_dict() for frame in self.frames]}

    def to_pandas(self) -> Any:
        """Returns a DataFrame with one row per face and the columns of `fer-jax predict --format csv` except `error`.

        Raises:
          UserError: pandas is not installed.
        """
        return _to_pandas(self.faces, self.classes)


class Analyzer:
    """Finds the faces of photographs and videos and classifies their expressions.

    Attributes:
      classes: class names.
      description: text that describes how faces are cropped, and the source of these settings.
    """

    def __init__(
        self,
        workdir: str | Path = 'release',
        *,
        margin: float | None = None,
        abstain_below: float = 0.0,
        tta: str = 'none',
        yunet: str | Path | None = None,
    ):
        """Loads the network of a run and the face detector.

        Args:
          workdir: folder of a run with an evaluated checkpoint, or 'release'.
          margin: margin around each face, as a share of its size; None takes the margin of the training data.
          abstain_below: probability below which a face is marked as abstained.
          tta: see `Predictor`.
          yunet: ONNX file of OpenCV's YuNet, used in place of the detector of the extra `faces`.

        Raises:
          UserError: there is no run or no detector, or an argument is out of range.
        """
        if margin is not None and not 0 <= margin <= 10:
            raise UserError(f'margin={margin}; expected 0 to 10')
        if not 0 <= abstain_below <= 1:
            raise UserError(f'abstain_below={abstain_below}; expected a probability')
        self._predictor = Predictor(workdir, tta=tta)
        self._detect = faces.detector(None if yunet is None else Path(yunet))
        self._cutting = face_pipeline.cutting(self._predictor.folder, margin, aligns=yunet is not None)
        self._abstain_below = abstain_below
        self.classes, self.description = self._predictor.classes, self._cutting.description

    def photo(self, picture: str | os.PathLike[str] | np.ndarray, *, channels: str | None = None) -> PhotoResult:
        """Finds and classifies the faces of a photograph.

        Args:
          picture: path, or array uint8 [H, W], [H, W, 1], [H, W, 3] or [H, W, 4].
          channels: channel order of an array, one of `CHANNELS`: 'RGB', 'BGR' (as OpenCV reads), 'RGBA', 'BGRA' or
            'grey'; may be left out for [H, W] and [H, W, 1]. Alpha is dropped.

        Raises:
          UserError: the file cannot be read.
          ValueError: the array is not such a picture, its channels are not given, or channels are given for a file.
        """
        if isinstance(picture, str | os.PathLike):
            if channels is not None:
                raise ValueError(f'channels={channels!r} describes arrays; leave it out for a file')
            source, image = Source(os.fspath(picture), 1, 0.0), faces.read_rgb(Path(picture))
        else:
            source, image = Source('array', 1, 0.0), convert_to_rgb(picture, channels)
        ((_, results),) = self._analyze(iter([Frame(source, 0, 0.0, image)]), 0.0)
        return PhotoResult(source.name, image.shape[1], image.shape[0], results, self.classes)

    def video(self, path: str | os.PathLike[str], *, every: int = 1, smooth: float = 0.0) -> VideoResult:
        """Finds, tracks and classifies the faces of a video file.

        Args:
          path: path of the video.
          every: step between analyzed frames; 1 analyzes every frame.
          smooth: time constant, in seconds, of the averaging of each person's probabilities; 0 does not average.

        Raises:
          UserError: the file is not a readable video, or an argument is out of range.
        """
        if every < 1 or not 0 <= smooth <= 3600:
            raise UserError(f'every={every}, smooth={smooth}; expected 1 or more, and 0 to 3600 seconds')
        if Path(path).is_dir():
            raise UserError(f'{os.fspath(path)!r} is a folder; give one video')
        (source,) = media.find_sources([os.fspath(path)]).sources
        if source.live or not source.moves:
            kind = 'a camera or a stream' if source.live else 'no video'
            raise UserError(f'{source.label} is {kind}; give a video file, photographs to photo()')
        frames, error = [], ''
        for frame, results in self._analyze(media.read_frames(source, every=every), smooth):
            if frame.image is None:
                error = frame.error
            else:
                frames.append(FrameResult(frame.number, round(frame.seconds, 3), results))
        if error and not frames:
            raise UserError(error)
        return VideoResult(source.name, tuple(frames), self.classes, error)

    def _analyze(self, frames: Iterator[Frame], smooth: float) -> Iterator[tuple[Frame, tuple[FaceResult, ...]]]:
        check_not_forked()
        predictor = self._predictor
        size, cutting = predictor.image_size, self._cutting
        seen = face_pipeline.look(frames, self._detect, predictor.calibrated, size=size, cutting=cutting)
        for frame, predictions in tracking.track_faces(seen, smoothing_seconds=smooth):
            results = []
            for number, prediction in enumerate(predictions):
                record = face_pipeline.record(
                    frame, prediction, self.classes, number=number, abstain_below=self._abstain_below
                )
                results.append(FaceResult(**record | {'box': tuple(record['box'])}))
            yield frame, tuple(results)


def convert_to_rgb(array: np.ndarray, channels: str | None) -> np.ndarray:
    """Converts an array with named channels to RGB.

    Args:
      array: uint8 [H, W], [H, W, 1], [H, W, 3] or [H, W, 4].
      channels: one of `CHANNELS`; None for [H, W] and [H, W, 1], which are grey.

    Returns:
      uint8 [H, W, 3].

    Raises:
      ValueError: the array is not such a picture, or its channels are not named.
    """
    if not isinstance(array, np.ndarray):
        kind = type(array).__name__
        raise ValueError(
            f"expected a path or an array, got {kind}; of a Pillow image give np.asarray(image.convert('RGB')), "
            "channels='RGB'"
        )
    shown = f'{array.dtype} {list(array.shape)}'
    if array.dtype != np.uint8:
        raise ValueError(f'expected uint8 in 0..255, got {shown}; of 0..1 give (array * 255).round().astype(np.uint8)')
    planes = array[..., None] if array.ndim == 2 else array
    if planes.ndim != 3 or planes.size == 0 or planes.shape[-1] not in CHANNELS.values():
        raise ValueError(f'expected one picture [H, W], [H, W, 1], [H, W, 3] or [H, W, 4], got {shown}')
    if channels is None and planes.shape[-1] == 1:
        channels = 'grey'
    if channels not in CHANNELS:
        expected = ' or '.join(repr(name) for name, count in CHANNELS.items() if count == planes.shape[-1])
        given = 'channels is missing' if channels is None else f'channels={channels!r} is unknown'
        raise ValueError(f'{given}; for {shown} give channels={expected} (OpenCV reads BGR)')
    if CHANNELS[channels] != planes.shape[-1]:
        raise ValueError(f'channels={channels!r} does not fit {shown}, which has {planes.shape[-1]} channels')
    if channels == 'grey':
        return np.repeat(planes, 3, -1)
    return np.ascontiguousarray(planes[..., 2::-1] if channels.startswith('BGR') else planes[..., :3])


def _to_pandas(results: tuple[FaceResult, ...], classes: tuple[str, ...]) -> Any:
    try:
        import pandas
    except ImportError:
        raise UserError("to_pandas needs pandas; run pip install 'fer_jax[tables]'") from None
    types = prediction_writers.face_columns(classes)
    del types['error']
    rows = [prediction_writers.flatten(face.to_dict(), list(types)) for face in results]
    kinds = {name: COLUMN_TYPES[kind] for name, kind in types.items()}
    return pandas.DataFrame(rows, columns=list(types)).astype(kinds)
