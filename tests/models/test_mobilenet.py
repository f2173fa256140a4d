"""MobileNet v1 with BatchNorms folded, by FaceRes's real weights against TensorFlow.js."""

import jax
import numpy as np
import pytest
from flax import nnx

from fer_jax import models
from fer_jax.models.mobilenet import BLOCKS
from tests.models.shapes import parameter_count, shapes_of
from tests.parity import deviation
from tests.real_weights import face_chips, run_tfjs, weight_file


def test_the_folded_form_has_no_statistics_to_train():
    """4,231,976 trainable parameters of the plain form, less gammas where the convolution has them."""
    merged = 32 + sum(count * width for count, width in BLOCKS)
    assert parameter_count('mobilenet_v1') - parameter_count('mobilenet_v1_folded') == merged
    assert not nnx.to_flat_state(nnx.state(shapes_of('mobilenet_v1_folded'), nnx.BatchStat))


@pytest.mark.slow
def test_faceres_equals_tensorflow_js(shared_data, tmp_path):
    file = weight_file(shared_data, 'faceres-deep.json')
    network = models.create('mobilenet_v1_folded', classes=7, weights=str(file))
    assert network.preprocessing.order == 'BGR'
    x = network.preprocessing.normalise(face_chips(shared_data, 224)[:1])
    ends = (('stem', 'conv1'), ('blocks2', 'conv_pw_5'), ('blocks4', 'conv_pw_13'))
    nodes = [f'{name}_relu/clip_by_value' for _, name in ends]
    theirs = run_tfjs(file, np.asarray(x), [*nodes, 'global_pooling/Mean'], tmp_path)
    seen: dict[str, jax.Array] = {}
    embedding = models.run(network, x, stop='head', seen=seen)
    order = list(network.stages)
    ours = [*(seen[order[order.index(stage) + 1]] for stage, _ in ends), embedding]
    for values in map(np.asarray, ours):
        part, theirs = theirs[: values.size].reshape(values.shape), theirs[values.size :]
        assert deviation(values, part) < 1e-4
    assert theirs.size == 0
