"""Everything that follows from a config before a step is taken: data, network, phases, loss, feed."""

import dataclasses
import functools
import os
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from fer_jax.data import dataset
from fer_jax.data import tasks as data_tasks
from fer_jax.data.loading.loader import Feeds, gather
from fer_jax.data.tasks import PRIMARY
from fer_jax.distributed import processes, sharding
from fer_jax.errors import UserError
from fer_jax.feature_cache import extract as feature_extract
from fer_jax.feature_cache import loader as feature_loader
from fer_jax.feature_cache.loader import TrainFeatures
from fer_jax.inference import saliency
from fer_jax.models.network import DTYPES, ModelSpec, Network, build
from fer_jax.models.parameters import Flat, stage_of
from fer_jax.pretrained import Weights
from fer_jax.runs import checkpoints
from fer_jax.training import distillation, initial_weights, multi_step, objectives, phases, train_state
from fer_jax.training.objectives import HINTS, Task
from fer_jax.training.phases import Phase
from fer_jax.training.train_state import Fixed, TrainState
from fer_jax.training.train_step import train_step
from fer_jax.utils import cache


@dataclass(frozen=True)
class Setup:
    """A run, ready to start.

    Attributes:
      config: the whole config as plain dicts, lists and scalars.
      tasks: the primary one first.
      evaluations: step -> epochs done, where validation is scored and the state saved.
      select: (role, metric) that choose the checkpoint.
      teachers: workdir -> step and sha256 of the network that it selected.
    """

    config: Mapping[str, Any]
    mesh: jax.sharding.Mesh
    weights: Weights | None
    tasks: dict[str, Task]
    network: Network
    phases: list[Phase]
    evaluations: dict[int, float]
    select: tuple[str, str]
    teachers: Mapping[str, Mapping[str, str]]

    @property
    def data(self) -> dataset.Dataset:
        """That of the primary task."""
        return self.tasks[PRIMARY].data

    @functools.cached_property
    def feed(self) -> Feeds:
        """Images of every task."""
        return Feeds({name: task.feed for name, task in self.tasks.items()})

    @property
    def batch_size(self) -> int:
        return self.config['data']['batch_size']

    @property
    def examples(self) -> int:
        return len(self.data.splits['train'].labels)

    @property
    def replicated(self) -> jax.sharding.NamedSharding:
        return sharding.replicated(self.mesh)

    @property
    def guard(self) -> int | None:
        """Steps of a phase that may have an update that is not finite; None where JAX itself looks for NaNs."""
        if jax.config.jax_debug_nans:  # type: ignore[attr-defined]
            return None
        return self.config['max_skipped'] if self.config['on_nonfinite'] == 'skip' else 0

    def initial(self) -> tuple[Flat, Flat]:
        """(params, batch_stats) of step 0."""
        partial = self.config['model']['partial']
        return initial_weights.initial(
            self.network, self.weights, self.config['seed'], self.replicated, partial=partial
        )

    def enter(
        self, phase: Phase, step: int, params: Flat, batch_stats: Flat, ema: Mapping[str, Flat] | None = None
    ) -> tuple[TrainState, Fixed]:
        """The state at `step` of `phase`, with fresh optimizer state, and what the phase's steps only read.

        Args:
          ema: the averages of the phase before.
        """
        trainable, frozen = phase.partition.split(params)
        if self.config['model']['frozen_dtype'] == 'bfloat16':
            frozen = train_state.narrowed(frozen)
        averages = dict(ema or {}) if phase.ema else None
        create = functools.partial(train_state.create, tx=phase.tx, tasks=self.tasks)
        made = jax.jit(create, out_shardings=self.places(phase))(step, trainable, batch_stats, ema=averages)
        own = {'trainable': trainable, 'batch_stats': batch_stats}  # not the copies, which would stay beside them
        state = made._replace(**sharding.put(own, self.replicated))
        source = {}
        if phase.l2_sp:
            pulled = {path for path, leaf in trainable.items() if leaf.ndim > 1 and not path.startswith('head.')}
            source = {path: leaf for path, leaf in self.initial()[0].items() if path in pulled}
        return state, Fixed(frozen, source)

    def places(self, phase: Phase) -> Any:
        """A TrainState of shardings: where each part of the state of `phase` lives."""
        trainable, _ = phase.partition.split(self.network.params)
        shapes = jax.eval_shape(phase.tx.init, trainable)
        cut = sharding.optimizer(self.mesh, self.config['parallel']['optimizer'], shapes)
        return TrainState(**dict.fromkeys(TrainState._fields, self.replicated) | {'opt_state': cut})

    def feed_for(self, phase: Phase, state: TrainState, fixed: Fixed) -> Feeds:
        """What the phase's batches come from: images, or what is computed of them once."""
        if phase.features is None:
            return self.feed
        made, seen = {}, sum(task.feed.batch_size for task in self.tasks.values()) // phase.accumulate
        for name, task in self.tasks.items():
            of_task = feature_loader.feed(
                self.network,
                phase.features,
                train_state.current(state, fixed),
                state.batch_stats,
                task.feed,
                fingerprint=task.data.fingerprint,
                role='train',
                mesh=self.mesh,
                batch_size=seen,
            )
            made[name] = TrainFeatures(of_task, task.feed.indices)
        return Feeds(made)

    def abstract_batch(self, phase: Phase) -> tuple[Any, Any, np.int32]:
        """(resident, hosts, count) of a program of `phase`, to compile it: of `hosts` their shapes alone."""
        resident: dict[str, Any] = self.feed.resident
        hosts: dict[str, Any] = self.feed.hosts([phase.first])
        if phase.features is not None:
            shape, kind = (
                feature_extract.shape_of(self.network, phase.features),
                DTYPES[phase.features.dtype],
            )
            for name in self.tasks:
                hosts[name] = jax.eval_shape(gather, resident[name], hosts[name])
                hosts[name]['x'] = jax.ShapeDtypeStruct((*hosts[name]['weight'].shape, *shape), kind)
            resident = dict.fromkeys(hosts, {})
        rows, where = multi_step.rows(features=phase.features is not None), sharding.batch(self.mesh, axis=1)

        def repeated(leaf: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((rows, *leaf.shape[1:]), leaf.dtype, sharding=where)

        return resident, jax.tree.map(repeated, hosts), np.int32(rows)

    def step_function(self, phase: Phase) -> Any:
        """(state, fixed, resident, hosts, count) -> state after `count` training steps of one phase.

        `hosts` are the host's halves of several batches, [K, B, ...], of which the first `count` are taken. It is
        compiled at its first call, and consumes what of the state it changes. On features it is called without the
        leaves below the boundary, each of which would cost it microseconds.
        """
        step = self.whole_step(phase)
        if phase.features is None or phase.ema:
            return step
        order = list(self.network.stages)
        below = set(order[: order.index(phase.partition.boundary)])

        def on_features(state: TrainState, fixed: Fixed, resident: Any, hosts: Any, count: np.int32) -> TrainState:
            (low, high), (_, frozen) = (divide(tree) for tree in (state.batch_stats, fixed.frozen))
            after = step(state._replace(batch_stats=high), fixed._replace(frozen=frozen), resident, hosts, count)
            return after._replace(batch_stats=low | after.batch_stats)

        def divide(tree: Flat) -> tuple[Flat, Flat]:
            parts: tuple[Flat, Flat] = {}, {}
            for path, leaf in tree.items():
                parts[stage[path] not in below][path] = leaf
            return parts

        stage = {
            path: stage_of(path, self.network.stages) for path in (*self.network.params, *self.network.batch_stats)
        }
        return on_features

    def whole_step(self, phase: Phase) -> Any:
        """As `step_function`, of all leaves: what can be lowered and looked at."""
        bound = functools.partial(
            train_step,
            network=self.network,
            phase=phase,
            objectives={name: task.objective for name, task in self.tasks.items()},
            seed=self.config['seed'],
            guard=self.guard,
        )
        return jax.jit(multi_step.in_turn(bound), donate_argnums=0, out_shardings=self.places(phase))

    def describe(self) -> str:
        """What is trained on what, where, in one line a task."""
        spec = self.network.spec
        counts = ', '.join(f'{role} {len(split.labels):,}' for role, split in self.data.splits.items())
        origin = 'from scratch' if self.weights is None else f'from {self.weights.metadata.get("source", "weights")}'
        names = textwrap.shorten(', '.join(self.data.classes), 300, placeholder=' ...')
        if self.config['model']['partial'] and self.weights is not None:
            of = self.weights.metadata['of']
            origin += f' ({of}; {initial_weights.taken_by_stage(self.network, self.weights)})'
        among = f' in {processes.count()} processes' if processes.count() > 1 else ''
        lines = [
            f'{spec.name} {origin}, {spec.image_size} px; {self.data.name}: {counts}; '
            f'{len(self.data.classes)} classes: {names}; '
            f'{self.mesh.size} x {self.mesh.devices.flat[0].device_kind}{among}, batch {self.batch_size}'
        ]
        for name, task in list(self.tasks.items())[1:]:
            lines.append(f'beside it {name}: {objectives.describe(task)}')
        return '\n'.join(lines)


def prepare(config: Mapping[str, Any]) -> Setup:
    """Builds all of it.

    Raises:
      UserError: something in the config or the data is wrong.
    """
    model, settings = config['model'], config['data']
    cache.use_compilation_cache()
    if config['deterministic']:
        os.environ['XLA_FLAGS'] = os.environ.get('XLA_FLAGS', '') + ' --xla_gpu_deterministic_ops=true'
    check_roles(settings['splits'], config['checkpoint']['select'])
    if config['on_nonfinite'] not in ('stop', 'skip'):
        raise UserError(f'on_nonfinite={config["on_nonfinite"]!r} is unknown; choose stop or skip')
    mesh = sharding.make_mesh(config['parallel']['devices'])
    batch_size = settings['batch_size']
    sharding.optimizer(mesh, config['parallel']['optimizer'], ())
    weights = initial_weights.source(model['weights'], model['name'], partial=model['partial'])
    distillation.check(config)
    with processes.first_alone():
        data = data_tasks.load_tasks(config, image_size=model['image_size'], channels=model['channels'])
    data[PRIMARY], teachers = distillation.taught(config, data[PRIMARY], mesh)
    train = data[PRIMARY].splits['train']
    hints = {HINTS: tuple(map(str, range(train.said[HINTS].shape[1])))} if HINTS in train.said else {}
    look = initial_weights.preprocessing(weights, train, model['channels'])
    network = build(
        ModelSpec(
            name=model['name'],
            classes=data_tasks.heads(config, data) | hints,
            image_size=model['image_size'],
            channels=model['channels'],
            head=model['head'],
            head_inputs=tuple(model['head_inputs']),
            dropout=model['dropout'],
            stochastic_depth=model['stochastic_depth'],
            dtype=model['dtype'],
            mean=look.mean,
            std=look.std,
            order=look.order,
            activation='softmax' if train.attributes is None else 'sigmoid',
        )
    )
    network = dataclasses.replace(network, remat=check_remat(config['parallel']['remat'], network))
    if model['frozen_dtype'] not in DTYPES:
        raise UserError(f'model.frozen_dtype={model["frozen_dtype"]!r} is unknown; choose {" or ".join(DTYPES)}')
    if model['partial'] and weights is not None:
        weights = initial_weights.agreeing(weights, network)
    lengths = {'examples': len(train.labels), 'batch_size': batch_size}
    planned = phases.plan(config['phases'], network, augment=settings['augment'], seed=config['seed'], **lengths)
    fields = data_tasks.task_configs(config)
    for phase in planned:
        for name, task in fields.items():
            where = '' if name == PRIMARY else f'joint.{name}.'
            sharding.check_batch(mesh, task['data']['batch_size'], phase.accumulate, where=where)
        objectives.check_aligned(fields, phase.accumulate)
        if phase.l2_sp and weights is None:
            raise UserError(
                f'phases[{phase.index}].l2_sp={phase.l2_sp} pulls toward the source weights, but model.weights is '
                "'scratch'; set it to 0, or give weights"
            )
    check_consistency(config['loss']['consistency'], network, planned)
    return Setup(
        config=config,
        mesh=mesh,
        weights=weights,
        tasks={
            name: Task(
                data[name],
                objectives.objective(name, task, data[name], config['distil']),
                objectives.feed(name, task, data[name], config, mesh),
            )
            for name, task in fields.items()
        },
        network=network,
        phases=planned,
        evaluations=phases.evaluation_steps(planned, every=config['checkpoint']['every'], **lengths),
        select=checkpoints.parse_select(config['checkpoint']['select']),
        teachers=teachers,
    )


def check_roles(splits: Mapping[str, str], select: str) -> None:
    """Refuses a config that selects on the test split, by its role or by its name."""
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


def check_consistency(strength: float, network: Network, planned: list[Phase]) -> None:
    """Refuses it where the head does not read the global average of a map, or a phase trains on features."""
    if strength < 0:
        raise UserError(f'loss.consistency={strength}; expected 0 for none, or a strength, such as 5')
    if not strength:
        return
    if not saliency.readable(network):
        name = network.spec.name
        raise UserError(f'loss.consistency={strength}: the head of {name} does not read its last map; set it to 0')
    if any(phase.features for phase in planned):
        raise UserError(f'loss.consistency={strength} needs images and their mirror images; set cache_views to 0')


def check_remat(stages: Sequence[str], network: Network) -> tuple[str, ...]:
    """Raises UserError where one of `parallel.remat` is no stage below the head."""
    below = list(network.stages)[:-1]
    if odd := [stage for stage in stages if stage not in below]:
        raise UserError(f'parallel.remat={tuple(stages)}: no stage {", ".join(odd)}; choose of {", ".join(below)}')
    return tuple(stages)
