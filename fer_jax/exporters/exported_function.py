"""A trained network as one function of faces, for other runtimes: its graph, and whether that says what it should."""

import dataclasses
import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fer_jax.data import dataset
from fer_jax.data.imaging.codec import decode
from fer_jax.data.sources import folder
from fer_jax.data.tasks import PRIMARY
from fer_jax.errors import UserError
from fer_jax.exporters import onnx_graph
from fer_jax.inference.eval_step import eval_step
from fer_jax.models.network import build
from fer_jax.runs import data as run_data
from fer_jax.runs import restore
from fer_jax.runs.checkpoints import read_spec
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
    """

    images: int
    deviation: float
    labels: int
    speed: float
    own_speed: float


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
        found = restore.restore_selected(workdir)
        temperature = restore.temperature(restore.resolve_workdir(workdir))
        spec = dataclasses.replace(found.network.spec, dtype='float32')
        plain, usual = build(spec, kernels='lax'), build(spec)
        self.shape = (spec.image_size, spec.image_size, 3)
        self.metadata = {
            'model': spec.name,
            'classes': json.dumps(spec.classes[PRIMARY]),
            'activation': spec.activation,
            'temperature': f'{temperature:.9g}',
            'step': str(found.step),
        }

        def probabilities(logits: jax.Array) -> jax.Array:
            if spec.activation == 'sigmoid':
                return jax.nn.sigmoid(logits)
            return jax.nn.softmax(logits / temperature)

        def function(images: jax.Array) -> jax.Array:
            with jax.default_matmul_precision('float32'):  # a GPU's default is TF32
                x = plain.normalise(images.astype(jnp.float32))
                return probabilities(plain.forward(found.variables, x)[0][PRIMARY])

        scores = jax.jit(functools.partial(eval_step, network=usual))

        def own(images: np.ndarray) -> np.ndarray:
            batch = {'x': images, 'id': np.arange(len(images), dtype=np.int32)}
            with jax.default_matmul_precision('float32'):
                return np.asarray(probabilities(scores(found.variables, batch)))

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

    def verified(self, graph: Classify, images: np.ndarray) -> Verified:
        """Compares a graph with the run's own network on the same images, and measures the speed of both.

        The first image is also compared in a batch of one.

        Args:
          graph: see `Classify`.
          images: uint8 [N, size, size, 3].

        Raises:
          UserError: a probability differs by more than `TOLERANCE`, or is not finite.
        """
        starts = range(0, len(images), VERIFY_BATCH_SIZE)
        batches = [*(images[at : at + VERIFY_BATCH_SIZE] for at in starts), images[:1]]
        theirs, ours = (np.concatenate([of(batch) for batch in batches]) for of in (graph, self._own))
        deviation = float(np.abs(theirs - ours).max())
        if not deviation <= TOLERANCE:
            raise UserError(f'the graph deviates by {deviation:.2g}, more than {TOLERANCE:g}; nothing is written')
        labels = int((theirs.argmax(1) == ours.argmax(1))[: len(images)].sum())
        return Verified(len(images), deviation, labels, _speed(graph, images), _speed(self._own, images))


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


def real_images(workdir: Path, named: str) -> np.ndarray:
    """Reads evenly spaced images for the verification, at most `MOST_IMAGES`.

    Args:
      workdir: folder of the run.
      named: a folder with images, or a set as `evaluate --data` takes it; '' takes the run's own validation split.

    Returns:
      uint8 [N, size, size, 3].

    Raises:
      UserError: the images cannot be read.
    """
    size = read_spec(workdir).image_size
    if named:
        table = folder.unlabelled(user_path(named)) if user_path(named).is_dir() else dataset.open_split(named)
        index = _spaced(len(table))
        encoded = zip(index, table.fetch(index), strict=True)
        return np.stack([_coloured(decode(data, size, 3, str(table.ids[at]))) for at, data in encoded])
    try:
        split = run_data.data_of_run(workdir)[PRIMARY].splits['validation']
    except UserError as error:
        raise UserError(
            f'what is written is verified on real images first, but those of the run cannot be read ({error}); name '
            'others with --images FOLDER'
        ) from None
    images = split.read(_spaced(len(split.labels)))
    return np.stack([_coloured(_resized(image, size)) for image in images])


def _spaced(count: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, MOST_IMAGES).astype(int))


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


def describe(found: Verified, runtime: Any) -> str:
    """Returns two lines of text: the result of the verification, and both speeds.

    Args:
      found: see `Exported.verified`.
      runtime: name of the runtime of the graph.
    """
    return (
        f'verified on {found.images:,} images: largest deviation {found.deviation:.1e}, labels equal on '
        f'{found.labels:,}\nspeed    {found.speed:,.0f} images/s in {runtime}, {found.own_speed:,.0f} in fer_jax, '
        f'batches of {VERIFY_BATCH_SIZE}'
    )
