"""Pictures to look at, one after the other: photographs, folders of them, videos, streams, a camera."""

import contextlib
import math
import queue
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fer_jax.data.imaging import faces, image_files
from fer_jax.data.imaging.codec import IMAGE_SUFFIXES
from fer_jax.data.imaging.faces import Face
from fer_jax.errors import UserError
from fer_jax.inference import video
from fer_jax.utils import bounded_files
from fer_jax.utils.paths import user_path

VIDEO_SUFFIXES = (
    *('.3g2', '.3gp', '.asf', '.avi', '.f4v', '.flv', '.m2t', '.m2ts', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg'),
    *('.mts', '.mxf', '.ogv', '.ts', '.vob', '.webm', '.wmv'),
)
MEDIA_SUFFIXES = IMAGE_SUFFIXES | frozenset(VIDEO_SUFFIXES)
TRANSPORT_STREAM = b'G'  # its first byte; other files end in .ts as well
NO_MEDIA = 'no photograph and no video by its suffix'
NO_TRANSPORT_STREAM = 'no video by its first byte'
NO_PICTURES = frozenset(
    {NO_MEDIA, NO_TRANSPORT_STREAM, image_files.HIDDEN, image_files.LISTED_TWICE, image_files.OWN, image_files.SPECIAL}
)  # left out on purpose
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


class Sources(NamedTuple):
    """The sources that paths name.

    Attributes:
      sources: each source once, in the order of the paths.
      left_out: reason -> paths of the other files in the given folders, of folders with a slash at their end.
    """

    sources: list[Source]
    left_out: dict[str, list[str]]


def find_sources(paths: Sequence[str]) -> Sources:
    """Lists the sources that the arguments name, each once, and the files of folders that are left out.

    A path may be a file, a stream, a camera, or a folder; a folder stands for all photographs and videos below it.

    Raises:
      UserError: a path does not exist, a folder has no photographs or videos, or a camera cannot be opened.
    """
    result: list[Source] = []
    left_out: dict[str, list[str]] = {}
    for given in paths:
        path = user_path(given)
        if given.startswith(CAMERA):
            result.append(_camera(given))
        elif given.startswith(video.STREAMS):
            result.append(_video(given))
        elif _is(path, Path.is_dir):
            media, others = _list_folder(path)
            if not media:
                suffixes = ', '.join((*sorted(IMAGE_SUFFIXES), *VIDEO_SUFFIXES))
                message = f'{given!r} holds no photographs and no videos ({suffixes})'
                raise UserError('; '.join([message, *image_files.describe_left_out(others)]))
            result += map(_of_file, media)
            for reason, names in others.items():
                left_out.setdefault(reason, []).extend(names)
        elif _is(path, Path.is_file):
            result.append(_of_file(path))
        else:
            raise UserError(f'{given!r} is no file and no folder; give photographs, videos, folders or camera:0')
    return Sources(list(dict.fromkeys(result)), left_out)


def _is(path: Path, kind: Callable[[Path], bool]) -> bool:
    try:
        return kind(path)
    except (OSError, ValueError):  # of a name that is too long, or holds a null character
        return False


def _list_folder(folder: Path) -> tuple[list[Path], dict[str, list[str]]]:
    """Lists the photographs and videos below a folder, and by reason the paths of the other files."""
    listing = image_files.list_image_files(folder, MEDIA_SUFFIXES)
    left_out = {
        NO_MEDIA if reason == image_files.NO_IMAGE else reason: [f'{folder}/{name}' for name in names]
        for reason, names in listing.left_out.items()
    }
    media = []
    for path in (folder / name for name in listing.images):
        if path.suffix.lower() == '.ts' and _first_byte(path) not in (TRANSPORT_STREAM, b''):
            left_out.setdefault(NO_TRANSPORT_STREAM, []).append(str(path))
        else:
            media.append(path)
    return media, left_out


def _first_byte(file: Path) -> bytes:
    try:
        with bounded_files.open_regular(file) as opened:
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

    Where something cannot be read, the last frame has an `error` and no image. Of a live source the newest frame is
    read when the caller asks for one, and those that came before it are dropped.

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
    numbered = take_newest(pictures, every) if source.live else enumerate(pictures)
    try:
        for number, (seconds, pixels) in numbered:
            if number % every == 0:
                yield Frame(source, number, seconds, pixels())
            number += 1
    except video.Damaged as damaged:
        reason = str(damaged)
    message = _describe_loss(source, number, seconds, reason)
    if message:
        yield Frame(source, number, seconds, None, message)


def take_newest(pictures: Iterable[video.Picture], every: int) -> Iterator[tuple[int, video.Picture]]:
    """Reads pictures in a thread, and yields the number and the newest of them whenever the caller asks.

    Args:
      pictures: a live source; it is read until it ends, or until the returned iterator is closed.
      every: only pictures whose number is a multiple of it are yielded.

    Raises:
      Damaged: `pictures` raised it; after the newest picture was yielded.
    """
    slot: queue.Queue[tuple[int, video.Picture] | BaseException | None] = queue.Queue(1)
    closed = threading.Event()

    def put(item: tuple[int, video.Picture] | BaseException | None, replace: bool) -> None:
        while not closed.is_set():
            with contextlib.suppress(queue.Empty):
                if replace:
                    slot.get_nowait()
            with contextlib.suppress(queue.Full):
                slot.put(item, timeout=0.1)
                return

    def read() -> None:
        end: BaseException | None = None
        try:
            for number, (seconds, pixels) in enumerate(pictures):
                if closed.is_set():
                    break
                if number % every == 0:
                    image = pixels()
                    put((number, video.Picture(seconds, lambda image=image: image)), replace=True)
        except BaseException as error:  # raised again where it is waited for
            end = error
        put(end, replace=False)

    threading.Thread(target=read, name='live source', daemon=True).start()
    try:
        while isinstance(item := slot.get(), tuple):
            yield item
    finally:
        closed.set()
    if item is not None:
        raise item


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
    if source.live:
        return f'{source.label} ended after {seconds:.1f} seconds ({reason or "no further pictures came"})'
    ends, whole = seconds + 1 / source.rate, source.frames / source.rate
    if whole - ends > max(SHORT_VIDEO[0], SHORT_VIDEO[1] * whole):
        return f'{source.label} ends after {ends:.1f} of its {whole:.1f} seconds; it is cut off or damaged'
    return f'{source.label} is damaged ({reason}); what could be read was looked at' if reason else ''
