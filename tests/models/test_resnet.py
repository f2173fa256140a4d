import jax
import numpy as np
import pytest
from flax import nnx

from fer_jax import models
from fer_jax.partition import flatten
from tests.parity import filled, forward, reference_logits, renamed, state_of, torch_model
from tests.torch_reference import check_parity

POINTS = {'stem': 'maxpool'} | {stage: stage for stage in ('layer1', 'layer2', 'layer3', 'layer4')}


@pytest.mark.parametrize('name', ['resnet18', pytest.param('resnet34', marks=pytest.mark.slow), 'resnet50'])
def test_equals_torchvision(name):
    check_parity(name, sizes=((75, 51), (64, 64)), train_size=(64, 64), points=POINTS)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['resnet101', 'resnet152'])
def test_the_deep_ones_equal_torchvision(name):
    check_parity(name, sizes=((51, 64),), points=POINTS)


def test_equals_torchvision_at_native_fer2013_size():
    """At 48 px layer4 works on 2x2 maps, where the CPU takes other kernels."""
    check_parity('resnet18', sizes=((48, 48), (33, 47)), train_size=(48, 48), points=POINTS)


def test_grey_stem_equals_torchvision():
    reference = torch_model('resnet18', classes=7, channels=1)
    model = filled('resnet18', renamed(state_of(reference)), classes=7, channels=1)
    x = np.random.default_rng(1).normal(size=(2, 64, 64, 1)).astype(np.float32)
    expected = reference_logits(reference, x)
    np.testing.assert_allclose(forward(model, x)[0], expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('resnet18', 11_689_512),
        ('resnet34', 21_797_672),
        ('resnet50', 25_557_032),
        ('resnet101', 44_549_160),
        ('resnet152', 60_192_808),
    ],
)
def test_parameter_count_is_torchvisions(name, expected):
    """Counts from torchvision's documentation."""
    made = nnx.eval_shape(lambda: models.create(name, classes=1000, rngs=nnx.Rngs(0)))
    assert sum(leaf.size for leaf in flatten(nnx.state(made, nnx.Param)).values()) == expected


def test_initialisation_is_torchvisions():
    """He initialisation by fan out for convolutions, U(-1/sqrt(512), 1/sqrt(512)) for the head."""
    params = flatten(nnx.state(models.create('resnet18', classes=1000, rngs=nnx.Rngs(0)), nnx.Param))
    for path, leaf in params.items():
        leaf = np.asarray(leaf)
        if path.startswith('head.'):
            bound = 512**-0.5
            assert 0.99 * bound < np.abs(leaf).max() <= bound
            np.testing.assert_allclose(leaf.std(), bound / 3**0.5, rtol=0.05)
        elif leaf.ndim == 4:
            height, width, _, features_out = leaf.shape
            expected = (2 / (height * width * features_out)) ** 0.5
            np.testing.assert_allclose(leaf.std(), expected, rtol=0.05, err_msg=path)
            np.testing.assert_allclose(leaf.mean(), 0, atol=5 * expected / leaf.size**0.5, err_msg=path)
            kurtosis = ((leaf - leaf.mean()) ** 4).mean() / leaf.var() ** 2
            np.testing.assert_allclose(kurtosis, 3, atol=0.3, err_msg=path)  # normal, neither truncated nor uniform
        else:
            assert (leaf == (1 if path.endswith('scale') else 0)).all(), path


def test_trains_inside_value_and_grad():
    """BatchNorm in training mode writes its statistics; the module is merged inside the differentiated function."""
    model = models.create('resnet18', classes=7, channels=1, rngs=nnx.Rngs(0))
    graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    x = jax.random.normal(jax.random.key(0), (8, 32, 32, 1))

    @jax.jit
    def gradients(params, stats):
        def loss(params):
            network = nnx.merge(graphdef, params, stats, copy=True)
            logits = models.run(network, x, train=tuple(network.stages))['primary']
            return -jax.nn.log_softmax(logits)[:, 3].mean(), nnx.state(network, nnx.BatchStat)

        return jax.grad(loss, has_aux=True)(params)

    grads, after = gradients(params, stats)
    for path, leaf in flatten(grads).items():
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0, path
    for path, leaf in flatten(after).items():
        assert not np.array_equal(leaf, flatten(stats)[path]), path
