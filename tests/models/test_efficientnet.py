import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fer_jax.models import kernels, layers
from fer_jax.models.preprocessing import Preprocessing
from tests.models.shapes import parameter_count
from tests.torch_reference import check_torch, timm_model, torchvision_model

INDICES = range(7)
# stage -> the reference's module whose output it is
TIMM = {'stem': 'bn1', **{f'blocks{i}': f'blocks.{i}' for i in INDICES}, 'conv_head': 'bn2', 'pool': 'global_pool'}
TORCHVISION = {'stem': 'features.0', **{f'blocks{i}': f'features.{i + 1}' for i in INDICES}}
TORCHVISION |= {'conv_head': 'features.8', 'pool': 'avgpool'}


def check_timm(name, sizes):
    weights = check_torch(name, timm_model(name, classes=7), TIMM, sizes=sizes)
    stated = pytest.importorskip('timm').get_pretrained_cfg(name)
    assert weights.preprocessing == Preprocessing(
        stated.mean, stated.std, size=stated.input_size[-1], interpolation=stated.interpolation
    )


@pytest.mark.parity
@pytest.mark.slow
@pytest.mark.parametrize('name', ['efficientnet_b0', 'tf_efficientnet_b0'])
def test_equals_timm(name):
    check_timm(name, [(51, 38)])


@pytest.mark.parity
@pytest.mark.campaign
@pytest.mark.parametrize(
    ('name', 'sizes'),
    [
        ('efficientnet_b0', [(75, 64)]),
        ('tf_efficientnet_b0', [(75, 64)]),
        ('efficientnet_b2', [(64, 96), (51, 38)]),
        ('tf_efficientnet_b2', [(64, 96), (51, 38)]),
    ],
)
def test_equals_timm_at_other_sizes_and_depths(name, sizes):
    check_timm(name, sizes)


@pytest.mark.parity
@pytest.mark.slow
@pytest.mark.parametrize('name', ['efficientnet_b0', pytest.param('efficientnet_b2', marks=pytest.mark.campaign)])
def test_equals_torchvision(name):
    weights = check_torch(name, torchvision_model(name, classes=7), TORCHVISION, sizes=[(75, 51)])
    stated = pytest.importorskip('torchvision').models.get_model_weights(name).DEFAULT.transforms()
    assert weights.preprocessing == Preprocessing(
        tuple(stated.mean), tuple(stated.std), size=stated.crop_size[0], interpolation=stated.interpolation.value
    )


@pytest.mark.parametrize(('number', 'expected'), [(0, 5_288_548), (2, 9_109_994)])
@pytest.mark.parametrize('prefix', ['', 'tf_'])
def test_parameter_count_is_the_published_one(prefix, number, expected):
    """Counts from torchvision's documentation."""
    assert parameter_count(f'{prefix}efficientnet_b{number}') == expected


def test_initialisation_of_the_gates_is_timms():
    """Normal with variance 2 / fan out, biases 0; the rest is tested on a Lite."""
    gate = layers.SqueezeExcite(
        576, 24, act=nnx.silu, dtype=jnp.float32, kernels=kernels.choose('lax'), rngs=nnx.Rngs(0)
    )
    for layer, outputs in ((gate.conv_reduce, 24), (gate.conv_expand, 576)):
        leaf = layer.kernel[...]
        np.testing.assert_allclose(leaf.std(), (2 / outputs) ** 0.5, rtol=5 / leaf.size**0.5)
        assert (layer.bias[...] == 0).all()
