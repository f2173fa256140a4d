"""Data sets as the program sees them: classes, split roles, and images by index."""

import hashlib
import importlib
import io
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.data import folder
from fer_jax.errors import UserError

# name -> module and class of its TFDS builder, and whether it prepares itself
BUILDERS = {
    'fer2013': ('fer_jax.data.builders.fer2013', 'Fer2013', False),
    'synthetic_faces': ('fer_jax.data.builders.synthetic_faces', 'SyntheticFaces', True),
}


@dataclass(frozen=True)
class Split:
    """One split, its labels in memory, its images by index.

    Attributes:
      ids: str [N], unique in the set.
      labels: int32 [N].
      shape: (H, W, C) of every image.
      subsets: name -> bool [N], parts that are scored apart.
      read: int [B] indices -> uint8 [B, H, W, C]; a pure function, safe in threads.
    """

    ids: np.ndarray
    labels: np.ndarray
    shape: tuple[int, int, int]
    subsets: dict[str, np.ndarray]
    read: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Dataset:
    """Splits by role ('train', 'validation', 'test') and what they have in common.

    `fingerprint` is a sha256 over ids, labels and encoded images of these splits.
    """

    name: str
    classes: tuple[str, ...]
    splits: dict[str, Split]
    fingerprint: str


def load(
    *, name: str, dir: str, splits: Mapping[str, str], image_size: int, channels: int, root: Path, seed: int
) -> Dataset:
    """Opens a set.

    Args:
      name: one of `BUILDERS`, prepared under `root`; or '' with
      dir: a folder of class folders, see `folder.scan`.
      splits: role -> the set's own name of the split.
      image_size: side that the network wants. A set whose images all have one smaller size keeps that; all others are
        stored at this size.
      channels: 1 or 3, of the stored images; grey sets stay grey.

    Raises:
      UserError: there is no such set or split, or it is not prepared.
    """
    if bool(name) == bool(dir):
        raise UserError(f'data.name={name!r} and data.dir={dir!r}: give one of them, the other empty')
    if dir:
        return _load_folder(Path(dir), splits, image_size, channels)
    if name not in BUILDERS:
        raise UserError(f'data.name={name!r} is unknown; there are {", ".join(BUILDERS)}, and data.dir for a folder')
    return _load_builder(name, splits, image_size, channels, root)


def builder(name: str, root: Path) -> Any:
    """The TFDS builder called `name`, with its data under `root`."""
    os.environ.setdefault('TFDS_DISABLE_PROGRESS_BAR', '1')
    module, cls, _ = BUILDERS[name]
    return getattr(importlib.import_module(module), cls)(data_dir=str(root), file_format='array_record')


def decode(data: bytes, size: int | None, channels: int, name: str) -> np.ndarray:
    """An encoded image as uint8 [H, W, channels]; the one decoder of every source.

    EXIF orientation is honoured. With `size` the short side is resized to it (bilinear, antialiased) and the middle
    square kept.

    Raises:
      UserError: the image, called `name`, cannot be read.
    """
    from PIL import Image, ImageOps

    try:
        opened = Image.open(io.BytesIO(data))
        image = ImageOps.exif_transpose(opened).convert('L' if channels == 1 else 'RGB')
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f'{name} cannot be read as an image ({error}); remove or replace it') from error
    if size is not None and image.size != (size, size):
        width, height = image.size
        factor = size / min(width, height)
        fitted = max(size, round(width * factor)), max(size, round(height * factor))
        image = image.resize(fitted, Image.Resampling.BILINEAR)
        left, top = (image.width - size) // 2, (image.height - size) // 2
        image = image.crop((left, top, left + size, top + size))
    return np.asarray(image, np.uint8).reshape(image.height, image.width, channels)


def _reader(
    fetch: Callable[[np.ndarray], list[bytes]], names: np.ndarray, shape: tuple[int, int, int], size: int | None
) -> Callable[[np.ndarray], np.ndarray]:
    def read(index: np.ndarray) -> np.ndarray:
        images = np.empty((len(index), *shape), np.uint8)
        for position, (at, data) in enumerate(zip(index, fetch(index), strict=True)):
            images[position] = decode(data, size, shape[-1], str(names[at]))
        return images

    return read


def _own_split(role: str, wanted: str, available: Mapping[str, Any], name: str) -> str:
    if wanted not in available:
        raise UserError(f'data.splits.{role}={wanted!r} is no split of {name}; it has {", ".join(available)}')
    return wanted


def _load_folder(directory: Path, splits: Mapping[str, str], image_size: int, channels: int) -> Dataset:
    classes, listing = folder.scan(directory)
    if 'test' not in listing:
        splits = {role: own for role, own in splits.items() if role != 'test'}
    digest = hashlib.sha256()
    opened = {}
    for role, wanted in splits.items():
        items = listing[_own_split(role, wanted, listing, str(directory))]
        ids = np.array([path for path, _ in items], dtype=np.str_)
        labels = np.array([label for _, label in items], np.int32)
        with ThreadPoolExecutor() as pool:
            for path, label, image in zip(ids, labels, pool.map(lambda p: _digest(directory / p), ids), strict=True):
                digest.update(f'{role}\0{path}\0{classes[label]}\0'.encode('utf-8', 'surrogateescape') + image)

        def fetch(index: np.ndarray, ids: np.ndarray = ids) -> list[bytes]:
            return [(directory / ids[at]).read_bytes() for at in index]

        paths = np.array([str(directory / path) for path in ids], dtype=np.str_)
        shape = (image_size, image_size, channels)
        opened[role] = Split(ids, labels, shape, {}, _reader(fetch, paths, shape, image_size))
    return Dataset(directory.name, classes, opened, digest.hexdigest())


def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def _load_builder(name: str, splits: Mapping[str, str], image_size: int, channels: int, root: Path) -> Dataset:
    made = builder(name, root)
    if not made.is_prepared():
        if not BUILDERS[name][2]:
            raise UserError(
                f'data set {name} is not prepared in {root}; '
                f'run python scripts/prepare_dataset.py --dataset {name} --source PATH'
            )
        print(f'preparing {name} in {root} (once)')
        made.download_and_prepare(file_format='array_record')
    native = made.info.features['image'].shape
    channels = min(channels, native[-1] or 3)
    fits = native[0] is not None and native[0] == native[1] and native[0] <= image_size
    side, size = (native[0], None) if fits else (image_size, image_size)
    digest = hashlib.sha256()
    opened = {}
    for role, wanted in splits.items():
        own = _own_split(role, wanted, made.info.splits, name)
        index = _index(made, own)
        digest.update(f'{role}\0'.encode() + index['digest'].tobytes())
        shape = (side, side, channels)
        subsets = {key.removeprefix('subset_'): value for key, value in index.items() if key.startswith('subset_')}
        read = _reader(_fetcher(made, own), np.char.add(f'{name}/', index['ids']), shape, size)
        opened[role] = Split(index['ids'], index['labels'], shape, subsets if role == 'test' else {}, read)
    return Dataset(name, tuple(made.info.features['label'].names), opened, digest.hexdigest())


def _source(made: Any, own: str) -> Any:
    import tensorflow_datasets as tfds

    return made.as_data_source(own, decoders={'image': tfds.decode.SkipDecoding()})


def _fetcher(made: Any, own: str) -> Callable[[np.ndarray], list[bytes]]:
    source = _source(made, own)

    def fetch(index: np.ndarray) -> list[bytes]:
        return [record['image'] for record in source.__getitems__([int(at) for at in index])]

    return fetch


def _index(made: Any, own: str) -> dict[str, np.ndarray]:
    """Ids, labels, subsets and digest of a split, read once from the records and then kept beside them."""
    path = Path(made.data_path) / f'index-{own}.npz'
    if path.exists():
        with np.load(path) as kept:
            return dict(kept)
    digest = hashlib.sha256()
    ids, labels, clean = [], [], []
    source = _source(made, own)
    for first in range(0, len(source), 1024):
        for record in source.__getitems__(list(range(first, min(first + 1024, len(source))))):
            ids.append(_text(record['id']))
            labels.append(record['label'])
            clean.append(record.get('clean', True))
            digest.update(f'{ids[-1]}\0{labels[-1]}\0'.encode() + record['image'])
    index = {'ids': np.array(ids, np.str_), 'labels': np.array(labels, np.int32)}
    index['digest'] = np.frombuffer(digest.digest(), np.uint8)
    if 'clean' in made.info.features and not all(clean):
        index['subset_clean'] = np.array(clean, bool)
    scratch = path.with_name(f'.{path.name}.{os.getpid()}')
    with scratch.open('wb') as file:
        np.savez(file, **index)  # type: ignore[arg-type]
    scratch.replace(path)
    return index


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
