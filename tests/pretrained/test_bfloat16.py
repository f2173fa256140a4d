import jax
import numpy as np
import pytest

from fer_jax import pretrained
from fer_jax.data.tasks import PRIMARY
from fer_jax.models.network import ModelSpec, build


@pytest.mark.slow
def test_bfloat16_is_near_float32_on_real_weights(tmp_path):
    """EfficientNet-Lite0 of ImageNet at 64 px; random weights would amplify the rounding in their small last maps."""
    weights = pretrained.resolve('imagenet', 'efficientnet_lite0', cache=tmp_path)
    x = 255 * jax.random.uniform(jax.random.key(0), (4, 64, 64, 3))
    logits = {}
    for dtype in ('float32', 'bfloat16'):
        classes = {PRIMARY: tuple(map(str, range(1000)))}
        network = build(ModelSpec('efficientnet_lite0', classes, 64, dtype=dtype))
        variables = pretrained.fill(network.variables, weights, head=True)
        forward = jax.jit(lambda x, n=network, v=variables: n.forward(v, n.normalise(x))[0][PRIMARY])
        logits[dtype] = np.asarray(forward(x))
        assert logits[dtype].dtype == np.float32
    error = np.abs(logits['bfloat16'] - logits['float32']).max() / np.abs(logits['float32']).max()
    assert 0 < error < 0.1
