"""Annotated copies of photographs and videos with boxes and labels, and timelines of videos."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.inference import video
from fer_jax.utils import fonts, plotting
from fer_jax.utils.atomic_files import atomic_write

# Of classes, dark enough for white letters.
COLOURS = ('#c83c50', '#806230', '#7b4fa3', '#9a6f00', '#1f6fb4', '#b85412', '#5a6472', '#1f7d57')
UNSURE = '#6c7178'
LONGEST_SIDE = 4096  # px: a larger annotated picture helps nobody
MOST_POINTS = 4000  # of a timeline
MOST_PANELS = 6  # of a timeline, one a person

Rectangle = tuple[float, float, float, float]  # left, top, right, bottom


def colours(classes: Sequence[str]) -> dict[str, str]:
    """Returns a colour, '#rrggbb', for each class; colours repeat after `COLOURS` is used up."""
    return {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(classes)}


def draw_faces(image: np.ndarray, records: Sequence[dict[str, Any]]) -> np.ndarray:
    """Draws a box around every face, and a label with its number, class and confidence.

    Labels are placed so that they overlap each other as little as possible.

    Args:
      image: uint8 RGB [H, W, 3].
      records: records of its faces, see `inference.face_pipeline.record`.

    Returns:
      uint8 RGB [H', W', 3], no side over `LONGEST_SIDE` pixels.
    """
    import cv2
    from PIL import Image, ImageDraw

    shrink = min(1.0, LONGEST_SIDE / max(image.shape[:2]))
    if shrink < 1:
        size = [max(1, round(side * shrink)) for side in image.shape[1::-1]]
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    picture = Image.fromarray(image)
    pen = ImageDraw.Draw(picture)
    text = max(10, round(max(picture.size) / 55))
    shades = colours(list(records[0]['probabilities'])) if records else {}
    shade = [UNSURE if record['abstained'] else shades[record['label']] for record in records]
    boxes = [_corners(*(shrink * value for value in record['box'])) for record in records]
    for box, colour in zip(boxes, shade, strict=True):
        pen.rectangle(box, outline=colour, width=max(2, text // 7))
    placed: list[Rectangle] = []
    for record, box, colour in zip(records, boxes, shade, strict=True):
        label, _, path = fonts.fit_font(label_text(record))
        font = fonts.pillow_font(path, text)
        left, top, right, bottom = pen.textbbox((0, 0), label, font=font)
        extent = right - left + text // 2, bottom - top + text // 2
        place = place_label(box, extent, picture.size, placed, [other for other in boxes if other != box])
        placed.append(place)
        pen.rectangle(place, fill=colour)
        pen.text((place[0] + text // 4 - left, place[1] + text // 4 - top), label, fill='white', font=font)
    return np.asarray(picture)


def label_text(record: dict[str, Any]) -> str:
    """Returns the label of a face: its number, its class and its confidence, or its number and `?` where it abstained.

    Args:
      record: see `inference.face_pipeline.record`; the number is `face_id` where the face is tracked, else `face`.
    """
    number = record.get('face_id', record['face'])
    return f'{number} ?' if record['abstained'] else f'{number} {record["label"]} {record["confidence"]:.0%}'


def place_label(
    box: Rectangle,
    extent: tuple[float, float],
    size: tuple[int, int],
    labels: Sequence[Rectangle],
    boxes: Sequence[Rectangle],
) -> Rectangle:
    """Chooses a place for the label of a box, with the least overlap with placed labels and with other faces.

    The candidates are above, below, inside and beside the box, then further rows above and below it. The first of
    equally good ones is chosen.

    Args:
      box: box of the face: left, top, right, bottom in pixels.
      extent: width and height of the label in pixels.
      size: width and height of the picture in pixels.
      labels: boxes of the labels that are already placed; overlap with them costs 1000 times that with faces.
      boxes: boxes of the other faces.

    Returns:
      Left, top, right and bottom of the label, inside the picture where the label fits.
    """
    wide, high = extent
    left, top, right, bottom = box
    corners = [(left, top - high), (left, bottom), (left, top), (left, bottom - high), (right, top), (left - wide, top)]
    corners += [(left, top - row * high) for row in range(2, 5)] + [(left, bottom + row * high) for row in range(1, 20)]
    best, best_cost = None, 0.0
    for x, y in corners:
        x, y = min(max(0.0, x), max(0.0, size[0] - wide)), min(max(0.0, y), max(0.0, size[1] - high))
        place = (x, y, x + wide, y + high)
        cost = 1000 * sum(_shared_area(place, label) for label in labels)
        cost += sum(_shared_area(place, other) for other in boxes)
        if best is None or cost < best_cost:
            best, best_cost = place, cost
    assert best is not None
    return best


def _corners(x: float, y: float, width: float, height: float) -> Rectangle:
    return x, y, x + width, y + height


def _shared_area(first: Rectangle, second: Rectangle) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return max(0.0, width) * max(0.0, height)


def save_jpeg(path: Path, image: np.ndarray) -> None:
    """Writes a JPEG file atomically.

    Args:
      path: file to write.
      image: uint8 RGB [H, W, 3].
    """
    from PIL import Image

    with atomic_write(path, sync=False) as scratch:
        Image.fromarray(image).save(scratch, 'JPEG', quality=90)


class Film:
    """Writes an annotated copy of a video, `NAME_annotated.mp4`, and a timeline of its persons, `NAME_timeline.png`.

    It is a context manager. On exit, also by an exception, both files are completed and get their final names. The
    timeline has at most `MOST_POINTS` points; longer videos are subsampled.
    """

    def __init__(self, folder: Path, name: str, rate: float, classes: tuple[str, ...]):
        self.path, self._rate, self._classes = folder / f'{name}_annotated.mp4', rate, classes
        self._title, self._timeline = name, folder / f'{name}_timeline.png'
        self._scratch = folder / f'.{self.path.name}'
        self._writer: video.Writer | None = None
        self._size = (0, 0)
        self._points: list[tuple[float, dict[int, np.ndarray]]] = []
        self._seen, self._every = 0, 1

    def __enter__(self) -> 'Film':
        return self

    def add(self, image: np.ndarray, seconds: float, persons: dict[int, np.ndarray]) -> None:
        """Adds a frame to the video and to the timeline.

        Args:
          image: uint8 RGB [H, W, 3]; later frames are resized to the size of the first.
          seconds: time since the beginning of the video.
          persons: float [classes], probabilities by the `face_id` of each person in the frame.
        """
        self._write(image, seconds)
        if self._seen % self._every == 0:
            self._points.append((seconds, persons))
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
        counts = Counter(number for _, persons in self._points for number in persons)
        shown = sorted(number for number, _ in counts.most_common(MOST_PANELS))
        if shown:
            missing = np.zeros(len(self._classes))
            values = {number: np.stack([row.get(number, missing) for _, row in self._points]) for number in shown}
            left_out = len(counts) - len(shown)
            title = self._title + (f' ({left_out} more persons, each seen less)' if left_out else '')
            timeline_png(self._timeline, np.array([point for point, _ in self._points]), values, self._classes, title)


def timeline_png(
    path: Path, seconds: np.ndarray, persons: dict[int, np.ndarray], classes: Sequence[str], title: str
) -> None:
    """Writes a figure of probabilities over time as PNG, with one panel per person.

    Args:
      path: file to write.
      seconds: float [N], times of the points.
      persons: by `face_id` float [N, classes], 0 where the person is not in the frame; probabilities of attributes,
        which do not add up to 1, are drawn as lines, others as stacked areas.
      classes: class names.
      title: title of the figure.
    """
    figure = plotting.figure(10, 1.6 + 2.0 * len(persons))
    panels = figure.subplots(len(persons), 1, sharex=True, squeeze=False)[:, 0]
    shades, names = colours(classes), list(map(fonts.showable, classes))
    for axes, (number, probabilities) in zip(panels, persons.items(), strict=True):
        if probabilities.sum(1).max() < 1.01:
            axes.stackplot(seconds, probabilities.T, labels=names, colors=list(shades.values()))
        else:
            for name, colour, values in zip(names, shades.values(), probabilities.T, strict=True):
                axes.plot(seconds, values, label=name, color=colour)
        axes.set_xlim(seconds[0], max(seconds[-1], seconds[0] + 1e-3))
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(lambda value, _: f'{value:.0%}')
        axes.set_ylabel(f'face {number}')
        axes.spines[['top', 'right']].set_visible(False)
    panels[0].set_title(fonts.showable(title), loc='left')
    panels[-1].set_xlabel('seconds')
    handles, _ = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc='outside lower center', ncols=min(len(names), 8), frameon=False, fontsize=8)
    figure.savefig(path)
