"""Files made to harm: pickles that name code, change our own objects, or claim more than there is. Needs no torch."""

import builtins
import gzip
import os
import pickle
import random
import struct
import tracemalloc
import zipfile
import zlib
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.pretrained import convert_file
from fer_jax.pretrained.readers import pickled_arrays, torch_file
from fer_jax.pretrained.readers.torch_file import read_torch
from fer_jax.utils import limits

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
def test_code_is_named_and_not_run(path, kind, zipped):
    marker = path.with_name('executed')
    value, name = payloads(marker)[kind]
    write(path, value, zipped=zipped)
    if kind == 'beside tensors':
        entries = torch_file.read_entries(path)
        assert list(entries.arrays) == ['a'] and entries.others == {'z': name}
    else:
        with pytest.raises(UserError, match='holds no tensors under names|cannot be read as weights'):
            read_torch(path)
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
    with pytest.raises(UserError, match=rf"holds no tensors under names, but dict of 'a' \({name}\)"):
        read_torch(write(path, {'a': Call(Global(module, attribute), (tensor(),))}))


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
    assert pickled_arrays._rebuild_tensor.__defaults__ is None
    assert not hasattr(pickled_arrays._rebuild_parameter, 'marked')
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
    assert set(read_torch(write(path, {'module.a': tensor(), 'a': tensor()}, zipped=zipped))) == {'module.a', 'a'}


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


def nested(depth: int, opcode: bytes) -> bytes:
    """Containers in containers, each held twice by the next by reference: 2 ** depth in all."""
    level = pickle.BINGET + b'\0' + pickle.BINGET + b'\0' + opcode + pickle.BINPUT + b'\0' + pickle.POP
    return pickle.EMPTY_TUPLE + pickle.BINPUT + b'\0' + pickle.POP + level * depth + pickle.BINGET + b'\0'


LOOKED_UP = pickle.EMPTY_DICT + nested(60, pickle.TUPLE2) + pickle.NONE + pickle.SETITEM
HOSTILE: dict[str, tuple[bytes, str]] = {
    'a nested key, which takes for ever to hash': (LOOKED_UP, 'holds no tensors'),
    'a nested name': (opcodes({'a': nested(60, pickle.TUPLE2)}), 'holds no tensors'),
    'a nested shape': (opcodes({'a': tensor(shape=nested(60, pickle.TUPLE2), strides=(1, 1))}), 'a tensor of shape'),
    'nested dictionaries': (
        pickle.EMPTY_DICT + pickle.BINPUT + b'\0' + (pickle.EMPTY_DICT + opcodes('a') + pickle.BINGET + b'\0'
        + pickle.SETITEM + opcodes('b') + pickle.BINGET + b'\0' + pickle.SETITEM + pickle.BINPUT + b'\0') * 60,
        'holds no tensors',
    ),
    'a dictionary in itself': (pickle.EMPTY_DICT + pickle.BINPUT + b'\0' + opcodes('a') + pickle.BINGET + b'\0s',
        'holds no tensors'),
    '3 GB claimed by a bytearray': (pickle.BYTEARRAY8 + (3 << 30).to_bytes(8, 'little'), 'cannot be read as weights'),
    '3 GB claimed by a text': (pickle.BINUNICODE8 + (3 << 30).to_bytes(8, 'little'), 'cannot be read'),
    'a long integer': (b'\x8b' + (1 << 20).to_bytes(4, 'little') + b'\1' * (1 << 20),
        'an integer of .* bytes, at most 64'),
    'a shape of many sides': (opcodes({'a': tensor(shape=(1,) * 99, strides=(1,) * 99)}),
        '99 dimensions .*, at most 32 are read'),
    'many opcodes': (b'N0' * 160_000, 'opcodes in its pickle, at most 300,000 are read'),
    'one long list in many dictionaries': (
        pickle.EMPTY_LIST + pickle.MARK + b'N' * 100_000 + pickle.APPENDS + pickle.BINPUT + b'\0'
        + (opcodes(ORDERED_DICT) + pickle.BINGET + b'\0' + pickle.TUPLE1 + pickle.REDUCE + b'0') * 100,
        'cannot be read as weights',
    ),
    'one text encoded again and again': (
        opcodes('x' * 1_000_000) + pickle.BINPUT + b'\0' + opcodes(Global('_codecs', 'encode')) + pickle.BINPUT + b'\1'
        + (pickle.BINGET + b'\1' + pickle.BINGET + b'\0' + b'X\6\0\0\0latin1' + pickle.TUPLE2 + pickle.REDUCE) * 2_000,
        'opcodes in its pickle, at most 300,000 are read',
    ),
    'a long name': (opcodes({'x' * 5000: tensor()}), '5,000 characters in a name, at most 1,000 are read'),
    'colliding integers for keys': (
        pickle.EMPTY_DICT + pickle.MARK + b''.join(b'\x8a\x0c' + (n * (2**61 - 1)).to_bytes(12, 'little') + b'N'
        for n in range(1, 20_000)) + pickle.SETITEMS,
        'holds no tensors',
    ),
}  # fmt: skip


@pytest.mark.parametrize('kind', HOSTILE)
def test_a_pickle_made_to_last_for_ever_is_refused_by_the_limit(path, kind, monkeypatch):
    monkeypatch.setattr(limits, 'OPCODES', 300_000)
    content, words = HOSTILE[kind]
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=words) as refused:
            read_torch(write(path, pickle.PROTO + b'\4' + content + pickle.STOP))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(str(refused.value)) < 600 and peak < 1_000_000_000


def test_a_list_of_a_million_members_is_refused_before_it_is_read(path, monkeypatch):
    monkeypatch.setattr(limits, 'DIRECTORY_BYTES', 1000)
    with zipfile.ZipFile(path, 'w') as archive:
        for number in range(50):
            archive.writestr(f'archive/data/{number}', b'')
    monkeypatch.setattr(zipfile, 'ZipFile', None)
    with pytest.raises(UserError, match='bytes in its list of members, at most 1,000 are read'):
        read_torch(path)


@pytest.mark.parametrize('form', ['gzip', 'zip', 'keras', 'matlab'])
def test_what_inflates_is_refused_at_the_limit(tmp_path, form, monkeypatch):
    monkeypatch.setattr(limits, 'UNPACKED_BYTES', 1 << 20)
    path, content = tmp_path / 'x', bytes(4 << 20)
    if form == 'gzip':
        path.write_bytes(gzip.compress(content, 1))
    elif form == 'matlab':
        body = zlib.compress(struct.pack('<II', 14, len(content)) + content)
        path.write_bytes(b'MATLAB 5.0 MAT-file'.ljust(124) + b'\0\1IM' + struct.pack('<II', 15, len(body)) + body)
    else:
        with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
            archive.writestr('model.weights.h5' if form == 'keras' else 'model.pth', content)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match='when it is unpacked, at most 1,048,576 are read'):
            convert_file(path, 'vgg16', source='x', licence='x')
        assert tracemalloc.get_traced_memory()[1] < (4 << 20)
    finally:
        tracemalloc.stop()
