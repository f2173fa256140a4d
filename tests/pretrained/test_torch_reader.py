import io
import os
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.pretrained.torch_reader import read_torch

torch = pytest.importorskip('torch')


def states():
    base = torch.arange(24, dtype=torch.float32)
    return {
        'plain': torch.randn(3, 4),
        'transposed': base.reshape(4, 6).t(),
        'slice': base[5:11:2],
        'shared': base[3:9].reshape(2, 3),
        'scalar': torch.tensor(7, dtype=torch.int64),
        'empty': torch.empty(0, 3),
        'half': torch.randn(5).half(),
        'bfloat16': torch.randn(5).bfloat16(),
        'double': torch.randn(2, 2).double(),
        'bool': torch.tensor([True, False]),
        'parameter': torch.nn.Parameter(torch.randn(2)),
    }


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('wrap', [lambda s: s, lambda s: {'state_dict': s, 'epoch': 3}, lambda s: OrderedDict(model=s)])
def test_both_formats_are_read_as_torch_reads_them(tmp_path, zipped, wrap):
    expected = states()
    path = tmp_path / 'weights.pth'
    torch.save(wrap(expected), path, _use_new_zipfile_serialization=zipped)
    found = read_torch(path)
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        tensor = tensor.detach()
        assert found[name].shape == tuple(tensor.shape)
        assert str(found[name].dtype) == str(tensor.dtype).removeprefix('torch.')
        np.testing.assert_array_equal(found[name].astype(np.float64), tensor.double().numpy())


def test_the_prefix_of_data_parallel_is_dropped(tmp_path):
    torch.save({'module.fc.weight': torch.ones(2)}, tmp_path / 'w.pth')
    assert list(read_torch(tmp_path / 'w.pth')) == ['fc.weight']


def test_safetensors(tmp_path):
    from safetensors.torch import save_file

    save_file({'a': torch.arange(6.0).reshape(2, 3)}, tmp_path / 'w.safetensors')
    np.testing.assert_array_equal(read_torch(tmp_path / 'w.safetensors')['a'], np.arange(6).reshape(2, 3))


class Command:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


def hostile(kind, marker):
    command = f'touch {marker}'
    if kind == 'system':
        return {'a': Command(os.system, command)}
    if kind == 'eval':
        return OrderedDict(a=[{'b': Command(eval, f'__import__("os").system({command!r})')}])
    return {'a': Command(getattr, np, 'ones')}


@pytest.mark.parametrize('kind', ['system', 'eval', 'getattr'])
@pytest.mark.parametrize('zipped', [True, False])
def test_a_hostile_pickle_is_refused_and_runs_nothing(tmp_path, kind, zipped):
    marker, path = tmp_path / 'executed', tmp_path / 'w.pth'
    torch.save(hostile(kind, marker), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match='which a state dict does not need'):
        read_torch(path)
    assert not marker.exists()
    torch.load(path, weights_only=False)  # the file does work, where it is trusted
    assert marker.exists() or kind == 'getattr'


def forged(path, storage_count=4, shape=(2, 2), strides=(2, 1), offset=0):
    """A zip whose tensor makes the given claims about a storage of 16 bytes."""

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return ('storage', torch.FloatStorage, '0', 'cpu', storage_count) if isinstance(value, Storage) else None

    buffer = io.BytesIO()
    tensor = Command(torch._utils._rebuild_tensor_v2, Storage(), offset, shape, strides, False, OrderedDict())
    Pickler(buffer, 2).dump({'a': tensor})
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('archive/data.pkl', buffer.getvalue())
        archive.writestr('archive/data/0', b'\0' * 16)


def test_claims_beyond_the_file_are_refused(tmp_path):
    path = tmp_path / 'w.pth'
    forged(path)
    assert read_torch(path)['a'].shape == (2, 2)
    for claim in (
        {'storage_count': 10**12},
        {'shape': (2, 3)},
        {'offset': 1},
        {'strides': (2, 10**9)},
        {'strides': (-1, 1)},
        {'shape': (10**6, 10**6), 'strides': (0, 0)},
        {'shape': (2, 'x')},
    ):
        forged(path, **claim)
        with pytest.raises(UserError, match='cannot be read as weights'):
            read_torch(path)


@pytest.mark.parametrize('zipped', [True, False])
def test_damaged_files_are_named(tmp_path, zipped):
    path = tmp_path / 'w.pth'
    torch.save(states(), path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for content in (whole[:-100], whole[: len(whole) // 2], whole[:10], b'', b'hello', pickle.dumps([1, 2])):
        path.write_bytes(content)
        with pytest.raises(UserError, match='w.pth cannot be read as weights'):
            read_torch(path)
    with pytest.raises(UserError, match='is not a file'):
        read_torch(tmp_path / 'absent.pth')
    torch.save({'a': 3}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match="entry 'a' is no tensor"):
        read_torch(path)
