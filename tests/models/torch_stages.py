"""A network in torch, stage by stage, and what fer_jax's must agree with it in."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fer_jax.pretrained import convert
from tests.parity import declare_torchvision_operators, filled, state_of


class Reference(NamedTuple):
    """What another implementation makes of a batch of images x [B, H, W, C].

    Attributes:
      logits: [B, classes].
      stages: stage -> its output, [B, H, W, C] or [B, C].
      gradient: [B, H, W, C], of the mean cross-entropy of `labels(B)`.
    """

    logits: np.ndarray
    stages: dict[str, np.ndarray]
    gradient: np.ndarray


def labels(count: int) -> np.ndarray:
    return np.arange(count) % 5


def randomised(make: Callable[[], Any]) -> Any:
    """The torch network that `make` gives, in evaluation mode, every tensor random and none near its initial value.

    Its own initialisation is skipped. Kernels keep the size of activations.
    """
    torch = pytest.importorskip('torch')
    torch.manual_seed(0)
    with torch.device('meta'):
        model = make()
    model.to_empty(device='cpu')
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
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


def torch_reference(model: Any, x: np.ndarray, stages: Mapping[str, str]) -> Reference:
    """`stages`: stage -> the torch module whose output it is."""
    import torch

    outputs = {}

    def keep(stage: str) -> Callable[..., None]:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            outputs[stage] = output.detach().numpy().copy()

        return hook

    hooks = [model.get_submodule(module).register_forward_hook(keep(stage)) for stage, module in stages.items()]
    given = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    logits = model(given)
    torch.nn.functional.cross_entropy(logits, torch.tensor(labels(len(x)))).backward()
    for hook in hooks:
        hook.remove()
    last = {stage: np.moveaxis(output, 1, -1) for stage, output in outputs.items()}
    return Reference(logits.detach().numpy(), last, given.grad.numpy().transpose(0, 2, 3, 1))


def compare(model: Any, x: np.ndarray, reference: Reference) -> None:
    """Asserts logits and stages within 1e-4 of their largest value, the gradient by the input within 1e-3 of its norm.

    Not of its largest value: where rounding decides a unit's sign, a few pixels' gradients differ by that unit's part.
    """
    graphdef, state = nnx.split(model)

    @jax.jit
    def run(state: Any, x: jax.Array) -> Any:
        def loss(x: jax.Array) -> Any:
            network, outputs = nnx.merge(graphdef, state), {}
            for stage in network.stages:
                x = network.stage(stage, x, train=False, key=None)
                outputs[stage] = x
            logits = outputs.pop('head')['primary']
            chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels(len(logits))[:, None], axis=-1)
            return -chosen.mean(), (logits, outputs)

        return jax.value_and_grad(loss, has_aux=True)(x)

    (_, (logits, outputs)), gradient = jax.tree.map(np.asarray, run(state, x))
    assert set(reference.stages) <= set(outputs)
    close(logits, reference.logits, 1e-4, 'logits')
    for stage, expected in reference.stages.items():
        close(outputs[stage], expected.reshape(outputs[stage].shape), 1e-4, stage)
    assert np.linalg.norm(gradient - reference.gradient) < 1e-3 * np.linalg.norm(reference.gradient)


def close(ours: np.ndarray, theirs: np.ndarray, bound: float, what: str) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=bound * np.abs(theirs).max(), err_msg=what)


def check_torch(name: str, make: Callable[[], Any], stages: Mapping[str, str], *, sizes: Any) -> Any:
    """Compares fer_jax's `name`, converted from the network that `make` gives, at these (height, width).

    Returns:
      The converted weights.
    """
    pytest.importorskip('torch')
    declare_torchvision_operators()
    reference = randomised(make)
    weights = convert(state_of(reference), name, metadata={})
    model = filled(name, weights.params | weights.stats, classes=int(weights.metadata['classes']))
    for size in sizes:
        x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
        compare(model, x, torch_reference(reference, x, stages))
    return weights
