"""AffectNet (Mollahosseini et al. 2017): faces from the web with an expression, valence and arousal."""

import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fer_jax.data.imaging.faces import five_of_68
from fer_jax.data.sets.archives import Source, open_source
from fer_jax.data.sets.builder import Example, Reading
from fer_jax.errors import UserError

VERSION = '1.0.0'
CLASSES = ('neutral', 'happy', 'sad', 'surprise', 'fear', 'disgust', 'angry', 'contempt')  # 0 to 7; 8 to 10 are none
PUBLISHED = {
    'train': (74_874, 134_415, 25_459, 14_090, 6_378, 3_803, 24_882, 3_750),
    'test': (500, 500, 500, 500, 500, 500, 500, 500),
}
BOX = ('face_x', 'face_y', 'face_width', 'face_height')
COLUMNS = ('subDirectory_filePath', *BOX, 'facial_landmarks', 'expression', 'valence', 'arousal')
NEEDED = ('subDirectory_filePath', 'expression', 'valence', 'arousal')
NO_VALUE = -2.0
POINTS = ('left_eye', 'right_eye', 'nose', 'mouth_left', 'mouth_right')
LANDMARKS = tuple(f'{point}_{axis}' for point in POINTS for axis in 'xy')


class Row(NamedTuple):
    id: str
    image: str
    split: str
    label: int  # 0 to 7
    levels: tuple[float, float] | None  # None where they are in files of their own
    landmarks: np.ndarray | str | None  # float32 [10], or a file of 68 points


def read(source: Path) -> Reading:
    """Reads the csv release (training.csv, validation.csv) or the npy release (train_set, val_set with annotations).

    The published validation split is given as 'test', since its labels are what the field reports. Targets:
    'valence_arousal' [2], -1 to 1, NaN where unknown, and 'landmarks' [10] in pixels, from its 68 points, where there
    are any. Images without one of the eight expressions are left out.

    Raises:
      UserError: neither release is there, an annotation is malformed, or none of the images is there.
    """
    opened = open_source(source)
    lists = {'train': opened.one('training.csv'), 'test': opened.one('validation.csv')}
    rows, left_out, notes = _csv_rows(opened, lists) if any(lists.values()) else _npy_rows(opened)
    if left_out:
        notes = (*notes, f'{left_out:,} images without one of the eight expressions are left out')
    points = any(row.landmarks is not None for row in rows)

    def examples(split: str) -> Iterator[Example]:
        for row in rows:
            if row.split == split:
                targets = {'valence_arousal': _levels(opened, row)}
                if points:
                    targets['landmarks'] = _landmarks(opened, row)
                yield Example(row.id, split, opened.read(row.image), row.label, targets=targets)

    return Reading(
        CLASSES,
        {split: sum(row.split == split for row in rows) for split in PUBLISHED},
        examples,
        published=PUBLISHED,
        targets={'valence_arousal': ('valence', 'arousal')} | ({'landmarks': LANDMARKS} if points else {}),
        notes=notes,
    )


def _csv_rows(source: Source, lists: dict[str, str | None]) -> tuple[list[Row], int, tuple[str, ...]]:
    paths = source.once(('/'.join(name.split('/')[-2:]), name) for name in source.images())
    rows: dict[str, Row] = {}
    left_out, again = 0, 0
    for split, name in lists.items():
        if name is None:
            raise UserError(f'{source.path} has training.csv or validation.csv, but not both; fetch the other')
        for number, cells in enumerate(source.table(name, NEEDED, default=COLUMNS), 1):
            label = source.number(name, number, cells['expression'], 0, 10)
            if label >= len(CLASSES):
                left_out += 1
                continue
            try:
                levels = _level(cells['valence']), _level(cells['arousal'])
                text = cells.get('facial_landmarks', '')
                landmarks = _five(np.array(text.split(';'))) if ';' in text else None
            except ValueError as error:
                raise source.wrong(name, number, f'valence, arousal or landmarks: {error}') from None
            image = cells['subDirectory_filePath']
            again += image in rows
            rows.setdefault(image, Row(image, paths.get(image, image), split, label, levels, landmarks))
    notes = source.lack((row.image for row in rows.values()), 'training.csv and validation.csv')
    if again:
        notes = (*notes, f'{again:,} rows repeat an image of a row above and are left out')
    return [row for row in rows.values() if row.image in source.known], left_out, notes


def _npy_rows(source: Source) -> tuple[list[Row], int, tuple[str, ...]]:
    listed = []
    for name in source.images():
        parts = name.split('/')
        split = {'train_set': 'train', 'val_set': 'test'}.get(parts[-3] if len(parts) > 2 else '')
        if split and parts[-2] == 'images':
            listed.append((f'{parts[-3]}/{parts[-1]}', name, split))
    if not listed:
        raise UserError(f'{source.path} has neither training.csv nor train_set/images; see docs/reference/datasets.md')
    source.once((name, image) for name, image, _ in listed)
    needed = ('exp', 'val', 'aro')
    bare = [image for _, image, _ in listed if not all(_npy(image, kind) in source.known for kind in needed)]
    if bare:
        raise UserError(
            f'{source.path}: {len(bare):,} images lack an annotation, such as {bare[0]}; fetch the set again'
        )
    rows = []
    for name, image, split in listed:
        label = _scalar(source, _npy(image, 'exp'))
        if label not in range(11):
            raise UserError(f'{source.path}: {_npy(image, "exp")} holds {label:g}, expected 0 to 10; fetch it again')
        if label < len(CLASSES):
            points = _npy(image, 'lnd')
            rows.append(Row(name, image, split, int(label), None, points if points in source.known else None))
    return rows, len(listed) - len(rows), ()


def _npy(image: str, kind: str) -> str:
    """The annotation of train_set/images/0.jpg: train_set/annotations/0_exp.npy"""
    folder, name = image.rsplit('/images/', 1)
    return f'{folder}/annotations/{name.rsplit(".", 1)[0]}_{kind}.npy'


def _level(value: str | float) -> float:
    level = float(value)
    if level == NO_VALUE:
        return math.nan
    if not -1.001 <= level <= 1.001:
        raise ValueError(f'{level:g}, expected -1 to 1, or -2 for unknown')
    return level


def _levels(source: Source, row: Row) -> np.ndarray:
    if row.levels is not None:
        return np.array(row.levels, np.float32)
    values = []
    for name in (_npy(row.image, 'val'), _npy(row.image, 'aro')):
        try:
            values.append(_level(_scalar(source, name)))
        except ValueError as error:
            raise UserError(f'{source.path}: {name} holds {error}; fetch it again') from None
    return np.array(values, np.float32)


def _five(points: np.ndarray) -> np.ndarray:
    """[136] or [68, 2] -> float32 [10]"""
    return five_of_68(points.astype(np.float32).reshape(68, 2)).reshape(-1)


def _landmarks(source: Source, row: Row) -> np.ndarray:
    if not isinstance(row.landmarks, str):
        return np.full(len(LANDMARKS), np.nan, np.float32) if row.landmarks is None else row.landmarks
    try:
        return _five(_load(source, row.landmarks))
    except ValueError as error:
        raise UserError(f'{source.path}: {row.landmarks} holds no 68 points ({error}); fetch it again') from None


def _scalar(source: Source, name: str) -> float:
    """One number, stored as such or, in some copies, as text."""
    try:
        return float(_load(source, name).reshape(()).item())
    except (TypeError, ValueError) as error:
        raise UserError(f'{source.path}: {name} holds no number ({error}); fetch it again') from None


def _load(source: Source, name: str) -> np.ndarray:
    """The array of an npy file.

    Raises:
      ValueError: it is no npy file, or one of Python objects.
    """
    try:
        return np.lib.format.read_array(io.BytesIO(source.read(name)), allow_pickle=False)
    except (EOFError, MemoryError, OverflowError, SyntaxError, TypeError) as error:
        raise ValueError(f'no array: {error}') from None
