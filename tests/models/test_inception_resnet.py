import numpy as np
import pytest

from fer_jax import models
from fer_jax.data.tasks import PRIMARY
from fer_jax.errors import UserError
from fer_jax.models.network import ModelSpec, build
from fer_jax.models.preprocessing import Preprocessing
from tests.models.shapes import parameter_count, shapes_of
from tests.torch_reference import check_torch, randomised, timm_model

# stage -> the reference's module whose output it is
BLOCKS_V1 = ('repeat_1', 'mixed_6a', 'repeat_2', 'mixed_7a', 'repeat_3', 'block8')
STAGES_V1 = {'stem': 'conv2d_4b', **{name: name for name in BLOCKS_V1}, 'pool': 'avgpool_1a', 'embedding': 'last_bn'}
STAGES_V2 = {
    'stem': 'maxpool_5a',
    'mixed_5b': 'mixed_5b',
    'block35': 'repeat',
    'mixed_6a': 'mixed_6a',
    'block17': 'repeat_1',
    'mixed_7a': 'mixed_7a',
    'block8': 'block8',
    'conv_7b': 'conv2d_7b',
    'pool': 'global_pool',
}


@pytest.mark.parity
@pytest.mark.slow
def test_v2_equals_timm():
    module = timm_model('inception_resnet_v2', classes=7)
    weights = check_torch('inception_resnet_v2', module, STAGES_V2, sizes=((75, 96),))
    stated = pytest.importorskip('timm').get_pretrained_cfg('inception_resnet_v2')
    assert weights.preprocessing == Preprocessing(
        stated.mean, stated.std, size=stated.input_size[-1], interpolation=stated.interpolation
    )


@pytest.mark.parity
@pytest.mark.campaign
def test_v2_equals_timm_at_other_sizes():
    module = timm_model('inception_resnet_v2', classes=7)
    check_torch('inception_resnet_v2', module, STAGES_V2, sizes=((80, 91), (139, 107)))


@pytest.mark.parity
@pytest.mark.slow
def test_v1_equals_facenet_pytorch():
    pytest.importorskip('torch')
    facenet = pytest.importorskip('facenet_pytorch')
    module = randomised(lambda: facenet.InceptionResnetV1(classify=True, num_classes=7))
    weights = check_torch('inception_resnet_v1', module, STAGES_V1, sizes=((75, 96),))
    preprocessing, pixels = weights.preprocessing, np.arange(256.0)
    np.testing.assert_allclose(
        (pixels / 255 - preprocessing.mean[0]) / preprocessing.std[0], (pixels - 127.5) / 128, atol=1e-6
    )
    assert preprocessing.size == 160


@pytest.mark.parametrize(
    ('name', 'classes', 'expected'),
    [
        ('inception_resnet_v2', 1000, 55_843_464),  # timm's results table: 55.84 million
        ('inception_resnet_v1', 8631, 27_910_327),
        ('inception_resnet_v1', 10575, 28_907_599),
    ],
)
def test_parameter_count_is_the_published_one(name, classes, expected):
    assert parameter_count(name, classes) == expected


def test_classic_head_stands_on_the_embedding():
    """And on the 7x7 map of v2, as on other backbones."""
    assert shapes_of('inception_resnet_v1', head='mlp').head.fc6.kernel.shape == (512, 4096)
    assert shapes_of('inception_resnet_v2', head='mlp').head.fc6.kernel.shape == (49 * 1536, 4096)


@pytest.mark.parametrize('name', ['inception_resnet_v1', 'inception_resnet_v2'])
def test_a_smaller_image_than_75_is_refused(name):
    with pytest.raises(UserError, match=r'74 pixels are too small for InceptionResNet.*75 or more'):
        build(ModelSpec(name, {PRIMARY: ('a', 'b')}, 74))
    with pytest.raises(UserError, match='74 pixels'):
        models.run(shapes_of(name), np.zeros((1, 90, 74, 3), np.float32))
