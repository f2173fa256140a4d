"""Output that nobody reads any more does not end what writes it."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any

UNREAD = (errno.EPIPE, errno.EIO)  # the reader of the pipe has gone; the terminal was closed


class LastingStream:
    """Wraps a text stream, and drops what is written once the stream's reader has closed it."""

    def __init__(self, stream: Any):
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes as the stream does."""
        with self._unread_is_dropped():
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flushes as the stream does."""
        with self._unread_is_dropped():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _unread_is_dropped(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in UNREAD:
                raise
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())  # takes what is still buffered, too
            os.close(nowhere)


@contextlib.contextmanager
def lasting_output() -> Iterator[None]:
    """Replaces standard output and error within the block by streams that a closed reader (`| head`) does not break."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(LastingStream, before)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stdout, sys.stderr = before
