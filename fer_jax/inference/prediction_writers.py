"""Files of predictions: JSON lines, or tables (CSV, Parquet) with one column a value."""

import csv
import importlib.util
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO

from fer_jax.data.imaging.image_files import escape_undecodable
from fer_jax.errors import UserError
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
    """Writes records to a file one by one; `close` completes the file."""

    def write(self, record: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


def face_columns(classes: Sequence[str]) -> dict[str, type]:
    """Returns the columns, with types, of a table of faces: `FACE_COLUMNS`, one column per class, and `error`."""
    return FACE_COLUMNS | dict.fromkeys(classes, float) | {'error': str}


def person_columns(classes: Sequence[str]) -> dict[str, type]:
    """Returns the columns, with types, of a table of persons: `PERSON_COLUMNS` and one column per class."""
    return PERSON_COLUMNS | dict.fromkeys(classes, float)


def check_format(form: str, *, to_file: bool) -> None:
    """Checks that predictions can be written in a format.

    Args:
      form: name of the format.
      to_file: whether the target is a file rather than standard output.

    Raises:
      UserError: the format is unknown, is Parquet without a file, or needs a package that is not installed.
    """
    check_choice('--format', form, FORMATS)
    if form != 'parquet':
        return
    if not to_file:
        raise UserError('--format=parquet is no text; give --out, the folder to write it to')
    if importlib.util.find_spec('pyarrow') is None:
        raise UserError("--format=parquet needs pyarrow; run pip install 'fer_jax[tables]'")


def open_writer(form: str, target: Path | TextIO, columns: dict[str, type]) -> Writer:
    """Opens a file of predictions for writing.

    Args:
      form: one of `FORMATS`.
      target: a path without suffix, which is added, or an open text file (not for Parquet).
      columns: column names of a table with the types of their values; unused for JSON lines.

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
    """Writes each record as a line of JSON and flushes it."""

    def __init__(self, file: TextIO):
        self._file = file

    def write(self, record: dict[str, Any]) -> None:
        print(json.dumps(record), file=self._file, flush=True)

    def close(self) -> None:
        self._file.flush()


class CsvWriter:
    """Writes each record as a CSV line and flushes it; missing values are empty."""

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
    """Writes a Parquet file, which is complete once it is closed; missing values are null."""

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
    """Returns the values of a record by column, with the box and the probabilities as separate columns.

    Strings that are not valid UTF-8 are escaped with backslashes; missing values are None.
    """
    values = dict(record)
    values.update(zip(('x', 'y', 'width', 'height'), values.pop('box', ()), strict=False))
    values.update(values.pop('probabilities', {}))
    values.setdefault('face_id', values.get('face'))
    return {
        name: escape_undecodable(value) if isinstance(value, str) else value
        for name in columns
        for value in [values.get(name)]
    }
