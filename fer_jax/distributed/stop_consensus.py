"""Stopping after the same step in all processes, whichever of them were asked to."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fer_jax.distributed import processes, sharding
from fer_jax.utils.signals import StopRequest


class StopConsensus:
    """Whether to stop: of one process what it was asked, of several what any of them was.

    Those add up their wishes on the devices, step by step. A sum is looked at one step late, so that no step waits for
    it, and by all of them after the same step.
    """

    def __init__(self, mesh: Mesh, stop: StopRequest):
        self._mesh, self._stop = mesh, stop
        self._own = mesh.size // processes.count()
        self._sum = jax.jit(jnp.sum, out_shardings=sharding.replicated(mesh))
        self._before: jax.Array | None = None

    def after_step(self) -> bool:
        """To be asked after every step."""
        if processes.count() == 1:
            return bool(self._stop)
        before, wish = self._before, np.full(self._own, bool(self._stop), np.int32)
        self._before = self._sum(sharding.put_rows(wish, self._mesh))
        return before is not None and self._read(before)

    def at_end(self) -> bool:
        """What was not looked at yet, after the last step."""
        return self._before is not None and self._read(self._before)

    def _read(self, wishes: jax.Array) -> bool:
        found = int(wishes) > 0
        processes.step_finished()
        return found
