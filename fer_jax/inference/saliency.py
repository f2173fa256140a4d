"""Occlusion maps: how much a class loses where a part of the image is hidden."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fer_jax.data.augmentation.geometry import resize
from fer_jax.data.tasks import PRIMARY
from fer_jax.models.network import Network
from fer_jax.models.parameters import Variables

CELLS = 8  # a side of a map
PATCH_CELLS = 2  # a side of what is hidden at once
REMOVED_SHARE = 0.2  # of the cells, in the deletion test
RANDOM_PLACES = 8  # of as many cells, for comparison


HiddenLogits = Callable[[Variables, np.ndarray, np.ndarray], jax.Array]


class Explanation(NamedTuple):
    """Occlusion maps of images, and the result of the deletion test.

    Attributes:
      heats: float32 [B, CELLS, CELLS], the decrease of the log-probability of the given class.
      maps: float32 [B, classes, CELLS, CELLS], the decrease of each logit.
      removed: float32 [B], the decrease of the log-probability when the most important fifth of the image is hidden.
      removed_at_random: float32 [B], the mean decrease when a part of the same shape is hidden at random places.
    """

    heats: np.ndarray
    maps: np.ndarray
    removed: np.ndarray
    removed_at_random: np.ndarray


def compile_hidden_logits(network: Network, task: str = PRIMARY) -> HiddenLogits:
    """Returns a jitted function of (variables, images, masks), for calls of `explain` with images of one shape.

    Args:
      network: the network.
      task: name of the task whose head is explained.
    """
    return jax.jit(functools.partial(_hide, network=network, task=task))


def explain(
    network: Network,
    variables: Variables,
    images: np.ndarray,
    classes: np.ndarray,
    *,
    hidden_logits: HiddenLogits | None = None,
) -> Explanation:
    """Computes occlusion maps (Zeiler and Fergus 2014), and tests them by deletion (Petsiuk et al. 2018).

    A patch of 2 x 2 of 8 x 8 cells is replaced by the mean colour of the image. The value of a cell is the mean over
    the patches that cover it. The maps have the same resolution for every image size and network. The last feature map
    of a network has few cells for small images, and its cells are not centred on the image parts over which they are
    drawn.

    Args:
      network: the network.
      variables: see `Network.forward`.
      images: uint8 [B, H, W, C]; they are resized to the network's size.
      classes: int [B], the class of each image that is explained.
      hidden_logits: see `compile_hidden_logits`; None compiles a program for this call.
    """
    compute = hidden_logits or compile_hidden_logits(network)
    patches = _patches()
    everywhere = np.broadcast_to(patches[:, None], (len(patches), len(images), CELLS, CELLS))
    none = np.zeros((1, len(images), CELLS, CELLS), bool)
    logits = np.asarray(compute(variables, images, np.concatenate([none, everywhere])))
    of_class = functools.partial(_log_probability, classes=classes, activation=network.spec.activation)
    before = of_class(logits[0])
    covered = patches.sum(0)
    heats = np.einsum('pb,pij->bij', before - of_class(logits[1:]), patches) / covered
    maps = np.einsum('pbc,pij->bcij', logits[0] - logits[1:], patches) / covered
    hidden = np.asarray(compute(variables, images, deletion_masks(heats)))
    losses = before - of_class(hidden)
    return Explanation(heats.astype(np.float32), maps.astype(np.float32), losses[0], losses[1:].mean(0))


def deletion_masks(heats: np.ndarray) -> np.ndarray:
    """Returns masks of the most important cells, and masks of the same arrangement shifted to random places.

    Args:
      heats: float [B, CELLS, CELLS].

    Returns:
      bool [1 + RANDOM_PLACES, B, CELLS, CELLS]; equal `heats` give equal masks.
    """
    count = round(REMOVED_SHARE * CELLS**2)
    order = np.argsort(-heats.reshape(len(heats), -1), axis=1, kind='stable')
    flat = np.zeros((len(heats), CELLS**2), bool)
    np.put_along_axis(flat, order[:, :count], True, axis=1)
    masks = flat.reshape(heats.shape)
    generator = np.random.default_rng(0)
    shifts = generator.integers(1, CELLS, (RANDOM_PLACES, 2))
    return np.stack([masks, *(np.roll(masks, shift, (1, 2)) for shift in shifts)])


def readable(network: Network) -> bool:
    """Returns whether the head is a linear function of the global average of the last feature map alone."""
    spec = network.spec
    return list(network.stages)[-2:] == ['pool', 'head'] and spec.head == 'linear' and not spec.head_inputs


def _patches() -> np.ndarray:
    """bool [P, CELLS, CELLS]: the cells of each patch."""
    starts = np.arange(CELLS - PATCH_CELLS + 1)
    inside = (np.arange(CELLS) >= starts[:, None]) & (np.arange(CELLS) < starts[:, None] + PATCH_CELLS)
    return (inside[:, None, :, None] & inside[None, :, None, :]).reshape(-1, CELLS, CELLS)


def _hide(variables: Variables, images: jax.Array, masks: jax.Array, *, network: Network, task: str) -> jax.Array:
    """Logits float32 [M, B, classes] of images whose cells are hidden by bool [M, B, CELLS, CELLS]."""
    size = network.spec.image_size
    pixels = resize(images, size)
    colour = pixels.mean((1, 2), keepdims=True)
    edges = np.rint(np.linspace(0, size, CELLS + 1))  # symmetric about the middle
    cell = np.searchsorted(edges, np.arange(size), side='right') - 1

    def logits(mask: jax.Array) -> jax.Array:
        hidden = mask[:, cell][:, :, cell][..., None]
        x = network.normalise(jnp.where(hidden, colour, pixels))
        return network.forward(variables, x)[0][task].astype(jnp.float32)

    return jax.lax.map(logits, masks)


def _log_probability(logits: np.ndarray, *, classes: np.ndarray, activation: str) -> np.ndarray:
    """float64 [..., B] of logits [..., B, C]."""
    from scipy.special import log_expit, log_softmax

    wide = logits.astype(np.float64)
    every = log_expit(wide) if activation == 'sigmoid' else log_softmax(wide, axis=-1)
    return every[..., np.arange(len(classes)), classes]
