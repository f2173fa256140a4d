"""Stopping on purpose: the first signal asks, a second SIGINT insists."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Stopped(Exception):
    """The run was asked to stop and its state is saved; the same command goes on. Exit status 75."""


class StopRequest:
    """Remembers the signal that asked to stop."""

    def __init__(self) -> None:
        self.name = ''

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.name and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name

    def __bool__(self) -> bool:
        return bool(self.name)


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Within the block SIGTERM, SIGINT and SIGUSR1 set a flag, which the training loop reads after each step.

    Python delivers signals to the main thread only; in another thread (a notebook's, a test's) nothing is caught.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request.handle) for number in STOP}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
