"""Batches: what the host sends each step, and what already lies on the device.

A batch has two halves. `device_data` is passed to every step and, where the images live on the device, holds them all;
`host` is this step's own, or several steps' along a first axis. `assemble_batch` joins them inside jit, so both
placements give the same batch.
"""

import functools
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fer_jax.config.choices import PLACEMENTS
from fer_jax.data.dataset import Split
from fer_jax.data.loading import sampler
from fer_jax.distributed import processes, sharding
from fer_jax.errors import UserError
from fer_jax.utils import progress
from fer_jax.utils import threads as utils_threads
from fer_jax.utils.forked import check_main_guard

log = logging.getLogger('fer_jax')
SHARE_OF_MEMORY = 0.25
BATCHES_AHEAD = 4  # batches that a stream keeps decoded


def assemble_batch(device_data: Mapping[str, jax.Array], host: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Assembles a batch from what lies on the devices and from the host's half; called inside jit.

    The outputs of teachers, see `fer_jax.training.distillation`, keep their names. In a batch of features, see
    `fer_jax.feature_cache.loader`, 'x' is [B, ...], and 'row' is the position of each example in it.

    Args:
      device_data: see `SplitLoader.device_data`.
      host: the host's half; one that holds 'x' is the whole batch.

    Returns:
      {'x': uint8 [B, H, W, C], 'y', 'id': int32 [B], 'weight': float32 [B]}. 'y' is int32 [B] of classes, or float32
      [B, classes] of distributions or attributes; 'id' is the position in the split.
    """
    if 'x' in host:
        return dict(host)
    batch = {name: jnp.take(leaf, host['id'], axis=0) for name, leaf in device_data.items() if name != 'x'}
    x = jnp.take(device_data['x'], host.get('row', host['id']), axis=0)
    return batch | {'x': x, 'id': host['id'], 'weight': batch['weight'] * host['weight']}


@functools.cache
def batch_fetcher(mesh: Mesh) -> Callable[[Mapping[str, jax.Array], Mapping[str, jax.Array]], dict[str, jax.Array]]:
    """Returns a compiled function (device_data, host_batches) -> {'x', 'id'} of several batches, [K, B, ...].

    A network that takes its batches from it is compiled once, whatever the number and the sizes of the splits.
    """

    def of(device_data: Mapping[str, jax.Array], host_batches: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        batch = assemble_batch(device_data, host_batches)
        return {name: batch[name] for name in ('x', 'id')}

    return jax.jit(of, out_shardings=sharding.batch(mesh, axis=1))


def in_order(count: int, batch_size: int, rows: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (positions, weight), each [rows, B], that go over `count` examples in order.

    The end of the last batches is filled with example 0 at weight 0.

    Args:
      count: number of examples.
      batch_size: B.
      rows: batches at once.
    """
    for first in range(0, count, rows * batch_size):
        positions = first + np.arange(rows * batch_size).reshape(rows, batch_size)
        weight = (positions < count).astype(np.float32)
        yield np.where(positions < count, positions, 0), weight


def annotations(split: Split) -> dict[str, np.ndarray]:
    """Returns {'y', 'weight', and the outputs of teachers}, each [N, ...]."""
    return {'y': split.learned, 'weight': split.weights, **split.teacher_outputs}


def decoded(split: Split, index: np.ndarray, weight: np.ndarray) -> dict[str, np.ndarray]:
    """Reads a batch, or several, on the host, in the form of `assemble_batch`.

    Args:
      index: int [B] or [K, B], positions in the split.
      weight: [B] or [K, B], factors on the weights of the examples.
    """
    batch = {name: rows[index] for name, rows in annotations(split).items()}
    batch['weight'] = batch['weight'] * weight.astype(np.float32)
    once, where = np.unique(index, return_inverse=True) if index.ndim > 1 else (index, slice(None))
    return batch | {'x': split.read(once)[where], 'id': index.astype(np.int32)}


class SplitLoader:
    """Holds one split, on the devices or as a stream; `batches(index, weight)` makes the host's half of batches.

    Attributes:
      placement: 'device' or 'stream'.
      device_data: {'x': uint8 [N, H, W, C], 'y', 'weight', outputs of teachers} on every device, or {} for a stream.
    """

    def __init__(self, split: Split, *, placement: str, mesh: Mesh, role: str):
        self.split = split
        self.placement = choose(split, placement, mesh, role)
        self.mesh = mesh
        self.device_data: dict[str, jax.Array] = {}
        if self.placement == 'device':
            arrays = {'x': read_all(split), **annotations(split)}
            self.device_data = sharding.put(arrays, sharding.replicated(mesh))

    def batches(self, index: np.ndarray, weight: np.ndarray) -> dict[str, jax.Array]:
        """Returns the host's halves of batches, on the devices; each process reads the rows of its own devices only.

        Args:
          index: int [K, B], positions in the split.
          weight: [K, B], factors on the weights of the examples.
        """
        own = (..., sharding.own_rows(self.mesh, index.shape[1]))
        index, weight = index[own], weight[own]
        if self.placement == 'device':
            batch = {'id': index.astype(np.int32), 'weight': weight.astype(np.float32)}
        else:
            batch = decoded(self.split, index, weight)
        return sharding.put_rows(batch, self.mesh, axis=1)

    def in_order(self, batch_size: int, rows: int) -> Iterator[tuple[dict[str, jax.Array], np.ndarray]]:
        """Yields (host's halves of `rows` batches, weight [rows, B]) over the split in order, every example once."""
        for index, weight in in_order(len(self.split.labels), batch_size, rows):
            yield self.batches(index, weight), weight


class TrainLoader(SplitLoader):
    """Loads the training split in an order that depends on (seed, step) alone.

    A stream is read by Grain: its random access by step makes the order independent of threads and workers.

    Args:
      balance: see `sampler.make`.
      workers: processes that decode a stream; 0 decodes in threads of this one.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch_size: int,
        seed: int,
        placement: str,
        mesh: Mesh,
        balance: str = 'none',
        workers: int = 0,
    ):
        count = len(split.labels)
        if batch_size > count:
            raise UserError(
                f'data.batch_size={batch_size} is larger than the training split, {count} images; give at most {count}'
            )
        super().__init__(split, placement=placement, mesh=mesh, role='train')
        self._order = sampler.make(balance, split.labels, seed=seed, batch_size=batch_size)
        if workers and self.placement == 'stream':
            check_main_guard()
        self._workers, self.batch_size = workers, batch_size
        self._stream: Iterator[dict[str, np.ndarray]] = iter(())
        self._last: tuple[int, dict[str, np.ndarray]] = (-2, {})

    def indices(self, step: int) -> np.ndarray:
        """Returns the examples of step `step`, counted from 0: int64 [B]."""
        return self._order(step)

    def host_batches(self, steps: Sequence[int]) -> dict[str, jax.Array]:
        """Returns the host's halves of the batches of several steps, [K, B, ...].

        Args:
          steps: counted from 0; a stream is fastest when they are asked for in order.
        """
        if self.placement == 'device':
            index = np.stack([self._order(step) for step in steps])
            return self.batches(index, np.ones(index.shape))
        read = [self._read(step) for step in steps]
        if len(read) == 1:  # without a copy
            return sharding.put_rows({name: leaf[None] for name, leaf in read[0].items()}, self.mesh, axis=1)
        return sharding.put_rows({name: np.stack([row[name] for row in read]) for name in read[0]}, self.mesh, axis=1)

    def _read(self, step: int) -> dict[str, np.ndarray]:
        position, batch = self._last
        if step != position:
            if step != position + 1:
                self._stream = self._read_from(step)
            batch = next(self._stream)
            self._last = step, batch
        return batch

    def _read_from(self, step: int) -> Iterator[dict[str, np.ndarray]]:
        import grain.python as grain
        from absl import flags

        own = sharding.own_rows(self.mesh, self.batch_size)

        def batch(step: int, split: Split = self.split, order: sampler.Order = self._order) -> dict[str, np.ndarray]:
            index = order(int(step))[own]
            return decoded(split, index, np.ones(len(index)))

        threads = grain.ReadOptions(num_threads=self.split.readers, prefetch_buffer_size=BATCHES_AHEAD)
        stream = grain.MapDataset.range(step, np.iinfo(np.int32).max).map(batch).to_iter_dataset(threads)
        if self._workers:
            if not flags.FLAGS.is_parsed():  # Grain hands the flags on to its workers
                flags.FLAGS.mark_as_parsed()
            stream = stream.mp_prefetch(grain.MultiprocessingOptions(num_workers=self._workers))
        return iter(stream)


class MultiTaskLoader:
    """Joins the loaders of several tasks, and returns their results by task.

    Attributes:
      device_data: {task: what lies on the devices}.
    """

    def __init__(self, loaders: Mapping[str, Any]):
        self._loaders = loaders
        self.device_data = {task: loader.device_data for task, loader in loaders.items()}

    def host_batches(self, steps: Sequence[int]) -> dict[str, dict[str, jax.Array]]:
        """Returns {task: the host's halves of the batches of several steps, [K, B, ...]}; steps count from 0."""
        return {task: loader.host_batches(steps) for task, loader in self._loaders.items()}


def choose(split: Split, placement: str, mesh: Mesh, role: str) -> str:
    """Resolves 'auto': on the device where the decoded images take at most a quarter of its free memory."""
    if placement not in PLACEMENTS:
        raise UserError(f'data.placement={placement!r} is unknown; choose {", ".join(PLACEMENTS)}')
    if placement != 'auto':
        return placement
    size = len(split.labels) * int(np.prod(split.shape))
    chosen = 'device' if keeps_on_device(size, mesh) else 'stream'
    log.info('%s: %.0f MB of images: placement %s', role, size / 1e6, chosen)
    return chosen


def keeps_on_device(size: int, mesh: Mesh) -> bool:
    """Tells whether `size` bytes are at most a quarter of a device's free memory, as process 0 finds it."""
    fits = size <= SHARE_OF_MEMORY * free_memory(mesh)
    return processes.broadcast_from_main(str(fits)) == 'True'


def free_memory(mesh: Mesh) -> int:
    """Returns the free bytes of a device; on CPU, those of the host divided by the number of devices of the mesh."""
    stats = mesh.local_devices[0].memory_stats()
    if stats and 'bytes_limit' in stats:
        return stats['bytes_limit'] - stats.get('bytes_in_use', 0)
    return os.sysconf('SC_AVPHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') // mesh.size


def read_all(split: Split) -> np.ndarray:
    """Reads all images of a split: uint8 [N, H, W, C]."""
    images = np.empty((len(split.labels), *split.shape), np.uint8)
    chunks = [np.arange(first, min(first + 256, len(images))) for first in range(0, len(images), 256)]

    def read(chunk: np.ndarray) -> None:
        images[chunk] = split.read(chunk)

    with utils_threads.threads(split.readers) as pool:
        list(progress.bar(pool.map(read, chunks), 'reading images', len(chunks), unit=' x 256 img'))
    return images
