"""`--dry_run`: what a run needs of its devices, its disks and the network, found out without a step."""

import math
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fer_jax import pretrained
from fer_jax.data import tasks as data_tasks
from fer_jax.data.loading import loader
from fer_jax.data.sources import prepared
from fer_jax.data.sources.arrays import NAME
from fer_jax.errors import UserError
from fer_jax.feature_cache import extract as feature_extract
from fer_jax.models.network import DTYPES
from fer_jax.training import memory, parameter_table
from fer_jax.training.phase_program import PhaseProgram
from fer_jax.training.phases import Phase
from fer_jax.training.run import Run
from fer_jax.utils import cache
from fer_jax.utils.paths import user_path

EXTRA_CHECKPOINTS = 2  # on disk beside those that checkpoint.keep keeps: the best, and the one that is being written


def rehearse(run: Run, workdir: Path) -> dict[str, Any]:
    """Compiles the first step of each phase and prints what the job needs.

    Weights that have to be downloaded are already present: preparing the run has fetched them.

    Returns:
      {'dry_run': True, 'bytes_per_device': {phase: bytes}, 'bytes_on_disk': {'checkpoint', 'features'}}

    Raises:
      UserError: a phase needs more memory than a device has free.
    """
    free = loader.free_memory(run.mesh)
    variables = run.initial()
    print(f'{run.describe()}\n{parameter_table.parameter_table(run.network, run.phases)}')
    print('\n'.join(describe_data(run)))
    print(f'weights: {describe_weights(run)}')
    images = nbytes(run.loader.device_data)
    scored = sum(
        size_of(split)
        for task in run.tasks.values()
        for role, split in task.data.splits.items()
        if role != 'train' and loader.choose(split, run.config['data']['placement'], run.mesh, role) == 'device'
    )
    sizes, checkpoint, cached = {}, 0, 0
    for phase in run.phases:
        program = PhaseProgram(run, phase)
        state, fixed = program.init_state(phase.first, variables)
        checkpoint = max(checkpoint, nbytes((state, fixed.frozen)))
        begun = time.perf_counter()
        lowered = program.jitted_step().lower(state, fixed, *program.abstract_batch())
        used = lowered.compile().memory_analysis()
        taken = time.perf_counter() - begun
        kept = features_of(run, phase)
        cached = max(cached, kept)
        data = images + scored + (kept if kept and loader.keeps_on_device(kept, run.mesh) else 0)
        own = used.argument_size_in_bytes - (0 if phase.features else images)
        working = memory.working(used)
        needed = sizes[phase.index] = own + working + data
        print(
            f'phase {phase.index}: {phase.last - phase.first} steps, compiled in {taken:.1f} s, '
            f'{needed / 1e9:.2f} GB a device: {data / 1e9:.2f} data, {own / 1e9:.2f} network and optimizer, '
            f'{working / 1e9:.2f} while it computes; {(free + images) / 1e9:.1f} GB were free'
        )
        if needed > free + images:
            raise UserError(
                f'phase {phase.index} needs {needed / 1e9:.1f} GB a device, {(free + images) / 1e9:.1f} GB are free; '
                f'lower data.batch_size={run.batch_size} or model.image_size={run.network.spec.image_size}, raise '
                f'phases[{phase.index}].accumulate, or set data.placement=stream'
            )
    most = run.config['checkpoint']['keep'] + EXTRA_CHECKPOINTS
    print(f'checkpoints: {checkpoint / 1e9:.2f} GB each, at most {most} at a time; {left_on(workdir)}')
    if cached:
        print(f'feature cache: {cached / 1e9:.2f} GB of the training split; {left_on(cache.root())}')
    return {
        'dry_run': True,
        'bytes_per_device': sizes,
        'bytes_on_disk': {'checkpoint': checkpoint, 'features': cached},
    }


def nbytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def size_of(split: Any) -> int:
    """Returns the size in bytes of a split's decoded images."""
    return len(split.labels) * math.prod(split.shape)


def features_of(run: Run, phase: Phase) -> int:
    """Returns the size in bytes of the phase's cached features of all tasks' training images; 0 without a cache."""
    if phase.features is None:
        return 0
    width = np.dtype(DTYPES[phase.features.dtype]).itemsize
    each = phase.features.views * math.prod(feature_extract.shape_of(run.network, phase.features)) * width
    return sum(each * len(task.data.splits['train'].labels) for task in run.tasks.values())


def describe_data(run: Run) -> list[str]:
    """Returns one line for each task: where its images are stored, their size on disk and their decoded size."""
    lines = []
    for name, fields in data_tasks.task_configs(run.config).items():
        task, source = run.tasks[name], place_of(fields['data'])
        on_disk = f'{tree_size(source) / 1e6:.1f} MB' if source.is_dir() else 'listed'
        if task.data.name == NAME:
            on_disk, source = 'given', Path('memory')
        sizes = ', '.join(f'{role} {size_of(split) / 1e6:.1f} MB' for role, split in task.data.splits.items())
        where = 'on each device' if task.loader.placement == 'device' else 'streamed'
        lines.append(f'data, {name}: {on_disk} in {source}; decoded {sizes}; the training split is {where}')
    return lines


def place_of(data: Mapping[str, Any]) -> Path:
    """Returns the folder of a task's images, or the manifest that lists them."""
    if data['name']:
        return prepared.folder(data['name'], cache.root() / 'datasets')
    return user_path(data['dir'] or data['manifest'])


def tree_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob('*') if path.is_file())


def describe_weights(run: Run) -> str:
    """Returns a description of the initial weights: the file that holds them and its size, their source, or 'none'."""
    if run.weights is None:
        return 'none, it starts from scratch'
    model = run.config['model']
    places = (pretrained.cached_file(model['name'], cache.root(), model['weights']), user_path(model['weights']))
    for path in places:
        if path.is_file():
            return f'present, {path}, {path.stat().st_size / 1e6:.1f} MB'
    return f'present, {run.weights.metadata.get("source", model["weights"])}'


def left_on(folder: Path) -> str:
    """Returns '12.3 GB are free in x', where x is `folder` or its nearest parent that exists."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    return f'{shutil.disk_usage(there).free / 1e9:.1f} GB are free in {there}'
