"""Batches of cached features in place of images."""

from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from fer_jax.data.loading.loader import SplitLoader, annotations, in_order, keeps_on_device
from fer_jax.distributed import sharding
from fer_jax.feature_cache.extract import compute, shape_of
from fer_jax.feature_cache.recipe import FeatureSpec
from fer_jax.feature_cache.store import FeatureFile, cache_key, feature_path, load_or_compute
from fer_jax.models.network import DTYPES, Network
from fer_jax.models.parameters import Variables

OFFSETS = 0x6F666673  # a stream of random numbers that nothing else draws from
FEATURE_BATCH_SIZE = 64


class FeatureLoader:
    """A loader of batches of features instead of images; see `data.loading.loader.SplitLoader`.

    Attributes:
      features: [views * N, ...], a memory-mapped file.
      device_data: {'x': all features, 'y', 'weight'} on every device where they fit, else {}.
    """

    def __init__(self, images: SplitLoader, features: np.ndarray, *, views: int, seed: int, mesh: Mesh):
        self.split = images.split
        self.features = features
        self._views, self._mesh = views, mesh
        self._offsets = np.random.Generator(np.random.Philox(key=[seed, OFFSETS])).integers(
            0, views, len(self.split.ids)
        )
        self.device_data: dict[str, jax.Array] = {}
        if keeps_on_device(features.nbytes, mesh):
            arrays = {'x': features, **annotations(self.split)}
            self.device_data = sharding.put(arrays, sharding.replicated(mesh))

    def rows(self, index: np.ndarray, epoch: np.ndarray | int) -> np.ndarray:
        """Returns the rows, int64 [B], of the features of the examples `index` in `epoch`.

        The views of an image alternate from epoch to epoch.
        """
        return (self._offsets[index] + epoch) % self._views * len(self.split.ids) + index

    def batches(self, index: np.ndarray, weight: np.ndarray, epoch: np.ndarray | int) -> dict[str, jax.Array]:
        """Returns the host's halves of the batches of the examples `index` [K, B], placed on the devices."""
        own_rows = (..., sharding.own_rows(self._mesh, index.shape[1]))
        rows, index, weight = (array[own_rows] for array in (self.rows(index, epoch), index, weight))
        batch = {'id': index.astype(np.int32), 'weight': weight.astype(np.float32)}
        if self.device_data:
            batch['row'] = rows.astype(np.int32)
        else:
            own = {name: rows[index] for name, rows in annotations(self.split).items()}
            batch = own | batch | {'x': self.features[rows], 'weight': own['weight'] * batch['weight']}
        return sharding.put_rows(batch, self._mesh, axis=1)

    def in_order(self, batch_size: int, rows: int) -> Iterator[tuple[dict[str, jax.Array], np.ndarray]]:
        """Yields batches of all examples in order, as `SplitLoader.in_order`."""
        for index, weight in in_order(len(self.split.ids), batch_size, rows):
            yield self.batches(index, weight, 0), weight


class TrainFeatureLoader:
    """A loader of a split's features in the training order; see `data.loading.loader.TrainLoader`."""

    def __init__(self, features: FeatureLoader, indices: Callable[[int], np.ndarray]):
        self.device_data, self.indices, self._features = features.device_data, indices, features

    def host_batches(self, steps: Sequence[int]) -> dict[str, jax.Array]:
        """Returns the host's halves of the batches of `steps`, counted from 0, [K, B, ...]."""
        index = np.stack([self.indices(step) for step in steps])
        place = np.array(steps)[:, None] * index.shape[1] + np.arange(index.shape[1])
        return self._features.batches(index, np.ones(index.shape), place // len(self._features.split.ids))


def make_feature_loader(
    network: Network,
    feature_spec: FeatureSpec,
    variables: Variables,
    images: SplitLoader,
    *,
    fingerprint: str,
    role: str,
    mesh: Mesh,
    batch_size: int = FEATURE_BATCH_SIZE,
) -> FeatureLoader:
    """Loads or computes the features of a split and returns a loader of them.

    Their last bits may depend on the size of the batches in which they are computed. With the batch size that the
    network would see without a cache, training is the same.

    Args:
      fingerprint: of the data.
      role: of the split.
      batch_size: rounded up to a multiple of the number of devices.
    """
    batch_size = -(-batch_size // mesh.size) * mesh.size
    data = {'fingerprint': fingerprint, 'role': role, 'stored': images.split.shape, 'batch': batch_size}
    path = feature_path(cache_key(network, feature_spec, variables, **data))
    rows = feature_spec.views * len(images.split.ids)
    shape, dtype = (rows, *shape_of(network, feature_spec)), np.dtype(DTYPES[feature_spec.dtype])
    program = compute(network, feature_spec, variables, mesh)
    array = load_or_compute(images, program, FeatureFile(path, shape, dtype, role), batch_size=batch_size)
    return FeatureLoader(images, array, views=feature_spec.views, seed=feature_spec.seed, mesh=mesh)
