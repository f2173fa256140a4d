"""Converted weights, as a value and as a file: safetensors with all that is needed to use them and to trust them."""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fer_jax.errors import UserError
from fer_jax.partition import Flat

FORMAT = '1'  # of the file; another one is refused
RESERVED = ('format', 'model', 'preprocessing')  # metadata that `Weights` holds elsewhere


@dataclass(frozen=True)
class Preprocessing:
    """Mean and standard deviation of x / 255, one value a channel (RGB)."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        usable = len(self.mean) == len(self.std) in (1, 3) and all(map(math.isfinite, (*self.mean, *self.std)))
        if not usable or min(self.std) <= 0:
            raise UserError(
                f'preprocessing by mean={list(self.mean)}, std={list(self.std)}: expected one number or three (RGB) '
                'each, of x / 255, the deviations above 0'
            )


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


def save(path: Path, weights: Weights) -> None:
    """Writes .safetensors with metadata, whole or not at all.

    Raises:
      UserError: it cannot be written there.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    look = {'mean': weights.preprocessing.mean, 'std': weights.preprocessing.std}
    metadata = weights.metadata | {'format': FORMAT, 'model': weights.model, 'preprocessing': json.dumps(look)}
    tensors = {name: np.ascontiguousarray(leaf) for name, leaf in (weights.params | weights.stats).items()}
    scratch = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            save_file(tensors, scratch, metadata=metadata)
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        raise UserError(f'the weights cannot be written to {path} ({error}); choose another --output') from error


def load(path: Path, model: str) -> Weights:
    """Reads what `save` wrote.

    Raises:
      UserError: the file is missing, damaged, not converted, or of another model.
    """
    from safetensors import SafetensorError, safe_open

    named = f'model.weights={str(path)!r}'
    if not path.is_file():
        raise UserError(
            f"{named} is not a file; give 'imagenet', 'scratch', a converted .safetensors file or the workdir of a run"
        )
    try:
        with safe_open(path, framework='numpy') as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f'{named} cannot be read ({error}); convert it again') from error
    if metadata.get('format') != FORMAT or not set(RESERVED) <= set(metadata):
        raise UserError(f'{named} is not a file converted by this fer_jax; run python scripts/convert_weights.py on it')
    if metadata['model'] != model:
        raise UserError(f'{named} is of {metadata["model"]}, model.name is {model!r}')
    try:
        look = {key: tuple(map(float, values)) for key, values in json.loads(metadata['preprocessing']).items()}
        preprocessing = Preprocessing(**look)
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f'{named} has damaged metadata ({error}); convert it again') from error
    stats = {name: leaf for name, leaf in tensors.items() if name.endswith(('.mean', '.var'))}
    params = {name: leaf for name, leaf in tensors.items() if name not in stats}
    rest = {key: value for key, value in metadata.items() if key not in RESERVED}
    return Weights(model, params, stats, preprocessing, rest)
