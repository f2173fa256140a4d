"""Progress of long work: a bar with rate and remaining time; in a file, lines."""

import re
import sys
from collections.abc import Iterable
from typing import Any, TextIO

REPORT_SECONDS = 30.0  # seconds between lines, where nobody sees the bar move: in a log file
LINE = (
    '{desc}{percentage:.0f} %, {n_fmt} of {total_fmt} {unit}, {elapsed} elapsed, {remaining} left, {rate_fmt}{postfix}'
)

_silent = False


def silence() -> None:
    """Turns off all bars of this process: of several processes only one shows them."""
    global _silent
    _silent = True


class Lines:
    """A text stream for tqdm that is no terminal: what tqdm would overwrite becomes lines without padding."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> None:
        """Writes the parts between carriage returns as lines, empty ones left out."""
        self._stream.write(''.join(f'{part.strip()}\n' for part in re.split(r'[\r\n]', text) if part.strip()))

    def flush(self) -> None:
        self._stream.flush()


def bar(items: Iterable[Any] | None, what: str, total: int | None = None, *, delay: float = 2.0, **options: Any) -> Any:
    """Returns a tqdm bar; where standard error is neither a terminal nor a notebook, one that writes lines.

    Args:
      items: what the bar iterates over; None for a bar that is updated by hand.
      what: description of the bar.
      total: number of items, where `items` has no length.
      delay: seconds before the bar appears.
      options: further arguments of tqdm.
    """
    from tqdm import tqdm as plain
    from tqdm.auto import tqdm

    settings: dict[str, Any] = {'unit': 'img', 'leave': False, 'disable': _silent, 'mininterval': 0.1}
    if sys.stderr.isatty() or 'ipykernel' in sys.modules:
        return tqdm(items, what, total, delay=delay, **(settings | options))
    settings |= {'mininterval': REPORT_SECONDS, 'maxinterval': REPORT_SECONDS, 'file': Lines(sys.stderr), 'position': 0}
    settings |= {'bar_format': LINE if total or hasattr(items, '__len__') else None}
    options.pop('dynamic_ncols', None)  # the width of a terminal, to which a line would be cut
    return plain(items, what and f'{what}: ', total, delay=max(delay, REPORT_SECONDS), **(settings | options))
