"""A folder of labelled images: `DIR/<class>/*`, or `DIR/<split>/<class>/*`; or of images without labels."""

import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np

from fer_jax.data.imaging.codec import IMAGE_SUFFIXES
from fer_jax.data.imaging.image_files import (
    describe_left_out,
    escape_undecodable,
    is_hidden,
    list_image_files,
    printable,
)
from fer_jax.data.sources import files
from fer_jax.data.tables.splitting import split_name
from fer_jax.data.tables.table import Table
from fer_jax.errors import UserError
from fer_jax.utils.patterns import compile_pattern

BESIDE = 'beside the class folders'
MOST_FOLDERS = 8  # folders that a message names

Found = list[tuple[str, str, str]]  # path relative to the folder, split, class


def scan(directory: Path, *, subject: str = '') -> Table:
    """Lists every image below the class folders, however deep; classes in sorted order, in Unicode's composed form.

    Args:
      subject: a regular expression that finds the subject in the relative path, by its first group or as a whole.

    Raises:
      UserError: the folder is missing, has no class folders, a class has no image at all, splits cannot be told from
        classes, or a path shows no subject.
    """
    _check(directory)
    listing = list_image_files(directory)
    top = _folders(directory)
    if not top:
        count = sum(1 for entry in directory.iterdir() if entry.is_file())
        raise UserError(
            f'data.dir={str(directory)!r} has no class folders (found {count} files); '
            f'expected {directory}/<class>/<image>'
        )
    if _has_splits(directory, top, listing.images):
        classes, examples = _with_splits(directory, top, listing.images)
    else:
        classes = {_composed(folder.name): folder for folder in top}
        examples = [(name, 'all', _composed(name.split('/')[0])) for name in listing.images if '/' in name]
    filled = {name for _, _, name in examples}
    if not filled:
        raise UserError(
            '; '.join(
                [
                    f'data.dir={str(directory)!r} has no images ({", ".join(sorted(IMAGE_SUFFIXES))})',
                    *describe_left_out(listing.left_out),
                    describe_layout(directory),
                ]
            )
        )
    if len(filled) > 1 and (empty := [folder for name, folder in classes.items() if name not in filled]):
        below = {
            reason: [name for name in names if any((directory / name).is_relative_to(folder) for folder in empty)]
            for reason, names in listing.left_out.items()
        }
        notes = describe_left_out({reason: names for reason, names in below.items() if names})
        raise UserError(
            '; '.join(
                [
                    f'{", ".join(map(str, empty))} has no images ({", ".join(sorted(IMAGE_SUFFIXES))})',
                    *notes,
                    'add some or remove the folder',
                ]
            )
        )
    left_out = dict(listing.left_out)
    if beside := sorted(set(listing.images) - {name for name, _, _ in examples}):
        left_out[BESIDE] = beside
    ids = np.array([name for name, _, _ in examples], np.str_)
    digests, fetch = files.open_files(directory, ids)
    names = tuple(sorted(filled))
    number = {name: index for index, name in enumerate(names)}
    return Table(
        name=directory.resolve().name,
        classes=names,
        ids=ids,
        splits=np.array([split for _, split, _ in examples], np.str_),
        labels=np.array([number[name] for _, _, name in examples], np.int32),
        digests=digests,
        fetch=fetch,
        subjects=subjects_of(ids, subject),
        left_out=left_out,
    )


def unlabelled(directory: Path) -> Table:
    """Lists every image anywhere below the folder, with label -1.

    Raises:
      UserError: the folder is missing or holds no image.
    """
    _check(directory)
    listing = list_image_files(directory)
    if not listing.images:
        notes = describe_left_out(listing.left_out)
        raise UserError('; '.join([f'{directory} holds no images ({", ".join(sorted(IMAGE_SUFFIXES))})', *notes]))
    ids = np.array(listing.images, np.str_)
    digests, fetch = files.open_files(directory, ids)
    labels = np.full(len(ids), -1, np.int32)
    splits = np.full(len(ids), 'all')
    return Table(directory.resolve().name, (), ids, splits, labels, digests, fetch, left_out=listing.left_out)


def describe_layout(directory: Path) -> str:
    """Returns which folders lie in a folder, to a depth of two, and how many images below each."""
    images = list_image_files(directory).images
    folders = [below for folder in _folders(directory) for below in (_folders(folder) or [folder])]
    paths = [folder.relative_to(directory).as_posix() for folder in folders]
    counts = Counter('/'.join(name.split('/')[:-1][:2]) for name in images)
    shown = ', '.join(f'{printable(path)}/ ({counts[path]:,} images)' for path in paths[:MOST_FOLDERS])
    text = f'found {shown}{" ..." if len(paths) > MOST_FOLDERS else ""} in {directory}'
    parents = {folder.parent for folder in folders if counts[folder.relative_to(directory).as_posix()]}
    if len(parents) == 1 and len(folders) > 1 and (parent := parents.pop()) != directory:
        return f'{text}; perhaps data.dir={str(parent)!r} is meant'
    return f'{text}; expected {directory}/<class>/<image>, or {directory}/<train|validation|test>/<class>/<image>'


def subjects_of(ids: np.ndarray, pattern: str) -> np.ndarray:
    """Finds a subject in each id, by a regular expression.

    Args:
      ids: str [N].
      pattern: its first group is the subject, or what it finds as a whole; see `compile_pattern`.

    Returns:
      str [N], '' without a pattern.

    Raises:
      UserError: the pattern is no regular expression, or finds nothing in an id.
    """
    if not pattern:
        return np.full(len(ids), '')
    try:
        expression = compile_pattern(pattern)
    except ValueError as error:
        raise UserError(f'data.subject={pattern!r} is no regular expression: {error}') from None
    matches = [expression.search(escape_undecodable(str(name))) for name in ids]
    for name, match in zip(ids, matches, strict=True):
        if match is None or not (match[1] if expression.groups else match[0]):
            raise UserError(f'data.subject={pattern!r} finds no subject in {str(name)!r}')
    return np.array([match[1] if expression.groups else match[0] for match in matches if match], np.str_)


def _check(directory: Path) -> None:
    if not directory.is_dir():
        kind = 'is a file, not a folder; an archive has to be unpacked' if directory.is_file() else 'is not a folder'
        raise UserError(f'data.dir={str(directory)!r} {kind}; expected {directory}/<class>/<image>')


def _has_splits(directory: Path, top: list[Path], images: list[str]) -> bool:
    """Tells folders of splits from folders of classes, by their names.

    Raises:
      UserError: a training split with class folders lies beside folders of other names.
    """
    filled = {name.split('/')[0] for name in images if '/' in name}
    splits = [folder.name for folder in top if split_name(folder.name)]
    others = [folder.name for folder in top if folder.name in filled and not split_name(folder.name)]
    if not splits or not others:
        return bool(splits)
    if any(split_name(name) == 'train' and _nested(name, images) for name in splits):
        raise UserError(
            f'{directory} holds the splits {", ".join(splits)} and beside them {", ".join(others[:MOST_FOLDERS])}; '
            'move these elsewhere, or name them train, validation or test'
        )
    return False


def _nested(folder: str, images: list[str]) -> bool:
    """Whether all images of a folder lie in folders of their own."""
    own = [name for name in images if name.startswith(f'{folder}/')]
    return bool(own) and all(name.count('/') > 1 for name in own)


def _with_splits(directory: Path, top: list[Path], images: list[str]) -> tuple[dict[str, Path], Found]:
    seen: dict[str, str] = {}
    classes: dict[str, Path] = {}
    for folder in top:
        split = split_name(folder.name)
        if not split:
            continue
        below = _folders(folder)
        if not below:
            count = sum(name.startswith(f'{folder.name}/') for name in images)
            raise UserError(
                f'{folder} has no class folders (found {count:,} images); expected {folder}/<class>/<image>. Images '
                'without labels have to be moved elsewhere'
            )
        if split in seen.values():
            twice = ', '.join(name for name, other in seen.items() if other == split)
            raise UserError(f'{directory} has two folders for the split {split}, {twice} and {folder.name}; keep one')
        seen[folder.name] = split
        classes = {_composed(sub.name): sub for sub in below} | classes
    if 'train' not in seen.values():
        raise UserError(f'{directory} has no train folder (found {", ".join(folder.name for folder in top)})')
    examples = [
        (name, seen[parts[0]], _composed(parts[1]))
        for name in images
        if len(parts := name.split('/')) > 2 and parts[0] in seen
    ]
    return classes, examples


def _folders(directory: Path) -> list[Path]:
    return sorted(entry for entry in directory.iterdir() if entry.is_dir() and not is_hidden(entry.name))


def _composed(name: str) -> str:
    return unicodedata.normalize('NFC', name)
