"""Stopping on purpose: at once where nothing would be lost, after the step where it would; a second SIGINT insists."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


class Stopped(BaseException):
    """Signals that the run was asked to stop and has saved its state; the same command continues it. Exit status 75.

    It is no `Exception`: a signal may raise it inside a file reader, whose handler would report a damaged file.
    """


class StopRequest:
    """Remembers the signal that asked to stop, and raises `Stopped` at once outside of `waiting`."""

    def __init__(self) -> None:
        self.name = ''
        self._waiting = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.name and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name
        if not self._waiting:
            self.stop()

    def stop(self) -> None:
        raise Stopped(f'stopped by {self.whom}, nothing is lost; the same command with --workdir goes on')

    @property
    def whom(self) -> str:
        return self.name or 'another process'

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Defers the stop within the block: a signal only sets a flag, for the training loop to read after each step.

        Raises:
          Stopped: at the beginning or the end of the block, where a stop was requested.
        """
        self._waiting = True
        try:
            if self:  # it came where an exception could not
                self.stop()
            yield
        finally:
            self._waiting = False
        if self:
            self.stop()

    def __bool__(self) -> bool:
        return bool(self.name)


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Handles the signals of `STOP` within the block: they raise `Stopped`, or set a flag within `waiting()`.

    SIGHUP, which a closed terminal sends, is not handled where it is already ignored, as under `nohup`.
    Python delivers signals to the main thread only; in another thread (a notebook's, a test's) nothing is handled.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    heard = [number for number in STOP if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, request.handle) for number in heard}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
