"""Where in an image the evidence for a class is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from fer_jax.data.augmentation.geometry import resize
from fer_jax.data.tasks import PRIMARY
from fer_jax.models.network import DTYPES, Network
from fer_jax.models.parameters import Variables


def grad_cam(
    network: Network, variables: Variables, images: np.ndarray, classes: np.ndarray, *, task: str = PRIMARY
) -> np.ndarray:
    """Grad-CAM (Selvaraju et al. 2017) at what enters the stage `pool`, the last map of every network here.

    Channels are weighted by the mean gradient of the class's logit, summed, and what speaks against the class is cut
    off. Where the head is `readable` this is what is above 0 of `class_maps`.

    Args:
      images: uint8 [B, H, W, C], resized to the network's size.
      classes: int [B], whose evidence is asked for.

    Returns:
      float32 [B, h, w], the resolution of the last map, 0 or more, in units of the logit per cell.
    """
    compute = functools.partial(_cam, network=network, task=task)
    return np.asarray(jax.jit(compute)(variables, images, classes))


def class_maps(network: Network, variables: Variables, images: np.ndarray) -> np.ndarray:
    """The evidence for and against every class, by place (class activation maps, Zhou et al. 2016).

    Args:
      images: uint8 [B, H, W, C], resized to the network's size.

    Returns:
      float32 [B, classes, h, w], at the resolution of the last map. Their sums and the head's bias are the logits of
      the primary task.

    Raises:
      ValueError: the head is not `readable`.
    """
    if not readable(network):
        raise ValueError(f'the head of {network.spec.name} is not linear in its last map')

    @jax.jit
    def compute(images: jax.Array) -> jax.Array:
        x = network.normalise(resize(images, network.spec.image_size)).astype(DTYPES[network.spec.dtype])
        maps = network.forward(variables, x, tell='pool')[2].astype(jnp.float32)
        kernel = variables.params[f'head.{PRIMARY}.kernel']
        return jnp.einsum('bhwc,ck->bkhw', maps, kernel) / (maps.shape[1] * maps.shape[2])

    return np.asarray(compute(images))


def explain(
    network: Network, variables: Variables, images: np.ndarray, classes: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """(as `grad_cam`, as `class_maps` where the head is `readable`): the former out of the latter where there are."""
    if not readable(network):
        return grad_cam(network, variables, images, classes), None
    maps = class_maps(network, variables, images)
    return np.maximum(maps[np.arange(len(images)), classes], 0), maps


def readable(network: Network) -> bool:
    """Whether the head is linear in the global average of the last map, and in nothing else."""
    spec = network.spec
    return list(network.stages)[-2:] == ['pool', 'head'] and spec.head == 'linear' and not spec.head_inputs


def _cam(variables: Variables, images: jax.Array, classes: jax.Array, *, network: Network, task: str) -> jax.Array:
    x = network.normalise(resize(images, network.spec.image_size)).astype(DTYPES[network.spec.dtype])
    order = list(network.stages)
    last = order[order.index('pool') - 1]

    def evidence(change: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits, _, maps = network.forward(variables, x, tell='pool', add={last: change})
        return jnp.take_along_axis(logits[task], classes[:, None], axis=1).sum(), maps

    maps = jax.eval_shape(evidence, jnp.zeros(()))[1]
    slopes, maps = jax.grad(evidence, has_aux=True)(jnp.zeros(maps.shape, maps.dtype))
    weights = slopes.astype(jnp.float32).mean((1, 2), keepdims=True)
    return jax.nn.relu(jnp.sum(weights * maps.astype(jnp.float32), -1))
