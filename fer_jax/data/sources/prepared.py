"""Data sets written by `fer_jax.prepare_dataset`: which there are, how they are made and opened."""

import dataclasses
import hashlib
import importlib
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from fer_jax.data.imaging.crop_folder import Cut
from fer_jax.data.tables.table import UNSPLIT, Table
from fer_jax.errors import UserError
from fer_jax.utils import progress

if TYPE_CHECKING:  # it imports TFDS
    from fer_jax.data.sets.builder import Example, Reading

# Each is a module of `fer_jax.data.sets` with VERSION and read(source) -> Reading.
SETS = (
    'fer2013',
    'ferplus',
    'rafdb',
    'affectnet',
    'ckplus',
    'jaffe',
    'celeb_a',
    'vggface2',
    'lfw',
    'synthetic_faces',
)
EMBEDDED = ('synthetic_faces',)  # needs no source
DROPPED = 'dropped.json'
CROPS = {'fer2013': Cut(0.0), 'ferplus': Cut(0.0), 'ckplus': Cut(0.0)}  # published grey, see docs/photographs.md
ALIGNED = re.compile(r'aligned by five points to \d+ px, margin (\d\S*)')  # the note of what `aligned` made


def module(name: str) -> ModuleType:
    """Imports the reader of the set called `name`.

    Raises:
      UserError: there is none.
    """
    if name not in SETS:
        raise UserError(f'data set {name!r} is unknown; there are {", ".join(SETS)}, data.dir and data.manifest')
    return importlib.import_module(f'fer_jax.data.sets.{name}')


def folder(name: str, root: Path) -> Path:
    return root / name / module(name).VERSION


def is_prepared(name: str, root: Path) -> bool:
    return (folder(name, root) / 'dataset_info.json').exists()


def prepare(name: str, source: Path | None, root: Path, *, align: int = 0, margin: float = 0.0) -> Path:
    """Reads the set from `source` and writes it below `root`; returns its folder.

    Args:
      align: side in pixels to which faces are aligned by the set's landmarks, see `faces.align`; 0 leaves them.

    Raises:
      UserError: the source is missing or malformed, or the disk is full.
    """
    from fer_jax.data.sets import builder

    reader = module(name)
    if source is None and name not in EMBEDDED:
        raise UserError(f'--source is missing; docs/datasets.md says what {name} is read from')
    reading = reader.read(source)
    return builder.write_prepared(
        name, reader.VERSION, aligned(name, reading, align, margin) if align else reading, root
    )


def aligned(name: str, reading: 'Reading', size: int, margin: float) -> 'Reading':
    """Returns the same faces, turned and scaled by their landmarks; those whose landmarks are unknown stay as they are.

    Raises:
      UserError: the set has no landmarks.
    """
    from fer_jax.data.imaging import faces
    from fer_jax.data.imaging.codec import decode, encode

    if 'landmarks' not in reading.targets:
        raise UserError(f'--align={size}: {name} has no landmarks; crop its photographs with --crop_faces instead')

    def examples(split: str) -> 'Iterator[Example]':
        for example in reading.examples(split):
            points = example.targets['landmarks'].reshape(5, 2)
            if np.isfinite(points).all():
                face = faces.align(decode(example.image, None, 3, example.id), points, size, margin)
                example = example._replace(image=encode(face))
            yield example

    note = f'aligned by five points to {size} px, margin {margin:g}'
    return dataclasses.replace(reading, examples=examples, notes=(*reading.notes, note))


def cut_of(name: str, notes: Sequence[str] = ()) -> Cut | None:
    """Returns how the faces of a set were cut out, by its `notes` or as it is published; None where unknown."""
    for note in filter(None, map(ALIGNED.fullmatch, notes)):
        return Cut(float(note[1]), aligned=True)
    return CROPS.get(name)


def open_table(name: str, root: Path, *, whole: bool = False) -> Table:
    """Opens a prepared set; one that needs no source is prepared now. Dropped images are left out, unless `whole`.

    Raises:
      UserError: it is not prepared.
    """
    import tensorflow_datasets as tfds

    path = folder(name, root)
    if not is_prepared(name, root):
        if name not in EMBEDDED:
            raise UserError(
                f'data set {name} is not prepared in {root}; '
                f'run python -m fer_jax.prepare_dataset --dataset {name} --source PATH'
            )
        print(f'preparing {name} in {root} (once)')
        prepare(name, None, root)
    made = tfds.builder_from_directory(str(path))
    index = _index(made, path)
    splits = [str(split) for split in made.info.splits]
    bounds = np.cumsum([0, *(made.info.splits[split].num_examples for split in splits)])
    table = Table(
        name=name,
        classes=tuple(made.info.features['label'].names) if 'label' in made.info.features else (),
        ids=index['ids'],
        splits=np.repeat(['all' if split == UNSPLIT else split for split in splits], np.diff(bounds)),
        labels=index['labels'],
        digests=index['digests'],
        fetch=_fetcher(made, splits, bounds),
        shape=made.info.features['image'].shape,
        subjects=index['subjects'],
        subsets={key[7:]: value for key, value in index.items() if key.startswith('subset_')},
        targets={key[7:]: value for key, value in index.items() if key.startswith('target_')},
        columns={key: tuple(names) for key, names in made.info.metadata['targets'].items()},
        published={key: tuple(counts) for key, counts in made.info.metadata['published'].items()},
        notes=tuple(made.info.metadata['notes']),
    )
    dropped = path / DROPPED
    if dropped.exists() and not whole:
        left_out = set(json.loads(dropped.read_text())['ids'])
        table = table.take(np.array([at for at, name in enumerate(table.ids) if name not in left_out], np.int64))
    return table


def drop(name: str, root: Path, kinds: tuple[str, ...], ids: list[str]) -> None:
    """Records which examples of a prepared set are left out from now on; none for no ids."""
    path = folder(name, root) / DROPPED
    if ids:
        path.write_text(json.dumps({'kinds': list(kinds), 'ids': ids}, indent=1) + '\n')
    else:
        path.unlink(missing_ok=True)


def _fetcher(made: Any, splits: list[str], bounds: np.ndarray) -> Callable[[np.ndarray], list[bytes]]:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.proto import tf_example_pb2

    raw = tfds.decode.DeserializeMethod.RAW_BYTES  # all but the images lies in the index
    sources = [made.as_data_source(split, deserialize_method=raw) for split in splits]

    def fetch(index: np.ndarray) -> list[bytes]:
        owner = np.searchsorted(bounds, index, side='right') - 1
        images: list[bytes] = [b''] * len(index)
        for number in np.unique(owner):
            places = np.flatnonzero(owner == number)
            rows = sources[number].__getitems__([int(index[at] - bounds[number]) for at in places])
            for at, row in zip(places, rows, strict=True):
                example = tf_example_pb2.Example.FromString(row)
                images[at] = example.features.feature['image'].bytes_list.value[0]
        return images

    return fetch


def _index(made: Any, path: Path) -> dict[str, np.ndarray]:
    """All columns but the images, read once from the records and then kept beside them."""
    kept = path / 'index.npz'
    try:
        with np.load(kept) as index:
            return dict(index)
    except Exception:  # absent; or damaged, of which the reader of archives raises anything
        kept.unlink(missing_ok=True)
    import tensorflow_datasets as tfds

    columns: dict[str, list[Any]] = {}
    total = sum(split.num_examples for split in made.info.splits.values())
    with progress.bar(None, 'indexing', total) as shown:
        for split in made.info.splits:
            source = made.as_data_source(split, decoders={'image': tfds.decode.SkipDecoding()})
            for first in range(0, len(source), 1024):
                for row in source.__getitems__(list(range(first, min(first + 1024, len(source))))):
                    row['image'] = np.frombuffer(hashlib.sha256(row['image']).digest(), np.uint8)
                    for key, value in row.items():
                        columns.setdefault(key, []).append(value.decode() if isinstance(value, bytes) else value)
                    shown.update()
    index = {
        'ids': np.array(columns.pop('id'), np.str_),
        'labels': np.array(columns.pop('label', [-1] * total), np.int32),
        'subjects': np.array(columns.pop('subject'), np.str_),
        'digests': np.stack(columns.pop('image')),
    }
    index |= {key: np.array(values) for key, values in columns.items()}
    scratch = path / f'.index.{os.getpid()}'
    with scratch.open('wb') as file:
        np.savez(file, **index)  # type: ignore[arg-type]
    scratch.replace(kept)
    return index
