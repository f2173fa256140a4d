"""Faces whose places are known already: pictures that are faces, or boxes in a CSV file."""

import csv
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

from fer_jax.data.imaging.faces import Face
from fer_jax.errors import UserError
from fer_jax.inference.media import Frame
from fer_jax.utils import bounded_files
from fer_jax.utils.limits import LimitError

GIVEN = 'given'
BOX = ('x', 'y', 'width', 'height')


def take_whole_pictures(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Yields each frame with one face whose box is the whole picture; frames without an image are left unchanged."""
    for frame in frames:
        if frame.image is None:
            yield frame
        else:
            height, width = frame.image.shape[:2]
            yield frame._replace(faces=[Face((0.0, 0.0, float(width), float(height)), 1.0, None)])


class Boxes:
    """Face boxes by picture, read from a CSV file with the columns file, x, y, width and height.

    Two further columns are optional: `frame`, the index of a video frame from 0 (default 0), and `detector`, a
    confidence (default 1). Other columns are ignored.
    """

    def __init__(self, path: Path):
        """Reads the CSV file.

        Args:
          path: the file.

        Raises:
          UserError: the file cannot be read, lacks a column, or has a row that is not a valid box.
        """
        self._path = path
        self._faces: dict[tuple[str, int], list[Face]] = {}
        try:
            with bounded_files.open_lines(path, errors='surrogateescape') as lines:
                rows = bounded_files.read_rows(lines)
                missing = [name for name in ('file', *BOX) if name not in (rows.fieldnames or ())]
                if missing:
                    message = f'--faces={str(path)!r} has no column {missing[0]!r}; give file,x,y,width,height'
                    raise UserError(message)
                for row in rows:
                    self._add(row, rows.line_num)
        except (OSError, csv.Error, LimitError) as error:
            reason = getattr(error, 'strerror', None) or error
            raise UserError(f'--faces={str(path)!r} cannot be read ({reason}); give "given" or a CSV file') from None

    def _add(self, row: dict[str, str], line: int) -> None:
        if not row['file'] or not any(row[name] for name in BOX):
            return  # a picture without a face
        try:
            box = tuple(float(row[name]) for name in BOX)
            frame = int(row.get('frame') or 0)
            confidence = float(row.get('detector') or 1)
            if not all(map(math.isfinite, (*box, confidence))) or box[2] <= 0 or box[3] <= 0:
                raise ValueError
        except (TypeError, ValueError):
            cells = ','.join(str(row[name]) for name in BOX)
            message = f'--faces={str(self._path)!r}, line {line}: {cells} is no box; give x,y,width,height in pixels'
            raise UserError(message) from None
        self._faces.setdefault((row['file'], frame), []).append(Face(box, confidence, None))  # type: ignore[arg-type]

    def check(self, names: Iterable[str]) -> None:
        """Checks that the boxes, if there are any, include one for these files.

        Raises:
          UserError: the table has boxes, but none for these files.
        """
        files = {file for file, _ in self._faces}
        if files and not any(files.intersection(self._keys(name)) for name in names):
            message = f'--faces={str(self._path)!r} has no boxes of the pictures given, but of {sorted(files)[0]!r}'
            raise UserError(f'{message}; name files as they are given, or as they lie beside the table')

    def _keys(self, name: str) -> list[str]:
        """Returns how a file may be called in the table: as it is given, relative to the table, or by its own name."""
        path = Path(name)
        keys = [name, path.name]
        if path.resolve().is_relative_to(self._path.resolve().parent):
            keys.insert(1, path.resolve().relative_to(self._path.resolve().parent).as_posix())
        return keys

    def add_faces(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Yields each frame with its boxes from the table; a frame without boxes gets an empty list of faces."""
        for frame in frames:
            keys = ((key, frame.number) for key in self._keys(frame.source.name))
            yield frame._replace(faces=next((self._faces[key] for key in keys if key in self._faces), []))
