"""A folder of labelled images: `DIR/<class>/*`, or `DIR/<split>/<class>/*`; or of images without labels."""

import re
from pathlib import Path

import numpy as np

from fer_jax.data.imaging.codec import IMAGE_SUFFIXES
from fer_jax.data.sources import files
from fer_jax.data.tables.table import Table
from fer_jax.errors import UserError

SPLIT_NAMES = {'train': 'train', 'training': 'train', 'validation': 'validation', 'valid': 'validation'}
SPLIT_NAMES |= {'val': 'validation', 'test': 'test'}

Found = list[tuple[str, str, int]]  # path relative to the folder, split, label


def scan(directory: Path, *, subject: str = '') -> Table:
    """Every image below the class folders; classes in sorted order.

    Args:
      subject: a regular expression that finds the subject in the relative path, by its first group or as a whole.

    Raises:
      UserError: the folder is missing, has no class folders, a class has no image, classes differ between splits, or
        a path shows no subject.
    """
    _check(directory)
    top = _folders(directory)
    if not top:
        files_here = sum(1 for entry in directory.iterdir() if entry.is_file())
        raise UserError(
            f'data.dir={str(directory)!r} has no class folders (found {files_here} files); '
            f'expected {directory}/<class>/<image>'
        )
    if {folder.name.lower() for folder in top} <= set(SPLIT_NAMES):
        classes, found = _with_splits(directory, top)
    else:
        classes = tuple(folder.name for folder in top)
        found = [(name, 'all', label) for label, folder in enumerate(top) for name in _images(directory, folder)]
    found.sort()
    ids = np.array([name for name, _, _ in found], np.str_)
    digests, fetch = files.open_files(directory, ids)
    return Table(
        name=directory.resolve().name,
        classes=classes,
        ids=ids,
        splits=np.array([split for _, split, _ in found], np.str_),
        labels=np.array([label for _, _, label in found], np.int32),
        digests=digests,
        fetch=fetch,
        subjects=subjects_of(ids, subject),
    )


def unlabelled(directory: Path) -> Table:
    """Every image anywhere below the folder, with label -1.

    Raises:
      UserError: the folder is missing or holds no image.
    """
    _check(directory)
    found = sorted(
        str(path.relative_to(directory))
        for path in directory.rglob('*')
        if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith('.')
    )
    if not found:
        raise UserError(f'{directory} holds no images ({", ".join(sorted(IMAGE_SUFFIXES))})')
    ids = np.array(found, np.str_)
    digests, fetch = files.open_files(directory, ids)
    labels = np.full(len(ids), -1, np.int32)
    return Table(directory.resolve().name, (), ids, np.full(len(ids), 'all'), labels, digests, fetch)


def subjects_of(ids: np.ndarray, pattern: str) -> np.ndarray:
    """str [N]: the subject that `pattern` finds in each id, '' without a pattern.

    Raises:
      UserError: the pattern is no regular expression, or finds nothing in an id.
    """
    if not pattern:
        return np.full(len(ids), '')
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UserError(f'data.subject={pattern!r} is no regular expression: {error}') from None
    found = [expression.search(name) for name in ids]
    for name, match in zip(ids, found, strict=True):
        if match is None or not (match[1] if expression.groups else match[0]):
            raise UserError(f'data.subject={pattern!r} finds no subject in {str(name)!r}')
    return np.array([match[1] if expression.groups else match[0] for match in found if match], np.str_)


def _check(directory: Path) -> None:
    if not directory.is_dir():
        raise UserError(f'data.dir={str(directory)!r} is not a folder; expected {directory}/<class>/<image>')


def _with_splits(directory: Path, top: list[Path]) -> tuple[tuple[str, ...], Found]:
    found: Found = []
    classes: tuple[str, ...] = ()
    seen: dict[str, Path] = {}
    for folder in top:
        split = SPLIT_NAMES[folder.name.lower()]
        names = tuple(sub.name for sub in _folders(folder))
        if not names:
            raise UserError(f'{folder} has no class folders; expected {folder}/<class>/<image>')
        if classes and names != classes:
            odd = sorted(set(names) ^ set(classes))
            raise UserError(f'{folder} and {top[0]} differ in the classes {", ".join(odd)}; each split needs them all')
        if split in seen:
            raise UserError(f'{directory} has two folders for the split {split}; keep one')
        classes, seen[split] = names, folder
        for label, sub in enumerate(_folders(folder)):
            found += [(name, split, label) for name in _images(directory, sub)]
    if 'train' not in seen:
        raise UserError(f'{directory} has no train folder (found {", ".join(folder.name for folder in top)})')
    return classes, found


def _folders(directory: Path) -> list[Path]:
    return sorted(entry for entry in directory.iterdir() if entry.is_dir() and not entry.name.startswith('.'))


def _images(directory: Path, folder: Path) -> list[str]:
    """Images of a class folder, relative to `directory`."""
    found = [
        str(entry.relative_to(directory))
        for entry in folder.iterdir()
        if entry.is_file() and entry.suffix.lower() in IMAGE_SUFFIXES and not entry.name.startswith('.')
    ]
    if not found:
        raise UserError(f'{folder} has no images ({", ".join(sorted(IMAGE_SUFFIXES))}); add some or remove the folder')
    return found
