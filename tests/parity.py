"""The reference networks in torch, with random weights, and what they are called in fer_jax."""

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from flax import nnx

from fer_jax import models
from fer_jax.partition import flatten, unflatten


class Reference(NamedTuple):
    """What another implementation makes of one input, float32."""

    logits: np.ndarray  # [B, C]
    stages: Mapping[str, np.ndarray]  # stage -> its output, [B, H, W, C] or [B, F]; some may be left out
    gradient: np.ndarray  # [B, H, W, C], of the mean cross-entropy to labels arange(B) % C by the input


def compare(model: nnx.Module, x: np.ndarray, reference: Reference, *, name: str) -> dict[str, float]:
    """Asserts that a network in evaluation mode agrees with a reference on x, float32 [B, H, W, C].

    Deviations are max|a - b| / max|b|: logits and every stage within 1e-4, the gradient within 1e-3. Where the
    environment names a file by FER_JAX_PARITY_TABLE, a JSON line of them is appended to it.

    Returns:
      The largest deviations of 'logits', 'stages' and 'gradient'.
    """
    graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    unknown = set(reference.stages) - set(model.stages)
    assert not unknown, f'{name} has no stages {sorted(unknown)}'

    @jax.jit
    def apply(params: nnx.State, stats: nnx.State, x: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        def loss(x: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
            network, outputs = nnx.merge(graphdef, params, stats, copy=True), {}
            for stage in network.stages:
                x = network.stage(stage, x, train=False, key=None)
                outputs[stage] = x['primary'] if isinstance(x, dict) else x
            batch, classes = outputs['head'].shape
            labels = jax.numpy.arange(batch) % classes
            return -jax.nn.log_softmax(outputs['head'])[jax.numpy.arange(batch), labels].mean(), outputs

        return jax.grad(loss, has_aux=True)(x)

    gradient, outputs = jax.tree.map(np.asarray, apply(params, stats, x))
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


def deviation(value: np.ndarray, expected: np.ndarray) -> float:
    """max|value - expected| / max|expected|; infinite where either is not finite."""
    assert value.shape == expected.shape, f'{value.shape} is not {expected.shape}'
    off = float(np.abs(value - expected).max() / np.abs(expected).max())
    return off if np.isfinite(off) else float('inf')


def torch_model(name: str, classes: int = 1000, seed: int = 0, channels: int = 3) -> Any:
    """torchvision's or timm's `name` as a torch.nn.Module in eval mode, every tensor random.

    Skips the test where torch is not installed. BatchNorm variances are 0.5 to 2, and means, scales and biases away
    from their initial 0 and 1, so that one that is dropped or swapped shows. Kernels keep the size of activations.
    """
    torch = pytest.importorskip('torch')
    declare_torchvision_operators()
    torch.manual_seed(seed)
    with torch.device('meta'):  # without the default initialisation, 10 s for a VGG
        if name.startswith('efficientnet_lite'):
            timm = pytest.importorskip('timm')
            model = timm.create_model(f'tf_{name}', pretrained=False, num_classes=classes, in_chans=channels)
        else:
            torchvision = pytest.importorskip('torchvision')
            model = getattr(torchvision.models, name)(weights=None, num_classes=classes)
            if channels != 3:
                model.conv1 = torch.nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
    model.to_empty(device='cpu')
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 2)
                module.num_batches_tracked.zero_()
            elif isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                module.weight.normal_(0, (2 / module.weight[0].numel()) ** 0.5)
                if module.bias is not None:
                    module.bias.normal_(0, 0.1)
    return model.eval()


_libraries: list[Any] = []  # a declaration lives as long as its library


def declare_torchvision_operators() -> None:
    """torchvision registers shapes for these at import, and fails where its compiled part does not fit torch."""
    import torch

    if _libraries:
        return
    _libraries.append(torch.library.Library('torchvision', 'FRAGMENT'))
    for name in ('nms', 'qnms'):
        if not hasattr(torch.ops.torchvision, name):
            _libraries[0].define(f'{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')


def state_of(model: Any) -> dict[str, np.ndarray]:
    """The state dict as numpy arrays."""
    return {name: value.detach().numpy().copy() for name, value in model.state_dict().items()}


def renamed(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A state dict in fer_jax's names and layout, parameters and statistics together.

    Written apart from `fer_jax.pretrained`, so that networks and conversion are each tested without the other.
    """
    modules = {'fc': 'head.primary', 'classifier': 'head.primary'}
    modules |= {'classifier.0': 'fc6', 'classifier.3': 'fc7', 'classifier.6': 'head.primary'}
    leaves = {'running_mean': 'mean', 'running_var': 'var'}
    out = {}
    for name, value in state.items():
        module, _, leaf = name.rpartition('.')
        if leaf == 'weight':
            leaf = 'scale' if value.ndim == 1 else 'kernel'
            value = np.moveaxis(value, (0, 1), (-1, -2)) if value.ndim > 1 else value
        if leaf != 'num_batches_tracked':
            out[f'{modules.get(module, module)}.{leaves.get(leaf, leaf)}'] = value
    return out


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


def check_parity(name: str, *, sizes: tuple[tuple[int, int], ...], train_size: tuple[int, int] | None = None) -> None:
    """Asserts logits within 1e-4 of the reference's scale, in evaluation for each size and in training mode.

    After the pass in training mode the running statistics are compared too.
    """
    reference = torch_model(name, classes=7)
    model = filled(name, renamed(state_of(reference)), classes=7)
    draw = np.random.default_rng(0)
    trained = () if train_size is None else ((True, train_size),)
    for train, (height, width) in [*((False, size) for size in sizes), *trained]:
        x = draw.normal(size=(8 if train else 2, height, width, 3)).astype(np.float32)
        expected = reference_logits(reference, x, train=train)
        logits, stats = forward(model, x, train=train)
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    after = renamed(state_of(reference))
    for path, value in stats.items():
        np.testing.assert_allclose(value, after[path], rtol=0, atol=1e-4 * np.abs(after[path]).max(), err_msg=path)


def reference_logits(reference: Any, x: np.ndarray, *, train: bool = False) -> np.ndarray:
    """[B, H, W, C] through a torch model; in training mode only BatchNorm trains, dropout stays off."""
    import torch

    for module in reference.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.train(train)
    with torch.no_grad():
        logits = reference(torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))).numpy()
    reference.eval()
    return logits
