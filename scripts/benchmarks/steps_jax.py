"""The fer_jax side of scripts/benchmarks/run.py: the steps of a run, on images that are drawn or packed in a file.

Imports neither ml_collections nor what reads data sets, so that it runs where they are not installed.
"""

import argparse
import dataclasses
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fer_jax.data.dataset import Split
from fer_jax.data.loading.batch_loop import map_batches, of_images
from fer_jax.data.loading.loader import MultiTaskLoader, TrainLoader
from fer_jax.data.tasks import PRIMARY
from fer_jax.distributed import sharding
from fer_jax.inference.eval_step import eval_step
from fer_jax.models import registry
from fer_jax.models.network import DTYPES, ModelSpec, Network, build
from fer_jax.models.parameters import Variables, merge_module, split_module
from fer_jax.training import losses, phases, train_state
from fer_jax.training.multi_step import StepsPerCall, loop_steps
from fer_jax.training.objectives import Objective
from fer_jax.training.train_state import FrozenState, TrainState
from fer_jax.training.train_step import StepProgram, train_step
from scripts.benchmarks import clock
from scripts.benchmarks.data import AUGMENT

CLASSES = tuple('abcdefg')
TOGETHER = 10  # steps of one program that no host is asked for
EVERYTHING, HEAD = (('.*', 1.0),), (('head/.*', 1.0), ('.*', 0.0))
PHASE: dict[str, Any] = {
    'epochs': 1.0,
    'rates': EVERYTHING,
    'batch_norm': 'by_rates',
    'optimizer': 'adamw',
    'learning_rate': 1e-4,
    'weight_decay': 0.05,
    'schedule': 'constant',
    'accumulate': 1,
    'patience': 0,
    'image_size': 0,
    'augment': {},
    'cache_dtype': 'float32',
    'nesterov': False,
    'step_factor': 1.0,
    'step_epochs': 1.0,
    'momentum': 0.9,
    **dict.fromkeys(('clip', 'sam', 'l2_sp', 'ema', 'warmup_epochs'), 0.0),
    **dict.fromkeys(('cache_views', 'stop_after'), 0),
}


class Training(NamedTuple):
    """A training step, compiled at its first call, and what it starts from."""

    step: Callable[..., TrainState]
    state: TrainState
    fixed: FrozenState


def measure(arguments: argparse.Namespace, images: np.ndarray) -> dict[str, Any]:
    """One measurement of `arguments.part` with `arguments.contender`.

    Args:
      images: uint8 [N, H, W, C].
    """
    mesh, before = sharding.make_mesh(arguments.devices), clock.resident()
    if arguments.part == 'peak':
        return {'flops_per_second': matmul_peak(arguments.dtype), **machine()}
    network = network_of(arguments)
    variant = arguments.contender.removeprefix('fer_jax').lstrip(', ')
    if variant == 'recomputed':
        network = dataclasses.replace(network, remat=tuple(network.stages)[:-1])
    if arguments.part == 'infer':
        figures = infer(arguments, network, images, mesh)
    else:
        figures = train(arguments, network, images, mesh, variant)
    stats = jax.devices()[0].memory_stats() or {}
    peak = stats.get('peak_bytes_in_use', clock.resident('VmHWM') - before)
    return {**figures, 'peak_bytes': peak, 'forward_flops': forward_flops(arguments), **machine()}


def machine() -> dict[str, Any]:
    device = jax.devices()[0]
    return {'device': device.device_kind, 'devices': jax.device_count(), 'jax': jax.__version__}


def network_of(arguments: argparse.Namespace) -> Network:
    return build(ModelSpec(arguments.network, {PRIMARY: CLASSES}, arguments.size, dtype=arguments.dtype))


def parameters(network: Network) -> Variables:
    """Random ones under which activations keep their size, made on the host: nothing is compiled."""
    draw = np.random.default_rng(0)

    def leaf(path: str, spec: jax.ShapeDtypeStruct) -> np.ndarray:
        if len(spec.shape) > 1:
            return draw.standard_normal(spec.shape, np.float32) * np.float32((2 / np.prod(spec.shape[:-1])) ** 0.5)
        return np.full(spec.shape, float(path.endswith(('scale', 'var'))), np.float32)

    return Variables(*({path: leaf(path, spec) for path, spec in tree.items()} for tree in network.variables))


def training(arguments: argparse.Namespace, network: Network, mesh: Any, *, frozen: bool, narrow: bool) -> Training:
    fields = PHASE | {'rates': HEAD if frozen else EVERYTHING}
    lengths = {'examples': 10**6, 'batch_size': arguments.batch}
    (phase,) = phases.plan([fields], network, augment=AUGMENT, **lengths)
    objectives = {PRIMARY: Objective(losses.make('cross_entropy'))}
    guard = None if arguments.part == 'guard' and arguments.contender.endswith('unguarded') else 0
    step = functools.partial(train_step, program=StepProgram(network, phase, objectives, seed=0, guard=guard))
    params, stats = jax.device_put(parameters(network), sharding.replicated(mesh))
    trainable, fixed = phase.partition.split(params)
    state = train_state.create(0, trainable, stats, phase.tx, tasks=[PRIMARY])
    fixed = train_state.cast_frozen(fixed) if narrow else fixed
    return Training(step, jax.device_put(state, sharding.replicated(mesh)), FrozenState(fixed, {}))


def train(
    arguments: argparse.Namespace, network: Network, images: np.ndarray, mesh: Any, variant: str
) -> dict[str, Any]:
    """Steps on one batch that lies on the device; of the pipeline, on those that the loader asks for."""
    frozen = arguments.part == 'frozen' or variant.startswith('frozen')
    narrow = variant.endswith('bfloat16')
    start = training(arguments, network, mesh, frozen=frozen, narrow=narrow)
    if arguments.part != 'pipeline':
        return repeated(arguments, start, OneBatch(whole(images), mesh))
    loader = TrainLoader(split_of(images), batch_size=arguments.batch, seed=0, placement='device', mesh=mesh)
    if variant == 'one batch':
        of_first = {name: leaf[loader.indices(0)] for name, leaf in whole(images).items()}
        return repeated(arguments, start, OneBatch(of_first, mesh))
    return repeated(arguments, start, MultiTaskLoader({PRIMARY: loader}), TOGETHER if variant == 'one program' else 0)


def whole(images: np.ndarray) -> dict[str, np.ndarray]:
    """A batch of all of them, as `data.loading.loader.assemble_batch` gives it."""
    count = np.arange(len(images), dtype=np.int32)
    return {'x': images, 'y': count % len(CLASSES), 'id': count, 'weight': np.ones(len(images), np.float32)}


class OneBatch:
    """The same batch at every step, and nothing else on the devices; see `data.loading.loader.MultiTaskLoader`."""

    def __init__(self, batch: Mapping[str, np.ndarray], mesh: Any):
        self.device_data: dict[str, Any] = {PRIMARY: {}}
        host = jax.device_put({PRIMARY: dict(batch)}, sharding.batch(mesh))
        self._stacked = functools.cache(functools.partial(stacked, host, mesh))

    def host_batches(self, steps: Sequence[int]) -> Any:
        return self._stacked(len(steps))


def stacked(batch: Any, mesh: Any, rows: int) -> Any:
    """A batch so many times, along a first axis."""

    def of(batch: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (rows, *leaf.shape)), batch)

    return jax.jit(of, out_shardings=sharding.batch(mesh, axis=1))(batch)


def repeated(arguments: argparse.Namespace, start: Training, loader: Any, together: int = 0) -> dict[str, Any]:
    """Steps as a run takes them; in programs of `together` where that is given."""
    pace = StepsPerCall(features=False, last=sys.maxsize, ends=(), every=sys.maxsize)
    run, state, done = jax.jit(loop_steps(start.step), donate_argnums=0), start.state, 0

    def batch(step: int) -> tuple[int, tuple[Any, ...]]:
        if together:
            return together, (loader.host_batches(range(step, step + together)), np.int32(together))
        count = pace.count(step)
        return count, pace.batch(loader, step, count)

    def once() -> jax.Array:
        nonlocal state, done
        count, arrays = batch(done)
        state = run(state, start.fixed, loader.device_data, *arrays)
        pace.took(count, state.step)
        done += count
        return state.step

    figures = clock.timed(once, jax.block_until_ready, arguments.batch, arguments.seconds, lambda: done)
    used = run.lower(state, start.fixed, loader.device_data, *batch(done)[1]).compile().memory_analysis()
    return figures | {'program_bytes': used.argument_size_in_bytes + used.temp_size_in_bytes} if used else figures


def infer(arguments: argparse.Namespace, network: Network, images: np.ndarray, mesh: Any) -> dict[str, Any]:
    """Logits as `fer_jax.evaluation.network_scorer` computes them."""
    variables = jax.device_put(parameters(network), sharding.replicated(mesh))
    rows, of_batch = of_images(), functools.partial(eval_step, network=network)
    batch = jax.device_put({'x': images, 'id': np.arange(len(images), dtype=np.int32)}, sharding.batch(mesh))
    batches, done = stacked(batch, mesh, rows), 0

    @jax.jit
    def run(variables: Variables, batches: Any, count: jax.Array) -> jax.Array:
        return map_batches(functools.partial(of_batch, variables), batches, count)

    def once() -> jax.Array:
        nonlocal done
        done += rows
        return run(variables, batches, np.int32(rows))

    return clock.timed(once, jax.block_until_ready, arguments.batch, arguments.seconds, lambda: done)


def split_of(images: np.ndarray) -> Split:
    """A split that lies in memory, its classes in turn."""
    empty = np.full(len(images), '')
    return Split(
        ids=np.arange(len(images)).astype(str),
        digests=np.zeros((len(images), 32), np.uint8),
        labels=np.arange(len(images), dtype=np.int32) % len(CLASSES),
        attributes=None,
        levels=None,
        shape=images.shape[1:],
        read=lambda index: images[index],
        weights=np.ones(len(images), np.float32),
        distributions=None,
        subjects=empty,
        groups=empty,
        subsets={},
        targets={},
    )


def forward_flops(arguments: argparse.Namespace) -> float:
    """Of one image, as XLA counts them in lax's form of the network, whatever form runs."""
    options = {'classes': {PRIMARY: len(CLASSES)}, 'dtype': DTYPES[arguments.dtype], 'kernels': 'lax'}
    model = nnx.eval_shape(lambda: registry.create(arguments.network, rngs=nnx.Rngs(0), **options))
    graphdef, variables = split_module(model)

    def forward(variables: Variables, x: jax.Array) -> jax.Array:
        return merge_module(graphdef, variables)(x)[PRIMARY]

    x = jax.ShapeDtypeStruct((1, arguments.size, arguments.size, 3), DTYPES[arguments.dtype])
    return jax.jit(forward).lower(variables, x).cost_analysis()['flops']


def matmul_peak(dtype: str) -> float:
    """FLOP/s of the fastest of three square products."""
    multiply, best = jax.jit(jnp.matmul), 0.0
    for side in (1024, 2048) if jax.default_backend() == 'cpu' else (4096, 8192, 16384):
        a = jnp.ones((side, side), dtype)
        figures = clock.timed(lambda a=a: multiply(a, a), jax.block_until_ready, 1, 1.0)
        best = max(best, 2 * side**3 * figures['images_per_second'])
    return best
