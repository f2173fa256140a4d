"""Against Keras Applications: logits, every stage and the input's gradient, through Keras's files and our converter."""

import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.models.layers import BatchNorm
from fer_jax.models.resnet import keras_norm
from fer_jax.network import ModelSpec, build
from fer_jax.pretrained import keras_names
from fer_jax.pretrained.convert import expected
from tests.keras_parity import check_keras, headless, import_keras

# Small: each ReLU whose input rounds to either side of 0 moves the gradient, by more than the tolerance near the top.
SIZES = ((32, 48), (51, 35))
RESNET = {'stem': 'pool1_pool', 'pool': 'avg_pool'}
RESNET |= {f'layer{n}': f'conv{n + 1}_block{blocks}_out' for n, blocks in enumerate((3, 4, 6, 3), 1)}


@pytest.fixture
def keras(monkeypatch):
    return import_keras(monkeypatch)


@pytest.mark.slow
def test_resnet50(keras, tmp_path):
    model = headless(keras, 'ResNet50')
    weights = check_keras(keras, 'resnet50_v1', model, RESNET, tmp_path / 'x.weights.h5', sizes=SIZES)
    assert weights.preprocessing == keras_names.CAFFE


@pytest.mark.slow
def test_resnet50_v2(keras, tmp_path):
    """The stem pools activations that are not rectified, on these sizes over edges too."""
    model = headless(keras, 'ResNet50V2')
    layers = RESNET | {'layer4': 'post_relu'}
    weights = check_keras(keras, 'resnet50_v2', model, layers, tmp_path / 'x.h5', sizes=SIZES)
    assert weights.preprocessing == keras_names.TF


@pytest.mark.slow
def test_vgg16(keras, tmp_path):
    """fc1 reads a 7x7 map, which all sizes from 224 to 255 have."""
    model = keras.applications.VGG16(weights=None, classes=7, classifier_activation=None, input_shape=(231, 225, 3))
    layers = {f'block{n}': f'block{n}_pool' for n in range(1, 6)} | {'pool': 'block5_pool', 'fc6': 'fc1', 'fc7': 'fc2'}
    weights = check_keras(keras, 'vgg16', model, layers, tmp_path / 'x.h5', sizes=((231, 225),))
    assert weights.preprocessing == keras_names.CAFFE


@pytest.mark.slow
def test_inception_resnet_v2(keras, tmp_path):
    keras.layers.Conv2D(1, 1), keras.layers.BatchNormalization()  # automatic names need not begin at 0
    model = headless(keras, 'InceptionResNetV2')
    pools = [layer.name for layer in model.layers if isinstance(layer, keras.layers.MaxPooling2D)]
    inbound = model.get_layer('conv_7b').input
    before = next(layer.name for layer in model.layers if layer.output is inbound)
    layers = {'stem': pools[1], 'block35': 'block35_10_ac', 'block17': 'block17_20_ac', 'block8': before}
    layers |= {name: name for name in ('mixed_5b', 'mixed_6a', 'mixed_7a')}
    layers |= {'conv_7b': 'conv_7b_ac', 'pool': 'avg_pool'}
    sizes = ((75, 91), (80, 76))
    weights = check_keras(keras, 'inception_resnet_v2', model, layers, tmp_path / 'x.weights.h5', sizes=sizes)
    assert weights.preprocessing.size == 299


@pytest.mark.slow
@pytest.mark.parametrize('size', [(51, 35), (64, 38)])
def test_efficientnet(keras, size, tmp_path):
    """Its padding is computed for one size."""
    model = headless(keras, 'EfficientNetB0', size)
    names = [layer.name for layer in model.layers]
    layers = {f'blocks{n}': [name for name in names if name.startswith(f'block{n + 1}')][-1] for n in range(7)}
    layers |= {'stem': 'stem_activation', 'conv_head': 'top_activation', 'pool': 'avg_pool'}
    file = tmp_path / ('x.h5' if size[0] % 2 else 'x.weights.h5')
    check_keras(keras, 'tf_efficientnet_b0', model, layers, file, sizes=(size,), scale=255.0)


# Parameters in all, BatchNorm statistics among them, as Keras's documentation and summaries have them
PUBLISHED = {
    'vgg16': ('VGG16', 138_357_544),
    'vgg19': ('VGG19', 143_667_240),
    'resnet50_v1': ('ResNet50', 25_636_712),
    'resnet101_v1': ('ResNet101', 44_707_176),
    'resnet152_v1': ('ResNet152', 60_419_944),
    'resnet50_v2': ('ResNet50V2', 25_613_800),
    'resnet101_v2': ('ResNet101V2', 44_675_560),
    'resnet152_v2': ('ResNet152V2', 60_380_648),
    'inception_resnet_v2': ('InceptionResNetV2', 55_873_736),
    'tf_efficientnet_b0': ('EfficientNetB0', 5_330_571),
    'tf_efficientnet_b2': ('EfficientNetB2', 9_177_569),
}


@pytest.mark.parametrize('name', PUBLISHED)
def test_parameter_count_is_the_published_one(name):
    """EfficientNet's normalisation has 7 parameters, which are preprocessing here; Inception has no gammas."""
    params, stats = expected(name, 1000)
    count = sum(leaf.size for leaf in (params | stats).values()) + 7 * name.startswith('tf_efficientnet')
    if name == 'inception_resnet_v2':
        count -= sum(leaf.size for path, leaf in params.items() if path.endswith('.scale'))
    assert count == PUBLISHED[name][1]


def test_every_table_is_held_to_a_count():
    assert set(keras_names.TABLES) == set(PUBLISHED)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['resnet101_v1', 'resnet152_v1', 'resnet101_v2', 'resnet152_v2', 'vgg19'])
def test_names_of_the_deep_ones(keras, name):
    """Every layer with weights has a path, and every path its layer."""
    model = getattr(keras.applications, PUBLISHED[name][0])(weights=None)
    layers = [layer.name for layer in model.layers if layer.weights]
    paths = keras_names.TABLES[name][0].paths(layers)
    wanted = {path.rpartition('.')[0] for tree in expected(name, 1000) for path in tree}
    assert list(paths) == layers
    assert set(paths.values()) == wanted


def test_running_statistics_are_those_of_keras(keras):
    x = np.random.default_rng(0).normal(3, 2, (2, 3, 3, 4)).astype(np.float32)
    theirs = keras.layers.BatchNormalization(epsilon=1.001e-5)
    ours = keras_norm(4)
    for _ in range(3):
        expected_y = theirs(x, training=True)
        y = ours(jnp.asarray(x), train=True)
    np.testing.assert_allclose(y, expected_y, atol=1e-5)
    np.testing.assert_allclose(ours.mean[...], theirs.moving_mean.value, rtol=1e-5)
    np.testing.assert_allclose(ours.var[...], theirs.moving_variance.value, rtol=1e-5)
    torch_like = BatchNorm(4)
    torch_like(jnp.asarray(x), train=True)
    assert np.abs(torch_like.mean[...] - ours.mean[...]).min() > 0.1


@pytest.mark.parametrize(('module', 'name'), [('resnet', 'resnet50_v1'), ('resnet_v2', 'resnet50_v2')])
def test_preprocessing_is_that_of_keras(keras, module, name):
    images = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype(np.float32)
    expected_images = getattr(keras.applications, module).preprocess_input(images.copy())
    look = keras_names.TABLES[name][0].look
    spec = ModelSpec(name, {'primary': ('a', 'b')}, 32, mean=look.mean, std=look.std, order=look.order)
    np.testing.assert_allclose(build(spec).normalise(jnp.asarray(images)), expected_images, atol=1e-4)
