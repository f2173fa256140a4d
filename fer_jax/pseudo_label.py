"""Labels for images that have none, by a trained network, where it is sure enough.

    python -m fer_jax.pseudo_label --workdir runs/x --data unlabelled --output pseudo.csv --threshold 0.9
    python -m fer_jax.main --config fer2013_resnet18 --config.data.manifest=pseudo.csv

Confidence is calibrated: logits are divided by the temperature that is best on the run's validation split. What is kept
goes into a manifest, for training, below the labelled images, each of which has its split written down: those of the
folder or manifest on which the run was trained, as the run dealt them, or those of `--labelled`, a manifest that says
them. So no label of the network's own making selects or tests. Images of `--data` that are, to the byte, labelled
already, or in the validation or test split of the run, are left out.

How they came about stands in `<output>.json`: network, step, temperature, threshold, counts, coverage, and what the
same threshold gives on the run's validation and test split, whose labels are known. Choose it by validation.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import fer_jax
from fer_jax.cli import run_and_exit, run_command
from fer_jax.data import dataset
from fer_jax.data.imaging.image_files import describe_left_out, printable
from fer_jax.data.sources import folder, manifest
from fer_jax.data.tables import class_names, splitting
from fer_jax.data.tables.table import Table
from fer_jax.errors import UserError
from fer_jax.evaluation import intervals, summary
from fer_jax.runs import config as run_config
from fer_jax.runs import data as run_data
from fer_jax.runs import results as run_results
from fer_jax.utils import cache
from fer_jax.utils.paths import path_argument, user_path


def main(argv: list[str] | None = None) -> int:
    """Labels images with a trained network as the arguments say.

    Args:
      argv: arguments; None takes those of the process.

    Returns:
      The exit status: 0, or 2 where the input is wrong or images cannot be read.
    """
    parser = argparse.ArgumentParser(
        prog='fer-jax pseudo-label', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--workdir', required=True, type=path_argument, help='of a finished run')
    parser.add_argument(
        '--data', required=True, type=path_argument, help='a folder with images of faces anywhere below it'
    )
    parser.add_argument('--output', required=True, type=path_argument, help='.csv to write')
    parser.add_argument(
        '--labelled', type=path_argument, help='a manifest with splits; without it the images of the run itself'
    )
    parser.add_argument('--threshold', type=float, default=0.9, help='of the calibrated confidence')
    parser.add_argument('--most', type=int, default=0, help='images a class, the surest; 0: all above the threshold')
    arguments = parser.parse_args(argv)

    def command() -> int:
        text, unreadable = label(arguments)
        print(text)
        if unreadable:
            print(f'fer_jax: {unreadable:,} images of {arguments.data} could not be read, see above', file=sys.stderr)
        return 2 if unreadable else 0

    return run_command(command, OSError)


def label(arguments: argparse.Namespace) -> tuple[str, int]:
    """Writes a manifest of labelled and pseudo-labelled images, and a JSON record of how it was made.

    Args:
      arguments: parsed flags of `fer-jax pseudo-label`.

    Returns:
      A text summary, and the number of unreadable images.

    Raises:
      UserError: an argument, the run or the images cannot be used.
    """
    if not 0 <= arguments.threshold < 1 or arguments.most < 0:
        raise UserError(
            f'--threshold={arguments.threshold}, --most={arguments.most}: expected a share below 1, and 0 or more'
        )
    if arguments.output.suffix != '.csv':
        raise UserError(f'--output={arguments.output}: give a name that ends in .csv; the record gets that of .json')
    results, scored = known(arguments.workdir)
    source = run_config.read_run_config(arguments.workdir)['data']
    labelled, below, digests = labelled_images(arguments.labelled, source)
    for given in filter(None, (arguments.labelled, source['manifest'])):
        if arguments.output.resolve() == user_path(given).resolve():
            raise UserError(f'--output={arguments.output} is the list of labelled images; give another name')
    temperature, predictor = results['calibrated']['temperature'], fer_jax.load(arguments.workdir)
    classes = predictor.classes
    if odd := set(labelled.classes) - set(classes):
        raise UserError(f'{labelled.name} has classes that the run does not know: {", ".join(sorted(odd))}')
    table, left_out = unseen(folder.unlabelled(arguments.data), held_out(arguments.workdir), digests)
    index, logits, unreadable = predictor.predict_table(table)
    table, left_out['unreadable'] = table.take(index), len(unreadable)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    predicted, confidence = sure(logits, temperature)
    keep = surest(predicted, confidence, arguments.threshold, arguments.most)
    kept = {name: int(np.count_nonzero(keep & (predicted == index))) for index, name in enumerate(classes)}
    record: dict[str, Any] = {
        'workdir': str(arguments.workdir),
        'step': results['step'],
        'temperature': temperature,
        'threshold': arguments.threshold,
        'most': arguments.most,
        'images': len(table),
        'left_out': left_out,
        'kept': kept,
        'coverage': float(keep.mean()),
    }
    record |= {split: precision(part, temperature, arguments.threshold) for split, part in scored.items()}
    manifest.write_manifest(arguments.output, labelled, labelled.labels >= 0, below)
    labels, splits = predicted.astype(np.int32), np.full(len(table), 'train')
    added = dataclasses.replace(table, classes=classes, labels=labels, splits=splits)
    manifest.write_manifest(arguments.output, added, keep, arguments.data, more=True)
    arguments.output.with_suffix('.json').write_text(json.dumps(record, indent=2) + '\n', encoding='utf-8')
    lines = [
        f'{arguments.output}: {keep.sum():,} of {len(table):,} images ({100 * keep.mean():.1f} %) at a confidence of '
        f'{arguments.threshold:g} or more, temperature {temperature:.2f}',
        ', '.join(f'{name} {count:,}' for name, count in kept.items()),
        'left out: ' + ', '.join(f'{count:,} {why}' for why, count in left_out.items()),
        *(f'unreadable: {printable(name)} ({reason})' for name, reason in unreadable.items()),
        *describe_left_out(table.left_out),
    ]
    for split in scored:
        right = summary.share(record[split]['precision'], record[split]['precision_ci95'])
        lines.append(f'on the {split} split: {100 * record[split]["coverage"]:.1f} % kept, of which {right} are right')
    return '\n'.join(lines), len(unreadable)


def known(workdir: Path) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    """Reads the results of a run, and its predictions for the selecting split and, if there is one, the test split.

    Returns:
      results.json, and the predictions by split.

    Raises:
      UserError: the run is not finished or has no temperature.
    """
    files = (workdir / 'results.json', workdir / 'predictions.npz')
    if not all(file.is_file() for file in files):
        raise UserError(f'--workdir={workdir} holds no finished run (no {files[0].name} or {files[1].name})')
    results = run_results.read_results(workdir)
    if not results.get('calibrated'):
        raise UserError(f'--workdir={workdir} has no temperature: it tells attributes, or is of an earlier version')
    splits = [split for split in (results['calibrated']['fitted_on'], 'test') if split in results['splits']]
    return results, {split: run_results.read_predictions(files[1], split) for split in splits}


def labelled_images(given: Path | None, source: Mapping[str, Any]) -> tuple[Table, Path, np.ndarray]:
    """Reads the labelled images with their splits.

    Args:
      given: a manifest; None for the images of the run.
      source: the run's config.data.

    Returns:
      The table of images, the folder that their paths are relative to, and uint8 [M, 32], the digests of all labelled
      images.

    Raises:
      UserError: it is unknown which images may be used for training, or labels are votes.
    """
    if given is None and source['name']:
        raise UserError(
            f'--labelled is missing: the run was trained on the prepared set {source["name"]}, whose images are no '
            'files; give a manifest of labelled images with the column split'
        )
    canonical = source.get('canonical_classes', False) and not source['name']
    if given is None or (source['manifest'] and given.resolve() == Path(source['manifest']).resolve()):
        fields = {name: source[name] for name in ('name', 'dir', 'manifest', 'subject')}
        whole = dataset.open_table(**fields, root=cache.root() / 'datasets')
        names = class_names.canonical_names(whole.classes) if canonical else {}
        table = class_names.named(whole, names, source.get('rename', ()), source['drop_classes'])
        dealing = ('folds', 'fold', 'shares', 'split_seed')
        dealt = splitting.assign(table, **{name: source[name] for name in dealing if name in source})
        splits = np.full(len(table), 'train', '<U10')
        for split, positions in dealt.items():
            splits[positions] = split
        table, below = dataclasses.replace(table, splits=splits), user_path(source['dir'] or source['manifest'])
        below = below if source['dir'] else below.parent
    else:
        whole = manifest.read_manifest(given)
        names = class_names.canonical_names(whole.classes) if canonical else {}
        table = class_names.named(whole, names, (), ())
        if 'validation' not in table.splits:
            raise UserError(
                f'--labelled={given} does not say which images select: give it the column split with train and '
                'validation, or labels that the network made would select as well'
            )
        below = given.parent
    if table.targets.get('votes') is not None:
        raise UserError(f'{given or source["manifest"]} holds votes; give a manifest of labels as --labelled')
    return table, below, whole.digests[whole.labels >= 0]


def held_out(workdir: Path) -> np.ndarray:
    """Returns the digests of the images on which the run was selected or tested, in any of its tasks.

    Returns:
      uint8 [M, 32].
    """
    digests = run_data.image_digests(workdir)
    return np.concatenate([digests['validation'], digests['test']])


def unseen(table: Table, held: np.ndarray, labelled: np.ndarray) -> tuple[Table, dict[str, int]]:
    """Selects the images that are neither held out nor labelled already, by their digests.

    Args:
      table: the images.
      held: uint8 [M, 32], digests of the images on which the run was selected or tested.
      labelled: uint8 [L, 32], digests of the labelled images.

    Returns:
      The selected images, and the number of the others by reason.

    Raises:
      UserError: no image is left.
    """
    scored = dataset.among(table.digests, held)
    given = dataset.among(table.digests, labelled) & ~scored
    if not len(left := np.flatnonzero(~scored & ~given)):
        raise UserError(f'--data: every one of the {len(table)} images of {table.name} is labelled or scored already')
    return table.take(left), {'of validation or test': int(scored.sum()), 'labelled already': int(given.sum())}


def sure(logits: np.ndarray, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Computes the most probable class of each image and its calibrated probability.

    Args:
      logits: float [N, C].
      temperature: temperature that calibrates the logits.

    Returns:
      (int [N] classes, float64 [N] probabilities).
    """
    scaled = logits.astype(np.float64) / temperature
    odds = np.exp(scaled - scaled.max(1, keepdims=True))
    return logits.argmax(1), 1 / odds.sum(1)


def surest(predicted: np.ndarray, confidence: np.ndarray, threshold: float, most: int) -> np.ndarray:
    """Selects the images whose confidence reaches a threshold.

    Args:
      predicted: int [N], predicted classes.
      confidence: float [N], probabilities of these classes.
      threshold: smallest confidence to keep.
      most: largest number of images to keep per class, the most confident ones; 0 for no limit.

    Returns:
      bool [N].
    """
    keep = confidence >= threshold
    for name in np.unique(predicted) if most else ():
        of_class = np.flatnonzero(keep & (predicted == name))
        keep[of_class[np.argsort(-confidence[of_class], kind='stable')[most:]]] = False
    return keep


def precision(part: dict[str, np.ndarray], temperature: float, threshold: float) -> dict[str, Any]:
    """Computes the coverage and precision of a confidence threshold on images with known labels.

    Args:
      part: predictions of a split, see `known`.
      temperature: temperature that calibrates the logits.
      threshold: smallest confidence to keep.

    Returns:
      n (number of images kept), coverage, precision and precision_ci95.
    """
    predicted, confidence = sure(part['logits'], temperature)
    keep = confidence >= threshold
    right, n = predicted[keep] == part['labels'][keep], int(keep.sum())
    interval, _ = intervals.rate_interval(right, part['subjects'][keep])
    share = int(right.sum()) / max(n, 1)
    return {'n': n, 'coverage': float(keep.mean()), 'precision': share, 'precision_ci95': interval}


if __name__ == '__main__':
    run_and_exit(main)
