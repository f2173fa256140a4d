"""Reading of files that may be anything: a device, a pipe, a file without end. Only regular files are opened."""

import contextlib
import csv
import io
import json
import math
import os
import stat
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import numpy as np

from fer_jax.utils import limits
from fer_jax.utils.limits import LimitError, check_limit

BLOCK_BYTES = 1 << 20
ANY_BYTES = 1 << 62  # of a file of which no more is held in memory than is needed


def open_regular(path: Path, most: int = ANY_BYTES) -> io.BufferedReader | io.BytesIO:
    """Opens a regular file of at most `most` bytes.

    Raises:
      OSError: the file cannot be opened, or is no regular file; nothing is waited for.
      LimitError: the file is larger.
    """
    status = os.stat(path)
    _check_regular(path, status, most)  # a device does something when it is opened
    if not status.st_size:
        return io.BytesIO()  # those of /proc say so and can be read without end
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), 'rb')
    try:
        _check_regular(path, os.fstat(file.fileno()), most)  # it may be another one by now
    except BaseException:
        file.close()
        raise
    return file


def _check_regular(path: Path, status: os.stat_result, most: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(0, 'it is no regular file', str(path))
    check_limit(status.st_size, most, 'bytes')


def read_bytes(path: Path, most: int = limits.TEXT_BYTES) -> bytes:
    """Reads a regular file of at most `most` bytes; raises as `open_regular` does."""
    with open_regular(path, most) as file:
        data = file.read(most + 1)
    check_limit(len(data), most, 'bytes')
    return data


def read_text(path: Path, most: int = limits.TEXT_BYTES) -> str:
    """Reads a text in UTF-8 as `read_bytes` does; raises UnicodeDecodeError too, a ValueError like LimitError."""
    return read_bytes(path, most).decode()


def read_json(path: Path, most: int = limits.TEXT_BYTES) -> Any:
    """Reads a JSON file.

    Raises:
      OSError: the file cannot be read.
      ValueError: it is too large, or no JSON.
    """
    try:
        return json.loads(read_text(path, most))
    except RecursionError:
        raise ValueError('its lists and objects are nested too deeply') from None


@contextlib.contextmanager
def open_lines(path: Path, encoding: str = 'utf-8-sig', errors: str = 'strict') -> Iterator[Iterator[str]]:
    """Opens a regular text file and gives its lines with their ends.

    Raises:
      OSError: the file cannot be read.
      LimitError: the file, a line or their number is above a limit; more lines than that are refused at once.
    """
    with open_regular(path, limits.TABLE_BYTES) as file:
        count = sum(block.count(b'\n') for block in iter(lambda: file.read(BLOCK_BYTES), b''))
        check_limit(count, limits.TABLE_ROWS, 'lines')
        file.seek(0)
        with io.TextIOWrapper(file, encoding, errors, newline='') as text:
            yield read_lines(text)


def read_lines(
    text: TextIO | io.TextIOBase, longest: int = limits.LINE_CHARACTERS, most: int = limits.TABLE_ROWS
) -> Iterator[str]:
    """Yields the lines of a text with their ends.

    Raises:
      LimitError: a line has more than `longest` characters, or there are more than `most`.
    """
    count = 0
    while line := text.readline(longest + 1):
        count += 1
        check_limit(len(line), longest, f'characters in line {count:,}')
        check_limit(count, most, 'lines')
        yield line


class _Rows(csv.DictReader):  # type: ignore[type-arg]
    """Rows as dicts; each has an entry for every column, whatever the length of its line."""

    def __next__(self) -> dict[str, str]:
        check_limit(self.line_num * len(self.fieldnames or ()), limits.TABLE_CELLS, 'cells, lines times columns')
        return super().__next__()


def read_rows(lines: Iterable[str]) -> 'csv.DictReader[str]':
    """Reads a csv with a heading.

    Raises:
      LimitError: it has too many columns.
      csv.Error: its heading is malformed.
    """
    rows = _Rows(lines, restkey='')
    check_limit(len(rows.fieldnames or ()), limits.TABLE_COLUMNS, 'columns')
    return rows


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Reads the arrays of an npz file, none of them of objects.

    Raises:
      OSError: the file cannot be read.
      ValueError: it is damaged, or above a limit.
    """
    try:
        with open_arrays(path) as arrays:
            return dict(arrays)
    except (LimitError, OSError):
        raise
    except Exception as error:  # the reader of damaged archives raises anything
        raise ValueError(f'{type(error).__name__}: {error}') from error


@contextlib.contextmanager
def open_arrays(path: Path) -> Iterator[Mapping[str, np.ndarray]]:
    """Opens an npz file, whose arrays are read when they are accessed.

    Raises:
      OSError: the file cannot be read.
      LimitError: its arrays have more bytes than a file of its size may have.
      ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error: it is damaged, at once or when it is read.
    """
    with open_regular(path) as file:
        infos = list_members(file)
        most = max(limits.ARRAY_BYTES, os.stat(path).st_size)
        check_limit(sum(info.file_size for info in infos), most, 'bytes when unpacked')
        with zipfile.ZipFile(file) as archive:
            for info in infos:
                with archive.open(info) as member:
                    _check_header(member, info.file_size)
        file.seek(0)
        with np.load(file) as arrays:
            yield arrays


def _check_header(member: Any, size: int) -> None:
    """Raises ValueError where an array claims to have more bytes than its member of an archive."""
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(member)
    if version not in read:
        raise ValueError(f'it holds an array of the format {version}')
    shape, _, dtype = read[version](member)
    if math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f'it claims an array of shape {shape}, and holds {size:,} bytes of it')


def list_members(file: BinaryIO, *, members: int | None = None, directory: int | None = None) -> list[zipfile.ZipInfo]:
    """Lists the members of a zip archive.

    Args:
      file: the archive.
      members: number of members that it may have; None for `limits.MEMBERS`.
      directory: bytes that the list of its members may have; None for `limits.DIRECTORY_BYTES`.

    Raises:
      LimitError: it has more.
      zipfile.BadZipFile: it is no zip archive.
    """
    record: Any = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    if record is None:
        raise zipfile.BadZipFile('the end of the archive is missing')
    check_limit(
        record[5], directory or limits.DIRECTORY_BYTES, 'bytes in its list of members'
    )  # zipfile makes an object of every member
    with zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
    check_limit(len(infos), members or limits.MEMBERS, 'members')
    return infos
