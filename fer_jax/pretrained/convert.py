"""Converts another framework's weights to a network's parameters: the whole network, and its head where it fits."""

import functools
import math
from collections.abc import Callable, Collection, Iterable, Mapping

import numpy as np

from fer_jax.errors import UserError
from fer_jax.models import mobilenet, registry, vgg
from fer_jax.models.preprocessing import Preprocessing
from fer_jax.pretrained.matching import Reading, attempt, body_size, choose, expected, readings, rename
from fer_jax.pretrained.name_tables import keras_names, matconvnet_names, mobilenet_names, torch_names
from fer_jax.pretrained.name_tables.keras_names import CAFFE, KerasSource
from fer_jax.pretrained.name_tables.torch_names import IGNORED, INNER_WRAPPER, Source, first_match
from fer_jax.pretrained.transfer import _few
from fer_jax.pretrained.weights import Weights

# dlib's input_rgb_image_sized: less the mean of its faces, divided by 256
DLIB_FACES = Preprocessing(tuple(value / 255 for value in (122.782, 117.001, 104.298)), (256 / 255,) * 3, size=150)
TORCH_LEAVES = {'bias': 'bias', 'running_mean': 'mean', 'running_var': 'var'}
KERAS_LEAVES = {'kernel': 'kernel', 'depthwise_kernel': 'kernel', 'bias': 'bias', 'beta': 'bias', 'gamma': 'scale'}
KERAS_LEAVES |= {'moving_mean': 'mean', 'moving_variance': 'var'}


def convert(
    entries: Mapping[str, np.ndarray],
    model: str,
    *,
    metadata: Mapping[str, str],
    preprocessing: Preprocessing | None = None,
    key: str = '',
) -> Weights:
    """Converts a torch state dict to fer_jax's names and layout, float32.

    Convolutions go from [out, in, h, w] to [h, w, in, out], matrices are transposed; where a matrix is wanted, a
    convolution over the whole map is one on its channels-first flattening. The stem may be one for grey images.

    Args:
      metadata: source, sha256, licence; the number of classes and what was ignored are added.
      preprocessing: that of the source's framework if None.
      key: under which prefix of the names the network is, where several fit.

    Raises:
      UserError: an entry is unknown, missing or of another shape, and another network that it fits is named; or several
        networks fit.
    """

    def read(name: str) -> list[Reading]:
        sources = torch_names.TABLES.get(name, {}).values()
        return _readings_by_tables(entries, '.', least_of(name, model, entries), sources, _torch_reading)

    return _convert(read, torch_names.TABLES, model, 'torch state dict', metadata, preprocessing, key)


def convert_keras(
    entries: Mapping[str, np.ndarray],
    model: str,
    *,
    metadata: Mapping[str, str],
    preprocessing: Preprocessing | None = None,
    key: str = '',
) -> Weights:
    """Converts a Keras network to fer_jax's names and layout, float32.

    Depthwise kernels go from [h, w, channels, 1] to [h, w, 1, channels]. The rows of a VGG's first matrix, which reads
    a 7x7 map, go from channels last to channels first. A BatchNorm that its source makes without gamma gets ones.

    Args:
      entries: `<layer>/<leaf>` -> array, as `keras_file.read_keras` gives them.
      metadata, preprocessing, key: as in `convert`; a normalisation inside the Keras network becomes preprocessing.

    Raises:
      UserError: an entry is unknown, missing or of another shape; another network that it fits is named.
    """

    def read(name: str) -> list[Reading]:
        return _keras_readings(entries, name, model)

    return _convert(read, keras_names.TABLES, model, 'Keras file', metadata, preprocessing, key)


def convert_matconvnet(
    entries: Mapping[str, np.ndarray],
    model: str,
    *,
    metadata: Mapping[str, str],
    preprocessing: Preprocessing | None = None,
    key: str = '',
) -> Weights:
    """Converts a MatConvNet VGG to fer_jax's names and layout, float32.

    Args:
      entries: `<layer>/filters`, `<layer>/biases`, as `matlab_file.read_matconvnet` gives them.
      metadata, preprocessing, key: as in `convert`; the mean is that of the original VGG-Face if None.

    Raises:
      UserError: an entry is unknown, missing or of another shape.
    """

    def read(name: str) -> list[Reading]:
        named = matconvnet_names.matconvnet_vgg(entries, name)
        return [Reading(named, {}, 'nothing', lambda path, array, shape: array, matconvnet_names.MATCONVNET_VGGFACE)]

    return _convert(read, [*vgg.DEPTHS], model, 'MatConvNet file', metadata, preprocessing, key)


def convert_tfjs(
    entries: Mapping[str, np.ndarray],
    model: str,
    *,
    metadata: Mapping[str, str],
    preprocessing: Preprocessing | None = None,
    key: str = '',
) -> Weights:
    """Converts the weights of a TensorFlow.js model to fer_jax's names and layout, float32.

    Args:
      entries: as `tfjs_file.read_tfjs` gives them: of a layers model, with Keras's names, or of FaceRes's graph.
      metadata, preprocessing, key: as in `convert`.

    Raises:
      UserError: an entry is unknown, missing or of another shape; another network that it fits is named.
    """

    def read(name: str) -> list[Reading]:
        if name == mobilenet.FOLDED:
            return [_faceres_reading(entries)]
        return _keras_readings(entries, name, model)

    known = [*keras_names.TABLES, mobilenet.FOLDED]
    return _convert(read, known, model, 'TensorFlow.js model', metadata, preprocessing, key)


def convert_dlib(
    entries: Mapping[str, np.ndarray],
    model: str,
    *,
    metadata: Mapping[str, str],
    preprocessing: Preprocessing | None = None,
    key: str = '',
) -> Weights:
    """Converts the weights of dlib's face ResNet to fer_jax's layout, float32.

    Args:
      entries: as `dlib_file.read_dlib` gives them.
      metadata, preprocessing, key: as in `convert`.

    Raises:
      UserError: `model` is another network.
    """

    def read(name: str) -> list[Reading]:
        return [Reading(dict(entries), {}, 'nothing', _from_dlib, DLIB_FACES)]

    return _convert(read, ['dlib_resnet'], model, 'file of dlib', metadata, preprocessing, key)


def _readings_by_tables(
    entries: Mapping[str, np.ndarray],
    separator: str,
    least: int,
    sources: Iterable[Source | KerasSource],
    read: Callable[..., Reading],
) -> list[Reading]:
    """Reads the entries by each table of names, below each prefix that at least `least` of them have."""
    return [
        reading
        for source in sources
        for reading in readings(entries, separator, least, functools.partial(read, source=source))
    ]


def _convert(
    read: Callable[[str], Iterable[Reading]],
    known: Collection[str],
    model: str,
    kind: str,
    metadata: Mapping[str, str],
    preprocessing: Preprocessing | None,
    key: str,
) -> Weights:
    registry.check_name(model)
    if model not in known:
        raise UserError(f'no {kind} of {model} is known; those of {", ".join(known)} are')
    best = choose([attempt(reading, model) for reading in read(model)], model, key)
    if best.difference:
        others = (name for name in known if name != model and any(_fits(reading, name) for reading in read(name)))
        fitting = next(others, None)
        hint = f'; they fit {fitting}: use --model {fitting}' if fitting else ''
        raise UserError(f'these are not weights of {model}: {best.difference}{hint}')
    leaves = {path: np.ascontiguousarray(leaf, np.float32) for path, leaf in best.named.items()}
    params, stats = expected(model, best.classes or 1000)
    facts = {'classes': str(best.classes)} if best.classes else {}
    facts |= {'head': best.head, 'ignored': best.reading.ignored}
    if best.reading.prefix:
        facts['prefix'] = best.reading.prefix
    if left := [*best.beside, *best.reading.outside]:
        facts['left'] = _few('other arrays', left)
    return Weights(
        model,
        {path: leaves[path] for path in params if path in leaves},
        {path: leaves[path] for path in stats if path in leaves},
        preprocessing or best.reading.preprocessing,
        {**metadata, **facts},
    )


def _fits(reading: Reading, model: str) -> bool:
    return bool(reading.named) and all(reading.unknown.values()) and not attempt(reading, model).difference


def least_of(name: str, model: str, entries: Mapping[str, np.ndarray]) -> int:
    """Returns how many entries must have a prefix for it to be tried with the network `name`.

    It is half of the network's arrays for the requested model, and half of the entries for others.
    """
    return max(1, (body_size(name) if name == model else len(entries)) // 2)


def _torch_reading(entries: Mapping[str, np.ndarray], source: Source) -> Reading:
    def path_of(name: str) -> str | None:
        module, _, leaf = name.rpartition('.')
        leaves = TORCH_LEAVES | {'weight': 'scale' if entries[name].ndim == 1 else 'kernel'}
        path = source.module_path(INNER_WRAPPER.sub('', module))
        return f'{path}.{leaves[leaf]}' if path and leaf in leaves else None

    ignored = {name for name in entries if IGNORED.fullmatch(name)}
    named, unknown = rename(
        entries, ignored, path_of, '.', lambda name: source.has_rule(INNER_WRAPPER.sub('', name.rpartition('.')[0]))
    )
    return Reading(named, unknown, f'{len(ignored)} num_batches_tracked', _from_torch, source.preprocessing)


def _keras_readings(entries: Mapping[str, np.ndarray], name: str, model: str) -> list[Reading]:
    """Reads entries with Keras's names as network `name`, in each form in which Keras has it."""
    sources = keras_names.TABLES.get(name, {}).values()
    return _readings_by_tables(entries, '/', least_of(name, model, entries), sources, _keras_reading)


def _keras_reading(entries: Mapping[str, np.ndarray], source: KerasSource) -> Reading:
    paths = source.paths(dict.fromkeys(name.rpartition('/')[0] for name in entries))

    def path_of(name: str) -> str | None:
        layer, _, leaf = name.rpartition('/')
        return f'{paths[layer]}.{KERAS_LEAVES[leaf]}' if layer in paths and leaf in KERAS_LEAVES else None

    ignored = {name for name in entries if source.normalising.fullmatch(name)}
    named, unknown = rename(entries, ignored, path_of, '/', lambda name: name.rpartition('/')[0] in source.layers)
    if not source.scaled:
        for path in [path for path in named if path.endswith('.mean')]:
            named.setdefault(path.removesuffix('mean') + 'scale', np.ones(named[path].shape, np.float32))
    return Reading(named, unknown, f'{len(ignored)} of normalization', _from_keras, source.look_of(entries))


def _faceres_reading(entries: Mapping[str, np.ndarray]) -> Reading:
    ignored = {name for name in entries if mobilenet_names.FACERES_CONSTANTS.fullmatch(name)}
    rules = mobilenet_names.FACERES_RULES
    named, unknown = rename(entries, ignored, functools.partial(first_match, rules), '/', lambda name: False)
    return Reading(named, unknown, f'{len(ignored)} constants', _from_keras, CAFFE)


def _from_torch(path: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if len(shape) == 4 and array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if len(shape) == 2 and array.ndim in (2, 4):
        return array.reshape(array.shape[0], math.prod(array.shape[1:])).T
    return array


def _from_dlib(path: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array


def _from_keras(path: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if array.ndim == len(shape) == 4 and array.shape[3] == shape[2] == 1:
        return array.transpose(0, 1, 3, 2)
    if array.ndim == 4 and len(shape) == 2 and array.shape[:2] == (1, 1):
        return array[0, 0]
    if path == 'fc6.kernel' and array.shape == shape:
        return array.reshape(7, 7, -1, shape[1]).transpose(2, 0, 1, 3).reshape(shape)
    return array
