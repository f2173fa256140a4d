"""Networks of torch packages with random weights, compared stage by stage."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from fer_jax.pretrained import Weights, convert
from tests.parity import compare, declare_torchvision_operators, filled, state_of
from tests.torch_reference import torch_reference


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


def check_torch(
    name: str, make: Callable[[], Any], points: Mapping[str, str], *, sizes: Sequence[tuple[int, int]]
) -> Weights:
    """Compares fer_jax's `name` with the torch network that `make` gives, whose weights it takes by conversion.

    Args:
      points: stage -> the torch module whose output it is.
      sizes: (height, width) of the images.

    Returns:
      The converted weights.
    """
    pytest.importorskip('torch')
    declare_torchvision_operators()
    module = randomised(make)
    weights = convert(state_of(module), name, metadata={})
    model = filled(name, weights.params | weights.stats, classes=int(weights.metadata['classes']))
    for size in sizes:
        x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
        reference = torch_reference(module, x, points)
        pooled = reference.stages['pool'].reshape(len(x), -1)
        compare(model, x, reference._replace(stages={**reference.stages, 'pool': pooled}), name=name)
    return weights
