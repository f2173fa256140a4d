"""Progress of long work: a bar with rate and remaining time."""

import sys
from collections.abc import Iterable
from typing import Any

EVERY = 30.0  # seconds, where nobody sees the bar move: in a log file


def bar(items: Iterable[Any] | None, what: str, total: int | None = None, *, delay: float = 2.0, **options: Any) -> Any:
    """A tqdm bar over `items`, or to be updated by hand where these are None; it shows after `delay` seconds."""
    from tqdm.auto import tqdm

    from fer_jax.distributed import processes

    interval = 0.1 if sys.stderr.isatty() else EVERY
    settings = {'unit': 'img', 'leave': False, 'mininterval': interval, 'maxinterval': max(interval, 10.0)}
    settings['disable'] = not processes.first()
    return tqdm(items, what, total, delay=delay, **(settings | options))
