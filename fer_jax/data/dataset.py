"""Data sets as the program sees them: classes, split roles, and images by index."""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fer_jax.config.choices import LABELS
from fer_jax.data.imaging import crop_folder
from fer_jax.data.imaging.codec import decode
from fer_jax.data.imaging.crop_folder import Cut
from fer_jax.data.imaging.image_files import describe_left_out
from fer_jax.data.quality import unreadable
from fer_jax.data.sources import files, folder, manifest, prepared
from fer_jax.data.split import Split
from fer_jax.data.tables import class_names, label_text, splitting
from fer_jax.data.tables import soft_labels as target_modes
from fer_jax.data.tables.table import Table
from fer_jax.errors import UserError
from fer_jax.utils import cache
from fer_jax.utils.paths import user_path

# fields of `config.data` that say what is loaded, as `load_dataset` takes them
SOURCE = (
    'name', 'dir', 'manifest', 'subject', 'label', 'target', 'annotation', 'canonical_classes', 'rename',
    'drop_classes', 'train_examples', 'folds', 'fold', 'shares', 'split_seed',
)  # fmt: skip
SMALL_PIXELS = 96 * 96  # pixels; for the interpreter's lock, threads that decode no more than this are slower than one
GREY_SAMPLE = 64  # images that tell whether a set is grey


@dataclass(frozen=True)
class Dataset:
    """The splits of a set by role ('train', 'validation', 'test'), and what they have in common.

    Attributes:
      classes: names of the labels, of the attributes, or of the levels.
      columns: names of the columns of each of the splits' `targets`.
      fingerprint: sha256 over ids, labels, distributions, weights and encoded images of these splits.
      left_out: role -> examples that are not scored, as another task trains on their images.
      cut: how its faces were cut out of photographs; None where that is unknown.
      notes: lines that a user should know: what was left out, what classes are called, what a split lacks.
    """

    name: str
    classes: tuple[str, ...]
    splits: dict[str, Split]
    columns: Mapping[str, tuple[str, ...]]
    fingerprint: str
    left_out: Mapping[str, int] = field(default_factory=dict)
    cut: Cut | None = None
    notes: tuple[str, ...] = ()

    def faces(self) -> dict[str, bool | float]:
        """Returns properties of the face images.

        Returns:
          {'grey'}, whether a sample of the training images is grey, and {'margin', 'aligned'} of `cut` where known.
        """
        split = self.splits['train']
        images = split.read(np.unique(np.linspace(0, len(split.labels) - 1, GREY_SAMPLE).astype(int)))
        return {'grey': bool((images == images[..., :1]).all())} | ({} if self.cut is None else self.cut._asdict())

    def describe_example(self, role: str, index: int) -> str:
        """Returns what an example is trained on in one line, see `label_text.describe_label`."""
        split = self.splits[role]
        return label_text.describe_label(split.learned[index], self.classes, kind=split.kind).replace('\n', ', ')

    def unscored(self, digests: np.ndarray) -> 'Dataset':
        """Returns the dataset without the validation and test examples of the given images.

        `left_out` counts them; a split that has no other examples is removed.

        Args:
          digests: uint8 [M, 32], sha256 of the encoded images.
        """
        splits, left_out = {}, {}
        digest = hashlib.sha256(self.fingerprint.encode())
        for role, split in self.splits.items():
            if role != 'train' and not (fresh := ~among(split.digests, digests)).all():
                left_out[role] = int((~fresh).sum())
                digest.update(role.encode() + fresh.tobytes())
                split = split.take(np.flatnonzero(fresh))
            if len(split.ids):
                splits[role] = split
        if not left_out:
            return self
        return dataclasses.replace(self, splits=splits, fingerprint=digest.hexdigest(), left_out=left_out)


def open_table(*, name: str, dir: str, manifest: str, subject: str, root: Path) -> Table:
    """Opens the one source that is named: a prepared set below `root`, a folder of class folders, or a manifest.

    Raises:
      UserError: none or several are named, or it cannot be read.
    """
    if sum(map(bool, (name, dir, manifest))) != 1:
        raise UserError(f'data.name={name!r}, data.dir={dir!r}, data.manifest={manifest!r}: give one, the others empty')
    if subject and not dir:
        raise UserError(f'data.subject={subject!r} is for data.dir; {name or manifest} has a column for subjects')
    if dir:
        return folder.scan(user_path(dir), subject=subject)
    return _manifest(user_path(manifest)) if manifest else prepared.open_table(name, root)


_manifest = manifest.read_manifest


def load_dataset(
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
    levels: bool = False,
    canonical_classes: bool = False,
    rename: Sequence[tuple[str, str]] = (),
    drop_classes: tuple[str, ...] = (),
    train_examples: int = 0,
    folds: int = 0,
    fold: int = 0,
    shares: Sequence[float] = (),
    split_seed: int = 0,
    classes: tuple[str, ...] = (),
    held_out: np.ndarray | None = None,
    given: Table | None = None,
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
        examples are dealt to each split; or 'none' for images without labels, of which there is a training split alone:
        of `dir` all images anywhere below it.
      target: 'label', or how votes become a distribution to train on, see `soft_labels.distributions`.
      annotation: a further annotation of the set, such as 'action_units', whose columns become attributes to tell in
        place of classes: present above 0, unknown where NaN. '' for none.
      levels: learn the annotation's numbers themselves.
      canonical_classes: names of expressions in any spelling, of a folder or a manifest, become the canonical ones, see
        `class_names.canonical_names`.
      rename: (class, new name) pairs; classes of one name become one, and the votes for them add up.
      drop_classes: classes, by their new names, whose examples are left out.
      train_examples: of the role 'train', a fixed choice that keeps the shares of its classes; 0 for all of them. A
        larger choice holds the smaller one, but for rounding.
      folds, fold, shares, split_seed: see `splitting.assign`.
      classes: those of another set, in its order, among which these labels are numbered.
      held_out: uint8 [M, 32], digests of images on which nothing may train: they are left out of the role 'train'.
      given: the table itself, in place of `name`, `dir` and `manifest`.

    Raises:
      UserError: there is no such set or split, or it is not prepared.
    """
    if label not in LABELS:
        raise UserError(f'data.label={label!r} is unknown; choose {", ".join(LABELS)}')
    whole = label == 'none' and dir != ''
    if given is not None:
        table = given
    elif whole:
        table = folder.unlabelled(user_path(dir))
    else:
        table = open_table(name=name, dir=dir, manifest=manifest, subject=subject, root=root)
    if label == 'none':
        table = dataclasses.replace(table, classes=(), labels=np.full(len(table), -1, np.int32))
        splits = {role: own for role, own in splits.items() if role == 'train'}
    notes = [*table.notes, *describe_left_out(table.left_out)]
    names = class_names.canonical_names(table.classes) if canonical_classes and not name else {}
    notes += class_names.describe_canonical(names)
    table = class_names.named(table, names, rename, drop_classes)
    if classes:
        table = class_names.numbered(table, classes)
    if label == 'class' and not annotation:
        notes += class_names.alike(table.classes)
        if len(table.classes) < 2:
            layout = f'; {folder.describe_layout(user_path(dir))}' if dir else ''
            have = f'the one class {table.classes[0]!r}' if table.classes else 'no class'
            raise UserError(f'{table.name} has {have}; two or more are needed{layout}')
    if label == 'subject':
        table = splitting.of_subjects(table, split_seed=split_seed, shares=shares)
    train_on, usable = target_modes.distributions(table, target)
    attributes = levels_of = None
    if annotation:
        values = target_modes.annotated(table, annotation, target)
        usable = ~np.isnan(values).all(1)
        if levels:
            levels_of = values
        else:
            attributes = target_modes.attributes(values)
    if label == 'none':
        usable = np.ones(len(table), bool)
    if whole:
        available = {splits['train']: np.arange(len(table))}
    else:
        available = splitting.assign(table, folds=folds, fold=fold, split_seed=split_seed, shares=shares)
    height, width, native = table.shape
    channels = min(channels, native)
    fits = height is not None and height == width and height <= image_size
    side = height if fits and height is not None else image_size
    shape = (side, side, channels)
    digest = hashlib.sha256()
    opened = {}
    chosen: dict[str, np.ndarray] = {}
    for role, own in splits.items():
        if own not in available:
            own = splitting.split_name(own)
        if own not in available:
            if role == own == 'test':
                continue
            own = splits[role]
            raise UserError(f'data.splits.{role}={own!r} is no split of {table.name}; it has {", ".join(available)}')
        kept = available[own]
        kept = kept[usable[kept] if role == 'train' or annotation else table.labels[kept] >= 0]
        if not len(kept):
            raise UserError(f'data.splits.{role}={own!r} of {table.name} has no labelled example')
        if held_out is not None and role == 'train':
            fresh = ~among(table.digests[kept], held_out)
            if not fresh.all():
                notes.append(
                    f'left out: {int((~fresh).sum()):,} of {len(kept):,} training images, on which the primary task is '
                    'selected or tested'
                )
            kept = kept[fresh]
            if not len(kept):
                raise UserError(f'data.splits.train={own!r} of {table.name}: all its images are held out for scoring')
        if train_examples and role == 'train':
            kept = splitting.stratified(table, kept, train_examples, split_seed)
        chosen[role] = kept
    used = table.take(np.unique(np.concatenate(list(chosen.values()))))
    kind = 'manifest' if manifest else 'unlabelled' if whole else 'folder' if dir else name
    remedy = unreadable.Remedy(kind, dir or manifest, subject, root)

    def explain(error: UserError) -> UserError:
        return UserError(unreadable.describe_unreadable(used, remedy) or str(error))

    if among(used.digests, np.frombuffer(files.UNREADABLE + files.EMPTY, np.uint8).reshape(2, 32)).any():
        raise explain(UserError(f'{table.name} changes while it is read; run this again'))
    if label == 'class' and not annotation and not classes:
        notes += class_names.describe_missing(table, chosen, dealt=bool(folds) or 'train' not in table.splits)
    for role, kept in chosen.items():
        part = table.take(kept)
        opened[role] = Split(
            ids=part.ids,
            digests=part.digests,
            labels=part.labels,
            attributes=None if attributes is None else attributes[kept],
            levels=None if levels_of is None else levels_of[kept],
            shape=shape,
            read=_reader(part, shape, None if fits else side, explain),
            weights=part.weights.astype(np.float32),
            distributions=None if train_on is None or role != 'train' else train_on[kept],
            subjects=part.subjects,
            groups=part.groups,
            subsets={key: rows for key, rows in part.subsets.items() if role != 'train' and 0 < rows.sum() < len(rows)},
            targets=part.targets,
            readers=1 if fits and side * side <= SMALL_PIXELS else os.cpu_count() or 1,
        )
        _add_to(digest, role, part, opened[role])
    if name or given is not None:
        cut = prepared.cut_of(name, table.notes)
    else:  # the log lies in the folder, of which a manifest may list images
        places = ((user_path(dir) if dir else user_path(manifest).parent) / table.ids[0]).parents[:3]
        cut = next(filter(None, map(crop_folder.logged, places)), None)
    label_names = table.columns.get(annotation, table.classes)
    return Dataset(table.name, label_names, opened, table.columns, digest.hexdigest(), cut=cut, notes=tuple(notes))


def among(digests: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns bool [N]: which of the digests, uint8 [N, 32], are among the others, uint8 [M, 32]."""
    known = {row.tobytes() for row in others}
    return np.array([row.tobytes() in known for row in digests], bool)


def _reader(
    part: Table, shape: tuple[int, int, int], size: int | None, explain: Callable[[UserError], UserError]
) -> Callable[[np.ndarray], np.ndarray]:
    def read(index: np.ndarray) -> np.ndarray:
        images = np.empty((len(index), *shape), np.uint8)
        try:
            for position, (row, data) in enumerate(zip(index, part.fetch(index), strict=True)):
                images[position] = decode(data, size, shape[-1], f'{part.name}/{part.ids[row]}')
        except UserError as error:
            raise explain(error) from None
        return images

    return read


def _add_to(digest: 'hashlib._Hash', role: str, part: Table, split: Split) -> None:
    digest.update(f'{role}\0{len(part)}\0{part.weights.tobytes().hex() if (part.weights != 1).any() else ""}'.encode())
    for index, (name, label) in enumerate(zip(part.ids, part.labels, strict=True)):
        digest.update(
            f'{name}\0{part.classes[label] if part.classes else ""}\0'.encode('utf-8', 'surrogateescape')
            + part.digests[index].tobytes()
        )
    for extra in (split.distributions, split.attributes, split.levels):
        if extra is not None:
            digest.update(extra.tobytes())


def open_split(name: str) -> Table:
    """Opens one split of a set, without the examples that have no label.

    Args:
      name: NAME, FOLDER or MANIFEST, with :SPLIT where wanted; else the test split, or all where there are no splits.
    """
    source, _, split = name.partition(':')
    path = user_path(source)
    kind = 'dir' if path.is_dir() else 'manifest' if path.is_file() else 'name'
    which = {'name': '', 'dir': '', 'manifest': '', kind: source}
    table = open_table(**which, subject='', root=cache.root() / 'datasets')
    available = splitting.assign(table) if set(table.splits) != {'all'} else {'all': np.arange(len(table))}
    split = split or ('test' if 'test' in available else 'all')
    usual = splitting.split_name(split)
    split = usual if split not in available and usual in available else split
    if split not in available:
        raise UserError(f'--data={name}: no split {split!r}; there are {", ".join(available)}')
    kept = available[split]
    return table.take(kept[table.labels[kept] >= 0])
