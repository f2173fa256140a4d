"""Losses beside that of the labels: of features, of attention, of what teachers say."""

import jax
import jax.numpy as jnp

from fer_jax.training.losses import kl_divergence


def coral(source: jax.Array, target: jax.Array) -> jax.Array:
    """Computes the CORAL distance between the covariances of two batches (Sun and Saenko 2016).

    Args:
      source, target: float [N, ..., D] and [M, ..., D], N and M of 2 or more; the axes in between are averaged.

    Returns:
      float32 scalar: the squared Frobenius distance of the covariance matrices, divided by 4 D^2.
    """

    def covariance(rows: jax.Array) -> jax.Array:
        rows = rows.astype(jnp.float32)
        rows = rows.mean(range(1, rows.ndim - 1))
        rows -= rows.mean(0)
        return rows.T @ rows / (len(rows) - 1)

    return jnp.sum(jnp.square(covariance(source) - covariance(target))) / (4 * source.shape[-1] ** 2)


def distillation(logits: jax.Array, probabilities: jax.Array, temperature: float) -> jax.Array:
    """Computes the distillation loss: T^2 KL(teacher || softmax(logits / T)) (Hinton et al. 2015).

    Args:
      logits: float [B, C] of the student.
      probabilities: float [B, C], softmax of the teacher's logits / T.
      temperature: T, above 0.

    Returns:
      float32 [B], the loss of each example.
    """
    return temperature**2 * kl_divergence(logits.astype(jnp.float32) / temperature, probabilities)[0]


def attention_consistency(maps: jax.Array, mirrored: jax.Array, kernel: jax.Array) -> jax.Array:
    """Computes the mean squared difference between the class activation maps of images and of their mirror images.

    This is Erasing Attention Consistency (Zhang et al. 2022, equation 4): features memorised from a wrong label appear
    in only one of the two maps. The mirror images' maps are mirrored back before the comparison. As in the authors'
    code, no gradient flows into the head's kernel.

    Args:
      maps, mirrored: float [B, H, W, C], the inputs of the global average pool for the images and their mirror images.
      kernel: float [C, classes] of the linear head.

    Returns:
      float32 scalar.
    """
    apart = maps.astype(jnp.float32) - mirrored[:, :, ::-1].astype(jnp.float32)
    return jnp.mean(jnp.square(apart @ jax.lax.stop_gradient(kernel)))
