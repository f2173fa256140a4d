"""Whether other sources help: a second task, a teacher, labels of a network's own making.

    python scripts/experiments/label_sources.py joint --out runs/joint --output docs/results/joint.jsonl
    python scripts/experiments/label_sources.py distil --teacher runs/fer2013_resnet18 --out runs/distil \\
        --output docs/results/distil.jsonl
    python scripts/experiments/label_sources.py pseudo --out runs/pseudo --output docs/results/pseudo.jsonl

joint: expression of the synthetic faces alone and with their action units, at 5 % and at 100 % of the expression
labels, as many steps each. distil: a small ResNet on 5,000 images of FER2013 at 48 px, alone and from the teacher. Both
with three seeds, and Student's interval over them. pseudo: a head on the frozen EfficientNet-Lite0 learns 10 % of
FER2013's labels, then labels the rest, three rounds; beside it all labels. The same command goes on where it stopped
and leaves finished runs alone; `--output` has one JSON object a row, and the Markdown table beside it.
"""

import argparse
import contextlib
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from configs import default, fer2013_speedrun
from fer_jax import pseudo_label
from fer_jax.cli import run_command
from fer_jax.data import dataset
from fer_jax.data.sources import manifest
from fer_jax.distributed import sharding
from fer_jax.errors import UserError
from fer_jax.evaluation import intervals, summary
from fer_jax.models.network import build
from fer_jax.runs.model_file import read_spec
from fer_jax.training import repeats
from fer_jax.utils import cache
from scripts.experiments import common
from scripts.experiments.common import Row

SHARES = (0.05, 1.0)
BATCH = 32


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, 2 where the input is wrong, 75 where it was stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', choices=['joint', 'distil', 'pseudo'])
    parser.add_argument('--out', type=Path, required=True, help='folder of the runs')
    parser.add_argument('--output', type=Path, required=True, help='.jsonl to write; the table goes beside it as .md')
    parser.add_argument('--teacher', type=Path, help='distil: workdir of a finished run on FER2013')
    parser.add_argument('--seeds', default='0,1,2', help='joint, distil')
    parser.add_argument('--epochs', type=float, default=0.0, help='0: joint 3, distil 8, pseudo 10')
    parser.add_argument('--image_size', type=int, default=0, help='0: joint 32, distil 48, pseudo 96')
    parser.add_argument('--rounds', type=int, default=3, help='pseudo')
    parser.add_argument('--share', type=float, default=0.1, help='pseudo: of the labels')
    parser.add_argument('--threshold', type=float, default=0.8, help='pseudo: of the confidence')
    parser.add_argument('--data', default='fer2013', help='pseudo: a prepared set with a test split')
    arguments = parser.parse_args(argv)
    rows: list[Row] = []

    def command() -> None:
        for row in {'joint': joint, 'distil': distil, 'pseudo': pseudo}[arguments.what](arguments):
            rows.append(row)
            common.write_rows(arguments.output, rows, table)
        print(table(rows))

    return run_command(command)


def joint(arguments: argparse.Namespace) -> Iterator[Row]:
    """Expression alone and with action units."""
    data = dataset.load_dataset(
        name='synthetic_faces', splits={'train': 'train'}, image_size=32, channels=3, root=cache.root() / 'datasets'
    )
    count = len(data.splits['train'].ids)
    for share in SHARES:
        for units in (False, True):
            config = default.get_config()
            config.model.update({'name': 'resnet18', 'weights': 'scratch', 'image_size': arguments.image_size or 32})
            config.data.update({'batch_size': BATCH, 'train_examples': max(round(share * count), BATCH)})
            config.phases = (
                default.phase(
                    epochs=(arguments.epochs or 3.0) / share, learning_rate=2e-3, weight_decay=0.05, warmup_epochs=0.2
                ),
            )
            config.checkpoint.every = 0.5 / share
            if units:
                config.joint.units = default.task(
                    1.0, name='synthetic_faces', annotation='action_units', batch_size=BATCH
                )
                config.joint.units.loss.name = 'binary_cross_entropy'
            name = f'{"with action units" if units else "expression alone"}, {100 * share:g} % of the labels'
            yield seeded(name, config, arguments)


def distil(arguments: argparse.Namespace) -> Iterator[Row]:
    """The teacher, its student alone, its student taught."""
    if arguments.teacher is None:
        raise UserError('--teacher is missing; give the workdir of a finished run on FER2013')
    file = arguments.teacher / 'results.json'
    if not file.is_file():
        raise UserError(f'--teacher={arguments.teacher} holds no finished run (no results.json)')
    results = json.loads(file.read_text())
    yield scored('teacher', results)
    for taught in (False, True):
        config = fer2013_speedrun.get_config('scratch')
        config.model.update({'name': 'resnet8_small', 'image_size': arguments.image_size or 48})
        config.data.train_examples = 5000
        config.parallel.devices = two_devices()
        config.phases = (
            default.phase(epochs=arguments.epochs or 8.0, learning_rate=2.5e-3, weight_decay=0.1, warmup_epochs=1.0),
        )
        if taught:
            stages = list(build(read_spec(arguments.teacher)).stages)
            last = stages[stages.index('pool') - 1]
            config.distil.update({'teachers': (str(arguments.teacher),), 'weight': 0.9, 'stages': (last,)})
        yield seeded('student, taught' if taught else 'student, alone', config, arguments)


def seeded(name: str, config: ConfigDict, arguments: argparse.Namespace) -> Row:
    """The mean over seeds of the test accuracy."""
    workdir = arguments.out / name.replace(' % of the labels', '').replace(', ', '-').replace(' ', '_')
    seeds = [int(seed) for seed in arguments.seeds.split(',')]
    results = repeats.train_seeds(json.loads(config.to_json()), seeds, workdir)
    each = results['splits']['test']['each']['accuracy']
    return scored(name, results) | {'each': each, 'workdir': str(workdir)}


def pseudo(arguments: argparse.Namespace) -> Iterator[Row]:
    """A share of the labels, the rounds, and all labels."""
    out = arguments.out / f'{arguments.data}-{arguments.share:g}'
    labelled, everything, unlabelled, truth = parted(arguments.data, arguments.share, out)
    workdir, rounds = out / 'round-0', out / f'above-{arguments.threshold:g}'
    yield scored(f'{100 * arguments.share:g} % of the labels', taught_by(labelled, workdir, arguments))
    for number in range(1, arguments.rounds + 1):
        output = rounds / f'round-{number}.csv'
        if not output.with_suffix('.json').exists():
            given = ['--workdir', str(workdir), '--data', str(unlabelled), '--labelled', str(labelled)]
            if pseudo_label.main([*given, '--output', str(output), '--threshold', str(arguments.threshold)]):
                raise UserError(f'round {number} brought no labels; see above')
        record, made = json.loads(output.with_suffix('.json').read_text()), manifest.read_manifest(output)
        right = [
            bool(made.classes[label] == truth[Path(name).name])
            for name, label in zip(made.ids, made.labels, strict=True)
            if Path(name).parent == unlabelled.resolve() and Path(name).name in truth
        ]
        workdir = rounds / f'round-{number}'
        yield scored(f'round {number}', taught_by(output, workdir, arguments)) | {
            'coverage': record['coverage'],
            'temperature': record['temperature'],
            'validation': record['validation'],
            'precision': sum(right) / max(len(right), 1),
            'precision_ci95': list(intervals.wilson_interval(sum(right), len(right))),
        }
    yield scored('all labels', taught_by(everything, out / 'all', arguments))


def parted(name: str, share: float, out: Path) -> tuple[Path, Path, Path, dict[str, str]]:
    """(manifest of a share of the labels, manifest of all, folder of the other training images, true labels of these).

    Both manifests have the whole validation and test splits. The images are written once.
    """
    table = dataset.open_table(name=name, dir='', manifest='', subject='', root=cache.root() / 'datasets')
    chosen = dataset.load_dataset(
        name=name,
        splits={'train': 'train'},
        image_size=48,
        channels=3,
        root=cache.root() / 'datasets',
        train_examples=round(share * int((table.splits == 'train').sum())),
    )
    own = np.isin(table.ids, chosen.splits['train'].ids)
    folders = np.where((table.splits == 'train') & ~own, 'unlabelled', 'labelled')
    names = np.array([f'{index:06d}.png' for index in range(len(table))])
    for part in ('unlabelled', 'labelled'):
        (out / part).mkdir(parents=True, exist_ok=True)
    for index in range(len(table)):
        path = out / folders[index] / names[index]
        if not path.exists():
            path.write_bytes(table.fetch(np.array([index]))[0])
    ids = np.array([f'{where}/{item}' for where, item in zip(folders, names, strict=True)])
    paths = dataclasses.replace(table, ids=ids, targets={}, columns={})
    labelled, everything = out / 'labelled.csv', out / 'all.csv'
    manifest.write_manifest(labelled, paths, folders == 'labelled', out)
    manifest.write_manifest(everything, paths, np.ones(len(table), bool), out)
    truth = {str(item): table.classes[label] for item, label in zip(names, table.labels, strict=True) if label >= 0}
    return labelled, everything, out / 'unlabelled', truth


def taught_by(labels: Path, workdir: Path, arguments: argparse.Namespace) -> Row:
    """The results of a head on the frozen network, trained on a manifest from the feature cache."""
    config = default.get_config()
    config.model.update({'name': 'efficientnet_lite0', 'image_size': arguments.image_size or 96})
    config.model.head_inputs = ('blocks3', 'blocks4', 'blocks5')
    config.data.update({'name': '', 'manifest': str(labels), 'augment': default.augment('none')})
    config.parallel.devices = two_devices()
    config.checkpoint.every = 2.0
    config.phases = (
        default.phase(
            epochs=arguments.epochs or 10.0,
            rates=default.HEAD_ONLY,
            learning_rate=3e-3,
            weight_decay=0.1,
            cache_views=1,
        ),
    )
    return repeats.once(json.loads(config.to_json()), workdir)


def scored(name: str, results: Row) -> Row:
    """The scores of the test split, and of its images of which training has no copy, where those are known."""
    splits = results['splits']
    kept = ('n', 'accuracy', 'accuracy_ci95', 'interval', 'balanced_accuracy')
    row = {'row': name, **{key: splits['test'][key] for key in kept}}
    if clean := splits.get('test_clean'):
        row['clean'] = {key: clean[key] for key in kept[:4]}
    return row


def two_devices() -> int:
    """How many of at most two devices there are; on CPU they are a core each, to be asked for before JAX starts."""
    with contextlib.suppress(UserError):
        sharding.make_mesh(2)
    return min(len(jax.devices()), 2)


def table(rows: Sequence[Row]) -> str:
    """Markdown, a line a row."""
    rounds = any('coverage' in row for row in rows)
    lines = ['| | test accuracy | interval |' + (' labelled | of these right |' if rounds else '')]
    lines.append('|---|---|---|' + ('---|---|' if rounds else ''))
    for row in rows:
        line = f'| {row["row"]} | {summary.share(row["accuracy"], row["accuracy_ci95"])} | '
        line += f'{summary.INTERVALS[row["interval"]]}, n = {row["n"]:,} |'
        if rounds:
            right = summary.share(row['precision'], row['precision_ci95']) if 'precision' in row else ''
            line += f' {100 * row["coverage"]:.1f} % | {right} |' if right else ' | |'
        lines.append(line)
    return '\n'.join(lines) + '\n'


if __name__ == '__main__':
    sys.exit(main())
