"""Data sets as the program sees them: classes, split roles, and images by index."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fer_jax.data import folder, manifest, prepared, roles
from fer_jax.data import targets as target_modes
from fer_jax.data.images import decode
from fer_jax.data.table import Table
from fer_jax.errors import UserError

# fields of `config.data` that say what is loaded, as `load` takes them
SOURCE = (
    'name', 'dir', 'manifest', 'subject', 'label', 'target', 'annotation', 'drop_classes', 'train_examples',
    'folds', 'fold', 'split_seed',
)  # fmt: skip


@dataclass(frozen=True)
class Split:
    """One split, its labels in memory, its images by index.

    Attributes:
      ids: str [N], unique in the set.
      labels: int32 [N], what predictions are scored against where there are no attributes; -1 where there is none.
      attributes: float32 [N, classes] of 0, 1 or NaN where unknown, trained on and scored in place of labels, or None.
      shape: (H, W, C) of every image.
      read: int [B] indices -> uint8 [B, H, W, C]; a pure function, safe in threads.
      weights: float32 [N], of each example in the loss.
      distributions: float32 [N, classes] to train on in place of labels, or None.
      subjects, groups: str [N], '' where unknown.
      subsets: name -> bool [N], parts that are scored apart.
      targets: name -> float32 [N, K], further annotations.
    """

    ids: np.ndarray
    labels: np.ndarray
    attributes: np.ndarray | None
    shape: tuple[int, int, int]
    read: Callable[[np.ndarray], np.ndarray]
    weights: np.ndarray
    distributions: np.ndarray | None
    subjects: np.ndarray
    groups: np.ndarray
    subsets: Mapping[str, np.ndarray]
    targets: Mapping[str, np.ndarray]

    @property
    def truth(self) -> np.ndarray:
        """What predictions are scored against: int32 [N] labels, or float32 [N, classes] attributes."""
        return self.labels if self.attributes is None else self.attributes


@dataclass(frozen=True)
class Dataset:
    """Splits by role ('train', 'validation', 'test') and what they have in common.

    Attributes:
      classes: names of the labels, or of the attributes.
      columns: names of the columns of each of the splits' `targets`.
      fingerprint: sha256 over ids, labels, distributions, weights and encoded images of these splits.
    """

    name: str
    classes: tuple[str, ...]
    splits: dict[str, Split]
    columns: Mapping[str, tuple[str, ...]]
    fingerprint: str

    def label_of(self, role: str, at: int) -> str:
        """The label of one example in words, or its attributes."""
        truth = self.splits[role].truth[at]
        if truth.ndim:
            return ', '.join(name for name, value in zip(self.classes, truth, strict=True) if value > 0)
        return self.classes[truth] if truth >= 0 else 'unknown'


def open_table(*, name: str, dir: str, manifest: str, subject: str, root: Path) -> Table:
    """The one source that is named: a prepared set below `root`, a folder of class folders, or a manifest.

    Raises:
      UserError: none or several are named, or it cannot be read.
    """
    if sum(map(bool, (name, dir, manifest))) != 1:
        raise UserError(f'data.name={name!r}, data.dir={dir!r}, data.manifest={manifest!r}: give one, the others empty')
    if subject and not dir:
        raise UserError(f'data.subject={subject!r} is for data.dir; {name or manifest} has a column for subjects')
    if dir:
        return folder.scan(Path(dir), subject=subject)
    return _manifest(Path(manifest)) if manifest else prepared.open_table(name, root)


_manifest = manifest.read


def load(
    *,
    splits: Mapping[str, str],
    image_size: int,
    channels: int,
    root: Path,
    name: str = '',
    dir: str = '',
    manifest: str = '',
    subject: str = '',
    label: str = 'class',
    target: str = 'label',
    annotation: str = '',
    drop_classes: tuple[str, ...] = (),
    train_examples: int = 0,
    folds: int = 0,
    fold: int = 0,
    split_seed: int = 0,
) -> Dataset:
    """Opens a set and gives its examples their roles.

    Args:
      splits: role -> the set's own name of the split.
      image_size: side that the network wants. A set whose images all have one smaller size keeps that; all others are
        stored at this size.
      channels: 1 or 3, of the stored images; grey sets stay grey.
      root: where prepared sets lie.
      name, dir, manifest, subject: see `open_table`, `folder.scan`.
      label: 'class', or 'subject' to tell who is shown: the people of what trains on classes (before folds), whose
        examples are dealt to each split.
      target: 'label', or how votes become a distribution to train on, see `targets.distributions`.
      annotation: a further annotation of the set, such as 'action_units', whose columns become attributes to tell in
        place of classes: present above 0, unknown where NaN. '' for none.
      drop_classes: classes whose examples are left out.
      train_examples: of the role 'train', a fixed choice that keeps the shares of its classes; 0 for all of them. A
        larger choice holds the smaller one, but for rounding.
      folds, fold, split_seed: see `roles.assign`.

    Raises:
      UserError: there is no such set or split, or it is not prepared.
    """
    table = open_table(name=name, dir=dir, manifest=manifest, subject=subject, root=root)
    table = _without(table, tuple(drop_classes))
    if label == 'subject':
        table = roles.of_subjects(table, split_seed=split_seed)
    elif label != 'class':
        raise UserError(f'data.label={label!r} is unknown; choose class or subject')
    train_on, usable = target_modes.distributions(table, target)
    attributes = target_modes.attributes(table, annotation, target) if annotation else None
    if attributes is not None:
        usable = ~np.isnan(attributes).all(1)
    available = roles.assign(table, folds=folds, fold=fold, split_seed=split_seed)
    height, width, native = table.shape
    channels = min(channels, native)
    fits = height is not None and height == width and height <= image_size
    side = height if fits and height is not None else image_size
    shape = (side, side, channels)
    digest = hashlib.sha256()
    opened = {}
    for role, own in splits.items():
        if own not in available:
            if role == own == 'test':
                continue
            raise UserError(f'data.splits.{role}={own!r} is no split of {table.name}; it has {", ".join(available)}')
        kept = available[own]
        kept = kept[usable[kept] if role == 'train' or annotation else table.labels[kept] >= 0]
        if not len(kept):
            raise UserError(f'data.splits.{role}={own!r} of {table.name} has no labelled example')
        if train_examples and role == 'train':
            kept = roles.stratified(table, kept, train_examples, split_seed)
        part = table.take(kept)
        opened[role] = Split(
            ids=part.ids,
            labels=part.labels,
            attributes=None if attributes is None else attributes[kept],
            shape=shape,
            read=_reader(part, shape, None if fits else side),
            weights=part.weights.astype(np.float32),
            distributions=None if train_on is None or role != 'train' else train_on[kept],
            subjects=part.subjects,
            groups=part.groups,
            subsets={key: rows for key, rows in part.subsets.items() if role != 'train' and 0 < rows.sum() < len(rows)},
            targets=part.targets,
        )
        _add_to(digest, role, part, opened[role])
    return Dataset(table.name, table.columns.get(annotation, table.classes), opened, table.columns, digest.hexdigest())


def _without(table: Table, names: tuple[str, ...]) -> Table:
    """The table without these classes, its labels and votes renumbered."""
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


def _reader(part: Table, shape: tuple[int, int, int], size: int | None) -> Callable[[np.ndarray], np.ndarray]:
    def read(index: np.ndarray) -> np.ndarray:
        images = np.empty((len(index), *shape), np.uint8)
        for position, (at, data) in enumerate(zip(index, part.fetch(index), strict=True)):
            images[position] = decode(data, size, shape[-1], f'{part.name}/{part.ids[at]}')
        return images

    return read


def _add_to(digest: 'hashlib._Hash', role: str, part: Table, split: Split) -> None:
    digest.update(f'{role}\0{len(part)}\0{part.weights.tobytes().hex() if (part.weights != 1).any() else ""}'.encode())
    for at, (name, label) in enumerate(zip(part.ids, part.labels, strict=True)):
        digest.update(
            f'{name}\0{part.classes[label] if part.classes else ""}\0'.encode('utf-8', 'surrogateescape')
            + part.digests[at].tobytes()
        )
    for extra in (split.distributions, split.attributes):
        if extra is not None:
            digest.update(extra.tobytes())
