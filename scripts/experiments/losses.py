"""What losses, targets and optimizers do on the same 5,000 training images of FER2013.

    python scripts/experiments/losses.py --out runs/loss_table --output docs/results/losses.jsonl

Every cell is a run in a folder of `--out` with one thing changed; the same command goes on where it stopped and leaves
finished cells alone. `--output` has one JSON object a cell, and the Markdown table beside it. The cell `ferplus`
trains on the votes of FER+ and selects by its majority labels; it is scored, like the others, on FER2013's own labels.
Its 5,000 images are chosen in the same way among those with usable votes: 4,819 of them are the others'.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs import default, fer2013_resnet18
from fer_jax.cli import run_command
from fer_jax.data import dataset
from fer_jax.data.tasks import PRIMARY
from fer_jax.distributed import sharding
from fer_jax.evaluation import score_logits, summary
from fer_jax.evaluation.network_scorer import NetworkScorer
from fer_jax.runs import restore
from fer_jax.runs import results as run_results
from fer_jax.training import repeats
from fer_jax.utils import cache
from scripts.experiments import common
from scripts.experiments.common import Row

CELLS: dict[str, dict[str, Any]] = {
    'cross_entropy': {},
    'focal': {'loss.name': 'focal'},
    'inverse_weights': {'loss.class_weights': 'inverse'},
    'effective_number': {'loss.class_weights': 'effective'},
    'logit_adjusted': {'loss.name': 'logit_adjusted'},
    'gce': {'loss.name': 'generalised_cross_entropy'},
    'ferplus': {'data.name': 'ferplus', 'data.target': 'cross_entropy', 'data.drop_classes': ('contempt',)},
    'mixup': {'data.augment.mixup': 0.2},
    'sam': {'phase.sam': 0.05},
    'ema': {'phase.ema': 0.99},
}
FULL = {'examples': 5000, 'batch_size': 48}
SMOKE = {'examples': 192, 'batch_size': 48, 'epochs': 1.0, 'image_size': 32}


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, 2 where the input is wrong, 75 where it was stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=Path('runs/loss_table'), help='folder of the runs')
    parser.add_argument('--output', type=Path, help='.jsonl to write; the table goes beside it as .md')
    parser.add_argument('--source', default='scratch', help='what the network starts from: a workdir, or scratch')
    parser.add_argument('--cells', default=','.join(CELLS), help='which, in this order')
    parser.add_argument('--epochs', type=float, default=5.0)
    parser.add_argument('--image_size', type=int, default=64)
    parser.add_argument('--smoke', action='store_true', help='a few images, one epoch: does it work?')
    arguments = parser.parse_args(argv)
    settings = FULL | {'epochs': arguments.epochs, 'image_size': arguments.image_size}

    def command() -> None:
        fill(arguments, common.choose('cells', arguments.cells, CELLS), SMOKE if arguments.smoke else settings)

    return run_command(command)


def fill(arguments: argparse.Namespace, names: list[str], settings: dict[str, Any]) -> None:
    """Runs the cells that are not finished, and writes what there is after each."""
    rows: list[Row] = []
    for name in names:
        workdir = arguments.out / name
        repeats.once(json.loads(config_of(name, source=arguments.source, **settings).to_json()), workdir)
        rows.append(row(name, workdir))
        left = common.minutes_left(rows, len(names))
        print(f'{name}: {len(rows)} of {len(names)} cells, about {left:.0f} minutes left')
        common.write_rows(arguments.output, rows, table)
    print(table(rows))


def config_of(name: str, *, source: str, examples: int, batch_size: int, epochs: float, image_size: int) -> ConfigDict:
    """The config of a cell."""
    config = fer2013_resnet18.get_config()
    config.model.weights = source
    config.model.image_size = image_size
    config.data.batch_size = batch_size
    config.data.train_examples = examples
    changes = {key: value for key, value in CELLS[name].items() if not key.startswith('phase.')}
    config.update_from_flattened_dict(changes)
    phase = {key.removeprefix('phase.'): value for key, value in CELLS[name].items() if key not in changes}
    shape = {'epochs': epochs, 'learning_rate': 2e-3, 'weight_decay': 0.1, 'warmup_epochs': epochs / 5}
    config.phases = (default.phase(**shape, **phase),)
    return config


def row(name: str, workdir: Path) -> dict[str, Any]:
    """The scores of a finished cell on FER2013's labels, and the minutes it took."""
    results = json.loads((workdir / 'results.json').read_text())
    if CELLS[name].get('data.name', 'fer2013') != 'fer2013':
        results['splits'] |= on_fer2013(workdir)
    official, clean = results['splits']['test'], results['splits']['test_clean']
    return {
        'cell': name,
        'n': official['n'],
        **{key: official[key] for key in ('accuracy', 'accuracy_ci95', 'balanced_accuracy', 'macro_f1')},
        'clean': {key: clean[key] for key in ('n', 'accuracy', 'accuracy_ci95')},
        'minutes': round(common.spent_minutes(workdir), 2),
        'config': json.loads((workdir / 'config.json').read_text()),
    }


def on_fer2013(workdir: Path) -> dict[str, Any]:
    """Scores of a run on FER2013's test split, whose classes are the run's in another order; kept in the workdir."""
    kept = workdir / 'results_fer2013.json'
    if not kept.exists():
        config = json.loads((workdir / 'config.json').read_text())
        mesh = sharding.make_mesh(config['parallel']['devices'])
        network, _, variables = restore.restore_selected(workdir, sharding.replicated(mesh))
        spec = network.spec
        data = dataset.load_dataset(
            name='fer2013',
            splits={'test': 'test'},
            image_size=spec.image_size,
            channels=spec.channels,
            root=cache.root() / 'datasets',
        )
        scorer = NetworkScorer(network, data, batch_size=config['data']['batch_size'], placement='auto', mesh=mesh)
        logits = scorer.logits('test', variables)[:, [spec.classes[PRIMARY].index(name) for name in data.classes]]
        test = data.splits['test']
        rows = {'test': slice(None), 'test_clean': test.subsets['clean']}
        scores = {
            split: score_logits.score_logits(logits[index], test.labels[index], data.classes)
            for split, index in rows.items()
        }
        run_results.write_results(kept, scores)
    return json.loads(kept.read_text())


def table(rows: Sequence[Row]) -> str:
    """Markdown, a line a cell."""
    lines = ['| cell | test, official | test, clean | balanced | macro F1 | minutes |', '|---|---|---|---|---|---|']
    for cell in rows:
        shares = [summary.share(part['accuracy'], part['accuracy_ci95']) for part in (cell, cell['clean'])]
        lines.append(
            f'| {cell["cell"]} | {shares[0]} | {shares[1]} | {100 * cell["balanced_accuracy"]:.2f} % | '
            f'{cell["macro_f1"]:.3f} | {cell["minutes"]:.1f} |'
        )
    return '\n'.join(lines) + '\n'


if __name__ == '__main__':
    sys.exit(main())
