"""Pictures to look at, one after the other: photographs, folders of them, videos, streams, a camera."""

import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fer_jax.data.imaging import faces
from fer_jax.data.imaging.codec import IMAGE_SUFFIXES
from fer_jax.data.imaging.faces import Face
from fer_jax.errors import UserError
from fer_jax.inference import video
from fer_jax.utils.paths import user_path

VIDEO_SUFFIXES = (
    *('.3g2', '.3gp', '.asf', '.avi', '.f4v', '.flv', '.m2t', '.m2ts', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg'),
    *('.mts', '.mxf', '.ogv', '.ts', '.vob', '.webm', '.wmv'),
)
TRANSPORT_STREAM = b'G'  # its first byte; other files end in .ts as well
CAMERA = 'camera:'
SHORT_VIDEO = 1.0, 0.02  # seconds, and share, by which a video may end before its header says: many only estimate


class Source(NamedTuple):
    """One photograph, video, stream or camera.

    Attributes:
      name: path, address or camera as it was given, or as it was found in a folder.
      frames: number of frames, approximate for a video; 1 for a photograph, 0 where it is unknown.
      rate: frames per second; 0 for a photograph.
    """

    name: str
    frames: int
    rate: float

    @property
    def moves(self) -> bool:
        return self.rate > 0

    @property
    def live(self) -> bool:
        return self.name.startswith(CAMERA) or (self.name.startswith(video.STREAMS) and not self.frames)

    @property
    def label(self) -> str:
        """The name without the user and the password of an address."""
        return re.sub('(?<=://)[^/@]*@', '', self.name) if self.name.startswith(video.STREAMS) else self.name


class Frame(NamedTuple):
    """One picture of a source.

    Attributes:
      source: the photograph, video, stream or camera.
      number: index of the frame in its source, from 0.
      seconds: time since the beginning of the source.
      image: uint8 RGB [H, W, 3], upright; None where it cannot be read.
      error: reason why it cannot be read; '' where it can.
      faces: faces that are already known; None where they are to be detected.
    """

    source: Source
    number: int
    seconds: float
    image: np.ndarray | None
    error: str = ''
    faces: list[Face] | None = None


def sources(paths: Sequence[str]) -> list[Source]:
    """Lists the sources that the arguments name, each once.

    A path may be a file, a stream, a camera, or a folder; a folder stands for all photographs and videos below it.

    Raises:
      UserError: a path does not exist, a folder has no photographs or videos, or a camera cannot be opened.
    """
    result: list[Source] = []
    for given in paths:
        path = user_path(given)
        if given.startswith(CAMERA):
            result.append(_camera(given))
        elif given.startswith(video.STREAMS):
            result.append(_video(given))
        elif _is(path, Path.is_dir):
            below = sorted(file for file in path.rglob('*') if _belongs(file))
            if not below:
                suffixes = ', '.join((*sorted(IMAGE_SUFFIXES), *VIDEO_SUFFIXES))
                raise UserError(f'{given!r} holds no photographs and no videos ({suffixes})')
            result += map(_of_file, below)
        elif _is(path, Path.is_file):
            result.append(_of_file(path))
        else:
            raise UserError(f'{given!r} is no file and no folder; give photographs, videos, folders or camera:0')
    return list(dict.fromkeys(result))


def _is(path: Path, kind: Callable[[Path], bool]) -> bool:
    try:
        return kind(path)
    except (OSError, ValueError):  # of a name that is too long, or holds a null character
        return False


def _belongs(file: Path) -> bool:
    """Whether a file below a folder is a photograph or a video, by its name."""
    suffix = file.suffix.lower()
    if suffix not in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES) or file.name.startswith('.') or not file.is_file():
        return False
    return suffix != '.ts' or _first_byte(file) in (TRANSPORT_STREAM, b'')


def _first_byte(file: Path) -> bytes:
    try:
        with file.open('rb') as opened:
            return opened.read(1)
    except OSError:
        return b''


def _of_file(path: Path) -> Source:
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return _video(str(path))
    header = None if suffix in IMAGE_SUFFIXES else video.read_header(str(path))
    return Source(str(path), *header) if header else Source(str(path), 1, 0.0)


def _video(name: str) -> Source:
    """Reads the header of a video; one that cannot be opened has no frames, and reading it gives the reason."""
    return Source(name, *(video.read_header(name) or video.Header(0, video.DEFAULT_RATE)))


def _camera(name: str) -> Source:
    import cv2

    capture = _capture(name)
    rate, opened = capture.get(cv2.CAP_PROP_FPS), capture.isOpened()
    capture.release()
    if not opened:
        raise UserError(f'{name!r} cannot be opened; is it there, and may this user read it? ls /dev/video*')
    return Source(name, 0, rate if math.isfinite(rate) and 0 < rate <= video.MOST_RATE else video.DEFAULT_RATE)


def _capture(name: str) -> Any:
    """Opens a camera by OpenCV, which prints nothing meanwhile."""
    import cv2

    number = name.removeprefix(CAMERA)
    if not (number.isascii() and number.isdecimal() and len(number) < 4):
        raise UserError(f'{name!r} is no camera; give camera:0 for the first')
    before = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        return cv2.VideoCapture(int(number))
    finally:
        cv2.utils.logging.setLogLevel(before)


def read_frames(source: Source, *, every: int = 1) -> Iterator[Frame]:
    """Yields the frames of a source, one at a time.

    Where something cannot be read, the last frame has an `error` and no image.

    Args:
      source: see `sources`.
      every: step between frames of a video or camera; 1 yields every frame.
    """
    if not source.moves:
        try:
            yield Frame(source, 0, 0.0, faces.read_rgb(Path(source.name)))
        except UserError as error:
            yield Frame(source, 0, 0.0, None, str(error))
        return
    camera = source.name.startswith(CAMERA)
    pictures = _camera_pictures(source.name) if camera else video.read_pictures(source.name, source.rate)
    number, seconds, reason = 0, 0.0, ''
    try:
        for seconds, pixels in pictures:
            if number % every == 0:
                yield Frame(source, number, seconds, pixels())
            number += 1
    except video.Damaged as damaged:
        reason = str(damaged)
    message = _describe_loss(source, number, seconds, reason)
    if message:
        yield Frame(source, number, seconds, None, message)


def _camera_pictures(name: str) -> Iterator[video.Picture]:
    import cv2

    capture = _capture(name)
    start = time.monotonic()

    def pixels() -> np.ndarray:
        return cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB)

    try:
        while capture.grab():
            yield video.Picture(time.monotonic() - start, pixels)
    finally:
        capture.release()


def _describe_loss(source: Source, number: int, seconds: float, reason: str) -> str:
    """Says what of a video could not be read, after `number` frames up to `seconds`; '' where it is whole."""
    if not number:
        kind = f' ({reason})' if reason else ''
        return f'{source.label} cannot be read as a video{kind}; it is damaged, empty, or of an unknown kind'
    ends, whole = seconds + 1 / source.rate, source.frames / source.rate
    if whole - ends > max(SHORT_VIDEO[0], SHORT_VIDEO[1] * whole):
        return f'{source.label} ends after {ends:.1f} of its {whole:.1f} seconds; it is cut off or damaged'
    return f'{source.label} is damaged ({reason}); what could be read was looked at' if reason else ''
