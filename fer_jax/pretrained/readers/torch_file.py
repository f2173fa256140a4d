"""Reads torch's files and other pickles of arrays without torch, and executes nothing of them.

Formats: torch.save's zip archive (since 1.6), TorchScript's, the older stream of pickles followed by raw storages, and
a plain pickle.
"""

import functools
import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from reprlib import repr as short
from typing import Any, BinaryIO

import numpy as np

from fer_jax.errors import UserError
from fer_jax.pretrained.readers.entries import Entries, flatten
from fer_jax.pretrained.readers.pickle_machine import PickleMachine, Placeholder, Symbol
from fer_jax.pretrained.readers.pickled_arrays import BUILDERS, STORAGES, Storage
from fer_jax.pretrained.readers.unpack import list_members
from fer_jax.utils import limits
from fer_jax.utils.limits import check_limit

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
TORCH_LEGACY = pickle.dumps(LEGACY_MAGIC, protocol=2)  # the first pickle of torch.save before 1.6
WRAPPERS = ('module.', '_orig_mod.', 'model.')
NEGLIGIBLE = 100  # a dictionary of so many times fewer tensors than the largest holds statistics, no network
FROZEN_SCRIPT = (
    'it is a TorchScript archive whose parameters have no names, as torch.jit.freeze makes it; give the '
    'state_dict() of the model that it was made from'
)
STORAGE_MODULES = ('torch', 'torch.cuda', 'torch.storage')


class Bounded:
    """A file that reads at most the bytes it has left, whatever its content claims."""

    def __init__(self, file: BinaryIO, size: int):
        self.file, self.size = file, size

    def read(self, count: int) -> bytes:
        return self.file.read(max(0, min(count, self.size - self.file.tell())))

    def readline(self) -> bytes:
        return self.file.readline()


def read_entries(path: Path) -> Entries:
    """Reads all tensors and arrays of a .pth, .pt, .bin, .pkl or .safetensors file.

    Raises:
      UserError: the file is missing, damaged or above a limit, or holds no tensors.
    """
    if not path.is_file():
        raise UserError(f'{path} is not a file; give a .pth, .pt, .safetensors or .pkl of weights')
    try:
        size = path.stat().st_size
        check_limit(size, limits.FILE_BYTES, 'bytes')
        with path.open('rb') as file:
            head = file.read(max(9, len(TORCH_LEGACY)))
            file.seek(0)
            if head[8:9] == b'{' and not head.startswith(b'PK'):  # after the length of its header, which is JSON
                from safetensors.numpy import load_file

                return flatten(load_file(path))
            if zipfile.is_zipfile(path):
                return _read_zip(path)
            if head.startswith(TORCH_LEGACY):
                return flatten(read_legacy(file, size)[0])
            return flatten(PickleMachine(Bounded(file, size), TORCH_BUILDERS).load())
    except UserError:
        raise
    except Exception as error:  # a hostile file can make its reader raise anything
        kind = '' if isinstance(error, ValueError) else f'{type(error).__name__}: '
        raise UserError(f'{path} cannot be read as weights ({kind}{str(error)[:300]})') from error


def read_torch(path: Path, key: str = '') -> dict[str, np.ndarray]:
    """Reads the state dict in `path`: name -> read-only array.

    Wrapper prefixes that all of its names share ('module.', '_orig_mod.', 'model.') are dropped. Nothing in the file is
    executed.

    Args:
      key: name of the state dict, where the file holds several, such as 'state_dict_ema'.

    Raises:
      UserError: the file is missing, damaged, holds no tensors or several state dicts.
    """
    entries = read_entries(path)
    most = max(entries.containers.values())
    state_dicts = [name for name, count in entries.containers.items() if NEGLIGIBLE * count > most]
    matching = [name for name in state_dicts if f'{name}.'.startswith(f'{key}.' if key else '')]
    if len(matching) != 1:
        raise UserError(f'{path} holds state dicts under {", ".join(map(repr, state_dicts))}; choose one by its key')
    prefix = f'{matching[0]}.' if matching[0] else ''
    arrays = {name.removeprefix(prefix): array for name, array in entries.arrays.items() if name.startswith(prefix)}
    while wrapper := next((word for word in WRAPPERS if all(name.startswith(word) for name in arrays)), ''):
        arrays = {name.removeprefix(wrapper): array for name, array in arrays.items()}
    return arrays


def _storage_loader(make: Callable[[str, Any, int], Storage]) -> Callable[[Any], Any]:
    """Returns what makes storages of persistent ids: ('storage', type, key, device, count)."""

    def load(pid: Any) -> Any:
        if type(pid) is tuple and len(pid) == 4 and pid[0] == 'module':  # a class with its source, in the old format
            return pid[1]
        if type(pid) is not tuple or not 5 <= len(pid) <= 6:
            raise ValueError(f'an unknown kind of storage: {short(pid)}')
        kind, symbol, key, _, count, *view = pid
        if kind != 'storage' or type(key) is not str or type(count) is not int or count < 0 or any(view):
            raise ValueError(f'an unknown kind of storage: {short(pid)}')
        known = isinstance(symbol, Symbol) and symbol.module in STORAGE_MODULES and symbol.name in STORAGES
        return make(key, STORAGES[symbol.name], count) if known else Placeholder(symbol)

    return load


def _read_zip(path: Path) -> Entries:
    size = path.stat().st_size
    names = [member.filename for member in list_members(path)]
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in names if name == 'data.pkl' or name.count('/') == 1 and name.endswith('/data.pkl')]
        if len(pickles) != 1:
            raise ValueError('a zip archive without data.pkl')
        root = pickles[0].removesuffix('data.pkl')
        if f'{root}byteorder' in names and _read_member(archive, f'{root}byteorder', 10) != b'little':
            raise ValueError('it was written on a big-endian machine')
        # members that overlap would grow beyond the file
        own = [archive.getinfo(name) for name in names if name == pickles[0] or name.startswith(f'{root}data/')]
        check_limit(sum(info.file_size for info in own), limits.unpacked_limit(size), 'bytes when it is unpacked')
        if sum(info.compress_size for info in own) > size:
            raise ValueError('its members claim more bytes than the file has')
        kept: dict[str, Storage] = {}

        def storage(key: str, dtype: Any, count: int) -> Storage:
            if key not in kept:
                name = f'{root}data/{key}'
                read = functools.partial(_read_member, archive, name, count * dtype.itemsize)
                kept[key] = Storage(dtype, count, read)
            return kept[key]

        data = _read_member(archive, pickles[0], limits.unpacked_limit(size))
        empty = FROZEN_SCRIPT if f'{root}constants.pkl' in names else ''
        return flatten(PickleMachine(io.BytesIO(data), TORCH_BUILDERS, _storage_loader(storage)).load(), empty=empty)


def _read_member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """Returns a member's content, whose checksum is verified; one that unpacks to more than `most` bytes is refused."""
    info = archive.getinfo(name)
    if info.file_size > most:
        raise ValueError(f'its member {short(name)} has {info.file_size:,} bytes, expected {most:,} at most')
    with archive.open(info) as member:
        return member.read(info.file_size)


def read_legacy(file: Any, size: int, steps: int = 0) -> tuple[Any, int]:
    """Reads torch.save's format before 1.6.

    Args:
      steps: number of opcodes that the same file has used so far.

    Returns:
      (the content of the file, the new number of opcodes).
    """
    kept: dict[str, Storage] = {}
    bounded = Bounded(file, size)

    def storage(key: str, dtype: Any, count: int) -> Storage:
        return kept.setdefault(key, Storage(dtype, count))

    def load() -> Any:
        nonlocal steps
        machine = PickleMachine(bounded, TORCH_BUILDERS, _storage_loader(storage), steps)
        state, steps = machine.load(), machine.steps
        return state

    if load() != LEGACY_MAGIC:
        raise ValueError('it is not written by torch.save')
    load()  # protocol version
    load()  # sizes of the writer's C types; storages are always little-endian
    state = load()
    keys = load()
    if type(keys) is not list:
        raise ValueError('it has no list of storages')
    for key in keys:
        kind = kept[key]
        written = int.from_bytes(bounded.read(8), 'little')
        if written != kind.count:
            raise ValueError(f'storage {short(key)} has {written} elements, expected {kind.count}')
        raw = bounded.read(kind.count * kind.dtype.itemsize)
        kind.read = lambda raw=raw: raw
    return state, steps


def _load_from_bytes(machine: PickleMachine, data: Any) -> Any:
    """Stands for torch.storage._load_from_bytes, which plain pickle writes: a file of torch.save in a text of bytes."""
    machine.charge(len(data) // 256)
    loaded, machine.steps = read_legacy(io.BytesIO(data), len(data), machine.steps)
    return loaded


TORCH_BUILDERS = BUILDERS | {('torch.storage', '_load_from_bytes'): _load_from_bytes}
