"""Reads torch's files without torch: a pickle that may build tensors and dictionaries and nothing else.

Formats: torch.save's zip archive (since 1.6) and the older stream of pickles followed by raw storages.
"""

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short
from typing import Any

import ml_dtypes
import numpy as np

from fer_jax.errors import UserError

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
STORAGES = {
    'DoubleStorage': np.dtype('<f8'),
    'FloatStorage': np.dtype('<f4'),
    'HalfStorage': np.dtype('<f2'),
    'BFloat16Storage': np.dtype(ml_dtypes.bfloat16),
    'LongStorage': np.dtype('<i8'),
    'IntStorage': np.dtype('<i4'),
    'ShortStorage': np.dtype('<i2'),
    'CharStorage': np.dtype('i1'),
    'ByteStorage': np.dtype('u1'),
    'BoolStorage': np.dtype('?'),
}


@dataclass
class Storage:
    """A flat buffer, known by its key; the old format fills it after the pickle was read."""

    dtype: np.dtype
    count: int
    data: np.ndarray | None = None


@dataclass
class Tensor:
    """A view of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> np.ndarray:
        """The view, read-only: a file of many views of one storage costs no more than the storage."""
        data = self.storage.data
        if data is None:
            raise ValueError('a tensor without its storage')
        if any(type(number) is not int or number < 0 for number in (self.offset, *self.shape, *self.strides)):
            raise ValueError(f'a tensor of shape {short(self.shape)}, strides {short(self.strides)}')
        if math.prod(self.shape) == 0:
            return np.empty(self.shape, data.dtype)
        last = self.offset + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        if last >= len(data) or math.prod(self.shape) > len(data):
            raise ValueError(f'a tensor of shape {short(self.shape)} that reaches beyond its storage of {len(data)}')
        steps = tuple(stride * data.itemsize for stride in self.strides)
        return np.lib.stride_tricks.as_strided(data[self.offset :], self.shape, steps, writeable=False)


def _rebuild_tensor(storage: Any, offset: int, shape: tuple, strides: tuple, *_: Any) -> Tensor:
    if not isinstance(storage, Storage):
        raise pickle.UnpicklingError('a tensor without a storage')
    return Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor: Tensor, *_: Any) -> Tensor:
    return tensor


ALLOWED: dict[tuple[str, str], Any] = {
    ('collections', 'OrderedDict'): OrderedDict,
    ('torch._utils', '_rebuild_tensor_v2'): _rebuild_tensor,
    ('torch._utils', '_rebuild_tensor'): _rebuild_tensor,
    ('torch._utils', '_rebuild_parameter'): _rebuild_parameter,
    **{('torch', name): name for name in STORAGES},
}


def _drop_state(unpickler: Any) -> None:
    """BUILD without effect: it would set attributes of whatever object precedes it, ours included."""
    unpickler.stack.pop()


# Python's own unpickler, not the one in C: that one keeps its memo in an array, of which a file of 20 bytes can ask
# for 64 GB, and does not let BUILD be replaced.
class RestrictedUnpickler(pickle._Unpickler):
    """Resolves the names of `ALLOWED` and storages, and refuses every other."""

    dispatch = pickle._Unpickler.dispatch | {pickle.BUILD[0]: _drop_state}

    def __init__(self, file: Any, storage: Callable[[np.dtype, str, int], Storage]):
        super().__init__(file, encoding='utf-8')
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        try:
            return ALLOWED[module, name]
        except KeyError:
            wanted = f'{module}.{name}'[:100]
            raise pickle.UnpicklingError(f'it asks for {wanted}, which a state dict does not need') from None

    def persistent_load(self, pid: Any) -> Storage:
        kind, dtype, key, _, count, *view = pid
        if kind != 'storage' or type(key) is not str or type(count) is not int or count < 0 or any(view):
            raise pickle.UnpicklingError(f'an unknown kind of storage: {short(pid)}')
        return self._storage(STORAGES[dtype], key, count)


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """The state dict in `path`: name -> read-only array.

    A state dict under the key 'state_dict' or 'model' is found, and a prefix 'module.' dropped. Nothing in the file is
    executed, and nothing larger than the file is allocated for its storages.

    Raises:
      UserError: the file is missing, damaged, or holds anything but tensors.
    """
    if not path.is_file():
        raise UserError(f'{path} is not a file; give a .pth, .pt or .safetensors of weights')
    try:
        with path.open('rb') as file:
            beginning = file.read(9)
        if beginning[8:] == b'{':  # after the length of its header, which is JSON
            from safetensors.numpy import load_file

            return _without_prefix(load_file(path))
        found = _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)
        return {name: tensor.array() for name, tensor in _state_dict(found).items()}
    except UserError:
        raise
    except Exception as error:  # a hostile file can make the unpickler raise anything
        raise UserError(f'{path} cannot be read as weights ({type(error).__name__}: {error})') from error


def _state_dict(found: Any) -> dict[str, Tensor]:
    for key in ('state_dict', 'model'):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not found:
        raise ValueError('it holds no state dict')
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ValueError(f'entry {short(name)} is no tensor')
    return _without_prefix(found)


def _without_prefix(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Names without the 'module.' of torch.nn.DataParallel."""
    stripped = {name.removeprefix('module.'): value for name, value in entries.items()}
    if len(stripped) < len(entries):
        raise ValueError("it holds entries twice, with the prefix 'module.' and without")
    return stripped


def _read_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        # torch never compresses; an entry that does, or entries that overlap, would grow beyond the file
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError('its entries are compressed, as torch never writes them')
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError('its entries claim more bytes than the file has')
        pickles = [entry.filename for entry in entries if entry.filename.endswith('data.pkl')]
        if len(pickles) != 1:
            raise ValueError('a zip archive without data.pkl')
        root = pickles[0].removesuffix('data.pkl')
        if f'{root}byteorder' in archive.namelist() and archive.read(f'{root}byteorder') != b'little':
            raise ValueError('it was written on a big-endian machine')
        kept: dict[str, Storage] = {}

        def storage(dtype: np.dtype, key: str, count: int) -> Storage:
            if key not in kept:
                raw = archive.read(f'{root}data/{key}')
                if count * dtype.itemsize > len(raw):
                    raise ValueError(f'storage {short(key)} claims {count} elements, more than the file holds')
                kept[key] = Storage(dtype, count, np.frombuffer(raw, dtype, count))
            return kept[key]

        return RestrictedUnpickler(io.BytesIO(archive.read(pickles[0])), storage).load()


def _read_legacy(path: Path) -> Any:
    size = path.stat().st_size
    kept: dict[str, Storage] = {}

    def storage(dtype: np.dtype, key: str, count: int) -> Storage:
        return kept.setdefault(key, Storage(dtype, count))

    with path.open('rb') as file:
        if RestrictedUnpickler(file, storage).load() != LEGACY_MAGIC:
            raise ValueError('it is not written by torch.save')
        RestrictedUnpickler(file, storage).load()  # protocol version
        RestrictedUnpickler(file, storage).load()  # sizes of the writer's C types; storages are always little-endian
        found = RestrictedUnpickler(file, storage).load()
        for key in RestrictedUnpickler(file, storage).load():
            one = kept[key]
            written = int.from_bytes(file.read(8), 'little')
            if written != one.count:
                raise ValueError(f'storage {short(key)} has {written} elements, expected {one.count}')
            raw = file.read(min(one.count * one.dtype.itemsize, size - file.tell()))
            one.data = np.frombuffer(raw, one.dtype, one.count)
    return found
