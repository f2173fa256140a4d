"""What was found, drawn: boxes on photographs and videos, a timeline of a video."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax import pictures

COLOURS = ('#d1495b', '#8a6d3b', '#7b4fa3', '#e0a100', '#1f6fb4', '#e07b39', '#5a6472', '#2a9d6f')
UNSURE = '#8a8f98'
LONGEST = 4096  # px: a larger annotated picture helps nobody
MOST_POINTS = 2000  # of a timeline


def colours(classes: Sequence[str]) -> dict[str, str]:
    """One for each class."""
    return {name: COLOURS[at % len(COLOURS)] for at, name in enumerate(classes)}


def drawn(image: np.ndarray, records: Sequence[dict[str, Any]]) -> np.ndarray:
    """A picture with the box, the label and the confidence of every face.

    Args:
      image: uint8 RGB [H, W, 3].
      records: of its faces, see `photographs.record`.

    Returns:
      uint8 RGB [H', W', 3], no side over `LONGEST`.
    """
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.fromarray(image)
    shrink = min(1.0, LONGEST / max(picture.size))
    if shrink < 1:
        picture = picture.resize((round(picture.width * shrink), round(picture.height * shrink)))
    pen = ImageDraw.Draw(picture)
    text = max(10, round(max(picture.size) / 55))
    font = ImageFont.load_default(text)
    for record in records:
        x, y, width, height = (shrink * value for value in record['box'])
        colour = UNSURE if record['abstained'] else colours(list(record['probabilities']))[record['label']]
        said = '?' if record['abstained'] else f'{record["label"]} {record["confidence"]:.0%}'
        line = max(2, text // 7)
        pen.rectangle((x, y, x + width, y + height), outline=colour, width=line)
        left, top, right, bottom = pen.textbbox((0, 0), said, font=font)
        broad, tall = right - left + text // 2, bottom - top + text // 2
        at_x = min(max(0.0, x), max(0.0, picture.width - broad))
        at_y = y - tall if y >= tall else min(y + height, picture.height - tall)
        pen.rectangle((at_x, at_y, at_x + broad, at_y + tall), fill=colour)
        pen.text((at_x + text // 4 - left, at_y + text // 4 - top), said, fill='white', font=font)
    return np.asarray(picture)


class Video:
    """An annotated copy, whole at every moment at which it is left: it takes its name when it is closed."""

    def __init__(self, path: Path, rate: float):
        self.path, self._rate = path, rate
        self._scratch = path.with_name(f'.{path.name}')
        self._writer: Any = None
        self._size = (0, 0)

    def __enter__(self) -> 'Video':
        return self

    def add(self, image: np.ndarray) -> None:
        """uint8 RGB [H, W, 3], every time of the size of the first."""
        import cv2

        if self._writer is None:
            height, width = (side - side % 2 for side in image.shape[:2])
            self._size = (width, height)
            fourcc = cv2.VideoWriter.fourcc(*'mp4v')
            self._writer = cv2.VideoWriter(str(self._scratch), fourcc, self._rate, self._size)
            if not self._writer.isOpened():
                raise OSError(f'{self.path} cannot be written as a video')
        if (image.shape[1], image.shape[0]) != self._size:
            image = cv2.resize(image, self._size)
        self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            self._writer.release()
            self._scratch.replace(self.path)


def timeline_png(
    path: Path, seconds: Sequence[float], probabilities: Sequence[np.ndarray | None], classes: Sequence[str], title: str
) -> None:
    """The probabilities of the largest face over time, one on the other, blank where there is none.

    Args:
      seconds: of the frames.
      probabilities: float [classes] of each, None without a face.
    """
    keep = np.unique(np.linspace(0, len(seconds) - 1, min(len(seconds), MOST_POINTS)).astype(int))
    times = np.array([seconds[at] for at in keep])
    rows = [probabilities[at] for at in keep]
    blank = np.full(len(classes), np.nan)
    values = np.stack([blank if row is None else row for row in rows])
    figure = pictures.figure(10, 3.6)
    axes = figure.add_subplot()
    axes.stackplot(times, np.nan_to_num(values).T, labels=list(classes), colors=list(colours(classes).values()))
    axes.set_xlim(times[0], max(times[-1], times[0] + 1e-3))
    axes.set_ylim(0, 1)
    axes.set_xlabel('seconds')
    axes.yaxis.set_major_formatter(lambda value, _: f'{value:.0%}')
    axes.set_title(f'{title}: the largest face', loc='left')
    axes.spines[['top', 'right']].set_visible(False)
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc='outside lower center', ncols=min(len(names), 8), frameon=False, fontsize=8)
    figure.savefig(path)
