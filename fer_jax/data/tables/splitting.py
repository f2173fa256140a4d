"""Which examples train, which select, which are scored: published splits as they are, the rest dealt out by a hash.

The hash of an example's id, or of its subject where that is known, decides; so a new image moves no old one to another
split, but for rounding, and nobody stands in two splits.
"""

import dataclasses
import hashlib
import re
from collections.abc import Mapping

import numpy as np

from fer_jax.data.tables.table import Table
from fer_jax.errors import UserError

SHARES = {'validation': 0.15, 'test': 0.15}
CARVED = {'validation': 0.10}
SPLIT_NAMES = {'train': 'train', 'training': 'train', 'validation': 'validation', 'valid': 'validation'}
SPLIT_NAMES |= {'val': 'validation', 'dev': 'validation', 'publictest': 'validation'}  # FER2013's public test selects
SPLIT_NAMES |= {'test': 'test', 'testing': 'test', 'privatetest': 'test'}


def split_name(name: str) -> str:
    """Returns 'train', 'validation' or 'test' for a usual name of that split, such as 'Val_Set'; '' for other names."""
    plain = re.sub(r'[\s_-]+', '', name.casefold())
    return SPLIT_NAMES.get(plain) or SPLIT_NAMES.get(plain.removesuffix('set').removesuffix('split'), '')


def assign(table: Table, *, folds: int = 0, fold: int = 0, split_seed: int = 0) -> dict[str, np.ndarray]:
    """Returns the splits of a set: name -> positions.

    Published splits stay. Where there is no validation split, 10 % of train become it; where there is none at all
    ('all'), 15 % validation and 15 % test, of each class where subjects are unknown. With `folds` the test split is
    fold `fold`, and validation the next one.

    Raises:
      UserError: the fold does not exist, or the set has a published test split.
    """
    own = {str(name): np.flatnonzero(table.splits == name) for name in dict.fromkeys(table.splits)}
    if folds:
        if 'test' in own:
            raise UserError(f'data.folds={folds}: {table.name} has a published test split; set data.folds=0')
        return _folded(table, folds, fold, split_seed)
    if set(own) == {'all'}:
        return _deal(table, own['all'], SHARES, split_seed)
    if 'validation' not in own and 'train' in own:
        own |= _deal(table, own['train'], CARVED, split_seed)
    return own


def of_subjects(table: Table, *, split_seed: int = 0) -> Table:
    """Returns the training examples with their subjects as classes, and without splits and subjects.

    Those that select and test on expressions are left out: a network that starts from these identities has not seen
    them.

    Raises:
      UserError: the subjects are not known, or nothing trains.
    """
    if not table.subjects.all():
        raise UserError(f"data.label='subject': {table.name} does not say who is shown; set data.label='class'")
    own = assign(table, split_seed=split_seed)
    if 'train' not in own:
        raise UserError(f"data.label='subject': {table.name} has no training split, only {', '.join(own)}")
    part = table.take(own['train'])
    names, member = np.unique(part.subjects, return_inverse=True)
    return dataclasses.replace(
        part,
        classes=tuple(map(str, names)),
        labels=member.astype(np.int32),
        subjects=np.full(len(part), ''),
        splits=np.full(len(part), 'all'),
        subsets={},
    )


def stratified(table: Table, positions: np.ndarray, count: int, split_seed: int = 0) -> np.ndarray:
    """Takes `count` of `positions`, the first of each class by the hash of their ids; each keeps its share, rounded.

    Raises:
      UserError: there are not so many.
    """
    if not 0 < count <= len(positions):
        raise UserError(f'data.train_examples={count}; the training split of {table.name} has {len(positions)}')
    classes, member = np.unique(table.labels[positions], return_inverse=True)
    shares = count * np.bincount(member) / len(positions)
    sizes = np.floor(shares).astype(int)
    sizes[np.argsort(sizes - shares, kind='stable')[: count - sizes.sum()]] += 1  # largest remainders
    chosen = [
        sorted(positions[member == at], key=lambda place: _hash(split_seed, str(table.ids[place])))[: sizes[at]]
        for at in range(len(classes))
    ]
    return np.sort(np.concatenate(chosen)).astype(positions.dtype)


def _folded(table: Table, folds: int, fold: int, split_seed: int) -> dict[str, np.ndarray]:
    """Subjects go to the emptiest fold, the largest first; without subjects the classes are dealt in turn."""
    if folds < 3 or not 0 <= fold < folds:
        raise UserError(f'data.folds={folds}, data.fold={fold}: give at least 3 folds, and a fold from 0 to folds - 1')
    number = np.empty(len(table), np.int64)
    if table.subjects.all():
        names, member, sizes = np.unique(table.subjects, return_inverse=True, return_counts=True)
        if len(names) < folds:
            raise UserError(f'data.folds={folds}: {table.name} has only {len(names)} subjects')
        hashes = [_hash(split_seed, str(name)) for name in names]
        filled, chosen = np.zeros(folds, np.int64), np.empty(len(names), np.int64)
        for at in sorted(range(len(names)), key=lambda at: (-sizes[at], hashes[at])):
            chosen[at] = filled.argmin()
            filled[chosen[at]] += sizes[at]
        number = chosen[member]
    else:
        order = sorted(range(len(table)), key=lambda at: (table.labels[at], _hash(split_seed, str(table.ids[at]))))
        number[order] = np.arange(len(table)) % folds
    names_of = np.full(folds, 'train', '<U10')
    names_of[fold], names_of[(fold + 1) % folds] = 'test', 'validation'
    return {split: np.flatnonzero(names_of[number] == split) for split in ('train', 'validation', 'test')}


def _deal(table: Table, positions: np.ndarray, shares: Mapping[str, float], split_seed: int) -> dict[str, np.ndarray]:
    """Cuts `positions` into the given shares; the rest is train."""
    dealt: dict[str, list[np.ndarray]] = {split: [] for split in (*shares, 'train')}
    if table.subjects[positions].all():
        for split, part in _deal_subjects(table, positions, shares, split_seed).items():
            dealt[split].append(part)
    else:
        for label in np.unique(table.labels[positions]):
            of_class = positions[table.labels[positions] == label]
            ordered = np.array(sorted(of_class, key=lambda at: _hash(split_seed, str(table.ids[at]))), np.int64)
            first = 0
            for split, share in shares.items():
                count = max(round(share * len(ordered)), 1) if len(ordered) > len(shares) else 0
                dealt[split].append(ordered[first : first + count])
                first += count
            dealt['train'].append(ordered[first:])
    return {split: np.sort(np.concatenate(parts)) for split, parts in dealt.items()}


def _deal_subjects(
    table: Table, positions: np.ndarray, shares: Mapping[str, float], split_seed: int
) -> dict[str, np.ndarray]:
    """Whole subjects, in the order of their hash, until each share is full."""
    names, member, sizes = np.unique(table.subjects[positions], return_inverse=True, return_counts=True)
    if len(names) <= len(shares):
        raise UserError(f'{table.name} shows {len(names)} subjects, too few for {len(shares) + 1} splits')
    order = sorted(range(len(names)), key=lambda at: _hash(split_seed, str(names[at])))
    split_of, at = np.full(len(names), 'train', '<U10'), 0
    for split, share in shares.items():
        filled = 0
        while filled < share * len(positions) and at < len(names) - 1:
            split_of[order[at]] = split
            filled += sizes[order[at]]
            at += 1
    return {split: positions[split_of[member] == split] for split in (*shares, 'train')}


def _hash(split_seed: int, name: str) -> bytes:
    seeded = name if split_seed == 0 else f'{split_seed}\0{name}'
    return hashlib.sha256(seeded.encode('utf-8', 'surrogateescape')).digest()
