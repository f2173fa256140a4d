"""Progress of long work: a bar with rate and remaining time."""

import sys
from collections.abc import Iterable
from typing import Any

REPORT_SECONDS = 30.0  # seconds, where nobody sees the bar move: in a log file

_silent = False


def silence() -> None:
    """Turns all bars of this process off: of several processes one shows them."""
    global _silent
    _silent = True


def bar(items: Iterable[Any] | None, what: str, total: int | None = None, *, delay: float = 2.0, **options: Any) -> Any:
    """A tqdm bar over `items`, or to be updated by hand where these are None; it shows after `delay` seconds."""
    from tqdm.auto import tqdm

    interval = 0.1 if sys.stderr.isatty() else REPORT_SECONDS
    settings = {'unit': 'img', 'leave': False, 'mininterval': interval, 'maxinterval': max(interval, 10.0)}
    settings['disable'] = _silent
    return tqdm(items, what, total, delay=delay, **(settings | options))
