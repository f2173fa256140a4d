"""What a torch network makes of an input: logits, the outputs of its modules, the gradient."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.parity import Reference


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
    images = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2))).requires_grad_()
    try:
        logits = module(images)
    finally:
        for hook in hooks:
            hook.remove()
    labels = torch.arange(logits.shape[0]) % logits.shape[1]
    (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, labels), images)
    return Reference(logits.detach().numpy(), stages, channels_last(gradient.numpy()))


def channels_last(value: np.ndarray) -> np.ndarray:
    """[B, C, H, W] as [B, H, W, C], all else as it is."""
    return value.transpose(0, 2, 3, 1) if value.ndim == 4 else value
