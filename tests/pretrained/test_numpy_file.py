"""Pickled dictionaries of arrays, and pickles that are more than that."""

import os
import pickle
import struct
import tracemalloc
from collections import OrderedDict

import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.pretrained.readers.torch_file import read_torch

ARRAYS = {'conv1.weight': np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2), 'bn1.bias': np.ones(2)}
ARRAYS |= {'fc.weight': np.asfortranarray(np.arange(6.0).reshape(2, 3)), 'big': np.arange(3, dtype='>i4')}


@pytest.mark.parametrize('protocol', [0, 2, 5])
@pytest.mark.parametrize('kind', [dict, OrderedDict])
def test_reads_arrays(tmp_path, protocol, kind):
    path = tmp_path / 'weights.pkl'
    path.write_bytes(pickle.dumps(kind(ARRAYS), protocol=protocol))
    found = read_torch(path)
    assert list(found) == list(ARRAYS) and all(np.array_equal(found[name], ARRAYS[name]) for name in ARRAYS)


def test_reads_what_python_2_wrote(tmp_path):
    """Raw bytes as a str of latin-1, and numpy.core."""
    data = struct.pack('<2f', 1.5, -2.0)
    stream = (
        b"\x80\x02}q\x00U\x01aq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U"
        + bytes([len(data)]) + data + b'tbs.'
    )  # fmt: skip
    path = tmp_path / 'weights.pkl'
    path.write_bytes(stream)
    assert read_torch(path)['a'].tolist() == [1.5, -2.0]


class Hostile:
    def __reduce__(self):
        return os.system, ('touch hostile',)


@pytest.mark.parametrize(
    ('content', 'said'),
    [
        ({'a': Hostile()}, r"of 'a' \((posix|nt).system\)"),
        ([1, 2], 'holds no tensors under names, but list'),
        ({}, 'holds no tensors under names, but dict'),
        ({'a': 'text'}, r"of 'a' \(str\)"),
        ({'a': np.array([None])}, r"of 'a' \(array\)"),
        ({'a': np.array(['text'])}, r"of 'a' \(array\)"),
        ({1: np.ones(2)}, 'holds no tensors under names'),
    ],
)
def test_anything_else_is_refused(tmp_path, monkeypatch, content, said):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / 'weights.pkl'
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match=said):
        read_torch(path)
    assert not (tmp_path / 'hostile').exists()


def test_damage_is_one_message(tmp_path):
    path = tmp_path / 'weights.pkl'
    with pytest.raises(UserError, match='is not a file'):
        read_torch(path)
    whole = pickle.dumps(ARRAYS)
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with pytest.raises(UserError):
            read_torch(path)
    draw = np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(whole)
        data[draw.integers(len(data))] ^= 1 << draw.integers(8)
        path.write_bytes(data)
        try:
            read_torch(path)
        except UserError as error:
            assert 'cannot be read as weights' in str(error)


def test_ten_bytes_cannot_ask_for_much_memory(tmp_path):
    """A pickle may remember an object under any number, for which the unpickler in C makes room at once."""
    path = tmp_path / 'x.pkl'
    path.write_bytes(b'\x80\x02}r\xff\xff\xff\x00.')
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match='holds no tensors'):
            read_torch(path)
        assert tracemalloc.get_traced_memory()[1] < 1e6
        pickle.loads(path.read_bytes())
        assert tracemalloc.get_traced_memory()[1] > 1e8
    finally:
        tracemalloc.stop()
