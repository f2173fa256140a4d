"""Frames per second of `fer-jax predict` on a 1080p video of three faces, and where the time goes.

    python scripts/benchmarks/video.py --photo PHOTO_OF_THREE --out docs/results/video_cpu.jsonl --peer PYTHON

The video is a slow pan over a photograph, H.264. Each stage is measured alone, then all together as `predict` runs
them, then the command with annotated copies and its start. `--peer` names a Python with the package `fer` installed,
whose own loop over the same frames is run in the same call, after a first frame. Other programs on the machine disturb
it: frames per CPU second are printed beside.
"""

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from fer_jax import predict  # noqa: E402
from fer_jax.data.imaging import faces  # noqa: E402
from fer_jax.inference import face_pipeline, media, tracking  # noqa: E402
from fer_jax.inference.predictor import Predictor  # noqa: E402

SIZE, RATE = (1920, 1080), 25
PEER = """
import json, resource, sys, time
import cv2
from fer import FER
detector = FER(mtcnn=sys.argv[2] == 'mtcnn')
video = cv2.VideoCapture(sys.argv[1])
detector.detect_emotions(video.read()[1])
video.set(cv2.CAP_PROP_POS_FRAMES, 0)
frames = found = 0
start, cpu = time.perf_counter(), time.process_time()
while frames < int(sys.argv[3]):
    read, image = video.read()
    if not read:
        break
    found += len(detector.detect_emotions(image))
    frames += 1
print(json.dumps([frames, found, time.perf_counter() - start, time.process_time() - cpu]))
"""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--photo', type=Path, required=True)
    parser.add_argument('--workdir', default='release')
    parser.add_argument('--frames', type=int, default=250)
    parser.add_argument('--peer', help='a Python with fer installed')
    parser.add_argument('--out', type=Path, help='append JSON lines')
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder, 'film.mp4')
        write_video(film, faces.read_rgb(arguments.photo), arguments.frames)
        for record in measure(film, arguments, Path(folder)):
            record = {'load': round(os.getloadavg()[0], 1), **record}
            print(json.dumps(record), flush=True)
            if arguments.out:
                with arguments.out.open('a', encoding='utf-8') as file:
                    file.write(json.dumps(record) + '\n')
    return 0


def write_video(path: Path, photo: np.ndarray, count: int) -> None:
    """Write a pan over a photograph that is scaled to a little more than the frame."""
    import av
    import cv2

    scale = max(1.05 * SIZE[0] / photo.shape[1], 1.02 * SIZE[1] / photo.shape[0])
    large = cv2.resize(photo, None, fx=scale, fy=scale)
    room = large.shape[1] - SIZE[0], large.shape[0] - SIZE[1]
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=Fraction(RATE))
        stream.width, stream.height, stream.pix_fmt = *SIZE, 'yuv420p'
        for number in range(count):
            share = 0.5 - 0.5 * np.cos(2 * np.pi * number / count)
            left, top = round(share * room[0]), round(share * room[1])
            image = np.ascontiguousarray(large[top : top + SIZE[1], left : left + SIZE[0]])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format='rgb24')))
        container.mux(stream.encode(None))


def measure(film: Path, arguments: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """Yield a record for each stage, the whole, and the peers."""
    detect, predictor = faces.detector(), Predictor(arguments.workdir)
    cutting = face_pipeline.cutting(predictor.folder, None, aligns=False)
    (source,) = media.find_sources([str(film)]).sources
    image = next(media.read_frames(source)).image
    located = detect(image)
    crops = [face_pipeline.cut_out(image, face, predictor.image_size, cutting) for face in located]
    batch = np.resize(np.stack(crops), (face_pipeline.FACE_BATCH_SIZE, *crops[0].shape))
    predictor.calibrated(batch)
    count = arguments.frames

    def classify() -> None:
        for _ in range(-(-len(located) * count // len(batch))):
            predictor.calibrated(batch)

    stages: dict[str, Callable[[], Any]] = {
        'decode': lambda: sum(1 for _ in media.read_frames(source)),
        'detect': lambda: [detect(image) for _ in range(count)],
        'crop': lambda: [
            face_pipeline.cut_out(image, face, predictor.image_size, cutting) for _ in range(count) for face in located
        ],
        'classify': classify,
    }

    def look() -> None:
        frames = media.read_frames(source)
        seen = face_pipeline.look(frames, detect, predictor.calibrated, size=predictor.image_size, cutting=cutting)
        for _ in tracking.track_faces(seen, smoothing_seconds=0.0):
            pass

    stages['all stages and tracking'] = look
    command = [str(film), '--workdir', arguments.workdir, '--out', str(folder / 'seen')]
    stages['predict --out, with its start'] = lambda: run_predict(command)
    for name, stage in stages.items():
        yield {'what': name, 'faces': len(located), **timed(stage, count)}
    for detector in ('haar', 'mtcnn') if arguments.peer else ():
        command = [arguments.peer, '-c', PEER, str(film), detector, str(count if detector == 'haar' else count // 5)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            yield {'what': f'fer, {detector}', 'error': (done.stderr.strip() or '?').splitlines()[-1]}
            continue
        frames, found, seconds, cpu = json.loads(done.stdout.splitlines()[-1])
        rates = {'frames_per_second': round(frames / seconds, 2), 'frames_per_cpu_second': round(frames / cpu, 2)}
        yield {'what': f'fer, {detector}', 'faces': round(found / frames, 2), 'frames': frames, **rates}


def run_predict(arguments: list[str]) -> None:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        if predict.main(arguments):
            raise RuntimeError('predict failed')


def timed(stage: Callable[[], Any], frames: int) -> dict[str, float]:
    start, cpu = time.perf_counter(), time.process_time()
    stage()
    seconds, used = time.perf_counter() - start, time.process_time() - cpu
    return {
        'frames': frames,
        'frames_per_second': round(frames / seconds, 2),
        'frames_per_cpu_second': round(frames / used, 2),
    }


if __name__ == '__main__':
    sys.exit(main())
