"""A folder of labelled images: `DIR/<class>/*`, or `DIR/<split>/<class>/*`."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from fer_jax.errors import UserError

SUFFIXES = frozenset({'.jpg', '.jpeg', '.png', '.bmp', '.webp', '.gif', '.tif', '.tiff', '.pgm', '.ppm'})
SPLIT_NAMES = {'train': 'train', 'training': 'train', 'validation': 'validation', 'valid': 'validation'}
SPLIT_NAMES |= {'val': 'validation', 'test': 'test'}
SHARES = {'validation': 0.15, 'test': 0.15}
CARVED = 0.10

Listing = dict[str, list[tuple[str, int]]]


def scan(directory: Path) -> tuple[tuple[str, ...], Listing]:
    """Class names in sorted order, and for each split its (path relative to `directory`, label), sorted.

    Without split folders each class is dealt out by a hash of the relative path: 15 % validation, 15 % test, at least
    one image of each where the class has three. Where split folders lack validation, 10 % of train becomes it. So a
    new image never moves an old one to another split, except at the rounding of a class.

    Raises:
      UserError: the folder is missing, has no class folders, or a class has no image, or classes differ between splits.
    """
    if not directory.is_dir():
        raise UserError(f'data.dir={str(directory)!r} is not a folder; expected {directory}/<class>/<image>')
    top = _folders(directory)
    if not top:
        files = sum(1 for entry in directory.iterdir() if entry.is_file())
        raise UserError(
            f'data.dir={str(directory)!r} has no class folders (found {files} files); '
            f'expected {directory}/<class>/<image>'
        )
    if {folder.name.lower() for folder in top} <= set(SPLIT_NAMES):
        return _with_splits(directory, top)
    classes = tuple(folder.name for folder in top)
    dealt: Listing = {'train': [], 'validation': [], 'test': []}
    for label, folder in enumerate(top):
        names = [str(path) for path in _images(directory, folder)]
        for split, chosen in deal(names, SHARES).items():
            dealt[split] += [(name, label) for name in chosen]
    return classes, {split: sorted(items) for split, items in dealt.items()}


def _with_splits(directory: Path, top: list[Path]) -> tuple[tuple[str, ...], Listing]:
    listing: Listing = {}
    classes: tuple[str, ...] = ()
    for folder in top:
        split = SPLIT_NAMES[folder.name.lower()]
        names = tuple(sub.name for sub in _folders(folder))
        if not names:
            raise UserError(f'{folder} has no class folders; expected {folder}/<class>/<image>')
        if classes and names != classes:
            odd = sorted(set(names) ^ set(classes))
            raise UserError(f'{folder} and {top[0]} differ in the classes {", ".join(odd)}; each split needs them all')
        if split in listing:
            raise UserError(f'{directory} has two folders for the split {split}; keep one')
        classes = names
        listing[split] = sorted(
            (str(path), label) for label, sub in enumerate(_folders(folder)) for path in _images(directory, sub)
        )
    if 'train' not in listing:
        raise UserError(f'{directory} has no train folder (found {", ".join(folder.name for folder in top)})')
    if 'validation' not in listing:
        kept: list[tuple[str, int]] = []
        carved: list[tuple[str, int]] = []
        for label in range(len(classes)):
            dealt = deal([name for name, other in listing['train'] if other == label], {'validation': CARVED})
            kept += [(name, label) for name in dealt['train']]
            carved += [(name, label) for name in dealt['validation']]
        listing |= {'train': sorted(kept), 'validation': sorted(carved)}
    return classes, listing


def deal(names: Iterable[str], shares: dict[str, float]) -> dict[str, list[str]]:
    """Cuts `names`, ordered by their hash, into the given shares; the rest is train."""
    ordered = sorted(names, key=lambda name: hashlib.sha256(name.encode('utf-8', 'surrogateescape')).digest())
    dealt, first = {}, 0
    for split, share in shares.items():
        count = max(round(share * len(ordered)), 1) if len(ordered) > len(shares) else 0
        dealt[split] = ordered[first : first + count]
        first += count
    return dealt | {'train': ordered[first:]}


def _folders(directory: Path) -> list[Path]:
    return sorted(entry for entry in directory.iterdir() if entry.is_dir() and not entry.name.startswith('.'))


def _images(directory: Path, folder: Path) -> list[Path]:
    """Images of a class folder, relative to `directory`, as POSIX paths."""
    found = [
        entry.relative_to(directory)
        for entry in sorted(folder.iterdir())
        if entry.is_file() and entry.suffix.lower() in SUFFIXES and not entry.name.startswith('.')
    ]
    if not found:
        raise UserError(f'{folder} has no images ({", ".join(sorted(SUFFIXES))}); add some or remove the folder')
    return found
