"""FER+ (Barsoum et al. 2016): FER2013's images with the votes of ten annotators for eight expressions."""

import csv
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fer_jax.data.imaging.codec import encode
from fer_jax.data.sets import fer2013
from fer_jax.data.sets.builder import Example, Reading
from fer_jax.data.tables import soft_labels
from fer_jax.errors import UserError
from fer_jax.utils import bounded_files
from fer_jax.utils.limits import LimitError

VERSION = '1.0.0'
CLASSES = ('neutral', 'happy', 'surprise', 'sad', 'angry', 'disgust', 'fear', 'contempt')  # the order of the votes
COLUMNS = ('neutral', 'happiness', 'surprise', 'sadness', 'anger', 'disgust', 'fear', 'contempt', 'unknown', 'NF')
ARCHIVES = ('.zip', '.tar', '.tar.gz', '.tgz')
VOTES, UNCERTAIN = 'fer2013new.csv', 'uncertain_rows.txt'
PUBLISHED = {'train': 28561, 'validation': 3579, 'test': 3574}  # rows of fer2013new.csv that name an image


def read(source: Path) -> Reading:
    """Joins the two csv files, found anywhere below the folder `source`, row by row; FER2013's may be in an archive.

    Images that FER+ left out (no name, not a face) are left out here. The label is the majority after single votes are
    removed, -1 where there is none or it is no expression; the votes are a target. Test images without a copy elsewhere
    are the subset 'clean'. Where a file uncertain_rows.txt lists rows, counted from 0, of a rebuilt fer2013.csv that
    may not stand at their original place, all others are the subset 'certain'.

    Raises:
      UserError: a file is missing, or the two do not belong together.
    """
    csv_path, votes_path = _images(source), _one(source, VOTES)
    rows = list(fer2013.rows(csv_path))
    votes, named = _votes(votes_path, [row.split for row in rows])
    labels = soft_labels.majority(votes, len(CLASSES))
    clean = fer2013.clean_rows(rows)
    uncertain = _uncertain(source)
    kept = [index for index in range(len(rows)) if named[index]]

    def examples(split: str) -> Iterator[Example]:
        for index in kept:
            row = rows[index]
            if row.split == split:
                flags = {'clean': row.number in clean, 'certain': index not in uncertain}
                yield Example(
                    f'row{row.number:05d}',
                    split,
                    encode(row.pixels),
                    int(labels[index]),
                    subsets=tuple(name for name, holds in flags.items() if holds),
                    targets={'votes': votes[index]},
                )

    return Reading(
        CLASSES,
        {split: sum(rows[index].split == split for index in kept) for split in fer2013.USAGES.values()},
        examples,
        published=PUBLISHED,
        subsets=('clean', 'certain'),
        targets={'votes': (*CLASSES, *soft_labels.NO_EXPRESSION)},
        image_shape=(fer2013.SIDE, fer2013.SIDE, 1),
        notes=(f'{len(rows) - len(kept)} rows have no FER+ image; {int((labels[kept] < 0).sum())} have no majority',),
    )


def _images(source: Path) -> Path:
    """Finds fer2013.csv, as it is, or in the first archive that holds it."""
    files = sorted(path for path in source.rglob('*') if path.is_file()) if source.is_dir() else []
    named = [path for path in files if path.name.removesuffix('.gz') in fer2013.CSVS]
    packed = (path for path in files if path.name.endswith(ARCHIVES) and fer2013.holds_csv(path))
    return named[0] if named else next(packed, None) or _one(source, 'fer2013.csv*')


def _one(source: Path, pattern: str) -> Path:
    matches = sorted(source.rglob(pattern)) if source.is_dir() else []
    if not matches:
        raise UserError(f'--source={str(source)!r} holds no {pattern}; give a folder with fer2013.csv and {VOTES}')
    return matches[0]


def _votes(path: Path, splits: list[str]) -> tuple[np.ndarray, list[bool]]:
    """float32 [N, 10], and whether each row names an image."""
    try:
        with bounded_files.open_lines(path) as lines:
            table = list(itertools.islice(bounded_files.read_rows(lines), len(splits) + 1))
    except (OSError, UnicodeDecodeError, csv.Error, LimitError) as error:
        raise UserError(f'{path} cannot be read ({error}); fetch it again') from error
    if len(table) != len(splits):
        raise UserError(f'{path} has {len(table)} rows, fer2013.csv {len(splits)}; they belong together row by row')
    votes = np.zeros((len(table), len(COLUMNS)), np.float32)
    for number, (row, split) in enumerate(zip(table, splits, strict=True), 1):
        if fer2013.USAGES.get(row.get('Usage') or '') != split:
            raise UserError(f'{path}, row {number}: Usage is {row.get("Usage")!r}, fer2013.csv says {split} there')
        try:
            votes[number - 1] = [int(row[name]) for name in COLUMNS]
        except (KeyError, TypeError, ValueError, OverflowError):
            raise UserError(f'{path}, row {number}: expected ten counts, {", ".join(COLUMNS)}') from None
    return votes, [bool(row['Image name']) for row in table]


def _uncertain(source: Path) -> set[int]:
    numbers: set[int] = set()
    for path in source.rglob(UNCERTAIN):
        try:
            numbers |= {int(line) for line in bounded_files.read_text(path).split()}
        except (OSError, ValueError) as error:
            raise UserError(f'{path} cannot be read ({error}); expected numbers of rows') from error
    return numbers
