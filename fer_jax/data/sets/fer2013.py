"""FER2013 (Goodfellow et al. 2013): 35,887 grey 48x48 faces of seven expressions, from the original csv."""

import contextlib
import csv
import io
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from fer_jax.data.imaging.codec import encode
from fer_jax.data.sets import archives
from fer_jax.data.sets.builder import Example, Reading
from fer_jax.errors import UserError
from fer_jax.utils import bounded_files, limits
from fer_jax.utils.limits import LimitError

VERSION = '2.0.0'
CLASSES = ('angry', 'disgust', 'fear', 'happy', 'sad', 'surprise', 'neutral')
USAGES = {'Training': 'train', 'PublicTest': 'validation', 'PrivateTest': 'test'}
PUBLISHED = {
    'train': (3995, 436, 4097, 7215, 4830, 3171, 4965),
    'validation': (467, 56, 496, 895, 653, 415, 607),
    'test': (491, 55, 528, 879, 594, 416, 626),
}
SIDE = 48
PIXEL_VALUES = {str(value): value for value in range(256)}
# What the readers of archives and of text raise on damage, on passwords, and on compressions that Python has not
DAMAGE = (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error, zipfile.BadZipFile, RuntimeError)
LONGEST_LINE = 100_000  # characters of a line; a row has 9,300 at most
MOST_ROWS = 40_000
GZIP, TAR = b'\x1f\x8b', b'ustar'
CSVS = ('fer2013.csv', 'icml_face_data.csv')  # the latter in Kaggle's later archive


class Row(NamedTuple):
    """A row of the csv; `number` counts from 1 and leaves the header out."""

    number: int
    split: str
    label: int
    pixels: np.ndarray


@contextlib.contextmanager
def open_csv(source: Path) -> Iterator[io.TextIOBase]:
    """Opens the text of fer2013.csv: plain, .gz, or the member of that name in a .zip or a .tar.gz.

    Raises:
      UserError: there is no such file, or none in the archive.
    """
    if not source.is_file():
        raise UserError(f'--source={str(source)!r} is not a file; give fer2013.csv, plain or in a .gz, .zip or .tar.gz')
    try:
        with contextlib.closing(_open_stream(source)) as raw:
            yield io.TextIOWrapper(raw, 'utf-8-sig', newline='')
    except LimitError as error:
        raise UserError(f'{source}: {error}; it is no FER2013: fetch it again') from error
    except DAMAGE as error:
        raise UserError(f'{source} cannot be read ({error}); it is damaged or no csv: fetch it again') from error


def _open_stream(source: Path) -> BinaryIO:
    """Opens the bytes of the csv."""
    with bounded_files.open_regular(source, limits.FILE_BYTES) as raw:
        data: Any = archives.unpack_gzip(raw) if raw.read(2) == GZIP and not raw.seek(0) else raw
        data.seek(0)
        start = data.read(512)
    if start[257:262] == TAR or zipfile.is_zipfile(source):
        opened = archives.open_source(source)
        return opened.open(_member(source, list(opened.names)))
    if data is raw:
        return bounded_files.open_regular(source, limits.TABLE_BYTES)
    return io.BufferedReader(archives.Slice(memoryview(data)))


def _member(source: Path, names: list[str]) -> str:
    members = [name for name in names if name.split('/')[-1] in CSVS]
    if not members:
        raise UserError(f'{source} holds no {CSVS[0]}; it holds {", ".join(names[:5])}')
    return members[0]


def holds_csv(source: Path) -> bool:
    """Tells whether an archive holds the csv."""
    try:
        with open_csv(source) as text:
            return bool(text.readline(LONGEST_LINE))
    except UserError:
        return False


def rows(source: Path) -> Iterator[Row]:
    """Yields the rows of the csv, checked.

    Raises:
      UserError: a column is missing, or a row is malformed; its number is named.
    """
    with open_csv(source) as text:
        reader = csv.DictReader(bounded_files.read_lines(text, LONGEST_LINE, MOST_ROWS + 1))
        columns = [name.strip() for name in reader.fieldnames or []]
        missing = {'emotion', 'pixels', 'Usage'} - set(columns)
        if missing:
            raise UserError(f'{source} has no column {", ".join(sorted(missing))}; expected emotion,pixels,Usage')
        reader.fieldnames = columns
        for number, row in enumerate(reader, 1):
            yield _checked(source, number, row)


def _checked(source: Path, number: int, row: dict[str, str]) -> Row:
    def wrong(what: str) -> UserError:
        return UserError(f'{source}, row {number}: {what}; mend or remove the row, or fetch the file again')

    emotion, usage = (row['emotion'] or '').strip(), (row['Usage'] or '').strip()
    if emotion not in map(str, range(len(CLASSES))):
        raise wrong(f'emotion is {emotion!r}, expected 0 to {len(CLASSES) - 1}')
    if usage not in USAGES:
        raise wrong(f'Usage is {usage!r}, expected one of {", ".join(USAGES)}')
    texts = (row['pixels'] or '').split()
    try:
        pixels = bytes(map(PIXEL_VALUES.__getitem__, texts))
    except KeyError:
        raise wrong(_describe_pixels(texts)) from None
    if len(pixels) != SIDE * SIDE:
        raise wrong(f'{len(pixels)} pixels, expected {SIDE * SIDE}')
    return Row(number, USAGES[usage], int(emotion), np.frombuffer(pixels, np.uint8).reshape(SIDE, SIDE))


def _describe_pixels(texts: list[str]) -> str:
    text = next(text for text in texts if text not in PIXEL_VALUES)
    if text.removeprefix('-').isdecimal():
        return f'a pixel is {text[:20]}, expected 0 to 255'
    return 'pixels are not whole numbers'


def read(source: Path) -> Reading:
    """Reads all rows; test images of which no exact copy stands in train or validation are the subset 'clean'.

    Raises:
      UserError: the file is missing or damaged, or a row is malformed.
    """
    parsed = list(rows(source))
    clean = clean_rows(parsed)

    def examples(split: str) -> Iterator[Example]:
        for row in parsed:
            if row.split == split:
                subsets = ('clean',) if row.number in clean else ()
                yield Example(f'row{row.number:05d}', split, encode(row.pixels), row.label, subsets=subsets)

    return Reading(
        CLASSES,
        {split: sum(row.split == split for row in parsed) for split in USAGES.values()},
        examples,
        published=PUBLISHED,
        subsets=('clean',),
        image_shape=(SIDE, SIDE, 1),
    )


def clean_rows(parsed: list[Row]) -> set[int]:
    """Returns the numbers of all rows except the test rows that have an exact copy in another split."""
    elsewhere = {row.pixels.tobytes() for row in parsed if row.split != 'test'}
    return {row.number for row in parsed if row.split != 'test' or row.pixels.tobytes() not in elsewhere}
