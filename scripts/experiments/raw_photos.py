"""The same network on aligned crops and on raw photographs: what finding the face costs.

    python scripts/experiments/raw_photos.py --workdir runs/fer2013 --data fer2013 --backgrounds landscapes \\
        --output docs/results/raw_fer2013.jsonl
    python scripts/experiments/raw_photos.py --workdir runs/rafdb --photos rafdb/original --crops rafdb/aligned \\
        --output raw_rafdb.jsonl

With `--photos` and `--crops`, class folders of the same images before and after somebody aligned them (RAF-DB's
`test_0001.jpg` and `test_0001_aligned.jpg`), every photograph's largest face is taken. Who has only crops gives
`--data`: each is enlarged to a random side and put somewhere into a picture of 640 x 480 px, which is saved as JPEG.
Then the detector looks for it, what it finds is cut out again with each of the `--margins`, and classified; whether a
face is the one that was put there is known. Light, pose and blur stay those of the crop, so this measures detection and
cutting out alone. Images on which the run was trained or selected are left out.

`--output` has one JSON object a margin, and the Markdown table beside it. docs/how-to/photographs.md explains it.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fer_jax.cli import run_command
from fer_jax.data import dataset
from fer_jax.data.imaging import faces
from fer_jax.data.imaging.codec import decode
from fer_jax.data.imaging.faces import Face
from fer_jax.data.sources import folder
from fer_jax.data.tables.expressions import canonical
from fer_jax.data.tables.table import Table
from fer_jax.errors import UserError
from fer_jax.evaluation import comparison, cross_dataset, intervals, summary
from fer_jax.evaluation.comparison import Predictions
from fer_jax.inference import face_pipeline
from fer_jax.inference.predictor import Predictor
from fer_jax.utils import progress
from scripts.experiments import common

WIDTH, HEIGHT = 640, 480
SIDES = (48, 288)  # px, of an enlarged crop; log-uniform
BINS = (48, 96, 160, 289)  # px, for the miss rate by size
MARGINS = (0.0, 0.1, 0.2, 0.4)

Square = tuple[int, int, int]  # x, y, side


class Found(NamedTuple):
    """What the detector did in one picture.

    Attributes:
      face: the one that was looked for, or None.
      others: how many more it told.
      square: where the crop was put; None in a photograph.
    """

    face: Face | None
    others: int
    square: Square | None


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 where the input is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--workdir', type=Path, required=True, help='of a finished run')
    parser.add_argument('--data', default='', help='crops to make photographs of: NAME, FOLDER or MANIFEST[:SPLIT]')
    parser.add_argument('--photos', type=Path, help='class folders of raw photographs, in place of --data')
    parser.add_argument('--crops', type=Path, help='class folders of the same, aligned')
    parser.add_argument('--backgrounds', type=Path, help='photographs, of which those without a face are used')
    parser.add_argument('--count', type=int, default=1000, help='of images, at random; 0: all')
    parser.add_argument('--margins', default='', help=f"default: the run's own, and {', '.join(map(str, MARGINS))}")
    parser.add_argument('--yunet', type=Path, help="ONNX file of OpenCV's YuNet: faces are aligned by its landmarks")
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--output', type=Path, required=True, help='.jsonl to write')
    arguments = parser.parse_args(argv)

    def command() -> None:
        rows = report(arguments)
        common.write_rows(arguments.output, rows, markdown)
        print(markdown(rows))

    return run_command(command)


def report(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a margin."""
    given = bool(arguments.data), bool(arguments.photos), bool(arguments.crops)
    if given not in ((True, False, False), (False, True, True)):
        raise UserError('give --data SET, or --photos DIR and --crops DIR')
    detect, predictor = faces.detector(arguments.yunet), Predictor(arguments.workdir)
    trained = face_pipeline.cutting(predictor.folder, None, aligns=arguments.yunet is not None)
    print(trained.description, file=sys.stderr)
    own = trained.margin
    try:
        margins = [float(item) for item in arguments.margins.split(',')] if arguments.margins else {own, *MARGINS}
    except ValueError:
        raise UserError(f'--margins={arguments.margins}; expected numbers such as 0,0.2') from None
    rng = np.random.default_rng(arguments.seed)
    table = paired(arguments.photos, arguments.crops) if arguments.photos else dataset.open_split(arguments.data)
    if 0 < arguments.count < len(table):
        table = table.take(np.sort(rng.choice(len(table), arguments.count, replace=False)))
    aligned, left_out = cross_dataset.predict_unseen(predictor, table, cross_dataset.trained_on(predictor.folder))
    where = {item: index for index, item in enumerate(table.ids)}
    table = table.take(np.array([where[item] for item in aligned.ids]))
    if arguments.photos:
        raw = (faces.read_rgb(arguments.photos / item) for item in originals(arguments.photos, table.ids))
        pictures = ((image, None) for image in raw)
    else:
        pictures = scenes(table, backgrounds(arguments.backgrounds, detect), rng)
    detections: list[Found] = []
    crops: dict[float, list[np.ndarray]] = {margin: [] for margin in sorted(margins)}
    for image, square in progress.bar(pictures, 'photographs', len(table)):
        detections.append(located(detect(image), square))
        for margin, cut in crops.items():
            if face := detections[-1].face:
                how = trained._replace(margin=margin)
                cut.append(face_pipeline.cut_out(image, face, predictor.image_size, how))
    name = Path(arguments.data).name or arguments.photos.name
    common = {'data': name, 'made': not arguments.photos, 'left_out': left_out, 'run': arguments.workdir.name}
    common |= {'step': predictor.step, 'own_margin': own} | detected(detections)
    return [common | {'margin': margin} | scored(predictor, aligned, detections, cut) for margin, cut in crops.items()]


def paired(photos: Path, crops: Path) -> Table:
    """The crops that have a photograph of the same class and name."""
    table = folder.scan(crops)
    known = set(_stems(photos))
    kept = [index for index, name in enumerate(table.ids) if _stem(name) in known]
    if not kept:
        raise UserError(f'--photos={photos} and --crops={crops} have no <class>/<name> in common')
    return table.take(np.array(kept))


def originals(photos: Path, ids: np.ndarray) -> list[str]:
    """The photographs of crops, relative to their folder."""
    names = _stems(photos)
    return [names[_stem(name)] for name in ids]


def _stem(name: str) -> str:
    return name.rpartition('.')[0].removesuffix('_aligned')


def _stems(photos: Path) -> dict[str, str]:
    return {_stem(name): str(name) for name in folder.scan(photos).ids}


def backgrounds(photos: Path | None, detect: faces.Detector) -> list[np.ndarray]:
    """Pictures without a face, uint8 [HEIGHT, WIDTH, 3]; of blurred noise where there are no photographs."""
    import cv2

    if photos is None:
        noise = np.random.default_rng(0).integers(0, 256, (50, 6, 8, 3), np.uint8)
        return [cv2.resize(scene, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) for scene in noise]
    table = folder.unlabelled(photos)
    kept = []
    for data, name in zip(table.fetch(np.arange(len(table))), table.ids, strict=True):
        image = decode(data, None, 3, name)
        factor = max(WIDTH / image.shape[1], HEIGHT / image.shape[0])
        size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
        image = np.ascontiguousarray(image[:HEIGHT, :WIDTH])
        if not detect(image):
            kept.append(image)
    if not kept:
        raise UserError(f'--backgrounds={photos} holds no photograph without a face')
    return kept


def scenes(
    table: Table, grounds: list[np.ndarray], rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, Square | None]]:
    """(uint8 RGB [HEIGHT, WIDTH, 3], where the crop is) for each crop; grey around a grey one."""
    import cv2

    for index, name in enumerate(table.ids):
        crop = decode(table.fetch(np.array([index]))[0], None, 3, name)
        side = round(float(np.exp(rng.uniform(*np.log(SIDES)))))
        x, y = int(rng.integers(0, WIDTH - side + 1)), int(rng.integers(0, HEIGHT - side + 1))
        scene = grounds[int(rng.integers(len(grounds)))].copy()
        if (crop == crop[..., :1]).all():
            scene = np.repeat(cv2.cvtColor(scene, cv2.COLOR_RGB2GRAY)[..., None], 3, -1)
        how = cv2.INTER_CUBIC if side > crop.shape[0] else cv2.INTER_AREA
        scene[y : y + side, x : x + side] = cv2.resize(crop, (side, side), interpolation=how)
        _, jpeg = cv2.imencode('.jpg', cv2.cvtColor(scene, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])
        yield decode(jpeg.tobytes(), None, 3, name), (x, y, side)


def located(faces: list[Face], square: Square | None) -> Found:
    """Which of the faces is the one: of a photograph the largest, of a made picture one in the square, of its size."""
    largest = sorted(faces, key=lambda face: -face.box[2] * face.box[3])
    if square:
        left, top, side = square
        largest = [
            face
            for face in largest
            if left <= face.box[0] + face.box[2] / 2 <= left + side
            and top <= face.box[1] + face.box[3] / 2 <= top + side
            and side / 2 <= max(face.box[2:]) <= 2 * side
        ]
    return Found(largest[0] if largest else None, len(faces) - bool(largest), square)


def detected(detections: list[Found]) -> dict[str, Any]:
    """n, missed and its share, other faces; of made pictures the margin of the crops and misses by their side."""
    n, missed = len(detections), sum(detection.face is None for detection in detections)
    figures: dict[str, Any] = {'n': n, 'missed': missed, 'others': sum(detection.others for detection in detections)}
    figures |= {'miss_rate': missed / n, 'miss_rate_ci95': list(intervals.wilson_interval(missed, n))}
    made = [detection for detection in detections if detection.square]
    seen = [
        (detection.square[2] / max(detection.face.box[2:]) - 1) / 2
        for detection in made
        if detection.square and detection.face
    ]
    if seen:
        figures['margin_seen'] = np.percentile(seen, (25, 50, 75)).round(3).tolist()
    for low, high in zip(BINS, BINS[1:], strict=False) if made else ():
        part = [detection.face is None for detection in made if detection.square and low <= detection.square[2] < high]
        figures.setdefault('by_side', {})[f'{low} to {high - 1} px'] = {'n': len(part), 'missed': sum(part)}
    return figures


def scored(
    predictor: Predictor, aligned: Predictions, detections: list[Found], cut: list[np.ndarray]
) -> dict[str, Any]:
    """Of all, where a missed face counts as a mistake, and of those that were found; see `against`."""
    there = np.array([detection.face is not None for detection in detections])
    ours = [canonical(name) for name in predictor.classes]
    columns = [ours.index(name) for name in aligned.classes]
    parts = [predictor(np.stack(cut[start : start + 64])) for start in range(0, len(cut), 64)]
    right = np.zeros(len(detections), bool)
    if parts:
        right[there] = np.concatenate(parts)[:, columns].argmax(1) == aligned.labels[there]
    before = aligned.logits.argmax(1) == aligned.labels
    whole = {'all': against(before, right, aligned.subjects)}
    return whole | ({'found': against(before[there], right[there], aligned.subjects[there])} if parts else {})


def against(before: np.ndarray, after: np.ndarray, subjects: np.ndarray) -> dict[str, Any]:
    """Accuracy of aligned crops and of raw photographs, what was gained, and McNemar's p; hits are bool [N]."""
    figures: dict[str, Any] = {'n': len(before)}
    for name, hits in (('aligned', before), ('raw', after)):
        figures |= {name: float(hits.mean()), f'{name}_ci95': intervals.rate_interval(hits, subjects)[0]}
    gain, interval = comparison.gain(before, after, subjects)
    return figures | {'gain': gain, 'gain_ci95': interval, 'p': intervals.mcnemar(before, after)}


def markdown(rows: Sequence[common.Row]) -> str:
    first = rows[0]
    missed = summary.share(first['miss_rate'], first['miss_rate_ci95'])
    others = f'{first["others"]:,} {"faces where there is none" if first["made"] else "other faces"}'
    lines = [f'{first["data"]}, n = {first["n"]:,}: missed {missed}, {others}.']
    if 'margin_seen' in first:
        low, middle, high = first['margin_seen']
        sides = ', '.join(
            f'{figures["missed"]} of {figures["n"]} at {side}' for side, figures in first['by_side'].items()
        )
        lines += [f'Missed {sides}. Margin of the crops as the detector sees it: {middle:g} [{low:g}, {high:g}].']
    lines += ['', '| margin | part | n | aligned crops | raw photographs | gain | p |', '|---|---|---|---|---|---|---|']
    for row in rows:
        for part, name in (('all', 'all, missed is wrong'), ('found', 'found')):
            if figures := row.get(part):
                margin = f'{row["margin"]:g}' + (" (the run's)" if row['margin'] == row['own_margin'] else '')
                aligned, raw = (summary.share(figures[which], figures[f'{which}_ci95']) for which in ('aligned', 'raw'))
                gain = comparison.points(figures['gain'], figures['gain_ci95'])
                lines.append(
                    f'| {margin} | {name} | {figures["n"]:,} | {aligned} | {raw} | {gain} | {figures["p"]:.2g} |'
                )
    return '\n'.join(lines) + '\n'


if __name__ == '__main__':
    sys.exit(main())
