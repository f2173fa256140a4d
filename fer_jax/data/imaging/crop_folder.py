"""Makes a folder of faces from a folder of photographs."""

import json
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fer_jax.data.imaging import faces
from fer_jax.data.imaging.image_files import describe_left_out, list_image_files
from fer_jax.errors import UserError
from fer_jax.utils import atomic_files, bounded_files, checked_files, limits, progress
from fer_jax.utils.atomic_files import atomic_write

LOG = 'crops.jsonl'
DAMAGED_LOG = 'take it from a copy, or remove it and crop the faces again'
WITHOUT = 'no_face.txt'
PICKS = ('largest', 'central', 'all')
WORKERS = 4  # photographs in memory at once, up to 300 MB each


class Cut(NamedTuple):
    """The way in which the faces of a set were cut out of photographs.

    Attributes:
      margin: share added around the faces, see `faces.crop` and `faces.align`.
      aligned: whether they were aligned by five points.
    """

    margin: float
    aligned: bool = False


class Summary(NamedTuple):
    """Counts of photographs: all, with a face, without one, and unreadable; and of the crops written."""

    photographs: int
    with_face: int
    without_face: int
    unreadable: int
    crops: int

    def __str__(self) -> str:
        return (
            f'{self.photographs:,} photographs: {self.with_face:,} with a face, {self.without_face:,} without, '
            f'{self.unreadable:,} unreadable; {self.crops:,} faces'
        )


def crop_folder(
    source: Path,
    out: Path,
    *,
    detect: faces.Detector,
    margin: float,
    size: int,
    pick: str = 'largest',
    align: bool = False,
) -> Summary:
    """Cuts the faces out of every photograph below `source` into the same folders below `out`, as PNG.

    What is done is recorded, photograph by photograph, in `out`/crops.jsonl, and not done again: an interrupted call
    goes on. A line has the file, the number of its faces, the boxes and confidences of those that were cut out and the
    names of their crops; or the error. Photographs without a face are listed in `out`/no_face.txt.

    Args:
      detect: may be called from several threads.
      margin: see `faces.crop`, `faces.align`.
      size: side of the crops in pixels.
      pick: 'largest' face of each photograph, the most 'central', or 'all'.
      align: by five points, where the detector finds them.

    Raises:
      UserError: there is no such folder, it has no images, a setting is out of range, or what is done was done with
        other settings.
    """
    if pick not in PICKS:
        raise UserError(f'--pick={pick!r} is unknown; choose {", ".join(PICKS)}')
    if not 0 <= margin <= 10:
        raise UserError(f'--margin={margin:g} is not between 0 and 10; 0.2 adds a fifth of the face on every side')
    if not 1 <= size <= 4096:
        raise UserError(f'--size={size} is not between 1 and 4096 px')
    if not source.is_dir():
        raise UserError(f'--source={str(source)!r} is not a folder')
    if out.resolve().is_relative_to(source.resolve()):
        raise UserError(f'--crop_faces={str(out)!r} lies inside --source; crops would be taken for photographs')
    names, left_out = list_image_files(source)
    if not names:
        raise UserError('; '.join([f'--source={str(source)!r} holds no images', *describe_left_out(left_out)]))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f'--crop_faces={str(out)!r} is a file, or lies below one; give a folder') from None
    settings = {'margin': margin, 'size': size, 'pick': pick, 'align': align}
    targets = _targets(names)
    done = _done(out / LOG, settings)
    for folder in {(out / target).parent for target in targets.values()}:
        atomic_files.sweep(folder)
    todo = [name for name in names if name not in done]

    def work(name: str) -> dict:
        return _crop_one(source / name, out, targets[name], detect, margin, size, pick, align)

    pool = ThreadPoolExecutor(min(WORKERS, os.cpu_count() or 1))
    try:
        with (out / LOG).open('a', encoding='utf-8') as log:
            if not log.tell():
                log.write(json.dumps(settings) + '\n')
            for name, result in zip(todo, progress.bar(pool.map(work, todo), 'cropping faces', len(todo)), strict=True):
                done[name] = result
                log.write(json.dumps({'file': name, **result}) + '\n')
                log.flush()
        checked_files.add_files(out, [LOG])
    finally:
        pool.shutdown(cancel_futures=True)
    results = [done[name] for name in names]
    without = [name for name in names if done[name].get('boxes') == []]
    (out / WITHOUT).write_text(''.join(f'{name}\n' for name in without), encoding='utf-8', errors='surrogateescape')
    return Summary(
        len(names),
        sum(bool(result.get('boxes')) for result in results),
        sum(result.get('boxes') == [] for result in results),
        sum('error' in result for result in results),
        sum(len(result.get('boxes', [])) for result in results),
    )


def logged(folder: Path) -> Cut | None:
    """Returns how the faces in a folder were cut out, by the log that `crop_folder` left there; None without one.

    Raises:
      UserError: the log of a finished call is damaged.
    """
    checked_files.check_file(folder / LOG, DAMAGED_LOG)
    try:
        with bounded_files.open_regular(folder / LOG) as log:
            settings = json.loads(log.readline(limits.LINE_CHARACTERS))
        return Cut(float(settings['margin']), bool(settings.get('align')))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _targets(names: list[str]) -> dict[str, str]:
    """Where each photograph's crops go: its name without suffix, where no other photograph's could be the same."""
    stems = Counter(name.rsplit('.', 1)[0] for name in names)
    taken = {stem for stem, count in stems.items() if count > 1} | set(names)
    return {name: name if name.rsplit('.', 1)[0] in taken else name.rsplit('.', 1)[0] for name in names}


def _done(log: Path, settings: dict) -> dict[str, dict]:
    """What a call before this one did; a last line that was cut off is removed."""
    checked_files.check_file(log, DAMAGED_LOG)
    lines: list[dict] = []
    end = 0
    try:
        content = bounded_files.read_bytes(log, limits.TABLE_BYTES) if log.exists() else b''
    except (OSError, ValueError) as error:
        raise UserError(f'{log} cannot be read ({error}); give another --crop_faces') from None
    for line in content.splitlines(keepends=True):
        try:
            done = json.loads(line[: line.index(b'\n')])
        except (ValueError, RecursionError):
            break
        if not isinstance(done, dict) or (lines and not isinstance(done.get('file'), str)):
            break
        lines.append(done)
        end += len(line)
    if lines and lines[0] != settings:
        raise UserError(f'{log} is of other settings: {lines[0]}, now {settings}; give another --crop_faces')
    checked_files.forget_file(log)
    if log.exists():
        os.truncate(log, end)
    return {line['file']: line for line in lines[1:]}


def _crop_one(
    path: Path, out: Path, target: str, detect: faces.Detector, margin: float, size: int, pick: str, align: bool
) -> dict:
    try:
        image = faces.read_rgb(path)
    except UserError as error:
        return {'error': str(error)}
    detections = detect(image)
    chosen = _choose(detections, pick, image.shape)
    crops = [f'{target}{f"_{number}" if pick == "all" else ""}.png' for number in range(len(chosen))]
    for face, crop in zip(chosen, crops, strict=True):
        if align and face.landmarks is not None:
            _write(out / crop, faces.align(image, face.landmarks, size, margin))
        else:
            _write(out / crop, faces.crop(image, face.box, margin, size))
    boxes = [[round(value, 1) for value in face.box] for face in chosen]
    confidence = [round(face.confidence, 3) for face in chosen]
    return {'faces': len(detections), 'boxes': boxes, 'confidence': confidence, 'crops': crops}


def _choose(detections: list[faces.Face], pick: str, shape: tuple[int, ...]) -> list[faces.Face]:
    def off_centre(face: faces.Face) -> float:
        x, y, width, height = face.box
        return (x + width / 2 - shape[1] / 2) ** 2 + (y + height / 2 - shape[0] / 2) ** 2

    if pick == 'largest':
        return sorted(detections, key=lambda face: -face.box[2] * face.box[3])[:1]
    if pick == 'central':
        return sorted(detections, key=off_centre)[:1]
    return detections


def _write(path: Path, pixels: np.ndarray) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, sync=False) as scratch:
        Image.fromarray(pixels).save(scratch, 'PNG')
