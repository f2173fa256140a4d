import pytest

from fer_jax.models.googlenet import BLOCKS
from fer_jax.pretrained import convert
from tests.models.shapes import parameter_count
from tests.torch_reference import check_torch, declare_torchvision_operators, randomised, state_of

POINTS = {'stem': 'maxpool2', **{name: name for name in BLOCKS}, 'pool': 'avgpool'}
POINTS |= {'inception3b': 'maxpool3', 'inception4e': 'maxpool4'}


@pytest.mark.slow
@pytest.mark.parity
def test_equals_torchvision():
    """Maps of odd and of even size, over whose edge a pooling window reaches or not."""
    pytest.importorskip('torch')
    declare_torchvision_operators()
    torchvision = pytest.importorskip('torchvision')

    def make():
        return torchvision.models.googlenet(weights=None, num_classes=7, init_weights=False)

    module = randomised(make)
    weights = convert(state_of(module), 'googlenet', metadata={})
    assert weights.metadata['left'].startswith('18 other arrays (aux1.conv.conv.weight')
    assert weights.preprocessing.mean == (0.5, 0.5, 0.5)
    module.aux1 = module.aux2 = None
    check_torch('googlenet', module, POINTS, sizes=((51, 38),))


def test_parameter_count_is_torchvisions():
    """Its page's count has the auxiliary heads, which are in the file of weights and not here."""
    auxiliary = sum(128 * features + 256 + 2048 * 1024 + 1024 + 1024 * 1000 + 1000 for features in (512, 528))
    assert parameter_count('googlenet') == 13_004_888 - auxiliary == 6_624_904
