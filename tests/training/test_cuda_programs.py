"""The programs of a run lowered for CUDA, on a machine without it: what a GPU would be given."""

import functools
import json
import re

import jax
import numpy as np
import pytest

from configs import default
from fer_jax.feature_cache.extract import extract
from fer_jax.inference.eval_step import eval_step
from fer_jax.training import setup
from fer_jax.training.phase_program import PhaseProgram
from tests.small_run import config_of

BATCH = 16
pytestmark = pytest.mark.slow


@pytest.fixture(scope='module', params=['float32', 'bfloat16'])
def run(request, faces):
    """A run of a phase on cached features, a phase of all parameters, and one with SAM on microbatches."""
    config = config_of(faces, cache_views=1)
    config.model.dtype = request.param
    config.data.placement = 'device'
    config.phases = (*config.phases, default.phase(epochs=1, sam=0.05, accumulate=2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, 'default_backend', lambda: 'gpu')
        yield setup.prepare(json.loads(config.to_json()))


def lower(function, *inputs, **options) -> str:
    return jax.export.export(jax.jit(function, **options), platforms=['cuda'])(*inputs).mlir_module()


def assert_of_a_gpu(program: str, convolutions: int) -> None:
    """No call back to Python or into CPU code, no float64, and convolutions as cuDNN computes them."""
    assert not re.findall(r'custom_call @(?!Sharding|annotate)\w+', program)
    assert 'f64' not in program
    assert len(re.findall(r'stablehlo\.convolution\(', program)) == convolutions
    layouts = re.findall(r'dim_numbers = \[b, 0, 1, f\]x', program)
    assert len(layouts) >= convolutions / 3  # all but the gradients of kernels take images as NHWC


@pytest.mark.parametrize('index', [0, 1, 2])
def test_training_steps(run, index):
    program = PhaseProgram(run, run.phases[index])
    shapes = functools.partial(jax.tree.map, lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
    state, fixed = program.init_state(0, run.initial())
    text = jax.export.export(program.jitted_step(), platforms=['cuda'])(
        shapes(state), shapes(fixed), *program.abstract_batch()
    ).mlir_module()
    kernels = sum(leaf.ndim == 4 for leaf in state.trainable.values())
    unneeded = 1  # the gradient of the images
    passes = {0: 0, 1: 3 * kernels - unneeded, 2: 2 * (3 * kernels - unneeded)}
    assert_of_a_gpu(text, passes[index])
    changed = len(jax.tree.leaves(state))
    assert text.count('tf.aliasing_output') == changed  # donated: each output is written over its input


def test_evaluation_features_and_predictions(run):
    network, size = run.network, run.network.spec.image_size
    variables = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), run.network.variables)
    images = jax.ShapeDtypeStruct((BATCH, size, size, 1), np.uint8)
    batch = {'x': jax.ShapeDtypeStruct(images.shape, np.float32), 'id': jax.ShapeDtypeStruct((BATCH,), np.uint32)}
    convolutions = sum(leaf.ndim == 4 for leaf in variables.params.values())
    assert_of_a_gpu(lower(functools.partial(eval_step, network=network, tta='flip'), variables, batch), convolutions)
    features = functools.partial(extract, network, run.phases[0].features)
    assert_of_a_gpu(lower(features, variables, jax.ShapeDtypeStruct(images.shape, np.float32)), convolutions)
