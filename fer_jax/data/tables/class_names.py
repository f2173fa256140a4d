"""The classes of a set under other names, fewer of them, or among those of another set."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from fer_jax.data.tables.expressions import EXPRESSIONS, canonical
from fer_jax.data.tables.table import Table
from fer_jax.errors import UserError


def canonical_names(classes: Sequence[str]) -> dict[str, str]:
    """Returns class -> the expression that it means, for the classes that are spelt in another way.

    Names that differ in case and spaces alone become one. Where names that differ in more mean one expression, such as
    joy and happiness, they may be meant as two classes and keep their names. Codes such as AN count where all are codes
    or words of expressions.
    """
    codes = all(canonical(name) in EXPRESSIONS for name in classes)
    means = {name: canonical(name, codes=codes) for name in classes}
    spellings = Counter(means[name] for name in {_plain(name): name for name in classes}.values())
    return {name: known for name, known in means.items() if known != name and spellings[known] == 1}


def named(
    table: Table, names: Mapping[str, str], rename: Sequence[tuple[str, str]], drop_classes: Sequence[str]
) -> Table:
    """Gives classes their canonical `names`, then those of `rename`, and leaves classes out, see `without`.

    The latter two may call a class by its name in the table, too.
    """
    table = renamed(table, list(names.items()))
    table = renamed(table, [(names.get(old, old), new) for old, new in rename])
    return without(table, [names.get(name, name) for name in drop_classes])


def describe_canonical(names: Mapping[str, str]) -> list[str]:
    """Returns a line on the classes that get other names; none for none."""
    changes = ', '.join(f'{old!r} is {new}' for old, new in names.items())
    return [f'names of expressions: {changes}; data.canonical_classes=False keeps them as they are'] if names else []


def describe_missing(table: Table, chosen: Mapping[str, np.ndarray], *, dealt: bool) -> list[str]:
    """Returns a line for each split that lacks a class.

    Args:
      chosen: role -> positions in `table`.
      dealt: whether chance decided which image is in which split.

    Raises:
      UserError: images are to be scored of a class that the training split lacks, and not by chance.
    """
    count = len(table.classes)
    present = {role: np.bincount(table.labels[kept] + 1, minlength=count + 1)[1:] > 0 for role, kept in chosen.items()}
    scored = np.logical_or.reduce([has for role, has in present.items() if role != 'train'] or [np.zeros(count, bool)])
    notes = []
    for role, has in present.items():
        lacking = [name for name, there in zip(table.classes, has, strict=True) if not there]
        if lacking and role == 'train':
            unlearnt = [name for name, odd in zip(table.classes, scored & ~has, strict=True) if odd]
            if unlearnt and not dealt:
                raise UserError(
                    f'{table.name} has images of {", ".join(unlearnt)} to score, and none to train on; add some, or '
                    f'leave the class out by data.drop_classes={tuple(unlearnt)}'
                )
            notes.append(f'warning: no training image shows {", ".join(lacking)}')
        elif lacking:
            notes.append(f'{role} has no image of {", ".join(lacking)}: its scores are those of the other classes')
    return notes


def alike(classes: Sequence[str]) -> list[str]:
    """Returns a warning for each group of class names that differ in case or spaces alone."""
    groups: dict[str, list[str]] = {}
    for name in classes:
        groups.setdefault(_plain(name), []).append(name)
    return [
        f'warning: the classes {", ".join(map(repr, names))} differ in case or spaces alone; data.rename makes them one'
        for names in groups.values()
        if len(names) > 1
    ]


def _plain(name: str) -> str:
    return ''.join(name.casefold().split())


def renamed(table: Table, pairs: Sequence[tuple[str, str]]) -> Table:
    """Gives classes other names; classes of one name become one, their labels and votes too.

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
        for index, name in enumerate(table.columns['votes']):
            votes[:, columns['votes'].index(names.get(name, name))] += targets['votes'][:, index]
        targets['votes'] = votes
    return dataclasses.replace(table, classes=classes, labels=number[table.labels], columns=columns, targets=targets)


def without(table: Table, names: Sequence[str]) -> Table:
    """Leaves out these classes, and numbers labels and votes anew.

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
        places = [index for index, column in enumerate(columns['votes']) if column not in names]
        columns['votes'] = tuple(columns['votes'][index] for index in places)
        cut['votes'] = cut['votes'][:, places]
    changed = {'classes': classes, 'columns': columns, 'labels': labels[kept]}
    return table.take(kept, **changed, targets={key: rows[kept] for key, rows in cut.items()})


def numbered(table: Table, classes: tuple[str, ...]) -> Table:
    """Numbers the labels of a table among `classes`.

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
