"""Cuts the faces out of a folder of photographs.

    python scripts/crop_faces.py --source photographs --out faces --margin 0.2 --size 224
    python scripts/crop_faces.py --source photographs --out faces --pick all --align --yunet yunet.onnx

Folders of classes and splits are kept. The same command again goes on where it was interrupted. Besides the crops there
are crops.jsonl (a line a photograph) and no_face.txt.
"""

import argparse
import errno
import sys
from pathlib import Path

from fer_jax.data import faces
from fer_jax.data.crop_folder import LOG, PICKS, WITHOUT, crop_folder
from fer_jax.errors import UserError


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, 2 where the input is wrong, or 130 where it was interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--source', type=Path, required=True, help='folder of photographs, in folders or not')
    parser.add_argument('--out', type=Path, required=True, help='folder to write to')
    parser.add_argument('--margin', type=float, default=0.2, help='around the face, as a share of it')
    parser.add_argument('--size', type=int, default=224, help='px, side of a crop')
    parser.add_argument('--pick', default='largest', help=f'which faces of a photograph: {", ".join(PICKS)}')
    parser.add_argument('--yunet', type=Path, help='ONNX file: detect by YuNet, which finds landmarks')
    parser.add_argument('--align', action='store_true', help='turn and scale faces by their landmarks; needs --yunet')
    arguments = parser.parse_args(argv)
    try:
        run(arguments)
    except UserError as error:
        message = str(error)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        place = error.filename or arguments.out
        message = f'{place} cannot be read or written ({error.strerror}); mend that, then run this again: it goes on'
    except KeyboardInterrupt:
        print('fer_jax: stopped; the same command goes on', file=sys.stderr)
        return 130
    else:
        return 0
    print(f'fer_jax: {message}', file=sys.stderr)
    return 2


def run(arguments: argparse.Namespace) -> None:
    if arguments.align and arguments.yunet is None:
        raise UserError('--align needs landmarks; give the ONNX file of YuNet from the OpenCV zoo with --yunet')
    summary = crop_folder(
        arguments.source,
        arguments.out,
        detect=faces.detector(arguments.yunet),
        margin=arguments.margin,
        size=arguments.size,
        pick=arguments.pick,
        align=arguments.align,
    )
    print(f'{summary} are in {arguments.out}')
    if summary.without_face:
        print(f'photographs without a face are listed in {arguments.out / WITHOUT}')
    if summary.unreadable:
        print(f'what could not be read is in {arguments.out / LOG}, with the reason')


if __name__ == '__main__':
    sys.exit(main())
