import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fer_jax import models
from fer_jax.errors import UserError
from fer_jax.models import layers
from fer_jax.models.kernels import choose
from fer_jax.models.layers import drop_branch
from tests.lazy import lazy

torch = lazy('torch', optional=True)


def _torch(x):
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


def _draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize('eps', [1e-5, 1e-3])
@pytest.mark.parametrize('train', [False, True])
def test_batch_norm_equals_torch(train, eps):
    """Outputs, gradients, and the statistics after three passes over data far from zero mean."""
    ours, theirs = layers.BatchNorm(5, eps=eps), torch.nn.BatchNorm2d(5, eps=eps).train(train)
    scale, bias, mean = _draw(5, seed=1), _draw(5, seed=2), _draw(5, seed=3)
    var = np.abs(_draw(5, seed=4)) + 0.5
    with torch.no_grad():
        for tensor, variable, value in (
            (theirs.weight, ours.scale, scale),
            (theirs.bias, ours.bias, bias),
            (theirs.running_mean, ours.mean, mean),
            (theirs.running_var, ours.var, var),
        ):
            tensor.copy_(torch.from_numpy(value))
            variable[...] = jnp.asarray(value)
    for step in range(3):
        x, weights = 3 * _draw(2, 3, 4, 5, seed=step) + 10, _draw(2, 3, 4, 5, seed=step + 10)
        leaf = _torch(x).requires_grad_()
        expected = theirs(leaf)
        theirs.zero_grad()
        (expected * _torch(weights)).sum().backward()
        graphdef, params, stats = nnx.split(ours, nnx.Param, nnx.BatchStat)

        def weighted(params, x, graphdef=graphdef, stats=stats, weights=weights):
            layer = nnx.merge(graphdef, params, stats, copy=True)
            y = layer(x, train=train)
            return (y * weights).sum(), y

        (_, y), (gradients, of_x) = jax.value_and_grad(weighted, (0, 1), has_aux=True)(params, x)
        ours(jnp.asarray(x), train=train)
        close = {'rtol': 1e-4, 'atol': 2e-5}
        np.testing.assert_allclose(np.moveaxis(y, -1, 1), expected.detach().numpy(), **close)
        np.testing.assert_allclose(np.moveaxis(of_x, -1, 1), leaf.grad.numpy(), **close)
        np.testing.assert_allclose(gradients['scale'][...], theirs.weight.grad.numpy(), **close)
        np.testing.assert_allclose(gradients['bias'][...], theirs.bias.grad.numpy(), **close)
    np.testing.assert_allclose(ours.mean[...], theirs.running_mean.numpy(), rtol=1e-5)
    np.testing.assert_allclose(ours.var[...], theirs.running_var.numpy(), rtol=1e-5)


def test_batch_norm_keeps_float32_statistics_in_bfloat16():
    layer = layers.BatchNorm(3)
    x = jnp.asarray(_draw(64, 4, 4, 3) + 2, jnp.bfloat16)
    assert layer(x, train=True).dtype == jnp.bfloat16
    assert layer.mean[...].dtype == layer.var[...].dtype == jnp.float32
    exact = np.asarray(x, np.float64)
    np.testing.assert_allclose(layer.mean[...], 0.1 * exact.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(layer.var[...], 0.9 + 0.1 * exact.var((0, 1, 2), ddof=1), rtol=1e-5)


@pytest.mark.parametrize('shape', [(7, 7), (14, 21), (1, 1), (2, 3), (10, 9), (23, 8)])
@pytest.mark.parametrize('size', [7, 1])
def test_adaptive_average_pool_equals_torch(shape, size):
    x = _draw(2, *shape, 3)
    expected = torch.nn.functional.adaptive_avg_pool2d(_torch(x), size).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(layers.adaptive_average_pool(jnp.asarray(x), size), expected, rtol=1e-5, atol=1e-6)


def test_flattening_is_torchs():
    x = _draw(2, 3, 4, 5)
    np.testing.assert_array_equal(layers.flatten_channels_first(x), _torch(x).flatten(1).numpy())


@pytest.mark.parametrize('rate', [0.2, 0.5])
def test_dropout(rate):
    x = jnp.ones((200, 500))
    y = np.asarray(layers.dropout(x, rate, train=True, key=jax.random.key(0)))
    np.testing.assert_allclose(np.unique(y), [0, 1 / (1 - rate)], rtol=1e-6)
    dropped = (y == 0).mean()
    assert abs(dropped - rate) < 5 * (rate * (1 - rate) / y.size) ** 0.5
    assert layers.dropout(x, rate, train=False, key=None) is x
    assert layers.dropout(x, 0.0, train=True, key=None) is x
    with pytest.raises(ValueError, match='key'):
        layers.dropout(x, rate, train=True, key=None)


def test_classic_head_equals_torch():
    """torchvision's VGG classifier, on a map that its own pooling would leave as it is."""
    head = layers.Head(
        'mlp', 7 * 7 * 4, {'primary': 7}, rate=0.0, kernel_init=None, dtype=jnp.float32, rngs=nnx.Rngs(0)
    )
    reference = torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(7 * 7 * 4, 4096),
        torch.nn.ReLU(),
        torch.nn.Linear(4096, 4096),
        torch.nn.ReLU(),
        torch.nn.Linear(4096, 7),
    )
    for layer, position in ((head.fc6, 1), (head.fc7, 3), (head.primary, 5)):
        layer.kernel[...] = jnp.asarray(reference[position].weight.detach().numpy().T)
        layer.bias[...] = jnp.asarray(reference[position].bias.detach().numpy())
    x = _draw(3, 7, 7, 4)
    with torch.no_grad():
        expected = reference(_torch(x)).numpy()
    np.testing.assert_allclose(head(jnp.asarray(x), train=False, key=None)['primary'], expected, atol=1e-5)
    first, second = (head(jnp.asarray(x), train=True, key=jax.random.key(k))['primary'] for k in (0, 1))
    assert np.abs(first - second).max() > 1e-3


def test_conv_pads_as_torch():
    """Strided, with an even input: torch pads both sides alike, TensorFlow's SAME does not."""
    layer = layers.conv(3, 4, 7, stride=2, bias=True, dtype=jnp.float32, kernels=choose(), rngs=nnx.Rngs(0))
    reference = torch.nn.Conv2d(3, 4, 7, 2, 3)
    layer.kernel[...] = jnp.asarray(reference.weight.detach().numpy().transpose(2, 3, 1, 0))
    layer.bias[...] = jnp.asarray(reference.bias.detach().numpy())
    x = _draw(2, 16, 13, 3)
    with torch.no_grad():
        expected = reference(_torch(x)).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(layer(jnp.asarray(x)), expected, atol=1e-5)


def test_a_dropped_branch_is_dropped_for_whole_examples():
    y = jnp.ones((4000, 2, 3))
    dropped = np.asarray(drop_branch(y, 0.25, train=True, key=jax.random.key(0)))
    assert set(np.unique(dropped)) == {np.float32(0), np.float32(1 / 0.75)}
    assert (dropped == dropped[:, :1, :1]).all()
    np.testing.assert_allclose(dropped[:, 0, 0].mean(), 1, atol=4 * (0.25 / 0.75 / 4000) ** 0.5)
    assert drop_branch(y, 0.25, train=False, key=None) is y and drop_branch(y, 0.0, train=True, key=None) is y
    with pytest.raises(ValueError, match='needs a key'):
        drop_branch(y, 0.25, train=True, key=None)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['resnet18', 'efficientnet_lite0', 'resnet50_v2'])
def test_stochastic_depth_grows_with_depth_and_is_off_in_evaluation(name):
    made = models.create(name, classes=3, stochastic_depth=0.5, rngs=nnx.Rngs(0))
    layers = [getattr(made, f'layer{number}') for number in range(1, 5)] if 'resnet' in name else made.blocks
    rates = [block.drop for stage in layers for block in stage]
    np.testing.assert_allclose(rates, np.linspace(0, 0.5, len(rates)))
    if name == 'resnet18':
        x = jax.random.normal(jax.random.key(1), (6, 32, 32, 3))
        plain = models.create(name, classes=3, rngs=nnx.Rngs(0))
        assert np.array_equal(models.run(made, x)['primary'], models.run(plain, x)['primary'])
        keys = jax.random.split(jax.random.key(2))
        one, other = (models.run(made, x, train=('layer4',), key=key)['primary'] for key in keys)
        assert not np.allclose(one, other)


def test_a_network_without_residual_blocks_has_no_stochastic_depth():
    with pytest.raises(UserError, match=r'model.stochastic_depth=0.1 for vgg11; .* of a ResNet or EfficientNet'):
        models.create('vgg11', classes=3, stochastic_depth=0.1, rngs=nnx.Rngs(0))
