"""Keras networks on Keras's JAX backend, with random weights, carried over by way of Keras's own files."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.pretrained import Weights, convert_file
from tests.parity import Reference, compare, filled


def import_keras(monkeypatch: Any) -> Any:
    """Keras on its JAX backend; skips the test where it is not installed.

    Networks are made of zeros, to be randomised: Keras's own initialisation compiles a program for every shape.
    """
    os.environ['KERAS_BACKEND'] = 'jax'
    keras = pytest.importorskip('keras')
    assert keras.backend.backend() == 'jax'
    zeros = keras.initializers.Zeros.__call__
    monkeypatch.setattr(keras.initializers.VarianceScaling, '__call__', zeros)
    return keras


def headless(keras: Any, name: str, size: tuple[int | None, int | None] = (None, None)) -> Any:
    """A network of Keras Applications with a top of its own, where Keras's would insist on 224 pixels."""
    base = getattr(keras.applications, name)(weights=None, include_top=False, input_shape=(*size, 3))
    x = keras.layers.GlobalAveragePooling2D(name='avg_pool')(base.output)
    return keras.Model(base.inputs[0], keras.layers.Dense(7, name='predictions')(x))


def randomise(model: Any) -> None:
    """Makes every weight random, none near its initial value; kernels keep the size of activations."""
    draw = np.random.default_rng(0)
    for variable in model.variables:
        layer, leaf = variable.path.split('/')[-2:]
        shape = variable.shape
        if leaf == 'kernel':
            fan_in = np.prod(shape[:2] if 'dwconv' in layer else shape[:-1])
            value = draw.normal(size=shape) * (2 / fan_in) ** 0.5
        elif leaf == 'moving_variance':
            value = draw.uniform(0.5, 2, shape)
        elif leaf == 'gamma':
            value = draw.uniform(0.5, 1.5, shape)
        elif leaf in ('bias', 'beta', 'moving_mean'):
            value = draw.normal(size=shape) * 0.2
        else:
            continue
        variable.assign(value.astype(np.float32))


def keras_reference(keras: Any, model: Any, stages: Mapping[str, Any], x: np.ndarray, scale: float) -> Reference:
    """What a functional Keras model of float64 makes of scale * x, float32 [B, H, W, C].

    Args:
      model: returns logits [B, C].
      stages: stage of fer_jax -> the symbolic tensor that it should equal.
    """
    inner = keras.Model(model.inputs[0], [*stages.values(), model.output])

    kinds = inner.trainable_variables, inner.non_trainable_variables
    variables = [[variable.value for variable in kind] for kind in kinds]

    @jax.jit
    def run(x: jax.Array, variables: Any) -> Any:  # closed over, they would be constants of the program
        def loss(x: jax.Array) -> Any:
            (*outputs, logits), _ = inner.stateless_call(*variables, scale * x, training=False)
            places = jnp.arange(len(logits))
            return -jax.nn.log_softmax(logits)[places, places % logits.shape[1]].mean(), (outputs, logits)

        return jax.grad(loss, has_aux=True)(x)

    with jax.enable_x64(True):
        gradient, (outputs, logits) = jax.tree.map(np.asarray, run(x.astype(np.float64), variables))
    assert gradient.dtype == logits.dtype == np.float64
    return Reference(logits, dict(zip(stages, outputs, strict=True)), gradient)


def in_float64(keras: Any, make: Callable[[], Any], model: Any) -> Any:
    """What `make` gives, in float64 and with the weights of `model`."""
    keras.config.set_floatx('float64')
    keras.config.set_dtype_policy('float64')
    try:
        with jax.enable_x64(True):
            wide = make()
            wide.set_weights([weight.astype(np.float64) for weight in model.get_weights()])
    finally:
        keras.config.set_floatx('float32')
        keras.config.set_dtype_policy('float32')
    return wide


def check_keras(
    keras: Any,
    name: str,
    make: Callable[[], Any],
    layers: Callable[[Any], Mapping[str, str]],
    file: Path,
    *,
    sizes: Sequence[tuple[int, int]],
    scale: float = 1.0,
) -> Weights:
    """Compares fer_jax's `name` with a Keras model, by way of `file`, which Keras writes and fer_jax converts.

    Args:
      make: gives the model.
      layers: of a model: stage of fer_jax -> name of the Keras layer whose output it should equal.
      sizes: (height, width) of the images.
      scale: what the Keras model divides its input by.

    Returns:
      The converted weights.
    """
    model = make()
    randomise(model)
    model.save_weights(file) if file.name.endswith('.weights.h5') else model.save(file)
    weights = convert_file(file, name, source='random', licence='none')
    found = filled(name, dict(weights.params | weights.stats), classes=int(weights.metadata['classes']))
    wide = in_float64(keras, make, model)
    stages = {stage: wide.get_layer(layer).output for stage, layer in layers(wide).items()}
    for size in sizes:
        x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
        compare(found, x, keras_reference(keras, wide, stages, x, scale), name=name)
    return weights
