"""Tensors of torch and arrays of numpy in a pickle, made by code of ours from what their pickle says.

numpy's own classes stay out: a pickle can set the flags of a dtype, and make numpy take numbers for pointers.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from reprlib import repr as short
from typing import Any

import ml_dtypes
import numpy as np

from fer_jax.pretrained.readers.pickle_machine import PickleMachine, Placeholder, Symbol
from fer_jax.utils import limits
from fer_jax.utils.limits import check_limit

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
    'UntypedStorage': np.dtype('u1'),
}
TYPES = {
    'float64': 'DoubleStorage',
    'float32': 'FloatStorage',
    'float16': 'HalfStorage',
    'bfloat16': 'BFloat16Storage',
    'int64': 'LongStorage',
    'int32': 'IntStorage',
    'uint8': 'ByteStorage',
    'bool': 'BoolStorage',
}
NUMBERS = re.compile('[fiu][1248]|b1')


@dataclass(repr=False)
class Storage:
    """The flat buffer of one or more tensors.

    Attributes:
      read: returns its bytes when a tensor needs them; the old format sets it after the pickle was read.
    """

    dtype: np.dtype
    count: int
    read: Callable[[], bytes] | None = None
    data: np.ndarray | None = None

    def numbers(self, dtype: np.dtype) -> np.ndarray:
        if self.data is None:
            if self.read is None:
                raise ValueError('a tensor without its storage')
            raw = self.read()
            if self.count * self.dtype.itemsize > len(raw):
                raise ValueError(f'a storage claims {self.count} elements, more than the file holds')
            self.data = np.frombuffer(raw, self.dtype, self.count)
        return self.data if dtype == self.dtype else self.data.view(dtype)


@dataclass(repr=False)
class Tensor:
    """A torch tensor, as a strided view of a storage."""

    storage: Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> np.ndarray:
        """Returns the view as a read-only array that shares the memory of the storage with its other views."""
        check_limit(len(self.shape), limits.DIMENSIONS, 'dimensions in a tensor')
        if any(type(number) is not int or number < 0 for number in (self.offset, *self.shape, *self.strides)):
            raise ValueError(f'a tensor of shape {short(self.shape)}, strides {short(self.strides)}')
        data = self.storage.numbers(self.dtype)
        if math.prod(self.shape) == 0:
            return np.empty(self.shape, data.dtype)
        last = self.offset + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        if last >= len(data) or math.prod(self.shape) > len(data):
            raise ValueError(f'a tensor of shape {short(self.shape)} that reaches beyond its storage of {len(data)}')
        steps = tuple(stride * data.itemsize for stride in self.strides)
        return np.lib.stride_tricks.as_strided(data[self.offset :], self.shape, steps, writeable=False)


class Dtype:
    """A stand-in for numpy.dtype: a kind and a size, and a byte order."""

    def __init__(self, text: Any):
        self.text, self.order = text, '='

    def set_state(self, _: PickleMachine, state: Any) -> None:
        self.order = state[1]

    def numpy(self) -> np.dtype:
        if type(self.text) is not str or not NUMBERS.fullmatch(self.text) or self.order not in ('<', '>', '=', '|'):
            raise ValueError(f'an array of {short(self.text)}, which are no numbers')
        return np.dtype(self.order + self.text)


class Array:
    """A stand-in for numpy.ndarray."""

    def __init__(self, shape: Any = (), dtype: Any = None, columns_first: Any = False, data: Any = b''):
        self.shape, self.dtype, self.columns_first, self.data = shape, dtype, columns_first, data

    def set_state(self, machine: PickleMachine, state: Any) -> None:
        _, self.shape, self.dtype, self.columns_first, data = state
        self.data = _encode(machine, data) if type(data) is str else data

    @property
    def holds_numbers(self) -> bool:
        """Returns whether the dtype is numeric, in contrast to text, dates or objects."""
        return (
            isinstance(self.dtype, Dtype) and type(self.dtype.text) is str and bool(NUMBERS.fullmatch(self.dtype.text))
        )

    def array(self) -> np.ndarray:
        """Returns the numbers, read-only where the pickle's bytes are."""
        if (
            type(self.shape) is not tuple
            or not isinstance(self.dtype, Dtype)
            or type(self.data) not in (bytes, bytearray)
        ):
            raise ValueError('an array that holds no numbers')
        check_limit(len(self.shape), limits.DIMENSIONS, 'dimensions in an array')
        flat = np.frombuffer(self.data, self.dtype.numpy())
        if any(type(side) is not int or side < 0 for side in self.shape) or math.prod(self.shape) != flat.size:
            raise ValueError(f'{flat.size} numbers are not {short(self.shape)}')
        return flat.reshape(self.shape, order='F' if self.columns_first else 'C')


def _rebuild_tensor(_: PickleMachine, storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> Any:
    """torch's _rebuild_tensor, _v2 and _v3; a tensor of numbers that are not read here stays a placeholder."""
    if isinstance(storage, Placeholder):
        return storage
    if not isinstance(storage, Storage) or type(shape) is not tuple or type(strides) is not tuple:
        raise ValueError('a tensor without a storage')
    named = rest[2] if len(rest) > 2 else None  # of version 3
    dtype = STORAGES.get(TYPES.get(named.name, '')) if isinstance(named, Symbol) else storage.dtype
    return Placeholder(named) if dtype is None else Tensor(storage, dtype, offset, shape, strides)


def _rebuild_parameter(_: PickleMachine, tensor: Any, *rest: Any) -> Any:
    return tensor


def _rebuild_from_type(machine: PickleMachine, function: Any, kind: Any, arguments: Any, *_: Any) -> Any:
    return machine.call(function, arguments)


def _reconstruct_object(_: PickleMachine, kind: Any, *rest: Any) -> Placeholder:
    return Placeholder(kind)


def _encode(machine: PickleMachine, text: Any, encoding: Any = 'latin1') -> bytes:
    machine.charge(len(text) // 256)  # so that what is copied from one text again and again stays below a gigabyte
    return text.encode('latin1')


def _make_dictionary(machine: PickleMachine, pairs: Any = ()) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    machine.charge(len(pairs))
    for key, value in pairs.items() if type(pairs) is dict else pairs:
        machine.set_items(made, [key, value])
    return made


def _keep_list(_: PickleMachine, items: Any = ()) -> Any:
    return items


# What pickles of tensors and arrays name, written by Python 2 or 3 and any torch or numpy
BUILDERS: dict[tuple[str, str], Callable[..., Any]] = {
    ('collections', 'OrderedDict'): _make_dictionary,
    **{(module, 'set'): _keep_list for module in ('builtins', '__builtin__')},
    **{(module, '_reconstructor'): _reconstruct_object for module in ('copyreg', 'copy_reg')},
    **{('torch._utils', f'_rebuild_tensor{version}'): _rebuild_tensor for version in ('', '_v2', '_v3')},
    **{('torch._utils', f'_rebuild_parameter{kind}'): _rebuild_parameter for kind in ('', '_with_state')},
    ('torch._utils', '_rebuild_device_tensor_from_numpy'): _rebuild_parameter,
    ('torch._tensor', '_rebuild_from_type_v2'): _rebuild_from_type,
    ('torch.nn.parameter', 'Parameter'): _rebuild_parameter,
    **{(f'numpy.{core}.multiarray', '_reconstruct'): lambda machine, *_: Array() for core in ('core', '_core')},
    **{
        (f'numpy.{core}.numeric', '_frombuffer'): lambda machine, data, dtype, shape, order: Array(
            shape, dtype, order == 'F', data
        )
        for core in ('core', '_core')
    },
    ('numpy', 'dtype'): lambda machine, text, *_: Dtype(text),
    ('_codecs', 'encode'): _encode,
}
