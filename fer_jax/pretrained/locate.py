"""Where weights are found: the cache, an installed package, a file that someone gives."""

import hashlib
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fer_jax.errors import UserError
from fer_jax.models import registry
from fer_jax.models.preprocessing import Preprocessing
from fer_jax.pretrained import published_weights
from fer_jax.pretrained.convert import convert, convert_keras, convert_matconvnet
from fer_jax.pretrained.download import fetch, other_digest
from fer_jax.pretrained.published_weights import Published
from fer_jax.pretrained.readers.entries import Entries
from fer_jax.pretrained.readers.keras_file import HDF5, read_keras
from fer_jax.pretrained.readers.matlab_file import MATLAB, read_matconvnet
from fer_jax.pretrained.readers.torch_file import read_entries
from fer_jax.pretrained.readers.unpack import unpacked
from fer_jax.pretrained.weights import Weights, is_converted, load, save
from fer_jax.utils.paths import user_path

LONGEST_NOTE = 300  # characters of what is said about entries that were left


def resolve(
    weights: str, model: str, *, cache: Path, published: Sequence[Published] = published_weights.PUBLISHED
) -> Weights:
    """Finds and loads the weights that a config names.

    Args:
      weights: those of the registry, such as 'imagenet' (`<cache>/weights/<model>-<weights>.safetensors`, else an
        installed package that contains them, else the published file, which is downloaded and converted into the
        cache), or the path of a file: a converted .safetensors, or another framework's, which is converted in memory.
      published: the registry.

    Raises:
      UserError: there are none, with the places that were tried; or they are another model's, with both named.
    """
    if weights not in {known.weights for known in published}:
        return _from_file(user_path(weights), model)
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
                return convert_file(
                    file, model, source=f'package {known.package}', licence=known.licence, digest=known.digest
                )
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


def _from_file(file: Path, model: str) -> Weights:
    """A converted file as it is, another framework's converted on the way."""
    if not file.exists() or (file.is_file() and is_converted(file)):
        return load(file, model)
    command = f'python -m fer_jax.convert_weights --model {model} --source {file} --output {file.stem}.safetensors'
    try:
        weights = convert_file(file, model, source=file.name, licence='unknown')
    except UserError as error:
        raise UserError(
            f'model.weights={str(file)!r}: {error}; to choose by yourself what is taken: {command}'
        ) from error
    print(f'{file}: converted on the way, sha256 {weights.metadata["sha256"][:16]}...; {describe_conversion(weights)}')
    return weights


def describe_conversion(weights: Weights) -> str:
    """Returns a text that lists which entries of a file were converted and which were left out."""
    notes = {
        'prefix': 'names without {!r}',
        'head': 'head: {}',
        'modules': '{}',
        'left': 'left out: {}',
        'beside': 'left out: {}',
    }
    return '; '.join(text.format(weights.metadata[key]) for key, text in notes.items() if key in weights.metadata)


def installed_file(known: Published) -> Path | None:
    """Returns the path of a file in an installed package; None if the package is not installed."""
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
    """Returns the path in the cache where weights of the registry are looked for first."""
    return cache / 'weights' / f'{model}-{weights}.safetensors'


def convert_file(
    file: Path,
    model: str,
    *,
    source: str,
    licence: str,
    preprocessing: Preprocessing | None = None,
    key: str = '',
    digest: str = '',
) -> Weights:
    """Reads and converts a file of weights.

    It can be a torch state dict, checkpoint, pickled module or TorchScript archive (.pth, .pt, .bin, .safetensors), a
    Keras file (.h5, .weights.h5, .keras), a MatConvNet network (.mat) or a pickled dictionary of arrays (.pkl), each
    also in a gzip or zip. Nothing in it is executed.

    Args:
      file: its kind is recognised by its content, not by its name.
      preprocessing: that of the framework whose names the file has if None.
      key: prefix of the network in the file, where several fit, such as 'state_dict_ema'.
      digest: required digest of the file, as `Published.digest`; '' for any.

    Returns:
      The weights. Their metadata describe the conversion: `prefix` of the names, `head`, and what was `left`.

    Raises:
      UserError: the file cannot be read, has another digest or is not this model's.
    """
    registry.check_name(model)
    if not file.exists():
        raise UserError(f'{file} is not a file; give a .pth, .pt, .safetensors, .h5, .keras, .mat or .pkl of weights')
    digest = digest or next((known.digest for known in published_weights.PUBLISHED if known.file == file.name), '')
    with unpacked(file) as inner:
        read, into = READERS[kind_of(inner)]
        if other := other_digest(file, digest):
            raise UserError(f'{file} has the digest {other}, published is {digest}...: it is damaged; fetch it again')
        try:
            entries = read(inner)
        except UserError as error:
            raise UserError(str(error).replace(str(inner), str(file))) from error
    with file.open('rb') as opened:
        sha256 = hashlib.file_digest(opened, 'sha256').hexdigest()
    metadata = {'source': source, 'sha256': sha256, 'licence': licence}
    if isinstance(entries, Entries):
        metadata |= describe_left(entries)
        entries = entries.arrays
    try:
        return into(entries, model, metadata=metadata, preprocessing=preprocessing, key=key)
    except UserError as error:
        beside = f'; it also holds {metadata["beside"]}' if 'beside' in metadata else ''
        raise UserError(f'{file}: {error}{beside}') from error


def describe_left(entries: Entries) -> dict[str, str]:
    """Returns metadata that name the pickled modules of a checkpoint and its entries other than arrays."""
    found = {}
    if entries.modules:
        found['modules'] = ', '.join(
            f'{name or "the file"} is a whole pickled {kind}, of which the arrays are read and nothing else'
            for name, kind in entries.modules.items()
        )
    if entries.others:
        found['beside'] = ', '.join(f'{name} ({kind})' for name, kind in entries.others.items())
    return {name: text if len(text) < LONGEST_NOTE else f'{text[:LONGEST_NOTE]}...' for name, text in found.items()}


# kind of file -> what reads it, and what makes of its entries a network's
READERS: dict[str, tuple[Callable[[Path], Any], Callable[..., Weights]]] = {
    'keras': (read_keras, convert_keras),
    'matlab': (read_matconvnet, convert_matconvnet),
    'torch': (read_entries, convert),
}


def kind_of(file: Path) -> str:
    """Returns the kind of a file by its first bytes: 'keras' (HDF5), 'matlab', or 'torch' (all else)."""
    with file.open('rb') as opened:
        head = opened.read(16)
    return 'keras' if head.startswith(HDF5) else 'matlab' if head.startswith(MATLAB) else 'torch'
