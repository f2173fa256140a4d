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
    """What a graph gave, beside what the run's own network gives.

    Attributes:
      images: how many.
      deviation: the largest of a probability.
      labels: images of which the likeliest class is the same.
      speed, own_speed: images a second of the graph and of this program, in batches of `VERIFY_BATCH_SIZE`.
    """

    images: int
    deviation: float
    labels: int
    speed: float
    own_speed: float


class Exported:
    """The selected checkpoint of a run as a function: preprocessing, network, calibration, in float32.

    Attributes:
      shape: of one face.
      metadata: what it takes to use the graph.
    """

    def __init__(self, workdir: str | Path):
        """Restores it.

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
        """An ONNX file: uint8 [batch, size, size, 3], RGB -> float32 [batch, classes].

        Raises:
          UserError: the package onnx is missing, or the network has an operation without a form there.
        """
        model = onnx_graph.convert(self._function, self.shape, names=(INPUT, OUTPUT), metadata=self.metadata | metadata)
        return model.SerializeToString()

    def stablehlo(self) -> bytes:
        """What `jax.export.deserialize` reads, for CPU and CUDA; of the same form."""
        (size,) = jax.export.symbolic_shape('batch')
        given = jax.ShapeDtypeStruct((size, *self.shape), np.uint8)
        return bytes(jax.export.export(jax.jit(self._function), platforms=PLATFORMS)(given).serialize())

    def verified(self, graph: Classify, images: np.ndarray) -> Verified:
        """Both on the same images, uint8 [N, size, size, 3], also in a batch of one, then timed.

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
    """The file as onnxruntime computes it.

    Raises:
      UserError: the package is missing.
    """
    try:
        import onnxruntime
    except ImportError:
        raise UserError("verifying ONNX needs onnxruntime; run pip install 'fer_jax[export]'") from None
    session = onnxruntime.InferenceSession(model, providers=['CPUExecutionProvider'])
    return lambda images: session.run([OUTPUT], {INPUT: images})[0]


def in_jax(artifact: bytes) -> Classify:
    """The StableHLO as it is read again."""
    function = jax.jit(jax.export.deserialize(bytearray(artifact)).call)
    return lambda images: np.asarray(function(images))


def real_images(workdir: Path, named: str) -> np.ndarray:
    """uint8 [N, size, size, 3], at most `MOST_IMAGES`, evenly spaced.

    Args:
      named: a folder with images, or a set as `evaluate --data` takes it; '' for the run's own validation split.

    Raises:
      UserError: there are none.
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
    """Two lines: the comparison, and both speeds."""
    return (
        f'verified on {found.images:,} images: largest deviation {found.deviation:.1e}, labels equal on '
        f'{found.labels:,}\nspeed    {found.speed:,.0f} images/s in {runtime}, {found.own_speed:,.0f} in fer_jax, '
        f'batches of {VERIFY_BATCH_SIZE}'
    )
