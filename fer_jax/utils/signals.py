"""Stopping on purpose: at once where nothing would be lost, after the step where it would; a second SIGINT insists."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


class Stopped(BaseException):
    """The run was asked to stop and its state is saved; the same command goes on. Exit status 75.

    No `Exception`: it may come from a signal in the middle of a reader, which would take it for damage of its file.
    """


class StopRequest:
    """Remembers the signal that asked to stop, and raises `Stopped` where nothing waits for a step to end."""

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
        """Within the block a signal only sets a flag, for whoever takes the steps to read after each."""
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
    """Within the block the signals of `STOP` raise `Stopped`, or within `waiting()` set a flag.

    SIGHUP, of a terminal that was closed, does nothing where it is ignored already, as `nohup` has it.
    Python delivers signals to the main thread only; in another thread (a notebook's, a test's) nothing is caught.
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
