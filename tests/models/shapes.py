"""Networks of shapes alone, each made once for all tests of a process."""

import functools
from typing import Any

from flax import nnx

from fer_jax import models
from fer_jax.models.parameters import flatten


@functools.cache
def shapes_of(name: str, classes: int = 7, **options: Any) -> Any:
    """Return the network `name` with abstract parameters; not to be written to."""
    return nnx.eval_shape(lambda: models.create(name, classes=classes, **options, rngs=nnx.Rngs(0)))


def parameter_count(name: str, classes: int = 1000) -> int:
    """Return the number of trainable parameters; BatchNorm's running statistics are none."""
    return sum(leaf.size for leaf in flatten(nnx.state(shapes_of(name, classes), nnx.Param)).values())
