"""Batches: what the host sends each step, and what already lies on the device.

A batch has two halves. `resident` is passed to every step and, where the images live on the device, holds them all;
`host` is this step's own. `gather` joins them inside jit, so both placements give the same batch.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fer_jax import sharding
from fer_jax.data.datasets import Split
from fer_jax.data.order import indices
from fer_jax.errors import UserError

log = logging.getLogger('fer_jax')
PLACEMENTS = ('auto', 'device', 'stream')
SHARE_OF_MEMORY = 0.25
AHEAD = 2


def gather(resident: Mapping[str, jax.Array], host: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """The batch {'x': uint8 [B, H, W, C], 'y': int32 [B], 'weight': float32 [B]}; called inside jit."""
    if 'x' in host:
        return dict(host)
    x, y = (jnp.take(resident[name], host['index'], axis=0) for name in ('x', 'y'))
    return {'x': x, 'y': y, 'weight': host['weight']}


class Feed:
    """One split, placed. `host_batch(index, weight)` makes the host's half of any batch.

    Attributes:
      placement: 'device' or 'stream'.
      resident: {'x': uint8 [N, H, W, C], 'y': int32 [N]} on every device, or {}.
    """

    def __init__(self, split: Split, *, placement: str, mesh: Mesh, role: str):
        self.split = split
        self.placement = choose(split, placement, mesh, role)
        self._sharding = sharding.batch(mesh)
        self.resident: dict[str, jax.Array] = {}
        if self.placement == 'device':
            arrays = {'x': read_all(split), 'y': split.labels}
            self.resident = jax.device_put(arrays, sharding.replicated(mesh))

    def host_batch(self, index: np.ndarray, weight: np.ndarray) -> dict[str, jax.Array]:
        """The host's half of the batch of the examples `index` [B], on the devices."""
        batch: dict[str, Any] = {'weight': weight.astype(np.float32)}
        if self.placement == 'device':
            batch['index'] = index.astype(np.int32)
        else:
            batch |= {'x': self.split.read(index), 'y': self.split.labels[index]}
        return jax.device_put(batch, self._sharding)

    def in_order(self, batch_size: int) -> Iterator[tuple[dict[str, jax.Array], np.ndarray]]:
        """(host half, weight [B]) of each batch over the split in order, every example once.

        The last is filled up with example 0 at weight 0.
        """
        count = len(self.split.labels)
        for first in range(0, count, batch_size):
            positions = np.arange(first, first + batch_size)
            weight = (positions < count).astype(np.float32)
            yield self.host_batch(np.where(positions < count, positions, 0), weight), weight


class TrainFeed(Feed):
    """The training split in the order of (seed, step); a stream is decoded `AHEAD` batches early, in a thread."""

    def __init__(self, split: Split, *, batch_size: int, seed: int, placement: str, mesh: Mesh):
        count = len(split.labels)
        if batch_size > count:
            raise UserError(
                f'data.batch_size={batch_size} is larger than the training split, {count} images; give at most {count}'
            )
        super().__init__(split, placement=placement, mesh=mesh, role='train')
        self._batch_size, self._seed = batch_size, seed
        self._pool = ThreadPoolExecutor(1)
        self._ahead: dict[int, Future[dict[str, jax.Array]]] = {}

    def _make(self, step: int) -> dict[str, jax.Array]:
        index = indices(self._seed, step, self._batch_size, len(self.split.labels))
        return self.host_batch(index, np.ones(self._batch_size))

    def host(self, step: int) -> dict[str, jax.Array]:
        """The host's half of step `step`, counted from 0."""
        if self.placement == 'device':
            return self._make(step)
        for later in range(step, step + 1 + AHEAD):
            if later not in self._ahead:
                self._ahead[later] = self._pool.submit(self._make, later)
        for stale in [other for other in self._ahead if not step <= other <= step + AHEAD]:
            self._ahead.pop(stale).cancel()
        return self._ahead.pop(step).result()


def choose(split: Split, placement: str, mesh: Mesh, role: str) -> str:
    """Resolves 'auto': on the device where the decoded images take at most a quarter of its free memory."""
    if placement not in PLACEMENTS:
        raise UserError(f'data.placement={placement!r} is unknown; choose {", ".join(PLACEMENTS)}')
    if placement != 'auto':
        return placement
    size, free = len(split.labels) * int(np.prod(split.shape)), free_memory(mesh)
    chosen = 'device' if size <= SHARE_OF_MEMORY * free else 'stream'
    log.info('%s: %.0f MB of images, %.1f GB free: placement %s', role, size / 1e6, free / 1e9, chosen)
    return chosen


def free_memory(mesh: Mesh) -> int:
    """Free bytes of a device; on CPU the host's, shared by all devices of the mesh."""
    stats = mesh.devices.flat[0].memory_stats()
    if stats and 'bytes_limit' in stats:
        return stats['bytes_limit'] - stats.get('bytes_in_use', 0)
    return os.sysconf('SC_AVPHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') // mesh.size


def read_all(split: Split) -> np.ndarray:
    """uint8 [N, H, W, C], decoded in threads, with a progress bar where it takes more than two seconds."""
    from tqdm.auto import tqdm

    images = np.empty((len(split.labels), *split.shape), np.uint8)
    chunks = [np.arange(first, min(first + 256, len(images))) for first in range(0, len(images), 256)]

    def read(chunk: np.ndarray) -> None:
        images[chunk] = split.read(chunk)

    with ThreadPoolExecutor() as pool:
        list(tqdm(pool.map(read, chunks), total=len(chunks), desc='reading images', delay=2, leave=False))
    return images
