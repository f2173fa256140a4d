"""A run that is ready to start."""

import functools
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax

from fer_jax.data import dataset
from fer_jax.data.loading.loader import MultiTaskLoader
from fer_jax.data.tasks import PRIMARY
from fer_jax.distributed import processes, sharding
from fer_jax.models.network import Network
from fer_jax.models.parameters import Variables
from fer_jax.pretrained import Weights
from fer_jax.training import initial_weights, objectives, phases
from fer_jax.training.objectives import Task
from fer_jax.training.phases import Phase


@dataclass(frozen=True)
class Run:
    """A prepared run: its config, devices, weights, tasks, network and phases.

    Attributes:
      config: the whole config as plain dicts, lists and scalars.
      tasks: the primary one first.
      evaluations: {step: epochs done} of the steps at which validation is scored and the state saved.
      select: (role, metric) by which the checkpoint is selected.
      teachers: {workdir: {'step', 'sha256'}}, the selected checkpoint of each teacher and a digest of its variables.
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
        """The dataset of the primary task."""
        return self.tasks[PRIMARY].data

    @functools.cached_property
    def loader(self) -> MultiTaskLoader:
        """The loader of the training images of every task."""
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
        """The number of steps of a phase whose update may be non-finite; None where JAX itself checks for NaNs."""
        if jax.config.jax_debug_nans:  # type: ignore[attr-defined]
            return None
        return self.config['max_skipped'] if self.config['on_nonfinite'] == 'skip' else 0

    def initial(self) -> Variables:
        """Makes the variables of step 0."""
        partial = self.config['model']['partial']
        return initial_weights.initial(
            self.network, self.weights, self.config['seed'], self.replicated, partial=partial
        )

    def describe(self) -> str:
        """Returns a description of the network, weights, data and devices, with one line or more for each task."""
        spec = self.network.spec
        counts = ', '.join(f'{role} {len(split.labels):,}' for role, split in self.data.splits.items())
        origin = 'from scratch' if self.weights is None else f'from {self.weights.metadata.get("source", "weights")}'
        names = textwrap.shorten(', '.join(self.data.classes), 300, placeholder=' ...')
        if self.config['model']['partial'] and self.weights is not None:
            source = self.weights.metadata['of']
            origin += f' ({source}; {initial_weights.taken_by_stage(self.network, self.weights)})'
        among = f' in {processes.count()} processes' if processes.count() > 1 else ''
        lines = [
            f'{spec.name} {origin}, {spec.image_size} px; {self.data.name}: {counts}; '
            f'{len(self.data.classes)} classes: {names}; '
            f'{self.mesh.size} x {self.mesh.devices.flat[0].device_kind}{among}, batch {self.batch_size}'
        ]
        lines += self.data.notes
        lines += [] if self.weights else phases.describe_untrained(self.phases, self.network)
        for name, task in list(self.tasks.items())[1:]:
            lines.append(f'beside it {name}: {objectives.describe(task)}')
            lines += [f'{name}: {note}' for note in task.data.notes]
        return '\n'.join(lines)
