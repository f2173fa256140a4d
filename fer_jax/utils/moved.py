"""Old names of public parts: they lead to the new ones for one release, and say so."""

import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def forward(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Returns a module-level `__getattr__` that finds moved names in their new modules, with a DeprecationWarning.

    Args:
      module: name of the old module.
      names: {name: the module that it is in now}.
    """

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f'module {module!r} has no attribute {name!r}')
        warnings.warn(f'{module}.{name} is {names[name]}.{name} now', DeprecationWarning, stacklevel=2)
        return getattr(import_module(names[name]), name)

    return find
