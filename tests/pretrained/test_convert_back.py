"""Out to the source's names and back in, and into the source frameworks themselves."""

import dataclasses

import numpy as np
import pytest

from fer_jax import models
from fer_jax.errors import UserError
from fer_jax.pretrained import Preprocessing, Weights, convert, convert_file, convert_keras
from fer_jax.pretrained.convert import expected
from fer_jax.pretrained.convert_back import keras_variables, targets, torch_state, write_keras
from fer_jax.pretrained.name_tables import keras_names, torch_names
from tests.keras_parity import headless, import_keras, randomise
from tests.torch_reference import randomised, timm_model, torchvision_model

LARGE = [name for name in models.NAMES if name.startswith('vgg') and name not in ('vgg11', 'vgg16')]
OURS = [(name, target) for name in models.NAMES for target in targets(name) if name not in LARGE]
# of a VGG-16 the forms that a VGG-11 has too, of ResNets the depths that add blocks alone
AGAIN = [pair for pair in OURS if pair[0].startswith(('resnet101', 'resnet152'))]
AGAIN += [('vgg16', 'torchvision'), ('vgg16', 'timm')]
CASES = [pytest.param(*pair, marks=pytest.mark.campaign) if pair in AGAIN else pair for pair in OURS]


def drawn(name, classes=7):
    """Random weights of every shape that the network has."""
    draw = np.random.default_rng(0)
    trees = [
        {path: draw.standard_normal(leaf.shape, np.float32) for path, leaf in tree.items()}
        for tree in expected(name, classes)
    ]
    return Weights(name, *trees, Preprocessing((0.4, 0.5, 0.6), (0.2, 0.25, 0.3)), {})


def assert_same(ours, theirs):
    for left, right in ((ours.params, theirs.params), (ours.stats, theirs.stats)):
        assert set(left) == set(right)
        for path in left:
            np.testing.assert_array_equal(left[path], right[path], err_msg=path)


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'target'), CASES)
def test_back_in_it_is_what_went_out(name, target):
    weights = drawn(name)
    if target in torch_names.TABLES.get(name, {}):
        again = convert(torch_state(weights, target), name, metadata={})
    else:
        if not keras_names.TABLES[name][target].scaled:
            weights.params.update(
                {path: np.ones_like(leaf) for path, leaf in weights.params.items() if 'scale' in path}
            )
        layers = keras_variables(weights, target)
        entries = {f'{layer}/{kind}': leaf for layer, leaves in layers.items() for kind, leaf in leaves.items()}
        again = convert_keras(entries, name, metadata={})
    assert_same(again, weights)


def test_everything_that_comes_from_torch_or_keras_has_a_way_back():
    known = {*torch_names.TABLES, *keras_names.TABLES}
    assert {name for name, _ in OURS} | set(LARGE) == known


@pytest.mark.slow
@pytest.mark.parity
@pytest.mark.parametrize(
    ('name', 'target'),
    [
        ('resnet18', 'torchvision'),
        ('vgg11_bn', 'torchvision'),
        ('vgg11', 'timm'),
        ('efficientnet_b0', 'torchvision'),
        ('efficientnet_b0', 'timm'),
        ('efficientnet_lite0', 'timm'),
        ('senet50_caffe', 'timm'),
        ('inception_resnet_v2', 'timm'),
        ('inception_resnet_v1', 'facenet_pytorch'),
    ],
)
def test_torch_takes_it_strictly_and_has_its_own_state_again(name, target):
    torch = pytest.importorskip('torch')
    called = {'efficientnet_lite0': 'tf_efficientnet_lite0', 'senet50_caffe': 'legacy_seresnet50'}.get(name, name)
    if target == 'facenet_pytorch':
        facenet = pytest.importorskip('facenet_pytorch')
        module = randomised(lambda: facenet.InceptionResnetV1(classify=True, num_classes=7))
    else:
        module = (torchvision_model if target == 'torchvision' else timm_model)(called, 7)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    state = torch_state(convert({key: value.numpy() for key, value in before.items()}, name, metadata={}), target)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    module.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


@pytest.mark.parity
@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'called', 'size'), [('resnet50_v2', 'ResNet50V2', 64), ('tf_efficientnet_b0', 'EfficientNetB0', 64)]
)
def test_keras_takes_it_by_name(monkeypatch, tmp_path, name, called, size):
    keras = import_keras(monkeypatch)
    model = headless(keras, called, (size, size))
    randomise(model)
    model.save(tmp_path / 'theirs.h5')
    weights = convert_file(tmp_path / 'theirs.h5', name, source='random', licence='none')
    write_keras(tmp_path / 'ours.h5', keras_variables(weights, 'keras'))
    fresh = headless(keras, called, (size, size))
    fresh.load_weights(tmp_path / 'ours.h5', by_name=True)
    for ours, theirs in zip(fresh.weights, model.weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6 if 'normalization/' in ours.path else 0, err_msg=ours.path)
    assert_same(convert_file(tmp_path / 'ours.h5', name, source='random', licence='none'), weights)


def test_what_has_no_place_is_named():
    weights = drawn('resnet18')
    with pytest.raises(UserError, match="resnet18 cannot be exported to 'keras'; choose of torchvision"):
        keras_variables(weights, 'keras')
    two = dataclasses.replace(weights, params=weights.params | {'head.valence.bias': np.zeros(1, np.float32)})
    with pytest.raises(
        UserError, match='head.valence.bias has no place in torchvision; only a network with one linear'
    ):
        torch_state(two, 'torchvision')
    with pytest.raises(UserError, match='scale was trained, but the BatchNorms of keras have no scale'):
        keras_variables(drawn('inception_resnet_v2'), 'keras')


@pytest.mark.slow
def test_a_vggs_fresh_classifier_is_its_own_again():
    weights = drawn('vgg11')
    fresh = {
        path.replace('fc', 'head.fc') if path.startswith('fc') else path: leaf for path, leaf in weights.params.items()
    }
    state = torch_state(dataclasses.replace(weights, params=fresh), 'torchvision')
    assert_same(convert(state, 'vgg11', metadata={}), weights)
