"""The file of the features of a split: its key, its digest, and how it is written."""

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fer_jax.data.loading import batch_loop
from fer_jax.data.loading.loader import SplitLoader
from fer_jax.distributed import processes
from fer_jax.errors import UserError
from fer_jax.feature_cache.extract import Compute
from fer_jax.feature_cache.recipe import FeatureSpec
from fer_jax.models.network import Network
from fer_jax.models.parameters import Variables, digest_of, stage_of
from fer_jax.utils import atomic_files, bounded_files, cache, checked_files, progress

log = logging.getLogger('fer_jax')
# The files whose code decides what features are, relative to the package.
SOURCES: tuple[str, ...] = (
    'feature_cache/*.py', 'models/*.py', 'data/augmentation/*.py', 'data/loading/batch_loop.py',
    'data/loading/loader.py', 'data/imaging/codec.py', 'data/imaging/pillow_decoder.py',
)  # fmt: skip
VERSIONS = ('jax', 'jaxlib', 'flax', 'numpy', 'opencv-python-headless', 'pillow')
LEFT_BEHIND_SECONDS = 24 * 3600.0  # seconds after which what a killed process was writing is taken for left behind


def cache_key(network: Network, feature_spec: FeatureSpec, variables: Variables, **data: Any) -> str:
    """Computes a sha256 of everything that features depend on.

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


@dataclasses.dataclass(frozen=True)
class FeatureFile:
    """The file `path` of a split's features, and a .json beside it, written last, with its shape and sha256.

    Attributes:
      shape: [views * N, ...].
      what: name of the split, for the progress bar.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    what: str

    def is_whole(self) -> bool:
        """Returns whether shape, dtype and sha256 are those that the .json states; warns where they are not."""
        try:
            about = bounded_files.read_json(self.path.with_suffix('.json'))
            whole = about == self._expected(checked_files.file_sha256(self.path))
        except FileNotFoundError:
            return False
        except (OSError, ValueError):
            whole = False
        if not whole:
            log.warning('%s is damaged, or its .json is: these features are computed anew', self.path)
        return whole

    def _expected(self, sha256: str) -> dict[str, Any]:
        return {'shape': list(self.shape), 'dtype': self.dtype.name, 'sha256': sha256, 'what': self.what}

    def check_space(self) -> None:
        """Checks that the disk has space for the file.

        Raises:
          UserError: it has not.
        """
        size, free = int(np.prod(self.shape)) * self.dtype.itemsize, shutil.disk_usage(self.path.parent).free
        if size > free:
            raise UserError(
                f'the feature cache needs {size / 1e9:.1f} GB in {self.path.parent}, {free / 1e9:.1f} GB are free; '
                'lower cache_views, set cache_dtype=bfloat16, set FER_JAX_CACHE to another disk, or set cache_views '
                'to 0'
            )

    def write(self, parts: Iterator[np.ndarray]) -> None:
        """Writes rows to a temporary file and renames it to `path` when it is complete."""
        digest = hashlib.sha256()
        with (
            atomic_files.atomic_write(self.path) as scratch,
            scratch.open('wb') as written,
            progress.bar(None, f'features of {self.what}', self.shape[0]) as bar,
        ):
            for rows in parts:
                data = rows.tobytes()
                digest.update(data)
                written.write(data)
                bar.update(len(rows))
        about = self._expected(digest.hexdigest())
        atomic_files.write_text(self.path.with_suffix('.json'), json.dumps(about) + '\n')


def feature_path(key: str) -> Path:
    """Returns the path of the features with this key, that of the main process where there are several."""
    return cache.root() / 'features' / f'{processes.broadcast_from_main(key)[:32]}.bin'


def load_or_compute(images: SplitLoader, compute: Compute, file: FeatureFile, *, batch_size: int) -> np.ndarray:
    """Loads the features of a split from disk where they are complete, otherwise computes and stores them.

    Returns:
      [views * N, ...], a memory-mapped file.

    Raises:
      UserError: the disk is too small.
    """
    whole = processes.is_main_process() and file.is_whole()
    if not json.loads(processes.broadcast_from_main(json.dumps(whole))):
        if processes.count() == 1 and not cache.is_writable(file.path.parent):
            return _in_temporary_folder(images, compute, file, batch_size)
        file.path.parent.mkdir(parents=True, exist_ok=True)
        file.check_space()
        _fill(images, compute, file, batch_size)
    processes.barrier()
    processes.shared_file(file.path)
    return np.memmap(file.path, file.dtype, 'r', shape=file.shape)


def _in_temporary_folder(images: SplitLoader, compute: Compute, file: FeatureFile, batch_size: int) -> np.ndarray:
    """The features of a run that cannot keep them: their file goes when the run ends."""
    with tempfile.TemporaryDirectory(prefix='fer_jax_features_') as folder:
        log.warning('%s cannot be written: the features of %s are not kept', file.path.parent, file.what)
        file = dataclasses.replace(file, path=Path(folder) / file.path.name)
        file.check_space()
        _fill(images, compute, file, batch_size)
        return np.memmap(file.path, file.dtype, 'r', shape=file.shape)


def _fill(images: SplitLoader, compute: Compute, file: FeatureFile, batch_size: int) -> None:
    def parts() -> Iterator[np.ndarray]:
        for view in range(file.shape[0] // len(images.split.ids)):
            for host_batches, weight in images.in_order(batch_size, batch_loop.of_images()):
                yield np.asarray(compute(images.device_data, host_batches, batch_loop.filled(weight), view))[weight > 0]

    if processes.is_main_process():
        sweep(file.path.parent)
        file.write(parts())
    else:
        for _ in parts():
            pass


def sweep(folder: Path) -> None:
    """Removes the partial files that killed processes have left, those of other machines after a day.

    How old a file is, is measured by the clock that gives files of this folder their times.
    """
    atomic_files.sweep(folder)
    with tempfile.NamedTemporaryFile(dir=folder) as new:
        now = os.fstat(new.fileno()).st_mtime
    for old in folder.glob('.*.bin.*'):
        with contextlib.suppress(OSError):  # another process may sweep too
            if now - old.stat().st_mtime > LEFT_BEHIND_SECONDS:
                old.unlink()
