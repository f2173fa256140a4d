"""Losses beside that of the labels: of features, of attention, of what teachers say."""

import jax
import jax.numpy as jnp

from fer_jax.training.losses import kl_divergence


def coral(source: jax.Array, target: jax.Array) -> jax.Array:
    """How far apart the second-order statistics of two batches are (Sun and Saenko 2016).

    Args:
      source, target: [N, ..., D] and [M, ..., D], N and M of 2 or more; what lies between is averaged.

    Returns:
      The squared Frobenius distance of their covariance matrices over 4 D^2, float32.
    """

    def covariance(rows: jax.Array) -> jax.Array:
        rows = rows.astype(jnp.float32)
        rows = rows.mean(range(1, rows.ndim - 1))
        rows -= rows.mean(0)
        return rows.T @ rows / (len(rows) - 1)

    return jnp.sum(jnp.square(covariance(source) - covariance(target))) / (4 * source.shape[-1] ** 2)


def distillation(logits: jax.Array, probabilities: jax.Array, temperature: float) -> jax.Array:
    """T^2 times the KL divergence of softmax(logits / T) from a teacher's (Hinton et al. 2015), float32 [B].

    Args:
      logits: [B, C].
      shares: float [B, C], softmax of the teacher's logits / T.
    """
    return temperature**2 * kl_divergence(logits.astype(jnp.float32) / temperature, probabilities)[0]


def attention_consistency(maps: jax.Array, mirrored: jax.Array, kernel: jax.Array) -> jax.Array:
    """Mean squared difference of the class activation maps of images and of their mirror images, mirrored back.

    Erasing Attention Consistency (Zhang et al. 2022, equation 4): what a network memorises of a wrong label it finds in
    one of the two alone. As in the authors' code the head's kernel is a constant here.

    Args:
      maps, mirrored: [B, H, W, C], what enters the global average of the images and of their mirror images.
      kernel: [C, classes] of the linear head.
    """
    apart = maps.astype(jnp.float32) - mirrored[:, :, ::-1].astype(jnp.float32)
    return jnp.mean(jnp.square(apart @ jax.lax.stop_gradient(kernel)))
