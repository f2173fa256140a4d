"""What a phase of a run is made of: its state, its batches, its compiled step."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from fer_jax.data.loading.loader import MultiTaskLoader, assemble_batch
from fer_jax.distributed import sharding
from fer_jax.feature_cache import extract as feature_extract
from fer_jax.feature_cache import loader as feature_loader
from fer_jax.feature_cache.loader import TrainFeatureLoader
from fer_jax.models.network import DTYPES
from fer_jax.models.parameters import Flat, Variables, stage_of
from fer_jax.training import multi_step, train_state
from fer_jax.training.phases import Phase
from fer_jax.training.run import Run
from fer_jax.training.train_state import FrozenState, TrainState
from fer_jax.training.train_step import StepProgram, train_step


@dataclass(frozen=True)
class PhaseProgram:
    """The compiled programs, states and loaders of one phase of a run."""

    run: Run
    phase: Phase

    @property
    def cached(self) -> bool:
        """Returns whether the phase trains on cached features."""
        return self.phase.features is not None

    @property
    def start(self) -> str | None:
        """The stage that cached features enter; None for images."""
        return self.phase.partition.boundary if self.cached else None

    def init_state(
        self, step: int, variables: Variables, ema: Mapping[str, Flat] | None = None
    ) -> tuple[TrainState, FrozenState]:
        """Makes the state at `step`, with a fresh optimizer state, and the frozen state, which steps only read.

        Args:
          ema: the averages of the previous phase.
        """
        run, phase = self.run, self.phase
        trainable, frozen = phase.partition.split(variables.params)
        if run.config['model']['frozen_dtype'] == 'bfloat16':
            frozen = train_state.cast_frozen(frozen)
        averages = dict(ema or {}) if phase.ema else None
        create = functools.partial(train_state.create, tx=phase.tx, tasks=run.tasks)
        made = jax.jit(create, out_shardings=self.state_shardings())(
            step, trainable, variables.batch_stats, ema=averages
        )
        own = {'trainable': trainable, 'batch_stats': variables.batch_stats}  # not copies, which would stay beside them
        state = made._replace(**sharding.put(own, run.replicated))
        source = {}
        if phase.l2_sp:
            pulled = {path for path, leaf in trainable.items() if leaf.ndim > 1 and not path.startswith('head.')}
            source = {path: leaf for path, leaf in run.initial().params.items() if path in pulled}
        return state, FrozenState(frozen, source)

    def state_shardings(self) -> Any:
        """Returns the shardings of a TrainState's leaves, as a TrainState."""
        trainable, _ = self.phase.partition.split(self.run.network.params)
        shapes = jax.eval_shape(self.phase.tx.init, trainable)
        cut = sharding.optimizer(self.run.mesh, self.run.config['parallel']['optimizer'], shapes)
        return TrainState(**dict.fromkeys(TrainState._fields, self.run.replicated) | {'opt_state': cut})

    def make_loader(self, state: TrainState, fixed: FrozenState) -> MultiTaskLoader:
        """Makes the loader of the training batches: of images, or of features computed once from them."""
        run, phase = self.run, self.phase
        if phase.features is None:
            return run.loader
        made, seen = {}, sum(task.loader.batch_size for task in run.tasks.values()) // phase.accumulate
        for name, task in run.tasks.items():
            features = feature_loader.make_feature_loader(
                run.network,
                phase.features,
                train_state.all_variables(state, fixed),
                task.loader,
                fingerprint=task.data.fingerprint,
                role='train',
                mesh=run.mesh,
                batch_size=seen,
            )
            made[name] = TrainFeatureLoader(features, task.loader.indices)
        return MultiTaskLoader(made)

    def abstract_batch(self) -> tuple[Any, Any, np.int32]:
        """Returns (device_data, host_batches, count) to compile the step with, batches as shapes alone."""
        run, phase = self.run, self.phase
        device_data: dict[str, Any] = run.loader.device_data
        host_batches: dict[str, Any] = run.loader.host_batches([phase.first])
        if phase.features is not None:
            shape, kind = feature_extract.shape_of(run.network, phase.features), DTYPES[phase.features.dtype]
            for name in run.tasks:
                host_batches[name] = jax.eval_shape(assemble_batch, device_data[name], host_batches[name])
                host_batches[name]['x'] = jax.ShapeDtypeStruct((*host_batches[name]['weight'].shape, *shape), kind)
            device_data = dict.fromkeys(host_batches, {})
        rows, where = multi_step.rows(features=self.cached), sharding.batch(run.mesh, axis=1)

        def repeated(leaf: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((rows, *leaf.shape[1:]), leaf.dtype, sharding=where)

        return device_data, jax.tree.map(repeated, host_batches), np.int32(rows)

    def step_function(self) -> Any:
        """Makes the function (state, fixed, device_data, host_batches, count) -> state after `count` training steps.

        `host_batches` are the parts of the batches that the host sends, [K, B, ...]; the first `count` are used. The
        function is compiled at its first call and donates the parts of the state that it changes. On cached features it
        is called without the leaves below the boundary, each of which would add microseconds to a call.
        """
        step, network = self.jitted_step(), self.run.network
        if not self.cached or self.phase.ema:
            return step
        order = list(network.stages)
        below = set(order[: order.index(self.phase.partition.boundary)])
        stage = {path: stage_of(path, network.stages) for tree in network.variables for path in tree}

        def divide(tree: Flat) -> tuple[Flat, Flat]:
            parts: tuple[Flat, Flat] = {}, {}
            for path, leaf in tree.items():
                parts[stage[path] not in below][path] = leaf
            return parts

        def on_features(
            state: TrainState, fixed: FrozenState, device_data: Any, host_batches: Any, count: np.int32
        ) -> TrainState:
            (low, high), (_, frozen) = (divide(tree) for tree in (state.batch_stats, fixed.frozen))
            after = step(
                state._replace(batch_stats=high), fixed._replace(frozen=frozen), device_data, host_batches, count
            )
            return after._replace(batch_stats=low | after.batch_stats)

        return on_features

    def jitted_step(self) -> Any:
        """Makes the jitted form of `step_function` that takes all leaves and can be lowered and inspected."""
        run = self.run
        objectives = {name: task.objective for name, task in run.tasks.items()}
        program = StepProgram(run.network, self.phase, objectives, run.config['seed'], run.guard)
        step = multi_step.loop_steps(functools.partial(train_step, program=program))
        return jax.jit(step, donate_argnums=0, out_shardings=self.state_shardings())
