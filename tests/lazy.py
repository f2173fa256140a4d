"""Import reference implementations when a test uses them, not when pytest collects: torch alone takes seconds."""

import importlib
from typing import Any

import pytest


class _Module:
    def __init__(self, name: str, optional: bool):
        self._name, self._optional = name, optional

    def __getattr__(self, attribute: str) -> Any:
        module = pytest.importorskip(self._name) if self._optional else importlib.import_module(self._name)
        return getattr(module, attribute)


def lazy(name: str, *, optional: bool = False) -> Any:
    """Return a stand-in for a module, which is imported at the first use of an attribute.

    Args:
      name: dotted name of the module.
      optional: skip the test that uses it where it is not installed.
    """
    return _Module(name, optional)
