"""The training and the evaluation step: pure functions over explicit trees."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fer_jax.data.augmentation.augment import augment_batch, example_keys
from fer_jax.data.loading.loader import assemble_batch
from fer_jax.data.tasks import PRIMARY
from fer_jax.models.network import DTYPES, Network
from fer_jax.models.parameters import Flat
from fer_jax.training.auxiliary_losses import attention_consistency, coral, distillation
from fer_jax.training.losses import squared_error
from fer_jax.training.objectives import HINTS, Objective
from fer_jax.training.phases import Phase
from fer_jax.training.train_state import FrozenState, TrainState

Batches = Mapping[str, Mapping[str, Any]]


def train_step(
    state: TrainState,
    fixed: FrozenState,
    device_data: Batches,
    host: Batches,
    *,
    network: Network,
    phase: Phase,
    objectives: Mapping[str, Objective],
    seed: int,
    guard: int | None = None,
) -> TrainState:
    """One step on the whole batch of every task, on however many devices it is spread.

    Everything random comes from (seed, step, microbatch, task, position). Only `state.trainable` is differentiated, so
    that no gradient of a frozen parameter exists and stages below the phase's boundary have no backward pass. The
    images of all tasks go through the network as one batch, over which BatchNorm takes its statistics.

    Args:
      device_data, host: the two halves of each task's batch, see `data.loading.loader`.
      objectives: of each task, the primary one first.
      guard: how many steps may have an update that is not finite; such an update is not kept, and after one more no
        other is. None keeps everything.
    """
    batch = {task: assemble_batch(device_data[task], host[task]) for task in objectives}
    key = jax.random.fold_in(jax.random.key(seed), state.step)
    start = None if phase.features is None else phase.partition.boundary
    consistency = objectives[PRIMARY].consistency
    ends = np.cumsum([part['x'].shape[0] // phase.accumulate for part in batch.values()])
    rows = {
        task: slice(end - batch[task]['x'].shape[0] // phase.accumulate, end)
        for task, end in zip(objectives, ends.tolist(), strict=True)
    }

    def prepare(part: Batches, key: jax.Array) -> dict[str, Any]:
        """{task: (what enters the network, targets)} of one microbatch."""
        prepared = {}
        for index, (task, objective) in enumerate(objectives.items()):
            images_key, _, target_key = jax.random.split(jax.random.fold_in(key, index) if index else key, 3)
            x, targets = part[task]['x'], part[task]['y']
            if objective.draw_targets:
                keys = example_keys(target_key, targets.shape[0])
                targets = jax.vmap(jax.random.categorical)(keys, jnp.log(targets))
            if start is None:
                classes = len(network.spec.classes[objective.head])
                x, targets = augment_batch(
                    x, targets, images_key, size=phase.image_size, classes=classes, settings=phase.augment
                )
                x = network.normalise(x)
            else:
                x = x.astype(DTYPES[network.spec.dtype])
            prepared[task] = x, targets
        return prepared

    def weights_of(part: Batches, prepared: Mapping[str, Any]) -> dict[str, jax.Array]:
        """{task: the sum of its examples' weights}, known before any loss is."""
        sums = {}
        for task, objective in objectives.items():
            weight = part[task]['weight']
            if objective.loss is not None:
                blank = jnp.zeros((len(weight), len(network.spec.classes[objective.head])))
                weight = weight * objective.loss(blank, prepared[task][1])[1]
            sums[task] = jnp.sum(weight)
        return sums

    def of_part(
        trainable: Flat, stats: Flat, part: Batches, prepared: Mapping[str, Any], total: Any, key: jax.Array
    ) -> tuple[Flat, dict[str, jax.Array], Flat]:
        """Gradients and sums of one microbatch, shares of those of the batch, and the statistics after it."""

        def minimised(trainable: Flat) -> tuple[jax.Array, Any]:
            images = [x for x, _ in prepared.values()]
            if consistency:
                images.append(images[0][:, :, ::-1])
            params = trainable | fixed.frozen
            logits, after, entered = network.forward(
                params,
                stats,
                jnp.concatenate(images) if len(images) > 1 else images[0],
                start=start,
                train=phase.partition.stages,
                key=jax.random.split(key, 3)[1],
                tell='pool' if consistency else 'head',
            )
            value = jnp.zeros(())
            if consistency:
                mirrored = entered[-len(images[0]) :]
                apart = attention_consistency(entered[rows[PRIMARY]], mirrored, params[f'head.{PRIMARY}.kernel'])
                value += consistency * apart / phase.accumulate
                entered = entered.mean((1, 2))
            sums: dict[str, jax.Array] = {}
            for task, objective in objectives.items():
                if objective.align:
                    apart = coral(entered[rows[PRIMARY]], entered[rows[task]]) / phase.accumulate
                    value += objective.align * apart
                if objective.loss is None:
                    sums |= {f'{task}/loss': apart, f'{task}/correct': jnp.zeros(())}
                    continue
                student, targets = logits[objective.head][rows[task]], prepared[task][1]
                losses, weights = objective.loss(student, targets)
                if teaching := objective.teaching:
                    taught = distillation(student, part[task]['probabilities'], teaching.temperature)
                    losses = (1 - teaching.weight) * losses + teaching.weight * taught
                    if teaching.hints:
                        losses += teaching.hints * squared_error(logits[HINTS][rows[task]], part[task][HINTS])[0]
                loss = jnp.sum(losses * weights * part[task]['weight']) / total[task]
                value += objective.weight * loss
                correct = jnp.zeros(()) if objective.hits is None else jnp.sum(objective.hits(student, targets))
                sums |= {f'{task}/loss': loss, f'{task}/correct': correct}
            return value, (sums, after)

        gradients, (sums, after) = jax.grad(minimised, has_aux=True)(trainable)
        return gradients, sums, after

    def gradients_at(trainable: Flat) -> tuple[Flat, dict[str, jax.Array], Flat]:
        if phase.accumulate == 1:
            prepared = prepare(batch, key)
            gradients, sums, stats = of_part(
                trainable, state.batch_stats, batch, prepared, weights_of(batch, prepared), key
            )
        else:
            gradients, sums, stats = _accumulate(
                of_part, prepare, weights_of, trainable, state.batch_stats, batch, key, phase.accumulate
            )
        pulled = {path: phase.l2_sp * (trainable[path] - leaf) for path, leaf in fixed.source.items()}
        return {path: leaf + pulled.get(path, 0) for path, leaf in gradients.items()}, sums, stats

    gradients, sums, stats = gradients_at(state.trainable)
    norm = optax.tree.norm(gradients)

    def update() -> tuple[TrainState, jax.Array]:
        """The state after this step, or before it where a gradient that SAM asked for is not finite; whether it was."""
        uphill_norms = []

        def uphill(trainable: Flat, _: int) -> Flat:
            again = gradients_at(trainable)[0]
            uphill_norms.append(optax.tree.norm(again))
            return again

        updates, opt_state = optax.with_extra_args_support(phase.tx).update(
            gradients, state.opt_state, state.trainable, grad_fn=uphill
        )
        trainable = optax.apply_updates(state.trainable, {path: state.scale * leaf for path, leaf in updates.items()})
        examples = {f'{task}/examples': len(part['weight']) for task, part in batch.items()}
        news = {'gradient_norm': norm, 'steps': 1, **examples, **sums}
        after = TrainState(
            step=state.step + 1,
            trainable=trainable,
            batch_stats=stats,
            opt_state=opt_state,
            sums={name: total + news[name] for name, total in state.sums.items()},
            scale=state.scale,
            health=state.health,
            ema=_averaged(state, phase, trainable, stats),
        )
        if not uphill_norms or guard is None:
            return after, jnp.asarray(True)
        fine = jnp.isfinite(uphill_norms[0])
        return jax.tree.map(lambda new, old: jnp.where(fine, new, old), after, state), fine

    if guard is None:
        return update()[0]
    watched = (norm, *sums.values(), *stats.values())
    return _guarded(state, update, jnp.stack([jnp.isfinite(leaf).all() for leaf in watched]).all(), guard)


def _guarded(before: TrainState, update: Any, finite: jax.Array, allowed: int) -> TrainState:
    """The updated state where all of it is finite and the phase has not halted; otherwise `before`, one step on.

    `finite` is known before anything is updated, so that a branch decides and nothing is copied: it costs nothing that
    can be measured, where choosing leaf by leaf takes 8 % of a ResNet-18's step on a CPU. A norm is a sum of squares:
    where it is finite, so are the squares that an optimizer keeps.
    """
    halted_at, skipped = before.health['halted_at'], before.health['skipped']
    running = halted_at == 0
    after, fine = jax.lax.cond(finite & running, update, lambda: (before, ~running))
    skipped += ~fine
    halts = running & (skipped > allowed)
    health = {'skipped': skipped, 'halted_at': jnp.where(halts, before.step + 1, halted_at)}
    return after._replace(step=before.step + 1, health=health)


def _accumulate(
    of_part: Any,
    prepare: Any,
    weights_of: Any,
    trainable: Flat,
    stats: Flat,
    batch: Batches,
    key: jax.Array,
    count: int,
) -> tuple[Flat, dict[str, jax.Array], Flat]:
    """`of_part` over `count` microbatches, one after the other.

    Rows are dealt to them in turn, so that each device keeps its own. The weights of the whole batch come first: the
    share of each microbatch depends on them.
    """

    def deal(leaf: jax.Array) -> jax.Array:
        return leaf.reshape(-1, count, *leaf.shape[1:]).swapaxes(0, 1)

    def weigh(total: Any, at: Any) -> tuple[Any, None]:
        index, part = at
        return jax.tree.map(jnp.add, total, weights_of(part, prepare(part, jax.random.fold_in(key, index)))), None

    def add(carry: Any, at: Any) -> tuple[Any, None]:
        gradients, sums, stats = carry
        index, part = at
        own = jax.random.fold_in(key, index)
        more, news, stats = of_part(trainable, stats, part, prepare(part, own), total, own)
        return (*jax.tree.map(jnp.add, (gradients, sums), (more, news)), stats), None

    parts = jax.tree.map(deal, batch)
    total = jax.lax.scan(weigh, dict.fromkeys(batch, jnp.zeros(())), (jnp.arange(count), parts))[0]
    first = jax.tree.map(lambda leaf: leaf[0], parts)
    shapes = jax.eval_shape(of_part, trainable, stats, first, jax.eval_shape(prepare, first, key), total, key)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes[:2])
    return jax.lax.scan(add, (*zeros, stats), (jnp.arange(count), parts))[0]


def _averaged(state: TrainState, phase: Phase, trainable: Flat, stats: Flat) -> dict[str, Flat]:
    """The averages after a step; their decay rises to `phase.ema` as (1 + n) / (10 + n) over the phase's steps n."""
    if not state.ema:
        return {}
    count = state.step - phase.first
    share = 1 - jnp.minimum(phase.ema, (1 + count) / (10 + count))
    return jax.tree.map(
        lambda old, new: old + share * (new - old), state.ema, {'params': trainable, 'batch_stats': stats}
    )
