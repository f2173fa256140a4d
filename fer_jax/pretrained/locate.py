"""Where weights are found: the cache, an installed package, a file that someone gives."""

import contextlib
import difflib
import hashlib
import importlib.util
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fer_jax.errors import UserError
from fer_jax.models import registry
from fer_jax.models.preprocessing import Preprocessing
from fer_jax.pretrained import published_weights
from fer_jax.pretrained.convert import convert, convert_dlib, convert_keras, convert_matconvnet, convert_tfjs
from fer_jax.pretrained.download import fetch, other_digest
from fer_jax.pretrained.published_weights import Published
from fer_jax.pretrained.readers.dlib_file import is_dlib, read_dlib
from fer_jax.pretrained.readers.entries import Entries
from fer_jax.pretrained.readers.foreign import ALL_SUFFIXES
from fer_jax.pretrained.readers.keras_file import HDF5, read_keras
from fer_jax.pretrained.readers.matlab_file import MATLAB, read_matconvnet
from fer_jax.pretrained.readers.tfjs_file import BEGINNING_BYTES, is_tfjs, list_shards, read_tfjs
from fer_jax.pretrained.readers.torch_file import read_entries
from fer_jax.pretrained.readers.unpack import unpacked
from fer_jax.pretrained.weights import Weights, is_converted, load, save
from fer_jax.utils.cache import is_writable
from fer_jax.utils.paths import user_path

LONGEST_NOTE = 300  # characters of what is said about entries that were left


def resolve(
    weights: str, model: str, *, cache: Path, published: Sequence[Published] = published_weights.PUBLISHED
) -> Weights:
    """Finds and loads the weights that a config names.

    Args:
      weights: those of the registry, such as 'imagenet' (`<cache>/weights/<model>-<weights>.safetensors`, else an
        installed package that contains them, else the published file, which is downloaded and converted into the
        cache), or the path of a file: a converted .safetensors, or another framework's, which is converted into the
        cache.
      published: the registry.

    Raises:
      UserError: there are none, with the places that were tried; or they are another model's, with both named.
    """
    if weights not in {known.weights for known in published}:
        return _from_file(user_path(weights), model, cache)
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
        + f'convert a file by python -m fer_jax.convert_weights --model {model} --weights {weights} --source FILE; '
        + describe_installed(cache, published)
        + '; or train all stages from random ones: --config.model.weights=scratch'
    )


def describe_installed(cache: Path, published: Sequence[Published] = published_weights.PUBLISHED) -> str:
    """Returns a text that names the published weights on this machine: in the cache, or in an installed package."""
    here = [
        f'--config.model.name={known.model}{"" if known.weights == "imagenet" else f" with {known.weights!r}"}'
        for known in published
        if cached_file(known.model, cache, known.weights).is_file() or (known.package and installed_file(known))
    ]
    return f'weights are installed of {", ".join(here)}' if here else 'no published weights are installed'


def _from_file(file: Path, model: str, cache: Path) -> Weights:
    """Loads a converted file as it is; converts one of another framework, and keeps the result in the cache."""
    if not file.is_file() or is_converted(file):
        return load(file, model)
    with file.open('rb') as opened:
        sha256 = hashlib.file_digest(opened, 'sha256').hexdigest()
    kept = cache / 'weights' / 'converted' / f'{model}-{sha256[:32]}.safetensors'
    if kept.is_file():
        print(f'{file}: converted before, see {kept}')
        return load(kept, model)
    command = f'python -m fer_jax.convert_weights --model {model} --source {file} --output {file.stem}.safetensors'
    try:
        weights = convert_file(file, model, source=file.name, licence=licence_of(file, model))
    except UserError as error:
        raise UserError(
            f'model.weights={str(file)!r}: {error}; to choose by yourself what is taken: {command}'
        ) from error
    with contextlib.suppress(OSError):  # a cache that cannot be written costs a conversion each time
        save(kept, weights)
    print(f'{file}: converted, sha256 {sha256[:16]}..., licence {weights.metadata["licence"]}', end='; ')
    print(describe_conversion(weights))
    return weights


def licence_of(file: Path, model: str) -> str:
    """Returns the licence of a file that is published, by its digest; 'unknown' for others."""
    for known in published_weights.PUBLISHED:
        if known.model == model and known.digest and not other_digest(file, known.digest):
            return f'{known.licence}; {known.terms}'
    return 'unknown'


def load_of_any_network(file: Path, model: str) -> Weights:
    """Loads a converted file, or converts another framework's as the first network that it fits.

    Args:
      file: see `convert_file`.
      model: name of the network that is tried first; then come those with similar names.

    Raises:
      UserError: the file cannot be read, or is that of none of the networks.
    """
    if not file.is_file() or is_converted(file):
        return load(file, None)
    message = ''
    for name in sorted(registry.NAMES, key=lambda name: -difflib.SequenceMatcher(None, name, model).ratio()):
        try:
            weights = convert_file(file, name, source=file.name, licence=licence_of(file, name))
        except UserError as error:
            message = message or str(error)
        else:
            print(f'{file}: converted on the way as {name}; {describe_conversion(weights)}')
            return weights
    raise UserError(f'model.partial: the weights are those of no network of fer_jax; as {model}: {message}')


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
    """Fetches the published file, and keeps it converted in the cache, where that can be written."""
    print(f'{known.weights} weights of {known.model}: {known.licence}; {known.terms}')
    with contextlib.ExitStack() as stack:
        folder = cached.parent
        if not (keeps := is_writable(folder)):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix='fer_jax_weights_')))
        file = folder / known.place.rpartition('/')[2]
        fetch(known.place, file, digest=known.digest)
        weights = convert_file(file, known.model, source=known.place, licence=f'{known.licence}; {known.terms}')
        if keeps:
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
    also in a gzip or zip; or the model.json of TensorFlow.js, beside its shards. Nothing in it is executed.

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
        raise UserError(f'{file} is not a file; give a file of weights ({", ".join(ALL_SUFFIXES)})')
    digest = digest or next((known.digest for known in published_weights.PUBLISHED if known.file == file.name), '')
    with unpacked(file) as inner:
        read, into = READERS[kind_of(inner)]
        if other := other_digest(file, digest):
            raise UserError(f'{file} has the digest {other}, published is {digest}...: it is damaged; fetch it again')
        if other := other_digest(file, digest_of_card(file)):
            raise UserError(f'{file} has the digest {other}, its card {file.name}.md another; export it anew')
        try:
            entries = read(inner)
        except UserError as error:
            raise UserError(str(error).replace(str(inner), str(file))) from error
        sha256 = digest_of([file, *(list_shards(inner) if read is read_tfjs else ())])
    metadata = {'source': source, 'sha256': sha256, 'licence': licence}
    if isinstance(entries, Entries):
        metadata |= describe_left(entries)
        entries = entries.arrays
    try:
        return into(entries, model, metadata=metadata, preprocessing=preprocessing, key=key)
    except UserError as error:
        beside = f'; it also holds {metadata["beside"]}' if 'beside' in metadata else ''
        raise UserError(f'{file}: {error}{beside}') from error


def digest_of_card(file: Path) -> str:
    """Returns 'sha256:' and the digits that stand in the card beside an exported file; '' where none do."""
    card = file.with_name(f'{file.name}.md')
    try:
        text = card.read_text(encoding='utf-8') if card.is_file() else ''
        match = re.search(r'^sha256 +(\w+)$', text, re.MULTILINE)
    except (OSError, ValueError) as error:
        raise UserError(f'{card} cannot be read ({error}); remove it, or export anew') from None
    return f'sha256:{match[1]}' if match else ''


def describe_left(entries: Entries) -> dict[str, str]:
    """Returns metadata that name the pickled modules of a checkpoint and its entries other than arrays."""
    left = {}
    if entries.modules:
        left['modules'] = ', '.join(
            f'{name or "the file"} is a whole pickled {kind}, of which the arrays are read and nothing else'
            for name, kind in entries.modules.items()
        )
    if entries.others:
        left['beside'] = ', '.join(f'{name} ({kind})' for name, kind in entries.others.items())
    return {name: text if len(text) < LONGEST_NOTE else f'{text[:LONGEST_NOTE]}...' for name, text in left.items()}


# kind of file -> what reads it, and what makes of its entries a network's
READERS: dict[str, tuple[Callable[[Path], Any], Callable[..., Weights]]] = {
    'keras': (read_keras, convert_keras),
    'matlab': (read_matconvnet, convert_matconvnet),
    'tfjs': (read_tfjs, convert_tfjs),
    'dlib': (read_dlib, convert_dlib),
    'torch': (read_entries, convert),
}


def kind_of(file: Path) -> str:
    """Returns the kind of a file, a key of `READERS`, by its first bytes; 'torch' for all that no other begins with."""
    with file.open('rb') as opened:
        head = opened.read(BEGINNING_BYTES)
    if head.startswith(HDF5):
        return 'keras'
    if head.startswith(MATLAB):
        return 'matlab'
    if is_dlib(head):
        return 'dlib'
    return 'tfjs' if is_tfjs(head) else 'torch'


def digest_of(files: Sequence[Path]) -> str:
    """Returns the sha256 of the contents of these files, one after the other."""
    digest = hashlib.sha256()
    for file in files:
        with file.open('rb') as opened:
            while data := opened.read(1 << 20):
                digest.update(data)
    return digest.hexdigest()
