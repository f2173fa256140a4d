"""What is wrong with a config, all of it at once, as far as its fields alone can tell."""

import difflib
import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from ml_collections import ConfigDict

from fer_jax.config.field import Field, expected, mistake, shown
from fer_jax.config.likely import likely_paths
from fer_jax.config.schema import (
    AUGMENT_TREE,
    FIELDS,
    PHASE_TREE,
    PROBE_TREE,
    RUN_TREE,
    TASK_DATA_TREE,
    TASK_TREE,
    Tree,
)
from fer_jax.errors import UserError
from fer_jax.utils.limits import CELL_CHARACTERS, CONFIG_PHASES, CONFIG_TASKS

MOST_MISTAKES = 50  # mistakes that are told
OPTIONAL = {'probe': PROBE_TREE}


def check_config(plain: Any) -> None:
    """Raises UserError where a field is unknown, missing, of a wrong type or out of its range: all of them at once.

    Args:
      plain: the config as dicts, lists and scalars.
    """
    raise_mistakes(find_mistakes(plain), 'the config has')


def find_mistakes(plain: Any) -> list[str]:
    """Returns one line for each mistake of a config, at most `MOST_MISTAKES` + 1 lines."""
    return list(islice(_group('', plain, RUN_TREE, OPTIONAL), MOST_MISTAKES + 1))


def raise_mistakes(mistakes: list[str], begin: str = 'there are') -> None:
    """Raises UserError with all mistakes in one message, if there are any."""
    if len(mistakes) == 1:
        raise UserError(mistakes[0])
    if mistakes:
        count = f'more than {MOST_MISTAKES}' if len(mistakes) > MOST_MISTAKES else len(mistakes)
        raise UserError(f'{begin} {count} mistakes:\n' + '\n'.join(f'  {line}' for line in mistakes[:MOST_MISTAKES]))


def plain_config(config: Any) -> Any:
    """Returns the config as it is written to config.json: dicts, lists and scalars.

    Raises:
      UserError: the config holds something that cannot be written as JSON.
    """
    try:
        return json.loads(config.to_json() if hasattr(config, 'to_json') else json.dumps(config))
    except Exception as error:  # a config may hold any object
        raise UserError(
            f'the config cannot be written as JSON ({type(error).__name__}: {error}); its fields are numbers, texts, '
            'tuples and ConfigDicts'
        ) from None


def _group(path: str, value: Any, tree: Tree, optional: Tree | None = None, *, whole: bool = True) -> Iterator[str]:
    """Mistakes of the fields that lie below `path`; of a `whole` group none may be missing."""
    here = path or 'the config'
    if not isinstance(value, Mapping):
        names = ', '.join(_below(path, name) for name in islice(tree, 3))
        yield f'{here}={shown(value)}; expected the fields {names}{", ..." if len(tree) > 3 else ""}'
        return
    known = tree | (optional or {})
    for key in value:
        if key not in known:
            yield _unknown(path, key, known)
    if missing := [name for name in tree if name not in value] if whole else []:
        yield f'{here} has no {", ".join(missing)}; begin with fer_jax.config.defaults, which has every field'
    for name, member in known.items():
        if name in value:
            yield from _member(_below(path, name), value[name], member)


def _member(path: str, value: Any, member: Field | Tree) -> Iterator[str]:
    if not isinstance(member, Field):
        yield from _group(path, value, member)
    elif member.kind == 'phases':
        yield from _phases(path, value, member)
    elif member.kind == 'tasks':
        yield from _tasks(path, value, member)
    elif member.kind == 'fields of data':
        yield from _group(path, value, TASK_DATA_TREE)
    elif member.kind == 'fields of loss':
        yield from _group(path, value, RUN_TREE['loss'])
    elif member.kind == 'fields of data.augment':
        yield from _group(path, value, AUGMENT_TREE, whole=False)
    elif message := mistake(member, value, path):
        yield message


def _phases(path: str, value: Any, field: Field) -> Iterator[str]:
    if not isinstance(value, list | tuple) or not value:
        yield f'{path}={shown(value)}; expected {expected(field)}, one or more ({field.help})'
        return
    if len(value) > CONFIG_PHASES:
        yield f'{path} has {len(value):,} phases, at most {CONFIG_PHASES:,} are trained'
        return
    for index, phase in enumerate(value):
        yield from _group(f'{path}[{index}]', phase, PHASE_TREE)


def _tasks(path: str, value: Any, field: Field) -> Iterator[str]:
    if not isinstance(value, Mapping):
        yield f'{path}={shown(value)}; expected {expected(field)} ({field.help})'
        return
    if len(value) > CONFIG_TASKS:
        yield f'{path} has {len(value):,} tasks, at most {CONFIG_TASKS:,} are trained'
        return
    for name, task in value.items():
        if not _is_task_name(name):
            yield f'{path}.{_cut(name)}: a task needs a name of letters and digits, other than primary and items'
        else:
            yield from _group(f'{path}.{name}', task, TASK_TREE)


def _is_task_name(name: Any) -> bool:
    """Tells whether a task may have a name; ConfigDict keeps some to itself, such as items and to_json."""
    usual = isinstance(name, str) and name.isidentifier() and len(name) <= CELL_CHARACTERS
    return usual and name != 'primary' and not hasattr(ConfigDict, name)


def _below(path: str, name: str) -> str:
    return f'{path}.{name}' if path else name


def _cut(key: Any) -> str:
    """A key, which may be anything, as text that fits into a line."""
    return key[:80] if isinstance(key, str) and key and key.isprintable() else shown(key)


def _unknown(path: str, key: Any, known: Tree) -> str:
    """Names the fields that may be meant: here, or elsewhere by this or by another name."""
    name = _cut(key)
    here = [_below(path, other) for other in difflib.get_close_matches(name, known, n=1)]
    nearest = here or likely_paths(name, [field.path for field in FIELDS])
    verb = 'are' if nearest[1:] else 'is'
    return f'{_below(path, name)} is not a config key; the nearest {verb} {", ".join(nearest)}'
