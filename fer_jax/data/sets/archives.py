"""What was downloaded, as names and bytes: a folder, a zip or a tar, of which nothing is unpacked to disk."""

import contextlib
import csv
import functools
import io
import itertools
import mmap
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from fer_jax.data.imaging import image_files
from fer_jax.data.imaging.codec import read_size
from fer_jax.errors import UserError
from fer_jax.utils import bounded_files, limits
from fer_jax.utils.limits import LimitError

BLOCK_BYTES = 1 << 16
SUFFIXES = ('.jpg', '.jpeg', '.png', '.tif', '.tiff', '.bmp')
DAMAGED = (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, tarfile.TarError)  # RuntimeError: encrypted


@dataclass(frozen=True)
class Source:
    """The files of a folder or an archive.

    Attributes:
      path: the folder or archive.
      names: POSIX paths below it, sorted; hidden files are left out.
      open: name -> its bytes as a file.
    """

    path: Path
    names: tuple[str, ...]
    open: Callable[[str], BinaryIO]

    @functools.cached_property
    def known(self) -> frozenset[str]:
        return frozenset(self.names)

    def ending(self, *endings: str) -> list[str]:
        """Returns the names that end so, compared by whole path components and without regard to case."""
        wanted = tuple(f'/{ending.lower()}' for ending in endings)
        return [name for name in self.names if f'/{name.lower()}'.endswith(wanted)]

    def one(self, *endings: str) -> str | None:
        """Returns the first of `ending`, the shortest path first; None where there is none."""
        return min(self.ending(*endings), key=lambda name: (name.count('/'), name), default=None)

    def images(self) -> list[str]:
        return [name for name in self.names if name.lower().endswith(SUFFIXES)]

    def once(self, named: Iterable[tuple[str, str]]) -> dict[str, str]:
        """Returns (id, file) pairs as a mapping.

        Raises:
          UserError: two files have one id, as in a folder that holds a set twice.
        """
        paths: dict[str, str] = {}
        for name, file in named:
            if paths.setdefault(name, file) != file:
                raise UserError(f'{self.path} holds {name} twice, as {paths[name]} and as {file}; give one of the two')
        return paths

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[BinaryIO]:
        try:
            with self.open(name) as file:
                yield file
        except DAMAGED as error:
            raise UserError(f'{self.path}: {name} cannot be read ({error}); fetch it again') from error

    def read(self, name: str) -> bytes:
        """Reads the bytes of a file.

        Raises:
          UserError: it is damaged, encrypted, or too large for an image.
        """
        with self._opened(name) as file:
            data = file.read(limits.MEMBER_BYTES + 1)
        if len(data) > limits.MEMBER_BYTES:
            raise UserError(
                f'{self.path}: {name} holds more than {limits.MEMBER_BYTES:,} bytes; it is no image, remove it'
            )
        return data

    def lines(self, name: str) -> Iterator[str]:
        """Yields the lines of a text file without empty ones; a BOM and CRLF do not matter.

        Raises:
          UserError: it is no UTF-8, or no text.
        """
        with self._opened(name) as file:
            for number in itertools.count(1):
                line = file.readline(limits.MEMBER_LINE_BYTES + 1)
                if not line:
                    return
                if number > limits.TABLE_ROWS:
                    raise UserError(f'{self.path}: {name} has more than {limits.TABLE_ROWS:,} lines; fetch it again')
                try:
                    text = line.decode('utf-8-sig' if number == 1 else 'utf-8').strip()
                except UnicodeDecodeError:
                    text = '\0'
                if len(line) > limits.MEMBER_LINE_BYTES or '\0' in text:
                    raise UserError(f'{self.path}: {name}, line {number} is no UTF-8 text; fetch it again')
                if text:
                    yield text

    def table(self, name: str, columns: Iterable[str], default: tuple[str, ...] = ()) -> Iterator[dict[str, str]]:
        """Yields the rows of a csv; `default` names the columns of one that has no heading.

        Raises:
          UserError: a column is missing, or a row has another number of cells; its number is named.
        """
        rows = self._cells(name)
        head = next(rows, [])
        if head and default and not set(head) & set(default):
            rows, head = itertools.chain([head], rows), list(default)
        missing = [column for column in columns if column not in head]
        if missing:
            has = ', '.join(head[:10]) or 'none'
            raise UserError(f'{self.path}: {name} has no column {", ".join(missing)}; it has {has}')
        for number, cells in enumerate(rows, 1):
            if len(cells) != len(head):
                raise self.wrong(name, number, f'{len(cells)} cells, expected {len(head)}')
            yield dict(zip(head, cells, strict=True))

    def _cells(self, name: str) -> Iterator[list[str]]:
        rows = csv.reader(self.lines(name))
        try:
            for cells in rows:
                yield [cell.strip() for cell in cells]
        except csv.Error as error:
            raise UserError(f'{self.path}: {name}, line {rows.line_num}: {error}; fetch it again') from None

    def wrong(self, name: str, number: int, what: str) -> UserError:
        return UserError(f'{self.path}: {name}, row {number}: {what}; mend or remove the row')

    def number(self, name: str, row: int, text: str, low: int, high: int) -> int:
        """Reads a whole number from `low` to `high`, from row `row` of the file `name`."""
        if text.strip() not in map(str, range(low, high + 1)):
            raise self.wrong(name, row, f'{text.strip()!r}, expected a whole number from {low} to {high}')
        return int(text)

    def lack(self, wanted: Iterable[str], where: str) -> tuple[str, ...]:
        """Returns a note on listed images that are not there.

        Raises:
          UserError: none of them is, or none is listed.
        """
        wanted = list(wanted)
        if not wanted:
            raise UserError(f'{self.path}: {where} lists no images; fetch it again')
        missing = [name for name in wanted if name not in self.known]
        if len(missing) == len(wanted):
            raise UserError(
                f'{self.path} has none of the {len(wanted):,} images that {where} lists, such as {missing[0]}; '
                'unpack the archive of images beside it'
            )
        return (f'{len(missing):,} images that {where} lists are missing, such as {missing[0]}',) if missing else ()

    def shape(self, names: Iterable[str]) -> tuple[int | None, int | None, int]:
        """Returns (H, W, C) of the images, H and W None where they differ."""
        sizes, colours = set[tuple[int, ...]](), False
        for name in names:  # what cannot be opened is for the doctor to name
            with contextlib.suppress(UserError, ValueError):
                *size, channels = read_size(self.read(name))
                sizes.add(tuple(size))
                colours |= channels > 1
            if len(sizes) > 1 and colours:
                break
        height, width = next(iter(sizes)) if len(sizes) == 1 else (None, None)
        return height, width, 3 if colours or not sizes else 1


def open_source(path: Path) -> Source:
    """Opens a folder, a .zip, a .tar or a .tar.gz. Links to folders are followed, each folder once.

    Raises:
      UserError: it is none of them, it is damaged, or a name in it is no UTF-8.
    """
    try:
        if path.is_dir():
            names = list(_walk(path))
            opener: Callable[[str], Any] = lambda name: bounded_files.open_regular(path / name)  # noqa: E731
        elif not path.is_file():
            raise UserError(f'--source={str(path)!r} does not exist; give the folder or archive that was downloaded')
        elif zipfile.is_zipfile(path):
            with path.open('rb') as file:
                infos = bounded_files.list_members(
                    file, members=limits.ARCHIVE_MEMBERS, directory=limits.ARCHIVE_DIRECTORY_BYTES
                )
            names = [info.filename for info in infos if not info.is_dir()]
            opener = zipfile.ZipFile(path).open
        else:
            names, opener = _tar(path)
    except LimitError as error:
        raise UserError(f'--source={str(path)!r}: {error}; unpack it first') from error
    except DAMAGED as error:
        raise UserError(f'--source={str(path)!r} cannot be read ({error}); fetch it again') from error
    kept = sorted({name for name in names if not _hidden(name)})
    for name in kept:
        if not name.isascii() and any('\ud800' <= letter <= '\udfff' for letter in name):
            raise UserError(f'{path}: the name {os.fsencode(name)!r} is no UTF-8; rename it')
    return Source(path, tuple(kept), opener)


def _hidden(name: str) -> bool:
    return '/.' in f'/{name}' or '/__MACOSX/' in f'/{name}'


def _walk(root: Path) -> Iterator[str]:
    """Yields the files below a folder. Links come last, so that what they point to keeps its own name."""
    for name, reason in image_files.walk(root):
        if not reason:
            yield name


class Slice(io.RawIOBase):
    """A part of a buffer as a file, which is not copied."""

    def __init__(self, data: memoryview):
        self._data, self._place = data, 0

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        part = self._data[self._place : self._place + len(target)]
        target[: len(part)] = part
        self._place += len(part)
        return len(part)


def _tar(path: Path) -> tuple[list[str], Callable[[str], BinaryIO]]:
    """Returns names, and what opens them: a tar is mapped, a .tar.gz held in memory, so any order is cheap.

    Raises:
      LimitError: it unpacks to too much, or has too many members.
    """
    with path.open('rb') as raw:
        packed = raw.read(2) == b'\x1f\x8b'
        raw.seek(0)
        try:
            data = unpack_gzip(raw) if packed else mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ)
            places: dict[str, tuple[int, int]] = {}
            with tarfile.open(fileobj=data, mode='r:') as tar:  # type: ignore[call-overload]
                for count, member in enumerate(tar, 1):
                    limits.check_limit(count, limits.ARCHIVE_MEMBERS, 'members')
                    tar.members = []  # type: ignore[attr-defined]  # it would keep all of them
                    if member.isreg() and not member.issparse():
                        places[member.name.removeprefix('./')] = member.offset_data, member.size
        except LimitError:
            raise
        except (tarfile.ReadError, ValueError) as error:  # ValueError: an empty file
            raise UserError(
                f'--source={str(path)!r} is neither a folder, a .zip, a .tar nor a .tar.gz, or cut short ({error}); '
                'unpack it first, or fetch it again'
            ) from None

    def opener(name: str) -> BinaryIO:
        first, size = places[name]
        return io.BufferedReader(Slice(memoryview(data)[first : first + size]))

    return list(places), opener


def unpack_gzip(raw: BinaryIO) -> mmap.mmap:
    """Unpacks a gzip file into memory.

    Raises:
      LimitError: it has too many bytes when unpacked, or too many members.
      EOFError, zlib.error: it is damaged.
    """
    most = limits.unpacked_limit(os.fstat(raw.fileno()).st_size, limits.ARCHIVE_UNPACKED_BYTES)
    data, members, stream, is_whole = mmap.mmap(-1, most), 0, zlib.decompressobj(wbits=31), False
    left = raw.read(BLOCK_BYTES)
    while left:
        block = stream.decompress(left, BLOCK_BYTES)
        limits.check_limit(data.tell() + len(block), most, 'bytes when unpacked')
        data.write(block)
        left, is_whole = stream.unconsumed_tail, stream.eof
        if is_whole:
            members += 1
            limits.check_limit(members, limits.MEMBERS, 'members in its gzip')
            left, stream = stream.unused_data, zlib.decompressobj(wbits=31)
        left = left or raw.read(BLOCK_BYTES)
        while is_whole and left and not (left := left.lstrip(b'\0')):  # padding
            left = raw.read(BLOCK_BYTES)
    if not is_whole:
        raise EOFError('it is cut short')
    data.resize(max(1, data.tell()))
    data.seek(0)
    return data
