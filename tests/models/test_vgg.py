import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from fer_jax import models
from fer_jax.models.network import ModelSpec, build
from fer_jax.models.parameters import Variables, flatten
from fer_jax.models.vgg import layout
from fer_jax.pretrained import convert_file
from tests.keras_parity import import_keras
from tests.models.shapes import parameter_count, shapes_of
from tests.parity import deviation
from tests.real_weights import weight_file
from tests.torch_reference import check_torch, torchvision_model


def points(name):
    """The pools that end the blocks, and the classifier's ReLUs."""
    pools = {f'block{number}': f'features.{block[-1][1]}' for number, block in enumerate(layout(name), 1)}
    return pools | {'fc6': 'classifier.1', 'fc7': 'classifier.4'}


@pytest.mark.parity
@pytest.mark.slow
@pytest.mark.parametrize('name', ['vgg16', 'vgg16_bn'])
def test_equals_torchvision(name):
    module = torchvision_model(name, classes=7)
    check_torch(name, module, points(name), sizes=((75, 64),), train_size=(64, 64) if name.endswith('bn') else None)


@pytest.mark.parity
@pytest.mark.campaign
@pytest.mark.parametrize('name', ['vgg11', 'vgg11_bn', 'vgg13', 'vgg13_bn', 'vgg19', 'vgg19_bn'])
def test_the_other_depths_equal_torchvision(name):
    check_torch(name, torchvision_model(name, classes=7), points(name), sizes=((51, 64), (75, 51)))


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('vgg11', 132_863_336),
        ('vgg11_bn', 132_868_840),
        ('vgg13', 133_047_848),
        ('vgg13_bn', 133_053_736),
        ('vgg16', 138_357_544),
        ('vgg16_bn', 138_365_992),
        ('vgg19', 143_667_240),
        ('vgg19_bn', 143_678_248),
    ],
)
def test_parameter_count_is_torchvisions(name, expected):
    """Counts from torchvision's documentation."""
    assert parameter_count(name) == expected


@pytest.mark.slow
def test_initialisation_is_torchvisions():
    """He initialisation by fan out, linear layers N(0, 0.01), biases 0."""
    params = flatten(nnx.state(models.create('vgg16_bn', classes=1000, rngs=nnx.Rngs(0)), nnx.Param))
    for path, leaf in params.items():
        leaf = np.asarray(leaf)[..., :: 8 if leaf.ndim == 2 else 1]
        if leaf.ndim == 1:
            assert (leaf == (1 if path.endswith('scale') else 0)).all(), path
        else:
            expected = 0.01 if leaf.ndim == 2 else (2 / (9 * leaf.shape[3])) ** 0.5
            np.testing.assert_allclose(leaf.std(), expected, rtol=0.05, err_msg=path)
            np.testing.assert_allclose(leaf.mean(), 0, atol=5 * expected / leaf.size**0.5, err_msg=path)


def test_classic_head_takes_the_place_of_fc6_and_fc7():
    made = shapes_of('vgg16', head='mlp')
    shapes = {path: leaf.shape for path, leaf in flatten(nnx.state(made, nnx.Param)).items()}
    assert list(made.stages) == ['block1', 'block2', 'block3', 'block4', 'block5', 'pool', 'head']
    assert {path: shape for path, shape in shapes.items() if not path.startswith('features')} == {
        'head.fc6.kernel': (25088, 4096),
        'head.fc6.bias': (4096,),
        'head.fc7.kernel': (4096, 4096),
        'head.fc7.bias': (4096,),
        'head.primary.kernel': (4096, 7),
        'head.primary.bias': (7,),
    }


@pytest.mark.slow
def test_real_weights_equal_keras(shared_data, monkeypatch):
    """Every block on 50 photographs, from a real file of VGG16 without top; block 5 may not be ImageNet's."""
    file = weight_file(shared_data, 'vgg16_imagenet_notop.h5')
    keras = import_keras(monkeypatch)
    images = [Image.open(path) for path in sorted((shared_data / 'imagenet_sample').iterdir())]
    photographs = np.stack([np.asarray(image.convert('RGB').resize((48, 48))) for image in images])
    reference = keras.applications.VGG16(weights=None, include_top=False, input_shape=(48, 48, 3))
    reference.load_weights(file)
    blocks = [f'block{number}' for number in range(1, 6)]
    outputs = keras.Model(reference.inputs[0], [reference.get_layer(f'{block}_pool').output for block in blocks])
    expected = outputs(keras.applications.vgg16.preprocess_input(photographs.astype(np.float32)))
    weights = convert_file(file, 'vgg16', source='x', licence='y')
    network = build(ModelSpec('vgg16', {'primary': ('a', 'b')}, 48, head='mlp'))

    @jax.jit
    def outputs_of(params, x):
        entering = {}
        network.forward(Variables(params, {}), x, seen=entering)
        return [entering[stage] for stage in (*blocks[1:], 'pool')]

    ours = outputs_of(dict(weights.params), weights.preprocessing.normalise(photographs))
    for block, output, values in zip(blocks, ours, expected, strict=True):
        assert deviation(np.asarray(output), np.asarray(values)) < 1e-4, block
