"""What a torch network makes of an input: logits, the outputs of its modules, the gradient."""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.parity import Reference, compare, filled, forward, reference_logits, renamed, state_of, torch_model


def check_parity(
    name: str,
    *,
    sizes: tuple[tuple[int, int], ...],
    train_size: tuple[int, int] | None = None,
    points: Mapping[str, str] | None = None,
) -> None:
    """Compares with torchvision's or timm's `name` in evaluation at each size, and in training mode at train_size.

    In training mode logits and the running statistics after the pass are within 1e-4 of the reference's scale.
    """
    reference = torch_model(name, classes=7)
    model = filled(name, renamed(state_of(reference)), classes=7)
    draw = np.random.default_rng(0)
    for height, width in sizes:
        x = draw.normal(size=(2, height, width, 3)).astype(np.float32)
        compare(model, x, torch_reference(reference, x, points or {}), name=name)
    if train_size is None:
        return
    x = draw.normal(size=(8, *train_size, 3)).astype(np.float32)
    expected = reference_logits(reference, x, train=True)
    logits, stats = forward(model, x, train=True)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    after = renamed(state_of(reference))
    for path, value in stats.items():
        np.testing.assert_allclose(value, after[path], rtol=0, atol=1e-4 * np.abs(after[path]).max(), err_msg=path)


def torch_reference(module: Any, x: np.ndarray, points: Mapping[str, str]) -> Reference:
    """A torch.nn.Module in eval mode on x, float32 [B, H, W, C].

    Args:
      module: returns logits [B, C].
      x: the input.
      points: stage of fer_jax -> path of the torch module whose output it is.
    """
    import torch

    stages = {}

    def keep(stage: str) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            stages[stage] = channels_last(output.detach().clone().numpy())  # an in-place ReLU may follow

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
