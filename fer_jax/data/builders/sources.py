"""What was downloaded, as names and bytes: a folder or a zip, of which nothing is unpacked."""

import csv
import io
import os
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fer_jax.errors import UserError

LARGEST = 1 << 28  # bytes of a member


@dataclass(frozen=True)
class Source:
    """Files below one root.

    Attributes:
      path: the folder or archive.
      names: POSIX paths below it, sorted.
      read: name -> bytes.
    """

    path: Path
    names: tuple[str, ...]
    read: Callable[[str], bytes]

    def ending(self, *endings: str) -> list[str]:
        """Names that end so, compared by whole path components and without regard to case."""
        wanted = [tuple(PurePosixPath(ending.lower()).parts) for ending in endings]
        found = [(name, PurePosixPath(name.lower()).parts) for name in self.names]
        return [name for name, parts in found if any(parts[-len(end) :] == end for end in wanted)]

    def one(self, *endings: str) -> str | None:
        """The first of `ending`, the shortest path first; None where there is none."""
        return min(self.ending(*endings), key=lambda name: (name.count('/'), name), default=None)

    def images(self) -> list[str]:
        suffixes = ('.jpg', '.jpeg', '.png', '.tif', '.tiff', '.bmp')
        return [name for name in self.names if name.lower().endswith(suffixes)]

    def text(self, name: str) -> str:
        """A text file; a BOM and CRLF do not matter.

        Raises:
          UserError: it is no UTF-8.
        """
        try:
            return self.read(name).decode('utf-8-sig')
        except UnicodeDecodeError as error:
            raise UserError(f'{self.path}: {name} is no UTF-8 text ({error}); fetch it again') from None

    def table(self, name: str, columns: Iterable[str]) -> list[dict[str, str]]:
        """The rows of a csv.

        Raises:
          UserError: a column is missing, or a row has another number of cells; its number is named.
        """
        rows = list(csv.reader(io.StringIO(self.text(name), newline='')))
        head = [cell.strip() for cell in rows[0]] if rows else []
        missing = [column for column in columns if column not in head]
        if missing:
            raise UserError(
                f'{self.path}: {name} has no column {", ".join(missing)}; it has {", ".join(head) or "none"}'
            )
        for number, row in enumerate(rows[1:], 1):
            if row and len(row) != len(head):
                raise self.wrong(name, number, f'{len(row)} cells, expected {len(head)}')
        return [dict(zip(head, row, strict=True)) for row in rows[1:] if row]

    def wrong(self, name: str, number: int, what: str) -> UserError:
        return UserError(f'{self.path}: {name}, row {number}: {what}; mend or remove the row')

    def number(self, name: str, row: int, text: str, low: int, high: int) -> int:
        """A whole number from `low` to `high`, from row `row` of the file `name`."""
        if not text.strip().lstrip('-').isdigit() or not low <= int(text) <= high:
            raise self.wrong(name, row, f'{text.strip()!r}, expected a whole number from {low} to {high}')
        return int(text)

    def lack(self, wanted: Iterable[str], where: str) -> tuple[str, ...]:
        """A note on listed images that are not there.

        Raises:
          UserError: none of them is.
        """
        wanted = list(wanted)
        known = set(self.names)
        missing = [name for name in wanted if name not in known]
        if wanted and len(missing) == len(wanted):
            raise UserError(
                f'{self.path} has none of the {len(wanted):,} images that {where} lists, such as {missing[0]}'
            )
        return (f'{len(missing):,} images that {where} lists are missing, such as {missing[0]}',) if missing else ()


def open_source(path: Path) -> Source:
    """A folder or a zip.

    Raises:
      UserError: it is neither, or the zip is damaged.
    """
    if path.is_dir():
        names = []
        for folder, inner, files in os.walk(path):
            inner[:] = [name for name in inner if not name.startswith(('.', '__MACOSX'))]
            names += [(Path(folder) / name).relative_to(path).as_posix() for name in files if not name.startswith('.')]
        return Source(path, tuple(sorted(names)), lambda name: (path / name).read_bytes())
    if not path.is_file():
        raise UserError(f'--source={str(path)!r} does not exist; give the folder or zip that was downloaded')
    if not zipfile.is_zipfile(path):
        raise UserError(f'--source={str(path)!r} is neither a folder nor a zip; unpack it first')
    archive = zipfile.ZipFile(path)

    def read(name: str) -> bytes:
        if archive.getinfo(name).file_size > LARGEST:
            raise UserError(f'{path}: {name} would take {archive.getinfo(name).file_size:,} bytes; it is no image')
        try:
            return archive.read(name)
        except (zipfile.BadZipFile, OSError, EOFError) as error:
            raise UserError(f'{path}: {name} cannot be read ({error}); fetch the archive again') from error

    names = [info.filename for info in archive.infolist() if not info.is_dir() and '__MACOSX' not in info.filename]
    return Source(path, tuple(sorted(names)), read)
