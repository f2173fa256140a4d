"""Pictures to look at, one after the other: photographs, folders of them, videos, a camera."""

import math
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fer_jax.data.imaging import faces
from fer_jax.data.imaging.codec import IMAGE_SUFFIXES
from fer_jax.errors import UserError

VIDEOS = ('.avi', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.webm', '.wmv')
CAMERA = 'camera:'
SHORT_VIDEO = 1.0, 0.02  # seconds, and share, by which a video may end before its header says: many only estimate


class Source(NamedTuple):
    """One photograph, video or camera.

    Attributes:
      name: as it was given, or as it was found in a folder.
      frames: how many there will be, about as many of a video: 1 of a photograph, 0 where it is unknown.
      rate: frames a second, 0 of a photograph.
    """

    name: str
    frames: int
    rate: float

    @property
    def moves(self) -> bool:
        return self.rate > 0

    @property
    def live(self) -> bool:
        return self.name.startswith(CAMERA)


class Frame(NamedTuple):
    """One picture.

    Attributes:
      number: in its video or of its camera, from 0.
      seconds: since its beginning.
      image: uint8 RGB [H, W, 3], upright; None where it cannot be read.
      error: why not; '' where it can.
    """

    source: Source
    number: int
    seconds: float
    image: np.ndarray | None
    error: str = ''


def sources(paths: Sequence[str]) -> list[Source]:
    """What the arguments name: files as they are, all photographs and videos below folders, `camera:N`; each once.

    Raises:
      UserError: one is not there, a folder holds none, or a camera cannot be opened.
    """
    found: list[Source] = []
    for given in paths:
        path = Path(given)
        if given.startswith(CAMERA):
            found.append(_opened(given))
        elif path.is_dir():
            suffixes = (*sorted(IMAGE_SUFFIXES), *VIDEOS)
            below = sorted(
                file
                for file in path.rglob('*')
                if file.suffix.lower() in suffixes and file.is_file() and not file.name.startswith('.')
            )
            if not below:
                raise UserError(f'{given!r} holds no photographs and no videos ({", ".join(suffixes)})')
            found += map(_of_file, below)
        elif path.is_file():
            found.append(_of_file(path))
        else:
            raise UserError(f'{given!r} is no file and no folder; give photographs, videos, folders or camera:0')
    return list(dict.fromkeys(found))


def _of_file(path: Path) -> Source:
    return _opened(str(path)) if path.suffix.lower() in VIDEOS else Source(str(path), 1, 0.0)


def _opened(name: str) -> Source:
    """Looks into a video or asks a camera; a video that cannot be opened has no frames, which reading it tells."""
    import cv2

    capture = _capture(name)
    count, rate = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
    opened = capture.isOpened()
    capture.release()
    if not opened and name.startswith(CAMERA):
        raise UserError(f'{name!r} cannot be opened; is it there, and may this user read it? ls /dev/video*')
    usable = rate if math.isfinite(rate) and 0 < rate <= 1000 else 25.0
    return Source(name, int(count) if 0 < count < 2**31 else 0, usable)


def _capture(name: str) -> Any:
    """OpenCV's reader; it and its decoders print nothing, for what is wrong with a file is told here."""
    os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')
    import cv2

    number = name.removeprefix(CAMERA)
    live = name.startswith(CAMERA)
    if live and not (number.isascii() and number.isdecimal() and len(number) < 4):
        raise UserError(f'{name!r} is no camera; give camera:0 for the first')
    before = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        # Other readers than FFmpeg's would take x_01.mp4 for one of numbered photographs.
        return cv2.VideoCapture(int(number)) if live else cv2.VideoCapture(name, cv2.CAP_FFMPEG)
    finally:
        cv2.utils.logging.setLogLevel(before)


def read_frames(source: Source, *, every: int = 1) -> Iterator[Frame]:
    """Its frames, one at a time; what cannot be read is a frame with an `error`, the last one.

    Args:
      every: of a video or camera, only every so many frames are given.
    """
    if not source.moves:
        try:
            yield Frame(source, 0, 0.0, faces.read_rgb(Path(source.name)))
        except UserError as error:
            yield Frame(source, 0, 0.0, None, str(error))
        return
    import cv2

    capture = _capture(source.name)
    start = time.monotonic()
    number, seconds = 0, 0.0
    try:
        while capture.grab():
            stamp = time.monotonic() - start if source.live else capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            seconds = stamp if stamp > 0 else number / source.rate
            if number % every == 0:
                fine, image = capture.retrieve()
                if not fine:
                    break
                yield Frame(source, number, seconds, cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
            number += 1
    finally:
        capture.release()
    missing = f'{source.name} cannot be read as a video; it is damaged, empty, or of an unknown kind'
    if number:
        ends, whole = seconds + 1 / source.rate, source.frames / source.rate
        missing = f'{source.name} ends after {ends:.1f} of its {whole:.1f} seconds; it is cut off or damaged'
        if whole - ends <= max(SHORT_VIDEO[0], SHORT_VIDEO[1] * whole):
            return
    yield Frame(source, number, seconds, None, missing)
