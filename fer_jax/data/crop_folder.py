"""From a folder of photographs to a folder of faces."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fer_jax import progress
from fer_jax.data import faces
from fer_jax.data.folder import SUFFIXES
from fer_jax.data.images import open_image
from fer_jax.errors import UserError

LOG = 'crops.jsonl'
PICKS = ('largest', 'all')


class Summary(NamedTuple):
    """Photographs seen, with a face, without one, and unreadable; crops written."""

    photographs: int
    with_face: int
    without_face: int
    unreadable: int
    crops: int


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

    What is done is recorded, photograph by photograph, in `out`/crops.jsonl (file, faces, boxes, confidence), and not
    done again: an interrupted call goes on. Photographs without a face are recorded, and left out.

    Args:
      margin: see `faces.crop`, `faces.align`.
      size: side of the crops in pixels.
      pick: 'largest' face of each photograph, or 'all'.
      align: by five points, where the detector finds them.

    Raises:
      UserError: there is no such folder, it has no images, or what is done was done with other settings.
    """
    if pick not in PICKS:
        raise UserError(f'--pick={pick!r} is unknown; choose {", ".join(PICKS)}')
    if not source.is_dir():
        raise UserError(f'--source={str(source)!r} is not a folder')
    if out.resolve().is_relative_to(source.resolve()):
        raise UserError(f'--out={str(out)!r} lies inside --source; crops would be taken for photographs')
    names = sorted(
        path.relative_to(source).as_posix()
        for path in source.rglob('*')
        if path.is_file() and path.suffix.lower() in SUFFIXES and not path.name.startswith('.')
    )
    if not names:
        raise UserError(f'--source={str(source)!r} holds no images')
    stems = Counter(name.rsplit('.', 1)[0] for name in names)
    out.mkdir(parents=True, exist_ok=True)
    settings = {'margin': margin, 'size': size, 'pick': pick, 'align': align}
    done = _done(out / LOG, settings)
    with (out / LOG).open('a', encoding='utf-8') as log:
        if not done:
            log.write(json.dumps(settings) + '\n')
        for name in progress.bar([name for name in names if name not in done], 'cropping faces'):
            stem = name.rsplit('.', 1)[0]
            target = out / (stem if stems[stem] == 1 else name)
            done[name] = _crop_one(source / name, target, detect, margin, size, pick, align)
            log.write(json.dumps({'file': name, **done[name]}) + '\n')
            log.flush()
    found = [done[name] for name in names]
    return Summary(
        len(names),
        sum(bool(one.get('boxes')) for one in found),
        sum(one.get('boxes') == [] for one in found),
        sum('error' in one for one in found),
        sum(len(one.get('boxes', [])) for one in found),
    )


def _done(log: Path, settings: dict) -> dict[str, dict]:
    """What a call before this one did; a last line that was cut off does not count."""
    if not log.exists():
        return {}
    lines = list(_lines(log))
    if not lines:
        return {}
    if lines[0] != settings:
        raise UserError(f'{log} is of other settings: {lines[0]}, now {settings}; give another --out')
    with log.open('w', encoding='utf-8') as file:
        file.writelines(json.dumps(line) + '\n' for line in lines)
    return {line['file']: line for line in lines[1:]}


def _lines(log: Path) -> Iterator[dict]:
    for line in log.read_text(encoding='utf-8').splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return


def _crop_one(
    path: Path, target: Path, detect: faces.Detector, margin: float, size: int, pick: str, align: bool
) -> dict:
    try:
        image = np.asarray(open_image(path.read_bytes())[0].convert('RGB'))
    except (OSError, ValueError) as error:
        return {'error': str(error)}
    found = detect(image)
    if pick == 'largest':
        found = sorted(found, key=lambda face: -face.box[2] * face.box[3])[:1]
    for number, face in enumerate(found):
        if align and face.landmarks is not None:
            cut = faces.align(image, face.landmarks, size, margin)
        else:
            cut = faces.crop(image, face.box, margin, size)
        _write(target.with_name(f'{target.name}{"" if pick == "largest" else f"_{number}"}.png'), cut)
    boxes = [[round(value, 1) for value in face.box] for face in found]
    return {'boxes': boxes, 'confidence': [round(face.confidence, 3) for face in found]}


def _write(path: Path, pixels: np.ndarray) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f'.{path.name}.{os.getpid()}')
    Image.fromarray(pixels).save(scratch, 'PNG')
    scratch.replace(path)
