"""Data sets written by `fer_jax.prepare_dataset`: which there are, how they are made and opened."""

import contextlib
import dataclasses
import fcntl
import hashlib
import importlib
import logging
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
from fer_jax.utils import atomic_files, checked_files, progress

if TYPE_CHECKING:  # it imports TFDS
    from fer_jax.data.sets.builder import Example, Reading

log = logging.getLogger('fer_jax')
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
REGISTERED: dict[str, Any] = {}
DROPPED = 'dropped.json'
INDEX = 'index.npz'
VERIFIED_BYTES = 1 << 30  # bytes of a set up to which all its files are read at every start
LONGEST_REASON = 300  # characters
CROPS = {'fer2013': Cut(0.0), 'ferplus': Cut(0.0), 'ckplus': Cut(0.0)}  # published grey, see docs/how-to/photographs.md
ALIGNED = re.compile(r'aligned by five points to \d+ px, margin (\d\S*)')  # the note of what `aligned` made


def module(name: str) -> ModuleType:
    """Imports the reader of the set called `name`.

    Raises:
      UserError: there is none.
    """
    if name in REGISTERED:
        return REGISTERED[name]
    if name not in SETS:
        raise UserError(f'data set {name!r} is unknown; there are {", ".join(SETS)}, data.dir and data.manifest')
    return importlib.import_module(f'fer_jax.data.sets.{name}')


def register_dataset(name: str, reader: Any) -> None:
    """Adds a data set of your own under the name that `data.name` of a config gives.

    Register it again in every program that uses it.

    Args:
      name: the new name.
      reader: a module or an object with `VERSION`, a text such as '1.0.0', and `read(source) -> Reading`.

    Raises:
      UserError: the name is taken by a data set of fer_jax.
    """
    if name in SETS:
        raise UserError(f'a data set called {name!r} comes with fer_jax; choose another name')
    REGISTERED[name] = reader


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
        raise UserError(f'--source is missing; docs/reference/datasets.md says what {name} is read from')
    reading = reader.read(source)
    with _alone(root / name):
        return builder.write_prepared(
            name, reader.VERSION, aligned(name, reading, align, margin) if align else reading, root
        )


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps the block to one process at a time; others wait."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # not every file system has locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


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
      UserError: it is not prepared, or damaged.
    """
    path = folder(name, root)
    if not is_prepared(name, root):
        if name not in EMBEDDED:
            raise UserError(
                f'data set {name} is not prepared in {root}; '
                f'run python -m fer_jax.prepare_dataset --dataset {name} --source PATH'
            )
        print(f'preparing {name} in {root} (once)')
        prepare(name, None, root)
    with _damage_named(name, path):
        return _open(name, path, whole)


def _open(name: str, path: Path, whole: bool) -> Table:
    import tensorflow_datasets as tfds

    _verify(path)
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
        fetch=_fetcher(made, name, path, bounds, index['digests']),
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
        left_out = set(checked_files.read_json(dropped, 'give --drop again')['ids'])
        table = table.take(np.array([row for row, name in enumerate(table.ids) if name not in left_out], np.int64))
    return table


def drop(name: str, root: Path, kinds: tuple[str, ...], ids: list[str]) -> None:
    """Records which examples of a prepared set are left out from now on; none for no ids."""
    path = folder(name, root) / DROPPED
    if ids:
        checked_files.write_json(path, {'kinds': list(kinds), 'ids': ids})
    else:
        checked_files.remove_file(path)


@contextlib.contextmanager
def _damage_named(name: str, path: Path) -> Iterator[None]:
    """Turns what libraries raise over a damaged set into one message."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of TFDS, array_record and protobuf
        reason = (str(error) or type(error).__name__).splitlines()[0][:LONGEST_REASON]
        raise UserError(f'{path} is damaged ({reason}); {_anew(name)}') from error


def _anew(name: str) -> str:
    source = '' if name in EMBEDDED else ' --source PATH'
    return f'remove that folder, and prepare it anew: python -m fer_jax.prepare_dataset --dataset {name}{source}'


def _verify(path: Path) -> None:
    """Reads the files of a set against their digests; of one too large for that at every start, all but its records.

    A record's image is verified when it is read.
    """
    names = sorted(set(checked_files.read_sums(path)) - {INDEX, DROPPED})
    for name in names:
        if not (path / name).is_file():
            raise FileNotFoundError(f'{name} is missing')
    large = sum((path / name).stat().st_size for name in names) > VERIFIED_BYTES
    for name in names:
        if not (large and '.array_record' in name) and not checked_files.is_unchanged(path / name):
            raise ValueError(f'the content of {name} is not what was written')


def _fetcher(
    made: Any, name: str, path: Path, bounds: np.ndarray, digests: np.ndarray
) -> Callable[[np.ndarray], list[bytes]]:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.proto import tf_example_pb2

    raw = tfds.decode.DeserializeMethod.RAW_BYTES  # all but the images lies in the index
    sources = [made.as_data_source(str(split), deserialize_method=raw) for split in made.info.splits]

    def fetch(index: np.ndarray) -> list[bytes]:
        owner = np.searchsorted(bounds, index, side='right') - 1
        images: list[bytes] = [b''] * len(index)
        with _damage_named(name, path):
            for number in np.unique(owner):
                places = np.flatnonzero(owner == number)
                rows = sources[number].__getitems__([int(index[place] - bounds[number]) for place in places])
                for place, row in zip(places, rows, strict=True):
                    example = tf_example_pb2.Example.FromString(row)
                    images[place] = example.features.feature['image'].bytes_list.value[0]
                    if hashlib.sha256(images[place]).digest() != digests[index[place]].tobytes():
                        raise ValueError(f'image {index[place]} is not what was written')
        return images

    return fetch


def _index(made: Any, path: Path) -> dict[str, np.ndarray]:
    """All columns but the images, read once from the records and then kept beside them."""
    kept = path / INDEX
    try:
        with checked_files.open_arrays(kept, 'it is made anew') as index:
            return dict(index)
    except FileNotFoundError:
        pass
    except UserError as error:
        log.warning('%s', error)
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
    with contextlib.suppress(OSError):  # a folder that is only read
        atomic_files.sweep(path)
        if not checked_files.read_sums(path).keys() - {INDEX, DROPPED}:
            names = (file.name for file in path.iterdir() if file.is_file() and file.name not in (INDEX, DROPPED))
            checked_files.add_files(path, [name for name in names if name != checked_files.SUMS])
        checked_files.write_arrays(kept, index)
    return index
