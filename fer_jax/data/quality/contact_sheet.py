"""Pictures of a set: examples of every class, and of every kind of finding."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.data.imaging import codec
from fer_jax.data.quality.findings import Inspected, Report, conflicting, splits_in_order
from fer_jax.utils import fonts

WIDTH, TILE, GAP, LINE = 1570, 100, 8, 14  # pixels
NAME = 150  # the column of class names
MOST_CLASSES, MOST_EXAMPLES, MOST_GROUPS, MOST_MEMBERS = 40, 56, 42, 4
INK, QUIET, WRONG, PAPER, FRAME = '#222222', '#6a6f78', '#b3261e', '#ffffff', '#dfe2e7'
SPLIT_COLOURS = ('#8a8f98', '#1f6fb4', '#d1495b', '#3c8d5a', '#b58900')


def write_sheets(report: Report, data: Inspected, folder: Path) -> list[Path]:
    """Writes classes.png, and findings_<kind>.png for every kind that was found; returns their paths.

    Which examples are shown depends on the set alone. At most 56 examples or 42 groups of a kind are shown, evenly
    spaced over all that were found. Pictures of findings from an earlier examination in `folder` are removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob('findings_*.png'):
        old.unlink()
    sheets = {'classes': _classes(report, data)}
    singles = {
        'blank': np.flatnonzero(report.blank),
        'tiny': np.flatnonzero(report.tiny),
        'odd_shaped': np.flatnonzero(report.odd),
        'unusual': np.array(list(report.notes), np.int64),
    }
    groups = {
        'duplicates': report.duplicates,
        'conflicts': [group for group in report.duplicates if conflicting(data.labels[group])],
        'leaks': [group for group in report.duplicates if len(set(data.splits[group].tolist())) > 1],
        'near_duplicates': report.near_duplicates,
    }
    for kind, indices in singles.items():
        if len(indices):
            blocks = [indices[index : index + 1] for index in _spread(len(indices), MOST_EXAMPLES)]
            sheets[f'findings_{kind}'] = _blocks(data, kind, f'{len(indices):,} found', blocks)
    for kind, members in groups.items():
        if members:
            blocks = [members[index] for index in _spread(len(members), MOST_GROUPS)]
            sheets[f'findings_{kind}'] = _blocks(data, kind, f'{len(members):,} groups found', blocks)
    paths = []
    for name, sheet in sheets.items():
        paths.append(folder / f'{name}.png')
        sheet.save(paths[-1])
    return paths


def _classes(report: Report, data: Inspected) -> Any:
    """A row a class: its name, its count, and examples of each split, underlined in the colour of the split."""
    from PIL import Image, ImageDraw

    splits = splits_in_order(data.splits)
    colours = {split: SPLIT_COLOURS[index % len(SPLIT_COLOURS)] for index, split in enumerate(splits)}
    labels = sorted(set(data.labels.tolist()))
    shown = [labels[index] for index in _spread(len(labels), MOST_CLASSES)]
    columns = (WIDTH - NAME - GAP) // (TILE + GAP)
    top = 3 * LINE
    sheet = Image.new('RGB', (WIDTH, top + len(shown) * (TILE + 2 * GAP) + GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    part = '' if len(shown) == len(labels) else f', {len(shown):,} are shown'
    _write(pen, (GAP, LINE), f'{len(data.classes):,} classes{part}', INK, 14)
    left = NAME + 2 * GAP + 200
    for split in splits:
        pen.rectangle((left, LINE + 6, left + 24, LINE + 9), colours[split])
        left += 32 + _write(pen, (left + 32, LINE), _line(split), QUIET, 14) + 24
    readable = report.shapes[:, 0] > 0
    for row, label in enumerate(shown):
        y = top + row * (TILE + 2 * GAP)
        here = np.flatnonzero((data.labels == label) & readable)
        _write(pen, (GAP, y + TILE // 2 - LINE), _fitted(_label(data, label), NAME, 14), INK, 14)
        _write(pen, (GAP, y + TILE // 2 + 4), f'{int((data.labels == label).sum()):,}', QUIET, 12)
        for column, index in enumerate(_drawn(here, data.splits, splits, columns, label)):
            x = NAME + GAP + column * (TILE + GAP)
            sheet.paste(_tile(data, index), (x, y))
            pen.rectangle((x, y + TILE + 2, x + TILE - 1, y + TILE + 5), colours[str(data.splits[index])])
    return sheet


def _drawn(here: np.ndarray, splits: np.ndarray, names: list[str], number: int, label: int) -> list[int]:
    """Up to `number` positions, taken in turn from a random order of each split, then sorted by split."""
    generator = np.random.Generator(np.random.Philox(key=label + 1))
    mixed = generator.permutation(here)
    turns = {split: mixed[splits[mixed] == split].tolist() for split in names}
    rounds = [queue[turn] for turn in range(number) for queue in turns.values() if turn < len(queue)][:number]
    return sorted(rounds, key=lambda index: names.index(str(splits[index])))


def _blocks(data: Inspected, kind: str, number: str, blocks: list[np.ndarray]) -> Any:
    """Framed blocks from left to right: members side by side, below each its id, its split and its label."""
    from PIL import Image, ImageDraw

    shown = [_members(data, block) for block in blocks]
    two_lines = any(_id_lines(data, index)[0] for members in shown for index in members)
    height = TILE + (3 + two_lines) * LINE + 2 * GAP
    places, x, y = [], GAP, 3 * LINE
    for block in blocks:
        wide = min(len(block), MOST_MEMBERS) * (TILE + GAP) + GAP
        if x + wide + GAP > WIDTH:
            x, y = GAP, y + height + GAP
        places.append((x, y, wide))
        x += wide + GAP
    sheet = Image.new('RGB', (WIDTH, y + height + GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    part = '' if number.startswith(f'{len(blocks):,} ') else f'; {len(blocks):,} are shown'
    _write(pen, (GAP, LINE), f'{kind.replace("_", " ")}: {number}{part}', INK, 14)
    for block, members, (left, top, wide) in zip(blocks, shown, places, strict=True):
        pen.rectangle((left, top, left + wide - 1, top + height - 1), outline=FRAME)
        colour = WRONG if conflicting(data.labels[block]) else INK
        for column, index in enumerate(members):
            corner = (left + GAP + column * (TILE + GAP), top + GAP)
            sheet.paste(_tile(data, index), corner)
            lines = [
                (text, QUIET) for text in _id_lines(data, index)[-1 - two_lines :] + [_line(str(data.splits[index]))]
            ]
            lines.append((_label(data, int(data.labels[index])), colour))
            for row, (text, tint) in enumerate(lines):
                _write(pen, (corner[0], corner[1] + TILE + 2 + row * LINE), _fitted(text, TILE, 12), tint, 12)
        if len(block) > MOST_MEMBERS:
            _write(pen, (left + wide - 36, top + height - LINE - 2), f'+{len(block) - MOST_MEMBERS:,}', INK, 12)
    return sheet


def _id_lines(data: Inspected, index: int) -> list[str]:
    """An id in two lines, the first of them empty where one is enough."""
    text = _line(str(data.ids[index]))
    tail = _fitted(text, TILE, 12, '')
    return [_fitted(text.removesuffix(tail), TILE, 12), tail]


def _label(data: Inspected, label: int) -> str:
    return _line(data.classes[label]) if label >= 0 else 'no label'


def _line(text: str) -> str:
    """Returns a name as one line that pictures can show."""
    return fonts.showable(text).replace('\n', ' ')


def _members(data: Inspected, block: np.ndarray) -> list[int]:
    """The members to show: those with a new label or split first."""
    seen: set[tuple[int, str]] = set()
    fresh: list[int] = []
    others: list[int] = []
    for index in block.tolist():
        key = int(data.labels[index]), str(data.splits[index])
        (others if key in seen else fresh).append(index)
        seen.add(key)
    return sorted([*fresh, *others][:MOST_MEMBERS])


def _tile(data: Inspected, index: int) -> Any:
    """The image within a square of `TILE` pixels, its aspect kept."""
    from PIL import Image

    image = Image.fromarray(codec.open_image(data.read(index))[0]).convert('RGB')
    factor = TILE / max(image.size)
    width, height = (max(1, round(side * factor)) for side in image.size)
    tile = Image.new('RGB', (TILE, TILE), FRAME)
    tile.paste(image.resize((width, height), Image.Resampling.BICUBIC), ((TILE - width) // 2, (TILE - height) // 2))
    return tile


def _spread(number: int, most: int) -> Iterable[int]:
    """Up to `most` positions, evenly spaced over `number`."""
    return sorted({index * number // min(number, most) for index in range(min(number, most))})


def _write(pen: Any, corner: tuple[int, int], text: str, colour: str, size: int) -> int:
    """Writes, and returns the width."""
    shown, _, path = fonts.fit_font(text)
    font = fonts.pillow_font(path, size)
    pen.text(corner, shown, colour, font=font)
    return round(font.getlength(shown))


def _fitted(text: str, width: int, size: int, before: str = '...') -> str:
    """The end of a text that is too long, with `before` in front: ends tell file names apart."""
    font = fonts.pillow_font(fonts.fit_font(text).path, size)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(before + text) > width:
        text = text[1:]
    return before + text
