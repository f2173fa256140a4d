"""Which examples train, which select, which are scored: published splits as they are, the rest dealt out by a hash.

The hash of an example's id, or of its subject where that is known, decides; so a new image moves no old one to another
split, but for rounding, and nobody stands in two splits.
"""

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence

import numpy as np

from fer_jax.data.tables.table import Table
from fer_jax.errors import UserError

SHARES = {'validation': 0.15, 'test': 0.15}
CARVED_SHARE = 0.10  # of a set's own training split, for validation
SPLIT_NAMES = {'train': 'train', 'training': 'train', 'validation': 'validation', 'valid': 'validation'}
SPLIT_NAMES |= {'val': 'validation', 'dev': 'validation', 'publictest': 'validation'}  # FER2013's public test selects
SPLIT_NAMES |= {'test': 'test', 'testing': 'test', 'privatetest': 'test'}


def split_name(name: str) -> str:
    """Returns 'train', 'validation' or 'test' for a usual name of that split, such as 'Val_Set'; '' for other names."""
    plain = re.sub(r'[\s_-]+', '', name.casefold())
    return SPLIT_NAMES.get(plain) or SPLIT_NAMES.get(plain.removesuffix('set').removesuffix('split'), '')


def assign(
    table: Table, *, folds: int = 0, fold: int = 0, split_seed: int = 0, shares: Sequence[float] = ()
) -> dict[str, np.ndarray]:
    """Returns the splits of a set: name -> positions.

    Published splits stay. Where there is no validation split, 10 % of train become it; where there is none at all
    ('all'), 15 % validation and 15 % test, of each class where subjects are unknown. With `folds` the test split is
    fold `fold`, and validation the next one.

    Args:
      shares: of validation and test, in place of the above; with a published test split the first alone counts.

    Raises:
      UserError: the fold does not exist, the set has a published test split, or the shares leave nothing to train on.
    """
    if shares and (len(shares) != 2 or sum(shares) >= 1):
        raise UserError(f'data.shares={tuple(shares)}; expected two, validation and test, that add up to less than 1')
    own = {str(name): np.flatnonzero(table.splits == name) for name in dict.fromkeys(table.splits)}
    if folds:
        if 'test' in own:
            raise UserError(f'data.folds={folds}: {table.name} has a published test split; set data.folds=0')
        return _folded(table, folds, fold, split_seed)
    if set(own) == {'all'}:
        return _deal(table, own['all'], dict(zip(SHARES, shares, strict=True)) if shares else SHARES, split_seed)
    if 'validation' not in own and 'train' in own:
        own |= _deal(table, own['train'], {'validation': shares[0] if shares else CARVED_SHARE}, split_seed)
    return own


def of_subjects(table: Table, *, split_seed: int = 0, shares: Sequence[float] = ()) -> Table:
    """Returns the training examples with their subjects as classes, and without splits and subjects.

    Those that select and test on expressions are left out: a network that starts from these identities has not seen
    them.

    Raises:
      UserError: the subjects are not known, or nothing trains.
    """
    if not table.subjects.all():
        raise UserError(f"data.label='subject': {table.name} does not say who is shown; set data.label='class'")
    own = assign(table, split_seed=split_seed, shares=shares)
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
        sorted(positions[member == label], key=lambda place: _hash(split_seed, str(table.ids[place])))[: sizes[label]]
        for label in range(len(classes))
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
        for index in sorted(range(len(names)), key=lambda index: (-sizes[index], hashes[index])):
            chosen[index] = filled.argmin()
            filled[chosen[index]] += sizes[index]
        number = chosen[member]
    else:
        order = sorted(
            range(len(table)), key=lambda index: (table.labels[index], _hash(split_seed, str(table.ids[index])))
        )
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
            ordered = np.array(sorted(of_class, key=lambda index: _hash(split_seed, str(table.ids[index]))), np.int64)
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
    order = sorted(range(len(names)), key=lambda position: _hash(split_seed, str(names[position])))
    split_of, position = np.full(len(names), 'train', '<U10'), 0
    for split, share in shares.items():
        filled = 0
        while filled < share * len(positions) and position < len(names) - 1:
            split_of[order[position]] = split
            filled += sizes[order[position]]
            position += 1
    return {split: positions[split_of[member] == split] for split in (*shares, 'train')}


def _hash(split_seed: int, name: str) -> bytes:
    seeded = name if split_seed == 0 else f'{split_seed}\0{name}'
    return hashlib.sha256(seeded.encode('utf-8', 'surrogateescape')).digest()
