"""How many training steps one program takes.

What a step works with is allocated once a program. On a CPU that counts: the system hands out such memory page by page,
zeroed, and a sixth of a ResNet-18's step was spent on that. A step on features takes less time than asking for it.
Neither changes a bit of what is computed: a program takes its steps in a loop, as many as it is told.
"""

import time
from collections.abc import Collection
from typing import Any

import jax
import numpy as np

from fer_jax import processes
from fer_jax.phases import Phase

ON_FEATURES, ON_IMAGES = 10, 4  # steps of one program at most
PATIENCE = 10.0  # seconds of a program at most, where it can be helped: a stop is noticed between two


def rows(phase: Phase) -> int:
    """How many batches a program of `phase` is given.

    Of images more than one on CPUs alone, and of one process: how many are taken there depends on how long they take,
    which several processes would have to agree on.
    """
    if phase.features is not None:
        return ON_FEATURES
    return ON_IMAGES if jax.default_backend() == 'cpu' and processes.count() == 1 else 1


class Pace:
    """Of one phase.

    Args:
      ends: steps after which the host has something to do.
      every: it has, too, after every so many.
    """

    def __init__(self, phase: Phase, *, ends: Collection[int], every: int):
        self._phase, self._ends, self._every = phase, ends, every
        self.rows = rows(phase)
        self._timed = phase.features is None and self.rows > 1
        self._most, self._since = 1 if self._timed else self.rows, time.perf_counter()

    def count(self, step: int) -> int:
        """How many steps to take from `step` on."""
        self._since = time.perf_counter()
        most = min(self._most, self._phase.last - step, self._every - step % self._every)
        return next((count for count in range(1, most) if step + count in self._ends), most)

    def batch(self, feed: Any, step: int, count: int) -> tuple[Any, ...]:
        """What the program is called with after what lies on the device, see `Setup.step_function`."""
        if self.rows == 1:
            return (feed.host(step),)
        steps = [step + min(at, count - 1) for at in range(self.rows)]  # the last one stands in for what is not taken
        return feed.hosts(steps), np.int32(count)

    def took(self, count: int, output: jax.Array) -> None:
        """After so many steps were dispatched, the last of which gives `output`."""
        if self._timed:
            output.block_until_ready()
            each = (time.perf_counter() - self._since) / count
            self._most = min(self.rows, max(1, int(PATIENCE / each)))
