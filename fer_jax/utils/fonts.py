"""Fonts in which pictures show any text: an installed font that has its characters, or escapes in their place."""

import functools
import sys
import unicodedata
from pathlib import Path
from typing import Any, NamedTuple

DEFAULT = 'DejaVu Sans'  # comes with matplotlib
WITHOUT_LETTERS = ('Last Resort', 'STIX', 'cm', 'Color Emoji', 'Math')  # boxes, symbols of formulas, bitmaps
JOINER, IGNORED = 'Cf', ('Cf', 'Mn')  # Unicode categories of joiners, and of variation selectors
_reported: list[str] = []


class Shown(NamedTuple):
    """A text as a picture shows it.

    Attributes:
      text: the text; characters that no font has are written as `U+9AD8`.
      family: name of the font.
      path: file of the font.
    """

    text: str
    family: str
    path: str


@functools.lru_cache(4096)
def fit_font(text: str) -> Shown:
    """Chooses the installed font that has the most characters of a text, and replaces those that it lacks.

    The first replacement in a process is printed.

    Args:
      text: one line or several; other control characters and undecodable bytes are escaped.
    """
    printable = ''.join(map(_escape_control, text.encode('utf-8', 'backslashreplace').decode()))
    wanted = {character for character in printable if character != '\n'}
    family, path = DEFAULT, default_font()
    if not characters_of(path).issuperset(map(ord, wanted)):
        family, path = max(
            installed_fonts(), key=lambda font: len(characters_of(font[1]).intersection(map(ord, wanted)))
        )
    shown = ''.join(character if character == '\n' else _replace(character, path) for character in printable)
    if 'U+' in shown and 'U+' not in printable:
        _report(printable, shown)
    return Shown(shown, family, path)


def showable(text: str) -> str:
    """Returns a text as pictures show it, see `fit_font`."""
    return fit_font(text).text


@functools.lru_cache(64)
def pillow_font(path: str, size: int) -> Any:
    """Opens a font for Pillow.

    Args:
      path: file of the font.
      size: pixels.
    """
    from PIL import ImageFont

    return ImageFont.truetype(path, size)


@functools.cache
def default_font() -> str:
    """Returns the path of the font `DEFAULT`."""
    import matplotlib

    return str(Path(matplotlib.get_data_path(), 'fonts', 'ttf', f'{DEFAULT.replace(" ", "")}.ttf'))


@functools.cache
def installed_fonts() -> tuple[tuple[str, str], ...]:
    """Returns the names and paths of the upright fonts with letters, `DEFAULT` first."""
    from matplotlib import font_manager

    fonts = {DEFAULT: default_font()}
    for entry in sorted(font_manager.fontManager.ttflist, key=lambda entry: abs(int(entry.weight) - 400)):
        if entry.style == 'normal' and not any(part in entry.name for part in WITHOUT_LETTERS):
            fonts.setdefault(entry.name, entry.fname)
    return tuple(fonts.items())


@functools.cache
def characters_of(path: str) -> frozenset[int]:
    """Returns the code points that a font file has; none where it cannot be read or is of bitmaps."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(path)
    except (OSError, RuntimeError):
        return frozenset()
    return frozenset(font.get_charmap()) if font.scalable else frozenset()


def _escape_control(character: str) -> str:
    if character.isprintable() or character == '\n' or unicodedata.category(character) == JOINER:
        return character
    return character.encode('unicode_escape').decode()


def _replace(character: str, path: str) -> str:
    if ord(character) in characters_of(path):
        return character
    if unicodedata.category(character) in IGNORED:
        return ''
    plain = unicodedata.normalize('NFKC', character)
    if all(ord(each) in characters_of(path) for each in plain):
        return plain
    return f'U+{ord(character):04X}'


def _report(text: str, shown: str) -> None:
    if not _reported:
        message = f'no installed font shows {text!r}; pictures have {shown!r}'
        print(f'{message}; install a font that has it, such as Noto Sans CJK', file=sys.stderr)
    _reported.append(text)
