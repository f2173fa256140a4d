"""Files that are verified when they are read again: the sha256 of each stands in `SHA256SUMS` beside it.

`sha256sum -c SHA256SUMS` reads it too. A file that has no line there, as one of an earlier version, is read as it is.
"""

import contextlib
import hashlib
import json
import os
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.errors import UserError
from fer_jax.utils import bounded_files
from fer_jax.utils.atomic_files import atomic_write, write_text

SUMS = 'SHA256SUMS'
_LINE = re.compile(r'([0-9a-f]{64})  (.+)')


@contextlib.contextmanager
def checked_write(path: Path) -> Iterator[Path]:
    """Gives a path to write to, which takes the place of `path` at the end of the block, with its digest.

    Whenever the process is killed, `path` is the old file or the new one, and `SHA256SUMS` has the digest of it.
    """
    with atomic_write(path) as scratch:
        yield scratch
        digest = file_sha256(scratch)
        _set(path.parent, {path.name: [*read_sums(path.parent).get(path.name, []), digest]})
    _set(path.parent, {path.name: [digest]})


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file atomically, with its digest."""
    with checked_write(path) as scratch:
        scratch.write_text(json.dumps(value, indent=2) + '\n', encoding='utf-8')


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Reads a JSON object, after its digest is verified.

    Args:
      remedy: what the user can do if it is damaged.

    Raises:
      FileNotFoundError: there is no such file.
      UserError: it is damaged, or cannot be read.
    """
    check_file(path, remedy)
    try:
        value = bounded_files.read_json(path)
        if not isinstance(value, dict):
            raise ValueError('it is no JSON object')
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(f'{path} is damaged ({error}); {remedy}') from None
    return value


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name as one .npz file atomically, with its digest."""
    with checked_write(path) as scratch, scratch.open('wb') as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


@contextlib.contextmanager
def open_arrays(path: Path, remedy: str) -> Iterator[Mapping[str, np.ndarray]]:
    """Opens a .npz file for the block, after its digest is verified; an array is read when it is accessed.

    Args:
      remedy: what the user can do if it is damaged.

    Raises:
      FileNotFoundError: there is no such file.
      UserError: it is damaged, or lacks an array.
    """
    check_file(path, remedy)
    try:
        with bounded_files.open_arrays(path) as file:
            yield file
    except FileNotFoundError:
        raise
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f'{path} is damaged ({error}); {remedy}') from None


def check_file(path: Path, remedy: str) -> None:
    """Verifies a file against its digest, where it has one.

    Args:
      remedy: what the user can do if it is damaged.

    Raises:
      UserError: it has another digest.
    """
    if not is_unchanged(path):
        raise UserError(
            f'{path} is damaged: its content is not what was written, by its sha256 in {SUMS}; {remedy}. If you '
            f'changed it on purpose, delete {path.parent / SUMS}'
        )


def is_unchanged(path: Path) -> bool:
    """Returns whether a file has the digest that `SHA256SUMS` states; True where it states none.

    Raises:
      UserError: `SHA256SUMS` is damaged.
    """
    for _ in range(2):  # another process may replace both between the two looks
        expected = read_sums(path.parent).get(path.name)
        if expected is None:
            return True
        with contextlib.suppress(OSError):  # who opens it says what is wrong
            if file_sha256(path) in expected:
                return True
    return not path.exists()


def add_files(folder: Path, names: Iterable[str]) -> None:
    """Flushes finished files of `folder` to disk, and records their digests."""
    _set(folder, {name: [file_sha256(folder / name, flush=True)] for name in names})


def forget_file(path: Path) -> None:
    """Removes the digest of a file that is about to change or to be removed."""
    if path.name in read_sums(path.parent):
        _set(path.parent, {path.name: []})


def remove_file(path: Path) -> None:
    """Removes a file and its digest."""
    path.unlink(missing_ok=True)
    forget_file(path)


def read_sums(folder: Path) -> dict[str, list[str]]:
    """Reads `SHA256SUMS` of a folder; {} where there is none.

    Returns:
      {name: digests}: one, or while a file is replaced that of the old and of the new one.

    Raises:
      UserError: it is damaged, by the digest of itself in its last line.
    """
    path = folder / SUMS
    try:
        text = bounded_files.read_bytes(path).decode('utf-8', 'surrogateescape')
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f'{path} cannot be read ({error}); take it from a copy of that folder') from None
    lines = text.removesuffix('\n').split('\n')[:-1]
    matches = [_LINE.fullmatch(line) for line in lines]
    if text != _with_own_digest(lines) or not all(matches):
        raise UserError(
            f'{path} is damaged: the files beside it cannot be verified; take it from a copy of that folder, or delete '
            'it to use them as they are'
        )
    sums: dict[str, list[str]] = {}
    for match in filter(None, matches):
        sums.setdefault(match[2], []).append(match[1])
    return sums


def file_sha256(path: Path, *, flush: bool = False) -> str:
    """Computes the sha256 of a file.

    Args:
      flush: wait until the content is on the disk.
    """
    with path.open('rb') if flush else bounded_files.open_regular(path) as file:
        if flush:
            os.fsync(file.fileno())
        return hashlib.file_digest(file, 'sha256').hexdigest()


def _set(folder: Path, changed: Mapping[str, list[str]]) -> None:
    sums = {**read_sums(folder), **changed}
    write_text(folder / SUMS, _with_own_digest([f'{digest}  {name}' for name in sorted(sums) for digest in sums[name]]))


def _with_own_digest(lines: list[str]) -> str:
    text = ''.join(f'{line}\n' for line in lines)
    return f'{text}# {hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()} of the lines above\n'
