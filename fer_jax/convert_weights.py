"""Converts weights of torch, Keras, TensorFlow.js, dlib or MatConvNet to the safetensors that `model.weights` reads.

    python -m fer_jax.convert_weights --model resnet50 --source resnet50-11ad3fa6.pth

Nothing in the source file is executed, and none of them is needed.
"""

import argparse
import math

from fer_jax import models, pretrained
from fer_jax.cli import run_and_exit, run_command
from fer_jax.errors import UserError
from fer_jax.pretrained.readers.foreign import ALL_SUFFIXES
from fer_jax.utils import cache
from fer_jax.utils.paths import path_argument


def main(argv: list[str] | None = None) -> int:
    """Converts weights as the arguments say, and returns the exit status: 0, or 2 where the input is wrong.

    Args:
      argv: arguments; None takes those of the process.
    """
    parser = argparse.ArgumentParser(
        prog='fer-jax convert', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--model', required=True, help=f'one of {", ".join(models.NAMES)}')
    parser.add_argument(
        '--source', required=True, type=path_argument, help=f'a file of weights: {", ".join(ALL_SUFFIXES)}'
    )
    parser.add_argument('--key', default='', help='where it holds several networks: the one to take, as state_dict_ema')
    parser.add_argument('--weights', default='imagenet', help='their name in the cache, where model.weights finds them')
    parser.add_argument('--output', type=path_argument, help='default: in the cache')
    parser.add_argument('--licence', default='unknown', help="the weights' licence, kept in the file")
    meaning = "how the network wants its images; default: the source framework's"
    parser.add_argument('--mean', type=float, nargs='+', help=f'of x / 255, in the order of --order; {meaning}')
    parser.add_argument('--std', type=float, nargs='+', help='of x / 255')
    parser.add_argument('--order', choices=('RGB', 'BGR'), default='RGB', help='with --mean')
    parser.add_argument('--size', type=int, default=224, help='with --mean')
    arguments = parser.parse_args(argv)
    return run_command(lambda: convert(arguments))


def convert(arguments: argparse.Namespace) -> None:
    if (arguments.mean is None) != (arguments.std is None):
        raise UserError('--mean and --std belong together; give both, or neither')
    preprocessing = None
    if arguments.mean:
        preprocessing = pretrained.Preprocessing(
            tuple(arguments.mean), tuple(arguments.std), order=arguments.order, size=arguments.size
        )
    weights = pretrained.convert_file(
        arguments.source,
        arguments.model,
        source=arguments.source.name,
        licence=arguments.licence,
        preprocessing=preprocessing,
        key=arguments.key,
    )
    default = pretrained.cached_file(arguments.model, cache.root(), arguments.weights)
    output = arguments.output or default
    pretrained.save(output, weights)
    leaves = [*weights.params.values(), *weights.stats.values()]
    print(f'{arguments.source} -> {output}')
    print(f'{len(leaves)} tensors, {sum(math.prod(leaf.shape) for leaf in leaves):,} numbers')
    for name, value in weights.metadata.items():
        print(f'  {name:<9} {value}')
    for name, values in (('mean', weights.preprocessing.mean), ('std', weights.preprocessing.std)):
        print(f'  {name:<9} {", ".join(f"{value:.4g}" for value in values)} of x / 255')
    preprocessing = weights.preprocessing
    print(f'  {"images":<9} {preprocessing.order}, {preprocessing.size} px, {preprocessing.interpolation}')
    flag = arguments.weights if output == default else output
    print(f'use it with --config.model.name={arguments.model} --config.model.weights={flag}')


if __name__ == '__main__':
    run_and_exit(main)
