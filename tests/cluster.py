"""Several processes of the command line on this machine, as one run."""

import contextlib
import json
import os
import runpy
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.wait import LIMIT, wait_for

REPOSITORY = Path(__file__).parents[1]
CONFIG = '''
import os
import time

import jax

from configs import default
from fer_jax.models import network
from fer_jax.training import train_state
from fer_jax.training.recorder import Recorder
from fer_jax.training.run import Run

if pace := float(os.environ.get('PACE', 0)):  # seconds a step
    stepped = Recorder.stepped
    Recorder.stepped = lambda *arguments: (stepped(*arguments), time.sleep(pace))

if os.environ.get('JAX_ENABLE_X64'):  # from parameters to updates
    network.DTYPES['float32'] = jax.numpy.float64

    def widened(function):
        """What it gives, arrays or their shapes, in float64."""

        def wide(leaf):
            if isinstance(leaf, jax.ShapeDtypeStruct):
                return jax.ShapeDtypeStruct(leaf.shape, 'float64', sharding=leaf.sharding)
            return leaf.astype('float64')

        return lambda *arguments: jax.tree.map(wide, function(*arguments))

    Run.initial, train_state.zero_sums = widened(Run.initial), widened(train_state.zero_sums)
    network.Network.abstract = widened(network.Network.abstract)


def get_config():
    config = default.get_config()
    config.model.update({{'name': 'resnet8_small', 'weights': 'scratch', 'image_size': 32, 'channels': 1}})
    config.model.dropout = 0.3
    config.data.update({{'name': '', 'dir': {images!r}, 'batch_size': 8}})
    config.log_every = 1
    config.phases = (default.phase(epochs=4, optimizer='sgd', learning_rate=1e-2, ema=0.9, clip=1.0),)
    config.parallel.wait = 120.0
    config.parallel.lost_after = 120.0
    return config
'''


def write_config(folder: Path) -> Path:
    """A config of 17 steps, each of PACE seconds if the environment says so, evaluated every 4.

    Three classes of 15 images of noise: 33 to train on, 6 in each other split.
    """
    random = np.random.default_rng(0)
    for label, name in enumerate(('angry', 'happy', 'sad')):
        (folder / 'images' / name).mkdir(parents=True)
        for index in range(15):
            pixels = random.integers(40 * label, 160 + 40 * label, (32, 32), np.uint8)
            Image.fromarray(pixels).save(folder / 'images' / name / f'{index}.png')
    path = folder / 'config.py'
    path.write_text(CONFIG.format(images=str(folder / 'images')))
    return path


def load_config(path: Path) -> dict[str, Any]:
    """As plain values."""
    return json.loads(runpy.run_path(str(path))['get_config']().to_json())


def free_port() -> int:
    with socket.socket() as chosen:
        chosen.bind(('', 0))
        return chosen.getsockname()[1]


def environment(**changes: str) -> dict[str, str]:
    return os.environ | {'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(REPOSITORY), 'PYTHONUNBUFFERED': '1'} | changes


class Run:
    """`count` processes of one command; ended at the end of the block.

    Args:
      devices: of each, on CPU.
      pace: seconds that a step takes longer.
      double: compute in float64.
    """

    def __init__(
        self,
        config: Path,
        workdir: Path,
        *flags: str,
        count: int = 2,
        devices: int = 1,
        pace: float = 0,
        double: bool = False,
    ):
        command = [sys.executable, '-m', 'fer_jax.main', f'--config={config}', f'--workdir={workdir}']
        command += [f'--config.parallel.devices={count * devices}', *flags]
        if double:  # larger convolutions of float64 take seconds without optimizations
            command.append('--config.model.image_size=16')
        if count > 1:
            command += [f'--coordinator=localhost:{free_port()}', f'--num_processes={count}']
        self.workdir = workdir
        self.processes = []
        for index in range(count):
            own = [*command, f'--process_id={index}'] if count > 1 else command
            cache = environment(FER_JAX_CACHE=str(config.parent / 'cache'), PACE=str(pace))
            if double:
                cache['JAX_ENABLE_X64'] = '1'
            self.processes.append(
                subprocess.Popen(
                    own, cwd=REPOSITORY, env=cache, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
                )
            )

    def __enter__(self) -> 'Run':
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            with contextlib.suppress(OSError):
                process.kill()
            process.communicate()

    def reach(self, step: int) -> None:
        """Returns when that step is recorded."""
        path = self.workdir / 'metrics.jsonl'

        def recorded() -> bool:
            alive = [process.poll() for process in self.processes]
            if any(status is not None for status in alive):
                raise AssertionError((alive, [process.communicate() for process in self.processes]))
            return path.exists() and f'"step": {step},' in path.read_text()

        wait_for(recorded)

    def ends(self) -> list[tuple[int, str, str]]:
        """(status, stdout, stderr) of each."""
        said = [process.communicate(timeout=LIMIT) for process in self.processes]
        return [(process.returncode, *texts) for process, texts in zip(self.processes, said, strict=True)]
