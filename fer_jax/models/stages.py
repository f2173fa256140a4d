"""Running a network as a table of stages."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from fer_jax.errors import UserError


class Staged(nnx.Module):
    """A network made of stages.

    It has `stages`, an ordered table of parameter-path prefixes, and `stage(name, x, *, train, key)`. `preprocessing`
    is that of the weights which `models.create` loaded. `inputs` are the stages whose globally averaged and
    concatenated outputs the head reads; if there are none it reads the output of the last stage.
    """

    preprocessing: Any = None
    inputs: tuple[str, ...] = ()

    def __call__(self, x: jax.Array, *, train: Collection[str] = (), key: jax.Array | None = None) -> Any:
        """Applies all stages to x, float [B, H, W, C], normalised; see `run`.

        Returns:
          Logits {task: float32 [B, classes]}.
        """
        return run(self, x, train=train, key=key)


def run(
    model: Any,
    x: jax.Array,
    *,
    start: str | None = None,
    stop: str | None = None,
    train: Collection[str] = (),
    key: jax.Array | None = None,
    seen: dict[str, jax.Array] | None = None,
    add: Mapping[str, jax.Array] | None = None,
    remat: Collection[str] = (),
) -> Any:
    """Applies the stages from `start` up to, not including, `stop`.

    Args:
      model: has `stages`, an ordered table, and `stage(name, x, train=, key=)`.
      x: float [B, H, W, C], normalised, or the activations that enter `start`.
      start: the first stage if None.
      stop: None to apply all stages and return logits.
      train: names of the stages that run in training mode.
      key: of dropout; every stage draws from its own fold of it.
      seen: is filled with the input of each stage.
      add: is added to the outputs of these stages, for derivatives with respect to it.
      remat: stages that are rematerialised: the backward pass keeps their inputs and computes the rest again.

    Returns:
      The activations that enter `stop`, or logits {task: float32 [B, classes]}.

    Raises:
      ValueError: `start`, `stop` or one of `train` is not a stage.
      UserError: the images are smaller than the network admits.
    """
    names = list(model.stages)
    for name in (*filter(None, (start, stop)), *train):
        if name not in names:
            raise ValueError(f'{name!r} is not a stage; there are {", ".join(names)}')
    first = names.index(start) if start else 0
    last = names.index(stop) if stop else len(names)
    if first == 0:
        check_size(type(model), min(x.shape[1:3]))
    read: list[jax.Array] = []
    for index in range(first, last):
        name = names[index]
        stage_key = None if key is None else jax.random.fold_in(key, index)
        if name == 'head' and first < index and model.inputs:
            x = jnp.concatenate(read, -1)
        if seen is not None:
            seen[name] = x
        apply = _applied(name, name in train)
        x = (nnx.remat(apply) if name in remat else apply)(model, x, stage_key)
        if add and name in add:
            x = x + add[name]
        if name in model.inputs:
            read.append(x.mean((1, 2)) if x.ndim == 4 else x)
    return jnp.concatenate(read, -1) if stop == 'head' and first < last and model.inputs else x


def _applied(name: str, train: bool) -> Callable[[Any, jax.Array, jax.Array | None], Any]:
    return lambda model, x, key: model.stage(name, x, train=train, key=key)


def read_all(network: Any, stages: tuple[str, ...], channels: int) -> int:
    """Sets the stages that the head reads and returns the total number of their features.

    Raises:
      UserError: one of them is not a stage below the head, or is named twice.
    """
    below = list(network.stages)[:-1]
    if unknown := [stage for stage in stages if stage not in below]:
        raise UserError(f'model.head_inputs={stages}: {", ".join(unknown)} unknown; choose of {", ".join(below)}')
    if twice := sorted({stage for stage in stages if stages.count(stage) > 1}):
        raise UserError(f'model.head_inputs={stages}: {", ".join(twice)} named twice; name each stage once')
    network.inputs = tuple(sorted(stages, key=below.index))
    side = max(64, getattr(type(network), 'min_size', 1))
    graphdef, state = nnx.split(network)
    entering = jax.eval_shape(
        lambda state, x: run(nnx.merge(graphdef, state, copy=True), x, stop='head'),
        state,
        jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32),
    )
    return entering.shape[-1]


def check_size(network: type, side: int) -> None:
    """Checks that images of `side` pixels are not smaller than a network's `min_size`, if it has one.

    Raises:
      UserError: they are.
    """
    smallest = getattr(network, 'min_size', 1)
    if side < smallest:
        raise UserError(
            f'images of {side} pixels are too small for {network.__name__}, whose layers would leave nothing of them; '
            f'expected {smallest} or more: set model.image_size to that, or choose another network'
        )
