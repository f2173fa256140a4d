"""Images and labels in memory as a source: `fer_jax.train(config, data=(images, labels))`."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from fer_jax.data.tables.splitting import split_name
from fer_jax.data.tables.table import Table
from fer_jax.errors import UserError

NAME = 'arrays'
HAVE = 'give (images, labels), (images, labels, subjects), an iterable of (image, label), or {split: one of these}'


def read_arrays(data: Any) -> Table:
    """Makes a table of images and labels in memory.

    Args:
      data: (images, labels) or (images, labels, subjects), an iterable of (image, label), or a dict from 'train',
        'validation' and 'test' to one of these. Images are uint8 [N, H, W, 3], [N, H, W, 1] or [N, H, W], or a sequence
        of such images of different sizes; labels are N class names or whole numbers, subjects N names.

    Returns:
      A table whose digests are those of the pixels: the same arrays are the same data.

    Raises:
      UserError: something has another type or length; the message names it.
    """
    parts = data if isinstance(data, Mapping) else {'all': data}
    images: list[np.ndarray] = []
    names: list[str] = []
    subjects: list[str] = []
    ids: list[str] = []
    splits: list[str] = []
    for split, part in parts.items():
        own = 'all' if split == 'all' else split_name(str(split))
        if not own:
            raise UserError(f'data: {split!r} is no split; name train, validation or test')
        where = 'data' if own == 'all' else f'data[{split!r}]'
        own_images, own_labels, own_subjects = _columns(part, where)
        images += [_image(image, f'{where}, image {index}') for index, image in enumerate(own_images)]
        names += [_label(label, f'{where}, label {index}') for index, label in enumerate(own_labels)]
        subjects += map(str, own_subjects)
        ids += [f'{own}/{index:07d}' for index in range(len(own_images))]
        splits += [own] * len(own_images)
    classes = tuple(sorted(set(names), key=lambda name: (int(name), '') if name.isdecimal() else (-1, name)))
    number = {name: index for index, name in enumerate(classes)}
    shapes = {image.shape for image in images}
    return Table(
        name=NAME,
        classes=classes,
        ids=np.array(ids, np.str_),
        splits=np.array(splits, np.str_),
        labels=np.array([number[name] for name in names], np.int32),
        digests=np.array([np.frombuffer(_digest(image), np.uint8) for image in images]).reshape(-1, 32),
        fetch=lambda index: [_netpbm(images[position]) for position in index],
        shape=shapes.pop() if len(shapes) == 1 else (None, None, max((shape[2] for shape in shapes), default=3)),
        subjects=np.array(subjects, np.str_),
    )


def _columns(part: Any, where: str) -> tuple[Any, Any, Any]:
    """Returns images, labels and subjects of the same length; subjects are '' where they are not given."""
    if isinstance(part, np.ndarray | str | bytes) or not isinstance(part, Iterable):
        raise UserError(f'{where} is {type(part).__name__}; {HAVE}')
    if not isinstance(part, tuple):
        pairs = list(part)
        if any(not isinstance(pair, tuple | list) or len(pair) != 2 for pair in pairs):
            raise UserError(f'{where}: an element is no pair (image, label); {HAVE}')
        part = [image for image, _ in pairs], [label for _, label in pairs]
    if len(part) not in (2, 3):
        raise UserError(f'{where} has {len(part)} parts; {HAVE}')
    images, labels, *more = (column if hasattr(column, '__len__') else list(column) for column in part)
    subjects = more[0] if more else [''] * len(images)
    if not len(images) == len(labels) == len(subjects) or not len(images):
        counts = f'{len(images):,} images, {len(labels):,} labels and {len(subjects):,} subjects'
        raise UserError(f'{where} has {counts}; expected as many of each, one or more')
    return images, labels, subjects


def _image(image: Any, where: str) -> np.ndarray:
    """Returns uint8 [H, W, C]."""
    pixels = np.asarray(image)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.dtype != np.uint8:
        raise UserError(f'{where} is {pixels.dtype}; expected uint8, 0 to 255')
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or 0 in pixels.shape:
        raise UserError(f'{where} has the shape {np.shape(image)}; expected (H, W, 3), (H, W, 1) or (H, W)')
    return pixels


def _label(label: Any, where: str) -> str:
    """Returns the name of a class."""
    if isinstance(label, str) and label:
        return str(label)
    if isinstance(label, int | np.integer) and not isinstance(label, bool) and label >= 0:
        return str(int(label))
    raise UserError(f'{where} is {label!r:.80}; expected the name of a class, or a whole number from 0')


def _digest(image: np.ndarray) -> bytes:
    return hashlib.sha256(str(image.shape).encode() + image.tobytes()).digest()


def _netpbm(image: np.ndarray) -> bytes:
    """Encodes uint8 [H, W, C] without compression: PPM, or PGM where C is 1."""
    height, width, channels = image.shape
    return f'P{6 if channels == 3 else 5} {width} {height} 255\n'.encode() + image.tobytes()
