"""From another framework's weights to a network's parameters, strictly in both directions."""

import functools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from flax import nnx

from fer_jax.errors import UserError
from fer_jax.models import registry, vgg
from fer_jax.models.parameters import Flat, Variables, split_module
from fer_jax.models.preprocessing import Preprocessing
from fer_jax.pretrained.name_tables import keras_names, matconvnet_names, torch_names
from fer_jax.pretrained.name_tables.keras_names import KerasSource
from fer_jax.pretrained.name_tables.torch_names import IGNORED, Source
from fer_jax.pretrained.transfer import _few, _grey
from fer_jax.pretrained.weights import Weights

TORCH_LEAVES = {'bias': 'bias', 'running_mean': 'mean', 'running_var': 'var'}
KERAS_LEAVES = {'kernel': 'kernel', 'depthwise_kernel': 'kernel', 'bias': 'bias', 'beta': 'bias', 'gamma': 'scale'}
KERAS_LEAVES |= {'moving_mean': 'mean', 'moving_variance': 'var'}


class Reading(NamedTuple):
    """A file's entries under one source's names.

    Attributes:
      named: path -> array as the source keeps it.
      unknown: entries that have no path, or one that another entry has.
      ignored: what is no part of a network, counted, in words.
      lay_out: (path, array, wanted shape) -> its view in Flax's layout; as it is where it cannot be one.
      preprocessing: how the source prepares images.
    """

    named: Flat
    unknown: list[str]
    ignored: str
    lay_out: Callable[[str, np.ndarray, tuple[int, ...]], np.ndarray]
    preprocessing: Preprocessing


def convert(
    entries: Mapping[str, np.ndarray],
    model: str,
    *,
    metadata: Mapping[str, str],
    preprocessing: Preprocessing | None = None,
) -> Weights:
    """A torch state dict in fer_jax's names and layout, float32.

    Convolutions go from [out, in, h, w] to [h, w, in, out], matrices are transposed; where a matrix is wanted, a
    convolution over the whole map is one on its channels-first flattening. The stem may be one for grey images.

    Args:
      metadata: source, sha256, licence; the number of classes and what was ignored are added.
      preprocessing: that of the source's framework if None.

    Raises:
      UserError: an entry is unknown, missing or of another shape; another network that it fits is named.
    """

    def read(name: str) -> list[Reading]:
        return [_torch_reading(entries, source) for source in torch_names.TABLES.get(name, {}).values()]

    return _strictly(read, torch_names.TABLES, model, 'torch state dict', metadata, preprocessing)


def convert_keras(
    entries: Mapping[str, np.ndarray],
    model: str,
    *,
    metadata: Mapping[str, str],
    preprocessing: Preprocessing | None = None,
) -> Weights:
    """A Keras network in fer_jax's names and layout, float32.

    Depthwise kernels go from [h, w, channels, 1] to [h, w, 1, channels]. The rows of a VGG's first matrix, which reads
    a 7x7 map, go from channels last to channels first. A BatchNorm that its source makes without gamma gets ones.

    Args:
      entries: `<layer>/<leaf>` -> array, as `keras_file.read_keras` gives them.
      metadata, preprocessing: as in `convert`; a normalisation inside the Keras network becomes preprocessing.

    Raises:
      UserError: an entry is unknown, missing or of another shape; another network that it fits is named.
    """

    def read(name: str) -> list[Reading]:
        return [_keras_reading(entries, source) for source in keras_names.TABLES.get(name, {}).values()]

    return _strictly(read, keras_names.TABLES, model, 'Keras file', metadata, preprocessing)


def convert_matconvnet(
    entries: Mapping[str, np.ndarray],
    model: str,
    *,
    metadata: Mapping[str, str],
    preprocessing: Preprocessing | None = None,
) -> Weights:
    """A MatConvNet VGG in fer_jax's names and layout, float32.

    Args:
      entries: `<layer>/filters`, `<layer>/biases`, as `matlab_file.read_matconvnet` gives them.
      metadata, preprocessing: as in `convert`; the mean is that of the original VGG-Face if None.

    Raises:
      UserError: an entry is unknown, missing or of another shape.
    """

    def read(name: str) -> list[Reading]:
        named = matconvnet_names.matconvnet_vgg(entries, name)
        return [Reading(named, [], 'nothing', lambda path, array, shape: array, matconvnet_names.MATCONVNET_VGGFACE)]

    return _strictly(read, [*vgg.DEPTHS], model, 'MatConvNet file', metadata, preprocessing)


def _strictly(
    read: Callable[[str], Sequence[Reading]],
    known: Collection[str],
    model: str,
    kind: str,
    metadata: Mapping[str, str],
    preprocessing: Preprocessing | None,
) -> Weights:
    registry.check_name(model)
    if model not in known:
        raise UserError(f'no {kind} of {model} is known; those of {", ".join(known)} are')
    attempts = [Attempt.of(reading, model) for reading in read(model)]
    best = min(attempts, key=lambda attempt: len(attempt.reading.unknown))
    if best.difference:
        others = (name for name in known if name != model and any(_fits(reading, name) for reading in read(name)))
        fitting = next(others, None)
        hint = f'; they fit {fitting}: use --model {fitting}' if fitting else ''
        raise UserError(f'these are not weights of {model}: {best.difference}{hint}')
    leaves = {path: np.ascontiguousarray(leaf, np.float32) for path, leaf in best.named.items()}
    counted = {'classes': str(len(leaves['head.primary.bias'])), 'ignored': best.reading.ignored}
    return Weights(
        model,
        {path: leaves[path] for path in best.params},
        {path: leaves[path] for path in best.stats},
        preprocessing or best.reading.preprocessing,
        {**metadata, **counted},
    )


@functools.cache
@functools.cache  # a conversion asks for the same network once a name table
def expected(model: str, classes: int) -> Variables:
    """Gives the shapes of the variables of a network with one head of `classes`; not to be written to."""
    made = nnx.eval_shape(lambda: registry.create(model, classes=classes, rngs=nnx.Rngs(0)))
    return split_module(made)[1]


class Attempt(NamedTuple):
    """A reading held against a network.

    Attributes:
      named: path -> view in Flax's layout.
      params, stats: the shapes that the network wants.
      difference: what does not fit, in words; empty if all does.
    """

    reading: Reading
    named: Flat
    params: Flat
    stats: Flat
    difference: str

    @classmethod
    def of(cls, reading: Reading, model: str) -> 'Attempt':
        head = reading.named.get('head.primary.bias')
        classes = head.size if head is not None and head.ndim == 1 else 0
        params, stats = expected(model, classes or 1000)
        wanted = params | stats
        named = {
            path: reading.lay_out(path, leaf, wanted[path].shape) if path in wanted else leaf
            for path, leaf in reading.named.items()
        }
        return cls(reading, named, params, stats, _difference(named, reading.unknown, wanted))


def _fits(reading: Reading, model: str) -> bool:
    return not reading.unknown and not Attempt.of(reading, model).difference


def _torch_reading(entries: Mapping[str, np.ndarray], source: Source) -> Reading:
    def path_of(name: str) -> str | None:
        module, _, leaf = name.rpartition('.')
        leaves = TORCH_LEAVES | {'weight': 'scale' if entries[name].ndim == 1 else 'kernel'}
        path = source.module_path(module)
        return f'{path}.{leaves[leaf]}' if path and leaf in leaves else None

    ignored = {name for name in entries if IGNORED.fullmatch(name)}
    named, unknown = _rename(entries, ignored, path_of)
    return Reading(named, unknown, f'{len(ignored)} num_batches_tracked', _from_torch, source.preprocessing)


def _keras_reading(entries: Mapping[str, np.ndarray], source: KerasSource) -> Reading:
    paths = source.paths(dict.fromkeys(name.rpartition('/')[0] for name in entries))

    def path_of(name: str) -> str | None:
        layer, _, leaf = name.rpartition('/')
        return f'{paths[layer]}.{KERAS_LEAVES[leaf]}' if layer in paths and leaf in KERAS_LEAVES else None

    ignored = {name for name in entries if source.normalising.fullmatch(name)}
    named, unknown = _rename(entries, ignored, path_of)
    if not source.scaled:
        for path in [path for path in named if path.endswith('.mean')]:
            named.setdefault(path.removesuffix('mean') + 'scale', np.ones(named[path].shape, np.float32))
    return Reading(named, unknown, f'{len(ignored)} of normalization', _from_keras, source.look_of(entries))


def _rename(
    entries: Mapping[str, np.ndarray], ignored: Collection[str], path_of: Callable[[str], str | None]
) -> tuple[Flat, list[str]]:
    """(path -> array, entries without a path or with another's)."""
    named: Flat = {}
    unknown = []
    for name in entries:
        if name in ignored:
            continue
        path = path_of(name)
        if path is None or path in named:
            unknown.append(name)
        else:
            named[path] = entries[name]
    return named, unknown


def _from_torch(path: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if len(shape) == 4 and array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if len(shape) == 2 and array.ndim in (2, 4):
        return array.reshape(array.shape[0], math.prod(array.shape[1:])).T
    return array


def _from_keras(path: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if array.ndim == len(shape) == 4 and array.shape[3] == shape[2] == 1:
        return array.transpose(0, 1, 3, 2)
    if path == 'fc6.kernel' and array.shape == shape:
        return array.reshape(7, 7, -1, shape[1]).transpose(2, 0, 1, 3).reshape(shape)
    return array


def _difference(named: Flat, unknown: list[str], wanted: Flat) -> str:
    missing = [path for path in wanted if path not in named]
    unused = unknown + [path for path in named if path not in wanted]
    if missing or unused:
        return f'{_few("missing", missing)}; {_few("not used", unused)}'
    for path, leaf in wanted.items():
        if named[path].shape not in (leaf.shape, _grey(leaf.shape)):
            return f'{path} has the shape {list(named[path].shape)}, expected {list(leaf.shape)}'
    return ''
