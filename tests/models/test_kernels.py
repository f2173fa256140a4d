"""The CPU forms against lax, in values and in gradients for input and kernel."""

import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from fer_jax.models import kernels

NUMBERS = ('NHWC', 'HWIO', 'NHWC')
FAST = {'lhs_spec=(0, 3, 1, 2)', 'rhs_spec=(3, 2, 0, 1)', 'out_spec=(0, 3, 1, 2)'}  # NHWC by HWIO, as XLA wants them
# height, width, channels in, channels out, window, stride, padding, groups
POINTWISE = [
    (5, 7, 6, 9, 1, 1, 0, 1),
    (7, 5, 6, 9, 1, 2, 0, 1),
    (8, 8, 6, 9, 1, 2, 0, 1),
    (1, 1, 6, 9, 1, 2, 0, 1),
    (32, 32, 9, 6, 1, 1, 0, 1),  # tall, and wider than what comes of it
    (8, 7, 6, 9, 1, 2, 'SAME', 1),
    (8, 7, 6, 9, 1, 1, 'VALID', 1),
    (4, 4, 6, 9, 1, 1, 1, 1),  # padded: the border is the bias of nothing
]
SMALL_MAPS = [
    (1, 1, 6, 9, 3, 1, 1, 1),
    (2, 2, 6, 9, 3, 1, 1, 1),
    (2, 3, 6, 9, 3, 1, 1, 1),
    (3, 3, 6, 9, 3, 2, 1, 1),
    (4, 4, 6, 9, 3, 2, 1, 1),
    (4, 3, 6, 9, 3, 2, 'SAME', 1),
    (3, 3, 6, 9, 5, 2, 'SAME', 1),
    (7, 7, 3, 4, 7, 7, 3, 1),
]
CUT = [  # of large batches
    *SMALL_MAPS,
    (4, 4, 6, 9, 3, 1, 1, 1),
    (7, 5, 6, 9, 3, 1, 1, 1),
    (6, 7, 6, 9, 3, 2, 1, 1),
    (8, 8, 6, 9, 3, 2, 'SAME', 1),
    (6, 6, 6, 9, 3, 1, 'VALID', 1),
    (2, 3, 6, 9, (1, 3), 1, 'SAME', 1),
    (2, 4, 6, 9, (3, 1), 2, 'SAME', 1),
    (3, 1, 6, 9, (1, 7), 1, 'SAME', 1),
    (3, 2, 6, 9, (7, 1), 1, 'SAME', 1),
    (3, 2, 6, 9, 3, 2, ((0, 2), (1, 0)), 1),
]
DEPTHWISE = [
    (8, 8, 6, 6, 3, 1, 'SAME', 6),
    (8, 8, 6, 6, 3, 2, 'SAME', 6),
    (7, 9, 6, 6, 3, 2, 'SAME', 6),
    (7, 9, 6, 6, 5, 2, 'SAME', 6),
    (6, 5, 6, 6, 5, 1, 2, 6),
    (3, 3, 6, 6, 5, 1, 'SAME', 6),
    (1, 2, 6, 6, 5, 2, 'SAME', 6),
    (5, 5, 6, 6, 3, 1, 'VALID', 6),
]
WIDE = [  # images of few channels, or 32 KB apart
    (9, 8, 3, 4, 7, 2, 3, 1),
    (12, 10, 1, 5, 3, 1, 'SAME', 1),
    (11, 12, 3, 5, 3, 2, 'SAME', 1),
    (16, 16, 32, 9, 3, 1, 1, 1),
    (16, 32, 16, 9, 3, 2, 1, 1),
    (64, 64, 64, 8, 3, 1, 1, 1),  # a row of an image is a block
]
LEFT_TO_LAX = [
    (9, 9, 6, 9, 3, 1, 1, 1),
    (9, 8, 6, 9, 3, 2, 'SAME', 1),
    (9, 9, 6, 12, 3, 1, 1, 3),
    (9, 9, 6, 12, 3, 1, 1, 6),
    (2, 2, 6, 12, 3, 1, 1, 3),
    (5, 5, 6, 12, 1, 1, 0, 3),
]


def _values_and_gradients(conv, x, kernel, weights, **options):
    def weighted(x, kernel):
        y = conv(x, kernel, dimension_numbers=NUMBERS, **options)
        return (y * weights).sum(), y

    (_, y), gradients = jax.jit(jax.value_and_grad(weighted, (0, 1), has_aux=True))(x, kernel)
    return y, *gradients


@pytest.mark.parametrize(
    ('height', 'width', 'features_in', 'features_out', 'window', 'stride', 'padding', 'groups'),
    POINTWISE + SMALL_MAPS + DEPTHWISE + WIDE + LEFT_TO_LAX,
)
def test_convolution_equals_lax(height, width, features_in, features_out, window, stride, padding, groups):
    _compare((height, width, features_in, features_out, window, stride, padding, groups))


@pytest.mark.parametrize('case', CUT)
def test_small_maps_in_parts_equal_lax(case, monkeypatch):
    monkeypatch.setattr(kernels, 'CUT_IMAGES', 0)
    _compare(case)
    assert _convolutions_left(case) == (0, set())


def test_nothing_is_multiplied_by_the_zeros_around_small_maps(monkeypatch):
    monkeypatch.setattr(kernels, 'CUT_IMAGES', 0)
    x, kernel = jnp.zeros((2, 4, 3, 6)), jnp.zeros((3, 3, 6, 5))

    def conv(x):
        return kernels.cpu_conv(x, kernel, (1, 1), [(1, 1)] * 2)

    products = [
        equation for equation in _equations(jax.make_jaxpr(conv)(x).jaxpr) if equation.primitive.name == 'dot_general'
    ]
    done = sum(np.prod(product.outvars[0].aval.shape) * product.invars[1].aval.shape[0] for product in products)
    assert done == 2 * 6 * 5 * (2 + 3 + 3 + 2) * (2 + 3 + 2)  # rows and columns that the three taps of each output see


def _equations(jaxpr):
    """Those of a jaxpr, and of those within it."""
    for equation in jaxpr.eqns:
        yield equation
        for parameter in equation.params.values():
            if inner := getattr(parameter, 'jaxpr', None):
                yield from _equations(inner)


def _compare(case):
    height, width, features_in, features_out, window, stride, padding, groups = case
    window = (window, window) if isinstance(window, int) else window
    draw = np.random.default_rng(0)
    x = draw.normal(size=(4, height, width, features_in)).astype(np.float32)
    kernel = draw.normal(size=(*window, features_in // groups, features_out)).astype(np.float32)
    padding = [(padding, padding)] * 2 if isinstance(padding, int) else padding
    options = {'window_strides': (stride, stride), 'padding': padding, 'feature_group_count': groups}
    shape = lax.conv_general_dilated(x, kernel, dimension_numbers=NUMBERS, **options).shape
    weights = draw.normal(size=shape).astype(np.float32)
    expected = _values_and_gradients(lax.conv_general_dilated, x, kernel, weights, **options)
    actual = _values_and_gradients(kernels.choose('cpu').conv, x, kernel, weights, **options)
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.parametrize('dilation', ['lhs_dilation', 'rhs_dilation'])
def test_dilated_convolution_equals_lax(dilation):
    draw = np.random.default_rng(0)
    x = draw.normal(size=(2, 3, 3, 6)).astype(np.float32)
    kernel = draw.normal(size=(3, 3, 6, 5)).astype(np.float32)
    options = {'window_strides': (1, 1), 'padding': [(2, 2)] * 2, dilation: (2, 2), 'dimension_numbers': NUMBERS}
    np.testing.assert_allclose(
        kernels.cpu_conv(x, kernel, **options), lax.conv_general_dilated(x, kernel, **options), rtol=1e-5
    )


def _convolutions_left(case):
    """How many convolutions of lax stay in value and gradients of the CPU form, and between which axes."""
    height, width, features_in, features_out, window, stride, padding, groups = case
    window = (window, window) if isinstance(window, int) else window
    x = jnp.zeros((4, height, width, features_in))
    kernel = jnp.zeros((*window, features_in // groups, features_out))

    def loss(x, kernel):
        edges = [(padding, padding)] * 2 if isinstance(padding, int) else padding
        y = kernels.cpu_conv(x, kernel, (stride, stride), edges, None, None, NUMBERS, groups)
        return (y * y).sum()

    text = str(jax.make_jaxpr(jax.grad(loss, (0, 1)))(x, kernel))
    axes = set(re.findall(r'(?:lhs|rhs|out)_spec=\([0-9, ]*\)', text))
    return text.count('conv_general_dilated'), axes


@pytest.mark.parametrize('case', [*POINTWISE[:-1], *SMALL_MAPS, *DEPTHWISE])
def test_slow_shapes_take_no_convolution_in_either_direction(case):
    assert _convolutions_left(case) == (0, set())


@pytest.mark.parametrize('case', WIDE)
def test_weight_gradients_of_wide_maps_take_no_convolution(case):
    assert _convolutions_left(case) == (2, FAST)  # the value, and the gradient for the input


@pytest.mark.parametrize('case', LEFT_TO_LAX[:2])
def test_large_maps_stay_with_lax_between_axes_that_are_fast_in_a_loop(case):
    assert _convolutions_left(case) == (3, FAST)


def test_devices_go_over_their_own_part_of_the_batch():
    """Nothing but the sum of the gradients passes between two of them."""
    code = """
import jax, jax.numpy as jnp, numpy as np
from jax import lax
from fer_jax.distributed import sharding
from fer_jax.models import kernels
mesh = sharding.make_mesh(2)
draw = np.random.default_rng(0)
x = jax.device_put(draw.normal(size=(4, 16, 16, 32)).astype(np.float32), sharding.batch(mesh))
kernel = jax.device_put(draw.normal(size=(3, 3, 32, 8)).astype(np.float32), sharding.replicated(mesh))
def gradient(conv):
    names = ('NHWC', 'HWIO', 'NHWC')
    loss = lambda kernel, x: (conv(x, kernel, (1, 1), [(1, 1)] * 2, dimension_numbers=names) ** 2).sum()
    return jax.jit(jax.grad(loss))
of = gradient(kernels.cpu_conv)
np.testing.assert_allclose(of(kernel, x), gradient(lax.conv_general_dilated)(kernel, x), rtol=1e-3, atol=0.1)
text = of.lower(kernel, x).compile().as_text()
assert ' while(' in text and text.count(' all-reduce(') == 1 and ' all-gather(' not in text, text
"""
    subprocess.run([sys.executable, '-c', code], check=True, env=os.environ | {'XLA_FLAGS': ''})


@pytest.mark.parametrize(
    ('shape', 'window', 'stride', 'padding'),
    [
        *(((height, width), 3, 2, 1) for height, width in [(8, 8), (9, 7), (1, 1), (2, 3)]),
        *(((height, width), 2, 2, 0) for height, width in [(8, 8), (9, 7), (2, 3)]),
        ((7, 8), 3, 1, 1),
    ],
)
def test_max_pool_equals_torch_after_relu(shape, window, stride, padding):
    torch = pytest.importorskip('torch')
    x = np.random.default_rng(0).integers(-2, 4, size=(2, *shape, 5)).astype(np.float32)  # many ties
    for name in ('cpu', 'lax'):
        pool = kernels.choose(name).max_pool

        def weighted(x, pool=pool):
            y = pool(jax.nn.relu(x), window, stride, padding)
            return (y * jnp.arange(1.0, y.size + 1).reshape(y.shape)).sum(), y

        (_, ours), gradient = jax.value_and_grad(weighted, has_aux=True)(x)
        leaf = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
        theirs = torch.nn.functional.max_pool2d(leaf.relu(), window, stride, padding).permute(0, 2, 3, 1)
        (theirs * torch.arange(1.0, theirs.numel() + 1).reshape(theirs.shape)).sum().backward()
        np.testing.assert_array_equal(ours, theirs.detach().numpy())
        np.testing.assert_allclose(gradient, leaf.grad.permute(0, 2, 3, 1).numpy(), rtol=1e-6)


def test_choice_follows_the_platform():
    assert kernels.choose('auto') == kernels.choose('cpu' if jax.default_backend() == 'cpu' else 'lax')
    assert kernels.choose('lax').conv is lax.conv_general_dilated
