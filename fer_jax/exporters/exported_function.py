"""A trained network as one function of faces, for other runtimes: its graph, and whether that says what it should."""

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fer_jax.data import dataset
from fer_jax.data.imaging.image_files import describe_left_out
from fer_jax.data.quality.unreadable import check_some_readable, read_images
from fer_jax.data.sources import folder
from fer_jax.data.tables.expressions import canonical
from fer_jax.data.tables.table import Table
from fer_jax.data.tasks import PRIMARY
from fer_jax.errors import UserError
from fer_jax.exporters import onnx_graph
from fer_jax.inference.eval_step import eval_step
from fer_jax.models.network import build
from fer_jax.runs import data as run_data
from fer_jax.runs import restore
from fer_jax.runs.model_file import read_spec
from fer_jax.utils.paths import user_path

INPUT, OUTPUT = 'faces', 'probabilities'
MOST_IMAGES = 1000
VERIFY_BATCH_SIZE = 64
TOLERANCE = 1e-4  # of probabilities, to the run's own
PLATFORMS = ('cpu', 'cuda')

Classify = Callable[[np.ndarray], np.ndarray]  # uint8 [B, size, size, 3] -> float32 [B, classes]


class Verified(NamedTuple):
    """The comparison of an exported graph with the run's own network.

    Attributes:
      images: number of images compared.
      deviation: largest absolute difference of a probability.
      labels: number of images for which both have the same most probable class.
      speed, own_speed: images per second of the graph and of fer_jax, in batches of `VERIFY_BATCH_SIZE`.
      accuracy: accuracies of the graph and of fer_jax; None where the images have no labels.
    """

    images: int
    deviation: float
    labels: int
    speed: float
    own_speed: float
    accuracy: list[float] | None


class Sample(NamedTuple):
    """Images of a set.

    Attributes:
      images: uint8 [N, size, size, 3].
      labels: int [N], classes of the run; -1 where they are not known.
    """

    images: np.ndarray
    labels: np.ndarray


class Exported:
    """The selected checkpoint of a run as one float32 function of preprocessing, network and calibration.

    Attributes:
      shape: shape of one face, [size, size, 3].
      metadata: values that describe how to use the graph, such as class names.
    """

    def __init__(self, workdir: str | Path):
        """Restores the selected checkpoint.

        Args:
          workdir: folder of the run, or 'release'.

        Raises:
          UserError: there is no run, or no evaluated checkpoint yet.
        """
        restored = restore.restore_selected(workdir)
        temperature = restore.temperature(restore.resolve_workdir(workdir))
        spec = dataclasses.replace(restored.network.spec, dtype='float32')
        plain, usual = build(spec, kernels='lax'), build(spec)
        self.shape = (spec.image_size, spec.image_size, 3)
        self.metadata = {
            'model': spec.name,
            'classes': json.dumps(spec.classes[PRIMARY]),
            'activation': spec.activation,
            'temperature': f'{temperature:.9g}',
            'step': str(restored.step),
        }

        def probabilities(logits: jax.Array) -> jax.Array:
            if spec.activation == 'sigmoid':
                return jax.nn.sigmoid(logits)
            return jax.nn.softmax(logits / temperature)

        def function(images: jax.Array) -> jax.Array:
            with jax.default_matmul_precision('float32'):  # a GPU's default is TF32
                x = plain.normalise(images.astype(jnp.float32))
                return probabilities(plain.forward(restored.variables, x)[0][PRIMARY])

        scores = jax.jit(functools.partial(eval_step, network=usual))

        def own(images: np.ndarray) -> np.ndarray:
            batch = {'x': images, 'id': np.arange(len(images), dtype=np.int32)}
            with jax.default_matmul_precision('float32'):
                return np.asarray(probabilities(scores(restored.variables, batch)))

        self._function, self._own = function, own

    def onnx(self, metadata: dict[str, str]) -> bytes:
        """Returns the function as the bytes of an ONNX file.

        It maps uint8 [batch, size, size, 3], RGB, to probabilities float32 [batch, classes].

        Args:
          metadata: further metadata to write into the file.

        Raises:
          UserError: the package onnx is missing, or the network has an operation that cannot be converted.
        """
        model = onnx_graph.convert(self._function, self.shape, names=(INPUT, OUTPUT), metadata=self.metadata | metadata)
        return model.SerializeToString()

    def stablehlo(self) -> bytes:
        """Returns the function as serialised StableHLO for CPU and CUDA, with the inputs and outputs of `onnx`.

        It can be read with `jax.export.deserialize`.
        """
        (size,) = jax.export.symbolic_shape('batch')
        given = jax.ShapeDtypeStruct((size, *self.shape), np.uint8)
        return bytes(jax.export.export(jax.jit(self._function), platforms=PLATFORMS)(given).serialize())

    def verified(self, graph: Classify, sample: Sample, tolerance: float = TOLERANCE) -> Verified:
        """Compares a graph with the run's own network on the same images, and measures the speed of both.

        The first image is also compared in a batch of one.

        Args:
          graph: see `Classify`.
          sample: the images.
          tolerance: largest allowed difference of a probability.

        Raises:
          UserError: a probability differs by more than `tolerance`, or is not finite.
        """
        images = sample.images
        starts = range(0, len(images), VERIFY_BATCH_SIZE)
        batches = [*(images[start : start + VERIFY_BATCH_SIZE] for start in starts), images[:1]]
        theirs, ours = (np.concatenate([run(batch) for batch in batches]) for run in (graph, self._own))
        deviation = float(np.abs(theirs - ours).max())
        if not deviation <= tolerance:
            raise UserError(f'the graph deviates by {deviation:.2g}, more than {tolerance:g}; nothing is written')
        predicted, own = theirs.argmax(1)[: len(images)], ours.argmax(1)[: len(images)]
        labels, known = sample.labels, sample.labels >= 0
        accuracy = [float((answers == labels)[known].mean()) for answers in (predicted, own)] if known.any() else None
        same = int((predicted == own).sum())
        return Verified(len(images), deviation, same, _speed(graph, images), _speed(self._own, images), accuracy)


def in_onnxruntime(model: bytes) -> Classify:
    """Returns a function that runs an ONNX model in onnxruntime on the CPU.

    Args:
      model: bytes of an ONNX file.

    Raises:
      UserError: the package onnxruntime is missing.
    """
    try:
        import onnxruntime
    except ImportError:
        raise UserError("verifying ONNX needs onnxruntime; run pip install 'fer_jax[export]'") from None
    session = onnxruntime.InferenceSession(model, providers=['CPUExecutionProvider'])
    return lambda images: session.run([OUTPUT], {INPUT: images})[0]


def in_jax(artifact: bytes) -> Classify:
    """Returns a function that runs serialised StableHLO in JAX.

    Args:
      artifact: see `Exported.stablehlo`.
    """
    function = jax.jit(jax.export.deserialize(bytearray(artifact)).call)
    return lambda images: np.asarray(function(images))


def real_images(workdir: Path, named: str, role: str = 'validation', most: int = MOST_IMAGES) -> Sample:
    """Reads evenly spaced images of a set, and prints which cannot be decoded.

    Args:
      workdir: folder of the run.
      named: a folder with images, or a set as `evaluate --data` takes it; '' takes a split of the run's own data.
      role: name of that split.
      most: largest number of images.

    Raises:
      UserError: none of the images can be read, or those of the run are not there.
    """
    spec = read_spec(workdir)
    if named:
        table = _open_named(named)
        chosen = table.take(_spaced(len(table), most))
        index, images, unreadable = read_images(chosen, np.arange(len(chosen)), spec.image_size, 3)
        check_some_readable(chosen, unreadable)
        if unreadable:
            print(*describe_left_out({'unreadable': [f'{name} ({why})' for name, why in unreadable.items()]}))
        return Sample(np.stack(images), _labels_in_run(table.classes, chosen.labels[index], spec.classes[PRIMARY]))
    try:
        data = run_data.data_of_run(workdir)[PRIMARY]
    except UserError as error:
        use, flag = ('what is written is verified on real images first', '--images')
        if role == 'train':
            use, flag = ('int8 is calibrated on training images', '--calibrate')
        raise UserError(
            f'{use}, but those of the run cannot be read ({error}); name others with {flag} FOLDER'
        ) from None
    split = data.splits[role]
    chosen_rows = _spaced(len(split.labels), most)
    images = [_coloured(_resized(image, spec.image_size)) for image in split.read(chosen_rows)]
    return Sample(np.stack(images), _labels_in_run(data.classes, split.labels[chosen_rows], spec.classes[PRIMARY]))


def _open_named(named: str) -> Table:
    """Opens a set; a folder without class folders is taken for images without labels."""
    if not user_path(named).is_dir():
        return dataset.open_split(named)
    try:
        return dataset.open_split(named)
    except UserError:
        return folder.unlabelled(user_path(named))


def _labels_in_run(names: Sequence[str], labels: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Returns labels int [N] by the run's classes; -1 where an image has none of them."""
    known = [canonical(name) for name in classes]
    numbers = np.array([known.index(name) if (name := canonical(each)) in known else -1 for each in names])
    if labels.ndim > 1 or not len(numbers):
        return np.full(len(labels), -1)
    return np.where(labels >= 0, numbers[labels], -1)


def _spaced(count: int, most: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, most).astype(int))


def _resized(image: np.ndarray, size: int) -> np.ndarray:
    from PIL import Image

    if image.shape[:2] == (size, size):
        return image
    resized = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).resize((size, size))
    return np.asarray(resized).reshape(size, size, image.shape[-1])


def _coloured(image: np.ndarray) -> np.ndarray:
    return np.broadcast_to(image, (*image.shape[:2], 3))


def _speed(function: Classify, images: np.ndarray, seconds: float = 2.0) -> float:
    batch = np.resize(images, (VERIFY_BATCH_SIZE, *images.shape[1:]))
    function(batch)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        function(batch)
        count += VERIFY_BATCH_SIZE
    return count / (time.perf_counter() - start)


def describe_accuracy(verified: Verified, precision: str) -> str:
    """Returns a line of text: what a lower precision changed.

    Args:
      verified: see `Exported.verified`.
      precision: name of the precision.
    """
    same = f'{precision}: {verified.labels / verified.images:.2%} of the labels are those of float32'
    if verified.accuracy is None:
        return f'{same}; what accuracy it loses is not known, for the images have no labels'
    ours, whole = (100 * share for share in verified.accuracy)
    change = f'{ours:.2f} % on those with labels, {whole:.2f} % in float32, a change of {ours - whole:+.2f}'
    return f'{same}; accuracy {change}'


def describe(verified: Verified, runtime: Any) -> str:
    """Returns two lines of text: the result of the verification, and both speeds.

    Args:
      verified: see `Exported.verified`.
      runtime: name of the runtime of the graph.
    """
    return (
        f'verified on {verified.images:,} images: largest deviation {verified.deviation:.1e}, labels equal on '
        f'{verified.labels:,}\n'
        f'speed    {verified.speed:,.0f} images/s in {runtime}, {verified.own_speed:,.0f} in fer_jax, '
        f'batches of {VERIFY_BATCH_SIZE}'
    )
