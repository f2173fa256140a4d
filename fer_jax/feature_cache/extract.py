"""Features of images, computed by a compiled program."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fer_jax.data.augmentation.augment import augment
from fer_jax.data.augmentation.geometry import resize
from fer_jax.data.loading import batch_loop
from fer_jax.data.loading.loader import batch_fetcher
from fer_jax.distributed import sharding
from fer_jax.feature_cache.recipe import FeatureSpec
from fer_jax.models.layers import adaptive_average_pool
from fer_jax.models.network import DTYPES, Network
from fer_jax.models.parameters import Variables

VIEWS = 0x76696577  # a stream of random numbers that nothing else draws from
Compute = Callable[[Mapping[str, Any], Mapping[str, Any], np.int32, int], jax.Array]


def extract(network: Network, feature_spec: FeatureSpec, variables: Variables, images: jax.Array) -> jax.Array:
    """Computes the features of images with the network, in its compute dtype.

    Args:
      images: float [B, H, W, C] of 0..255.

    Returns:
      The output [B, ...] of the spec's stage, or [B, D] where outputs are pooled and concatenated.
    """
    outputs = network.outputs(variables, network.normalise(images), feature_spec.stages)
    if not feature_spec.pool:
        (features,) = outputs.values()
        return features
    cells = [adaptive_average_pool(x, feature_spec.pool) if x.ndim == 4 else x for x in outputs.values()]
    return jnp.concatenate([x.reshape(len(x), -1) for x in cells], -1)


def shape_of(network: Network, feature_spec: FeatureSpec) -> tuple[int, ...]:
    """Returns the shape of the features of one image."""
    images = jax.ShapeDtypeStruct(
        (1, feature_spec.image_size, feature_spec.image_size, network.spec.channels), jnp.float32
    )
    made = functools.partial(extract, network, feature_spec)
    return jax.eval_shape(made, network.variables, images).shape[1:]


def compute(network: Network, feature_spec: FeatureSpec, variables: Variables, mesh: Mesh) -> Compute:
    """Returns a function that computes the features of several batches.

    A view depends on (seed, view, example) alone, not on the batch or on the number of devices.

    Returns:
      (device_data, host_batches, count, view) -> features of the first `count` batches, [K, B, ...].
    """

    @functools.partial(jax.jit, static_argnames='plain', out_shardings=sharding.replicated(mesh))
    def features(variables: Variables, batches: Any, count: jax.Array, view: jax.Array, *, plain: bool) -> jax.Array:
        def of(batch: Any) -> jax.Array:
            images = resize(batch['x'], feature_spec.image_size)
            if not plain:
                key = jax.random.fold_in(jax.random.fold_in(jax.random.key(feature_spec.seed), VIEWS), view)
                keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch['id'])
                images = augment(batch['x'], keys, feature_spec.image_size, feature_spec.settings)
            return extract(network, feature_spec, variables, images).astype(DTYPES[feature_spec.dtype])

        return batch_loop.map_batches(of, batches, count)

    def computed(
        device_data: Mapping[str, Any], host_batches: Mapping[str, Any], count: np.int32, view: int
    ) -> jax.Array:
        batches = batch_fetcher(mesh)(device_data, host_batches)
        return features(variables, batches, count, np.int32(view), plain=view == 0)

    return computed
