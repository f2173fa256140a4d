"""Inception-ResNet-v2 and EfficientNet against Keras Applications, on Keras's JAX backend."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.pretrained import Preprocessing, keras_layers
from fer_jax.pretrained.convert import expected
from fer_jax.pretrained.matlab_names import vgg_layers
from tests.parity import Reference, compare, filled

LEAVES = {'kernel': 'kernel', 'bias': 'bias', 'beta': 'bias', 'gamma': 'scale'}
LEAVES |= {'moving_mean': 'mean', 'moving_variance': 'var'}


@pytest.fixture
def keras():
    os.environ['KERAS_BACKEND'] = 'jax'
    return pytest.importorskip('keras')


def randomise(model):
    """Makes every variable of a Keras network random, none near its initial value."""
    draw = np.random.default_rng(0)
    for variable in model.variables:
        leaf, shape = variable.path.split('/')[-1], variable.shape
        if leaf == 'kernel':
            fan_in = np.prod(shape[:2] if 'dwconv' in variable.path else shape[:-1])
            value = draw.normal(size=shape) * (2 / fan_in) ** 0.5
        elif leaf in ('moving_variance', 'gamma'):
            value = draw.uniform(0.5, 1.5, shape)
        elif leaf in ('bias', 'beta', 'moving_mean'):
            value = draw.normal(size=shape) * 0.2
        else:
            continue
        variable.assign(value.astype(np.float32))


def check(keras, name, model, to_paths, stages, scale=1.0):
    """Compares fer_jax's `name` with a Keras network.

    Args:
      to_paths: of its layers' names.
      stages: stage -> its tensor.
      scale: what the Keras network divides its input by.
    """
    randomise(model)
    paths = to_paths([layer.name for layer in model.layers])
    leaves = {}
    for layer in model.layers:
        for variable in layer.weights if not layer.name.startswith('normalization') else ():
            value = np.asarray(variable.value)
            if 'dwconv' in layer.name:
                value = value.transpose(0, 1, 3, 2)
            leaves[f'{paths[layer.name]}.{LEAVES[variable.path.split("/")[-1]]}'] = value
    params, stats = expected(name, 7)
    scales = {path: np.ones(leaf.shape, np.float32) for path, leaf in params.items() if path.endswith('bn.scale')}
    # Not any draw: where rounding decides the sign of a unit on a map of one pixel, the gradient turns with it.
    x = np.random.default_rng(2).normal(size=(2, *model.input_shape[1:])).astype(np.float32)
    inner = keras.Model(model.inputs[0], [*stages.values(), model.output])

    @jax.jit
    def run(x):
        def loss(x):
            *outputs, logits = inner(scale * x, training=False)
            labels = jnp.arange(len(logits))
            return -jax.nn.log_softmax(logits)[labels, labels].mean(), (outputs, logits)

        return jax.value_and_grad(loss, has_aux=True)(x)

    (_, (outputs, logits)), gradient = jax.tree.map(np.asarray, run(x))
    reference = Reference(logits, dict(zip(stages, outputs, strict=True)), gradient)

    compare(filled(name, scales | leaves, classes=7), x, reference, name=name)


@pytest.mark.slow
def test_inception_resnet_v2(keras):
    keras.layers.Conv2D(1, 1), keras.layers.BatchNormalization()  # automatic names need not begin at 0
    model = keras.applications.InceptionResNetV2(
        weights=None, classes=7, input_shape=(75, 91, 3), classifier_activation=None
    )
    outputs = {'block35': 'block35_10_ac', 'block17': 'block17_20_ac', 'conv_7b': 'conv_7b_ac', 'pool': 'avg_pool'}
    outputs |= {name: name for name in ('mixed_5b', 'mixed_6a', 'mixed_7a')}
    stages = {stage: model.get_layer(layer).output for stage, layer in outputs.items()}
    pools = [layer for layer in model.layers if isinstance(layer, keras.layers.MaxPooling2D)]
    stages |= {'stem': pools[1].output, 'block8': model.get_layer('conv_7b').input}
    check(keras, 'inception_resnet_v2', model, keras_layers.inception_resnet_v2, stages)


@pytest.mark.slow
@pytest.mark.parametrize(('number', 'size'), [(0, (75, 51)), (2, (64, 38))])
def test_efficientnet(keras, number, size):
    constructor = getattr(keras.applications, f'EfficientNetB{number}')
    model = constructor(weights=None, classes=7, input_shape=(*size, 3), classifier_activation=None)
    names = [layer.name for layer in model.layers]
    last = {f'blocks{i}': [name for name in names if name.startswith(f'block{i + 1}')][-1] for i in range(7)}
    last |= {'stem': 'stem_activation', 'conv_head': 'top_activation', 'pool': 'avg_pool'}
    stages = {stage: model.get_layer(name).output for stage, name in last.items()}
    check(keras, f'tf_efficientnet_b{number}', model, keras_layers.efficientnet, stages, scale=255.0)


def test_layers_of_other_networks_have_no_path():
    for to_paths in (keras_layers.inception_resnet_v2, keras_layers.efficientnet, keras_layers.vggface):
        assert to_paths(['block9z_dwconv', 'block1a_expand_conv', 'block35_11_conv', 'conv6_1', 'fc6/relu']) == {}
    assert len(keras_layers.inception_resnet_v2(f'conv2d_{number}' for number in range(1, 205))) == 203


def test_automatic_names_count_from_the_first():
    """Keras 2 files begin at 1, a session's first network at no number."""
    of_file = keras_layers.inception_resnet_v2(['conv2d_1', 'conv2d_2', 'batch_normalization_1', 'block8_10_conv'])
    assert of_file == {
        'conv2d_1': 'conv2d_1a.conv',
        'conv2d_2': 'conv2d_2a.conv',
        'batch_normalization_1': 'conv2d_1a.bn',
        'block8_10_conv': 'block8.conv2d',
    }
    assert keras_layers.inception_resnet_v2(['conv2d', 'conv2d_1'])['conv2d_1'] == 'conv2d_2a.conv'


def test_preprocessing_inside_an_efficientnet_is_read():
    """x / 255 as it is, a normalisation fitted to data, Keras's ImageNet files, where the variance is a deviation."""
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    for variance, expected_std in ((np.ones(3), np.ones(3)), (np.full(3, 0.04), np.full(3, 0.2)), (std, std)):
        look = keras_layers.efficientnet_look(mean, variance, 260)
        assert isinstance(look, Preprocessing) and look.size == 260
        np.testing.assert_allclose(look.mean, mean)
        np.testing.assert_allclose(look.std, expected_std)


def test_vggface_layers_are_those_of_matconvnet():
    """fc6/relu and its like are layers too, without weights."""
    assert keras_layers.vggface(['conv5_3', 'fc6', 'fc6/relu', 'fc8', 'flatten']) == {
        'conv5_3': 'features.28',
        'fc6': 'fc6',
        'fc8': 'head.primary',
    }
    assert len(vgg_layers('vgg16')) == 16
