"""How much memory a training step takes of a device, and the largest batch for which there is enough."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from fer_jax.data.loading import loader
from fer_jax.data.tasks import PRIMARY
from fer_jax.training import setup
from fer_jax.training.phase_program import PhaseProgram
from fer_jax.training.phases import Phase
from fer_jax.training.run import Run

FREE_SHARE = 0.05  # of the free memory, left to what an allocator wastes between buffers
EXACT_SHARE = 0.02  # a larger batch that might fit is at most this share larger
MOST_COMPILATIONS = 8


def largest_batch(config: Mapping[str, Any]) -> int:
    """Prints the largest `data.batch_size` that fits in each phase and in all phases.

    Nothing is trained: the steps are compiled, and XLA reports the memory that they need.

    Returns:
      The largest batch size that fits in all phases.

    Raises:
      UserError: the config or the data are invalid.
    """
    run = setup.prepare(config)
    images = jax.tree.leaves(run.loader.device_data)  # in use already, and an argument of the step
    free = loader.free_memory(run.mesh) + sum(leaf.nbytes for leaf in images)
    budget = int((1 - FREE_SHARE) * free)
    print(f'{run.describe()}\n{free / 1e9:.2f} GB are free on each device, {FREE_SHARE:.0%} of which is left alone')
    sizes = []
    for phase in run.phases:
        unit = run.mesh.size * phase.accumulate
        most = run.examples // unit
        needed = needs(run, phase)
        count = largest(lambda units, needed=needed, unit=unit: needed(units * unit), budget, most)  # type: ignore[misc]
        sizes.append(count * unit)
        if not count:
            print(f'phase {phase.index}: not even {unit}; take a smaller image_size or network, or parallel.remat')
            continue
        limit = ', all training images' if count == most else ''
        print(f'phase {phase.index}: {count * unit}{limit}, {needed(count * unit) / 1e9:.2f} GB a device')
    print(f'largest batch that fits: --config.data.batch_size={min(sizes)}')
    return min(sizes)


def needs(run: Run, phase: Phase) -> Callable[[int], int]:
    """Returns a function from a batch size to the bytes per device that a step of the phase needs.

    The bytes are those of the step's arguments and of its working memory, see `working`. The function compiles the
    step; where that runs out of memory it returns the largest int64.
    """
    program = PhaseProgram(run, phase)
    state, fixed = jax.eval_shape(lambda: program.init_state(phase.first, run.network.init(0)))
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=run.replicated), (state, fixed)
    )
    device_data, host_batches, count = program.abstract_batch()
    step, known = program.jitted_step(), {}

    def resized(leaf: Any, batch_size: int) -> jax.ShapeDtypeStruct:
        placed = getattr(leaf, 'sharding', None)
        return jax.ShapeDtypeStruct((leaf.shape[0], batch_size, *leaf.shape[2:]), leaf.dtype, sharding=placed)

    def of(batch_size: int) -> int:
        if batch_size not in known:
            batch = host_batches | {
                PRIMARY: {name: resized(leaf, batch_size) for name, leaf in host_batches[PRIMARY].items()}
            }
            try:
                used = step.lower(*shapes, device_data, batch, count).compile().memory_analysis()
            except RuntimeError as error:  # a GPU's compiler times kernels on buffers of their size
                if 'RESOURCE_EXHAUSTED' not in str(error):
                    raise
                known[batch_size] = np.iinfo(np.int64).max
            else:
                known[batch_size] = used.argument_size_in_bytes + working(used)
        return known[batch_size]

    return of


def working(used: Any) -> int:
    """Returns the bytes per device that a compiled step needs besides its arguments.

    These are temporaries, and results that do not reuse the memory of arguments.

    Args:
      used: the compiled step's memory analysis.
    """
    return used.temp_size_in_bytes + used.output_size_in_bytes - used.alias_size_in_bytes


def largest(needed: Callable[[int], int], budget: int, most: int) -> int:
    """Searches for the largest count up to `most` with needed(count) <= budget.

    The memory is nearly linear in the count, so that interpolation between two known points takes fewer compilations
    than bisection.

    Args:
      needed: count -> bytes.
      budget: bytes.

    Returns:
      A count that fits; 0 where not even 1 does. A count larger by more than `EXACT_SHARE` does not fit, unless the
      search ended at `MOST_COMPILATIONS` calls of `needed`.
    """
    low, high = 0, most + 1
    points: dict[int, int] = {}
    count = min(most, 8)
    while high - low > max(1, int(EXACT_SHARE * low)) and len(points) < MOST_COMPILATIONS:
        points[count] = needed(count)
        if points[count] <= budget:
            low = count
        else:
            high = count
        near = sorted(points, key=lambda size: abs(points[size] - budget))[:2]
        count = 2 * count
        if len(near) == 2 and (slope := (points[near[0]] - points[near[1]]) / (near[0] - near[1])) > 0:
            count = int(near[0] + (budget - points[near[0]]) / slope)
        count = min(max(count, low + 1), high - 1)
    return low
