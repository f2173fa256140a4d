"""The sections of a report that hold numbers, as HTML."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.data import dataset
from fer_jax.data.dataset import Dataset
from fer_jax.evaluation import metrics, scoring, summary
from fer_jax.reporting import probe_grid


def result(results: Mapping[str, Any], config: Mapping[str, Any], shown: str) -> str:
    one = results['splits'][shown]
    low, high = one['accuracy_ci95']
    how = summary.INTERVALS[one['interval']]
    rows = [
        [
            name,
            f'{split["n"]:,}',
            summary.share(split['accuracy'], split['accuracy_ci95']),
            f'{split["balanced_accuracy"]:.2%}',
            f'{split["macro_f1"]:.3f}',
            f'{split["nll"]:.3f}',
        ]
        for name, split in results['splits'].items()
        if 'accuracy' in split
    ]
    origin = config['model']['weights']
    pick = f'checkpoint of step {results["step"]:,}'
    if 'pick' in results:
        pick = f'head {probe_grid.named(results["pick"])}'
    return (
        f'<section><p class="score">{100 * one["accuracy"]:.1f}<small> %</small></p>'
        f'<p>accuracy on the <b>{escape(shown)}</b> split, {one["n"]:,} images; 95 % interval {100 * low:.1f} to '
        f'{100 * high:.1f} % ({escape(how)}).</p>'
        f'<p>{escape(config["model"]["name"])} from {escape(str(origin))}, {config["model"]["image_size"]} pixels, on '
        f'{escape(data_of(config))}; the {escape(pick)} was selected on '
        f'{escape(results["selected_on"])}{", and the test split scored once, by it" if shown == "test" else ""}.</p>'
        + table(('split', 'n', 'accuracy [95 %]', 'balanced', 'macro F1', 'NLL'), rows)
        + '</section>'
    )


def confusion(one: Mapping[str, Any], shown: str) -> str:
    names, matrix = list(one['per_class']), np.array(one['confusion'])
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    head = ''.join(f'<th scope="col">{escape(name)}</th>' for name in names)
    body = ''
    for row, name in enumerate(names):
        cells = ''.join(
            f'<td style="--share:{shares[row, column]:.3f}"{" class=right" if row == column else ""}>'
            f'{shares[row, column]:.0%}<small>{matrix[row, column]:,}</small></td>'
            for column in range(len(names))
        )
        body += f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>'
    return (
        f'<section><h2>Confusion, {escape(shown)}</h2><p>Rows are labels, columns predictions; the share of the row, '
        f'and the number of images.</p><div class="wide"><table class="confusion"><tr><th></th>{head}</tr>{body}'
        '</table></div></section>'
    )


def classes(one: Mapping[str, Any], shown: str) -> str:
    rows = ''
    for name, scores in one['per_class'].items():
        low, high = scores['recall_ci95']
        rows += (
            f'<tr><th scope="row">{escape(name)}</th><td class="bar"><i style="width:{scores["recall"]:.1%}"></i>'
            f'<b style="left:{low:.1%};width:{high - low:.1%}"></b></td>'
            f'<td>{summary.share(scores["recall"], scores["recall_ci95"])}</td>'
            f'<td>{scores["precision"]:.1%}</td><td>{scores["f1"]:.3f}</td><td>{scores["n"]:,}</td></tr>'
        )
    head = ''.join(f'<th scope="col">{name}</th>' for name in ('', 'recall', '', 'precision', 'F1', 'n'))
    return (
        f'<section><h2>Classes, {escape(shown)}</h2><div class="wide"><table><tr>{head}</tr>{rows}'
        '</table></div></section>'
    )


def reliability(part: Mapping[str, np.ndarray], results: Mapping[str, Any]) -> str:
    """A diagram of confidence against accuracy, drawn as SVG."""
    found: dict[str, Any] = metrics.calibration(part['logits'], part['labels'])
    most = max(found['n'])
    marks = ''.join(
        f'<circle cx="{100 * confidence:.1f}" cy="{100 - 100 * accuracy:.1f}" r="{1 + 3 * (n / most) ** 0.5:.1f}"/>'
        for n, confidence, accuracy in zip(found['n'], found['confidence'], found['accuracy'], strict=True)
    )
    line = ' '.join(
        f'{100 * confidence:.1f},{100 - 100 * accuracy:.1f}'
        for confidence, accuracy in zip(found['confidence'], found['accuracy'], strict=True)
    )
    said = f'Expected calibration error {found["ece"]:.1%}'
    if calibrated := results.get('calibrated'):
        said += f', at the temperature {calibrated["temperature"]:.2f} fitted on {calibrated["fitted_on"]} '
        said += ', '.join(f'{one["ece"]:.1%} on {name}' for name, one in calibrated['splits'].items())
    return (
        '<section><h2>Can its confidence be believed?</h2>'
        f'<p>{escape(said)}. On the line, 70 % confident would be right 70 % of the time; a larger dot is more images.'
        '</p>'
        + plot(
            f'<path class="even" d="M0 100L100 0"/><polyline points="{line}"/>{marks}',
            'confidence',
            'accuracy',
            'accuracy against confidence',
        )
        + '</section>'
    )


def abstention(part: Mapping[str, np.ndarray], one: Mapping[str, Any]) -> str:
    """Accuracy among the most confident images, drawn as SVG over their share."""
    hits = part['logits'].argmax(1) == part['labels']
    coverage, accuracy = metrics.coverage_curve(metrics.confidence(part['logits']), hits)
    first = min(max(30, len(hits) // 50), len(hits)) - 1  # of fewer images a share says little
    at = np.unique(np.linspace(first, len(hits) - 1, 200).astype(int))
    line = ' '.join(f'{100 * coverage[index]:.1f},{100 - 100 * accuracy[index]:.1f}' for index in at)
    rows = [
        [
            f'{told["coverage"]:.0%}',
            summary.share(told['accuracy'], told['accuracy_ci95']),
            f'{told["confidence"]:.0%} or more',
        ]
        for told in one['abstention']
    ]
    return (
        '<section><h2>If it may stay silent</h2><p>Accuracy among the images on which it is most confident, over the '
        'share of images that it answers.</p><div class="beside">'
        + plot(f'<polyline points="{line}"/>', 'answered', 'accuracy', 'accuracy over the share of images answered')
        + table(('answered', 'accuracy [95 %, Wilson]', 'its confidence there'), rows)
        + '</div></section>'
    )


def groups(one: Mapping[str, Any], shown: str) -> str:
    rows = [
        [
            name,
            f'{scores["n"]:,}',
            summary.share(scores['accuracy'], scores['accuracy_ci95']),
            f'{scores["balanced_accuracy"]:.2%}',
            f'{scores["macro_f1"]:.3f}',
        ]
        for name, scores in one['per_group'].items()
    ]
    return (
        f'<section><h2>Groups, {escape(shown)}</h2><p>Where intervals lie apart, one group is served worse than '
        'another, or its images are harder.</p>'
        + table(('group', 'n', 'accuracy [95 %]', 'balanced', 'macro F1'), rows)
        + '</section>'
    )


def data_found(data: Dataset) -> str:
    """The images of each split by class, and what two splits share."""
    splits = data.splits
    counts = {name: np.bincount(split.labels[split.labels >= 0]) for name, split in splits.items()}
    names = data.classes if all(split.truth.ndim == 1 for split in splits.values()) else ()
    rows = [
        [name, *(f'{counts[split][at] if at < len(counts[split]) else 0:,}' for split in splits)]
        for at, name in enumerate(names[: scoring.MOST_LISTED])
    ]
    rows.append(['all', *(f'{len(split.labels):,}' for split in splits.values())])
    found = []
    order = list(splits)
    for at, later in enumerate(order):
        for earlier in order[:at]:
            if copies := int(dataset.among(splits[later].digests, splits[earlier].digests).sum()):
                found.append(f'{copies:,} images of {later} are the very files of {earlier}')
            people = set(splits[later].subjects) & set(splits[earlier].subjects) - {''}
            if people:
                found.append(f'{len(people):,} people of {earlier} are in {later} too')
    for name, split in splits.items():
        labels: dict[bytes, set[int]] = {}
        for row, label in zip(split.digests, split.labels.tolist(), strict=True):
            labels.setdefault(row.tobytes(), set()).add(label)
        if again := len(split.labels) - len(labels):
            found.append(f'{again:,} images of {name} are copies of others there')
        if torn := sum(len(one) > 1 for one in labels.values()):
            found.append(f'{torn:,} images of {name} stand there under two labels')
    listed = ''.join(f'<li>{escape(one)}</li>' for one in found) or '<li>no file twice, no person in two splits</li>'
    return (
        f'<section><h2>The data</h2>{table(("class", *splits), rows)}<ul>{listed}</ul><p>Copies are told by the bytes '
        'of the files; the doctor (docs/datasets.md) looks at pixels, near copies and blank images too.</p></section>'
    )


def plot(marks: str, across: str, up: str, about: str) -> str:
    """SVG of two shares, 0 to 1; `marks` at 100 times `across`, and 100 less 100 times `up`."""
    return (
        f'<svg class="plane" viewBox="-14 -4 122 120" role="img" aria-label="{about}">'
        f'<path class="grid" d="M0 0V100H100M0 50H100M50 0V100"/>{marks}<text x="50" y="112">{across}</text>'
        f'<text x="-7" y="50" transform="rotate(-90 -7 50)">{up}</text><text x="0" y="106">0</text>'
        '<text x="100" y="106">1</text></svg>'
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = ''.join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = ''.join(f'<tr>{"".join(f"<td>{escape(cell)}</td>" for cell in row)}</tr>' for row in rows)
    return f'<div class="wide"><table><tr>{top}</tr>{body}</table></div>'


def data_of(config: Mapping[str, Any]) -> str:
    data = config['data']
    return data['name'] or Path(data['dir'] or data['manifest']).name
