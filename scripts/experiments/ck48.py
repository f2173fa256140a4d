"""Transfer against training from scratch on CK+48: 10 folds without a shared subject, intervals resampled by subject.

    python scripts/experiments/ck48.py --data CK48 --source runs/fer2013_resnet18 --out runs/ck48 \\
        --output docs/results/ck48.jsonl

`--data` has the seven class folders of CK+48, the files named after their subjects (`S010_004_00000017.png`).
`--source` is a finished run of ResNet-18 on FER2013; rows that start from it are left out where there is none. Every
row is a cross-validation in a folder of `--out`: the same command goes on where it stopped and leaves finished folds
alone. `--output` has one JSON object a row, and the Markdown table beside it.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from configs import default
from fer_jax.cli import run_command
from fer_jax.evaluation import comparison, summary
from fer_jax.evaluation.comparison import Predictions
from fer_jax.runs import results as run_results
from fer_jax.training import repeats
from scripts.experiments import common
from scripts.experiments.common import Row


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, 2 where the input is wrong, 75 where it was stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, required=True, help='folder of class folders')
    parser.add_argument('--out', type=Path, default=Path('runs/ck48'), help='folder of the runs')
    parser.add_argument('--output', type=Path, help='.jsonl to write; the table goes beside it as .md')
    parser.add_argument('--source', default='', help='workdir of a run of ResNet-18 on FER2013')
    parser.add_argument('--rows', default=','.join(ROWS), help='which, in this order')
    parser.add_argument('--folds', type=int, default=10)
    parser.add_argument('--first_fold', action='store_true', help='only that one of each row, for its time')
    arguments = parser.parse_args(argv)

    def command() -> None:
        fill(arguments)

    return run_command(command)


def fill(arguments: argparse.Namespace) -> None:
    """Runs the folds that are not finished, and writes what there is after each row."""
    names = common.choose('rows', arguments.rows, ROWS)
    if not arguments.source:
        names = [name for name in names if not name.startswith('fer2013')]
    rows: list[Row] = []
    for name in names:
        config = config_of(name, data=arguments.data, source=arguments.source, folds=arguments.folds)
        workdir = arguments.out / name
        if arguments.first_fold:
            repeats.once(config, workdir / 'fold-0')
            print(f'{name}: {common.spent_minutes(workdir):.2f} minutes')
            continue
        repeats.train_folds(config, workdir)
        rows.append(row(name, workdir, config) | gained(arguments.out / next(iter(ROWS)), workdir))
        left = common.minutes_left(rows, len(names))
        print(f'{name}: {len(rows)} of {len(names)} rows, about {left:.0f} minutes left')
        common.write_rows(arguments.output, rows, table)
    print(table(rows))


def scratch(config: ConfigDict, source: str) -> None:
    """ResNet-18, fresh."""
    _resnet18(config, 'scratch')
    config.phases = (default.phase(epochs=15, learning_rate=2e-3, weight_decay=0.1, warmup_epochs=2.0),)


def lite0_probe(config: ConfigDict, source: str) -> None:
    """EfficientNet-Lite0 from ImageNet, its head alone."""
    _lite0(config)
    config.phases = (default.phase(epochs=20, rates=default.HEAD_ONLY, learning_rate=5e-3),)


def lite0_unfrozen(config: ConfigDict, source: str) -> None:
    """EfficientNet-Lite0 from ImageNet, gradually unfrozen from the head down."""
    _lite0(config)
    stages = (default.HEAD_ONLY, default.train_from('conv_head', 'head'), default.ALL)
    config.phases = tuple(
        default.phase(epochs=epochs, rates=rates, learning_rate=rate, weight_decay=0.02)
        for rates, epochs, rate in zip(stages, (3, 2, 5), (5e-3, 2e-3, 1e-3), strict=True)
    )


def lite0_fine_tuned(config: ConfigDict, source: str) -> None:
    """EfficientNet-Lite0 from ImageNet, all of it from the first step."""
    _lite0(config)
    config.phases = (default.phase(epochs=6, learning_rate=1e-3, weight_decay=0.02, warmup_epochs=1.0),)


def fer2013_probe(config: ConfigDict, source: str) -> None:
    """ResNet-18 from FER2013, its head alone."""
    _resnet18(config, source)
    config.phases = (default.phase(epochs=8, rates=default.HEAD_ONLY, learning_rate=5e-3),)


def fer2013_fine_tuned(config: ConfigDict, source: str) -> None:
    """ResNet-18 from FER2013, all of it from the first step."""
    _resnet18(config, source)
    config.phases = (default.phase(epochs=6, learning_rate=3e-4, weight_decay=0.05, warmup_epochs=1.0),)


def _resnet18(config: ConfigDict, weights: str) -> None:
    config.model.update({'name': 'resnet18', 'weights': weights, 'image_size': 64, 'channels': 1})


def _lite0(config: ConfigDict) -> None:
    config.model.update({'name': 'efficientnet_lite0', 'image_size': 64, 'dropout': 0.2})


ROWS: dict[str, Callable[[ConfigDict, str], None]] = {
    'scratch': scratch,
    'lite0_probe': lite0_probe,
    'lite0_unfrozen': lite0_unfrozen,
    'lite0_fine_tuned': lite0_fine_tuned,
    'fer2013_probe': fer2013_probe,
    'fer2013_fine_tuned': fer2013_fine_tuned,
}


def config_of(name: str, *, data: Path, source: str, folds: int) -> dict[str, Any]:
    """The config of a row; validation is scored at the end of each phase, and chooses among those."""
    config = default.get_config()
    config.data.update({'name': '', 'dir': str(data), 'subject': 'S[0-9]+', 'folds': folds, 'batch_size': 32})
    config.data.augment.update({'shift': 0.06, 'scale': 0.08})
    config.data.placement = 'stream'  # one compiled step for folds of all sizes
    config.checkpoint.every = 1000.0
    config.parallel.devices = 2
    ROWS[name](config, source)
    return json.loads(config.to_json())


def row(name: str, workdir: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The pooled scores of a finished cross-validation, and the minutes it took."""
    results = json.loads((workdir / 'results.json').read_text())
    test = results['splits']['test']
    kept = ('n', 'accuracy', 'accuracy_ci95', 'interval', 'balanced_accuracy', 'macro_f1', 'each')
    scores = {key: test[key] for key in kept}
    named = {key: {**config[key]} for key in ('data', 'model')}  # a path says nothing elsewhere
    named['data']['dir'], named['model']['weights'] = (
        Path(path).name for path in (config['data']['dir'], config['model']['weights'])
    )
    about = {'row': name, 'what': ROWS[name].__doc__}
    return about | scores | {'minutes': round(common.spent_minutes(workdir), 2), 'config': {**config, **named}}


def gained(scratch: Path, workdir: Path) -> dict[str, Any]:
    """The gain of a cross-validation over that from scratch, image by image; {} of that itself, or without it."""
    if workdir == scratch or not (scratch / 'results.json').is_file():
        return {}
    predictions = []
    for folder in (scratch, workdir):
        folds = [run_results.read_predictions(path, 'test') for path in sorted(folder.glob('fold-*/predictions.npz'))]
        pooled = {name: np.concatenate([fold[name] for fold in folds]) for name in run_results.PREDICTED}
        predictions.append(
            Predictions(classes=tuple(json.loads((folder / 'results.json').read_text())['classes']), **pooled)
        )
    (gain,) = comparison.compare({'scratch': predictions[0], 'row': predictions[1]})['splits'].values()
    return {key: gain['row'][key] for key in ('gain', 'gain_ci95', 'p')}


def table(rows: Sequence[Row]) -> str:
    """Markdown, a line a row."""
    lines = [
        '| | accuracy | gain over fresh weights | balanced | macro F1 | worst and best fold | minutes |',
        '|---|---|---|---|---|---|---|',
    ]
    for cell in rows:
        each = cell['each']['accuracy']
        gain = comparison.points(cell['gain'], cell['gain_ci95']) if 'gain' in cell else ''
        lines.append(
            f'| {cell["what"]} | {summary.share(cell["accuracy"], cell["accuracy_ci95"])} | {gain} | '
            f'{100 * cell["balanced_accuracy"]:.2f} % | {cell["macro_f1"]:.3f} | '
            f'{100 * min(each):.1f} to {100 * max(each):.1f} % | {cell["minutes"]:.1f} |'
        )
    return '\n'.join(lines) + '\n'


if __name__ == '__main__':
    sys.exit(main())
