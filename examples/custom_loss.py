"""Train with a loss of your own: python custom_loss.py data runs/poly

Poly-1 (Leng et al. 2022) adds epsilon (1 - p) to the cross-entropy, where p is the probability of the label.
"""

import sys

import jax
import jax.numpy as jnp

import fer_jax

EPSILON = 2.0


def poly_1(logits: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Computes the Poly-1 loss.

    Args:
      logits: [B, C].
      targets: int [B] labels, or float [B, C] distributions.

    Returns:
      (loss [B], weight [B]); fer_jax takes the weighted mean over the batch.
    """
    if targets.ndim == 1:
        targets = jax.nn.one_hot(targets, logits.shape[-1])
    log_probabilities = jax.nn.log_softmax(logits)
    cross_entropy = -jnp.sum(targets * log_probabilities, -1)
    loss = cross_entropy + EPSILON * jnp.sum(targets * (1 - jnp.exp(log_probabilities)), -1)
    return loss, jnp.ones_like(loss)


data, workdir = sys.argv[1:]
fer_jax.register_loss('poly_1', poly_1)
config = fer_jax.get_config('quickstart')
config.data.dir = data
config.loss.name = 'poly_1'
results = fer_jax.train(config, workdir)
print(results['splits']['test']['accuracy'])
