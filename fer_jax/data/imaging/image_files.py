"""The image files below a folder, and what lies there beside them."""

import os
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from fer_jax.data.imaging.codec import IMAGE_SUFFIXES
from fer_jax.data.imaging.pillow_decoder import missing_decoder
from fer_jax.errors import UserError
from fer_jax.utils import limits

HIDDEN = 'hidden'
NO_IMAGE = 'no image by its suffix'
SPECIAL = 'no regular file'
BROKEN_LINK = 'a link to nothing'
LISTED_TWICE = 'a link to a folder that is read already'
FORBIDDEN = 'not to be read by this user'
OWN = 'written by fer_jax'
WRITTEN = ({'config.json', 'checkpoints'}, {'findings.json', 'classes.png'})  # in a run, and in an examination
SYSTEM_NAMES = ('__MACOSX', 'Thumbs.db', 'desktop.ini', 'lost+found', '@eaDir', '$RECYCLE.BIN')
MOST_NAMED = 3  # names of each kind that a message gives


class Listing(NamedTuple):
    """The files in a folder.

    Attributes:
      images: POSIX paths relative to the folder, sorted.
      left_out: reason -> the other files, as paths of files, or of folders with a slash at their end; sorted.
    """

    images: list[str]
    left_out: dict[str, list[str]]


def list_image_files(directory: Path, suffixes: Collection[str] = IMAGE_SUFFIXES) -> Listing:
    """Lists the image files anywhere below a folder, by their suffixes, in upper case or lower.

    Links to folders are followed, each folder once and under its own name where it lies below `directory` itself; so
    links may lead in a circle. Everything else is in `left_out`.

    Args:
      suffixes: in lower case, with their dot. Of an image suffix without an installed decoder files are left out.
    """
    images, left_out = list[str](), dict[str, list[str]]()
    for name, reason in walk(directory):
        suffix = os.path.splitext(name)[1].lower()
        reason = reason or ('' if suffix in suffixes else NO_IMAGE) or missing_decoder(suffix)
        if reason:
            left_out.setdefault(reason, []).append(name)
        else:
            images.append(name)
    return Listing(sorted(images), {reason: sorted(names) for reason, names in sorted(left_out.items())})


def describe_left_out(left_out: Mapping[str, Collection[str]]) -> list[str]:
    """Returns a line for each reason for which files are left out, with their number and some of their names."""
    lines = []
    for reason, names in left_out.items():
        shown = ', '.join(printable(name) for name in list(names)[:MOST_NAMED])
        lines.append(f'left out: {len(names):,} ({reason}): {shown}{" ..." if len(names) > MOST_NAMED else ""}')
    return lines


def escape_undecodable(text: str) -> str:
    """Returns text that can be encoded as UTF-8: undecodable bytes of a file name are escaped with backslashes."""
    return text.encode('utf-8', 'backslashreplace').decode()


def printable(name: str) -> str:
    """Returns a file name that a terminal can print: undecodable bytes and control characters are escaped."""
    plain = escape_undecodable(name)
    return plain if plain.isprintable() else repr(plain)


def is_hidden(name: str) -> bool:
    """Tells whether a file or folder is one that systems and programs keep for themselves."""
    return name.startswith('.') or name in SYSTEM_NAMES


def walk(root: Path) -> Iterator[tuple[str, str]]:
    """Yields (path, why it is left out or '') of files, and of the folders that are left out.

    Links to folders come last, so that what they point to keeps its own name. They may lead out of `root`.

    Raises:
      UserError: the folder cannot be read, or links lead to too many files that are no images, such as a link to /usr.
    """
    beyond, is_linked = 0, False
    seen: set[tuple[int, int]] = set()
    folders, links, real_root = [''], list[str](), root.resolve()
    while folders or links:
        is_linked |= not folders
        prefix = folders.pop() if folders else links.pop(0)
        try:
            status = os.stat(root / prefix)
            leads_up = prefix and real_root.is_relative_to((root / prefix).resolve())
            if leads_up or (status.st_dev, status.st_ino) in seen:
                yield prefix, LISTED_TWICE
                continue
            seen.add((status.st_dev, status.st_ino))
            entries = sorted(os.scandir(root / prefix), key=lambda entry: entry.name)
            if prefix and any(wanted <= {entry.name for entry in entries} for wanted in WRITTEN):
                yield prefix, OWN
                continue
        except OSError as error:
            if not prefix:
                raise UserError(f'{str(root)!r} cannot be read ({error.strerror})') from error
            yield prefix, FORBIDDEN
            continue
        for entry in entries:
            name = f'{prefix}{entry.name}'
            if is_linked and os.path.splitext(name)[1].lower() not in IMAGE_SUFFIXES:
                beyond += 1
                if beyond > limits.LINKED_ENTRIES:
                    link = str(root / prefix)
                    raise UserError(
                        f'{link!r}: links in {str(root)!r} lead to more than {limits.LINKED_ENTRIES:,} entries that '
                        'are no images; remove the link'
                    )
            try:
                mode = os.stat(entry.path).st_mode
            except OSError:
                yield name, BROKEN_LINK if entry.is_symlink() else FORBIDDEN
                continue
            if is_hidden(entry.name):
                yield f'{name}/' if stat.S_ISDIR(mode) else name, HIDDEN
            elif stat.S_ISDIR(mode):
                (links if entry.is_symlink() else folders).append(f'{name}/')
            else:
                yield name, '' if stat.S_ISREG(mode) else SPECIAL
