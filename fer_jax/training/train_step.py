"""The training step, from a batch to an update: pure functions over explicit trees, in the order in which they run."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fer_jax.data.augmentation.augment import augment_batch, example_keys
from fer_jax.data.loading.loader import assemble_batch
from fer_jax.data.tasks import PRIMARY
from fer_jax.models.network import DTYPES, Network
from fer_jax.models.parameters import Flat, Variables
from fer_jax.training.auxiliary_losses import attention_consistency, coral, distillation
from fer_jax.training.losses import squared_error
from fer_jax.training.objectives import HINTS, Objective
from fer_jax.training.phases import Phase
from fer_jax.training.train_state import FrozenState, TrainState

Batches = Mapping[str, Mapping[str, Any]]  # {task: {'x', 'y', 'weight', ...}}


@dataclass(frozen=True)
class StepProgram:
    """The settings of a step that are known when it is compiled.

    Attributes:
      objectives: of each task, the primary one first.
      guard: how many steps may have an update that is not finite; such an update is not kept, and after one more no
        other is. None keeps everything.
    """

    network: Network
    phase: Phase
    objectives: Mapping[str, Objective]
    seed: int
    guard: int | None = None

    @property
    def start(self) -> str | None:
        """The stage that cached features enter; None for images."""
        return None if self.phase.features is None else self.phase.partition.boundary


class Gradients(NamedTuple):
    """The result of the backward pass over a batch.

    Attributes:
      gradients: of the trainable parameters.
      sums: float32 scalars '<task>/loss' and '<task>/correct'.
      batch_stats: BatchNorm statistics after the forward pass.
    """

    gradients: Flat
    sums: dict[str, jax.Array]
    batch_stats: Flat


def train_step(
    state: TrainState, fixed: FrozenState, device_data: Batches, host: Batches, *, program: StepProgram
) -> TrainState:
    """Takes one step on the whole batch of every task, across all devices.

    Everything random comes from (seed, step, microbatch, task, position). Only `state.trainable` is differentiated, so
    that no gradient of a frozen parameter exists and stages below the phase's boundary have no backward pass. The
    images of all tasks go through the network as one batch, over which BatchNorm takes its statistics.

    Args:
      device_data, host: the two halves of each task's batch, see `data.loading.loader`.
    """
    batch = {task: assemble_batch(device_data[task], host[task]) for task in program.objectives}
    key = jax.random.fold_in(jax.random.key(program.seed), state.step)
    gradients_at = functools.partial(
        compute_gradients, fixed=fixed, batch_stats=state.batch_stats, batch=batch, key=key, program=program
    )
    computed = gradients_at(state.trainable)
    norm = optax.tree.norm(computed.gradients)
    counts = {f'{task}/examples': len(part['weight']) for task, part in batch.items()}
    sums = {'gradient_norm': norm, 'steps': 1, **counts, **computed.sums}
    update = functools.partial(apply_update, state, computed, sums, gradients_at, program)
    if program.guard is None:
        return update()[0]
    watched = (norm, *computed.sums.values(), *computed.batch_stats.values())
    finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in watched]).all()
    return skip_nonfinite(state, update, finite, program.guard)


def compute_gradients(
    trainable: Flat, *, fixed: FrozenState, batch_stats: Flat, batch: Batches, key: jax.Array, program: StepProgram
) -> Gradients:
    """Computes the gradients over the whole batch, at once or in microbatches, and adds those of L2-SP."""
    if program.phase.accumulate == 1:
        inputs = prepare_inputs(batch, key, program)
        weights = sum_weights(inputs, program)
        computed = differentiate(trainable, fixed.frozen, batch_stats, inputs, weights, key, program)
    else:
        computed = accumulate_gradients(trainable, fixed.frozen, batch_stats, batch, key, program)
    pulled = {path: program.phase.l2_sp * (trainable[path] - leaf) for path, leaf in fixed.source.items()}
    return computed._replace(gradients={path: leaf + pulled.get(path, 0) for path, leaf in computed.gradients.items()})


def accumulate_gradients(
    trainable: Flat, frozen: Flat, batch_stats: Flat, batch: Batches, key: jax.Array, program: StepProgram
) -> Gradients:
    """Computes the sum of the gradients of the phase's microbatches, one after the other.

    Rows are assigned to microbatches in turn, so that each device keeps its own. The weights of the whole batch are
    summed first: the share of each microbatch depends on them.
    """
    count = program.phase.accumulate

    def deal(leaf: jax.Array) -> jax.Array:
        return leaf.reshape(-1, count, *leaf.shape[1:]).swapaxes(0, 1)

    def weigh(total: Any, item: tuple[jax.Array, Batches]) -> tuple[Any, None]:
        index, part = item
        inputs = prepare_inputs(part, jax.random.fold_in(key, index), program)
        return jax.tree.map(jnp.add, total, sum_weights(inputs, program)), None

    def of_part(batch_stats: Flat, index: jax.Array, part: Batches) -> Gradients:
        own_key = jax.random.fold_in(key, index)
        inputs = prepare_inputs(part, own_key, program)
        return differentiate(trainable, frozen, batch_stats, inputs, weights, own_key, program)

    def add(carry: Gradients, item: tuple[jax.Array, Batches]) -> tuple[Gradients, None]:
        more = of_part(carry.batch_stats, *item)
        gradients, sums = jax.tree.map(jnp.add, carry[:2], more[:2])
        return Gradients(gradients, sums, more.batch_stats), None

    parts = jax.tree.map(deal, batch)
    weights = jax.lax.scan(weigh, dict.fromkeys(batch, jnp.zeros(())), (jnp.arange(count), parts))[0]
    shapes = jax.eval_shape(of_part, batch_stats, 0, jax.tree.map(lambda leaf: leaf[0], parts))
    gradients, sums = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes[:2])
    return jax.lax.scan(add, Gradients(gradients, sums, batch_stats), (jnp.arange(count), parts))[0]


def prepare_inputs(batch: Batches, key: jax.Array, program: StepProgram) -> dict[str, dict[str, Any]]:
    """Draws targets, augments and normalises images; cached features are only cast, and their targets drawn.

    Returns:
      The batch, with 'x' the network's input, float [B, H, W, C], and 'y' the targets, labels [B] or distributions
      [B, C].
    """
    phase, network = program.phase, program.network
    prepared = {}
    for index, (task, objective) in enumerate(program.objectives.items()):
        images_key, _, target_key = jax.random.split(jax.random.fold_in(key, index) if index else key, 3)
        x, targets = batch[task]['x'], batch[task]['y']
        if objective.draw_targets:
            keys = example_keys(target_key, targets.shape[0])
            targets = jax.vmap(jax.random.categorical)(keys, jnp.log(targets))
        if program.start is None:
            classes = len(network.spec.classes[objective.head])
            x, targets = augment_batch(
                x, targets, images_key, size=phase.image_size, classes=classes, settings=phase.augment
            )
            x = network.normalise(x)
        else:
            x = x.astype(DTYPES[network.spec.dtype])
        prepared[task] = {**batch[task], 'x': x, 'y': targets}
    return prepared


def sum_weights(inputs: Batches, program: StepProgram) -> dict[str, jax.Array]:
    """Computes the sum of the weights of each task's examples, which does not depend on the logits."""
    sums = {}
    for task, objective in program.objectives.items():
        weight = inputs[task]['weight']
        if objective.loss is not None:
            blank = jnp.zeros((len(weight), len(program.network.spec.classes[objective.head])))
            weight = weight * objective.loss(blank, inputs[task]['y'])[1]
        sums[task] = jnp.sum(weight)
    return sums


def differentiate(
    trainable: Flat,
    frozen: Flat,
    batch_stats: Flat,
    inputs: Batches,
    weights: Mapping[str, jax.Array],
    key: jax.Array,
    program: StepProgram,
) -> Gradients:
    """Computes the gradients of `compute_loss` on one microbatch with respect to the trainable parameters."""
    gradients, (sums, batch_stats) = jax.grad(compute_loss, has_aux=True)(
        trainable, frozen, batch_stats, inputs, weights, key, program
    )
    return Gradients(gradients, sums, batch_stats)


def compute_loss(
    trainable: Flat,
    frozen: Flat,
    batch_stats: Flat,
    inputs: Batches,
    weights: Mapping[str, jax.Array],
    key: jax.Array,
    program: StepProgram,
) -> tuple[jax.Array, tuple[dict[str, jax.Array], Flat]]:
    """Runs the network on one microbatch and computes the sum of the tasks' objectives.

    Args:
      weights: {task: sum of the weights of the whole batch}, by which the microbatch's losses are divided.

    Returns:
      (objective, (the microbatch's part of `Gradients.sums`, BatchNorm statistics after it)).
    """
    phase, consistency = program.phase, program.objectives[PRIMARY].consistency
    params, rows = trainable | frozen, row_slices(inputs)
    images = [part['x'] for part in inputs.values()]
    if consistency:
        images.append(images[0][:, :, ::-1])
    logits, batch_stats, entered = program.network.forward(
        Variables(params, batch_stats),
        jnp.concatenate(images) if len(images) > 1 else images[0],
        start=program.start,
        train=phase.partition.stages,
        frozen_norms=phase.frozen_norms,
        key=jax.random.split(key, 3)[1],
        tell='pool' if consistency else 'head',
    )
    value = jnp.zeros(())
    sums: dict[str, jax.Array] = {}
    if consistency:
        mirrored = entered[-len(images[0]) :]
        apart = attention_consistency(entered[rows[PRIMARY]], mirrored, params[f'head.{PRIMARY}.kernel'])
        value += consistency * apart / phase.accumulate
        entered = entered.mean((1, 2))
    for task, objective in program.objectives.items():
        if objective.align:
            apart = coral(entered[rows[PRIMARY]], entered[rows[task]]) / phase.accumulate
            value += objective.align * apart
        if objective.loss is None:
            sums |= {f'{task}/loss': apart, f'{task}/correct': jnp.zeros(())}
            continue
        own = {head: every[rows[task]] for head, every in logits.items()}
        losses, correct = example_losses(objective, own, inputs[task])
        loss = jnp.sum(losses * inputs[task]['weight']) / weights[task]
        value += objective.weight * loss
        sums |= {f'{task}/loss': loss, f'{task}/correct': correct}
    return value, (sums, batch_stats)


def row_slices(inputs: Batches) -> dict[str, slice]:
    """Returns {task: slice of its rows in the concatenated batch of all tasks}."""
    rows, end = {}, 0
    for task, part in inputs.items():
        rows[task] = slice(end, end + len(part['x']))
        end = rows[task].stop
    return rows


def example_losses(
    objective: Objective, logits: Mapping[str, jax.Array], inputs: Mapping[str, Any]
) -> tuple[jax.Array, jax.Array]:
    """Computes a task's weighted losses, float32 [B], and the number of correct examples, a scalar."""
    student, targets = logits[objective.head], inputs['y']
    losses, weights = objective.loss(student, targets)  # type: ignore[misc]
    if teaching := objective.teaching:
        taught = distillation(student, inputs['probabilities'], teaching.temperature)
        losses = (1 - teaching.weight) * losses + teaching.weight * taught
        if teaching.hints:
            losses += teaching.hints * squared_error(logits[HINTS], inputs[HINTS])[0]
    return losses * weights, jnp.zeros(()) if objective.hits is None else jnp.sum(objective.hits(student, targets))


def apply_update(
    state: TrainState,
    computed: Gradients,
    sums: Mapping[str, Any],
    gradients_at: Callable[[Flat], Gradients],
    program: StepProgram,
) -> tuple[TrainState, jax.Array]:
    """Updates the trainable parameters with the optimizer.

    Args:
      sums: values that the step adds to `TrainState.sums`.
      gradients_at: trainable parameters -> `compute_gradients` on the same batch, for SAM.

    Returns:
      (the state after this step, or before it where SAM's second gradient is not finite; whether it is finite).
    """
    phase = program.phase
    uphill_norms: list[jax.Array] = []

    def uphill(trainable: Flat, _: int) -> Flat:
        again = gradients_at(trainable).gradients
        uphill_norms.append(optax.tree.norm(again))
        return again

    updates, opt_state = optax.with_extra_args_support(phase.tx).update(
        computed.gradients, state.opt_state, state.trainable, grad_fn=uphill
    )
    trainable = optax.apply_updates(state.trainable, {path: state.scale * leaf for path, leaf in updates.items()})
    after = TrainState(
        step=state.step + 1,
        trainable=trainable,
        batch_stats=computed.batch_stats,
        opt_state=opt_state,
        sums={name: total + sums[name] for name, total in state.sums.items()},
        scale=state.scale,
        health=state.health,
        ema=update_averages(state, trainable, computed.batch_stats, phase),
    )
    if not uphill_norms or program.guard is None:
        return after, jnp.asarray(True)
    finite = jnp.isfinite(uphill_norms[0])
    return jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, state), finite


def update_averages(state: TrainState, trainable: Flat, batch_stats: Flat, phase: Phase) -> dict[str, Flat]:
    """Updates the moving averages; their decay rises to `phase.ema` as (1 + n) / (10 + n) over the phase's steps n."""
    if not state.ema:
        return {}
    count = state.step - phase.first
    share = 1 - jnp.minimum(phase.ema, (1 + count) / (10 + count))
    return jax.tree.map(
        lambda old, new: old + share * (new - old), state.ema, {'params': trainable, 'batch_stats': batch_stats}
    )


def skip_nonfinite(
    before: TrainState, update: Callable[[], tuple[TrainState, jax.Array]], finite: jax.Array, allowed: int
) -> TrainState:
    """Updates the state where the gradients are finite and the phase has not halted; otherwise only counts the step.

    `finite` is known before anything is updated, so that a branch decides and nothing is copied: it costs nothing that
    can be measured, where choosing leaf by leaf takes 8 % of a ResNet-18's step on a CPU. A norm is a sum of squares:
    where it is finite, so are the squares that an optimizer keeps.
    """
    halted_at, skipped = before.health['halted_at'], before.health['skipped']
    running = halted_at == 0
    after, kept = jax.lax.cond(finite & running, update, lambda: (before, ~running))
    skipped += ~kept
    halts = running & (skipped > allowed)
    health = {'skipped': skipped, 'halted_at': jnp.where(halts, before.step + 1, halted_at)}
    return after._replace(step=before.step + 1, health=health)
