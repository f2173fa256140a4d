"""The arrays of a file under their whole names, whatever they are nested in: dictionaries, modules, other objects."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from fer_jax.pretrained.readers.pickle_machine import Placeholder, Symbol
from fer_jax.pretrained.readers.pickled_arrays import Array, Dtype, Storage, Tensor
from fer_jax.utils import limits
from fer_jax.utils.limits import check_limit

LONGEST_LIST = 16  # lists in which state dicts are looked for; a longer one is a history
SCRIPT = '__torch__.'  # begins the class names of TorchScript


class Entries(NamedTuple):
    """The content of a file.

    Attributes:
      arrays: whole name, such as 'state_dict.module.conv1.weight' -> array, read-only.
      containers: whole names of the dictionaries and modules that hold the arrays -> how many each holds.
      others: names of other entries, which hold no array -> their kind.
      modules: classes of pickled modules, by the name of the entry.
    """

    arrays: dict[str, np.ndarray]
    containers: dict[str, int]
    others: dict[str, str]
    modules: dict[str, str]


def flatten(tree: Any, *, empty: str = '') -> Entries:
    """Collects the arrays in the tree that a reader returned.

    Args:
      empty: the reason why there may be none, for the message.

    Raises:
      LimitError: there are too many, or a name is too long.
      ValueError: there are none, or one is damaged.
    """
    collector = _Collector()
    collector.visit(tree, '', '', 0)
    entries = Entries(collector.arrays, collector.containers, {}, collector.modules)
    if isinstance(tree, Mapping):
        texts = [key for key in tree if type(key) is str]
        holding = {name.partition('.')[0] for name in entries.arrays} | {*entries.arrays}
        entries.others.update({key[:60]: describe(tree[key]) for key in texts if key.partition('.')[0] not in holding})
    if not entries.arrays:
        within = ', '.join(f'{key!r} ({kind})' for key, kind in [*entries.others.items()][:5])
        raise ValueError(
            empty or f'it holds no tensors under names, but {describe(tree)}' + (f' of {within}' if within else '')
        )
    return entries


def describe(value: Any) -> str:
    """Returns the type of an object by its class alone, as text."""
    if isinstance(value, Placeholder):
        return str(value.symbol)[: limits.NAME_CHARACTERS]
    if isinstance(value, Symbol):
        return str(value)[: limits.NAME_CHARACTERS]
    if isinstance(value, Tensor | Array | Storage | Dtype):
        return {Tensor: 'tensor', Array: 'array', Storage: 'storage', Dtype: 'dtype'}[type(value)]
    return type(value).__name__


class _Collector:
    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self.containers: dict[str, int] = {}
        self.modules: dict[str, str] = {}
        self.seen: dict[int, Any] = {}
        self.visits = 0

    def visit(self, value: Any, container: str, name: str, depth: int) -> None:
        """Goes through `value`, which is called `container`.`name`."""
        whole = f'{container}.{name}' if container and name else container or name
        check_limit(len(whole), limits.NAME_CHARACTERS, 'characters in a name')
        if isinstance(value, Array) and not value.holds_numbers:
            return
        if isinstance(value, Tensor | Array | np.ndarray):
            if whole in self.arrays:
                raise ValueError(f'it holds {whole!r} twice')
            check_limit(len(self.arrays), limits.MEMBERS, 'arrays')
            self.arrays[whole] = value if isinstance(value, np.ndarray) else value.array()
            self.containers[container] = self.containers.get(container, 0) + 1
            return
        if depth > limits.NESTING:
            return
        if isinstance(value, Placeholder):
            content = value.content()
            if _is_module(value, content):
                self.modules[whole] = str(value.symbol)
                self._visit_module(content, whole, '', depth)
                return
            value = content
        if id(value) in self.seen or not isinstance(value, Mapping | list | tuple):
            return
        self.seen[id(value)] = value  # keeps it alive, so that no other gets its id
        if not isinstance(value, Mapping):
            value = {str(index): item for index, item in enumerate(value)} if len(value) <= LONGEST_LIST else {}
        for key, item in value.items():
            if type(key) is str:
                self.visit(item, whole, key, depth + 1)

    def _visit_module(self, content: Mapping[Any, Any], container: str, name: str, depth: int) -> None:
        """Goes through a pickled torch module as its state_dict() does."""
        self.visits += 1
        check_limit(self.visits, limits.MEMBERS, 'modules')
        if '_parameters' in content:
            skipped = content.get('_non_persistent_buffers_set')
            skipped = {item for item in skipped if type(item) is str} if type(skipped) is list else set()
            tables = [_content(content.get(table)) for table in ('_parameters', '_buffers', '_modules')]
            content = {key: item for table in tables for key, item in table.items() if key not in skipped}
        for key, item in content.items():
            inner = f'{name}.{key}' if name else key
            if type(key) is str and isinstance(item, Tensor | Array):
                self.visit(item, container, inner, depth + 1)
            elif type(key) is str and isinstance(item, Placeholder) and depth < limits.NESTING:
                below = item.content()
                if _is_module(item, below):
                    self._visit_module(below, container, inner, depth + 1)


def _is_module(value: Placeholder, content: Mapping[Any, Any]) -> bool:
    return '_parameters' in content or str(value.symbol).startswith(SCRIPT)


def _content(table: Any) -> Mapping[Any, Any]:
    return table if isinstance(table, Mapping) else table.content() if isinstance(table, Placeholder) else {}
