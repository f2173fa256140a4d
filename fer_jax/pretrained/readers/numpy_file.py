"""Reads a pickled dictionary of numpy arrays, as VGGFace2's networks are published, and nothing else in a pickle.

numpy's own classes stay out: a pickle can set the flags of a dtype, and make numpy take numbers for pointers.
"""

import io
import math
import pickle
import re
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.errors import UserError

NUMBERS = re.compile('[fiu][1248]')


class Dtype:
    """Stands for numpy.dtype: a kind and a size, and a byte order."""

    def __init__(self, text: str, *_: Any):
        self.text, self.order = text, '='

    def __setstate__(self, state: Sequence[Any]) -> None:
        self.order = state[1]

    def numpy(self) -> np.dtype:
        if not NUMBERS.fullmatch(self.text) or self.order not in '<>=|':
            raise ValueError(f'{self.order}{self.text} are no numbers')
        return np.dtype(self.order + self.text)


class Array:
    """Stands for numpy.ndarray: what its state says."""

    def __init__(self, *_: Any):
        self.state: Sequence[Any] = ()

    def __setstate__(self, state: Sequence[Any]) -> None:
        _, *self.state = state

    def numpy(self) -> np.ndarray:
        shape, dtype, columns_first, data = self.state
        numbers = dtype.numpy()
        flat = np.frombuffer(data.encode('latin1') if isinstance(data, str) else bytes(data), numbers)
        if any(type(side) is not int or side < 0 for side in shape) or math.prod(shape) != flat.size:
            raise ValueError(f'{flat.size} numbers are not {shape}')
        return flat.reshape(shape, order='F' if columns_first else 'C')


def _from_buffer(data: Any, dtype: Dtype, shape: Sequence[int], order: str) -> Array:
    array = Array()
    array.state = shape, dtype, order == 'F', data
    return array


# What such a pickle names, written by Python 2 or 3 and any numpy
ALLOWED: dict[tuple[str, str], Any] = {
    **{(f'numpy.{core}.multiarray', '_reconstruct'): Array for core in ('core', '_core')},
    **{(f'numpy.{core}.numeric', '_frombuffer'): _from_buffer for core in ('core', '_core')},
    ('numpy', 'ndarray'): Array,
    ('numpy', 'dtype'): Dtype,
    ('_codecs', 'encode'): lambda text, encoding: text.encode('latin1'),
    ('collections', 'OrderedDict'): OrderedDict,
}


class _Unpickler(pickle._Unpickler):
    """In Python: that in C makes room for as many remembered objects as a pickle of ten bytes may name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f'it names {module}.{name}, which weights do not need')
        return ALLOWED[module, name]


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a pickled dictionary: name -> array of numbers.

    Raises:
      UserError: the file is missing or damaged, holds anything but a dictionary of arrays of numbers, or names a
        function that could do something.
    """
    if not path.is_file():
        raise UserError(f'{path} is not a file; give a .pkl of weights')
    try:
        found = _Unpickler(io.BytesIO(path.read_bytes()), encoding='latin1').load()
        if not isinstance(found, dict) or not found:
            raise ValueError('it is no dictionary')
        for name, value in found.items():
            if not isinstance(name, str) or not isinstance(value, Array):
                raise ValueError(f'{str(name)[:60]!r} is no array')
        return {name: value.numpy() for name, value in found.items()}
    except Exception as error:  # a damaged pickle can raise anything
        raise UserError(f'{path} cannot be read as weights ({type(error).__name__}: {error})') from error
