"""AffectNet (Mollahosseini et al. 2017): faces from the web with an expression, valence and arousal."""

import io
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from fer_jax.data.builders.face_set import Example, Reading
from fer_jax.data.builders.sources import Source, open_source
from fer_jax.data.faces import five_of_68
from fer_jax.errors import UserError

VERSION = '1.0.0'
CLASSES = ('neutral', 'happy', 'sad', 'surprise', 'fear', 'disgust', 'angry', 'contempt')  # 0 to 7; 8 to 10 are none
PUBLISHED = {
    'train': (74_874, 134_415, 25_459, 14_090, 6_378, 3_803, 24_882, 3_750),
    'test': (500, 500, 500, 500, 500, 500, 500, 500),
}
COLUMNS = ('subDirectory_filePath', 'expression', 'valence', 'arousal')
NO_VALUE = -2.0
POINTS = ('left_eye', 'right_eye', 'nose', 'mouth_left', 'mouth_right')
LANDMARKS = tuple(f'{point}_{axis}' for point in POINTS for axis in 'xy')


class Row(NamedTuple):
    image: str
    split: str
    label: int
    valence: float
    arousal: float
    landmarks: str | None  # a file of 68 points


def read(source: Path) -> Reading:
    """The csv release (training.csv, validation.csv) or the npy release (train_set, val_set with annotations).

    The published validation split is given as 'test', since its labels are what the field reports. Targets:
    'valence_arousal' [2], -1 to 1, NaN where unknown, and in the npy release 'landmarks' [10], from its 68 points.
    Images without one of the eight expressions are left out.

    Raises:
      UserError: neither release is there, an annotation is malformed, or none of the images is there.
    """
    opened = open_source(source)
    with_csv = opened.one('training.csv') or opened.one('validation.csv')
    rows, notes = _csv_rows(opened) if with_csv else _npy_rows(opened)
    kept = [row for row in rows if 0 <= row.label < len(CLASSES)]
    if len(kept) < len(rows):
        notes = (*notes, f'{len(rows) - len(kept):,} images without one of the eight expressions are left out')
    points = any(row.landmarks for row in kept)

    def examples(split: str) -> Iterator[Example]:
        for row in kept:
            if row.split == split:
                levels = np.array([row.valence, row.arousal], np.float32)
                targets = {'valence_arousal': np.where(levels <= NO_VALUE, np.nan, levels)}
                if points:
                    targets['landmarks'] = _five(opened, row.landmarks)
                path = PurePosixPath(row.image)
                yield Example(
                    f'{path.parent.name}/{path.name}', split, opened.read(row.image), row.label, targets=targets
                )

    return Reading(
        CLASSES,
        {split: sum(row.split == split for row in kept) for split in PUBLISHED},
        examples,
        published=PUBLISHED,
        targets={'valence_arousal': ('valence', 'arousal')} | ({'landmarks': LANDMARKS} if points else {}),
        notes=notes,
    )


def _csv_rows(source: Source) -> tuple[list[Row], tuple[str, ...]]:
    by_tail = {'/'.join(PurePosixPath(name).parts[-2:]): name for name in source.images()}
    rows = []
    for split, stem in (('train', 'training.csv'), ('test', 'validation.csv')):
        name = source.one(stem)
        for number, cells in enumerate(source.table(name, COLUMNS) if name else [], 1):
            image = cells['subDirectory_filePath'].strip()
            label = source.number(str(name), number, cells['expression'], 0, 10)
            try:
                valence, arousal = float(cells['valence']), float(cells['arousal'])
            except ValueError:
                raise source.wrong(str(name), number, 'valence or arousal is no number') from None
            rows.append(Row(by_tail.get(image, image), split, label, valence, arousal, None))
    notes = source.lack((row.image for row in rows), 'training.csv and validation.csv')
    known = set(by_tail.values())
    return [row for row in rows if row.image in known], notes


def _npy_rows(source: Source) -> tuple[list[Row], tuple[str, ...]]:
    rows = []
    names = set(source.names)
    for name in source.images():
        path = PurePosixPath(name)
        split = {'train_set': 'train', 'val_set': 'test'}.get(path.parent.parent.name)
        if split is None or path.parent.name != 'images':
            continue
        stem = str(path.parent.parent / 'annotations' / path.stem)
        values = [_scalar(source, f'{stem}_{kind}.npy') for kind in ('exp', 'val', 'aro')]
        landmarks = f'{stem}_lnd.npy' if f'{stem}_lnd.npy' in names else None
        rows.append(Row(name, split, int(values[0]), values[1], values[2], landmarks))
    if not rows:
        raise UserError(f'{source.path} has neither training.csv nor train_set/images; see docs/datasets.md')
    return rows, ()


def _scalar(source: Source, name: str) -> float:
    """One number, stored as such or, in some copies, as text."""
    try:
        return float(_load(source, name).reshape(-1)[0])
    except (KeyError, OSError, ValueError, IndexError) as error:
        raise UserError(f'{source.path}: {name} holds no number ({error}); fetch it again') from None


def _load(source: Source, name: str) -> np.ndarray:
    return np.load(io.BytesIO(source.read(name)), allow_pickle=False)


def _five(source: Source, name: str | None) -> np.ndarray:
    """float32 [10], x and y in pixels: middles of the eyes, tip of the nose, corners of the mouth."""
    if name is None:
        return np.full(len(LANDMARKS), np.nan, np.float32)
    try:
        points = _load(source, name).astype(np.float32).reshape(68, 2)
    except (OSError, ValueError) as error:
        raise UserError(f'{source.path}: {name} holds no 68 points ({error}); fetch it again') from None
    return five_of_68(points).reshape(-1)
