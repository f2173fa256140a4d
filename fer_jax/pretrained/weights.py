"""Converted weights, as a value and as a file: safetensors with all that is needed to use them and to trust them."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fer_jax.errors import UserError
from fer_jax.models.preprocessing import Preprocessing
from fer_jax.utils import limits
from fer_jax.utils.atomic_files import atomic_write

FORMAT = '2'  # of the file
WITHOUT_DIGEST = '1'  # the format before, which is read as it is; others are refused
RESERVED = ('format', 'model', 'preprocessing')  # metadata that `Weights` holds elsewhere
DIGEST = 'tensors_sha256'  # of tensors and metadata


@dataclass(frozen=True)
class Weights:
    """The weights of a network in fer_jax's names and layout.

    Attributes:
      params, stats: flat trees, float32, the head included; those of a file are read when they are accessed.
      metadata: source, sha256 (of the source file), licence, classes.
    """

    model: str
    params: Mapping[str, np.ndarray]
    stats: Mapping[str, np.ndarray]
    preprocessing: Preprocessing
    metadata: dict[str, str]


@dataclass(frozen=True)
class Tensors(Mapping[str, np.ndarray]):
    """The tensors of a .safetensors file, each read when it is accessed, so that not all are in memory at once."""

    path: Path
    names: tuple[str, ...]

    def __getitem__(self, name: str) -> np.ndarray:
        from safetensors import SafetensorError, safe_open

        if name not in self.names:
            raise KeyError(name)
        try:
            with safe_open(self.path, framework='numpy') as file:  # anew: an open file keeps all pages it has read
                return file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise UserError(f'{self.path} cannot be read any more ({error})') from error

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def save(path: Path, weights: Weights) -> None:
    """Writes a .safetensors file with metadata; a failed write leaves no partial file.

    Raises:
      UserError: it cannot be written there.
    """
    from safetensors.numpy import save_file

    preprocessing = json.dumps(dataclasses.asdict(weights.preprocessing))
    metadata = weights.metadata | {'format': FORMAT, 'model': weights.model, 'preprocessing': preprocessing}
    tensors = {name: np.ascontiguousarray(leaf) for name, leaf in (*weights.params.items(), *weights.stats.items())}
    metadata[DIGEST] = digest_of(tensors, metadata)
    with whole_file(path) as scratch:
        save_file(tensors, scratch, metadata=metadata)


def digest_of(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    """Returns the sha256 of tensors (names, types, shapes, numbers) and of the metadata that their use depends on."""
    covered = {key: value for key, value in metadata.items() if key != DIGEST}
    digest = hashlib.sha256(json.dumps(covered, sort_keys=True).encode())
    for name in sorted(tensors):
        leaf = tensors[name]
        digest.update(f'{name}\0{leaf.shape}\0{leaf.dtype}\0'.encode())
        digest.update(memoryview(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8)))  # type: ignore[arg-type]
    return digest.hexdigest()


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a path to write to and then renames that file to `path`; nothing is left where that fails.

    The permissions of the file follow the umask.

    Raises:
      UserError: it cannot be written there.
    """
    from safetensors import SafetensorError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as scratch:
            scratch.touch()
            mode = scratch.stat().st_mode
            yield scratch
            scratch.chmod(mode)  # safetensors' own is 0600
    except (OSError, SafetensorError) as error:
        raise UserError(f'{path} cannot be written ({error}); choose another --output') from error


def is_converted(path: Path) -> bool:
    """Returns whether a file starts with the metadata that `save` writes, even if it is damaged later on."""
    with path.open('rb') as file:
        head = file.read(1 << 16)
    return head[8:9] == b'{' and b'"preprocessing"' in head and b'"model"' in head


def load(path: Path, model: str | None) -> Weights:
    """Reads a file that `save` wrote, of any network if `model` is None.

    The whole file is read once to check its digest; older files without a digest are accepted.

    Raises:
      UserError: the file is missing, damaged, not converted, or of another model.
    """
    from safetensors import SafetensorError, safe_open

    named = f'model.weights={str(path)!r}'
    if not path.is_file():
        raise UserError(
            f"{named} is not a file; give 'imagenet', 'scratch', a converted .safetensors file or the workdir of a run"
        )
    if (size := path.stat().st_size) > limits.FILE_BYTES:
        raise UserError(f'{named} has {size:,} bytes, at most {limits.FILE_BYTES:,} are read')
    try:
        with safe_open(path, framework='numpy') as file:
            metadata = dict(file.metadata() or {})
            names = list(file.keys())
    except (SafetensorError, OSError) as error:
        raise UserError(f'{named} cannot be read ({error}); convert it again') from error
    if metadata.get('format') not in (FORMAT, WITHOUT_DIGEST) or not set(RESERVED) <= set(metadata):
        raise UserError(f'{named} is not a file converted by this fer_jax; run python -m fer_jax.convert_weights on it')
    tensors = Tensors(path, tuple(names))
    has_digest = metadata['format'] == FORMAT or DIGEST in metadata
    if has_digest and digest_of(tensors, metadata) != metadata.get(DIGEST):
        raise UserError(
            f'{named} is damaged: its content has another digest than when it was written; convert it again'
        )
    if model and metadata['model'] != model:
        raise UserError(f'{named} is of {metadata["model"]}, model.name is {model!r}')
    try:
        fields = json.loads(metadata['preprocessing'])
        mean, std = (tuple(map(float, fields.pop(key))) for key in ('mean', 'std'))
        preprocessing = Preprocessing(mean, std, **fields)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f'{named} has damaged metadata ({error}); convert it again') from error
    stats = tuple(name for name in names if name.endswith(('.mean', '.var')))
    params = tuple(name for name in names if name not in stats)
    rest = {key: value for key, value in metadata.items() if key not in (*RESERVED, DIGEST)}
    return Weights(metadata['model'], Tensors(path, params), Tensors(path, stats), preprocessing, rest)
