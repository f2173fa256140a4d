"""The original VGG-Face: a VGG16 with 2,622 classes in MatConvNet's names and layout."""

import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.pretrained import convert
from fer_jax.pretrained.name_tables import matconvnet_names
from fer_jax.pretrained.name_tables.matconvnet_names import MATCONVNET_VGGFACE, matconvnet_vgg
from tests.parity import compare, filled
from tests.torch_reference import state_of, torch_reference, torchvision_model

IDENTITIES = 2622
# torchvision's modules in the order of the .mat file's layers
LAYERS = ['conv1_1', 'conv1_2', 'conv2_1', 'conv2_2', 'conv3_1', 'conv3_2', 'conv3_3', 'conv4_1', 'conv4_2', 'conv4_3']
LAYERS += ['conv5_1', 'conv5_2', 'conv5_3', 'fc6', 'fc7', 'fc8']


def matconvnet(state):
    """A torchvision VGG16's tensors as MatConvNet has them: all layers are convolutions, [h, w, in, out]."""
    names = list(dict.fromkeys(name.rpartition('.')[0] for name in state))
    shapes = {'fc6': (4096, 512, 7, 7), 'fc7': (4096, 4096, 1, 1), 'fc8': (IDENTITIES, 4096, 1, 1)}
    entries = {}
    for layer, name in zip(LAYERS, names, strict=True):
        weight = state[f'{name}.weight']
        entries[f'{layer}/filters'] = weight.reshape(shapes.get(layer, weight.shape)).transpose(2, 3, 1, 0)
        entries[f'{layer}/biases'] = state[f'{name}.bias'][:, None]
    return entries


@pytest.mark.parity
@pytest.mark.slow
def test_equals_torchvision():
    module = torchvision_model('vgg16', classes=IDENTITIES)
    state = state_of(module)
    named = matconvnet_vgg(matconvnet(state))
    wanted = convert(state, 'vgg16', metadata={}).params
    assert set(named) == set(wanted)
    for path, leaf in wanted.items():
        np.testing.assert_array_equal(named[path], leaf, err_msg=path)
    x = np.random.default_rng(0).normal(size=(2, 75, 51, 3)).astype(np.float32)
    points = {f'block{number}': f'features.{index}' for number, index in enumerate((4, 9, 16, 23, 30), 1)}
    points |= {'pool': 'avgpool', 'fc6': 'classifier.1', 'fc7': 'classifier.4'}
    compare(filled('vgg16', named, classes=IDENTITIES), x, torch_reference(module, x, points), name='vgg16')


@pytest.mark.parametrize(
    ('name', 'shape'), [('conv6_1/filters', (3, 3, 512, 512)), ('conv1_1/momentum', (1,)), ('fc8/filters', (4096, 8))]
)
def test_entries_of_other_networks_are_named(name, shape):
    with pytest.raises(UserError, match=f"'{name}' .*no entry of a MatConvNet vgg16"):
        matconvnet_vgg({name: np.zeros(shape, np.float32)})


def test_preprocessing_is_the_published_mean():
    np.testing.assert_allclose(255 * np.array(MATCONVNET_VGGFACE.mean), [129.1863, 104.7624, 93.5940])
    assert MATCONVNET_VGGFACE.order == 'RGB' and MATCONVNET_VGGFACE.std == (1 / 255,) * 3


@pytest.mark.slow
def test_a_file_converts_by_the_command(tmp_path, capsys):
    """All of the way on a VGG11, whose file is smaller: .mat -> safetensors -> the tensors of torch."""
    from scipy.io import savemat

    from fer_jax import convert_weights, pretrained

    state = state_of(torchvision_model('vgg11', classes=5))
    names = list(dict.fromkeys(name.rpartition('.')[0] for name in state))
    layers = np.empty((1, len(names)), object)
    for number, (layer, name) in enumerate(zip(matconvnet_names.vgg_layers('vgg11'), names, strict=True)):
        weight = state[f'{name}.weight']
        shape = {'fc6': (4096, 512, 7, 7)}.get(layer, (*weight.shape, 1, 1) if weight.ndim == 2 else weight.shape)
        both = np.empty((1, 2), object)
        both[0, 0], both[0, 1] = weight.reshape(shape).transpose(2, 3, 1, 0), state[f'{name}.bias'][None]
        layers[0, number] = {'name': layer, 'type': 'conv', 'weights': both}
    savemat(tmp_path / 'face.mat', {'layers': layers})
    output = tmp_path / 'face.safetensors'
    arguments = ['--model', 'vgg11', '--source', str(tmp_path / 'face.mat'), '--output', str(output)]
    assert convert_weights.main(arguments) == 0
    found, expected = pretrained.load(output, 'vgg11'), convert(state, 'vgg11', metadata={})
    assert found.preprocessing == MATCONVNET_VGGFACE and found.metadata['classes'] == '5'
    assert all(np.array_equal(found.params[path], leaf) for path, leaf in expected.params.items())
    assert convert_weights.main([*arguments[:1], 'vgg13', *arguments[2:]]) == 2
    assert 'these are not weights of vgg13' in capsys.readouterr().err
