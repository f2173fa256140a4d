"""The fer_jax side of scripts/benchmark.py: the steps of a run, on images that are drawn or packed in a file.

Imports neither ml_collections nor what reads data sets, so that it runs where they are not installed.
"""

import argparse
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fer_jax import losses, phases, sharding, train_state
from fer_jax.data.datasets import Split
from fer_jax.data.feed import TrainFeed
from fer_jax.models import families
from fer_jax.network import DTYPES, PRIMARY, ModelSpec, Network, build
from fer_jax.partition import Flat, split_module, unflatten
from fer_jax.steps import eval_step, train_step
from fer_jax.tasks import Objective
from fer_jax.train_state import Fixed, TrainState
from scripts import benchmark_clock as clock
from scripts.benchmark_data import AUGMENT

CLASSES = tuple('abcdefg')
TOGETHER = 10  # steps of one program that no host is asked for
EVERYTHING, HEAD = (('.*', 1.0),), (('head/.*', 1.0), ('.*', 0.0))
PHASE: dict[str, Any] = {
    'epochs': 1.0,
    'rates': EVERYTHING,
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
    fixed: Fixed


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
        found = infer(arguments, network, images, mesh)
    else:
        found = train(arguments, network, images, mesh, variant)
    stats = jax.devices()[0].memory_stats() or {}
    peak = stats.get('peak_bytes_in_use', clock.resident('VmHWM') - before)
    return {**found, 'peak_bytes': peak, 'forward_flops': forward_flops(arguments), **machine()}


def machine() -> dict[str, Any]:
    device = jax.devices()[0]
    return {'device': device.device_kind, 'devices': jax.device_count(), 'jax': jax.__version__}


def network_of(arguments: argparse.Namespace) -> Network:
    return build(ModelSpec(arguments.network, {PRIMARY: CLASSES}, arguments.size, dtype=arguments.dtype))


def parameters(network: Network) -> tuple[Flat, Flat]:
    """Random ones under which activations keep their size, made on the host: nothing is compiled."""
    draw = np.random.default_rng(0)

    def leaf(path: str, of: jax.ShapeDtypeStruct) -> np.ndarray:
        if len(of.shape) > 1:
            return draw.standard_normal(of.shape, np.float32) * np.float32((2 / np.prod(of.shape[:-1])) ** 0.5)
        return np.full(of.shape, float(path.endswith(('scale', 'var'))), np.float32)

    params, stats = (
        {path: leaf(path, of) for path, of in tree.items()} for tree in (network.params, network.batch_stats)
    )
    return params, stats


def training(arguments: argparse.Namespace, network: Network, mesh: Any, *, frozen: bool, narrow: bool) -> Training:
    fields = PHASE | {'rates': HEAD if frozen else EVERYTHING}
    lengths = {'examples': 10**6, 'batch_size': arguments.batch}
    (phase,) = phases.plan([fields], network, augment=AUGMENT, **lengths)
    step = functools.partial(
        train_step,
        network=network,
        phase=phase,
        objectives={PRIMARY: Objective(losses.make('cross_entropy'))},
        seed=0,
        guard=None if arguments.part == 'guard' and arguments.contender.endswith('unguarded') else 0,
    )
    params, stats = jax.device_put(parameters(network), sharding.replicated(mesh))
    trainable, fixed = phase.partition.split(params)
    state = train_state.create(0, trainable, stats, phase.tx, tasks=[PRIMARY])
    fixed = train_state.narrowed(fixed) if narrow else fixed
    return Training(step, jax.device_put(state, sharding.replicated(mesh)), Fixed(fixed, {}))


def train(
    arguments: argparse.Namespace, network: Network, images: np.ndarray, mesh: Any, variant: str
) -> dict[str, Any]:
    """Steps on one batch that lies on the device; of the pipeline, on those that the feed asks for."""
    frozen = arguments.part == 'frozen' or variant.startswith('frozen')
    narrow = variant.endswith('bfloat16')
    step, state, fixed = training(arguments, network, mesh, frozen=frozen, narrow=narrow)
    if arguments.part != 'pipeline':
        count = np.arange(len(images), dtype=np.int32)
        host = {'x': images, 'y': count % len(CLASSES), 'id': count, 'weight': np.ones(len(images), np.float32)}
        host, resident = jax.device_put({PRIMARY: host}, sharding.batch(mesh)), {PRIMARY: {}}
        return repeated(arguments, step, state, fixed, resident, lambda _: host)
    split = split_of(images)
    feed = TrainFeed(split, batch_size=arguments.batch, seed=0, placement='device', mesh=mesh)
    resident = {PRIMARY: feed.resident}
    if variant == 'one batch':
        once = {PRIMARY: feed.host(0)}
        return repeated(arguments, step, state, fixed, resident, lambda _: once)
    if variant == 'one program':
        hosts = jax.tree.map(lambda *leaves: jnp.stack(leaves), *({PRIMARY: feed.host(at)} for at in range(TOGETHER)))

        def several(state: TrainState, fixed: Fixed, resident: Any, hosts: Any) -> TrainState:
            return jax.lax.scan(lambda state, host: (step(state, fixed, resident, host), None), state, hosts)[0]

        return repeated(arguments, several, state, fixed, resident, lambda _: hosts, TOGETHER)
    return repeated(arguments, step, state, fixed, resident, lambda at: {PRIMARY: feed.host(at)})


def repeated(
    arguments: argparse.Namespace,
    step: Any,
    state: TrainState,
    fixed: Fixed,
    resident: Any,
    host: Callable[[int], Any],
    together: int = 1,
) -> dict[str, Any]:
    run, count = jax.jit(step, donate_argnums=0), 0

    def once() -> jax.Array:
        nonlocal state, count
        state = run(state, fixed, resident, host(count))
        count += 1
        return state.step

    found = clock.timed(once, jax.block_until_ready, together * arguments.batch, arguments.seconds)
    used = run.lower(state, fixed, resident, host(0)).compile().memory_analysis()
    return found | {'program_bytes': used.argument_size_in_bytes + used.temp_size_in_bytes} if used else found


def infer(arguments: argparse.Namespace, network: Network, images: np.ndarray, mesh: Any) -> dict[str, Any]:
    params, stats = jax.device_put(parameters(network), sharding.replicated(mesh))
    batch = {'x': images, 'id': np.arange(len(images), dtype=np.int32)}
    batch = jax.device_put(batch, sharding.batch(mesh))
    run = jax.jit(functools.partial(eval_step, network=network))
    return clock.timed(lambda: run(params, stats, batch), jax.block_until_ready, arguments.batch, arguments.seconds)


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
    model = nnx.eval_shape(lambda: families.create(arguments.network, rngs=nnx.Rngs(0), **options))
    graphdef, params, stats = split_module(model)

    def forward(params: Flat, stats: Flat, x: jax.Array) -> jax.Array:
        return nnx.merge(graphdef, unflatten(params), unflatten(stats), copy=True)(x)[PRIMARY]

    x = jax.ShapeDtypeStruct((1, arguments.size, arguments.size, 3), DTYPES[arguments.dtype])
    return jax.jit(forward).lower(params, stats, x).cost_analysis()['flops']


def matmul_peak(dtype: str) -> float:
    """FLOP/s of the fastest of three square products."""
    multiply, best = jax.jit(jnp.matmul), 0.0
    for side in (1024, 2048) if jax.default_backend() == 'cpu' else (4096, 8192, 16384):
        a = jnp.ones((side, side), dtype)
        found = clock.timed(lambda a=a: multiply(a, a), jax.block_until_ready, 1, 1.0)
        best = max(best, 2 * side**3 * found['images_per_second'])
    return best
