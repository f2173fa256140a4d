"""Several classifiers on the same images: each by the same rules, against the first, and together."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fer_jax.data.tables.expressions import canonical
from fer_jax.errors import UserError
from fer_jax.evaluation import intervals, score_logits, summary
from fer_jax.utils import bounded_files
from fer_jax.utils.limits import LimitError
from fer_jax.utils.text_table import align

TINY = np.finfo(np.float32).tiny
ENSEMBLE = 'ensemble'


class Predictions(NamedTuple):
    """The predictions of one classifier on labelled images.

    Attributes:
      classes: class names, one per column of the logits.
      ids: str [N], names of the images.
      labels: int [N], or float [N, C] of attributes.
      subjects, groups: str [N], '' where unknown.
      logits: float [N, C], up to a constant per row.
    """

    classes: tuple[str, ...]
    ids: np.ndarray
    labels: np.ndarray
    subjects: np.ndarray
    groups: np.ndarray
    logits: np.ndarray


def compare(
    contenders: Mapping[str, Predictions],
    subsets: Mapping[str, np.ndarray] | None = None,
    *,
    name: str = 'test',
    ensemble: Sequence[str] = (),
) -> dict[str, Any]:
    """Scores several classifiers on the images that all of them have predictions for.

    Args:
      contenders: at least one classifier's predictions, by its name; the others are compared with the first.
      subsets: name -> ids, str [M], of subsets that are scored separately as well.
      name: name of the images.
      ensemble: names of contenders; with two or more, the mean of their probabilities is scored as a further contender.

    Returns:
      A dict of `classes`; `left_out`, the number of images of the largest contender without predictions of all; and
      `splits` {name, or name_subset: {contender: scores}}. The scores are those of
      `evaluation.score_logits.score_logits`. For single labels, all but the first contender also have `gain`, the
      difference in accuracy to the first, `gain_ci95`, see `gain`, and `p`, the p-value of McNemar's test against the
      first.

    Raises:
      UserError: the classes or labels differ, or there is no common image.
    """
    first = next(iter(contenders.values()))
    shared = set(first.ids).intersection(*(predictions.ids for predictions in contenders.values()))
    ids = np.array([example for example in first.ids if example in shared])
    if not len(ids):
        raise UserError(f'{" and ".join(contenders)} have no image in common')
    same = {who: _ordered(who, predictions, ids, first) for who, predictions in contenders.items()}
    truth = next(iter(same.values()))
    for who, predictions in same.items():
        if not np.array_equal(predictions.labels, truth.labels, equal_nan=truth.labels.ndim > 1):
            raise UserError(f'{who} and {next(iter(same))} were given other labels for the same images')
    if len(ensemble) > 1:
        logits = together([same[who].logits for who in ensemble], attributes=truth.labels.ndim > 1)
        same[ENSEMBLE] = truth._replace(logits=logits)
    parts = {name: np.ones(len(ids), bool)}
    parts |= {f'{name}_{part}': np.isin(ids, listed) for part, listed in (subsets or {}).items()}
    largest = max(len(predictions.ids) for predictions in contenders.values())
    splits: dict[str, dict[str, Any]] = {}
    for part, rows in parts.items():
        splits[part] = {}
        for who, predictions in same.items():
            example = scores(predictions, rows)
            if predictions.labels.ndim == 1 and who != next(iter(same)):
                before, after = (each.logits[rows].argmax(1) == each.labels[rows] for each in (truth, predictions))
                example['gain'], example['gain_ci95'] = gain(before, after, predictions.subjects[rows])
                example['p'] = intervals.mcnemar(before, after)
            splits[part][who] = example
    return {'classes': list(first.classes), 'left_out': largest - len(ids), 'splits': splits}


def gain(before: np.ndarray, after: np.ndarray, subjects: np.ndarray) -> tuple[float, list[float] | None]:
    """Computes the gain in accuracy of one classifier over another on the same images, and its 95 % interval.

    Differences are paired by image, so the interval is narrower than those of the two accuracies. It is clustered by
    subject where all subjects are known, and None where all images are of one person, see
    `evaluation.intervals.mean_interval`.

    Args:
      before, after: bool [N], whether each prediction of the two classifiers is correct.
      subjects: str [N], '' where unknown.
    """
    change = after.astype(np.float64) - before
    return float(change.mean()), intervals.mean_interval(change, subjects, bounds=(-1.0, 1.0))[0]


def scores(predictions: Predictions, rows: np.ndarray | None = None) -> dict[str, Any]:
    """Computes the scores of one classifier with `evaluation.score_logits.score_logits`.

    Args:
      predictions: see `Predictions`.
      rows: bool [N], the images to score; None scores all.
    """
    arrays = (predictions.logits, predictions.labels, predictions.subjects, predictions.groups)
    logits, labels, subjects, groups = (array if rows is None else array[rows] for array in arrays)
    return score_logits.score_logits(logits, labels, predictions.classes, subjects, groups)


def _ordered(who: str, predictions: Predictions, ids: np.ndarray, first: Predictions) -> Predictions:
    """Its rows of these images, in their order, with its classes in the order of the first."""
    ours, theirs = ([canonical(name) for name in names] for names in (first.classes, predictions.classes))
    if sorted(ours) != sorted(theirs):
        raise UserError(f'{who} tells {", ".join(predictions.classes)}, the first {", ".join(first.classes)}')
    where = {row: example for example, row in enumerate(predictions.ids)}
    rows = np.array([where[row] for row in ids])
    columns = [theirs.index(name) for name in ours]
    labels = predictions.labels[rows]
    labels = labels[:, columns] if labels.ndim > 1 else np.array([ours.index(name) for name in theirs])[labels]
    logits = predictions.logits[rows][:, columns]
    return Predictions(first.classes, ids, labels, predictions.subjects[rows], predictions.groups[rows], logits)


def together(logits: Sequence[np.ndarray], *, attributes: bool) -> np.ndarray:
    """Computes the logits of the mean probabilities of several classifiers.

    Args:
      logits: float [N, C] of each classifier.
      attributes: True for sigmoid probabilities, False for softmax.

    Returns:
      float64 [N, C].
    """
    from scipy.special import log_expit, log_softmax, logsumexp

    wide = np.stack(logits).astype(np.float64)
    if attributes:
        return logsumexp(log_expit(wide), axis=0) - logsumexp(log_expit(-wide), axis=0)
    return logsumexp(log_softmax(wide, axis=-1), axis=0) - np.log(len(wide))


def table(comparison: Mapping[str, Any]) -> str:
    """Returns the results of `compare` as a text table for the terminal.

    Args:
      comparison: the results; `seeds`, as `evaluation.evaluate_runs.evaluate_together` adds it, is optional.
    """
    lines = []
    for part, contenders in comparison['splits'].items():
        n = next(iter(contenders.values()))['n']
        title = f'{part}, n = {n:,}'
        rows = [(title, 'accuracy', 'balanced', 'macro F1', 'NLL', 'ECE', 'gain over the first, p')]
        for who, contender in contenders.items():
            gain = ''
            if 'p' in contender:
                gain = f'{points(contender["gain"], contender["gain_ci95"])}, p = {contender["p"]:.2g}'
            rows.append(
                (
                    who,
                    summary.share(contender['accuracy'], contender['accuracy_ci95']),
                    f'{contender["balanced_accuracy"]:.2%}',
                    f'{contender["macro_f1"]:.3f}',
                    f'{contender["nll"]:.3f}',
                    f'{contender["ece"]:.1%}' if 'ece' in contender else '',
                    gain,
                )
            )
        lines += [*align(rows, left=(0, 1, 6)), '']
    for part, contender in comparison.get('seeds', {}).items():
        each = ', '.join(f'{100 * value:.1f}' for value in contender['each']['accuracy'])
        mean = summary.share(contender['accuracy'], contender['accuracy_ci95'])
        lines.append(f'{part}, mean of the seeds: {mean}, each {each}')
    for part, contenders in comparison['splits'].items():
        if note := summary.note(next(iter(contenders.values()))):
            lines.append(f'{part}: {note}')
    lines.append('gain: paired by image; p: of being right as often as the first (McNemar, exact, images independent)')
    if comparison['left_out']:
        lines.append(f'left out: {comparison["left_out"]:,} images about which not all were asked')
    return '\n'.join(lines)


def points(value: float, interval: Sequence[float] | None) -> str:
    """Formats a share and its interval as signed percentage points: '+1.23 [0.9, 1.6]'.

    Args:
      value: share.
      interval: lower and upper bound; None leaves it out.
    """
    if interval is None:
        return f'{100 * value:+.2f}'
    return f'{100 * value:+.2f} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]'


def _read_rows(path: Path) -> Iterator[dict[str, str]]:
    """Yields the heading of a csv as a dict without cells, then its rows.

    Raises:
      UserError: the file cannot be read.
    """
    try:
        with bounded_files.open_lines(path) as lines:
            reader = bounded_files.read_rows(lines)
            yield dict.fromkeys(reader.fieldnames or (), '')
            yield from reader
    except (OSError, UnicodeDecodeError, csv.Error, LimitError) as error:
        raise UserError(f'--predictions={path} cannot be read: {error}') from None


def read_csv(path: Path, ids: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
    """Reads probabilities that another program wrote, and returns their logarithms.

    Args:
      path: CSV file with the column `id` and one column per class, under any usual name of the class ('Anger' is
        'angry'), in any order. Rows are in any order; rows of other images are ignored. Probabilities are normalised to
        a sum of 1; one of 0 counts as 1e-38.
      ids: str [N], names of the images.
      classes: class names.

    Returns:
      Logits float64 [N, C].

    Raises:
      UserError: the file cannot be read, a column or an image is missing, an image occurs twice, or a row has a value
        that is not finite or negative, or no value above 0.
    """
    rows = _read_rows(path)
    header = list(next(rows))
    column = {canonical(name.strip()): name for name in header if name != 'id'}
    missing = [name for name in classes if canonical(name) not in column]
    if 'id' not in header or missing:
        raise UserError(
            f'{path} has the columns {", ".join(map(str, header)) or "none"}; expected id, {", ".join(classes)}'
        )
    where = {str(key): position for position, key in enumerate(ids)}
    probabilities = np.full((len(ids), len(classes)), np.nan)
    for number, row in enumerate(rows, 1):
        position = where.get(str(row['id']))
        if position is None:
            continue
        if not np.isnan(probabilities[position, 0]):
            raise UserError(f'{path}, row {number}: {row["id"]!r} stands there twice')
        try:
            probabilities[position] = [float(row[column[canonical(name)]] or 'nan') for name in classes]
        except (TypeError, ValueError):
            probabilities[position] = np.nan
        if not (
            np.isfinite(probabilities[position]).all()
            and (probabilities[position] >= 0).all()
            and probabilities[position].sum() > 0
        ):
            raise UserError(f'{path}, row {number}: expected a share of 0 or more for each class, one above 0')
    if unanswered := int(np.isnan(probabilities[:, 0]).sum()):
        example = ids[np.isnan(probabilities[:, 0])][0]
        raise UserError(f'{path} has nothing on {unanswered:,} of {len(ids):,} images, such as {str(example)!r}')
    return np.log(np.maximum(probabilities / probabilities.sum(1, keepdims=True), TINY))
