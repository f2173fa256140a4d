"""`--profile`: a trace of some steps, to see where their time goes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

SKIPPED_STEPS, TRACED_STEPS = 5, 10  # steps: the first ones compile and warm up


class Window:
    """Traces about `TRACED_STEPS` steps of this process after its first `SKIPPED_STEPS` with the JAX profiler.

    It traces fewer where the process takes fewer steps, and more where one call takes several.

    Args:
      folder: JAX writes `plugins/profile/<time>/` into it.
      say: is called with the place of the trace once it is written, or with the reason why there is none.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]):
        self._folder, self._say = folder, say
        self._taken, self._skipped, self._tracing = 0, 0, False

    def stepped(self, count: int, output: Any) -> None:
        """Counts `count` more dispatched steps, and starts or ends the trace when it is due.

        Args:
          output: result of the last of these steps; it is waited for before the trace starts or ends.
        """
        self._taken += count
        if not self._skipped and self._taken >= SKIPPED_STEPS:
            jax.block_until_ready(output)
            jax.profiler.start_trace(str(self._folder))
            self._skipped, self._tracing = self._taken, True
        elif self._tracing and self._taken >= self._skipped + TRACED_STEPS:
            jax.block_until_ready(output)
            self._write()

    def close(self) -> None:
        """Writes the trace if it has not been written yet, and reports where nothing was traced."""
        if self._tracing:
            self._write()
        if self._taken <= (skipped := self._skipped or SKIPPED_STEPS):
            self._say(
                f'profile: no step was traced: this process took {self._taken}, of which the first {skipped} are left '
                'out; give it more to do'
            )

    def _write(self) -> None:
        self._tracing = False
        jax.profiler.stop_trace()
        if self._taken > self._skipped:
            self._say(
                f'profile: steps {self._skipped + 1} to {self._taken} of this process are in {self._folder}; open its '
                'newest *.trace.json.gz at https://ui.perfetto.dev, or pip install xprof and run xprof --logdir '
                f'{self._folder}'
            )
