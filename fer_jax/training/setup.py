"""Everything that follows from a config before a step is taken: data, network, phases, loss, loaders."""

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from fer_jax.data import tasks as data_tasks
from fer_jax.data.dataset import Dataset
from fer_jax.data.tables.table import Table
from fer_jax.data.tasks import PRIMARY
from fer_jax.distributed import processes, sharding
from fer_jax.errors import UserError
from fer_jax.inference import saliency
from fer_jax.models.network import DTYPES, ModelSpec, Network, build
from fer_jax.pretrained import Weights
from fer_jax.runs import checkpoints
from fer_jax.training import distillation, initial_weights, objectives, phases
from fer_jax.training.objectives import HINTS, Task
from fer_jax.training.phases import Phase
from fer_jax.training.run import Run
from fer_jax.utils import cache


def prepare(config: Mapping[str, Any], given: Table | None = None) -> Run:
    """Builds the run that a config describes: loads its data and weights, and builds its network, tasks and phases.

    Args:
      config: one that `fer_jax.config.check.check_config` finds nothing wrong with.
      given: the data of the primary task, in place of those that the config names.

    Raises:
      UserError: fields of the config contradict each other or do not fit the data.
    """
    set_up_jax(config)
    check_roles(config['data']['splits'], config['checkpoint']['select'])
    distillation.check_distillation(config)
    mesh = sharding.make_mesh(config['parallel']['devices'])
    model = config['model']
    data = load_data(config, given)  # before weights are downloaded, which a wrong folder would waste
    weights = initial_weights.source(model['weights'], model['name'], partial=model['partial'])
    data[PRIMARY], teachers = distillation.with_teacher_outputs(config, data[PRIMARY], mesh)
    network = build_network(config, data, weights)
    if model['partial'] and weights is not None:
        weights = initial_weights.agreeing(weights, network)
    lengths = {'examples': len(data[PRIMARY].splits['train'].labels), 'batch_size': config['data']['batch_size']}
    augment = config['data']['augment']
    planned = phases.plan(config['phases'], network, augment=augment, seed=config['seed'], **lengths)
    check_phases(config, planned, network, mesh, weights)
    return Run(
        config=config,
        mesh=mesh,
        weights=weights,
        tasks=make_tasks(config, data, mesh),
        network=network,
        phases=planned,
        evaluations=phases.evaluation_steps(planned, every=config['checkpoint']['every'], **lengths),
        select=checkpoints.parse_select(config['checkpoint']['select']),
        teachers=teachers,
    )


def set_up_jax(config: Mapping[str, Any]) -> None:
    """Enables the compilation cache, and deterministic operations where the config asks for them."""
    cache.use_compilation_cache()
    if config['deterministic']:
        os.environ['XLA_FLAGS'] = os.environ.get('XLA_FLAGS', '') + ' --xla_gpu_deterministic_ops=true'


def load_data(config: Mapping[str, Any], given: Table | None = None) -> dict[str, Dataset]:
    """Loads the datasets of all tasks, {task: dataset}."""
    model = config['model']
    with processes.main_process_first():
        return data_tasks.load_tasks(config, image_size=model['image_size'], channels=model['channels'], given=given)


def build_network(config: Mapping[str, Any], data: Mapping[str, Dataset], weights: Weights | None) -> Network:
    """Builds the network with a head for each task, and one for the teachers' hints."""
    model, train = config['model'], data[PRIMARY].splits['train']
    taught = train.teacher_outputs
    hints = {HINTS: tuple(map(str, range(taught[HINTS].shape[1])))} if HINTS in taught else {}
    preprocessing = initial_weights.preprocessing(weights, train, model['channels'])
    spec = ModelSpec(
        name=model['name'],
        classes=data_tasks.heads(config, data) | hints,
        image_size=model['image_size'],
        channels=model['channels'],
        head=model['head'],
        head_inputs=tuple(model['head_inputs']),
        dropout=model['dropout'],
        stochastic_depth=model['stochastic_depth'],
        dtype=model['dtype'],
        mean=preprocessing.mean,
        std=preprocessing.std,
        order=preprocessing.order,
        activation='softmax' if train.attributes is None else 'sigmoid',
    )
    network = build(spec)
    return dataclasses.replace(network, remat=check_remat(config['parallel']['remat'], network))


def make_tasks(config: Mapping[str, Any], data: Mapping[str, Dataset], mesh: Mesh) -> dict[str, Task]:
    """Builds each task's objective and loader of training images."""
    return {
        name: Task(
            data[name],
            objectives.objective(name, task, data[name], config['distil']),
            objectives.make_train_loader(name, task, data[name], config, mesh),
        )
        for name, task in data_tasks.task_configs(config).items()
    }


def check_phases(
    config: Mapping[str, Any], planned: Sequence[Phase], network: Network, mesh: Mesh, weights: Weights | None
) -> None:
    """Checks the phases against the batches, the devices, the weights and the loss.

    Raises:
      UserError: a phase does not fit one of them.
    """
    tasks = data_tasks.task_configs(config)
    for phase in planned:
        for name, task in tasks.items():
            where = '' if name == PRIMARY else f'joint.{name}.'
            sharding.check_batch(mesh, task['data']['batch_size'], phase.accumulate, where=where)
        objectives.check_aligned(tasks, phase.accumulate)
        check_batch_norm(config, phase, network)
        if phase.l2_sp and weights is None:
            raise UserError(
                f'phases[{phase.index}].l2_sp={phase.l2_sp} pulls toward the source weights, but model.weights is '
                "'scratch'; set it to 0, or give weights"
            )
    check_consistency(config['loss']['consistency'], network, planned)


def check_roles(splits: Mapping[str, str], select: str) -> None:
    """Checks the names of the splits and that the checkpoint is not selected on the test split.

    Raises:
      UserError: the training or selecting split has no name, the selecting split is the test split by its role or by
        its name, or the training split is the test split.
    """
    role, _ = checkpoints.parse_select(select)
    for needed in ('train', role):
        if not splits.get(needed):
            raise UserError(f'data.splits.{needed} is empty; name the split that plays this role')
    selecting = splits[role].lower()
    if selecting in ('test', 'privatetest') or selecting == splits.get('test', '').lower():
        raise UserError(
            f'data.splits.{role}={splits[role]!r} is the test split, and {select!r} would choose the checkpoint on '
            'it, so that its score would be optimistic; name a validation split, or carve one from the training images'
        )
    if splits['train'] == splits.get('test'):
        raise UserError(f'data.splits.test={splits["test"]!r} is the training split; its score would say nothing')


def check_consistency(strength: float, network: Network, planned: Sequence[Phase]) -> None:
    """Checks that attention consistency can be computed.

    Raises:
      UserError: the head does not read the global average of a map, or a phase trains on cached features.
    """
    if not strength:
        return
    if not saliency.readable(network):
        name = network.spec.name
        raise UserError(f'loss.consistency={strength}: the head of {name} does not read its last map; set it to 0')
    if any(phase.features for phase in planned):
        raise UserError(f'loss.consistency={strength} needs images and their mirror images; set cache_views to 0')


def check_batch_norm(config: Mapping[str, Any], phase: Phase, network: Network) -> None:
    """Checks that no BatchNorm in training mode gets a single value per channel: one image, on a map of one cell.

    Normalised by its own statistics such a value is always 0, so that no information reaches the next layer. All images
    of a microbatch count, whichever tasks and devices they belong to.

    Raises:
      UserError: a BatchNorm would get a single value.
    """
    tasks = data_tasks.task_configs(config)
    images = sum(task['data']['batch_size'] for task in tasks.values()) // phase.accumulate
    if images > 1 or config['loss']['consistency']:
        return
    seen: dict[str, jax.Array] = {}
    shape = (images, phase.image_size, phase.image_size, network.spec.channels)
    trace = functools.partial(
        network.forward, train=phase.partition.stages, frozen_norms=phase.frozen_norms, key=jax.random.key(0), seen=seen
    )
    try:
        jax.eval_shape(trace, network.variables, jax.ShapeDtypeStruct(shape, DTYPES[network.spec.dtype]))
    except UserError as error:
        stage, size = list(seen)[-1], config['data']['batch_size']
        raise UserError(
            f'phases[{phase.index}]: {error}, in {stage} of {network.spec.name}, which {list(seen[stage].shape)} '
            f'enters: a microbatch is one image of {phase.image_size} px (data.batch_size={size}, '
            f'accumulate={phase.accumulate}). Raise data.batch_size, lower accumulate, or set '
            f"phases[{phase.index}].batch_norm='frozen'"
        ) from None


def check_remat(stages: Sequence[str], network: Network) -> tuple[str, ...]:
    """Checks that all of `parallel.remat` are stages below the head, and returns them.

    Raises:
      UserError: one is not.
    """
    below = list(network.stages)[:-1]
    if odd := [stage for stage in stages if stage not in below]:
        raise UserError(f'parallel.remat={tuple(stages)}: no stage {", ".join(odd)}; choose of {", ".join(below)}')
    return tuple(stages)
