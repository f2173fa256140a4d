"""Progress of long work: a bar with rate and remaining time."""

import sys
from collections.abc import Iterable
from typing import Any

REPORT_SECONDS = 30.0  # seconds, where nobody sees the bar move: in a log file

_silent = False


def silence() -> None:
    """Turns off all bars of this process: of several processes only one shows them."""
    global _silent
    _silent = True


def bar(items: Iterable[Any] | None, what: str, total: int | None = None, *, delay: float = 2.0, **options: Any) -> Any:
    """Returns a tqdm bar.

    Args:
      items: what the bar iterates over; None for a bar that is updated by hand.
      what: description of the bar.
      total: number of items, where `items` has no length.
      delay: seconds before the bar appears.
      options: further arguments of tqdm.
    """
    from tqdm.auto import tqdm

    interval = 0.1 if sys.stderr.isatty() else REPORT_SECONDS
    settings = {'unit': 'img', 'leave': False, 'mininterval': interval, 'maxinterval': max(interval, 10.0)}
    settings['disable'] = _silent
    return tqdm(items, what, total, delay=delay, **(settings | options))
