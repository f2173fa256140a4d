"""A manifest: a csv or jsonl file that lists images with their labels, for sets of any other shape."""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.data.sources import files
from fer_jax.data.tables.table import Table
from fer_jax.errors import UserError

KNOWN = ('path', 'label', 'split', 'subject', 'group', 'weight')
SHARE = 'p_'  # csv: the column `p_happy` holds the share of votes for happy
SPLITS = ('train', 'validation', 'test')


def read_manifest(path: Path) -> Table:
    """The rows of a manifest.

    Columns: `path` (absolute, or relative to the manifest), `label` (a class name, empty where there is none), or
    votes: in csv the columns `p_<class>`, in jsonl an object {class: votes} as label; and, where wanted, `split`
    (train, validation, test), `subject`, `group` and `weight` (in the loss). Classes are sorted by name, or in the
    order of the votes.

    Raises:
      UserError: a row is malformed; its number, counted from 1 without the header, is named.
    """
    if not path.is_file():
        raise UserError(f'data.manifest={str(path)!r} is not a file; give a .csv or .jsonl')
    rows = list(_rows(path))
    if not rows:
        raise UserError(f'data.manifest={str(path)!r} has no rows')
    given = [_label(path, number, row) for number, row in enumerate(rows, 1)]
    classes = tuple(dict.fromkeys(name for votes in given for name in votes))
    if not any(len(votes) > 1 for votes in given):
        classes = tuple(sorted(classes))
    votes = np.zeros((len(rows), len(classes)), np.float32)
    for row_votes, target in zip(given, votes, strict=True):
        for name, count in row_votes.items():
            target[classes.index(name)] = count
    soft = bool((votes > 0).sum(1).max(initial=0) > 1)
    ids = np.array([row['path'] for row in rows], np.str_)
    twice, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise UserError(f'{path} lists {str(twice[counts.argmax()])!r} {counts.max()} times; keep one row a path')
    digests, fetch = files.open_files(path.parent, ids)
    return Table(
        name=path.stem,
        classes=classes,
        ids=ids,
        splits=_splits(path, rows),
        labels=np.where(votes.any(1), votes.argmax(1), -1).astype(np.int32) if classes else np.full(len(rows), -1),
        digests=digests,
        fetch=fetch,
        subjects=np.array([row.get('subject', '') for row in rows], np.str_),
        groups=np.array([row.get('group', '') for row in rows], np.str_),
        weights=np.array([_number(path, at, row, 'weight', '1') for at, row in enumerate(rows, 1)], np.float32),
        targets={'votes': votes} if soft else {},
        columns={'votes': classes} if soft else {},
    )


def write_manifest(path: Path, table: Table, keep: np.ndarray, directory: Path, *, more: bool = False) -> None:
    """Lists the examples of `table` where `keep` [N] is true, as csv; ids are paths below `directory`.

    Args:
      more: below those that the file lists already.
    """
    votes = table.targets.get('votes')
    labels = ['label'] if votes is None else [SHARE + name for name in table.columns['votes']]
    with path.open('a' if more else 'w', newline='', encoding='utf-8', errors='surrogateescape') as file:
        writer = csv.writer(file)
        if not more:
            writer.writerow(['path', 'split', 'subject', 'group', 'weight', *labels])
        for at in np.flatnonzero(keep):
            split = '' if table.splits[at] == 'all' else table.splits[at]
            shown = [(directory / table.ids[at]).resolve(), split, table.subjects[at], table.groups[at]]
            if votes is None:
                values = [table.classes[table.labels[at]] if table.labels[at] >= 0 else '']
            else:
                values = [f'{value:g}' for value in votes[at]]
            writer.writerow([*shown, f'{table.weights[at]:g}', *values])


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding='utf-8-sig', errors='surrogateescape', newline='') as text:
            if path.suffix == '.jsonl':
                for number, line in enumerate(filter(str.strip, text), 1):
                    try:
                        row = json.loads(line)
                        if '\\ud' in line:  # half of a character, which no file name and no csv can have
                            json.dumps(row, ensure_ascii=False).encode('utf-8', 'surrogateescape')
                    except (ValueError, RecursionError) as error:
                        raise _wrong(path, number, f'no JSON: {error}') from None
                    if not isinstance(row, dict) or not isinstance(row.get('path'), str) or '\0' in row['path']:
                        raise _wrong(path, number, 'no object with a path')
                    yield row
            else:
                reader = csv.DictReader(text, restkey='')
                reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
                if 'path' not in reader.fieldnames:
                    raise UserError(f'{path} has no column path; it has {", ".join(reader.fieldnames) or "none"}')
                odd = [key for key in reader.fieldnames if key not in KNOWN and not key.startswith(SHARE)]
                if odd:
                    raise UserError(f'{path} has an unknown column {odd[0]!r}; known: {", ".join(KNOWN)}, p_<class>')
                for number, row in enumerate(reader, 1):
                    if '' in row or not row['path'] or None in row.values() or '\0' in row['path']:
                        raise _wrong(path, number, f'{len(reader.fieldnames)} cells expected, a path among them')
                    yield row
    except (OSError, csv.Error) as error:
        raise UserError(f'{path} cannot be read: {error}') from error


def _label(path: Path, number: int, row: Mapping[str, Any]) -> dict[str, float]:
    """class -> votes."""
    label = row.get('label', '')
    if isinstance(label, Mapping):
        votes = {str(name): _number(path, number, label, name) for name in label}
    else:
        votes = {key.removeprefix(SHARE): _number(path, number, row, key) for key in row if key.startswith(SHARE)}
        if label is not None and str(label).strip():
            if any(votes.values()):
                raise _wrong(path, number, f'both a label ({label!r}) and votes; give one')
            votes |= {str(label).strip(): 1.0}
    return votes


def _number(path: Path, number: int, row: Mapping[str, Any], key: str, default: str = '0') -> float:
    value = row.get(key, default)
    try:
        given = float(default if value in ('', None) else value)
    except (TypeError, ValueError, OverflowError):
        given = -1.0
    if not 0 <= given < float('inf'):
        raise _wrong(path, number, f'{key} is {value!r}, expected a number of at least 0')
    return given


def _splits(path: Path, rows: list[dict[str, Any]]) -> np.ndarray:
    given = [row.get('split') or '' for row in rows]
    if not any(given):
        return np.full(len(rows), 'all')
    for number, split in enumerate(given, 1):
        if split not in SPLITS:
            raise _wrong(path, number, f'split is {split!r}, expected one of {", ".join(SPLITS)}, or none in any row')
    return np.array(given, np.str_)


def _wrong(path: Path, number: int, what: str) -> UserError:
    return UserError(f'{path}, row {number}: {what}; mend or remove the row')
