"""The classes of a set under other names, fewer of them, or among those of another set."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from fer_jax.data.tables.table import Table
from fer_jax.errors import UserError


def renamed(table: Table, pairs: Sequence[tuple[str, str]]) -> Table:
    """The table with other class names; classes of one name become one, their labels and votes too.

    Raises:
      UserError: there is no class of that name.
    """
    names = dict(pairs)
    if odd := set(names) - set(table.classes):
        raise UserError(
            f'data.rename: {", ".join(sorted(odd))} is no class of {table.name}; it has {", ".join(table.classes)}'
        )
    if not names:
        return table
    classes = tuple(dict.fromkeys(names.get(name, name) for name in table.classes))
    number = np.array([classes.index(names.get(name, name)) for name in table.classes] + [-1], np.int32)
    columns, targets = dict(table.columns), dict(table.targets)
    if 'votes' in targets:
        columns['votes'] = tuple(dict.fromkeys(names.get(name, name) for name in table.columns['votes']))
        votes = np.zeros((len(table), len(columns['votes'])), np.float32)
        for at, name in enumerate(table.columns['votes']):
            votes[:, columns['votes'].index(names.get(name, name))] += targets['votes'][:, at]
        targets['votes'] = votes
    return dataclasses.replace(table, classes=classes, labels=number[table.labels], columns=columns, targets=targets)


def without(table: Table, names: Sequence[str]) -> Table:
    """The table without these classes, its labels and votes renumbered.

    Raises:
      UserError: there is no class of that name.
    """
    for name in names:
        if name not in table.classes:
            raise UserError(
                f'data.drop_classes: {name!r} is no class of {table.name}; it has {", ".join(table.classes)}'
            )
    if not names:
        return table
    classes = tuple(name for name in table.classes if name not in names)
    number = np.array([classes.index(name) if name in classes else -2 for name in table.classes] + [-1], np.int32)
    labels = number[table.labels]
    kept = np.flatnonzero(labels != -2)
    columns = dict(table.columns)
    cut = dict(table.targets)
    if 'votes' in cut:
        places = [at for at, column in enumerate(columns['votes']) if column not in names]
        columns['votes'] = tuple(columns['votes'][at] for at in places)
        cut['votes'] = cut['votes'][:, places]
    changed = {'classes': classes, 'columns': columns, 'labels': labels[kept]}
    return table.take(kept, **changed, targets={key: rows[kept] for key, rows in cut.items()})


def numbered(table: Table, classes: tuple[str, ...]) -> Table:
    """The table with its labels numbered among `classes`.

    Raises:
      UserError: it has a class that is not among them.
    """
    if odd := [name for name in table.classes if name not in classes]:
        raise UserError(
            f'{table.name} has the classes {", ".join(odd)}, which are not among {", ".join(classes)}; data.rename '
            "gives them other names, such as (('contempt', 'neutral'),), data.drop_classes leaves them out"
        )
    number = np.array([classes.index(name) for name in table.classes] + [-1], np.int32)
    return dataclasses.replace(table, classes=classes, labels=number[table.labels])
