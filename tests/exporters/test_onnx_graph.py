"""Graphs in onnxruntime against the networks that they were made of."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.data.tasks import PRIMARY
from fer_jax.errors import UserError
from fer_jax.exporters import onnx_graph
from fer_jax.models.network import ModelSpec, build
from fer_jax.models.parameters import Variables
from tests.lazy import lazy

onnxruntime = lazy('onnxruntime', optional=True)


NETWORKS = [
    ('resnet8_small', 24, {'channels': 1, 'mean': (0.4,), 'std': (0.3,)}),
    ('resnet18', 32, {'head_inputs': ('layer3', 'layer4')}),
    pytest.param('senet50_caffe', 32, {'order': 'BGR'}, marks=pytest.mark.slow),
    pytest.param('resnet50_v2', 32, {}, marks=pytest.mark.slow),
    ('resnet8_small', 16, {'activation': 'sigmoid', 'head': 'mlp'}),
    pytest.param('vgg11_bn', 32, {'activation': 'sigmoid'}, marks=pytest.mark.campaign),
    pytest.param('tf_efficientnet_b0', 32, {'head': 'mlp'}, marks=pytest.mark.campaign),
    pytest.param('efficientnet_lite0', 32, {}, marks=pytest.mark.campaign),
    pytest.param('inception_resnet_v1', 80, {}, marks=pytest.mark.campaign),
    pytest.param('mobilenet_v1_025', 32, {}, marks=pytest.mark.campaign),
    pytest.param('mobilenet_v1_folded', 32, {'order': 'BGR'}, marks=pytest.mark.campaign),
    pytest.param('dlib_resnet', 71, {}, marks=pytest.mark.campaign),
    pytest.param('googlenet', 32, {}, marks=pytest.mark.campaign),
    pytest.param('inception_resnet_v2', 80, {}, marks=pytest.mark.campaign),
]


def in_onnxruntime(function, shape):
    model = onnx_graph.convert(function, shape, names=('x', 'y'), metadata={'made': 'here'})
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=['CPUExecutionProvider'])
    assert session.get_modelmeta().custom_metadata_map == {'made': 'here'}
    return lambda x: session.run(['y'], {'x': x})[0]


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'size', 'options'), NETWORKS)
def test_a_network_says_the_same_for_any_batch(name, size, options):
    spec = ModelSpec(name, {PRIMARY: ('a', 'b', 'c')}, size, **options)
    plain, usual = build(spec, kernels='lax'), build(spec)
    params, stats = plain.init(0)
    random = np.random.default_rng(0)
    stats = {path: leaf + random.uniform(0, 0.1, leaf.shape).astype(np.float32) for path, leaf in stats.items()}

    def scores(images, network):
        return network.forward(Variables(params, stats), network.normalise(images.astype(jnp.float32)))[0][PRIMARY]

    graph = in_onnxruntime(functools.partial(scores, network=plain), (size, size, 3))
    images = random.integers(0, 256, (3, size, size, 3), np.uint8)
    ours = np.asarray(jax.jit(functools.partial(scores, network=usual))(images))
    for count in (1, 3):
        np.testing.assert_allclose(graph(images[:count]), ours[:count], rtol=1e-4, atol=1e-4 * np.abs(ours).max())


def test_operations_against_numpy():
    held = np.arange(12, dtype=np.float32).reshape(3, 4) / 7

    def function(images):
        x = images.astype(jnp.float32)
        rows = x[:, 1:, ::-1, 0] @ held + jnp.where(True, held.sum(), 0)
        return jnp.concatenate([rows**2, jnp.tanh(rows.min(1, keepdims=True)) * jnp.ones((2, 4))], axis=1)

    images = np.random.default_rng(1).integers(0, 9, (5, 3, 3, 2), np.uint8)
    rows = images.astype(np.float64)[:, 1:, ::-1, 0] @ held + held.sum()
    wanted = np.concatenate([rows**2, np.tanh(rows.min(1, keepdims=True)) * np.ones((2, 4))], axis=1)
    np.testing.assert_allclose(in_onnxruntime(function, (3, 3, 2))(images), wanted, rtol=1e-5)


def test_what_is_broadcast_is_there_as_often_as_jax_says():
    held = np.arange(20, dtype=np.float32).reshape(4, 5)

    def function(images, numbers=jnp):
        x = images.astype(np.float32)[:, :, None]
        spread = numbers.broadcast_to(x, (x.shape[0], 3, 4))
        parts = spread.sum(2), spread.reshape(-1, 12), spread[:, 1, 2:], (spread @ held)[:, 0]
        return numbers.concatenate(parts, 1)

    images = np.random.default_rng(1).integers(0, 9, (5, 3), np.uint8)
    np.testing.assert_allclose(in_onnxruntime(function, (3,))(images), function(images, np), rtol=1e-6)
    wide = in_onnxruntime(lambda x: jnp.broadcast_to(x[:, :1], (x.shape[0], 7)), (3,))
    np.testing.assert_array_equal(wide(images), np.repeat(images[:, :1], 7, 1))


def test_what_has_no_form_is_named():
    with pytest.raises(UserError, match='the operation sort has no form in ONNX'):
        onnx_graph.convert(lambda x: jnp.sort(x.astype(jnp.float32)), (4,), names=('x', 'y'), metadata={})
    with pytest.raises(UserError, match='a size of 2\\*B cannot be written'):
        onnx_graph.convert(lambda x: jnp.concatenate([x, x]), (4,), names=('x', 'y'), metadata={})
