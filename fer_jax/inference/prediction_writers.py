"""Files of predictions: JSON lines, or tables (CSV, Parquet) with one column a value."""

import csv
import importlib.util
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO

from fer_jax.errors import UserError
from fer_jax.inference.media import printable
from fer_jax.utils.choices import check_choice

FORMATS = ('jsonl', 'csv', 'parquet')
ROWS_A_GROUP = 10_000  # of Parquet
FACE_COLUMNS = {
    'file': str, 'frame': int, 'seconds': float, 'face_id': int, 'x': float, 'y': float, 'width': float,
    'height': float, 'detector': float, 'label': str, 'confidence': float, 'abstained': bool,
}  # fmt: skip
PERSON_COLUMNS = {
    'file': str, 'face_id': int, 'frames': int, 'first_seconds': float, 'last_seconds': float, 'label': str,
    'confidence': float,
}  # fmt: skip


class Writer(Protocol):
    """Writes records one by one; `close` makes the file whole."""

    def write(self, record: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


def face_columns(classes: Sequence[str]) -> dict[str, type]:
    """Returns the columns of a table of faces: `FACE_COLUMNS`, one a class, and `error`."""
    return FACE_COLUMNS | dict.fromkeys(classes, float) | {'error': str}


def person_columns(classes: Sequence[str]) -> dict[str, type]:
    """Returns the columns of a table of the persons of videos: `PERSON_COLUMNS`, and one a class."""
    return PERSON_COLUMNS | dict.fromkeys(classes, float)


def check_format(form: str, *, to_file: bool) -> None:
    """Raises a UserError where there is no such format, or none for text that is not written to a file."""
    check_choice('--format', form, FORMATS)
    if form != 'parquet':
        return
    if not to_file:
        raise UserError('--format=parquet is no text; give --out, the folder to write it to')
    if importlib.util.find_spec('pyarrow') is None:
        raise UserError("--format=parquet needs pyarrow; run pip install 'fer_jax[tables]'")


def open_writer(form: str, target: Path | TextIO, columns: dict[str, type]) -> Writer:
    """Opens a file of predictions.

    Args:
      form: one of `FORMATS`.
      target: a path without suffix, which is added, or an open text file (not for Parquet).
      columns: of a table, with the type of their values.

    Raises:
      UserError: see `check_format`.
    """
    check_format(form, to_file=isinstance(target, Path))
    if isinstance(target, Path):
        target = target.with_name(f'{target.name}.{form}')
        if form == 'parquet':
            return ParquetWriter(target, columns)
    file = target.open('w', encoding='utf-8', newline='') if isinstance(target, Path) else target
    return JsonLinesWriter(file) if form == 'jsonl' else CsvWriter(file, columns)


class JsonLinesWriter:
    """Writes a line of JSON a record, at once."""

    def __init__(self, file: TextIO):
        self._file = file

    def write(self, record: dict[str, Any]) -> None:
        print(json.dumps(record), file=self._file, flush=True)

    def close(self) -> None:
        self._file.flush()


class CsvWriter:
    """Writes a line of comma-separated values a record, at once; what a record lacks is empty."""

    def __init__(self, file: TextIO, columns: dict[str, type]):
        self._file = file
        self._writer = csv.DictWriter(file, list(columns), lineterminator='\n')
        self._writer.writeheader()

    def write(self, record: dict[str, Any]) -> None:
        self._writer.writerow(flatten(record, self._writer.fieldnames))
        self._file.flush()

    def close(self) -> None:
        self._file.flush()


class ParquetWriter:
    """Writes a Parquet file, which is whole once it is closed; what a record lacks is null."""

    def __init__(self, path: Path, columns: dict[str, type]):
        import pyarrow as arrow
        from pyarrow import parquet

        types = {str: arrow.string(), int: arrow.int64(), float: arrow.float64(), bool: arrow.bool_()}
        self._schema = arrow.schema([(name, types[kind]) for name, kind in columns.items()])
        self._table = arrow.Table
        self._opened = path.open('wb')
        self._file = parquet.ParquetWriter(self._opened, self._schema)
        self._rows: list[dict[str, Any]] = []

    def write(self, record: dict[str, Any]) -> None:
        self._rows.append(flatten(record, self._schema.names))
        if len(self._rows) >= ROWS_A_GROUP:
            self._write_rows()

    def _write_rows(self) -> None:
        if self._rows:
            self._file.write_table(self._table.from_pylist(self._rows, self._schema))
            self._rows.clear()

    def close(self) -> None:
        with self._opened:
            self._write_rows()
            self._file.close()


def flatten(record: dict[str, Any], columns: Collection[str]) -> dict[str, Any]:
    """Returns the values of a record by column; names that are not UTF-8 are escaped by backslashes."""
    values = dict(record)
    values.update(zip(('x', 'y', 'width', 'height'), values.pop('box', ()), strict=False))
    values.update(values.pop('probabilities', {}))
    values.setdefault('face_id', values.get('face'))
    return {
        name: printable(value) if isinstance(value, str) else value for name in columns for value in [values.get(name)]
    }
