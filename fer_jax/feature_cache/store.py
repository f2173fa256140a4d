"""The file of the features of a split: its key, its digest, and how it is written."""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from fer_jax.data.loading import batch_loop
from fer_jax.data.loading.loader import SplitLoader
from fer_jax.distributed import processes
from fer_jax.errors import UserError
from fer_jax.feature_cache.extract import Compute
from fer_jax.feature_cache.recipe import FeatureSpec
from fer_jax.models.network import DTYPES, Network
from fer_jax.models.parameters import Variables, digest_of, stage_of
from fer_jax.utils import cache, progress
from fer_jax.utils.atomic_files import write_text

# The files whose code decides what features are, relative to the package.
SOURCES: tuple[str, ...] = (
    'feature_cache/*.py', 'models/*.py', 'data/augmentation/*.py', 'data/loading/batch_loop.py',
    'data/loading/loader.py', 'data/imaging/codec.py',
)  # fmt: skip
VERSIONS = ('jax', 'jaxlib', 'flax', 'numpy', 'opencv-python-headless', 'pillow')
LEFT_BEHIND_SECONDS = 24 * 3600.0  # seconds after which what a killed process was writing is taken for left behind


def cache_key(network: Network, feature_spec: FeatureSpec, variables: Variables, **data: Any) -> str:
    """sha256 of all that features depend on.

    Args:
      data: fingerprint of the data, role of the split, the shape in which its images are stored, the size of a batch.
    """
    order = list(network.stages)
    below = set(order[: 1 + max(map(order.index, feature_spec.stages))])
    leaves = (variables.params | variables.batch_stats).items()
    digest = digest_of({path: leaf for path, leaf in leaves if stage_of(path, network.stages) in below})
    for pattern in SOURCES:
        for file in sorted(cache.PACKAGE.glob(pattern)):
            digest.update(file.name.encode() + file.read_bytes())
    device = jax.devices()[0]
    network_facts = {
        name: getattr(network.spec, name) for name in ('name', 'channels', 'dtype', 'mean', 'std', 'order')
    }
    facts = {
        'features': dataclasses.asdict(feature_spec),
        'network': network_facts,
        'data': data,
        'weights and source': digest.hexdigest(),
        'versions': {package: metadata.version(package) for package in VERSIONS},
        'precision': jax.config.jax_default_matmul_precision,  # type: ignore[attr-defined]
        'platform': [device.platform, device.device_kind, jax.device_count(), os.cpu_count()],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def load_or_compute(
    images: SplitLoader,
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
    path = cache.root() / 'features' / f'{processes.broadcast_from_main(key)[:32]}.bin'
    found = processes.is_main_process() and _is_whole(path, whole, kind)
    if not json.loads(processes.broadcast_from_main(json.dumps(found))):
        path.parent.mkdir(parents=True, exist_ok=True)
        size, free = int(np.prod(whole)) * kind.itemsize, shutil.disk_usage(path.parent).free
        if size > free:
            raise UserError(
                f'the feature cache needs {size / 1e9:.1f} GB in {path.parent}, {free / 1e9:.1f} GB are free; lower '
                'cache_views, set cache_dtype=bfloat16, set FER_JAX_CACHE to another disk, or set cache_views to 0'
            )
        _fill(images, compute, path, views, whole, kind, batch_size, mesh, what)
    processes.barrier()
    processes.shared_file(path)
    return np.memmap(path, kind, 'r', shape=whole)


def _fill(
    images: SplitLoader,
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
            for host_batches, weight in images.in_order(batch_size, batch_loop.of_images()):
                yield np.asarray(compute(images.device_data, host_batches, batch_loop.filled(weight), view))[weight > 0]

    if not processes.is_main_process():
        for _ in parts():
            pass
        return
    for old in path.parent.glob('.*.bin.*'):
        with contextlib.suppress(OSError):  # another process may sweep too
            if time.time() - old.stat().st_mtime > LEFT_BEHIND_SECONDS:
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
