"""Processes that decode images under limits of time and memory: an image made to harm ends its process, not the caller.

A process is started when it is first needed, decodes one image after the other, and ends with its caller.
"""

import atexit
import contextlib
import fcntl
import hashlib
import json
import os
import queue
import resource
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

if sys.path[0] == str(Path(__file__).parent):  # started as a script
    sys.path[0] = str(Path(__file__).parents[3])

from fer_jax.data.imaging import pillow_decoder
from fer_jax.errors import UserError
from fer_jax.utils import limits
from fer_jax.utils.limits import LimitError

REQUEST = struct.Struct('<QQQd')  # bytes of the image, pixels and channels that it may have, seconds of processor
MOST_PROCESSES = 8
MOST_REFUSED = 1_000  # images
PIPE_BYTES = 1 << 20


class Decoded(NamedTuple):
    """Pixels of an image as bytes, uint8 [height, width, channels], and what is unusual about it."""

    height: int
    width: int
    channels: int
    notes: tuple[str, ...]
    pixels: bytearray


class _Decoder:
    """One process, used by one thread at a time."""

    def __init__(self) -> None:
        package = str(Path(__file__).parents[3])
        path = os.pathsep.join(filter(None, [package, os.environ.get('PYTHONPATH', '')]))
        environment = os.environ | {'PYTHONPATH': path, 'OPENBLAS_NUM_THREADS': '1'}
        try:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                [sys.executable, '-P', __file__, REQUEST.format],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the caller
            )
        except OSError as error:
            raise UserError(f'no process can be started that decodes images ({error.strerror})') from error
        for pipe in filter(None, (self._process.stdin, self._process.stdout)):
            with contextlib.suppress(OSError):  # the user's pipes together may have a limit
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def decode(self, data: bytes, most_pixels: int, channels: int) -> Decoded:
        """Decodes an image; raises ValueError where that fails, EOFError where the process has ended."""
        to, back = self._process.stdin, self._process.stdout
        assert to is not None and back is not None
        try:
            to.write(REQUEST.pack(len(data), most_pixels, channels, limits.DECODING_SECONDS))
            to.write(data)
            to.flush()
        except BrokenPipeError:
            raise EOFError from None
        line = back.readline()
        if not line:
            raise EOFError
        answer = json.loads(line)
        if 'error' in answer:
            raise (LimitError if answer['limit'] else ValueError)(answer['error'])
        pixels = bytearray(answer['height'] * answer['width'] * answer['channels'])
        if back.readinto(pixels) < len(pixels):  # type: ignore[attr-defined]
            raise EOFError
        return Decoded(answer['height'], answer['width'], answer['channels'], tuple(answer['notes']), pixels)

    def close(self) -> int:
        """Ends the process and returns its status."""
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):
                if pipe:
                    pipe.close()
        return self._process.wait()


def describe_seconds() -> str:
    """Returns the limit of time as text."""
    more = f'one more for each {limits.DECODING_RATE // 10**6} megapixels'
    return f'{limits.DECODING_SECONDS:g} s of a processor, and {more},'


class _Pool:
    """The processes of this process; a fork has its own."""

    def __init__(self) -> None:
        self.refused: dict[tuple[int, bytes], str] = {}  # (pixels allowed, sha256 of an image) -> the limit it is above
        self.idle: queue.LifoQueue[_Decoder] = queue.LifoQueue()
        self.turns = threading.BoundedSemaphore(max(1, min(MOST_PROCESSES, os.cpu_count() or 1)))

    def decode(self, data: bytes, most_pixels: int, channels: int) -> Decoded:
        with self.turns:
            try:
                decoder = self.idle.get_nowait()
            except queue.Empty:
                decoder = _Decoder()
            try:
                result = decoder.decode(data, most_pixels, channels)
            except ValueError:
                self.idle.put(decoder)
                raise
            except EOFError:
                status = decoder.close()
                if status == -signal.SIGXCPU:
                    raise LimitError(f'more than {describe_seconds()} are needed to decode it') from None
                raise ValueError(f'the process that decodes it ended with {status}') from None
            except BaseException:  # a signal in between leaves an answer in the pipe
                decoder.close()
                raise
            self.idle.put(decoder)
            return result

    def close(self) -> None:
        while not self.idle.empty():
            self.idle.get_nowait().close()


_pool = _Pool()


def _renew() -> None:
    global _pool
    _pool = _Pool()


os.register_at_fork(after_in_child=_renew)
atexit.register(lambda: _pool.close())


def decode(data: bytes, most_pixels: int, channels: int) -> Decoded:
    """Decodes an image of any kind in another process, see `pillow_decoder.open_image`.

    Args:
      channels: 1 turns colours to grey, 3 leaves the image as it is.

    Raises:
      LimitError: the image has too many pixels, or needs too much time or memory.
      ValueError: the image cannot be decoded.
    """
    key = (most_pixels, hashlib.sha256(data).digest()) if _pool.refused else (0, b'')
    if key in _pool.refused:
        raise LimitError(_pool.refused[key])
    try:
        return _pool.decode(data, most_pixels, channels)
    except LimitError as error:
        if len(_pool.refused) < MOST_REFUSED:
            _pool.refused[most_pixels, hashlib.sha256(data).digest()] = str(error)
        raise


def main(requests: BinaryIO, answers: BinaryIO) -> None:
    """Decodes the images that it reads until there are no more."""
    warm_up()
    pages = int(Path('/proc/self/statm').read_bytes().split()[0]) if Path('/proc/self/statm').exists() else 0
    most_bytes = pages * resource.getpagesize() + limits.DECODING_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most_bytes, most_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while header := requests.read(REQUEST.size):
        length, most_pixels, channels, most_seconds = REQUEST.unpack(header)
        limit_seconds(most_seconds)
        answer(requests.read(length), most_pixels, channels, answers)
        answers.flush()


def limit_seconds(seconds: float) -> None:
    """Ends this process after so many further seconds of processor."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    end = int(used.ru_utime + used.ru_stime + seconds) + 1
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (end if hard < 0 else min(end, hard), hard))


def give_time(pixels: int) -> None:
    """Gives more time to an image of many pixels."""
    if pixels > limits.DECODING_RATE:
        limit_seconds(limits.DECODING_SECONDS + pixels / limits.DECODING_RATE)


def answer(data: bytes, most_pixels: int, channels: int, answers: BinaryIO) -> None:
    """Decodes one image and writes a line of JSON, and the pixels behind it."""
    try:
        opened = pillow_decoder.open_image(data, most_pixels, channels, give_time)
    except ValueError as error:
        about: dict[str, Any] = {'error': str(error), 'limit': isinstance(error, LimitError)}
        answers.write(json.dumps(about).encode() + b'\n')
        return
    about = {name: getattr(opened, name) for name in ('height', 'width', 'channels', 'notes')}
    answers.write(json.dumps(about).encode() + b'\n')
    for strip in pillow_decoder.read_strips(opened):
        answers.write(strip)


def warm_up() -> None:
    """Imports what decoding needs, so that its memory does not count."""
    import logging
    import warnings

    import numpy  # noqa: F401
    from PIL import Image

    Image.init()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter('ignore')


if __name__ == '__main__':
    if sys.argv[1:] != [REQUEST.format]:
        sys.exit('the package was changed while a process runs that had begun before')
    main(sys.stdin.buffer, sys.stdout.buffer)
