"""Networks x where their weights come from x how they are fine-tuned, on FER2013, under one protocol and budget.

    python scripts/experiments/transfer.py --out runs/transfer --output docs/results/transfer.jsonl --other faces/ck48

Every cell has the same images, batches, augmentation, optimizer, epochs over the training images, and choice on
validation; the test split is scored once by what was chosen. `other` weights are those of a run of the same network
from fresh weights on the set that `--other` names (a prepared set, a folder of class folders, or a manifest), with as
many epochs again. `given` weights are those that `--given` names for networks, such as
`--given vgg16=vgg16_notop.h5,dlib_resnet=faces`. The same command goes on where it stopped and leaves finished cells
alone. `--output` has one JSON object a cell, and the Markdown table and a plot beside it; a cell whose weights cannot
be had here stays empty, and the reason is kept.

On a GPU: `--image_size 96 --epochs 12 --batch_size 256`. On a CPU: `--train_examples 2000 --epochs 3 --image_size 48`.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from configs import default, probe
from fer_jax import models
from fer_jax.cli import run_command
from fer_jax.errors import UserError
from fer_jax.evaluation import summary
from fer_jax.runs import metrics_log
from fer_jax.training import initial_weights, repeats
from fer_jax.utils import plotting
from scripts.experiments import common
from scripts.experiments.common import Row

NETWORKS = (
    'vgg16', 'resnet18', 'resnet50', 'resnet50_v2', 'inception_resnet_v2', 'efficientnet_lite0', 'efficientnet_lite2',
    'mobilenet_v1', 'mobilenet_v1_folded', 'dlib_resnet',
)  # fmt: skip
WEIGHTS = ('scratch', 'imagenet', 'given', 'other')
# The last stages below the pool, from the top: the first alone is 'last stage', all in turn are 'gradual'.
UPPER = {
    'vgg16': ('block5', 'block4'),
    'resnet18': ('layer4', 'layer3'),
    'resnet50': ('layer4', 'layer3'),
    'resnet50_v2': ('layer4', 'layer3'),
    'inception_resnet_v2': ('conv_7b', 'block8'),
    **dict.fromkeys(('efficientnet_lite0', 'efficientnet_lite2'), ('conv_head', 'blocks6')),
    **dict.fromkeys(('mobilenet_v1', 'mobilenet_v1_folded'), ('blocks4', 'blocks3')),
    'dlib_resnet': ('level0', 'level1'),
}


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, 2 where the input is wrong, 75 where it was stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=Path('runs/transfer'), help='folder of the runs')
    parser.add_argument('--output', type=Path, required=True, help='.jsonl to write')
    parser.add_argument('--data', default='fer2013', help='a prepared set')
    parser.add_argument('--other', default='', help='set of the `other` weights; empty: those cells stay empty')
    parser.add_argument('--given', default='', help='NETWORK=WEIGHTS,... of the `given` weights, see model.weights')
    parser.add_argument('--networks', default=','.join(NETWORKS))
    parser.add_argument('--weights', default=','.join(WEIGHTS))
    parser.add_argument('--methods', default=','.join(METHODS))
    parser.add_argument('--epochs', type=float, default=12.0, help='of every cell, over the training images')
    parser.add_argument('--image_size', type=int, default=96, help='a network that needs more gets what it needs')
    parser.add_argument('--batch_size', type=int, default=128)
    parser.add_argument('--train_examples', type=int, default=0, help='a fixed, stratified choice; 0: all')
    parser.add_argument('--dtype', default='float32', choices=['float32', 'bfloat16'])
    parser.add_argument('--devices', type=int, default=0)
    arguments = parser.parse_args(argv)

    def command() -> None:
        fill(arguments)

    return run_command(command)


def fill(arguments: argparse.Namespace) -> None:
    """Runs the cells that are not finished, and writes what there is after each."""
    cells = list(chosen(arguments))
    rows: list[Row] = []
    for network, weights, method in cells:
        rows.append(cell(arguments, network, weights, method))
        left = common.minutes_left(rows, len(cells))
        text = rows[-1].get('absent') or summary.share(rows[-1]['accuracy'], rows[-1]['accuracy_ci95'])
        print(f'{network}, {weights}, {method}: {text}; {len(rows)} of {len(cells)} cells, {left:.0f} minutes left')
        common.write_rows(arguments.output, rows, table)
    plot(arguments.output.with_suffix('.png'), rows)
    print(table(rows))


def chosen(arguments: argparse.Namespace) -> Iterator[tuple[str, str, str]]:
    """The cells in order. Frozen fresh features say nothing, so from fresh weights everything is trained.

    Raises:
      UserError: a network, a kind of weights or a method is unknown.
    """
    axes = []
    for name, known in (('networks', NETWORKS), ('weights', WEIGHTS), ('methods', tuple(METHODS))):
        asked = common.choose(name, getattr(arguments, name), known)
        axes.append([option for option in known if option in asked])
    for network in axes[0]:
        for weights in axes[1]:
            for method in axes[2]:
                if weights != 'scratch' or method == 'full':
                    yield network, weights, method


def cell(arguments: argparse.Namespace, network: str, weights: str, method: str) -> Row:
    """The scores of one cell, or why it has none."""
    named = {'network': network, 'weights': weights, 'method': method}
    try:
        given = origin(arguments, network, weights)
    except UserError as error:
        return named | {'absent': str(error)}
    config = base(arguments, network, given)
    if network == 'vgg16' and weights == 'given':  # files without top have no fc6 and fc7, which 'mlp' trains anew
        config.model.head = 'mlp'
    METHODS[method](config, arguments.epochs, UPPER[network])
    workdir = arguments.out / f'{network}-{weights}-{method}'
    results = repeats.once(json.loads(config.to_json()), workdir)
    official = results['splits']['test']
    row: Row = named | {key: official[key] for key in ('n', 'accuracy', 'accuracy_ci95', 'balanced_accuracy')}
    if 'test_clean' in results['splits']:
        row['clean'] = {key: results['splits']['test_clean'][key] for key in ('n', 'accuracy', 'accuracy_ci95')}
    return row | spent(workdir, results) | {'image_size': config.model.image_size, 'epochs': arguments.epochs}


def spent(workdir: Path, results: Row) -> Row:
    """Minutes, compilation included, and images a second of the training steps; a probe knows its seconds alone."""
    timing = metrics_log.read_metrics(workdir / 'timing.jsonl')
    if not timing:
        return {'minutes': round(sum(results['seconds'].values()) / 60, 2)}
    rates = sorted(record['images_per_second'] for record in timing if record['event'] == 'train')
    minutes = round(common.spent_minutes(workdir), 2)
    return {'minutes': minutes, 'images_per_second': rates[len(rates) // 2]}


def origin(arguments: argparse.Namespace, network: str, weights: str) -> str:
    """What model.weights is to be.

    Raises:
      UserError: the weights cannot be had here.
    """
    if weights == 'given':
        files = dict(pair.split('=', 1) for pair in arguments.given.split(',') if '=' in pair)
        if network not in files:
            raise UserError(f'--given names no weights of {network}')
        weights = files[network]
    if weights != 'other':
        initial_weights.source(weights, network)
        return weights
    if not arguments.other:
        raise UserError('--other names no set')
    config = base(arguments, network, 'scratch')
    config.data.train_examples = 0
    field = 'dir' if Path(arguments.other).is_dir() else 'manifest' if Path(arguments.other).is_file() else 'name'
    config.data.name = ''
    config.data[field] = arguments.other
    config.data.splits.test = ''
    METHODS['full'](config, arguments.epochs, ())
    workdir = arguments.out / f'{network}-on-other'
    repeats.once(json.loads(config.to_json()), workdir)
    return str(workdir)


def base(arguments: argparse.Namespace, network: str, weights: str) -> ConfigDict:
    """What all cells share."""
    config = default.get_config()
    smallest = getattr(models.CONSTRUCTORS[network], 'min_size', 1)
    config.model.update({'name': network, 'weights': weights, 'dtype': arguments.dtype})
    config.model.image_size = max(arguments.image_size, smallest)
    config.data.update({'name': arguments.data, 'batch_size': arguments.batch_size})
    config.data.train_examples = arguments.train_examples
    config.data.augment = default.augment('light')
    config.parallel.devices = arguments.devices
    return config


def linear(config: ConfigDict, epochs: float, upper: Sequence[str]) -> None:
    """frozen, linear head"""
    config.phases = (default.phase(epochs=epochs, rates=default.HEAD_ONLY, learning_rate=3e-3, cache_views=1),)


def probed(config: ConfigDict, epochs: float, upper: Sequence[str]) -> None:
    """frozen, grid of heads on three stages"""
    config.data.augment = default.augment('none')
    config.probe = probe.get_config().probe
    below = ('pool',) if not upper else (upper[1], upper[0])
    config.probe.update({'stages': below, 'epochs': max(1, round(epochs)), 'ridge': (1e-2, 0.1, 1.0)})


def last_stage(config: ConfigDict, epochs: float, upper: Sequence[str]) -> None:
    """last stage and head"""
    rates = default.train_from(upper[0], 'head')
    config.phases = (default.phase(epochs=epochs, rates=rates, **shared(epochs)),)


def gradual(config: ConfigDict, epochs: float, upper: Sequence[str]) -> None:
    """head, last stage, the one below, all: a quarter of the epochs each"""
    tables = (
        default.HEAD_ONLY,
        default.train_from(upper[0], 'head'),
        default.train_from(*upper, 'head'),
        default.ALL,
    )
    config.phases = tuple(default.phase(epochs=epochs / 4, rates=rates, **shared(epochs / 4)) for rates in tables)


def full(config: ConfigDict, epochs: float, upper: Sequence[str]) -> None:
    """everything from the first step"""
    config.phases = (default.phase(epochs=epochs, **shared(epochs)),)


def shared(epochs: float) -> dict[str, float]:
    return {'learning_rate': 1e-3, 'weight_decay': 0.05, 'warmup_epochs': epochs / 10, 'clip': 1.0}


METHODS: dict[str, Callable[[ConfigDict, float, Sequence[str]], None]] = {
    'linear': linear,
    'probe': probed,
    'last_stage': last_stage,
    'gradual': gradual,
    'full': full,
}


def table(rows: Sequence[Row]) -> str:
    """Markdown: a line for each network and kind of weights, a column a method; below it why cells are empty."""
    methods = [name for name in METHODS if any(row['method'] == name for row in rows)]
    lines = [f'| network | weights | {" | ".join(str(METHODS[name].__doc__) for name in methods)} |']
    lines.append('|---' * (2 + len(methods)) + '|')
    by_cell = {(row['network'], row['weights'], row['method']): row for row in rows}
    for network, weights in dict.fromkeys((row['network'], row['weights']) for row in rows):
        cells = [written(by_cell.get((network, weights, method), {})) for method in methods]
        lines.append(f'| {network} | {weights} | {" | ".join(cells)} |')
    reasons = dict.fromkeys(f'{row["network"]}, {row["weights"]}: {row["absent"]}' for row in rows if 'absent' in row)
    return '\n'.join([*lines, '', *(f'- {reason}' for reason in reasons)]) + '\n'


def written(row: Row) -> str:
    if 'accuracy' not in row:
        return '-' if row else ''
    rate = f', {row["images_per_second"]:,.0f}/s' if 'images_per_second' in row else ''
    return f'{summary.share(row["accuracy"], row["accuracy_ci95"])} ({row["minutes"]:.1f} min{rate})'


def plot(path: Path, rows: Sequence[Row]) -> None:
    """Accuracy with its interval against minutes; a colour a method, a marker a kind of weights."""
    scored = [row for row in rows if 'accuracy' in row]
    drawn = plotting.figure(9.0, 4.5)
    axes = drawn.add_subplot()
    markers = dict(zip(WEIGHTS, 'osD^', strict=True))
    for number, method in enumerate(METHODS):
        for weights in WEIGHTS:
            those = [row for row in scored if (row['method'], row['weights']) == (method, weights)]
            for row in those:
                low, high = row['accuracy_ci95']
                axes.errorbar(
                    max(row['minutes'], 0.01),
                    100 * row['accuracy'],
                    yerr=[[100 * (row['accuracy'] - low)], [100 * (high - row['accuracy'])]],
                    fmt=markers[weights],
                    color=f'C{number}',
                    label=f'{method}, {weights}' if row is those[0] else None,
                )
                axes.annotate(row['network'], (max(row['minutes'], 0.01), 100 * row['accuracy']), fontsize=6)
    axes.set_xscale('log', subs=(2, 5))
    axes.xaxis.set_major_formatter('{x:g}')
    axes.xaxis.set_minor_formatter('{x:g}')
    axes.set_xlabel('minutes')
    axes.set_ylabel('test accuracy, %')
    if scored:
        axes.legend(fontsize=7, frameon=False, loc='upper left', bbox_to_anchor=(1.0, 1.0))
    drawn.savefig(path)


if __name__ == '__main__':
    sys.exit(main())
