"""Measures the growth of resident memory over many pictures, with the detector that users have by default.

    python scripts/robustness/memory.py detect --count 10000
    python scripts/robustness/memory.py video --count 18000 --rate 5 --size 320 180 --photo party.jpg     # an hour
    python scripts/robustness/memory.py crop_faces --count 600
    python scripts/robustness/memory.py serve --count 10000 --photo party.jpg

The resident size is taken after `--warm` pictures and at the end. The pictures are made of `--photo`, else of noise.
"""

import argparse
import contextlib
import io
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

MEGABYTE = 2**20


def read_resident_bytes() -> int:
    """Returns the resident size of this process in bytes."""
    return int(Path('/proc/self/statm').read_text().split()[1]) * 4096


class Growth:
    """Prints the resident size as pictures pass, and how much it grew since the first `warm` of them."""

    def __init__(self, warm: int, count: int):
        self._warm, self._count, self._seen = warm, count, 0
        self._began = time.monotonic()
        self.first = self.last = 0

    def add(self) -> None:
        """Counts one picture."""
        self._seen += 1
        if self._seen == self._warm:
            self.first = read_resident_bytes()
        if self._seen % max(1, self._count // 10) == 0 or self._seen == self._count:
            self.last = read_resident_bytes()
            seconds = time.monotonic() - self._began
            print(f'{self._seen:,} pictures, {self.last / MEGABYTE:,.0f} MB, {seconds:,.0f} s', flush=True)


def make_picture(photo: np.ndarray | None, number: int, size: tuple[int, int]) -> np.ndarray:
    """Makes uint8 RGB [H, W, 3], different for every number: noise, or the photograph shifted."""
    width, height = size
    if photo is None:
        return np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
    import cv2

    return np.roll(cv2.resize(photo, size, interpolation=cv2.INTER_AREA), number % 50, 1)


def measure_detect(arguments: argparse.Namespace, photo: np.ndarray | None, growth: Growth) -> None:
    """Lets the detector look at pictures from memory."""
    from fer_jax.data.imaging import faces

    detect = faces.detector()
    for number in range(arguments.count):
        detect(make_picture(photo, number, arguments.size))
        growth.add()


def measure_video(arguments: argparse.Namespace, photo: np.ndarray | None, growth: Growth) -> None:
    """Runs `predict` on one video of `count` frames, with its annotated copy."""
    from fer_jax import predict
    from fer_jax.inference import drawing, video

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'film.mp4'
        writer = video.Writer(path, arguments.size, arguments.rate)
        for number in range(arguments.count):
            writer.add(make_picture(photo, number, arguments.size), number / arguments.rate)
        writer.close()
        add = drawing.Film.add

        def counted(self: drawing.Film, *given: object) -> None:
            add(self, *given)
            growth.add()

        drawing.Film.add = counted
        predict.main([str(path), '--workdir', arguments.workdir, '--out', f'{folder}/out'])


def measure_crop_faces(arguments: argparse.Namespace, photo: np.ndarray | None, growth: Growth) -> None:
    """Cuts the faces out of a folder of photographs."""
    from PIL import Image

    from fer_jax.data.imaging import faces
    from fer_jax.data.imaging.crop_folder import crop_folder

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / 'photos').mkdir()
        for number in range(arguments.count):
            image = Image.fromarray(make_picture(photo, number, arguments.size))
            image.save(Path(folder) / 'photos' / f'{number}.jpg')
        detect = faces.detector()

        def counted(image: np.ndarray) -> list[faces.Face]:
            growth.add()
            return detect(image)

        with contextlib.redirect_stderr(io.StringIO()):
            crop_folder(Path(folder) / 'photos', Path(folder) / 'faces', detect=counted, margin=0.2, size=96)


def measure_serve(arguments: argparse.Namespace, photo: np.ndarray | None, growth: Growth) -> None:
    """Sends pictures to the web service, four requests at a time."""
    import http.client
    import threading
    from concurrent.futures import ThreadPoolExecutor

    from PIL import Image

    from fer_jax.data.imaging import faces
    from fer_jax.inference import face_pipeline
    from fer_jax.inference.face_service import FaceService
    from fer_jax.inference.predictor import Predictor
    from fer_jax.inference.server import Server

    predictor = Predictor(arguments.workdir)
    cutting = face_pipeline.cutting(predictor.folder, None, aligns=False)
    service = FaceService(predictor, faces.detector(), cutting)
    service.warm_up()
    server = Server(('127.0.0.1', 0), service)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def send(number: int) -> None:
        buffer = io.BytesIO()
        Image.fromarray(make_picture(photo, number, arguments.size)).save(buffer, 'JPEG')
        connection = http.client.HTTPConnection(*server.address)
        connection.request('POST', '/faces', buffer.getvalue())
        assert connection.getresponse().status == 200
        connection.close()

    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(send, range(arguments.count)):
            growth.add()
    server.should_exit = True
    thread.join()


MEASURES = {
    'detect': measure_detect,
    'video': measure_video,
    'crop_faces': measure_crop_faces,
    'serve': measure_serve,
}


def main(argv: list[str] | None = None) -> int:
    """Measures once and prints the growth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('measure', choices=MEASURES)
    parser.add_argument('--count', type=int, default=1000, help='pictures, frames, photographs or requests')
    parser.add_argument('--warm', type=int, default=100, help='pictures before the first look at the resident size')
    parser.add_argument('--size', type=int, nargs=2, default=(640, 360), help='width and height in px')
    parser.add_argument('--rate', type=float, default=25.0, help='frames a second of the video')
    parser.add_argument('--photo', type=Path, help='a photograph with faces, of which the pictures are made')
    parser.add_argument('--workdir', default='release', help='of the run that classifies the faces')
    arguments = parser.parse_args(argv)
    arguments.size = tuple(arguments.size)
    photo = None
    if arguments.photo:
        from fer_jax.data.imaging import faces

        photo = faces.read_rgb(arguments.photo)
    growth = Growth(min(arguments.warm, arguments.count), arguments.count)
    MEASURES[arguments.measure](arguments, photo, growth)
    grown = (growth.last - growth.first) / MEGABYTE
    print(f'growth {grown:,.1f} MB over {arguments.count - arguments.warm:,} pictures')
    return 0


if __name__ == '__main__':
    sys.exit(main())
