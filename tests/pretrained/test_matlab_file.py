"""MatConvNet files, written by SciPy in the layouts that are published."""

import contextlib
import struct

import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.pretrained.readers.matlab_file import read_matconvnet
from tests.lazy import lazy

matlab = lazy('scipy.io')

DRAW = np.random.default_rng(0)
ENTRIES = {
    'conv1_1/filters': DRAW.normal(size=(3, 3, 3, 4)).astype(np.float32),
    'conv1_1/biases': DRAW.normal(size=4).astype(np.float32),
    'fc8/filters': DRAW.normal(size=(1, 1, 4, 1)).astype(np.float32),  # MATLAB keeps it as 1x1x4
    'fc8/biases': DRAW.normal(size=1).astype(np.float32),
}


def cells(layout):
    """Layers of weights, with a ReLU between, as a cell array of structs."""
    layers = []
    for name in ('conv1_1', 'relu1_1', 'fc8'):
        if name.startswith('relu'):
            layers.append({'type': 'relu', 'name': name})
            continue
        filters, biases = ENTRIES[f'{name}/filters'].squeeze(-1) if name == 'fc8' else ENTRIES[f'{name}/filters'], None
        biases = ENTRIES[f'{name}/biases'].reshape(1, -1)
        if layout == 'weights':
            both = np.empty((1, 2), object)
            both[0, 0], both[0, 1] = filters, biases
            layers.append({'type': 'conv', 'name': name, 'weights': both})
        else:
            layers.append({'type': 'conv', 'name': name, 'filters': filters, 'biases': biases})
    made = np.empty((1, len(layers)), object)
    made[0, :] = layers
    return made


@pytest.mark.parametrize('layout', ['weights', 'filters'])
@pytest.mark.parametrize('nested', [False, True])
@pytest.mark.parametrize('compressed', [False, True])
def test_reads_what_matconvnet_writes(tmp_path, layout, nested, compressed):
    path = tmp_path / 'net.mat'
    layers = cells(layout)
    held = {'net': {'layers': layers}} if nested else {'layers': layers, 'classes': {'name': 'x'}}
    matlab.savemat(path, held, do_compression=compressed)
    found = read_matconvnet(path)
    assert list(found) == list(ENTRIES)
    for name, value in ENTRIES.items():
        assert found[name].shape == value.shape and np.array_equal(found[name], value)


def test_what_is_no_such_network_is_one_message(tmp_path):
    path = tmp_path / 'net.mat'
    with pytest.raises(UserError, match='is not a file'):
        read_matconvnet(path)
    for content, said in ((b'MATLAB 7.3 MAT-file', 'version 7.3'), (b'\x89HDF', 'not a .mat'), (b'', 'not a .mat')):
        path.write_bytes(content)
        with pytest.raises(UserError, match=said):
            read_matconvnet(path)
    matlab.savemat(path, {'x': np.ones(3)})
    with pytest.raises(UserError, match='cannot be read as a MatConvNet network'):
        read_matconvnet(path)
    matlab.savemat(path, {'layers': cells('weights')})
    whole = path.read_bytes()
    for cut in range(1, len(whole), 97):
        path.write_bytes(whole[:cut])
        with pytest.raises(UserError):
            read_matconvnet(path)


@pytest.mark.parametrize('dtype', ['i1', 'u1', 'i2', 'u2', 'i4', 'u4', 'i8', 'u8', 'f4', 'f8'])
@pytest.mark.parametrize('order', '<>')
def test_numbers_of_every_kind_are_those_that_scipy_reads(tmp_path, dtype, order):
    filters = DRAW.integers(0, 100, (2, 3, 2, 2)).astype(dtype)
    cell = np.empty((1, 1), object)
    cell[0, 0] = {'name': 'a long name', 'filters': filters, 'biases': np.ones((1, 2), dtype)}
    matlab.savemat(tmp_path / 'net.mat', {'layers': cell})
    if order == '>':
        turn(tmp_path / 'net.mat')
    theirs = matlab.loadmat(tmp_path / 'net.mat')['layers'][0, 0]['filters'][0, 0]
    assert np.array_equal(theirs, filters)
    assert np.array_equal(read_matconvnet(tmp_path / 'net.mat')['a long name/filters'], filters)


def turn(path):
    """The file as a big-endian machine would have written it; its text is ASCII of one byte."""
    data = bytearray(path.read_bytes())
    data[124:128] = data[125:123:-1] + b'MI'

    def within(at, end):
        while at < end:
            kind, size = np.frombuffer(data[at : at + 8], '<u4').tolist()
            small = kind >> 16
            if small:
                kind, size = kind & 0xFFFF, small
            width = {3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}.get(kind, 1)
            begin = at + (4 if small else 8)
            for first in range(begin, begin + size, width) if kind != 14 else ():
                data[first : first + width] = data[first : first + width][::-1]
            for first in (at,) if small else (at, at + 4):
                data[first : first + 4] = data[first : first + 4][::-1]
            if kind == 14:
                within(at + 8, at + 8 + size)
            at = at + 8 if small else at + 8 + -(-size // 8) * 8

    within(128, len(data))
    path.write_bytes(data)


@pytest.mark.parametrize('compressed', [False, True])
def test_any_damage_is_refused_or_harmless(tmp_path, compressed):
    path = tmp_path / 'net.mat'
    matlab.savemat(path, {'layers': cells('weights')}, do_compression=compressed)
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(500):
        data = bytearray(whole)
        at = random.integers(128, len(data))
        data[at : at + 4] = random.choice([b'\0\0\0\0', b'\xff\xff\xff\xff', b'\0\0\0\x80', random.bytes(4)])
        path.write_bytes(data)
        with contextlib.suppress(UserError):
            read_matconvnet(path)


def test_what_claims_more_than_there_is_costs_nothing(tmp_path):
    """A struct of no fields and 2^62 elements, and cells within cells without end."""
    path = tmp_path / 'net.mat'
    matlab.savemat(path, {'layers': cells('weights')})
    head = path.read_bytes()[:128]

    def element(kind, body):
        return struct.pack('<II', kind, len(body)) + body + bytes(-len(body) % 8)

    def matrix(kind, shape, name, *body):
        flags, sides = element(6, struct.pack('<II', kind, 0)), element(5, struct.pack(f'<{len(shape)}i', *shape))
        return element(14, b''.join([flags, sides, element(1, name), *body]))

    many = matrix(2, [1 << 30, 1 << 30, 4], b'layers', element(5, struct.pack('<i', 32)), element(1, b''))
    deep = b''
    for _ in range(3000):
        deep = matrix(1, [1, 1], b'', deep)
    for hostile in (many, matrix(1, [1, 1], b'layers', deep)):
        path.write_bytes(head + hostile)
        with pytest.raises(UserError, match='cannot be read as a MatConvNet network'):
            read_matconvnet(path)
