"""Labels for images that have none, by a trained network, where it is sure enough.

    python scripts/pseudo_label.py --workdir runs/x --data faces --output pseudo.csv --threshold 0.9
    python -m fer_jax.main --config configs/fer2013_resnet18.py --config.data.name= --config.data.manifest=pseudo.csv

Confidence is calibrated: logits are divided by the temperature that is best on the run's validation split. What is kept
goes into a manifest beside the rows of `--labelled`, whose splits stay as they are; the new rows are for training. How
they came about stands in `<output>.json`: network, step, temperature, threshold, counts, coverage, and what the same
threshold gives on the run's test split, whose labels are known.
"""

import argparse
import csv
import dataclasses
import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np

import fer_jax
from fer_jax import metrics, scoring
from fer_jax.data import folder, manifest
from fer_jax.errors import UserError


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 where the input is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--workdir', required=True, type=Path, help='of a finished run')
    parser.add_argument('--data', required=True, type=Path, help='a folder with images of faces anywhere below it')
    parser.add_argument('--output', required=True, type=Path, help='.csv to write')
    parser.add_argument('--labelled', type=Path, help='a manifest whose rows come first')
    parser.add_argument('--threshold', type=float, default=0.9, help='of the calibrated confidence')
    parser.add_argument('--most', type=int, default=0, help='images a class, the surest; 0: all above the threshold')
    arguments = parser.parse_args(argv)
    logging.getLogger('absl').setLevel(logging.ERROR)  # Orbax warns of every run that it only reads
    try:
        print(label(arguments))
    except UserError as error:
        print(f'fer_jax: {error}', file=sys.stderr)
        return 2
    return 0


def label(arguments: argparse.Namespace) -> str:
    """Writes the manifest and its provenance; what was done, in words."""
    if not 0 <= arguments.threshold < 1 or arguments.most < 0:
        raise UserError(
            f'--threshold={arguments.threshold}, --most={arguments.most}: expected a share below 1, and 0 or more'
        )
    results, test = known(arguments.workdir)
    temperature = results['calibrated']['temperature']
    table, predictor = folder.unlabelled(arguments.data), fer_jax.load(arguments.workdir)
    logits, classes = predictor.of_table(table), predictor.classes
    predicted, confidence = sure(logits, temperature)
    keep = surest(predicted, confidence, arguments.threshold, arguments.most)
    kept = {name: int(np.count_nonzero(keep & (predicted == at))) for at, name in enumerate(classes)}
    record: dict[str, Any] = {
        'workdir': str(arguments.workdir),
        'step': results['step'],
        'temperature': temperature,
        'threshold': arguments.threshold,
        'most': arguments.most,
        'images': len(table),
        'kept': kept,
        'coverage': float(keep.mean()),
    }
    if test is not None:
        record['test'] = precision(test, temperature, arguments.threshold)
    write(arguments.output, table, keep, predicted, classes, arguments)
    arguments.output.with_suffix('.json').write_text(json.dumps(record, indent=2) + '\n')
    lines = [
        f'{arguments.output}: {keep.sum():,} of {len(table):,} images ({100 * keep.mean():.1f} %) at a confidence of '
        f'{arguments.threshold:g} or more, temperature {temperature:.2f}',
        ', '.join(f'{name} {count:,}' for name, count in kept.items()),
    ]
    if 'test' in record:
        right = scoring.share(record['test']['precision'], record['test']['precision_ci95'])
        lines.append(f'on the test split: {100 * record["test"]["coverage"]:.1f} % kept, of which {right} are right')
    return '\n'.join(lines)


def known(workdir: Path) -> tuple[dict[str, Any], dict[str, np.ndarray] | None]:
    """Results of the run, and what it predicted for its test split, if it has one."""
    files = (workdir / 'results.json', workdir / 'predictions.npz')
    if not all(file.is_file() for file in files):
        raise UserError(f'--workdir={workdir} holds no finished run (no {files[0].name} or {files[1].name})')
    results = json.loads(files[0].read_text())
    if not results.get('calibrated'):
        raise UserError(f'--workdir={workdir} has no temperature: it tells attributes, or is of an earlier version')
    return results, scoring.read_predictions(files[1], 'test') if 'test' in results['splits'] else None


def sure(logits: np.ndarray, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """(int [N] likeliest class, float [N] its calibrated probability)."""
    scaled = logits.astype(np.float64) / temperature
    odds = np.exp(scaled - scaled.max(1, keepdims=True))
    return logits.argmax(1), 1 / odds.sum(1)


def surest(predicted: np.ndarray, confidence: np.ndarray, threshold: float, most: int) -> np.ndarray:
    """bool [N]: what is kept, the `most` surest of each class if it is not 0."""
    keep = confidence >= threshold
    for name in np.unique(predicted) if most else ():
        of_class = np.flatnonzero(keep & (predicted == name))
        keep[of_class[np.argsort(-confidence[of_class], kind='stable')[most:]]] = False
    return keep


def precision(part: dict[str, np.ndarray], temperature: float, threshold: float) -> dict[str, Any]:
    """What the same threshold would keep of images whose labels are known."""
    predicted, confidence = sure(part['logits'], temperature)
    keep = confidence >= threshold
    right, n = int(np.count_nonzero(keep & (predicted == part['labels']))), int(keep.sum())
    interval = metrics.wilson_interval(right, n)
    return {'n': n, 'coverage': float(keep.mean()), 'precision': right / max(n, 1), 'precision_ci95': list(interval)}


def write(
    output: Path,
    table: Any,
    keep: np.ndarray,
    predicted: np.ndarray,
    classes: tuple[str, ...],
    given: argparse.Namespace,
) -> None:
    """The labelled rows, then the new ones as training images."""
    labelled = manifest.read(given.labelled) if given.labelled else None
    if labelled is not None and labelled.targets:
        raise UserError(f'--labelled={given.labelled} holds votes; give a manifest of labels')
    if labelled is not None and (odd := set(labelled.classes) - set(classes)):
        raise UserError(f'--labelled={given.labelled} has classes that the run does not know: {", ".join(sorted(odd))}')
    split = 'train' if labelled is not None and (labelled.splits != 'all').any() else 'all'
    new = dataclasses.replace(
        table, classes=classes, labels=predicted.astype(np.int32), splits=np.full(len(table), split)
    )
    manifest.write(output, new, keep, given.data)
    if labelled is None:
        return
    rows = output.read_text(encoding='utf-8', errors='surrogateescape')
    manifest.write(output, labelled, np.ones(len(labelled), bool), given.labelled.parent)
    with output.open('a', encoding='utf-8', errors='surrogateescape', newline='') as file:
        csv.writer(file).writerows(list(csv.reader(rows.splitlines()))[1:])


if __name__ == '__main__':
    sys.exit(main())
