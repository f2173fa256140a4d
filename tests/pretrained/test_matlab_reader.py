"""MatConvNet files, written by SciPy in the layouts that are published."""

import numpy as np
import pytest
from scipy.io import savemat

from fer_jax.errors import UserError
from fer_jax.pretrained.matlab_reader import read_matconvnet

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
def test_reads_what_matconvnet_writes(tmp_path, layout, nested):
    path = tmp_path / 'net.mat'
    layers = cells(layout)
    savemat(path, {'net': {'layers': layers}} if nested else {'layers': layers, 'classes': {'name': 'x'}})
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
    savemat(path, {'x': np.ones(3)})
    with pytest.raises(UserError, match='cannot be read as a MatConvNet network'):
        read_matconvnet(path)
    savemat(path, {'layers': cells('weights')})
    whole = path.read_bytes()
    for cut in range(1, len(whole), 97):
        path.write_bytes(whole[:cut])
        with pytest.raises(UserError):
            read_matconvnet(path)
