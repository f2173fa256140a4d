"""Wait for events, not for times: how fast they come depends on what else the machine does."""

import time
from collections.abc import Callable
from typing import Any

LIMIT = 600.0  # seconds after which an event counts as missing; no correct test comes near it


def wait_for(condition: Callable[[], Any], describe: Callable[[], object] = lambda: 'nothing happened') -> Any:
    """Return the first true value of `condition`; raise AssertionError with a description after LIMIT."""
    deadline = time.monotonic() + LIMIT
    while not (result := condition()):
        assert time.monotonic() < deadline, describe()
        time.sleep(0.05)
    return result
