"""Files made to harm: pickles that name code, change our own objects, or claim more than there is. Needs no torch."""

import builtins
import os
import pickle
import random
import struct
import tracemalloc
import zipfile
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.pretrained.readers import torch_file
from fer_jax.pretrained.readers.torch_file import read_torch

FORMATS = pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])


class Global(NamedTuple):
    module: str
    name: str


class Call(NamedTuple):
    function: Any
    arguments: tuple


class Persistent(NamedTuple):
    pid: tuple


class Built(NamedTuple):
    """An object with a state, set by the opcode BUILD."""

    value: Any
    state: Any


ORDERED_DICT = Global('collections', 'OrderedDict')
REBUILD = Global('torch._utils', '_rebuild_tensor_v2')


def opcodes(value: Any) -> bytes:
    """What a pickle consists of that leaves `value` on the stack; bytes stand for themselves."""
    match value:
        case bytes():
            return value
        case Global(module, name):
            return f'c{module}\n{name}\n'.encode()
        case Call(function, arguments):
            return opcodes(function) + opcodes(arguments) + pickle.REDUCE
        case Persistent(pid):
            return opcodes(pid) + pickle.BINPERSID
        case Built(built, state):
            return opcodes(built) + opcodes(state) + pickle.BUILD
        case tuple():
            return pickle.MARK + b''.join(map(opcodes, value)) + pickle.TUPLE
        case dict():
            pairs = b''.join(opcodes(key) + opcodes(item) for key, item in value.items())
            return pickle.EMPTY_DICT + pickle.MARK + pairs + pickle.SETITEMS
    return pickle.dumps(value, 2)[2:-1]  # without its first and last opcode


def pickled(value: Any) -> bytes:
    return pickle.PROTO + b'\4' + opcodes(value) + pickle.STOP


def tensor(shape: Any = (2, 2), strides: Any = (2, 1), offset: Any = 0, count: Any = 4, kind='FloatStorage') -> Call:
    storage = Persistent(('storage', Global('torch', kind), '0', 'cpu', count))
    return Call(REBUILD, (storage, offset, shape, strides, False, Call(ORDERED_DICT, ())))


def write(path, value, *, zipped=True, storage=bytes(range(16))):
    """A file as torch.save writes it, with one storage."""
    payload = value if isinstance(value, bytes) else pickled(value)
    if zipped:
        with zipfile.ZipFile(path, 'w') as archive:
            archive.writestr('archive/data.pkl', payload)
            archive.writestr('archive/data/0', storage)
    else:
        head = [pickle.dumps(part, 2) for part in (torch_file.LEGACY_MAGIC, 1001, {'little_endian': True})]
        count = (len(storage) // 4).to_bytes(8, 'little')
        path.write_bytes(b''.join([*head, payload, pickle.dumps(['0'], 2), count, storage]))
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'w.pth'


@FORMATS
def test_an_honest_file_is_read(path, zipped):
    content = np.arange(4, dtype='<f4')
    found = read_torch(write(path, {'a': tensor()}, zipped=zipped, storage=content.tobytes()))
    np.testing.assert_array_equal(found['a'], content.reshape(2, 2))


def payloads(marker) -> dict[str, tuple[Any, str]]:
    """What would leave `marker` behind -> the global that it needs."""
    command = f'touch {marker}'
    system = f'{os.system.__module__}.system'
    evaluated = Call(Global('builtins', 'eval'), (f'__import__("os").system({command!r})',))
    by_stack = opcodes('os') + opcodes('system') + pickle.STACK_GLOBAL
    return {
        'os.system': ({'a': Call(Global(os.system.__module__, 'system'), (command,))}, system),
        'eval, nested': ({'state_dict': {'a': {'b': ({'c': evaluated},)}}}, 'builtins.eval'),
        'by STACK_GLOBAL': ({'a': Call(by_stack, (command,))}, 'os.system'),
        'by INST': ({'a': pickle.MARK + opcodes(command) + b'ios\nsystem\n'}, 'os.system'),
        'beside tensors': ({'a': tensor(), 'z': evaluated}, 'builtins.eval'),
        'in a reduced argument': (Call(ORDERED_DICT, (evaluated,)), 'builtins.eval'),
    }


@FORMATS
@pytest.mark.parametrize('kind', payloads('x'))
def test_code_is_refused_by_its_name_and_not_run(path, kind, zipped):
    marker = path.with_name('executed')
    value, name = payloads(marker)[kind]
    with pytest.raises(UserError, match=f'it asks for {name}, which a state dict does not need'):
        read_torch(write(path, value, zipped=zipped))
    assert not marker.exists()


@pytest.mark.parametrize('kind', [kind for kind in payloads('x') if kind != 'beside tensors'])
def test_those_payloads_do_run_where_they_are_trusted(tmp_path, kind):
    marker = tmp_path / 'executed'
    try:
        pickle.loads(pickled(payloads(marker)[kind][0]))
    except TypeError:
        assert kind == 'in a reduced argument'  # eval ran, its status is no list of pairs
    assert marker.exists()


@pytest.mark.parametrize(
    'name', ['builtins.getattr', 'functools.partial', 'torch.load', 'torch._utils.os.system', 'collections.Counter']
)
def test_only_what_tensors_need_is_known(path, name):
    module, _, attribute = name.rpartition('.')
    with pytest.raises(UserError, match=f'it asks for {name}'):
        read_torch(write(path, {'a': Global(module, attribute)}))


@FORMATS
def test_a_file_cannot_change_our_own_objects(path, zipped):
    """BUILD sets attributes: of a dtype shared by the process, of our functions, of a tensor behind its checks."""
    dtype_state = (3, '|', None, None, None, 1000, 1, 0)
    for target, state in (
        (Global('torch', 'BFloat16Storage'), dtype_state),
        (REBUILD, (None, {'__defaults__': (1,)})),
        (Global('torch._utils', '_rebuild_parameter'), {'marked': 1}),
        (ORDERED_DICT, {'marked': 1}),
    ):
        with pytest.raises(UserError):
            read_torch(write(path, {'a': Built(target, state)}, zipped=zipped))
    assert np.dtype(ml_dtypes.bfloat16).itemsize == 2
    assert torch_file._rebuild_tensor.__defaults__ is None
    assert not hasattr(torch_file._rebuild_parameter, 'marked')
    moved = Built(tensor(), {'offset': 10**6, 'array': Global('collections', 'OrderedDict')})
    assert read_torch(write(path, {'a': moved}, zipped=zipped))['a'].shape == (2, 2)


CLAIMS = (
    {'count': 5},
    {'count': 10**12},
    {'count': -4},
    {'count': 4.0},
    {'shape': (2, 3)},
    {'offset': 1},
    {'offset': -1},
    {'strides': (2, 10**9)},
    {'strides': (-1, 1)},
    {'strides': (1,)},
    {'shape': (10**6, 10**6), 'strides': (0, 0)},
    {'shape': (2**64, 2**64, 0), 'strides': (1, 1, 1)},
    {'shape': (2, 'x')},
    {'shape': (True, 2)},
    {'shape': 3},
    {'kind': 'DoubleStorage'},
    {'kind': 'Tensor'},
)


@FORMATS
@pytest.mark.parametrize('claim', CLAIMS, ids=str)
def test_claims_beyond_the_storage_are_refused(path, claim, zipped):
    with pytest.raises(UserError, match='cannot be read as weights'):
        read_torch(write(path, {'a': tensor(**claim)}, zipped=zipped))


def laughs(depth: int) -> bytes:
    """A tuple of tuples of tuples, 2 ** depth in all, each level from the memo."""
    levels = [
        pickle.BINGET + bytes([n, *pickle.BINGET, n, *pickle.TUPLE2, *pickle.BINPUT, n + 1]) for n in range(depth)
    ]
    return pickle.EMPTY_TUPLE + pickle.BINPUT + b'\0' + b''.join(pickle.POP + level for level in levels)


def bomb(path, kind):
    """A small file that would have its reader allocate much."""
    if kind == 'memo':
        return write(path, pickled(b'N' + pickle.LONG_BINPUT + struct.pack('<I', 2**25)))
    if kind == 'views':
        one_million = tensor((10**6,), (1,), count=10**6)
        return write(path, {f'layer1.{n}.weight': one_million for n in range(100)}, storage=bytes(4 * 10**6))
    if kind == 'names':
        return write(path, {'a': tensor(shape=laughs(25), strides=(1,))})
    if kind == 'string':
        return write(path, pickled(pickle.BINBYTES8 + (2**31).to_bytes(8, 'little')))
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED if kind == 'deflated' else zipfile.ZIP_STORED) as archive:
        archive.writestr('archive/data.pkl', pickled({'a': tensor()}))
        archive.writestr('archive/data/0', bytes(10**8 if kind == 'deflated' else 10**6))
        if kind == 'overlapping':
            for number in range(1, 100):
                entry = archive.getinfo('archive/data/0')
                again = zipfile.ZipInfo(f'archive/data/{number}')
                again.header_offset, again.CRC = entry.header_offset, entry.CRC
                again.file_size = again.compress_size = entry.file_size
                archive.filelist.append(again)
                archive.NameToInfo[again.filename] = again
    return path


@pytest.mark.parametrize('kind', ['memo', 'views', 'names', 'string', 'deflated', 'overlapping'])
def test_little_is_allocated_beyond_the_size_of_the_file(path, kind):
    size = bomb(path, kind).stat().st_size
    tracemalloc.start()
    try:
        if kind == 'views':
            assert len(read_torch(path)) == 100
        else:
            with pytest.raises(UserError) as refused:
                read_torch(path)
            assert len(str(refused.value)) < 1000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * size + 2_000_000, f'{peak:,} bytes for a file of {size:,}'


@FORMATS
def test_an_entry_is_not_lost_behind_another_of_its_name(path, zipped):
    with pytest.raises(UserError, match="twice, with the prefix 'module.' and without"):
        read_torch(write(path, {'module.a': tensor(), 'a': tensor()}, zipped=zipped))


def test_the_other_byte_order_is_refused(path):
    write(path, {'a': tensor()})
    with zipfile.ZipFile(path, 'a') as archive:
        archive.writestr('archive/byteorder', 'big')
    with pytest.raises(UserError, match='big-endian'):
        read_torch(path)


@FORMATS
def test_any_damage_is_refused_or_harmless(path, zipped, monkeypatch):
    """1,000 files with one to four bytes changed: read, or refused by a UserError, and nothing is called."""

    def forbidden(*_: Any) -> None:
        raise AssertionError('a damaged file reached the code of this process')

    whole = write(path, {'a': tensor(), 'b': tensor((4,), (1,))}, zipped=zipped).read_bytes()
    draw = random.Random(0)
    monkeypatch.setattr(os, 'system', forbidden)
    monkeypatch.setattr(builtins, 'eval', forbidden)
    read = 0
    for _ in range(1000):
        damaged = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            damaged[draw.randrange(len(whole))] = draw.randrange(256)
        path.write_bytes(damaged)
        try:
            read += all(isinstance(array, np.ndarray) for array in read_torch(path).values())
        except UserError:
            continue
    assert 0 < read < 1000
