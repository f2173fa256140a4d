"""The evaluation step: a pure function from a batch to logits."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from fer_jax.data.tasks import PRIMARY
from fer_jax.inference.tta import views
from fer_jax.models.network import DTYPES, Network
from fer_jax.models.parameters import Variables


def eval_step(
    variables: Variables,
    batch: Mapping[str, Any],
    *,
    network: Network,
    start: str | None = None,
    task: str = PRIMARY,
    tta: str = 'none',
) -> jax.Array:
    """Computes the logits of one task's head.

    Args:
      variables: see `Network.forward`.
      batch: 'x' and 'id', see `data.loading.loader.assemble_batch`; images are resized with antialiasing.
      network: the network.
      start: the stage that takes 'x' as its input, where 'x' holds cached features; None where it holds images.
      task: name of the task whose head is used.
      tta: views of each image, see `views`; ignored where `start` is given.

    Returns:
      float32 [B, classes]: the logits of a single view, or the logits of the mean probabilities of several views.
    """
    x = batch['x']
    seen = [x] if start is not None else views(x, batch['id'], network.spec.image_size, tta)
    if start is None:
        seen = [network.normalise(view) for view in seen]
    entering = jnp.concatenate(seen) if len(seen) > 1 else seen[0]
    logits = network.forward(variables, entering.astype(DTYPES[network.spec.dtype]), start=start)[0][task]
    if len(seen) == 1:
        return logits
    each = logits.reshape(len(seen), -1, logits.shape[-1])
    if network.spec.activation == 'sigmoid':
        present, absent = (jax.nn.logsumexp(jax.nn.log_sigmoid(sign * each), 0) for sign in (1, -1))
        return present - absent
    return jax.nn.logsumexp(jax.nn.log_softmax(each), 0) - jnp.log(len(seen))
