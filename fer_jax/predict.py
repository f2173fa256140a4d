"""A trained network as a function of images, and on photographs and videos.

    python -m fer_jax.predict --workdir runs/x photo.jpg holiday/ film.mp4 camera:0 --out seen

finds the faces and says what each shows: JSON lines on standard output or, with --out, in predictions.jsonl there,
beside annotated copies of the pictures and, of each video, a timeline and the means of every person (persons.jsonl).
"""

import argparse
import os
import sys

from fer_jax.cli import run_and_exit, run_command
from fer_jax.errors import UserError
from fer_jax.inference.predict_files import predict_files
from fer_jax.utils.moved import forward
from fer_jax.utils.paths import path_argument
from fer_jax.utils.signals import Stopped, stop_request

__getattr__ = forward(__name__, dict.fromkeys(('Predictor', 'load'), 'fer_jax.inference.predictor'))


def main(argv: list[str] | None = None) -> int:
    """Finds and classifies the faces of photographs and videos as the arguments say.

    Args:
      argv: arguments; None takes those of the process.

    Returns:
      The exit status: 0, 2 where an input is wrong (the others are processed), or 75 where a signal stopped it.
    """
    parser = argparse.ArgumentParser(
        prog='fer-jax predict', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    paths_help = 'photograph, video, folder of them, rtsp://... or http://..., or camera:0'
    parser.add_argument('paths', nargs='+', metavar='PATH', help=paths_help)
    parser.add_argument('--workdir', required=True, help='of a run with an evaluated checkpoint, or release')
    parser.add_argument('--out', type=path_argument, help='folder for predictions, annotated copies, timelines')
    parser.add_argument('--show', action='store_true', help='show the newest annotated picture on a page in a browser')
    parser.add_argument('--margin', type=float, help="around each face, as a share of it; the training data's, or 0.2")
    parser.add_argument('--abstain_below', type=float, default=0.0, help='probability below which it does not say')
    parser.add_argument('--every', type=int, default=1, help='of a video, look at every so many frames')
    parser.add_argument(
        '--yunet', type=path_argument, help="ONNX file of OpenCV's YuNet: faces are aligned by its landmarks"
    )
    parser.add_argument(
        '--faces',
        default='detect',
        metavar='detect|given|CSV',
        help='detect them; given: each picture is a face; or a table of boxes: file,x,y,width,height and frame',
    )
    parser.add_argument('--format', default='jsonl', help='of the predictions: jsonl, csv or parquet')
    parser.add_argument('--smooth', type=float, default=0.0, help='seconds to average each person of a video over')
    parser.add_argument('--tta', default='none', help='views of each face: none, flip, tencrop or a number')
    arguments = parser.parse_args(argv)

    def command() -> int:
        try:
            with stop_request() as request:
                return predict_files(arguments)
        except Stopped:
            raise Stopped(f'stopped by {request.name}; what was looked at is written') from None
        except BrokenPipeError:  # whoever read the lines has seen enough
            _drop_lines()
            return 0
        except OSError as error:
            if not arguments.out:
                _drop_lines()
            place, reason = error.filename or arguments.out or 'the output', error.strerror or error
            raise UserError(f'{place}: {reason}; make room, or name what may be read and written') from None

    return run_command(command)


def _drop_lines() -> None:
    """What is buffered could not be written at exit either."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == '__main__':
    run_and_exit(main)
