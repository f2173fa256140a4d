"""Files that torch wrote, against the tensors that it was given."""

import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.pretrained.readers.torch_file import read_torch
from tests.lazy import lazy

torch = lazy('torch', optional=True)


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


def test_safetensors(tmp_path):
    from safetensors.torch import save_file

    expected = {name: states()[name].detach() for name in ('plain', 'half', 'bfloat16', 'scalar', 'bool', 'empty')}
    save_file(expected, tmp_path / 'w.safetensors')
    found = read_torch(tmp_path / 'w.safetensors')
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert str(found[name].dtype) == str(tensor.dtype).removeprefix('torch.')
        np.testing.assert_array_equal(found[name].astype(np.float64), tensor.double().numpy())


@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
def test_the_prefix_of_data_parallel_is_dropped(tmp_path, suffix):
    from safetensors.torch import save_file

    path = tmp_path / f'w.{suffix}'
    (torch.save if suffix == 'pth' else save_file)({'module.fc.weight': torch.ones(2)}, path)
    assert list(read_torch(path)) == ['fc.weight']


class Command:
    def __reduce__(self):
        return os.system, (f'touch {self.marker}',)

    def __init__(self, marker):
        self.marker = marker


@pytest.mark.parametrize('zipped', [True, False])
def test_code_in_a_file_that_torch_wrote_is_not_run(tmp_path, zipped):
    marker, path = tmp_path / 'executed', tmp_path / 'w.pth'
    torch.save({'a': torch.ones(2), 'b': Command(marker)}, path, _use_new_zipfile_serialization=zipped)
    assert list(read_torch(path)) == ['a']
    assert not marker.exists()
    torch.load(path, weights_only=False)  # the file does work, where it is trusted
    assert marker.exists()


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
    with pytest.raises(UserError, match=r"holds no tensors under names, but dict of 'a' \(int\)"):
        read_torch(path)
