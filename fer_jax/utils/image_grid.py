"""A sheet of images with their labels and ids."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fer_jax.utils import fonts

TILE, LINE, COLUMNS, GAP = 96, 12, 8, 6  # pixels, and tiles a row
FONT_PX = 10
MOST_CHARACTERS = 16  # of a line


def write_image_grid(path: Path, ids: Sequence[str], labels: Sequence[str], images: np.ndarray) -> None:
    """Writes a grid of images as one .png, with a part of each label and id below its image.

    Args:
      path: the file to write.
      ids: str [N]; the last characters are shown.
      labels: str [N]; the first characters are shown.
      images: uint8 [N, H, W, C].
    """
    from PIL import Image, ImageDraw

    rows = -(-len(images) // COLUMNS)
    sheet = Image.new('RGB', (COLUMNS * (TILE + GAP) + GAP, rows * (TILE + 2 * LINE + GAP) + GAP), 'white')
    pen = ImageDraw.Draw(sheet)
    for number, (example, label, image) in enumerate(zip(ids, labels, images, strict=True)):
        row, column = divmod(number, COLUMNS)
        x, y = GAP + column * (TILE + GAP), GAP + row * (TILE + 2 * LINE + GAP)
        pixels = image[..., 0] if image.shape[-1] == 1 else image
        sheet.paste(Image.fromarray(pixels).resize((TILE, TILE), Image.Resampling.BILINEAR), (x, y))
        for line, text in enumerate((label[:MOST_CHARACTERS], example[-MOST_CHARACTERS:])):
            shown, _, font_path = fonts.fit_font(text)
            pen.text((x, y + TILE + line * LINE), shown, fill='black', font=fonts.pillow_font(font_path, FONT_PX))
    sheet.save(path)
