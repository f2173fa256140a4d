"""Where weights are found: the cache, an installed package, a file that someone gives."""

import hashlib
import importlib.util
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fer_jax.errors import UserError
from fer_jax.models import registry
from fer_jax.models.preprocessing import Preprocessing
from fer_jax.pretrained import published_weights
from fer_jax.pretrained.convert import convert, convert_keras, convert_matconvnet
from fer_jax.pretrained.download import fetch
from fer_jax.pretrained.published_weights import Published
from fer_jax.pretrained.readers.keras_file import HDF5, read_keras
from fer_jax.pretrained.readers.matlab_file import MATLAB, read_matconvnet
from fer_jax.pretrained.readers.numpy_file import read_arrays
from fer_jax.pretrained.readers.torch_file import LEGACY_MAGIC, read_torch
from fer_jax.pretrained.weights import Weights, load, save


def resolve(
    weights: str, model: str, *, cache: Path, published: Sequence[Published] = published_weights.PUBLISHED
) -> Weights:
    """Finds the weights that a config names.

    Args:
      weights: those of the registry, such as 'imagenet' (`<cache>/weights/<model>-<weights>.safetensors`, else an
        installed package that carries them, else the published file, which is downloaded and converted into the
        cache), or the path of a converted .safetensors file.
      published: the registry.

    Raises:
      UserError: there are none, with what was tried; or they are another model's, with both named.
    """
    if weights not in {known.weights for known in published}:
        return load(Path(weights).expanduser(), model)
    registry.check_name(model)
    cached = cached_file(model, cache, weights)
    if cached.is_file():
        return load(cached, model)
    tried = [f'{cached} (not there)']
    of_model = [known for known in published if known.model == model]
    for known in of_model:
        if known.weights != weights:
            continue
        if known.package:
            if file := installed_file(known):
                return convert_file(file, model, source=f'package {known.package}', licence=known.licence)
            tried.append(f'the package {known.package}, which is not installed')
        elif known.by_hand:
            tried.append(f'{known.place}, where they are had by hand ({known.terms})')
        else:
            try:
                return _download(known, cached)
            except UserError as error:
                tried.append(str(error))
    others = ', '.join(repr(known.weights) for known in of_model if known.weights != weights)
    raise UserError(
        f'model.weights={weights!r}: no weights of {model} are here (tried {"; ".join(tried)}); '
        + (f'published are {others}; ' if others and len(tried) == 1 else '')
        + f'convert a file by python -m fer_jax.convert_weights --model {model} --weights {weights} --source FILE, or '
        'start without: --config.model.weights=scratch'
    )


def installed_file(known: Published) -> Path | None:
    """Where a package's file is; None if it is not installed."""
    package, _, inside = known.place.partition('/')
    spec = importlib.util.find_spec(package.replace('-', '_'))
    places = spec.submodule_search_locations if spec else None
    return Path(places[0]) / inside if places else None


def _download(known: Published, cached: Path) -> Weights:
    """Fetches the published file, and keeps it converted in the cache."""
    file = cached.with_name(known.place.rpartition('/')[2])
    print(f'{known.weights} weights of {known.model}: {known.licence}; {known.terms}')
    fetch(known.place, file, digest=known.digest)
    weights = convert_file(file, known.model, source=known.place, licence=f'{known.licence}; {known.terms}')
    save(cached, weights)
    file.unlink()
    return weights


def cached_file(model: str, cache: Path, weights: str = 'imagenet') -> Path:
    """Where weights of the registry are looked for first."""
    return cache / 'weights' / f'{model}-{weights}.safetensors'


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
    registry.check_name(model)
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
