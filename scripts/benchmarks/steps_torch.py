"""The PyTorch side of scripts/benchmarks/run.py: the same steps as users write them, channels last, AMP in bfloat16.

Networks are torchvision's, EfficientNet-Lite timm's. Images are augmented on the device in one resampling, as in
fer_jax; of the pipeline by torchvision's transforms in the workers of a DataLoader.
"""

import argparse
import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from scripts.benchmarks import clock
from scripts.benchmarks.data import AUGMENT, InMemory, loader_of, transform
from tests.torch_reference import declare_torchvision_operators, randomised

CLASSES = 7


def measure(arguments: argparse.Namespace, images: np.ndarray) -> dict[str, Any]:
    """One measurement of `arguments.part` with `arguments.contender`.

    Args:
      images: uint8 [N, H, W, C].
    """
    device, before = 'cuda' if torch.cuda.is_available() else 'cpu', clock.resident()
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision('high')  # TF32, as XLA
    if arguments.threads == 1:
        torch.set_num_threads(1)
    elif device == 'cpu':
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    wait = torch.cuda.synchronize if device == 'cuda' else lambda: None
    if arguments.part == 'peak':
        return {'flops_per_second': matmul_peak(arguments.dtype, device, wait), **machine(device)}
    model = network_of(arguments).to(device, memory_format=torch.channels_last)
    make = inference if arguments.part == 'infer' else training
    step = make(arguments, model, images, device)
    figures = clock.timed(step, lambda _: wait(), arguments.batch, arguments.seconds)
    peak = torch.cuda.max_memory_allocated() if device == 'cuda' else clock.resident('VmHWM') - before
    return {**figures, 'peak_bytes': peak, **machine(device)}


def machine(device: str) -> dict[str, Any]:
    name = torch.cuda.get_device_name() if device == 'cuda' else 'cpu'
    return {'device': name, 'threads': torch.get_num_threads(), 'torch': torch.__version__}


def network_of(arguments: argparse.Namespace) -> Any:
    declare_torchvision_operators()
    if arguments.network.startswith('efficientnet_lite'):
        import timm

        return randomised(lambda: timm.create_model(f'tf_{arguments.network}', num_classes=CLASSES))
    import torchvision

    return randomised(lambda: getattr(torchvision.models, arguments.network)(weights=None, num_classes=CLASSES))


def head_of(model: Any) -> Any:
    """The last linear layer."""
    return [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]


def amp(arguments: argparse.Namespace, device: str) -> contextlib.AbstractContextManager[Any]:
    return torch.autocast(device, torch.bfloat16, enabled=arguments.dtype == 'bfloat16')


def training(arguments: argparse.Namespace, model: Any, images: np.ndarray, device: str) -> Callable[[], Any]:
    """A step; of a frozen backbone in evaluation mode, so that autograd records nothing below the head."""
    if arguments.part == 'frozen' or 'frozen' in arguments.contender:
        model.eval().requires_grad_(False)
        head_of(model).requires_grad_(True)
    else:
        model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.05, fused=True)
    forward = torch.compile(model) if 'compiled' in arguments.contender else model
    batches = (loaded if arguments.part == 'pipeline' else augmented)(arguments, images, device)

    def step() -> None:
        x, labels = next(batches)
        with amp(arguments, device):
            loss = torch.nn.functional.cross_entropy(forward(x), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def inference(arguments: argparse.Namespace, model: Any, images: np.ndarray, device: str) -> Callable[[], Any]:
    forward = torch.compile(model) if 'compiled' in arguments.contender else model
    x = torch.from_numpy(images).to(device)

    def step() -> Any:
        with torch.inference_mode(), amp(arguments, device):
            return forward(normalised(x.permute(0, 3, 1, 2).float()))

    return step


def normalised(x: Any) -> Any:
    """float [B, 1 or 3, H, W] of 0..255 -> [B, 3, H, W], channels last."""
    return ((x / 255 - 0.5) / 0.5).expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


def augmented(arguments: argparse.Namespace, images: np.ndarray, device: str) -> Iterator[tuple[Any, Any]]:
    """One batch that lies on the device, mirrored, turned, moved and scaled anew each time."""
    stored, ranges = torch.from_numpy(images).to(device), AUGMENT
    labels = torch.arange(len(images), device=device) % CLASSES
    while True:
        angle, scale, right, down = (
            (2 * torch.rand(len(images), device=device) - 1) * size
            for size in (np.deg2rad(ranges['rotate']), ranges['scale'], 2 * ranges['shift'], 2 * ranges['shift'])
        )
        side = torch.where(torch.rand(len(images), device=device) < ranges['flip'], -1.0, 1.0)
        cos, sin = torch.cos(angle) / (1 + scale), torch.sin(angle) / (1 + scale)
        rows = torch.stack([cos * side, -sin, right]), torch.stack([sin * side, cos, down])
        maps = torch.stack(rows).permute(2, 0, 1)
        size = (len(images), images.shape[-1], arguments.size, arguments.size)
        grid = torch.nn.functional.affine_grid(maps, list(size), align_corners=False)
        x = stored.permute(0, 3, 1, 2).float()
        yield normalised(torch.nn.functional.grid_sample(x, grid, align_corners=False)), labels


def loaded(arguments: argparse.Namespace, images: np.ndarray, device: str) -> Iterator[tuple[Any, Any]]:
    """Batches of a DataLoader whose workers, one a core, augment each image with torchvision."""
    side, labels = images.shape[1], np.arange(len(images)) % CLASSES
    shown = images[..., 0] if images.shape[-1] == 1 else images
    loader = loader_of(InMemory(shown, labels, transform(side, arguments.size)), arguments.batch, arguments.threads)
    while True:
        for x, labels in loader:
            x = x.to(device, non_blocking=True)
            yield normalised(255 * x), labels.to(device, non_blocking=True)


def matmul_peak(dtype: str, device: str, wait: Callable[[], Any]) -> float:
    """FLOP/s of the fastest of the square products."""
    best = 0.0
    for side in (1024, 2048) if device == 'cpu' else (4096, 8192, 16384):
        a = torch.ones(side, side, dtype=getattr(torch, dtype), device=device)
        figures = clock.timed(lambda a=a: a @ a, lambda _: wait(), 1, 1.0)
        best = max(best, 2 * side**3 * figures['images_per_second'])
    return best
