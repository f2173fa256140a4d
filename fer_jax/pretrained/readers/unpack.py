"""Takes a file of weights out of a gzip, a zip or a .keras archive around it."""

import contextlib
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from fer_jax.errors import UserError
from fer_jax.pretrained.readers.foreign import NUMPY_ARCHIVE, SUFFIX_KINDS, SUFFIXES, describe_foreign
from fer_jax.utils import bounded_files, limits
from fer_jax.utils.limits import LimitError, check_limit, unpacked_limit

GZIP = b'\x1f\x8b'
ZIP = b'PK\3\4'
CHUNK_BYTES = 1 << 20
KERAS_WEIGHTS = 'model.weights.h5'


@contextlib.contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Yields the file of weights that is packed in `path`, or `path` itself; an unpacked copy is removed at the end.

    Raises:
      UserError: it is a file of another kind, or above a limit, or the archive holds several files or none.
    """
    if not (path.is_file() or path.is_dir()):  # a folder is named below, with its files
        raise UserError(f'{path} is not a file; give a file of weights')
    with tempfile.TemporaryDirectory(prefix='fer_jax_weights_') as folder:
        inner, number = path, 0
        while (packed := _unpack_once(path, inner, Path(folder) / str(number))) is not None:
            inner, number = packed, number + 1
            if number > limits.UNPACKINGS:
                raise UserError(
                    f'{path} is packed more than {limits.UNPACKINGS} times; unpack it and give the file in it'
                )
        yield inner


def _unpack_once(path: Path, inner: Path, folder: Path) -> Path | None:
    """The file that `inner`, which was packed in `path`, holds; None where it is no archive."""
    if kind := describe_foreign(inner):
        raise UserError(f'{path} is {kind}' if inner == path else f'{path} holds {inner.name}, which is {kind}')
    with inner.open('rb') as file:
        head = file.read(4)
    try:
        member = _inner_member(path, inner) if head == ZIP else ''
        if not member and not head.startswith(GZIP):
            return None
        folder.mkdir()
        if member:
            return _unpack_member(inner, member, folder / PurePosixPath(member).name)
        return _unpack_gzip(inner, folder / inner.name.removesuffix('.gz'))
    except LimitError as error:
        raise UserError(f'{path} is too large: {error}') from error
    except (OSError, EOFError, ValueError, NotImplementedError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        raise UserError(f'{path} cannot be unpacked ({type(error).__name__}: {error}); fetch it again') from error


def list_members(path: Path) -> list[zipfile.ZipInfo]:
    """Lists the members of a zip archive.

    Raises:
      LimitError: it holds too many.
    """
    with path.open('rb') as file:
        return bounded_files.list_members(file)


def _inner_member(path: Path, archive: Path) -> str:
    """The one file of weights in a zip archive; '' where the archive is torch's own."""
    members = [member.filename for member in list_members(archive)]
    if any(PurePosixPath(member).name == 'data.pkl' for member in members):
        return ''
    if KERAS_WEIGHTS in members:
        return KERAS_WEIGHTS
    if 'serialized_exported_program.json' in {PurePosixPath(member).name for member in members} or any(
        '/data/weights/' in f'/{member}' for member in members
    ):
        raise UserError(f'{path} is {SUFFIX_KINDS[".pt2"]}')
    files = [member for member in members if member.endswith((*SUFFIXES, '.gz')) and '__MACOSX' not in member]
    if len(files) == 1:
        return files[0]
    if members and all(member.endswith('.npy') for member in members):
        raise UserError(f'{path} is {NUMPY_ARCHIVE}')
    listed = ', '.join(files[:5]) or ', '.join(members[:5]) or 'nothing'
    raise UserError(f'{path} is a zip archive of {listed}; unpack it and give one file of weights')


def _unpack_gzip(path: Path, target: Path) -> Path:
    most = unpacked_limit(path.stat().st_size)
    stream = zlib.decompressobj(wbits=31)
    written = 0
    with path.open('rb') as file, target.open('wb') as output:
        while data := file.read(CHUNK_BYTES):
            while data and not stream.eof:
                part = stream.decompress(data, CHUNK_BYTES)
                written += len(part)
                check_limit(written, most, 'bytes or more when it is unpacked')
                output.write(part)
                data = stream.unconsumed_tail
    if not stream.eof:
        raise EOFError('its end is missing')
    return target


def _unpack_member(path: Path, member: str, target: Path) -> Path:
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(member)
        most = unpacked_limit(path.stat().st_size)
        check_limit(info.file_size, most, 'bytes when it is unpacked')
        with archive.open(info) as source, target.open('wb') as output:
            left = info.file_size
            while left and (data := source.read(min(CHUNK_BYTES, left))):
                output.write(data)
                left -= len(data)
    return target
