"""Networks of fer_jax held to what another implementation makes of the same weights and images."""

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fer_jax import models
from fer_jax.models.parameters import flatten, unflatten


class Reference(NamedTuple):
    """What another implementation makes of one input."""

    logits: np.ndarray  # [B, C]
    stages: Mapping[str, np.ndarray]  # stage -> its output, [B, H, W, C] or [B, F]; some may be left out
    gradient: np.ndarray  # float64 [B, H, W, C], of the mean cross-entropy to labels arange(B) % C by the input


def compare(model: nnx.Module, x: np.ndarray, reference: Reference, *, name: str) -> dict[str, float]:
    """Asserts that a network in evaluation mode agrees with a reference on x, float32 [B, H, W, C].

    Deviations are max|a - b| / max|b|: logits and every stage within 1e-4, the gradient, in float64, within 1e-3. Where
    the environment names a file by FER_JAX_PARITY_TABLE, a JSON line of them is appended to it.

    Returns:
      The largest deviations of 'logits', 'stages' and 'gradient'.
    """
    unknown = set(reference.stages) - set(model.stages)
    assert not unknown, f'{name} has no stages {sorted(unknown)}'
    graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)

    @jax.jit
    def outputs_of(params: nnx.State, stats: nnx.State, x: jax.Array) -> dict[str, jax.Array]:
        network, outputs = nnx.merge(graphdef, params, stats, copy=True), {}
        for stage in network.stages:
            x = network.stage(stage, x, train=False, key=None)
            outputs[stage] = x['primary'] if isinstance(x, dict) else x
        return outputs

    outputs = jax.tree.map(np.asarray, outputs_of(params, stats, x))
    gradient = gradient_in_float64(model, x)
    stages = {
        stage: deviation(outputs[stage], reference.stages[stage]) for stage in outputs if stage in reference.stages
    }
    found = {
        'logits': deviation(outputs['head'], reference.logits),
        'stages': max(stages.values(), default=0.0),
        'gradient': deviation(gradient, reference.gradient),
    }
    for stage, off in stages.items():
        assert off <= 1e-4, f'{name} at {x.shape}: {stage} is the first stage that is off, by {off:.1e}'
    assert found['logits'] <= 1e-4, f'{name} at {x.shape}: logits are off by {found["logits"]:.1e}'
    assert found['gradient'] <= 1e-3, f'{name} at {x.shape}: the gradient is off by {found["gradient"]:.1e}'
    if table := os.environ.get('FER_JAX_PARITY_TABLE'):
        parameters = sum(leaf.size for leaf in flatten(params).values())
        row = {'name': name, 'parameters': parameters, 'classes': outputs['head'].shape[1], 'size': x.shape[1:3]}
        with open(table, 'a') as file:
            file.write(json.dumps(row | found) + '\n')
    return found


def gradient_in_float64(model: nnx.Module, x: np.ndarray) -> np.ndarray:
    """Of the mean cross-entropy to labels arange(B) % C, by the input.

    In float32 a ReLU of a deep network whose input is rounded to the other side of zero takes its share of the gradient
    with it: that of a ResNet-50 is then off by 1e-2 somewhere, between two builds of one framework too.
    """
    with jax.enable_x64(True):
        wide = nnx.clone(model)
        for _, module in nnx.iter_graph(wide):
            if isinstance(module, nnx.Conv | nnx.Linear):
                module.dtype = jnp.float64
        graphdef, params, stats = nnx.split(wide, nnx.Param, nnx.BatchStat)
        params, stats = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (params, stats))

        @jax.jit
        def gradient(params: nnx.State, stats: nnx.State, x: jax.Array) -> jax.Array:
            def loss(x: jax.Array) -> jax.Array:
                logits = models.run(nnx.merge(graphdef, params, stats, copy=True), x)['primary']
                labels = jnp.arange(len(x)) % logits.shape[1]
                return -jax.nn.log_softmax(logits)[jnp.arange(len(x)), labels].mean()

            return jax.grad(loss)(x)

        return np.asarray(gradient(params, stats, x.astype(np.float64)))


def deviation(value: np.ndarray, expected: np.ndarray) -> float:
    """max|value - expected| / max|expected|; infinite where either is not finite."""
    assert value.shape == expected.shape, f'{value.shape} is not {expected.shape}'
    off = float(np.abs(value - expected).max() / np.abs(expected).max())
    return off if np.isfinite(off) else float('inf')


def filled(name: str, leaves: dict[str, np.ndarray], **options: Any) -> nnx.Module:
    """fer_jax's `name` with these leaves, which must be all it has and no more."""
    made = nnx.eval_shape(lambda: models.create(name, **options, rngs=nnx.Rngs(0)))
    graphdef, params, stats = nnx.split(made, nnx.Param, nnx.BatchStat)
    shapes = {path: leaf.shape for path, leaf in (flatten(params) | flatten(stats)).items()}
    assert shapes == {path: leaf.shape for path, leaf in leaves.items()}
    jax_leaves = {path: jax.numpy.asarray(leaf) for path, leaf in leaves.items()}
    params, stats = ({path: jax_leaves[path] for path in flatten(tree)} for tree in (params, stats))
    return nnx.merge(graphdef, unflatten(params), unflatten(stats), copy=True)


def forward(model: nnx.Module, x: np.ndarray, *, train: bool = False) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(primary logits, BatchNorm statistics after the pass); in training mode all stages without dropout train."""
    graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    stages = [stage for stage in model.stages if train and stage not in ('fc6', 'fc7')]

    @jax.jit
    def apply(params: nnx.State, stats: nnx.State, x: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        network = nnx.merge(graphdef, params, stats, copy=True)
        logits = models.run(network, x, train=stages)['primary']
        return logits, flatten(nnx.state(network, nnx.BatchStat))

    return jax.tree.map(np.asarray, apply(params, stats, x))
