"""Videos by PyAV, which is FFmpeg without its commands: frames with their times, read and written."""

import contextlib
import io
import math
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fer_jax.errors import UserError
from fer_jax.utils import limits
from fer_jax.utils.limits import LimitError, check_limit

STREAMS = ('http://', 'https://', 'rtmp://', 'rtsp://', 'rtsps://')
STREAM_OPTIONS = {'rtsp_transport': 'tcp'}
STREAM_TIMEOUT_SECONDS = 10.0
FILE_OPTIONS = {
    'protocol_whitelist': 'none',
    'max_streams': str(limits.VIDEO_STREAMS),
}  # a playlist in a file may not open other files and addresses
STILLS = ('image2', 'tty')  # and *_pipe: FFmpeg's readers of pictures and of text
DEFAULT_RATE = 25.0  # frames a second, where a file does not tell
MOST_RATE = 1000.0
READ_ERRORS = (OSError, ValueError, LookupError, ArithmeticError)  # that PyAV raises of damaged files, beside its own
TIME_BASE = Fraction(1, 60_000)  # seconds; the periods of all usual rates are whole numbers of it
MOST_ASPECT = 4.0  # of a pixel; more is a mistake in the header


class Header(NamedTuple):
    """The properties that the header of a video states.

    Attributes:
      frames: approximate number of frames; 0 where it is unknown.
      rate: average number of frames per second.
    """

    frames: int
    rate: float


class Picture(NamedTuple):
    """One frame of a video.

    Attributes:
      seconds: time since the beginning of the video.
      pixels: a function without arguments that returns uint8 RGB [H, W, 3], upright.
    """

    seconds: float
    pixels: Any


class Damaged(Exception):
    """An error that is raised where frames of a video cannot be decoded; the message is the reason."""


def read_header(name: str) -> Header | None:
    """Reads the header of a video file or stream.

    Returns:
      The header; None where the file is not a readable video.

    Raises:
      UserError: the package av is not installed.
    """
    av = _import_av()
    try:
        with _open(name) as (opened, _):
            stream = opened.streams.best('video')
            if stream is None or opened.format.name in STILLS or opened.format.name.endswith('_pipe'):
                return None
            rate = float(stream.average_rate or stream.guessed_rate or 0)
            rate = rate if math.isfinite(rate) and 0 < rate <= MOST_RATE else DEFAULT_RATE
            return Header(max(0, stream.frames or round((_seconds(opened, stream) or 0) * rate)), rate)
    except (av.FFmpegError, *READ_ERRORS):
        return None


def read_pictures(name: str, rate: float) -> Iterator[Picture]:
    """Yields the frames of a video file or stream in the order of their times.

    Frames that cannot be decoded are skipped. Pixels that are not square are resampled to square ones.

    Args:
      name: path or address.
      rate: frames per second, used for frames without a time.

    Raises:
      UserError: the package av is not installed.
      Damaged: after the last frame, where some frames are damaged or reading ended with an error.
    """
    av = _import_av()
    damaged, seconds, begin = 0, -1 / rate, None
    try:
        with _open(name) as (opened, file):
            stream = opened.streams.best('video')
            if stream is None:
                raise Damaged('it has no pictures')
            if context := stream.codec_context:  # None of a codec that is not known
                check_limit(context.width * context.height, limits.VIDEO_PIXELS, 'pixels a frame')
                context.options = {'max_pixels': str(limits.VIDEO_PIXELS)}
            stream.thread_type = 'AUTO'
            aspect = float(stream.sample_aspect_ratio or 1)
            aspect = aspect if 1 / MOST_ASPECT <= aspect <= MOST_ASPECT else 1.0
            for packet in opened.demux(stream):
                damaged += packet.is_corrupt
                if file:
                    file.count_packet(packet.size)
                try:
                    decoded = packet.decode()
                except av.FFmpegError:
                    damaged += 1
                    continue
                for frame in decoded:
                    damaged += frame.is_corrupt
                    time = frame.time
                    if begin is None and time is not None:
                        begin = time - (seconds + 1 / rate)
                    since = None if time is None or begin is None else time - begin
                    seconds = since if since is not None and since > seconds else seconds + 1 / rate
                    yield Picture(seconds, lambda frame=frame: _upright(frame, aspect))
    except (av.FFmpegError, *READ_ERRORS) as error:
        raise Damaged(getattr(error, 'strerror', None) or str(error)) from None
    if damaged:
        raise Damaged(f'{damaged} of its packets are damaged')


def _import_av() -> Any:
    try:
        import av
    except ImportError:
        raise UserError("videos need the package av; run pip install 'fer_jax[faces]'") from None
    return av


@contextlib.contextmanager
def _open(name: str) -> Iterator[tuple[Any, '_File | None']]:
    """Opens a stream, or a file by Python: its name need not be UTF-8, nor be plain to FFmpeg."""
    av = _import_av()
    # A title need not be UTF-8 either; from 19 on PyAV takes any.
    options: dict[str, Any] = {'metadata_errors': 'ignore'} if int(av.__version__.split('.')[0]) < 19 else {}
    with contextlib.ExitStack() as stack:
        file = None
        if name.startswith(STREAMS):
            timeout = (STREAM_TIMEOUT_SECONDS, STREAM_TIMEOUT_SECONDS)
            opened = av.open(name, container_options=STREAM_OPTIONS, timeout=timeout, **options)
        else:
            file = stack.enter_context(_File(name))
            opened = av.open(file, container_options=FILE_OPTIONS, **options)
        yield stack.enter_context(opened), file


class _File(io.FileIO):
    """A file that ends where FFmpeg would search in it without end.

    A place that is not there is no exception, since PyAV would print it.
    """

    def __init__(self, name: str):
        super().__init__(name)
        self._gap, self._left = 0, limits.VIDEO_READINGS * max(os.fstat(self.fileno()).st_size, 1)

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size) if self._gap <= limits.VIDEO_GAP_BYTES else b''
        self._gap += len(data)
        return data

    def count_packet(self, size: int) -> None:
        """Counts a packet of `size` bytes; raises LimitError where the packets have more bytes than a file can have."""
        self._gap = 0
        self._left -= max(size, 1)
        if self._left < 0:
            raise LimitError(f'its packets have more than {limits.VIDEO_READINGS} times the bytes of the file')

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return super().seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return -1


def _seconds(opened: Any, stream: Any) -> float | None:
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return opened.duration / 1e6 if opened.duration else None


def _upright(frame: Any, aspect: float) -> np.ndarray:
    """Returns the pixels of a frame, square and turned as its header says; raises Damaged where it has none."""
    try:
        pixels = frame.to_ndarray(format='rgb24', width=max(1, round(frame.width * aspect)), height=frame.height)
    except (_import_av().FFmpegError, *READ_ERRORS) as error:
        raise Damaged(str(error)) from None
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))


class Writer:
    """Writes an MP4 file, H.264 where the codec is available, in which every frame keeps its time."""

    def __init__(self, path: Path, size: tuple[int, int], rate: float):
        """Opens the file and the encoder.

        Args:
          path: file to write.
          size: width and height in pixels, even numbers.
          rate: approximate number of frames per second.
        """
        av = _import_av()
        self._av = av
        self._file = path.open('wb')
        try:
            self._container = av.open(self._file, 'w', format='mp4')
            codec = 'libx264' if 'libx264' in av.codecs_available else 'mpeg4'
            self._stream = self._container.add_stream(codec, rate=Fraction(rate).limit_denominator(1001))
            self._stream.width, self._stream.height = size
            self._stream.pix_fmt = 'yuv420p'
            self._stream.codec_context.time_base = TIME_BASE
            if codec == 'libx264':
                self._stream.options = {'preset': 'veryfast', 'tune': 'zerolatency', 'crf': '20'}
            else:
                self._stream.bit_rate = size[0] * size[1] * 4
        except BaseException:
            self._file.close()
            raise
        self._last = -1

    def add(self, image: np.ndarray, seconds: float) -> None:
        """Writes a frame.

        Args:
          image: uint8 RGB [H, W, 3] of the size given.
          seconds: time since the beginning of the video; it has to grow from frame to frame.
        """
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format='rgb24')
        self._last = max(self._last + 1, round(seconds / TIME_BASE))
        frame.pts, frame.time_base = self._last, TIME_BASE
        for packet in self._stream.encode(frame):
            self._container.mux(packet)

    def close(self) -> None:
        """Writes the remaining frames and the header, and closes the file."""
        try:
            for packet in self._stream.encode(None):
                self._container.mux(packet)
            self._container.close()
        finally:
            self._file.close()
