import jax
import numpy as np
import pytest
from flax import nnx

from fer_jax import models
from fer_jax.models.parameters import flatten
from fer_jax.pretrained import convert
from fer_jax.pretrained.convert import expected
from tests.models.shapes import parameter_count
from tests.parity import compare, filled, forward
from tests.torch_reference import (
    check_torch,
    state_of,
    timm_model,
    torch_logits,
    torch_reference,
    torchvision_model,
)

POINTS = {'stem': 'maxpool'} | {stage: stage for stage in ('layer1', 'layer2', 'layer3', 'layer4')}


@pytest.mark.parity
@pytest.mark.parametrize('name', ['resnet18', pytest.param('resnet50', marks=pytest.mark.slow)])
def test_equals_torchvision(name):
    check_torch(name, torchvision_model(name, classes=7), POINTS, sizes=((75, 64),), train_size=(64, 64))


@pytest.mark.parity
@pytest.mark.campaign
@pytest.mark.parametrize('name', ['resnet34', 'resnet101', 'resnet152'])
def test_the_deep_ones_equal_torchvision(name):
    check_torch(name, torchvision_model(name, classes=7), POINTS, sizes=((51, 64), (64, 48)))


@pytest.mark.slow
@pytest.mark.parity
def test_equals_torchvision_at_native_fer2013_size():
    """At 48 px layer4 works on 2x2 maps, where the CPU takes other kernels."""
    module = torchvision_model('resnet18', classes=7)
    check_torch('resnet18', module, POINTS, sizes=((48, 48), (33, 47)), train_size=(48, 48))


@pytest.mark.parity
def test_grey_stem_equals_torchvision():
    reference = torchvision_model('resnet18', classes=7, channels=1)
    state = state_of(reference)
    weights = convert(state | {'conv1.weight': state['conv1.weight'].repeat(3, 1)}, 'resnet18', metadata={})
    stem = {'conv1.kernel': weights.params['conv1.kernel'][:, :, :1]}
    model = filled('resnet18', weights.params | weights.stats | stem, classes=7, channels=1)
    x = np.random.default_rng(1).normal(size=(2, 64, 64, 1)).astype(np.float32)
    expected = torch_logits(reference, x)
    np.testing.assert_allclose(forward(model, x)[0], expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parity
@pytest.mark.slow
def test_senet50_equals_timm():
    """timm's legacy_seresnet50 is VGGFace2's network but for its names; even and odd sides of the ceil-mode pool."""

    points = {'stem': 'pool0', **{f'layer{n}': f'layer{n}' for n in range(1, 5)}, 'pool': 'global_pool'}
    check_torch('senet50_caffe', timm_model('legacy_seresnet50', classes=7), points, sizes=((51, 44),))


@pytest.mark.parity
@pytest.mark.slow
def test_caffes_resnet50_equals_timms_senet_without_its_gates():
    module = timm_model('legacy_seresnet50', classes=7)
    for child in module.modules():
        if hasattr(child, 'se_module'):
            child.se_module = type(module.layer0)()  # an empty Sequential: the identity
    state = {name.replace('layer0.', '').replace('last_linear', 'fc'): leaf for name, leaf in state_of(module).items()}
    weights = convert(state, 'resnet50_caffe', metadata={})
    model = filled('resnet50_caffe', weights.params | weights.stats, classes=7)
    points = {'stem': 'pool0', **{f'layer{n}': f'layer{n}' for n in range(1, 5)}, 'pool': 'global_pool'}
    x = np.random.default_rng(0).normal(size=(2, 51, 44, 3)).astype(np.float32)
    compare(model, x, torch_reference(module, x, points), name='resnet50_caffe')


def test_vggface2_names_are_read():
    """fc1 and fc2 of a squeeze-and-excite are conv4 and conv5 there; the mean is subtracted from blue first."""
    params, stats = expected('senet50_caffe', 8631)
    modules = {'head.primary': 'fc', 'conv_reduce': 'conv4', 'conv_expand': 'conv5'}
    leaves = {'scale': 'weight', 'kernel': 'weight', 'bias': 'bias', 'mean': 'running_mean', 'var': 'running_var'}
    entries = {}
    for path, leaf in (params | stats).items():
        module, _, kind = path.rpartition('.')
        for ours, theirs in modules.items():
            module = module.replace(f'se.{ours}', theirs).replace(ours, theirs)
        order = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}[leaf.ndim]
        shape = [leaf.shape[axis] for axis in order]
        entries[f'{module}.{leaves[kind]}'] = np.broadcast_to(np.float32(0), shape)
    weights = convert(entries, 'senet50_caffe', metadata={})
    preprocessing = weights.preprocessing
    assert weights.metadata['classes'] == '8631' and preprocessing.order == 'BGR'
    pixels = np.array([1.0, 2.0, 3.0])
    np.testing.assert_allclose(
        (pixels / 255 - preprocessing.mean) / preprocessing.std, pixels - [91.4953, 103.8827, 131.0912]
    )
    plain = {name: leaf for name, leaf in entries.items() if 'conv4' not in name and 'conv5' not in name}
    assert convert(plain, 'resnet50_caffe', metadata={}).preprocessing == preprocessing


@pytest.mark.parametrize(
    ('name', 'published'),
    [
        ('resnet18', 11_689_512),
        ('resnet34', 21_797_672),
        ('resnet50', 25_557_032),
        ('resnet101', 44_549_160),
        ('resnet152', 60_192_808),
        ('senet50_caffe', 28_088_024),  # timm's results table: 28.09 million
    ],
)
def test_parameter_count_is_torchvisions(name, published):
    """Counts from torchvision's documentation."""
    assert parameter_count(name) == published


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


@pytest.mark.slow
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
