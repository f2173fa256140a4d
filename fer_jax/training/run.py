"""A run that is ready to start, and what each of its phases is made of."""

import functools
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from fer_jax.data import dataset
from fer_jax.data.loading.loader import MultiTaskLoader, assemble_batch
from fer_jax.data.tasks import PRIMARY
from fer_jax.distributed import processes, sharding
from fer_jax.feature_cache import extract as feature_extract
from fer_jax.feature_cache import loader as feature_loader
from fer_jax.feature_cache.loader import TrainFeatureLoader
from fer_jax.models.network import DTYPES, Network
from fer_jax.models.parameters import Flat, stage_of
from fer_jax.pretrained import Weights
from fer_jax.training import initial_weights, multi_step, objectives, train_state
from fer_jax.training.objectives import Task
from fer_jax.training.phases import Phase
from fer_jax.training.train_state import FrozenState, TrainState
from fer_jax.training.train_step import StepProgram, train_step


@dataclass(frozen=True)
class Run:
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
    def loader(self) -> MultiTaskLoader:
        """Images of every task."""
        return MultiTaskLoader({name: task.loader for name, task in self.tasks.items()})

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

    def init_phase_state(
        self, phase: Phase, step: int, params: Flat, batch_stats: Flat, ema: Mapping[str, Flat] | None = None
    ) -> tuple[TrainState, FrozenState]:
        """The state at `step` of `phase`, with fresh optimizer state, and what the phase's steps only read.

        Args:
          ema: the averages of the phase before.
        """
        trainable, frozen = phase.partition.split(params)
        if self.config['model']['frozen_dtype'] == 'bfloat16':
            frozen = train_state.cast_frozen(frozen)
        averages = dict(ema or {}) if phase.ema else None
        create = functools.partial(train_state.create, tx=phase.tx, tasks=self.tasks)
        made = jax.jit(create, out_shardings=self.state_shardings(phase))(step, trainable, batch_stats, ema=averages)
        own = {'trainable': trainable, 'batch_stats': batch_stats}  # not the copies, which would stay beside them
        state = made._replace(**sharding.put(own, self.replicated))
        source = {}
        if phase.l2_sp:
            pulled = {path for path, leaf in trainable.items() if leaf.ndim > 1 and not path.startswith('head.')}
            source = {path: leaf for path, leaf in self.initial()[0].items() if path in pulled}
        return state, FrozenState(frozen, source)

    def state_shardings(self, phase: Phase) -> Any:
        """A TrainState of shardings: where each part of the state of `phase` lives."""
        trainable, _ = phase.partition.split(self.network.params)
        shapes = jax.eval_shape(phase.tx.init, trainable)
        cut = sharding.optimizer(self.mesh, self.config['parallel']['optimizer'], shapes)
        return TrainState(**dict.fromkeys(TrainState._fields, self.replicated) | {'opt_state': cut})

    def loader_for(self, phase: Phase, state: TrainState, fixed: FrozenState) -> MultiTaskLoader:
        """What the phase's batches come from: images, or what is computed of them once."""
        if phase.features is None:
            return self.loader
        made, seen = {}, sum(task.loader.batch_size for task in self.tasks.values()) // phase.accumulate
        for name, task in self.tasks.items():
            of_task = feature_loader.make_feature_loader(
                self.network,
                phase.features,
                train_state.all_params(state, fixed),
                state.batch_stats,
                task.loader,
                fingerprint=task.data.fingerprint,
                role='train',
                mesh=self.mesh,
                batch_size=seen,
            )
            made[name] = TrainFeatureLoader(of_task, task.loader.indices)
        return MultiTaskLoader(made)

    def abstract_batch(self, phase: Phase) -> tuple[Any, Any, np.int32]:
        """(device_data, host_batches, count) of a program of `phase`, to compile it: batches as shapes alone."""
        device_data: dict[str, Any] = self.loader.device_data
        host_batches: dict[str, Any] = self.loader.host_batches([phase.first])
        if phase.features is not None:
            shape, kind = (
                feature_extract.shape_of(self.network, phase.features),
                DTYPES[phase.features.dtype],
            )
            for name in self.tasks:
                host_batches[name] = jax.eval_shape(assemble_batch, device_data[name], host_batches[name])
                host_batches[name]['x'] = jax.ShapeDtypeStruct((*host_batches[name]['weight'].shape, *shape), kind)
            device_data = dict.fromkeys(host_batches, {})
        rows, where = multi_step.rows(features=phase.features is not None), sharding.batch(self.mesh, axis=1)

        def repeated(leaf: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((rows, *leaf.shape[1:]), leaf.dtype, sharding=where)

        return device_data, jax.tree.map(repeated, host_batches), np.int32(rows)

    def step_function(self, phase: Phase) -> Any:
        """(state, fixed, device_data, host_batches, count) -> state after `count` training steps of one phase.

        `host_batches` are the halves that the host sends, [K, B, ...], of which the first `count` are taken. It is
        compiled at its first call, and consumes what of the state it changes. On features it is called without the
        leaves below the boundary, each of which would cost it microseconds.
        """
        step = self.jitted_step(phase)
        if phase.features is None or phase.ema:
            return step
        order = list(self.network.stages)
        below = set(order[: order.index(phase.partition.boundary)])

        def on_features(
            state: TrainState, fixed: FrozenState, device_data: Any, host_batches: Any, count: np.int32
        ) -> TrainState:
            (low, high), (_, frozen) = (divide(tree) for tree in (state.batch_stats, fixed.frozen))
            after = step(
                state._replace(batch_stats=high), fixed._replace(frozen=frozen), device_data, host_batches, count
            )
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

    def jitted_step(self, phase: Phase) -> Any:
        """As `step_function`, of all leaves: what can be lowered and looked at."""
        objectives = {name: task.objective for name, task in self.tasks.items()}
        program = StepProgram(self.network, phase, objectives, self.config['seed'], self.guard)
        step = multi_step.loop_steps(functools.partial(train_step, program=program))
        return jax.jit(step, donate_argnums=0, out_shardings=self.state_shardings(phase))

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
