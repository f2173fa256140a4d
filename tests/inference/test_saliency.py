"""Grad-CAM against finite differences and against class activation maps."""

import jax
import numpy as np
import pytest
from flax import nnx

from fer_jax.inference import saliency
from fer_jax.models.network import ModelSpec, build
from fer_jax.models.parameters import split_module

RNG = np.random.default_rng(0)
CLASSES = ('a', 'b', 'c')


def made(name, size, **options):
    network = build(ModelSpec(name, {'primary': CLASSES}, size, **options))
    _, variables = split_module(network.spec.create(nnx.Rngs(0)))
    return network, variables


def test_with_a_linear_head_it_is_the_class_activation_map():
    """The map times the head's column, over the number of cells, without what is below 0."""
    network, variables = made('resnet8_small', 64)
    images = RNG.integers(0, 256, (2, 48, 48, 3), np.uint8)
    classes = np.array([2, 0])
    found = saliency.grad_cam(network, variables, images, classes)
    x = network.normalise(jax.image.resize(images.astype(np.float32), (2, 64, 64, 3), 'linear', antialias=True))
    maps = np.asarray(network.forward(variables, x, tell='pool')[2])
    columns = np.asarray(variables.params['head.primary.kernel'])[:, classes].T
    expected = np.maximum(np.einsum('bhwc,bc->bhw', maps, columns) / (maps.shape[1] * maps.shape[2]), 0)
    assert found.shape == (2, 8, 8) and expected.max() > 0
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.slow
def test_the_weights_are_the_slopes_of_the_logit():
    """By finite differences of whole channels, through the two hidden layers of an MLP."""
    network, variables = made('vgg11', 32, head='mlp')
    images = RNG.integers(0, 256, (1, 32, 32, 3), np.uint8)
    found = saliency.grad_cam(network, variables, images, np.array([1]))[0]
    x = network.normalise(images.astype(np.float32))
    maps = network.forward(variables, x, tell='pool')[2]
    logits = jax.jit(lambda maps: network.forward(variables, maps, start='pool')[0]['primary'][:, 1])
    channels = maps.shape[-1]
    weights = np.empty(channels)
    for first in range(0, channels, 128):
        bump = 0.05 * np.eye(channels, dtype=np.float32)[first : first + 128, None, None]
        slopes = np.asarray(logits(maps + bump) - logits(maps - bump)) / 0.1
        weights[first : first + 128] = slopes / (maps.shape[1] * maps.shape[2])
    expected = np.maximum(np.asarray(maps)[0] @ weights, 0)
    np.testing.assert_allclose(found, expected, atol=0.02 * max(np.abs(found).max(), 1e-6) + 1e-6)


def test_a_head_that_reads_several_stages_is_explained_by_the_last_map():
    """By the head's rows that read it; the other stage's rows are as constant as a bias."""
    network, variables = made('resnet8_small', 64, head_inputs=('layer2', 'layer3'))
    images = RNG.integers(0, 256, (1, 64, 64, 3), np.uint8)
    found = saliency.grad_cam(network, variables, images, np.array([2]))[0]
    x = network.normalise(images.astype(np.float32))
    maps = np.asarray(network.outputs(variables, x, ['layer3'])['layer3'])[0]
    rows = np.asarray(variables.params['head.primary.kernel'])[-maps.shape[-1] :, 2]
    np.testing.assert_allclose(found, np.maximum(maps @ rows / maps[..., 0].size, 0), atol=1e-5)


def test_class_maps_add_up_to_the_logits():
    network, variables = made('resnet8_small', 64)
    variables.params['head.primary.bias'] = np.array([0.5, -1.0, 2.0], np.float32)
    images = RNG.integers(0, 256, (2, 64, 64, 3), np.uint8)
    maps = saliency.class_maps(network, variables, images)
    logits = network.forward(variables, network.normalise(images.astype(np.float32)))[0]['primary']
    assert maps.shape == (2, 3, 8, 8)
    np.testing.assert_allclose(maps.sum((2, 3)) + variables.params['head.primary.bias'], logits, atol=1e-4)
    found = saliency.grad_cam(network, variables, images, np.array([1, 1]))
    np.testing.assert_allclose(found, np.maximum(maps[:, 1], 0), atol=1e-5)
    heats, again = saliency.explain(network, variables, images, np.array([1, 1]))
    np.testing.assert_allclose(heats, found, atol=1e-5)
    np.testing.assert_array_equal(again, maps)
    with pytest.raises(ValueError, match='not linear'):
        saliency.class_maps(made('resnet8_small', 32, head='mlp')[0], variables, images)
