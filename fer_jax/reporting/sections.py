"""The numbers that the HTML report shows; the templates hold the markup."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.data import dataset
from fer_jax.data.dataset import Dataset
from fer_jax.evaluation import metrics, score_logits, summary
from fer_jax.reporting import probe_grid
from fer_jax.runs import metrics_log

MISSING = 'not set'


def summarize_result(results: Mapping[str, Any], config: Mapping[str, Any], split: str) -> dict[str, Any]:
    """Returns the accuracy on a split, the description of the selected checkpoint, and a row of scores per split.

    Args:
      results: results in the form of results.json.
      config: config of the run.
      split: name of the split.
    """
    scores, model = results['splits'][split], config['model']
    rows = [
        [name, f'{each["n"]:,}', summary.share(each['accuracy'], each['accuracy_ci95']), *score_cells(each)]
        for name, each in results['splits'].items()
        if 'accuracy' in each
    ]
    selected = f'checkpoint of step {results["step"]:,}'
    if 'pick' in results:
        selected = f'head ({probe_grid.named(results["pick"])})'
    return {
        'accuracy': scores['accuracy'],
        'interval': scores['accuracy_ci95'],
        'method': summary.INTERVALS[scores['interval']],
        'note': summary.note(scores),
        'n': scores['n'],
        'network': model['name'],
        'weights': model['weights'],
        'image_size': model['image_size'],
        'data': data_name(config),
        'selected': selected,
        'selected_on': results['selected_on'],
        'rows': rows,
    }


def score_cells(scores: Mapping[str, Any]) -> list[str]:
    """Returns balanced accuracy, macro F1 and NLL as formatted text."""
    return [f'{scores["balanced_accuracy"]:.2%}', f'{scores["macro_f1"]:.3f}', f'{scores["nll"]:.3f}']


def tabulate_confusion(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the class names and the rows of the confusion matrix, with count and share of the row in each cell."""
    matrix = np.array(scores['confusion'])
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    rows = [
        [{'n': n, 'share': share} for n, share in zip(counts, row, strict=True)]
        for counts, row in zip(matrix.tolist(), shares.tolist(), strict=True)
    ]
    return {'classes': list(scores['per_class']), 'rows': rows}


def tabulate_classes(scores: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns a dict per class with recall and its interval, precision, F1 and number of images."""
    return [
        {
            'name': name,
            'recall': each['recall'],
            'interval': each['recall_ci95'],
            'recall_text': summary.recall(each),
            'precision': each['precision'],
            'f1': each['f1'],
            'n': each['n'],
        }
        for name, each in scores['per_class'].items()
    ]


def tabulate_groups(scores: Mapping[str, Any]) -> list[list[str]]:
    """Returns a row of formatted scores per group of a manifest."""
    return [
        [
            name,
            f'{each["n"]:,}',
            summary.share(each['accuracy'], each['accuracy_ci95']),
            f'{each["balanced_accuracy"]:.2%}',
            f'{each["macro_f1"]:.3f}',
        ]
        for name, each in scores['per_group'].items()
    ]


def compute_calibration(predictions: Mapping[str, np.ndarray], results: Mapping[str, Any]) -> dict[str, Any]:
    """Computes the calibration error and the points (confidence, accuracy) of the reliability diagram.

    Args:
      predictions: labels int [N] and logits float [N, C] of a split.
      results: results in the form of results.json.

    Returns:
      'ece'; 'points' and 'radii' of the diagram, one per bin; and 'scaled', the scores with calibrated logits or None.
    """
    bins: dict[str, Any] = metrics.calibration(predictions['logits'], predictions['labels'])
    largest = max(bins['n'])
    return {
        'ece': bins['ece'],
        'points': list(zip(bins['confidence'], bins['accuracy'], strict=True)),
        'radii': [1 + 3 * (n / largest) ** 0.5 for n in bins['n']],
        'scaled': results.get('calibrated'),
    }


def compute_selective(predictions: Mapping[str, np.ndarray], scores: Mapping[str, Any]) -> dict[str, Any]:
    """Computes the points (coverage, accuracy) of the most confident images, and a table of some of them.

    Args:
      predictions: labels int [N] and logits float [N, C] of a split.
      scores: scores of the split, see `evaluation.score_logits.score_logits`.

    Returns:
      'points' and 'rows'.
    """
    hits = predictions['logits'].argmax(1) == predictions['labels']
    coverage, accuracy = metrics.coverage_curve(metrics.confidence(predictions['logits']), hits)
    first = min(max(30, len(hits) // 50), len(hits)) - 1  # the accuracy of fewer images is mostly noise
    index = np.unique(np.linspace(first, len(hits) - 1, 200).astype(int))
    rows = [
        [
            f'{each["coverage"]:.0%}',
            summary.share(each['accuracy'], each['accuracy_ci95']),
            f'{each["confidence"]:.0%} or more',
        ]
        for each in scores['abstention']
    ]
    return {'points': list(zip(coverage[index], accuracy[index], strict=True)), 'rows': rows}


def summarize_data(data: Dataset) -> dict[str, Any]:
    """Returns the number of images per class and split, and the duplicates and shared subjects that were found."""
    splits = data.splits
    counts = {name: np.bincount(split.labels[split.labels >= 0]) for name, split in splits.items()}
    names = data.classes if all(split.truth.ndim == 1 for split in splits.values()) else ()
    rows = [
        [name, *(f'{counts[split][index] if index < len(counts[split]) else 0:,}' for split in splits)]
        for index, name in enumerate(names[: score_logits.MOST_LISTED])
    ]
    rows.append(['all', *(f'{len(split.labels):,}' for split in splits.values())])
    findings = [*_shared_by_splits(data), *_repeated_in_splits(data)]
    return {
        'columns': ['class', *splits],
        'rows': rows,
        'findings': findings or ['no duplicates, and no subject in two splits'],
    }


def _shared_by_splits(data: Dataset) -> list[str]:
    shared = []
    order = list(data.splits)
    for index, later in enumerate(order):
        for earlier in order[:index]:
            of_later, of_earlier = data.splits[later], data.splits[earlier]
            if copies := int(dataset.among(of_later.digests, of_earlier.digests).sum()):
                shared.append(f'duplicates in {earlier} and {later}: {copies:,} images of {later}')
            if subjects := set(of_later.subjects) & set(of_earlier.subjects) - {''}:
                shared.append(f'subjects in both {earlier} and {later}: {len(subjects):,}')
    return shared


def _repeated_in_splits(data: Dataset) -> list[str]:
    repeated = []
    for name, split in data.splits.items():
        labels: dict[bytes, set[int]] = {}
        for row, label in zip(split.digests, split.labels.tolist(), strict=True):
            labels.setdefault(row.tobytes(), set()).add(label)
        if copies := len(split.labels) - len(labels):
            repeated.append(f'duplicates within {name}: {copies:,} images')
        if conflicts := sum(len(each) > 1 for each in labels.values()):
            repeated.append(f'duplicates with different labels within {name}: {conflicts:,}')
    return repeated


def read_curve(workdir: Path, split: str) -> list[tuple[float, float]]:
    """Reads the points (epoch, accuracy) of a split from metrics.jsonl of a run; returns [] where there are none."""
    records = metrics_log.read_metrics(workdir / 'metrics.jsonl')
    return [(each['epoch'], each['accuracy']) for each in records if each['split'] == split and 'accuracy' in each]


def tabulate_differences(configs: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Returns a row for each config field that differs between runs: its name, and its value in each run.

    Args:
      configs: config by the name of the run.
    """
    flat = [dict(_flatten('', config)) for config in configs.values()]
    fields = dict.fromkeys(field for each in flat for field in each)
    rows = [[field, *(each.get(field, MISSING) for each in flat)] for field in fields]
    return [row for row in rows if len(set(row[1:])) > 1]


def _flatten(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, each in value.items():
            yield from _flatten(f'{name}.{key}' if name else str(key), each)
    elif isinstance(value, (list, tuple)) and any(isinstance(each, Mapping) for each in value):
        for index, each in enumerate(value):
            yield from _flatten(f'{name}[{index}]', each)
    else:
        yield name, json.dumps(value)


def data_name(config: Mapping[str, Any]) -> str:
    """Returns the name of the data set, of its folder or of its manifest.

    Args:
      config: config of the run.
    """
    data = config['data']
    return data['name'] or Path(data['dir'] or data['manifest'] or 'arrays').name
