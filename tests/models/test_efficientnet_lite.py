import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fer_jax import models
from fer_jax.models.parameters import flatten
from tests.models.shapes import parameter_count
from tests.torch_reference import check_torch, declare_torchvision_operators, timm_model

POINTS = {'stem': 'bn1', **{f'blocks{index}': f'blocks.{index}' for index in range(7)}, 'conv_head': 'bn2'}


@pytest.mark.slow
@pytest.mark.parity
def test_equals_timm():
    """Odd sizes too: TensorFlow's SAME padding is asymmetric, and depends on the size."""
    module = timm_model('tf_efficientnet_lite0', classes=7)
    check_torch('efficientnet_lite0', module, POINTS, sizes=((75, 96),), train_size=(64, 64))


@pytest.mark.parity
@pytest.mark.campaign
@pytest.mark.parametrize('name', ['efficientnet_lite1', 'efficientnet_lite2'])
def test_the_larger_ones_equal_timm(name):
    check_torch(name, timm_model(f'tf_{name}', classes=7), POINTS, sizes=((51, 64), (75, 51)))


@pytest.mark.parametrize(('number', 'millions'), [(0, 4.65), (1, 5.42), (2, 6.09)])
def test_parameter_count_is_the_published_one(number, millions):
    """4.7M, 5.4M and 6.1M by the TPU repository's table, with one more digit in timm's results."""
    assert round(parameter_count(f'efficientnet_lite{number}') / 1e6, 2) == millions


def test_initialisation_is_timms():
    """Normal with variance 2 / fan out, by group; the head uniform to 1/sqrt(outputs) with bias 0."""
    params = flatten(nnx.state(models.create('efficientnet_lite0', classes=1000, rngs=nnx.Rngs(0)), nnx.Param))
    for path, leaf in params.items():
        leaf = np.asarray(leaf)
        if path == 'head.primary.kernel':
            assert 0.99 * 1000**-0.5 < np.abs(leaf).max() <= 1000**-0.5
            np.testing.assert_allclose(leaf.std(), 1000**-0.5 / 3**0.5, rtol=0.02)
        elif leaf.ndim == 4:
            groups = leaf.shape[3] if 'conv_dw' in path else 1
            expected = (2 * groups / (leaf.shape[0] * leaf.shape[1] * leaf.shape[3])) ** 0.5
            np.testing.assert_allclose(leaf.std(), expected, rtol=5 / leaf.size**0.5, err_msg=path)
            np.testing.assert_allclose(leaf.mean(), 0, atol=5 * expected / leaf.size**0.5, err_msg=path)
        else:
            assert (leaf == (1 if path.endswith('scale') else 0)).all(), path


def test_initialisation_has_the_spread_of_timms_own():
    torch = pytest.importorskip('torch')
    declare_torchvision_operators()  # timm imports torchvision
    timm = pytest.importorskip('timm')
    torch.manual_seed(0)
    reference = timm.create_model('tf_efficientnet_lite0', pretrained=False, num_classes=1000)
    ours = flatten(nnx.state(models.create('efficientnet_lite0', classes=1000, rngs=nnx.Rngs(0)), nnx.Param))
    for theirs, path in (
        (reference.conv_stem, 'conv_stem'),
        (reference.blocks[3][1].conv_dw, 'blocks.3.1.conv_dw'),
        (reference.blocks[5][2].conv_pwl, 'blocks.5.2.conv_pwl'),
        (reference.classifier, 'head.primary'),
    ):
        leaf = ours[f'{path}.kernel']
        np.testing.assert_allclose(jnp.std(leaf), theirs.weight.std().item(), rtol=7 / leaf.size**0.5, err_msg=path)
