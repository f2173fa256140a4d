"""From a config's phases to steps: when each begins, what it trains, how fast."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optax

from fer_jax.data.augmentation.augment import Augment
from fer_jax.errors import UserError
from fer_jax.feature_cache.recipe import FeatureSpec, boundary_spec, check_feature_spec
from fer_jax.models.network import Network
from fer_jax.models.parameters import stage_of
from fer_jax.training import optimizers, schedules
from fer_jax.training.freezing import Partition, frozen_norms, partition

MOST_EVALUATIONS = 100_000


@dataclass(frozen=True)
class Phase:
    """One phase of training: the steps from `first` up to, not including, `last` of the run.

    Attributes:
      index: from 0.
      epochs: the epoch, counted over the run, at which it ends.
      schedule: step of the phase -> learning rate.
      frozen_norms: paths of the BatchNorms that keep their running statistics.
      image_size: side in pixels at which this phase trains; evaluation is at the network's.
      accumulate: number of microbatches of a batch; the update is that of the whole batch, but BatchNorm and mixing see
        one microbatch.
      ema: decay of the moving averages, 0 for none.
      l2_sp: strength of the pull toward the source weights (Li et al. 2018), as the factor of a weight decay.
      stop_after: evaluations without a better score after which the phase ends; 0 for none.
      plateau: (evaluations without a better score after which the learning rate falls, its factor), or None.
      features: spec of the cached features that the phase trains on; None for images.
    """

    index: int
    first: int
    last: int
    epochs: float
    partition: Partition
    tx: optax.GradientTransformation
    schedule: Callable[[Any], Any]
    augment: Augment
    image_size: int
    frozen_norms: frozenset[str] = frozenset()
    accumulate: int = 1
    ema: float = 0.0
    l2_sp: float = 0.0
    stop_after: int = 0
    plateau: tuple[int, float] | None = None
    features: FeatureSpec | None = None

    def stalled(self, scores: Sequence[float]) -> bool:
        """Returns whether `stop_after` is set and the phase's last `stop_after` scores had no new maximum."""
        best = scores.index(max(scores)) if scores else 0
        return 0 < self.stop_after <= len(scores) - 1 - best

    def scale(self, scores: Sequence[float]) -> float:
        """Computes the learning rate's factor after these scores, as torch's ReduceLROnPlateau with threshold 0."""
        scale, best, bad = 1.0, -math.inf, 0
        if self.plateau is not None:
            patience, factor = self.plateau
            for score in scores:
                best, bad = (score, 0) if score > best else (best, bad + 1)
                if bad > patience:
                    scale, bad = scale * factor, 0
        return scale


def steps_of(epochs: float, examples: int, batch_size: int) -> int:
    """Computes the number of steps in `epochs`; a batch may span two epochs, and no example is dropped."""
    return math.ceil(round(epochs * examples, 6) / batch_size)


def plan(
    phases: Sequence[Mapping[str, Any]],
    network: Network,
    *,
    augment: Mapping[str, Any],
    examples: int,
    batch_size: int,
    seed: int = 0,
) -> list[Phase]:
    """Builds the phases in order, each starting where the previous one ends.

    Args:
      phases: the config's phases.
      augment: the augmentation settings that a phase's own override.
      examples: images of the primary training split.
      seed: of the augmented views in feature caches.

    Raises:
      UserError: a phase's table of rates, its image size or its feature cache does not fit the network.
    """
    planned: list[Phase] = []
    epochs, first = 0.0, 0
    for index, fields in enumerate(phases):
        epochs += fields['epochs']
        last = steps_of(epochs, examples, batch_size)
        try:
            split = partition(list(network.params), network.stages, fields['rates'])
        except UserError as error:
            raise UserError(f'phases[{index}].{error}') from None
        schedule = schedules.make_schedule(
            fields['schedule'],
            learning_rate=fields['learning_rate'],
            steps=last - first,
            warmup_steps=steps_of(fields['warmup_epochs'], examples, batch_size),
            step_every=max(1, steps_of(fields['step_epochs'], examples, batch_size)),
            step_factor=fields['step_factor'],
        )
        trainable, _ = split.split(network.params)
        tx = optimizers.make(
            fields['optimizer'],
            schedule=schedule,
            momentum=fields['momentum'],
            nesterov=fields['nesterov'],
            weight_decay=fields['weight_decay'],
            clip=fields['clip'],
            sam=fields['sam'],
            rates={path: split.rates[path] for path in trainable},
            decay_mask={path: leaf.ndim > 1 for path, leaf in trainable.items()},
        )
        settings = Augment.of({**augment, **fields['augment']})
        size = fields['image_size'] or network.spec.image_size
        if size > network.spec.image_size:
            raise UserError(
                f'phases[{index}].image_size={size}; expected 0 (the same), or 8 up to model.image_size='
                f'{network.spec.image_size}'
            )
        features = None
        if fields['cache_views']:
            try:
                check_feature_spec(network, split.boundary, settings)
                views = fields['cache_views']
                drawn, view_seed = (settings, seed) if views > 1 else (Augment(), 0)
                fields_of = {'views': views, 'settings': drawn, 'seed': view_seed, 'dtype': fields['cache_dtype']}
                features = boundary_spec(network, split.boundary, size, **fields_of)
            except UserError as error:
                raise UserError(f'phases[{index}].{error}') from None
        planned.append(
            Phase(
                index,
                first,
                last,
                epochs,
                split,
                tx,
                schedule,
                settings,
                size,
                frozen_norms(split, network.batch_stats, fields['batch_norm']),
                accumulate=fields['accumulate'],
                ema=fields['ema'],
                l2_sp=fields['l2_sp'],
                stop_after=fields['stop_after'],
                plateau=(fields['patience'], fields['step_factor']) if fields['schedule'] == 'plateau' else None,
                features=features,
            )
        )
        first = last
    return planned


def evaluation_steps(phases: Sequence[Phase], *, every: float, examples: int, batch_size: int) -> dict[int, float]:
    """Computes the steps at which the run evaluates: every `every` epochs and at the end of each phase.

    Returns:
      {step: epochs done}.

    Raises:
      UserError: there would be more than `MOST_EVALUATIONS`.
    """
    total = phases[-1].epochs
    if total / every > MOST_EVALUATIONS:
        raise UserError(
            f'checkpoint.every={every} would evaluate {total / every:,.0f} times in {total:g} epochs; raise it to '
            f'{total / MOST_EVALUATIONS:g} or more'
        )
    marks = {every * count for count in range(1, math.floor(total / every) + 1)} | {phase.epochs for phase in phases}
    return {steps_of(epoch, examples, batch_size): epoch for epoch in sorted(marks)}


def describe_untrained(phases: Sequence[Phase], network: Network) -> list[str]:
    """Returns a warning for each phase that freezes stages of random parameters, which no phase before has trained."""
    paths_of = {
        stage: [path for path in network.params if stage_of(path, network.stages) == stage] for stage in network.stages
    }
    trained: set[str] = set()
    warnings = []
    for phase in phases:
        rates = phase.partition.rates
        trained |= {path for path, rate in rates.items() if rate}
        random = [stage for stage, paths in paths_of.items() if paths and not trained.intersection(paths)]
        if random:
            warnings.append(
                f'WARNING: phase {phase.index} freezes {", ".join(random)}, which start from random numbers '
                "(model.weights='scratch') and teach the stages above them little; train them, or give weights"
            )
    return warnings
