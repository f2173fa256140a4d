"""Tables for a terminal."""

import unicodedata
from collections.abc import Collection, Sequence

GAP = '  '


def align(rows: Sequence[Sequence[str]], *, left: Collection[int]) -> list[str]:
    """Returns the rows of a table as lines of text; every column is as wide as its widest cell.

    Args:
      rows: cells; rows may be shorter than others.
      left: positions of the columns that are aligned to the left; others are aligned to the right.
    """
    widths = [0] * max(map(len, rows), default=0)
    for row in rows:
        for column, cell in enumerate(row):
            widths[column] = max(widths[column], display_width(cell))
    lines = []
    for row in rows:
        cells = []
        for column, cell in enumerate(row):
            space = ' ' * (widths[column] - display_width(cell))
            cells.append(cell + space if column in left else space + cell)
        lines.append(GAP.join(cells).rstrip())
    return lines


def display_width(text: str) -> int:
    """Returns the number of terminal columns that a text takes: two for a wide character, none for an accent."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in 'WF' else 1
        for character in text
    )
