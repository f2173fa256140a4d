"""The training and the evaluation step: pure functions over explicit trees."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from fer_jax.data.augment import Augment, augment_batch, example_keys
from fer_jax.data.feed import gather
from fer_jax.data.geometry import resize
from fer_jax.losses import Loss
from fer_jax.network import PRIMARY, Network
from fer_jax.partition import Flat, Partition
from fer_jax.train_state import TrainState


def train_step(
    state: TrainState,
    frozen: Flat,
    resident: Mapping[str, Any],
    host: Mapping[str, Any],
    *,
    network: Network,
    partition: Partition,
    loss: Loss,
    tx: optax.GradientTransformation,
    settings: Augment,
    image_size: int,
    seed: int,
    draw_targets: bool = False,
) -> TrainState:
    """One step on the whole batch, on however many devices it is spread.

    Everything random comes from (seed, step, position in the batch). Only `state.trainable` is differentiated, so that
    no gradient of a frozen parameter exists and stages below `partition.boundary` have no backward pass.

    Args:
      frozen: the parameters with rate 0.
      resident, host: the two halves of a batch, see `data.feed`.
      image_size: side of the images, in pixels.
      loss: (logits [B, C], labels [B] or distributions [B, C]) -> per-example loss [B] and weight [B].
      draw_targets: each example's label is drawn from its distribution, anew at every step.
    """
    batch = gather(resident, host)
    key = jax.random.fold_in(jax.random.key(seed), state.step)
    augment_key, dropout_key, target_key = jax.random.split(key, 3)
    targets = batch['y']
    if draw_targets:
        targets = jax.vmap(jax.random.categorical)(example_keys(target_key, targets.shape[0]), jnp.log(targets))
    images, targets = augment_batch(
        batch['x'],
        targets,
        augment_key,
        size=image_size,
        classes=len(network.spec.classes[PRIMARY]),
        settings=settings,
    )
    labels = targets if targets.ndim == 1 else jnp.argmax(targets, -1)
    x = network.normalise(images)

    def objective(trainable: Flat) -> tuple[jax.Array, tuple[jax.Array, Flat]]:
        logits, stats = network.forward(
            trainable | frozen, state.batch_stats, x, train=partition.stages, key=dropout_key
        )
        losses, weights = loss(logits[PRIMARY], targets)
        weights *= batch['weight']
        value = jnp.sum(losses * weights) / jnp.sum(weights)
        return value, (logits[PRIMARY], stats)

    (value, (logits, stats)), gradients = jax.value_and_grad(objective, has_aux=True)(state.trainable)
    updates, opt_state = tx.update(gradients, state.opt_state, state.trainable)
    correct = jnp.sum(jnp.argmax(logits, -1) == labels)
    news = {'loss': value, 'correct': correct, 'weight': labels.shape[0], 'steps': 1}
    return TrainState(
        step=state.step + 1,
        trainable=optax.apply_updates(state.trainable, updates),
        batch_stats=stats,
        opt_state=opt_state,
        sums={name: total + news[name] for name, total in state.sums.items()},
    )


def eval_step(
    params: Flat, batch_stats: Flat, resident: Mapping[str, Any], host: Mapping[str, Any], *, network: Network
) -> jax.Array:
    """Logits float32 [B, classes] of the primary task, images resized with antialiasing and otherwise as they are."""
    images = resize(gather(resident, host)['x'], network.spec.image_size)
    logits, _ = network.forward(params, batch_stats, network.normalise(images))
    return logits[PRIMARY]
