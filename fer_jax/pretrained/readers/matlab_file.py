"""Reads MatConvNet networks from MATLAB's .mat files (version 5), such as the original VGG-Face.

The format is MathWorks' "MAT-File Format". SciPy's reader is not used: it is compiled code that a damaged file crashes.
"""

import math
import mmap
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.errors import UserError
from fer_jax.utils import limits
from fer_jax.utils.limits import check_limit

MATLAB = b'MATLAB '  # of version 5 and of 7.3, which is HDF5 behind it
NUMBERS = {1: 'i1', 2: 'u1', 3: 'i2', 4: 'u2', 5: 'i4', 6: 'u4', 7: 'f4', 9: 'f8', 12: 'i8', 13: 'u8'}
TEXTS = {1: 'latin1', 2: 'latin1', 4: 'utf-16', 16: 'utf-8', 17: 'utf-16', 18: 'utf-32'}
MATRIX, COMPRESSED = 14, 15
CELL, STRUCT, CHAR = 1, 2, 4
NUMERIC = range(6, 16)
COMPLEX = 0x08


def read_matconvnet(path: Path) -> dict[str, np.ndarray]:
    """Reads the parameters of a `simplenn` network.

    Layers are a cell array of structs, in a variable `layers` or `net.layers`, with the name and either the fields
    `filters` and `biases` or a cell `weights` of the two.

    Returns:
      {`<layer>/filters`: [h, w, in, out], `<layer>/biases`: numbers}, float32.

    Raises:
      UserError: the file is missing, damaged, of version 7.3, or holds no such network.
    """
    if not path.is_file():
        raise UserError(f'{path} is not a file; give a .mat of a MatConvNet network')
    with path.open('rb') as file:
        head = file.read(128)
    if b'MATLAB 7.3' in head:
        raise UserError(f'{path} is a .mat of version 7.3; save it again with -v7')
    if not head.startswith(MATLAB):
        raise UserError(f'{path} is not a .mat file of version 5')
    try:
        check_limit(path.stat().st_size, limits.FILE_BYTES, 'bytes')
        held = dict(_variables(path, head[126:128]))
        entries: dict[str, np.ndarray] = {}
        for layer in held['layers'] if 'layers' in held else held['net'][0]['layers']:
            entries |= _layer(layer[0])
        if not entries:
            raise ValueError('its layers have no weights')
    except Exception as error:  # a damaged file can hold anything in the place of anything
        raise UserError(f'{path} cannot be read as a MatConvNet network ({type(error).__name__}: {error})') from error
    return entries


def _layer(layer: dict[str, Any]) -> dict[str, np.ndarray]:
    """The entries of one struct."""
    if 'weights' in layer and len(layer['weights']) == 2:
        filters, biases = layer['weights']
    elif 'filters' in layer:
        filters, biases = layer['filters'], layer['biases']
    else:
        return {}
    filters, biases = np.asarray(filters, np.float32), np.asarray(biases, np.float32)
    if not filters.size:
        return {}
    filters = filters.reshape(*filters.shape, *(1,) * (4 - filters.ndim))  # MATLAB drops trailing sizes of 1
    return {f'{layer["name"]}/filters': filters, f'{layer["name"]}/biases': biases.reshape(-1)}


def _variables(path: Path, order: bytes) -> Iterator[tuple[str, Any]]:
    """(name, value) of `layers` and `net`; nothing larger than the limit is unpacked."""
    with path.open('rb') as file:
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    elements = Elements(data[128:], {b'IM': '<', b'MI': '>'}[order])
    most, unpacked = limits.unpacked_limit(len(data)), 0
    while elements.left:
        kind, body = elements.next()
        if kind == COMPRESSED:
            body = memoryview(zlib.decompressobj().decompress(body, most - unpacked + 1))
            unpacked += len(body)
            check_limit(unpacked, most, 'bytes or more when it is unpacked')
            kind, body = elements.of(body).next()
        if kind == MATRIX:
            yield from elements.of(body).variable()


class Elements:
    """A reader of the consecutive elements in `data`: each has a tag, with a type and a size, and a body.

    Args:
      counts: the number of matrices that were read from the file so far, shared by all its elements.
    """

    def __init__(self, data: memoryview, order: str, counts: list[int] | None = None):
        self.data, self.order, self.left = data, order, len(data)
        self.counts = counts if counts is not None else [0]

    def of(self, data: memoryview) -> 'Elements':
        return Elements(data, self.order, self.counts)

    def next(self) -> tuple[int, memoryview]:
        """Reads the next element and returns its (type, body)."""
        rest = self.data[len(self.data) - self.left :]
        kind, size = np.frombuffer(rest[:8], f'{self.order}u4').tolist()
        begin, taken = 8, 8 + size
        if kind >> 16:  # the body of up to four bytes stands in the tag
            kind, size, begin, taken = kind & 0xFFFF, kind >> 16, 4, 8
        elif kind != COMPRESSED:
            taken = 8 + -(-size // 8) * 8
        if begin + size > len(rest):
            raise ValueError(f'an element claims {size} bytes, {len(rest) - begin} are left')
        self.left = max(0, self.left - taken)
        return kind, rest[begin : begin + size]

    def numbers(self) -> np.ndarray:
        """Reads the next element, which holds numbers, and returns a copy of them."""
        kind, body = self.next()
        return np.frombuffer(body, self.order + NUMBERS[kind]).copy()

    def text(self) -> str:
        kind, body = self.next()
        encoding = TEXTS[kind] + ({'<': '-le', '>': '-be'}[self.order] if kind in (4, 17, 18) else '')
        return bytes(body).decode(encoding)

    def header(self) -> tuple[int, int, list[int], str]:
        """Reads the (class, flags, shape, name) of a matrix."""
        self.counts[0] += 1
        check_limit(self.counts[0], limits.MEMBERS, 'matrices')
        flags, sides = int(self.numbers()[0]), self.numbers()
        check_limit(sides.size, limits.DIMENSIONS, 'dimensions in a matrix')
        shape, name = sides.tolist(), self.text()
        if any(side < 0 for side in shape) or len(shape) < 2:
            raise ValueError(f'a matrix of shape {shape}')
        return flags & 0xFF, flags >> 8 & 0xFF, shape, name

    def variable(self) -> Iterator[tuple[str, Any]]:
        """Yields the (name, value) of a matrix called 'layers' or 'net', and nothing for others."""
        kind, flags, shape, name = self.header()
        if name in ('layers', 'net'):
            yield name, self.value(kind, flags, shape)

    def value(self, kind: int, flags: int, shape: list[int]) -> Any:
        """Reads the content of a matrix.

        Returns:
          Numbers as an array, text as str, a cell as the list of its values, a struct as a list of dictionaries.
        """
        count = math.prod(shape)
        if kind in NUMERIC:
            if flags & COMPLEX:
                raise ValueError('complex numbers')
            return self.numbers().reshape(shape, order='F')
        if kind == CHAR:
            return self.text()
        if kind == CELL:
            self.check_count(count)
            return [self.member() for _ in range(count)]
        if kind == STRUCT:
            (length,) = self.numbers().tolist()
            packed = bytes(self.next()[1])
            check_limit(len(packed) // max(length, 1), limits.MEMBERS, 'fields in a struct')
            names = [
                packed[start : start + length].split(b'\0')[0].decode('latin1')
                for start in range(0, len(packed), length)
            ]
            self.check_count(count * max(len(names), 1))
            return [{name: self.member() for name in names} for _ in range(count)]
        raise ValueError(f'a matrix of class {kind}')

    def member(self) -> Any:
        kind, body = self.next()
        if kind != MATRIX:
            raise ValueError(f'an element of type {kind} in the place of a matrix')
        if not body:
            return np.empty((0, 0))
        inner = self.of(body)
        kind, flags, shape, _ = inner.header()
        return inner.value(kind, flags, shape)

    def check_count(self, count: int) -> None:
        if 8 * count > self.left:
            raise ValueError(f'{count} members, more than the file holds')
