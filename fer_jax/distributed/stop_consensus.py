"""Stopping after the same step in all processes, whichever of them were asked to."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fer_jax.distributed import processes, sharding
from fer_jax.utils.signals import StopRequest


class StopConsensus:
    """Decides after which step all processes stop: as soon as one of them was asked to.

    With several processes, the requests are summed on the devices after every step. The sum is read one step later, so
    that no step waits for it, and all processes read it after the same step.
    """

    def __init__(self, mesh: Mesh, stop: StopRequest):
        self._mesh, self._stop = mesh, stop
        self._own = mesh.size // processes.count()
        self._sum = jax.jit(jnp.sum, out_shardings=sharding.replicated(mesh))
        self._before: jax.Array | None = None

    def after_step(self) -> bool:
        """Tells whether to stop; all processes call it after every step."""
        if processes.count() == 1:
            return bool(self._stop)
        before, wish = self._before, np.full(self._own, bool(self._stop), np.int32)
        self._before = self._sum(sharding.put_rows(wish, self._mesh))
        return before is not None and self._read(before)

    def at_end(self) -> bool:
        """Tells, after the last step, whether the sum that `after_step` has not read yet holds a request."""
        return self._before is not None and self._read(self._before)

    def _read(self, wishes: jax.Array) -> bool:
        wished = int(wishes) > 0
        processes.step_finished()
        return wished
