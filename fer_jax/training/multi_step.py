"""How many batches one program goes over.

What a network works with is allocated once a program. On a CPU that counts: the system hands out such memory page by
page, zeroed, and a seventh of a ResNet-18's step was spent on that. A step on features takes less time than asking for
it. Neither changes a bit of what is computed: a program goes over its batches in a loop, over as many as it is told.
Only one that is given a single batch has no loop.
"""

import time
from collections.abc import Callable, Collection
from typing import Any

import jax
import numpy as np

from fer_jax.data.loading.batch_loop import of_images
from fer_jax.distributed import processes

FEATURE_BATCHES_PER_CALL = 10  # batches of one program at most
STOP_CHECK_SECONDS = 10.0  # seconds of a program at most, where it can be helped: a stop is noticed between two


def rows(*, features: bool) -> int:
    """Returns the number of batches that one call of a training program receives.

    For images it is 1 where there are several processes: how many batches a call takes depends on the measured time of
    a step, on which the processes would have to agree.

    Args:
      features: whether the batches are of cached features, not of images.
    """
    if features:
        return FEATURE_BATCHES_PER_CALL
    return of_images() if processes.count() == 1 else 1


def loop_steps(step: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps a step (state, fixed, device_data, host) -> state in a loop over several batches.

    Returns:
      (state, fixed, device_data, host_batches, count) -> state after the first `count` of `host_batches`, leaves
      [K, B, ...]. Where K is 1 it takes that batch without a loop, whatever `count` is.
    """

    def steps(state: Any, fixed: Any, device_data: Any, host_batches: Any, count: jax.Array) -> Any:
        def one(index: jax.Array | int, state: Any) -> Any:
            return step(state, fixed, device_data, jax.tree.map(lambda leaf: leaf[index], host_batches))

        if len(jax.tree.leaves(host_batches)[0]) == 1:
            return one(0, state)
        return jax.lax.fori_loop(0, count, one, state)

    return steps


class StepsPerCall:
    """Chooses how many steps each call of a phase's training program takes.

    Args:
      features: whether the phase trains on cached features.
      last: the last step of the phase.
      ends: steps after which control has to return to the host.
      every: control also returns after every multiple of this number of steps.
    """

    def __init__(self, *, features: bool, last: int, ends: Collection[int], every: int):
        self._last, self._ends, self._every = last, ends, every
        self.rows = rows(features=features)
        self._timed = not features and self.rows > 1
        self._most, self._since = 1 if self._timed else self.rows, time.perf_counter()

    def count(self, step: int) -> int:
        """Returns how many steps the call that starts at `step` takes."""
        self._since = time.perf_counter()
        most = min(self._most, self._last - step, self._every - step % self._every)
        return next((count for count in range(1, most) if step + count in self._ends), most)

    def batch(self, loader: Any, step: int, count: int) -> tuple[Any, np.int32]:
        """Returns the program's arguments (host_batches, count), see `PhaseProgram.step_function`."""
        steps = [step + min(row, count - 1) for row in range(self.rows)]  # the last one stands in for what is not taken
        return loader.host_batches(steps), np.int32(count)

    def took(self, count: int, output: jax.Array) -> None:
        """Updates the largest number of steps per call from the measured time of the last call.

        Args:
          count: steps of that call.
          output: array that the last of them returns; it is waited for where steps are timed.
        """
        if self._timed:
            output.block_until_ready()
            each = (time.perf_counter() - self._since) / count
            self._most = min(self.rows, max(1, int(STOP_CHECK_SECONDS / each)))
