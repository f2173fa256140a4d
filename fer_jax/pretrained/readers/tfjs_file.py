"""Reads the weights of TensorFlow.js: a model.json, or a bare manifest of weights, and the binary shards beside it.

Both graph models and layers models are read. Of the graph nothing is used or executed.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.errors import UserError
from fer_jax.utils import limits
from fer_jax.utils.limits import check_limit

BEGINNING = re.compile(rb'\s*[{\[].*?"(modelTopology|weightsManifest|weights|graph-model|layers-model)"', re.DOTALL)
BEGINNING_BYTES = 512  # in which a file is recognised
DTYPES = {'float32': '<f4', 'int32': '<i4', 'bool': '|u1'}
QUANTISED = {'uint8': '|u1', 'uint16': '<u2', 'float16': '<f2'}
FILE_NAME = re.compile(r'\w[\w.-]*')  # of a shard: in the same folder, and no address


def is_tfjs(head: bytes) -> bool:
    """Returns whether a file that begins with `head` is a model or a manifest of TensorFlow.js."""
    return BEGINNING.match(head[:BEGINNING_BYTES]) is not None


def read_tfjs(path: Path) -> dict[str, np.ndarray]:
    """Reads all weights of a model; quantised ones become float32.

    Returns:
      {name: array}, e.g. 'conv1/kernel' of a layers model; in a graph model the names are those of its constants.

    Raises:
      UserError: the model or a shard is missing, damaged or above a limit, or has weights of another type.
    """
    try:
        entries: dict[str, np.ndarray] = {}
        for group in groups(path):
            data = b''.join(shard.read_bytes() for shard in shards(path, [group]))
            read_group(group, memoryview(data), entries)
        if not entries:
            raise ValueError('it lists no weights')
        return entries
    except UserError:
        raise
    except Exception as error:  # a damaged file can hold anything in the place of anything
        raise UserError(f'{path} cannot be read as a TensorFlow.js model ({type(error).__name__}: {error})') from error


def list_shards(path: Path) -> list[Path]:
    """Lists the binary files that belong to a model, in the order of its manifest.

    Raises:
      UserError: one of them is missing, or the manifest is damaged or above a limit.
    """
    try:
        return shards(path, groups(path))
    except UserError:
        raise
    except Exception as error:
        raise UserError(f'{path} cannot be read as a TensorFlow.js model ({type(error).__name__}: {error})') from error


def groups(path: Path) -> list[Mapping[str, Any]]:
    """Returns the groups of the manifest, each with `paths` and `weights`."""
    check_limit(path.stat().st_size, limits.DIRECTORY_BYTES, 'bytes of JSON')
    tree = json.loads(path.read_bytes())
    manifest = tree['weightsManifest'] if isinstance(tree, dict) else tree
    if not isinstance(manifest, list):
        raise ValueError('its weightsManifest is not a list')
    check_limit(sum(len(group['weights']) for group in manifest), limits.MEMBERS, 'weights')
    return manifest


def shards(path: Path, manifest: list[Mapping[str, Any]]) -> list[Path]:
    """Returns the files of these groups, which must lie in the folder of `path`."""
    names = [name for group in manifest for name in group['paths']]
    check_limit(len(names), limits.MEMBERS, 'shards')
    if wrong := next((name for name in names if not isinstance(name, str) or not FILE_NAME.fullmatch(name)), None):
        raise ValueError(f'{str(wrong)[:100]!r} is not the name of a file in its folder')
    if len({*names}) < len(names):
        raise ValueError('it names a shard twice')
    files = [path.with_name(name) for name in names]
    if missing := [file.name for file in files if not file.is_file()]:
        listed = ', '.join(missing[:3]) + (', ...' if len(missing) > 3 else '')
        raise UserError(f'{path} needs {listed} in the same folder; put all of its files there')
    check_limit(sum(file.stat().st_size for file in files), limits.FILE_BYTES, 'bytes in its shards')
    return files


def read_group(group: Mapping[str, Any], data: memoryview, entries: dict[str, np.ndarray]) -> None:
    """Adds the weights of one group, which fill `data` from its first byte to its last."""
    start = 0
    for weight in group['weights']:
        name, shape = weight['name'], tuple(weight['shape'])
        if not isinstance(name, str) or name in entries:
            raise ValueError(f'the name {str(name)[:100]!r} is no text, or is there twice')
        check_limit(len(name), limits.NAME_CHARACTERS, 'characters in a name')
        check_limit(len(shape), limits.DIMENSIONS, 'dimensions')
        if any(type(size) is not int or not 0 <= size <= limits.FILE_BYTES for size in shape):
            raise ValueError(f'{name[:100]!r} has the shape {str(list(shape))[:100]}')
        quantisation = weight.get('quantization')
        stored = np.dtype(QUANTISED[quantisation['dtype']] if quantisation else DTYPES[weight['dtype']])
        end = start + math.prod(shape) * stored.itemsize
        if end > len(data):
            raise ValueError(f'{name[:100]!r} ends after {end:,} bytes, its shards have {len(data):,}')
        array = np.frombuffer(data[start:end], stored).reshape(shape)
        entries[name] = dequantise(array, quantisation, weight['dtype']) if quantisation else array
        start = end
    if start != len(data):
        raise ValueError(f'its shards have {len(data):,} bytes, its weights {start:,}')


def dequantise(array: np.ndarray, quantisation: Mapping[str, Any], dtype: str) -> np.ndarray:
    """Computes scale * value + min, or widens float16."""
    if array.dtype.kind == 'f':
        return array.astype(DTYPES[dtype])
    scale, least = (float(quantisation[key]) for key in ('scale', 'min'))
    if not math.isfinite(scale) or not math.isfinite(least):
        raise ValueError(f'it is quantised with scale {scale} and min {least}')
    values = array.astype(np.float64) * scale + least
    return (np.rint(values) if dtype == 'int32' else values).astype(DTYPES[dtype])
