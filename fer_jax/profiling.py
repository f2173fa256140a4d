"""`--profile`: a trace of some steps, to see where their time goes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

SKIPPED, TRACED = 5, 10  # steps: the first ones compile and warm up


class Window:
    """Traces `TRACED` steps of this process after its first `SKIPPED`, fewer where it takes fewer.

    Args:
      folder: JAX writes `plugins/profile/<time>/` into it.
      say: is told where the trace is, once it is written.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]):
        self._folder, self._say = folder, say
        self._taken, self._tracing = 0, False

    def stepped(self, count: int, output: Any) -> None:
        """After `count` more steps were dispatched; `output` is what the last one gives, and is waited for."""
        before, self._taken = self._taken, self._taken + count
        if before < SKIPPED <= self._taken:
            jax.block_until_ready(output)
            jax.profiler.start_trace(str(self._folder))
            self._tracing = True
        elif self._tracing and self._taken >= SKIPPED + TRACED:
            jax.block_until_ready(output)
            self.close()

    def close(self) -> None:
        """Writes what was traced, if it is not written yet."""
        if self._tracing:
            self._tracing = False
            jax.profiler.stop_trace()
            self._say(
                f'profile: steps {SKIPPED + 1} to {min(self._taken, SKIPPED + TRACED)} of this process are in '
                f'{self._folder}; open its newest *.trace.json.gz at https://ui.perfetto.dev, or pip install xprof and '
                f'run xprof --logdir {self._folder}'
            )
