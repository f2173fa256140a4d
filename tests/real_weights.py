"""Real weight files, faces and photographs, for comparing networks with their sources."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from fer_jax.data.imaging import faces

MODULES = Path(os.environ.get('FER_JAX_NODE_MODULES', Path(__file__).parents[1] / 'node_modules'))


def weight_file(shared_data: Path, name: str) -> Path:
    """Returns the path of a real weight file; skips the test where it is not there."""
    file = shared_data / 'weights' / name
    if not file.is_file():
        pytest.skip(f'no {file}')
    return file


def face_chips(shared_data: Path, size: int) -> np.ndarray:
    """Cuts the faces out of the shared photographs, uint8 RGB [B, size, size, 3]."""
    detect = faces.detector()
    chips = []
    for file in sorted((shared_data / 'photos').glob('*.jpg')):
        image = faces.read_rgb(file)
        chips += [faces.crop(image, face.box, 0.05, size) for face in detect(image)]
    return np.stack(chips)


def run_tfjs(model: Path, x: np.ndarray, nodes: Sequence[str], folder: Path) -> np.ndarray:
    """Runs a graph model by TensorFlow.js under Node; skips the test where one of them is not installed.

    Args:
      x: float32 [B, H, W, C].
      nodes: names of graph nodes.

    Returns:
      float32 [N], the values of the nodes one after the other.
    """
    x.astype('<f4').tofile(folder / 'in.raw')
    run_node('tfjs_run.mjs', model, folder / 'in.raw', folder / 'out.raw', json.dumps(x.shape), ','.join(nodes))
    return np.fromfile(folder / 'out.raw', '<f4')


def run_node(script: str, *arguments: object) -> str:
    """Runs a script of tests/ with the modules' folder and `arguments`, and returns its output."""
    if shutil.which('node') is None or not (MODULES / '@tensorflow' / 'tfjs').is_dir():
        pytest.skip(f'no Node, or no TensorFlow.js in {MODULES}: npm install --no-package-lock @tensorflow/tfjs')
    command = ['node', Path(__file__).with_name(script), MODULES, *arguments]
    return subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout
