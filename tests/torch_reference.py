"""Networks of torch packages with random weights, and what they make of an input."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from fer_jax.pretrained import Weights, convert
from tests.parity import Reference, compare, filled, forward


def check_torch(
    name: str,
    module: Any,
    points: Mapping[str, str],
    *,
    sizes: Sequence[tuple[int, int]],
    train_size: tuple[int, int] | None = None,
) -> Weights:
    """Compares fer_jax's `name` with a torch network, whose weights it takes by conversion.

    In evaluation mode by `compare`; in training mode logits and the running statistics after the pass are within 1e-4
    of the reference's scale.

    Args:
      module: takes [B, 3, H, W], returns logits [B, C].
      points: stage -> the torch module whose output it is.
      sizes: (height, width) of the images.
      train_size: that of the images in training mode, which is left out if None.

    Returns:
      The converted weights.
    """
    weights = convert(state_of(module), name, metadata={})
    model = filled(name, weights.params | weights.stats, classes=int(weights.metadata['classes']))
    draw = np.random.default_rng(0)
    for size in sizes:
        x = draw.normal(size=(2, *size, 3)).astype(np.float32)
        compare(model, x, torch_reference(module, x, points), name=name)
    if train_size:
        x = draw.normal(size=(8, *train_size, 3)).astype(np.float32)
        expected = torch_logits(module, x, train=True)
        logits, stats = forward(model, x, train=True)
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
        for path, wanted in convert(state_of(module), name, metadata={}).stats.items():
            np.testing.assert_allclose(stats[path], wanted, rtol=0, atol=1e-4 * np.abs(wanted).max(), err_msg=path)
    return weights


def torchvision_model(name: str, classes: int = 1000, *, seed: int = 0, channels: int = 3) -> Any:
    """torchvision's `name` as `randomised` leaves it, for images of this many channels; skips without torchvision."""
    torch = pytest.importorskip('torch')
    declare_torchvision_operators()
    torchvision = pytest.importorskip('torchvision')

    def make() -> Any:
        model = getattr(torchvision.models, name)(weights=None, num_classes=classes)
        if channels != 3:
            model.conv1 = torch.nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
        return model

    return randomised(make, seed)


def timm_model(name: str, classes: int = 1000) -> Any:
    """timm's `name` as `randomised` leaves it; skips without timm."""
    pytest.importorskip('torch')
    declare_torchvision_operators()  # timm imports torchvision
    timm = pytest.importorskip('timm')
    return randomised(lambda: timm.create_model(name, num_classes=classes))


def randomised(make: Callable[[], Any], seed: int = 0) -> Any:
    """The torch network that `make` gives, in evaluation mode, every tensor random and none near its initial value.

    BatchNorm variances are 0.5 to 2, and means, scales and biases away from 0 and 1, so that one that is dropped or
    swapped shows. Kernels keep the size of activations. The network's own initialisation, 10 s for a VGG, is skipped.
    """
    import torch

    torch.manual_seed(seed)
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


def state_of(module: Any) -> dict[str, np.ndarray]:
    """The state dict as numpy arrays."""
    return {name: value.detach().numpy().copy() for name, value in module.state_dict().items()}


def torch_reference(module: Any, x: np.ndarray, points: Mapping[str, str]) -> Reference:
    """A torch.nn.Module in evaluation mode on x, float32 [B, H, W, C].

    Args:
      module: returns logits [B, C].
      points: stage of fer_jax -> path of the torch module whose output it is.
    """
    import torch

    stages = {}

    def keep(stage: str) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            value = output.detach().clone().numpy()  # an in-place ReLU may follow
            pooled = stage == 'pool' and value.shape[2:] == (1, 1)
            stages[stage] = value[:, :, 0, 0] if pooled else channels_last(value)

        return hook

    module.eval()
    hooks = [module.get_submodule(path).register_forward_hook(keep(stage)) for stage, path in points.items()]
    images = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    with torch.no_grad():
        logits = module(images)
    for hook in hooks:
        hook.remove()
    wide = images.double().requires_grad_()
    labels = torch.arange(logits.shape[0]) % logits.shape[1]
    loss = torch.nn.functional.cross_entropy(copy.deepcopy(module).double()(wide), labels)
    (gradient,) = torch.autograd.grad(loss, wide)
    return Reference(logits.numpy(), stages, channels_last(gradient.numpy()))


def channels_last(value: np.ndarray) -> np.ndarray:
    """[B, C, H, W] as [B, H, W, C], all else as it is."""
    return value.transpose(0, 2, 3, 1) if value.ndim == 4 else value


def torch_logits(module: Any, x: np.ndarray, *, train: bool = False) -> np.ndarray:
    """[B, H, W, C] through a torch model; in training mode only BatchNorm trains, dropout stays off."""
    import torch

    for child in module.modules():
        if isinstance(child, torch.nn.BatchNorm2d):
            child.train(train)
    with torch.no_grad():
        logits = module(torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))).numpy()
    module.eval()
    return logits
