"""Against Keras Applications: logits, every stage and the input's gradient, through Keras's files and our converter."""

import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.models.layers import BatchNorm
from fer_jax.models.network import ModelSpec, build
from fer_jax.models.resnet import keras_norm
from fer_jax.pretrained.convert import expected
from fer_jax.pretrained.name_tables import keras_names
from tests.keras_parity import check_keras, headless, import_keras

SIZES = ((51, 48),)
DEPTHS = (50, *(pytest.param(depth, marks=pytest.mark.campaign) for depth in (101, 152)))


@pytest.fixture
def keras(monkeypatch):
    return import_keras(monkeypatch)


def stages(depth):
    """Of a ResNet of either version, but for the end of the last stage."""
    blocks = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}[depth]
    layers = {f'layer{n}': f'conv{n + 1}_block{count}_out' for n, count in enumerate(blocks, 1)}
    return layers | {'stem': 'pool1_pool', 'pool': 'avg_pool'}


@pytest.mark.parity
@pytest.mark.slow
@pytest.mark.parametrize('depth', DEPTHS)
def test_resnet(keras, depth, tmp_path):
    name, file, sizes = f'resnet{depth}_v1', tmp_path / 'x.weights.h5', SIZES if depth == 50 else ((51, 35),)
    weights = check_keras(
        keras, name, lambda: headless(keras, f'ResNet{depth}'), lambda _: stages(depth), file, sizes=sizes
    )
    assert weights.preprocessing == keras_names.CAFFE


@pytest.mark.parity
@pytest.mark.slow
@pytest.mark.parametrize('depth', DEPTHS)
def test_resnet_v2(keras, depth, tmp_path):
    """The stem pools activations that are not rectified, on these sizes over edges too."""

    def layers(_):
        return stages(depth) | {'layer4': 'post_relu'}

    name, file, sizes = f'resnet{depth}_v2', tmp_path / 'x.h5', SIZES if depth == 50 else ((51, 35),)
    weights = check_keras(keras, name, lambda: headless(keras, f'ResNet{depth}V2'), layers, file, sizes=sizes)
    assert weights.preprocessing == keras_names.TF


@pytest.mark.parity
@pytest.mark.slow
def test_vgg16(keras, tmp_path):
    """fc1 reads a 7x7 map, which all sizes from 224 to 255 have."""

    def make():
        shape = (231, 225, 3)
        return keras.applications.VGG16(weights=None, classes=7, classifier_activation=None, input_shape=shape)

    def layers(_):
        blocks = {f'block{n}': f'block{n}_pool' for n in range(1, 6)}
        return blocks | {'pool': 'block5_pool', 'fc6': 'fc1', 'fc7': 'fc2'}

    weights = check_keras(keras, 'vgg16', make, layers, tmp_path / 'x.h5', sizes=((231, 225),))
    assert weights.preprocessing == keras_names.CAFFE


@pytest.mark.parity
@pytest.mark.campaign
def test_inception_resnet_v2(keras, tmp_path):
    def layers(model):
        pools = [layer.name for layer in model.layers if isinstance(layer, keras.layers.MaxPooling2D)]
        inbound = model.get_layer('conv_7b').input
        before = next(layer.name for layer in model.layers if layer.output is inbound)
        found = {'stem': pools[1], 'block35': 'block35_10_ac', 'block17': 'block17_20_ac', 'block8': before}
        found |= {name: name for name in ('mixed_5b', 'mixed_6a', 'mixed_7a')}
        return found | {'conv_7b': 'conv_7b_ac', 'pool': 'avg_pool'}

    keras.layers.Conv2D(1, 1), keras.layers.BatchNormalization()  # automatic names need not begin at 0
    file = tmp_path / 'x.weights.h5'
    weights = check_keras(
        keras,
        'inception_resnet_v2',
        lambda: headless(keras, 'InceptionResNetV2'),
        layers,
        file,
        sizes=((75, 91), (80, 76)),
    )
    assert weights.preprocessing.size == 299


@pytest.mark.parity
@pytest.mark.slow
@pytest.mark.parametrize(
    ('number', 'size'),
    [
        (0, (51, 38)),
        pytest.param(0, (64, 35), marks=pytest.mark.campaign),
        pytest.param(2, (64, 38), marks=pytest.mark.campaign),
        pytest.param(2, (51, 75), marks=pytest.mark.campaign),
    ],
)
def test_efficientnet(keras, number, size, tmp_path):
    """Its padding is computed for one size."""

    def layers(model):
        names = [layer.name for layer in model.layers]
        last = {f'blocks{n}': [name for name in names if name.startswith(f'block{n + 1}')][-1] for n in range(7)}
        return last | {'stem': 'stem_activation', 'conv_head': 'top_activation', 'pool': 'avg_pool'}

    file = tmp_path / ('x.h5' if size[0] % 2 else 'x.weights.h5')
    check_keras(
        keras,
        f'tf_efficientnet_b{number}',
        lambda: headless(keras, f'EfficientNetB{number}', size),
        layers,
        file,
        sizes=(size,),
        scale=255.0,
    )


@pytest.mark.parity
@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'alpha', 'size'),
    [('mobilenet_v1_025', 0.25, (51, 38)), pytest.param('mobilenet_v1', 1.0, (75, 51), marks=pytest.mark.campaign)],
)
def test_mobilenet(keras, name, alpha, size, tmp_path):
    """Maps of odd size, which Keras halves by another padding than TensorFlow; the last layer is a convolution."""

    def make():
        return keras.applications.MobileNet(
            input_shape=(*size, 3), alpha=alpha, weights=None, classes=7, classifier_activation=None
        )

    def layers(_):
        ends = {f'blocks{index}': f'conv_pw_{number}_relu' for index, number in enumerate((1, 3, 5, 11, 13))}
        return ends | {'stem': 'conv1_relu'}

    weights = check_keras(keras, name, make, layers, tmp_path / 'x.h5', sizes=(size,))
    assert weights.preprocessing == keras_names.TF and weights.metadata['classes'] == '7'


# Parameters in all, BatchNorm statistics among them, as Keras's documentation and summaries have them
PUBLISHED = {
    'mobilenet_v1': ('MobileNet', 4_253_864),
    'mobilenet_v1_075': ('MobileNet', 2_601_976),
    'mobilenet_v1_050': ('MobileNet', 1_342_536),
    'mobilenet_v1_025': ('MobileNet', 475_544),
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
    paths = keras_names.TABLES[name]['keras'].paths(layers)
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
    preprocessing = keras_names.TABLES[name]['keras'].preprocessing
    spec = ModelSpec(
        name, {'primary': ('a', 'b')}, 32, mean=preprocessing.mean, std=preprocessing.std, order=preprocessing.order
    )
    np.testing.assert_allclose(build(spec).normalise(jnp.asarray(images)), expected_images, atol=1e-4)
