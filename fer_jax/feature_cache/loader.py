"""The feature cache: what a frozen part of a network says of each image, computed once and kept.

Where nothing below a phase's boundary can change, the activations there are a function of the image, the view and the
weights. They are computed once, kept on disk under a key of everything that they depend on, and take the place of
images in the batch: a phase of many epochs then costs one pass through the frozen part, and the next run none.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fer_jax.data.augmentation.augment import Augment, augment
from fer_jax.data.augmentation.geometry import resize
from fer_jax.data.loading import batch_loop
from fer_jax.data.loading.loader import Feed, annotations, fetch, in_order, keeps_on_device
from fer_jax.distributed import processes, sharding
from fer_jax.errors import UserError
from fer_jax.models.layers import adaptive_average_pool
from fer_jax.models.network import DTYPES, Network
from fer_jax.models.parameters import Flat, digest_of, stage_of
from fer_jax.utils import cache, progress
from fer_jax.utils.atomic_files import write_text

VIEWS = 0x76696577  # a stream of random numbers that nothing else draws from
OFFSETS = 0x6F666673  # another one
BATCH = 64
SOURCES: tuple[str, ...] = ('feature_cache/*.py', 'models/*.py', 'training/multi_step.py', 'pretrained/weights.py')
SOURCES += tuple(f'data/augmentation/{name}.py' for name in ('augment', 'colour', 'geometry'))
SOURCES += ('data/loading/loader.py', 'data/imaging/codec.py')
VERSIONS = ('jax', 'jaxlib', 'flax', 'numpy', 'opencv-python-headless', 'pillow')
LEFT = 24 * 3600.0  # seconds after which what a killed process was writing is taken for left behind

Compute = Callable[[Mapping[str, Any], Mapping[str, Any], np.int32, int], jax.Array]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Which features of an image.

    Attributes:
      stages: whose outputs they are.
      pool: each output is averaged to so many cells a side, and all are laid end to end; 0 for one output as it is.
      image_size: side of the images, in pixels.
      views: how many of each image. The first is the plain image, the others are augmented.
      settings, seed: of the augmented ones.
      dtype: 'float32' or 'bfloat16', as they are kept.
    """

    stages: tuple[str, ...]
    image_size: int
    pool: int = 0
    views: int = 1
    settings: Augment = Augment()
    seed: int = 0
    dtype: str = 'float32'

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise UserError(f'cache_dtype={self.dtype!r} is unknown; choose {" or ".join(DTYPES)}')
        if self.views > 1 and self.settings == Augment():
            raise UserError(f'cache_views={self.views} of images that are not augmented would all be the same; give 1')


class FeatureFeed:
    """Batches of features in place of images; see `data.loading.loader.Feed`.

    Attributes:
      features: [views * N, ...], a memory-mapped file.
      resident: {'x': all features, 'y', 'weight'} on every device where they fit, else {}.
    """

    def __init__(self, images: Feed, features: np.ndarray, *, views: int, seed: int, mesh: Mesh):
        self.split = images.split
        self.features = features
        self._views, self._mesh = views, mesh
        self._offsets = np.random.Generator(np.random.Philox(key=[seed, OFFSETS])).integers(
            0, views, len(self.split.ids)
        )
        self.resident: dict[str, jax.Array] = {}
        if keeps_on_device(features.nbytes, mesh):
            arrays = {'x': features, **annotations(self.split)}
            self.resident = sharding.put(arrays, sharding.replicated(mesh))

    def rows(self, index: np.ndarray, epoch: np.ndarray | int) -> np.ndarray:
        """int64 [B]: where the features of the examples `index` stand in `epoch`; an image's views come in turn."""
        return (self._offsets[index] + epoch) % self._views * len(self.split.ids) + index

    def batches(self, index: np.ndarray, weight: np.ndarray, epoch: np.ndarray | int) -> dict[str, jax.Array]:
        """The host's halves of the batches of the examples `index` [K, B], on the devices."""
        own_rows = (..., sharding.own_rows(self._mesh, index.shape[1]))
        rows, index, weight = (array[own_rows] for array in (self.rows(index, epoch), index, weight))
        batch = {'id': index.astype(np.int32), 'weight': weight.astype(np.float32)}
        if self.resident:
            batch['row'] = rows.astype(np.int32)
        else:
            own = {name: rows[index] for name, rows in annotations(self.split).items()}
            batch = own | batch | {'x': self.features[rows], 'weight': own['weight'] * batch['weight']}
        return sharding.put_rows(batch, self._mesh, axis=1)

    def in_order(self, batch_size: int, rows: int) -> Iterator[tuple[dict[str, jax.Array], np.ndarray]]:
        """As `Feed.in_order`."""
        for index, weight in in_order(len(self.split.ids), batch_size, rows):
            yield self.batches(index, weight, 0), weight


class TrainFeatures:
    """The training order over a split's features; see `data.loading.loader.TrainFeed`."""

    def __init__(self, features: FeatureFeed, indices: Callable[[int], np.ndarray]):
        self.resident, self.indices, self._features = features.resident, indices, features

    def hosts(self, steps: Sequence[int]) -> dict[str, jax.Array]:
        """The host's halves of steps, counted from 0, [K, B, ...]."""
        index = np.stack([self.indices(step) for step in steps])
        place = np.array(steps)[:, None] * index.shape[1] + np.arange(index.shape[1])
        return self._features.batches(index, np.ones(index.shape), place // len(self._features.split.ids))


def check(network: Network, boundary: str, settings: Augment) -> None:
    """Raises UserError where features at `boundary` do not do: nothing lies below, the head reads more, images mix."""
    if boundary == next(iter(network.stages)):
        raise UserError(
            f'cache_views keeps what frozen stages compute, but the first stage, {boundary}, trains: freeze it by '
            'rates, or set cache_views to 0'
        )
    order, inputs = list(network.stages), network.spec.head_inputs
    if boundary != 'head' and any(order.index(stage) < order.index(boundary) for stage in inputs):
        raise UserError(
            f'cache_views keeps what enters {boundary}, but the head reads {", ".join(inputs)}: train the head alone, '
            'or from the lowest of them, or set cache_views to 0'
        )
    if settings.mixup or settings.cutmix:
        raise UserError(
            f'cache_views with mixup={settings.mixup}, cutmix={settings.cutmix}: features are of one image each; set '
            'both to 0 in this phase, or cache_views to 0'
        )


def boundary_recipe(network: Network, boundary: str, image_size: int, **fields: Any) -> Recipe:
    """Of the activations that enter `boundary`."""
    order = list(network.stages)
    if boundary == 'head' and network.spec.head_inputs:
        return Recipe(tuple(sorted(network.spec.head_inputs, key=order.index)), image_size, pool=1, **fields)
    return Recipe((order[order.index(boundary) - 1],), image_size, **fields)


def extract(network: Network, recipe: Recipe, params: Flat, batch_stats: Flat, images: jax.Array) -> jax.Array:
    """The features of images, float [B, H, W, C] of 0..255, in the network's type."""
    outputs = network.outputs(params, batch_stats, network.normalise(images), recipe.stages)
    if not recipe.pool:
        (features,) = outputs.values()
        return features
    cells = [adaptive_average_pool(x, recipe.pool) if x.ndim == 4 else x for x in outputs.values()]
    return jnp.concatenate([x.reshape(len(x), -1) for x in cells], -1)


def shape_of(network: Network, recipe: Recipe) -> tuple[int, ...]:
    """Of one image's features."""
    images = jax.ShapeDtypeStruct((1, recipe.image_size, recipe.image_size, network.spec.channels), jnp.float32)
    made = functools.partial(extract, network, recipe)
    return jax.eval_shape(made, network.params, network.batch_stats, images).shape[1:]


def compute(network: Network, recipe: Recipe, params: Flat, batch_stats: Flat, mesh: Mesh) -> Compute:
    """(resident, hosts, count, view) -> the features of the first `count` of several batches, [K, B, ...].

    A view depends on (seed, view, example) alone, so neither on the batch nor on the number of devices.
    """

    @functools.partial(jax.jit, static_argnames='plain', out_shardings=sharding.replicated(mesh))
    def features(
        params: Flat, batch_stats: Flat, batches: Any, count: jax.Array, view: jax.Array, *, plain: bool
    ) -> jax.Array:
        def of(batch: Any) -> jax.Array:
            images = resize(batch['x'], recipe.image_size)
            if not plain:
                key = jax.random.fold_in(jax.random.fold_in(jax.random.key(recipe.seed), VIEWS), view)
                keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch['id'])
                images = augment(batch['x'], keys, recipe.image_size, recipe.settings)
            return extract(network, recipe, params, batch_stats, images).astype(DTYPES[recipe.dtype])

        return batch_loop.one_by_one(of, batches, count)

    def computed(resident: Mapping[str, Any], hosts: Mapping[str, Any], count: np.int32, view: int) -> jax.Array:
        batches = fetch(mesh)(resident, hosts)
        return features(params, batch_stats, batches, count, np.int32(view), plain=view == 0)

    return computed


def key_of(network: Network, recipe: Recipe, params: Flat, batch_stats: Flat, **data: Any) -> str:
    """sha256 of all that features depend on.

    Args:
      data: fingerprint of the data, role of the split, the shape in which its images are stored, the size of a batch.
    """
    order = list(network.stages)
    below = set(order[: 1 + max(map(order.index, recipe.stages))])
    leaves = (params | batch_stats).items()
    digest = digest_of({path: leaf for path, leaf in leaves if stage_of(path, network.stages) in below})
    for pattern in SOURCES:
        for file in sorted(cache.PACKAGE.glob(pattern)):
            digest.update(file.name.encode() + file.read_bytes())
    device = jax.devices()[0]
    look = {name: getattr(network.spec, name) for name in ('name', 'channels', 'dtype', 'mean', 'std', 'order')}
    facts = {
        'recipe': dataclasses.asdict(recipe),
        'network': look,
        'data': data,
        'weights and source': digest.hexdigest(),
        'versions': {package: metadata.version(package) for package in VERSIONS},
        'precision': jax.config.jax_default_matmul_precision,  # type: ignore[attr-defined]
        'platform': [device.platform, device.device_kind, jax.device_count(), os.cpu_count()],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def kept(
    images: Feed,
    compute: Compute,
    *,
    key: str,
    views: int,
    shape: tuple[int, ...],
    dtype: str,
    batch_size: int,
    mesh: Mesh,
    what: str,
) -> np.ndarray:
    """The features of a split, [views * N, *shape]: from disk where they are whole, otherwise computed and kept there.

    The file is `<cache>/features/<key>.bin`; `<key>.json` beside it, written last, says its shape and sha256.

    Raises:
      UserError: the disk is too small.
    """
    count = len(images.split.ids)
    whole = (views * count, *shape)
    kind = np.dtype(DTYPES[dtype])
    path = cache.root() / 'features' / f'{processes.tell(key)[:32]}.bin'
    found = processes.first() and _is_whole(path, whole, kind)
    if not json.loads(processes.tell(json.dumps(found))):
        path.parent.mkdir(parents=True, exist_ok=True)
        size, free = int(np.prod(whole)) * kind.itemsize, shutil.disk_usage(path.parent).free
        if size > free:
            raise UserError(
                f'the feature cache needs {size / 1e9:.1f} GB in {path.parent}, {free / 1e9:.1f} GB are free; lower '
                'cache_views, set cache_dtype=bfloat16, set FER_JAX_CACHE to another disk, or set cache_views to 0'
            )
        _fill(images, compute, path, views, whole, kind, batch_size, mesh, what)
    processes.meet()
    processes.shared_file(path)
    return np.memmap(path, kind, 'r', shape=whole)


def _fill(
    images: Feed,
    compute: Compute,
    path: Path,
    views: int,
    whole: tuple[int, ...],
    kind: np.dtype,
    batch_size: int,
    mesh: Mesh,
    what: str,
) -> None:
    def parts() -> Iterator[np.ndarray]:
        for view in range(views):
            for hosts, weight in images.in_order(batch_size, batch_loop.of_images()):
                yield np.asarray(compute(images.resident, hosts, batch_loop.filled(weight), view))[weight > 0]

    if not processes.first():
        for _ in parts():
            pass
        return
    for old in path.parent.glob('.*.bin.*'):
        with contextlib.suppress(OSError):  # another process may sweep too
            if time.time() - old.stat().st_mtime > LEFT:
                old.unlink()
    scratch = path.with_name(f'.{path.name}.{socket.gethostname()}.{os.getpid()}')
    digest = hashlib.sha256()
    try:
        with scratch.open('wb') as written, progress.bar(None, f'features of {what}', whole[0]) as bar:
            for rows in parts():
                data = rows.tobytes()
                digest.update(data)
                written.write(data)
                bar.update(len(rows))
            written.flush()
            os.fsync(written.fileno())
        scratch.replace(path)
        about = {'shape': whole, 'dtype': kind.name, 'sha256': digest.hexdigest(), 'what': what}
        write_text(path.with_suffix('.json'), json.dumps(about) + '\n')
    finally:
        scratch.unlink(missing_ok=True)


def _is_whole(path: Path, shape: tuple[int, ...], kind: np.dtype) -> bool:
    try:
        about = json.loads(path.with_suffix('.json').read_text())
        with path.open('rb') as file:
            found = hashlib.file_digest(file, 'sha256').hexdigest()
    except (OSError, ValueError, RecursionError):
        return False
    whole = {'shape': list(shape), 'dtype': kind.name, 'sha256': found}
    return isinstance(about, dict) and {name: about.get(name) for name in whole} == whole


def feed(
    network: Network,
    recipe: Recipe,
    params: Flat,
    batch_stats: Flat,
    images: Feed,
    *,
    fingerprint: str,
    role: str,
    mesh: Mesh,
    batch_size: int = BATCH,
) -> FeatureFeed:
    """A split's features, placed.

    They are computed in batches, of a size on which their last bits may depend: of that which the network would see
    without a cache, training is the same.
    """
    batch_size = -(-batch_size // mesh.size) * mesh.size
    data = {'fingerprint': fingerprint, 'role': role, 'stored': images.split.shape, 'batch': batch_size}
    array = kept(
        images,
        compute(network, recipe, params, batch_stats, mesh),
        key=key_of(network, recipe, params, batch_stats, **data),
        views=recipe.views,
        shape=shape_of(network, recipe),
        dtype=recipe.dtype,
        batch_size=batch_size,
        mesh=mesh,
        what=role,
    )
    return FeatureFeed(images, array, views=recipe.views, seed=recipe.seed, mesh=mesh)
