"""The part `startup` of scripts/benchmarks/run.py: from the command to the end of the first training step.

A ResNet-18 at 64 px with fresh weights on a folder of 1,024 images: `python -m fer_jax.main`, until the first record of
its metrics, and a PyTorch script with ImageFolder, a DataLoader and AdamW.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from scripts.benchmarks import clock
from scripts.benchmarks.data import loader_of, transform

FIRST = ', first time'  # with nothing compiled before; the measurement after it finds what it kept
CONTENDERS = ('fer_jax, first time', 'fer_jax', 'PyTorch', 'PyTorch, compiled, first time', 'PyTorch, compiled')
BATCH, LONGEST = 96, 600.0


def environment(scratch: Path, contender: str, number: int) -> dict[str, str]:
    """Where this round's compiled programs are kept."""
    name = contender.removesuffix(FIRST).replace(', ', '-')  # PyTorch's C++ compiler splits paths at spaces
    kept = str(scratch / f'{name}-{number}')
    return {'FER_JAX_CACHE': kept, 'TORCHINDUCTOR_CACHE_DIR': kept, 'JAX_COMPILATION_CACHE_DIR': ''}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds and CPU-seconds to the end of the first step."""
    if not arguments.contender.startswith('fer_jax'):
        return torch_step(arguments)
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder) / 'run'
        command = [sys.executable, '-m', 'fer_jax.main', '--config', 'configs/fer2013_resnet18.py']
        command += ['--workdir', str(workdir), '--config.data.name=', f'--config.data.dir={arguments.images}']
        command += [f'--config.data.batch_size={BATCH}', '--config.log_every=1']
        command += [f'--config.parallel.devices={arguments.devices}', f'--config.model.dtype={arguments.dtype}']
        begun = time.perf_counter()
        with subprocess.Popen(command, stdout=sys.stderr, cwd=Path(__file__).parents[2]) as running:
            metrics = workdir / 'metrics.jsonl'
            while not (metrics.is_file() and metrics.stat().st_size):
                if running.poll() is not None or time.perf_counter() - begun > LONGEST:
                    running.kill()
                    sys.exit(f'no first step: status {running.poll()}')
                time.sleep(0.005)
            seconds, cpu = time.perf_counter() - begun, clock.cpu_seconds() - time.process_time()
            running.send_signal(signal.SIGTERM)
        return {'seconds': seconds, 'cpu_seconds': cpu}


def torch_step(arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    from tests.torch_reference import declare_torchvision_operators

    declare_torchvision_operators()
    from torchvision import datasets, models

    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    images = datasets.ImageFolder(str(arguments.images), transform(48, arguments.size))
    model: Any = models.resnet18(num_classes=2).to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    forward = torch.compile(model) if 'compiled' in arguments.contender else model
    x, labels = next(iter(loader_of(images, BATCH, arguments.threads)))
    x = x.to(device, memory_format=torch.channels_last)
    with torch.autocast(device, torch.bfloat16, enabled=arguments.dtype == 'bfloat16'):
        loss = torch.nn.functional.cross_entropy(forward(x), labels.to(device))
    loss.backward()
    optimizer.step()
    loss.item()
    seconds, cpu = clock.age(), clock.cpu_seconds()
    return {'seconds': seconds, 'cpu_seconds': cpu}
