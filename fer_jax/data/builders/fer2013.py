"""FER2013 (Goodfellow et al. 2013): 35,887 grey 48x48 faces of seven expressions, from the original csv."""

import csv
import gzip
import io
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from fer_jax.errors import UserError

CLASSES = ('angry', 'disgust', 'fear', 'happy', 'sad', 'surprise', 'neutral')
USAGES = {'Training': 'train', 'PublicTest': 'validation', 'PrivateTest': 'test'}
PUBLISHED = {
    'train': (3995, 436, 4097, 7215, 4830, 3171, 4965),
    'validation': (467, 56, 496, 895, 653, 415, 607),
    'test': (491, 55, 528, 879, 594, 416, 626),
}
SIDE = 48
CSV = 'fer2013.csv'


class Row(NamedTuple):
    """One row of the csv; `number` counts from 1 and leaves the header out."""

    number: int
    split: str
    label: int
    pixels: np.ndarray


@contextmanager
def open_csv(source: Path) -> Iterator[io.TextIOBase]:
    """The text of fer2013.csv: plain, .gz, or the member of that name in a .zip or a .tar.gz.

    Raises:
      UserError: there is no such file, or none in the archive.
    """
    if not source.is_file():
        raise UserError(f'--source={str(source)!r} is not a file; give fer2013.csv, plain or in a .gz, .zip or .tar.gz')
    try:
        if zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as archive, archive.open(_member(source, archive.namelist())) as raw:
                yield io.TextIOWrapper(raw, 'utf-8-sig', newline='')
        elif tarfile.is_tarfile(source):
            with tarfile.open(source) as tar:
                extracted = tar.extractfile(_member(source, tar.getnames()))
                if extracted is None:
                    raise UserError(f'{source}: {CSV} in the archive is not a regular file')
                with extracted as raw:
                    yield io.TextIOWrapper(raw, 'utf-8-sig', newline='')
        else:
            opener = gzip.open if source.suffix == '.gz' else open
            with opener(source, 'rt', encoding='utf-8-sig', newline='') as text:
                yield text  # type: ignore[misc]
    except (gzip.BadGzipFile, EOFError, tarfile.TarError, zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise UserError(f'{source} cannot be read ({error}); it is damaged or no csv: fetch it again') from error


def _member(source: Path, names: list[str]) -> str:
    found = [name for name in names if name.split('/')[-1] == CSV]
    if not found:
        raise UserError(f'{source} holds no {CSV}; it holds {", ".join(names[:5])}')
    return found[0]


def rows(source: Path) -> Iterator[Row]:
    """The rows of the csv, checked.

    Raises:
      UserError: a column is missing, or a row is malformed; its number is named.
    """
    with open_csv(source) as text:
        reader = csv.DictReader(text)
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
    try:
        pixels = np.array((row['pixels'] or '').split(), np.int64)
    except (ValueError, OverflowError):
        raise wrong('pixels are not whole numbers') from None
    if len(pixels) != SIDE * SIDE:
        raise wrong(f'{len(pixels)} pixels, expected {SIDE * SIDE}')
    if pixels.min() < 0 or pixels.max() > 255:
        raise wrong(f'a pixel is {pixels.min() if pixels.min() < 0 else pixels.max()}, expected 0 to 255')
    return Row(number, USAGES[usage], int(emotion), pixels.astype(np.uint8).reshape(SIDE, SIDE))


def encode(pixels: np.ndarray) -> bytes:
    """uint8 [H, W] or [H, W, 3] -> PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, 'PNG')
    return buffer.getvalue()


class Fer2013(tfds.core.GeneratorBasedBuilder):
    """Splits train, validation (PublicTest) and test (PrivateTest).

    `clean` marks the test images of which no exact copy stands in train or validation: 3,275 of 3,589.
    """

    VERSION = tfds.core.Version('1.0.0')
    rows: list[Row] | None = None  # what to prepare from

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                'image': tfds.features.Image(shape=(SIDE, SIDE, 1), encoding_format='png'),
                'label': tfds.features.ClassLabel(names=list(CLASSES)),
                'id': tfds.features.Text(),
                'clean': np.bool_,
            }
        )
        return self.dataset_info_from_configs(features=features, supervised_keys=('image', 'label'))

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        if self.rows is None:
            raise ValueError('set `rows` before preparing')
        elsewhere = {row.pixels.tobytes() for row in self.rows if row.split != 'test'}
        return {split: self._examples(self.rows, split, elsewhere) for split in USAGES.values()}

    def _examples(self, rows: list[Row], split: str, elsewhere: set[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
        for row in rows:
            if row.split == split:
                name = f'row{row.number:05d}'
                clean = split != 'test' or row.pixels.tobytes() not in elsewhere
                yield name, {'image': encode(row.pixels), 'label': row.label, 'id': name, 'clean': clean}

    def _generate_examples(self, **kwargs: Any) -> Any:
        raise ValueError('each split has its own generator')
