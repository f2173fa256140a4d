"""What was found, drawn: boxes on photographs and videos, a timeline of a video."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.inference import video
from fer_jax.utils import plotting
from fer_jax.utils.atomic_files import atomic_write

# Of classes, dark enough for white letters.
COLOURS = ('#c83c50', '#806230', '#7b4fa3', '#9a6f00', '#1f6fb4', '#b85412', '#5a6472', '#1f7d57')
UNSURE = '#6c7178'
LONGEST_SIDE = 4096  # px: a larger annotated picture helps nobody
MOST_POINTS = 4000  # of a timeline


def colours(classes: Sequence[str]) -> dict[str, str]:
    """One for each class."""
    return {name: COLOURS[at % len(COLOURS)] for at, name in enumerate(classes)}


def drawn(image: np.ndarray, records: Sequence[dict[str, Any]]) -> np.ndarray:
    """A picture with the box, the label and the confidence of every face.

    Args:
      image: uint8 RGB [H, W, 3].
      records: of its faces, see `inference.face_pipeline.record`.

    Returns:
      uint8 RGB [H', W', 3], no side over `LONGEST_SIDE`.
    """
    import cv2
    from PIL import Image, ImageDraw, ImageFont

    shrink = min(1.0, LONGEST_SIDE / max(image.shape[:2]))
    if shrink < 1:
        size = [max(1, round(side * shrink)) for side in image.shape[1::-1]]
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    picture = Image.fromarray(image)
    pen = ImageDraw.Draw(picture)
    text = max(10, round(max(picture.size) / 55))
    font = ImageFont.load_default(text)
    shades = colours(list(records[0]['probabilities'])) if records else {}
    for record in records:
        x, y, width, height = (shrink * value for value in record['box'])
        colour = UNSURE if record['abstained'] else shades[record['label']]
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


def save_jpeg(path: Path, image: np.ndarray) -> None:
    """Whole or not at all."""
    from PIL import Image

    with atomic_write(path, sync=False) as scratch:
        Image.fromarray(image).save(scratch, 'JPEG', quality=90)


class Film:
    """An annotated copy of a video, `NAME_annotated.mp4`, and its timeline, `NAME_timeline.png`.

    Both are whole at every moment at which the block is left, and have their names then. Of however long a video the
    timeline keeps at most `MOST_POINTS` points.
    """

    def __init__(self, folder: Path, name: str, rate: float, classes: tuple[str, ...]):
        self.path, self._rate, self._classes = folder / f'{name}_annotated.mp4', rate, classes
        self._title, self._timeline = name, folder / f'{name}_timeline.png'
        self._scratch = folder / f'.{self.path.name}'
        self._writer: video.Writer | None = None
        self._size = (0, 0)
        self._points: list[tuple[float, np.ndarray]] = []
        self._seen, self._every = 0, 1

    def __enter__(self) -> 'Film':
        return self

    def add(self, image: np.ndarray, seconds: float, largest: np.ndarray | None) -> None:
        """One frame more.

        Args:
          image: uint8 RGB [H, W, 3]; every other is resized to the first.
          seconds: since the beginning.
          largest: float [classes], the probabilities of its largest face; None without a face.
        """
        self._write(image, seconds)
        if self._seen % self._every == 0:
            self._points.append((seconds, np.zeros(len(self._classes)) if largest is None else largest))
        self._seen += 1
        if len(self._points) > MOST_POINTS:
            self._points, self._every = self._points[::2], 2 * self._every

    def _write(self, image: np.ndarray, seconds: float) -> None:
        import cv2

        if self._writer is None:
            height, width = (side - side % 2 or 2 for side in image.shape[:2])
            self._size = (width, height)
            self._writer = video.Writer(self._scratch, self._size, self._rate)
        if (image.shape[1], image.shape[0]) != self._size:
            image = cv2.resize(image, self._size)
        self._writer.add(image, seconds)

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            self._writer.close()
            self._scratch.replace(self.path)
        if any(values.any() for _, values in self._points):
            seconds, values = zip(*self._points, strict=True)
            timeline_png(self._timeline, np.array(seconds), np.stack(values), self._classes, self._title)


def timeline_png(
    path: Path, seconds: np.ndarray, probabilities: np.ndarray, classes: Sequence[str], title: str
) -> None:
    """The probabilities of the largest face over time, one on the other, blank where there is none.

    Args:
      seconds: float [N].
      probabilities: float [N, classes], of attributes, which do not add up to 1, drawn as lines; 0 without a face.
    """
    figure = plotting.figure(10, 3.6)
    axes = figure.add_subplot()
    shades = colours(classes)
    if probabilities.sum(1).max() < 1.01:
        axes.stackplot(seconds, probabilities.T, labels=list(classes), colors=list(shades.values()))
    else:
        for name, values in zip(classes, probabilities.T, strict=True):
            axes.plot(seconds, values, label=name, color=shades[name])
    axes.set_xlim(seconds[0], max(seconds[-1], seconds[0] + 1e-3))
    axes.set_ylim(0, 1)
    axes.set_xlabel('seconds')
    axes.yaxis.set_major_formatter(lambda value, _: f'{value:.0%}')
    axes.set_title(f'{title}: the largest face', loc='left')
    axes.spines[['top', 'right']].set_visible(False)
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc='outside lower center', ncols=min(len(names), 8), frameon=False, fontsize=8)
    figure.savefig(path)
