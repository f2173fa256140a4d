"""Serves a page to try a network on, and a JSON API.

    fer-jax serve --workdir runs/x

Serves on this machine alone unless --host says otherwise, and keeps nothing that it is sent.
"""

import argparse
import re
import sys

from fer_jax.cli import run_and_exit, run_command
from fer_jax.data.imaging import faces
from fer_jax.errors import UserError
from fer_jax.inference import face_pipeline
from fer_jax.inference.predictor import Predictor
from fer_jax.utils.paths import path_argument
from fer_jax.utils.signals import Stopped, stop_request

NAME = re.compile(r'[\w.-]+(:\d{1,5})?')
ROOT_PATH = re.compile(r'(/[\w.~-]+)*/?')


def main(argv: list[str] | None = None) -> int:
    """Runs the web service, and returns the exit status: 0 where a signal ended it, 2 where the input is wrong.

    Args:
      argv: arguments; None takes those of the process.
    """
    parser = argparse.ArgumentParser(
        prog='fer-jax serve', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--workdir', required=True, help='of a run with an evaluated checkpoint, or release')
    parser.add_argument('--host', default='127.0.0.1', help='address, IPv4 or IPv6; 0.0.0.0 or ::: all of this machine')
    parser.add_argument('--port', type=int, default=8000, help='0: any that is free')
    parser.add_argument(
        '--name', action='append', default=[], help='host name of a proxy in front, with its port if not 80 or 443'
    )
    parser.add_argument('--root_path', default='', help='path under which a proxy makes it available, such as /faces')
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
    """Serves a network over HTTP until a signal arrives.

    Args:
      arguments: parsed flags of `fer-jax serve`.

    Raises:
      UserError: there is no run, no detector, a package is missing, or the address cannot be listened on.
    """
    check_arguments(arguments)
    try:
        from fer_jax.inference.face_service import FaceService
        from fer_jax.inference.server import LOOPBACK, Server
    except ModuleNotFoundError as error:
        raise UserError(f"serving needs the package {error.name}; run pip install 'fer_jax[serve]'") from None
    detect = faces.detector(arguments.yunet)
    predictor = Predictor(arguments.workdir)
    cutting = face_pipeline.cutting(predictor.folder, arguments.margin, aligns=arguments.yunet is not None)
    service = FaceService(predictor, detect, cutting)
    host, root_path = arguments.host.strip('[]'), arguments.root_path.rstrip('/')
    try:
        server = Server((host, arguments.port), service, names=arguments.name, root_path=root_path)
    except (OSError, OverflowError) as error:
        raise UserError(
            f'--host={host} --port={arguments.port} cannot be served on ({error}); choose another --port'
        ) from None
    with server.socket:
        service.warm_up()
        print(cutting.description, file=sys.stderr)
        if host not in LOOPBACK:
            print(f'anybody who reaches {host} can use this page; there is no password', file=sys.stderr)
        shown = f'[{host}]' if ':' in host else host
        print(f'http://{shown}:{server.address[1]}/   API: /docs   Ctrl-C ends it', flush=True)
        server.serve_forever()


def check_arguments(arguments: argparse.Namespace) -> None:
    """Checks the values of the flags --margin, --name and --root_path.

    Raises:
      UserError: a value cannot be used.
    """
    if arguments.margin is not None and not 0 <= arguments.margin <= 10:
        raise UserError(f'--margin={arguments.margin}; expected 0 to 10')
    for name in arguments.name:
        if not NAME.fullmatch(name):
            raise UserError(f'--name={name!r} is no host name; give one such as faces.example or faces.example:8443')
    if not ROOT_PATH.fullmatch(arguments.root_path):
        raise UserError(f'--root_path={arguments.root_path!r} is no path; give one such as /faces')


if __name__ == '__main__':
    run_and_exit(main)
