"""A page to try a network on: drop a picture or use the camera, see boxes and bars.

    python -m fer_jax.serve --workdir runs/x

Serves on this machine alone unless --host says otherwise, and keeps nothing of what it is shown.
"""

import argparse
import sys

import numpy as np

from fer_jax.cli import run_and_exit, run_command
from fer_jax.data.imaging import faces
from fer_jax.errors import UserError
from fer_jax.inference import face_pipeline
from fer_jax.inference.predictor import Predictor
from fer_jax.inference.server import LOOPBACK, Server
from fer_jax.utils.paths import path_argument
from fer_jax.utils.signals import Stopped, stop_request


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0 where a signal ended it, 2 where the input is wrong."""
    parser = argparse.ArgumentParser(
        prog='fer-jax serve', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--workdir', required=True, help='of a run with an evaluated checkpoint, or release')
    parser.add_argument('--host', default='127.0.0.1', help='address to serve on; 0.0.0.0: every one of this machine')
    parser.add_argument('--port', type=int, default=8000, help='0: any that is free')
    parser.add_argument('--name', default='', help='by which it is reached too, such as that of a server in front')
    parser.add_argument('--margin', type=float, help="around each face, as a share of it; the training data's, or 0.2")
    parser.add_argument(
        '--yunet', type=path_argument, help="ONNX file of OpenCV's YuNet: faces are aligned by its landmarks"
    )
    arguments = parser.parse_args(argv)

    def command() -> None:
        try:
            with stop_request():
                serve(arguments)
        except Stopped:
            print('stopped', file=sys.stderr)

    return run_command(command)


def serve(arguments: argparse.Namespace) -> None:
    """Until a signal comes.

    Raises:
      UserError: there is no run, no detector, or the address cannot be had.
    """
    if arguments.margin is not None and not 0 <= arguments.margin <= 10:
        raise UserError(f'--margin={arguments.margin}; expected 0 to 10')
    detect = faces.detector(arguments.yunet)
    predictor = Predictor(arguments.workdir)
    side = predictor.image_size
    predictor.calibrated(np.zeros((face_pipeline.FACE_BATCH_SIZE, side, side, 3), np.uint8))  # compiles it
    cutting = face_pipeline.cutting(predictor.folder, arguments.margin, aligns=arguments.yunet is not None)
    try:
        names = {arguments.host, arguments.name}
        server = Server((arguments.host, arguments.port), predictor, detect, cutting, names)
    except (OSError, OverflowError) as error:
        raise UserError(
            f'--host={arguments.host} --port={arguments.port} cannot be served on ({error}); choose another --port'
        ) from None
    with server:
        print(cutting.description, file=sys.stderr)
        if arguments.host not in LOOPBACK:
            print(f'anybody who reaches {arguments.host} can use this page; there is no password', file=sys.stderr)
        print(f'http://{arguments.host}:{server.server_address[1]}/   Ctrl-C ends it', flush=True)
        server.serve_forever()


if __name__ == '__main__':
    run_and_exit(main)
