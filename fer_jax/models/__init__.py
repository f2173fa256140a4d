"""The networks, by name: `create` makes one with fresh or with published parameters, `run` applies its stages."""

from importlib import import_module
from typing import Any

from fer_jax.models.registry import CONSTRUCTORS, NAMES, check_name
from fer_jax.models.stages import check_size, run

__all__ = ['CONSTRUCTORS', 'NAMES', 'check_name', 'check_size', 'create', 'run']


def create(name: str, **options: Any) -> Any:
    """Creates a network with fresh or published parameters; takes the arguments of `pretrained.create.create_model`."""
    return import_module('fer_jax.pretrained.create').create_model(name, **options)
