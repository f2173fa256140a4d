"""A manifest: a csv or jsonl file that lists images with their labels, for sets of any other shape."""

import csv
import functools
import itertools
import json
import re
import sys
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fer_jax.data.sources import files
from fer_jax.data.tables.splitting import split_name
from fer_jax.data.tables.table import Table
from fer_jax.errors import UserError
from fer_jax.utils import bounded_files, limits
from fer_jax.utils.limits import LimitError, check_limit
from fer_jax.utils.paths import user_path

KNOWN = ('path', 'label', 'split', 'subject', 'group', 'weight')
SHARE = 'p_'  # csv: the column `p_happy` holds the share of votes for happy
OTHER_NAMES = {
    'path': (
        'image',
        'images',
        'image_path',
        'img',
        'img_path',
        'file',
        'filename',
        'filepath',
        'file_name',
        'file_path',
    ),
    'label': ('class', 'emotion', 'expression', 'target', 'labels', 'category'),
    'split': ('usage', 'set', 'subset', 'partition', 'fold'),
    'subject': ('person', 'identity', 'subject_id', 'id'),
}  # what other tools call a column
SHOWN_SPLITS = ('train', 'validation', 'test')
DELIMITERS = ',;\t|'
MOST_NAMED = 5  # mistakes that a message names
LONGEST_MESSAGE = 500  # characters of one of them


class Row(NamedTuple):
    """The cells of a row, without its votes."""

    path: str
    split: str
    subject: str
    group: str
    weight: float


def read_manifest(path: Path) -> Table:
    """Reads the rows of a manifest.

    Columns: `path` (absolute, or relative to the manifest), `label` (a class name, empty where there is none), or
    votes: in csv the columns `p_<class>`, in jsonl an object {class: votes} as label; and, where wanted, `split`
    (train, validation, test), `subject`, `group` and `weight` (in the loss). Classes are sorted by name, or in the
    order of the votes. A csv may be separated by commas, semicolons or tabs, in UTF-8 or UTF-16, and have the index
    column that pandas writes.

    Raises:
      UserError: rows are malformed; their numbers, counted from 1 without the header, are named.
    """
    if not path.is_file():
        raise UserError(f'data.manifest={str(path)!r} is not a file; give a .csv or .jsonl')
    if path.suffix == '.json':
        raise UserError(f'data.manifest={str(path)!r}: give a .csv, or a .jsonl with an object a line')
    mistakes: list[str] = []
    rows, given, paths, votes_in_all = [], [], set[str](), 0
    single: dict[tuple[tuple[str, float], ...], dict[str, float]] = {}
    for number, cells in _rows(path):
        if len(mistakes) > limits.WRONG_ROWS:
            break
        try:
            row, votes = _checked(path.parent, cells)
            votes_in_all += len(votes) if len(votes) > 1 else 0
            check_limit(votes_in_all, limits.TABLE_VOTES, 'votes')
        except LimitError as error:
            raise UserError(f'{path} cannot be read: {error}; split it') from None
        except (ValueError, RecursionError) as error:
            mistakes.append(f'row {number}: {error}'[:LONGEST_MESSAGE])
            continue
        if row.path in paths:
            mistakes.append(f'row {number}: {row.path!r} stands there more than once; keep one row a path')
        paths.add(row.path)
        rows.append(row)
        given.append(single.setdefault(tuple(votes.items()), votes) if len(votes) < 2 else votes)
    splits = [row.split for row in rows]
    if any(splits) and not all(splits):
        numbers = [number for number, split in enumerate(splits, 1) if not split]
        mistakes.append(f'row {numbers[0]}: split is empty, and not in every row; give it in all, or in none')
    if mistakes:
        count = len(mistakes) - MOST_NAMED
        more = f'\nand {count:,} {"or more" if len(mistakes) > limits.WRONG_ROWS else "more"}' if count > 0 else ''
        raise UserError(f'{path}: ' + '\n'.join(mistakes[:MOST_NAMED]) + f'{more}; mend or remove these rows')
    if not rows:
        raise UserError(f'data.manifest={str(path)!r} has no rows')
    classes = tuple(dict.fromkeys(name for votes in given for name in votes))
    many = any(len(votes) > 1 for votes in given)
    if not many:
        classes = tuple(sorted(classes))
    number_of = {name: index for index, name in enumerate(classes)}
    labels = np.array([_most(votes, number_of) for votes in given], np.int32)
    soft = any(sum(map(bool, votes.values())) > 1 for votes in given)
    try:
        check_limit(len(rows) * len(classes) if soft else 0, limits.TABLE_VOTES, 'votes, rows times classes')
        columns = {name: _column(name, [getattr(row, name) for row in rows]) for name in ('path', 'subject', 'group')}
    except LimitError as error:
        raise UserError(f'{path} cannot be read: {error}; split it') from None
    votes_of = np.zeros((len(rows) if soft else 0, len(classes)), np.float32)
    for votes, target in zip(given, votes_of, strict=False):
        target[[number_of[name] for name in votes]] = list(votes.values())
    digests, fetch = files.open_files(path.parent, columns['path'])
    return Table(
        name=path.stem,
        classes=classes,
        ids=columns['path'],
        splits=np.array(splits if any(splits) else ['all'] * len(rows), np.str_),
        labels=labels,
        digests=digests,
        fetch=fetch,
        subjects=columns['subject'],
        groups=columns['group'],
        weights=np.array([row.weight for row in rows], np.float32),
        targets={'votes': votes_of} if soft else {},
        columns={'votes': classes} if soft else {},
    )


def _column(name: str, cells: list[str]) -> np.ndarray:
    """Returns str [N], in which every cell takes as much memory as the longest."""
    check_limit(len(cells) * max(map(len, cells)), limits.TABLE_CHARACTERS, f'characters of {name}, rows times longest')
    return np.array(cells, np.str_)


def _most(votes: Mapping[str, float], number_of: Mapping[str, int]) -> int:
    """Returns the class with the most votes, of equal ones the first; -1 for none."""
    return min(((-count, number_of[name]) for name, count in votes.items() if count), default=(0.0, -1))[1]


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
        for index in np.flatnonzero(keep):
            split = '' if table.splits[index] == 'all' else table.splits[index]
            shown = [(directory / table.ids[index]).resolve(), split, table.subjects[index], table.groups[index]]
            if votes is None:
                values = [table.classes[table.labels[index]] if table.labels[index] >= 0 else '']
            else:
                values = [f'{value:g}' for value in votes[index]]
            writer.writerow([*shown, f'{table.weights[index]:g}', *values])


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the number of a row, and column -> cell.

    Raises:
      UserError: the file cannot be read, or has other columns.
    """
    try:
        with bounded_files.open_regular(path, limits.TABLE_BYTES) as binary:
            start = binary.read(4096)
        encoding = 'utf-16' if start[:2] in (b'\xff\xfe', b'\xfe\xff') else 'utf-8-sig'
        if b'\0' in start and encoding != 'utf-16':
            raise UserError(f'{path} is no text; give a .csv or .jsonl, of a spreadsheet its export as csv')
        with bounded_files.open_lines(path, encoding, 'surrogateescape') as lines:
            yield from _json_rows(path, lines) if path.suffix == '.jsonl' else _csv_rows(path, lines)
    except OSError as error:
        raise UserError(f'{path} cannot be read ({error.strerror})') from error
    except (UnicodeError, csv.Error, LimitError) as error:
        raise UserError(f'{path} cannot be read: {error}; is it a manifest?') from error


def _json_rows(path: Path, lines: Iterator[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(filter(str.strip, lines), 1):
        try:
            row = json.loads(line)
            if '\\ud' in line:  # half of a character, which no file name and no csv can have
                json.dumps(row, ensure_ascii=False).encode('utf-8', 'surrogateescape')
        except (ValueError, RecursionError) as error:
            raise UserError(f'{path}, row {number}: no JSON: {error}; mend or remove the row') from None
        if not isinstance(row, dict) or not isinstance(row.get('path'), str):
            raise UserError(f'{path}, row {number}: no object with a path; mend or remove the row')
        yield number, row


def _csv_rows(path: Path, lines: Iterator[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    head = next(lines, '')
    delimiter = max(DELIMITERS, key=head.count)
    reader = csv.reader(itertools.chain([head], lines), delimiter=delimiter, skipinitialspace=True)
    columns = [name.strip() for name in next(reader, [])]
    if len(columns) > limits.TABLE_COLUMNS:
        raise UserError(f'{path} has {len(columns):,} columns, at most {limits.TABLE_COLUMNS:,} are read')
    _check_columns(path, columns)
    for number, cells in enumerate((cells for cells in reader if any(map(str.strip, cells))), 1):
        row: dict[str, Any] = dict(zip(columns, cells, strict=False))
        if len(cells) != len(columns):
            row['path'] = None
        row['cells'] = len(cells), len(columns)
        yield number, row


def _check_columns(path: Path, columns: list[str]) -> None:
    """Refuses a csv without the column path, with a column twice or one that is not known; all of it at once."""
    names = [name for name in columns if not _is_index(name)]
    mistakes = []
    for name in names:
        if name not in KNOWN and not name.startswith(SHARE):
            meant = [known for known, others in OTHER_NAMES.items() if name.lower() in (known, *others)]
            meant = [known for known in meant if known not in names]
            mistakes.append(f'rename its column {name!r} to {meant[0]}' if meant else f'remove its column {name!r}')
    if twice := sorted({name for name in names if names.count(name) > 1}):
        mistakes.append(f'it has the column {twice[0]!r} twice')
    if 'path' not in names:
        mistakes.insert(0, f'it has no column path; it has {", ".join(names[:MOST_NAMED]) or "none"}')
    if mistakes:
        known = f'{", ".join(KNOWN)} and p_<class> are known'
        more = ['...'] if len(mistakes) > MOST_NAMED else []
        shown = [mistake[:LONGEST_MESSAGE] for mistake in mistakes[:MOST_NAMED]]
        raise UserError(f'{path}: {"; ".join([*shown, *more])} ({known})')


def _is_index(name: str) -> bool:
    """Whether a column is the index that pandas writes, or the nothing behind a last comma."""
    return name in ('', 'index') or name.startswith('Unnamed: ')


def _checked(directory: Path, row: dict[str, Any]) -> tuple[Row, dict[str, float]]:
    """Returns the row with its cells in form, and class -> votes.

    Raises:
      ValueError: a cell is wrong.
    """
    count, expected = row.pop('cells', (0, 0))
    if not row['path'] or '\0' in row['path']:
        wanted = f'{expected} cells expected, a path among them; it has {count}'
        raise ValueError(wanted if expected else 'no object with a path')
    path = _located(directory, _short('path', row['path'], limits.PATH_CHARACTERS))
    votes = _votes(row)
    if len(votes) > limits.TABLE_COLUMNS:
        raise ValueError(f'{len(votes):,} votes, at most {limits.TABLE_COLUMNS:,} are read')
    for name in votes:
        if any('\ud800' <= letter <= '\udfff' for letter in name):
            raise ValueError(f'the label {name!r} is no UTF-8; save the file as UTF-8')
    weight = _number(row, 'weight', '1')
    split = _short('split', row.get('split'))
    if split and not split_name(split):
        raise ValueError(f'split is {split!r}, expected one of {", ".join(SHOWN_SPLITS)}, or none in any row')
    subject, group = (_short(key, row.get(key)) for key in ('subject', 'group'))
    return Row(path, sys.intern(split_name(split)), subject, group, weight), votes


def _short(column: str, cell: Any, most: int = limits.CELL_CHARACTERS) -> str:
    """Returns a cell as text; raises ValueError where it is longer than `most`."""
    text = cell if isinstance(cell, str) else str(cell or '')
    if len(text) > most:
        raise ValueError(f'{column} has {len(text):,} characters, at most {most:,} are read')
    return text.strip()


def _located(directory: Path, given: str) -> str:
    """Returns the path of an image, of one that Windows wrote with slashes.

    Raises:
      ValueError: it cannot be one of this machine.
    """
    path = given.strip()
    if path.startswith('~'):
        return str(user_path(path))
    if '\\' not in path and ':/' not in path or (directory / path).exists():
        return path
    if re.match(r'[A-Za-z]:|\\\\', path):
        raise ValueError(f'{path!r} is a path of Windows; write paths relative to the manifest')
    if re.match(r'\w+://', path):
        raise ValueError(f'{path!r} is a URL; download the image and write its path')
    return path.replace('\\', '/')


def _votes(row: Mapping[str, Any]) -> dict[str, float]:
    label = row.get('label', '')
    if isinstance(label, Mapping):
        return {_class_name(name): _number(label, name) for name in label}
    votes = {_class_name(key.removeprefix(SHARE)): _number(row, key) for key in row if key.startswith(SHARE)}
    if label is not None and str(label).strip():
        if any(votes.values()):
            raise ValueError(f'both a label ({label!r}) and votes; give one')
        votes |= {_class_name(str(label)): 1.0}
    return votes


@functools.lru_cache(1 << 12)
def _class_name(name: str) -> str:
    return unicodedata.normalize('NFC', _short('label', name))


def _number(row: Mapping[str, Any], key: str, default: str = '0') -> float:
    value = row.get(key, default)
    try:
        given = float(default if value in ('', None) else value)
    except (TypeError, ValueError, OverflowError):
        given = -1.0
    if not 0 <= given < float('inf'):
        decimal = ', with a decimal point' if isinstance(value, str) and ',' in value else ''
        raise ValueError(f'{key} is {value!r}, expected a number of at least 0{decimal}')
    return given
