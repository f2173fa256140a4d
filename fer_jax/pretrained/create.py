"""Networks by name, with fresh or with published parameters."""

from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from fer_jax.errors import UserError
from fer_jax.models import registry
from fer_jax.models.parameters import Variables, merge_module, split_module
from fer_jax.pretrained.locate import resolve
from fer_jax.pretrained.transfer import fill, fresh_prefixes
from fer_jax.utils import cache


def create_model(
    name: str,
    *,
    classes: int | Mapping[str, int] | None = None,
    weights: str = 'scratch',
    rngs: nnx.Rngs | None = None,
    **options: Any,
) -> Any:
    """Creates a network that can be called, run stage by stage, and given another head.

        network = fer_jax.create_model('resnet50', classes=7, weights='imagenet')
        logits = network(network.preprocessing.normalise(images))['primary']

    Args:
      name: one of `models.NAMES`.
      classes: outputs of each task's head, which is fresh; a number means {'primary': number}; None keeps the head of
        the weights.
      weights: 'scratch', or a value of `model.weights`: 'imagenet', another of `pretrained.published_weights.KNOWN`, or
        a converted file.
      rngs: of the fresh parameters; seed 0 if None.
      options: channels, head, dropout, stochastic_depth, dtype, kernels: see `registry.create`.

    Returns:
      A module. `network(x)` is {task: logits, float32 [B, classes]} of x, float [B, H, W, channels], normalised;
      `network.stages` is the ordered table, stage -> parameter-path prefixes; `network.stage(name, x, train=, key=)`
      applies one, and `models.run` a range of them; `network.preprocessing` is the preprocessing of the weights, None
      from scratch.

    Raises:
      UserError: an argument is unknown, or the weights cannot be found or do not fit.
    """
    rngs = rngs or nnx.Rngs(0)
    if weights == 'scratch':
        if classes is None:
            raise UserError("classes=None keeps the head of the weights, of which weights='scratch' has none")
        return registry.create(name, classes=classes, rngs=rngs, **options)
    source = resolve(weights, name, cache=cache.root())
    keep = classes is None
    if keep and 'classes' not in source.metadata:
        raise UserError(f'classes=None keeps the head of the weights, of which {weights!r} has none; give their number')
    count = int(source.metadata['classes']) if classes is None else classes
    key = rngs.params()

    def make(key: jax.Array) -> Any:
        return registry.create(name, classes=count, rngs=nnx.Rngs(key), **options)

    graphdef, (params, stats) = split_module(nnx.eval_shape(lambda: make(key)))
    if not keep:
        prefixes = fresh_prefixes(params, source)
        params |= jax.jit(lambda key: _select(split_module(make(key))[1].params, prefixes))(key)
    network = merge_module(graphdef, fill(Variables(params, stats), source, head=keep))
    network.preprocessing = source.preprocessing
    return network


def _select(params: Mapping[str, Any], prefixes: tuple[str, ...]) -> dict[str, Any]:
    return {path: leaf for path, leaf in params.items() if path.startswith(prefixes)}
