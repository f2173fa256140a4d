"""A trained network as a file for other programs.

    python -m fer_jax.export --workdir runs/x --format onnx --output faces.onnx

`--format` is onnx or stablehlo, a graph from uint8 faces to probabilities with the preprocessing inside; a framework
that has this network (docs/reference/weights.md), such as torchvision or keras; or safetensors for fer_jax's own file,
which `model.weights` reads. `--precision` float16 or int8 makes an ONNX file smaller; what that changes is measured and
printed. A torch state dict is written as safetensors, Keras's weights as .h5. A model card is written beside it, such
as faces.onnx.md. A graph is verified on real images before anything is written.
"""

import argparse

from fer_jax.cli import run_and_exit, run_command
from fer_jax.exporters.export_run import GRAPHS, OWN, export
from fer_jax.utils.paths import path_argument


def main(argv: list[str] | None = None) -> int:
    """Exports a run as the arguments say, and returns the exit status: 0, or 2 where the input is wrong.

    Args:
      argv: arguments; None takes those of the process.
    """
    parser = argparse.ArgumentParser(
        prog='fer-jax export', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--workdir', required=True, type=path_argument, help='of a run with an evaluated checkpoint, or release'
    )
    parser.add_argument('--format', required=True, help=f'{", ".join(GRAPHS)}, {OWN}, or a framework with the network')
    parser.add_argument('--output', required=True, type=path_argument)
    parser.add_argument(
        '--images', default='', help="to verify a graph on: a folder or set; the run's validation split"
    )
    parser.add_argument('--precision', default='float32', help='of onnx: float32, float16 or int8')
    parser.add_argument(
        '--calibrate', default='', help="of int8: training images, a folder or set; the run's training split"
    )
    parser.add_argument('--data_licence', default='', help='of the training images, for the model card')
    arguments = parser.parse_args(argv)
    return run_command(
        lambda: export(
            arguments.workdir,
            arguments.format,
            arguments.output,
            arguments.images,
            arguments.data_licence,
            precision=arguments.precision,
            calibrate=arguments.calibrate,
        )
    )


if __name__ == '__main__':
    run_and_exit(main)
