"""Draws what the network sees in training: a row an example, first as it is, then augmented, a column a step.

    python -m fer_jax.preview_augmentation --config quickstart --out sheet.png

Every key of the config can be overridden as in training, `--config.data.augment.rotate=20`. Below each image stands its
label, or several and their shares where examples are mixed or labels are soft; attributes that are present; or levels.
"""

import argparse
import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image, ImageDraw

from fer_jax.cli import run_and_exit, run_command
from fer_jax.config.flags import checked_config, parse
from fer_jax.data import dataset
from fer_jax.data.augmentation.augment import Augment, augment_batch
from fer_jax.data.augmentation.geometry import resize
from fer_jax.data.loading.sampler import indices
from fer_jax.data.tables.label_text import describe_label
from fer_jax.errors import UserError
from fer_jax.utils import cache, fonts
from fer_jax.utils.paths import path_argument

CELL, LINE, GAP = 96, 12, 4  # pixels: least side of an image, height of a line of text, distance
MIN_LINES, MOST_LINES, MOST_CHARACTERS = 2, 8, 18  # of text below an image


def main(argv: list[str] | None = None) -> int:
    """Draws augmented training images as the arguments say, and returns the exit status: 0, or 2 for a wrong input.

    Args:
      argv: arguments; None takes those of the process.
    """
    parser = argparse.ArgumentParser(
        prog='fer-jax preview',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument('--out', type=path_argument, default=Path('augmentation.png'), help='the picture to write')
    parser.add_argument('--rows', type=int, default=8, help='examples')
    parser.add_argument('--draws', type=int, default=8, help='augmented images of each')
    parser.add_argument('--phase', type=int, default=0, help='whose augmentation, counted from 0')
    arguments, rest = parser.parse_known_args(argv)

    def command() -> None:
        parse(['preview_augmentation', *rest])
        config = checked_config()
        if arguments.out.suffix != '.png':
            raise UserError(f'--out={arguments.out} is no .png')
        picture = sheet(config, rows=arguments.rows, draws=arguments.draws, phase=arguments.phase)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        picture.save(arguments.out)
        print(f'written to {arguments.out}')

    return run_command(command)


def sheet(config: Any, *, rows: int, draws: int, phase: int) -> Image.Image:
    """Draws examples of the training split of a config, unchanged and augmented.

    Args:
      config: checked config.
      rows: number of examples.
      draws: number of augmented images per example.
      phase: index of the phase whose augmentation is drawn.

    Raises:
      UserError: something in the config or the data is wrong.
    """
    if rows < 1 or draws < 1:
        raise UserError(f'--rows={rows} --draws={draws}; expected at least 1 of each')
    if not 0 <= phase < len(config.phases):
        raise UserError(f'--phase={phase}: the config has {len(config.phases)}, counted from 0')
    settings = Augment.of({**config.data.augment, **config.phases[phase].augment})
    data = dataset.load_dataset(
        **{field: config.data[field] for field in dataset.SOURCE},
        splits={'train': config.data.splits.train},
        image_size=config.model.image_size,
        channels=config.model.channels,
        root=cache.root() / 'datasets',
    )
    split = data.splits['train']
    index = indices(config.seed, 0, min(rows, len(split.labels)), len(split.labels))
    images, labels = split.read(index), split.learned[index]
    size, classes = config.model.image_size, len(data.classes)
    step = jax.jit(functools.partial(augment_batch, size=size, classes=classes, settings=settings))
    columns = [(np.asarray(resize(jax.numpy.asarray(images), size)), labels)]
    for number in range(draws):
        key = jax.random.fold_in(jax.random.key(config.seed), number)
        looks, targets = step(images, labels, jax.random.split(key)[0])
        columns.append((np.asarray(looks), np.asarray(targets)))
    return paste(columns, data.classes, split.kind)


def paste(columns: list[tuple[np.ndarray, np.ndarray]], names: tuple[str, ...], kind: str = 'shares') -> Image.Image:
    """Pastes columns of images, with their labels below, into one picture.

    Args:
      columns: (images [B, S, S, C] of 0..255, labels int [B] or float [B, classes]).
      names, kind: see `label_text.describe_label`.
    """
    count, size = columns[0][0].shape[:2]
    texts = [[_shorten(describe_label(each, names, kind=kind)) for each in labels] for _, labels in columns]
    lines = max(MIN_LINES, *(text.count('\n') + 1 for column in texts for text in column))
    side = size * -(-CELL // size)
    width, height = side + GAP, side + lines * LINE + GAP
    picture = Image.new('RGB', (GAP + width * len(columns), GAP + height * count), 'white')
    pen = ImageDraw.Draw(picture)
    for column, (images, _) in enumerate(columns):
        for row, image in enumerate(images):
            pixels = np.broadcast_to(np.rint(np.clip(image, 0, 255)).astype(np.uint8), (size, size, 3))
            left, top = GAP + column * width, GAP + row * height
            picture.paste(Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST), (left, top))
            text, _, path = fonts.fit_font(texts[column][row])
            pen.multiline_text((left, top + side), text, 'black', fonts.pillow_font(path, LINE - 2), spacing=0)
    return picture


def _shorten(text: str) -> str:
    """The first lines of a text, each as wide as a cell, and how many more there are."""
    lines = [line[:MOST_CHARACTERS] for line in text.splitlines()]
    if len(lines) > MOST_LINES:
        lines = [*lines[: MOST_LINES - 1], f'and {len(lines) - MOST_LINES + 1} more']
    return '\n'.join(lines)


if __name__ == '__main__':
    run_and_exit(main)
