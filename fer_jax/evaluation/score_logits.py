"""Scores of logits against labels: accuracy, F1, calibration and the others, with their intervals."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fer_jax.data.dataset import Split
from fer_jax.evaluation import intervals, metrics

OF_LEVELS = ('concordance', 'rmse')
MOST_LISTED = 50  # with more classes there is no confusion matrix or table by class, with more groups no table by group
OF_GROUP = ('n', 'subjects', 'accuracy', 'accuracy_ci95', 'interval', 'balanced_accuracy', 'macro_f1')
BOUNDED = ('accuracy', 'balanced_accuracy', 'macro_f1', 'top2', 'ece', 'average_precision')
AVERAGED = (*BOUNDED, 'nll', *OF_LEVELS)
COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.5)


def score_split(role: str, split: Split, logits: np.ndarray, classes: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Scores a split and its subsets.

    Args:
      role: role of the split.
      split: labels, subjects, groups and subsets of the examples.
      logits: float [N, C], in the order of the split.
      classes: class names.

    Returns:
      {role: scores, role_subset: scores of each subset}, see `score_logits`; only {role: scores} for levels, see
      `score_levels`.
    """
    if split.levels is not None:
        return {role: score_levels(logits, split.levels, classes)}
    result = {role: score_logits(logits, split.truth, classes, split.subjects, split.groups)}
    for name, mask in split.subsets.items():
        parts = (logits, split.truth, split.subjects, split.groups)
        shown, truth, subjects, groups = (part[mask] for part in parts)
        result[f'{role}_{name}'] = score_logits(shown, truth, classes, subjects, groups)
    return result


def score_logits(
    logits: np.ndarray,
    labels: np.ndarray,
    classes: tuple[str, ...],
    subjects: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> dict[str, Any]:
    """Computes all scores of one set of predictions, as plain numbers for JSON.

    Args:
      logits: float [N, C].
      labels: int [N]; or float [N, C] of attributes, see `score_attributes`.
      classes: class names.
      subjects: str [N], '' where unknown. Where all are known, intervals are by subject, see
        `evaluation.intervals.rate_interval`; images of one person are not independent.
      groups: str [N], '' where unknown.

    Returns:
      n; subjects (number of people, None where unknown); accuracy; accuracy_ci95 (None where all images are of one
      person); interval (its method); balanced_accuracy; macro_f1; top2; nll; ece; reliability (15 bins, see
      `evaluation.metrics.calibration`); abstention (for each of `COVERAGES` the accuracy of the most confident
      examples, its interval and their smallest confidence); and per_class {name: n, precision, recall, recall_ci95,
      f1}. With up to 50 classes also confusion [C][C] (rows are labels); with 2 to 50 groups also per_group {name:
      `OF_GROUP`}. A prediction is the largest logit, the first among equals. All intervals are of the same method.

    Raises:
      ValueError: there is nothing to score, or a logit is NaN or infinite (JSON cannot represent the NLL of those).
    """
    if not len(labels):
        raise ValueError('no examples to score')
    broken = int((~np.isfinite(logits)).any(-1).sum())
    if broken:
        raise ValueError(f'{broken} of {len(labels)} examples have logits that are NaN or infinite')
    if labels.ndim == 2:
        return score_attributes(logits, labels, classes, subjects, groups)
    predictions = logits.argmax(-1)
    reliability = metrics.calibration(logits, labels)
    matrix = metrics.confusion(labels, predictions, len(classes))
    precision, recall, f1 = metrics.precision_recall_f1(matrix)
    hits, n = int(np.trace(matrix)), len(labels)
    right = predictions == labels
    interval, method = intervals.rate_interval(right, subjects)
    per_class = {
        name: {
            'n': int(matrix[c].sum()),
            'precision': float(precision[c]),
            'recall': float(recall[c]),
            'recall_ci95': _rate_interval_of(labels == c, right, subjects),
            'f1': float(f1[c]),
        }
        for c, name in enumerate(classes)
    }
    scores = {
        'n': n,
        'accuracy': hits / n,
        'subjects': intervals.count_subjects(subjects),
        'accuracy_ci95': interval,
        'interval': method,
        'balanced_accuracy': metrics.balanced_accuracy(matrix),
        'macro_f1': metrics.macro_f1(matrix),
        'top2': metrics.top_k_accuracy(logits, labels, 2),
        'nll': metrics.negative_log_likelihood(logits, labels),
        'ece': reliability.pop('ece'),
        'reliability': reliability,
        'abstention': _abstention(metrics.confidence(logits), right, subjects),
        'per_class': per_class,
    }
    if len(classes) <= MOST_LISTED:
        scores['confusion'] = matrix.tolist()
    return scores | _by_group(score_logits, logits, labels, classes, subjects, groups)


def _abstention(confidence: np.ndarray, hits: np.ndarray, subjects: np.ndarray | None) -> list[dict[str, Any]]:
    """Of the most confident shares of examples."""
    shares, accuracy = metrics.coverage_curve(confidence, hits)
    order, rows = np.argsort(-confidence, kind='stable'), []
    for share in COVERAGES:
        last = max(round(share * len(hits)), 1) - 1
        rows.append(
            {
                'coverage': float(shares[last]),
                'accuracy': float(accuracy[last]),
                'accuracy_ci95': _rate_interval_of(order[: last + 1], hits, subjects),
                'confidence': float(confidence[order[last]]),
            }
        )
    return rows


def _by_group(
    score: Callable[..., dict[str, Any]],
    logits: np.ndarray,
    labels: np.ndarray,
    names: tuple[str, ...],
    subjects: np.ndarray | None,
    groups: np.ndarray | None,
) -> dict[str, Any]:
    """{'per_group': the scores of each group}, or {} where there are none to compare."""
    known = [] if groups is None else [name for name in np.unique(groups) if name]
    if groups is None or not 2 <= len(known) <= MOST_LISTED:
        return {}
    by_group = {}
    for name in known:
        rows = groups == name
        scores = score(logits[rows], labels[rows], names, None if subjects is None else subjects[rows])
        by_group[str(name)] = {key: scores[key] for key in OF_GROUP}
    return {'per_group': by_group}


def _rate_interval_of(rows: np.ndarray, hits: np.ndarray, subjects: np.ndarray | None) -> list[float] | None:
    """The interval of the share of `hits` among `rows`, bool [N] or int [M]; by subject where all are known."""
    if intervals.count_subjects(subjects) is None or subjects is None or not len(hits[rows]):
        return intervals.rate_interval(hits[rows])[0]
    return intervals.rate_interval(hits[rows], subjects[rows])[0]


def score_attributes(
    logits: np.ndarray,
    labels: np.ndarray,
    names: tuple[str, ...],
    subjects: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> dict[str, Any]:
    """Computes all scores of predicted attributes, as plain numbers for JSON.

    An attribute is predicted as present at a probability above 0.5.

    Args:
      logits: float [N, K].
      labels: float [N, K] of 0, 1, or NaN where unknown; every example has at least one known label.
      names: names of the attributes.
      subjects, groups: see `score_logits`.

    Returns:
      n; accuracy, the mean over examples of the share of known attributes that are predicted correctly, which without
      unknown labels equals the mean over attributes; subjects, accuracy_ci95 and interval, see
      `evaluation.intervals.mean_interval`; balanced_accuracy, macro_f1 (of presence) and average_precision, means over
      attributes; nll, the mean over examples of the mean over attributes; per_attribute {name: n, present, accuracy,
      accuracy_ci95, balanced_accuracy, f1, average_precision}; and per_group, see `score_logits`.
    """
    known, present, predicted = ~np.isnan(labels), labels > 0.5, logits > 0
    right = (predicted == present) & known
    each = right.sum(1) / known.sum(1)
    interval, method = intervals.mean_interval(each, subjects)
    losses = np.logaddexp(0, logits, dtype=np.float64) - present * logits
    per_attribute = {}
    for k, name in enumerate(names):
        if not (rows := known[:, k]).any():
            continue
        matrix = metrics.confusion(present[rows, k].astype(int), predicted[rows, k].astype(int), 2)
        n, hits = int(rows.sum()), int(np.trace(matrix))
        per_attribute[name] = {
            'n': n,
            'present': int(matrix[1].sum()),
            'accuracy': hits / n,
            'accuracy_ci95': _rate_interval_of(rows, right[:, k], subjects),
            'balanced_accuracy': metrics.balanced_accuracy(matrix),
            'f1': float(metrics.precision_recall_f1(matrix)[2][1]),
            'average_precision': metrics.average_precision(logits[rows, k], present[rows, k]),
        }
    mean = {
        score: float(np.mean([scores[score] for scores in per_attribute.values()]))
        for score in ('balanced_accuracy', 'f1', 'average_precision')
    }
    return {
        'n': len(labels),
        'accuracy': float(each.mean()),
        'subjects': intervals.count_subjects(subjects),
        'accuracy_ci95': interval,
        'interval': method,
        'balanced_accuracy': mean['balanced_accuracy'],
        'macro_f1': mean['f1'],
        'average_precision': mean['average_precision'],
        'nll': float((np.where(known, losses, 0).sum(1) / known.sum(1)).mean()),
        'per_attribute': per_attribute,
    } | _by_group(score_attributes, logits, labels, names, subjects, groups)


def score_levels(predicted: np.ndarray, levels: np.ndarray, names: tuple[str, ...]) -> dict[str, Any]:
    """Computes all scores of predicted levels, as plain numbers for JSON.

    Args:
      predicted: float [N, K].
      levels: float [N, K], NaN where unknown.
      names: names of the levels.

    Returns:
      n; concordance (Lin 1989) and rmse, means over levels; and per_level {name: n, concordance, rmse, same_sign (the
      share of predictions with the sign of the label)}.

    Raises:
      ValueError: a prediction is NaN or infinite.
    """
    if not np.isfinite(predicted).all():
        raise ValueError('a predicted level is NaN or infinite')
    per_level = {}
    for k, name in enumerate(names):
        if not (known := ~np.isnan(levels[:, k])).any():
            continue
        predictions, true = predicted[known, k].astype(np.float64), levels[known, k].astype(np.float64)
        per_level[name] = {
            'n': int(known.sum()),
            'concordance': metrics.concordance(predictions, true),
            'rmse': float(np.sqrt(np.mean((predictions - true) ** 2))),
            'same_sign': float(np.mean(np.sign(predictions) == np.sign(true))),
        }
    mean = {score: float(np.mean([scores[score] for scores in per_level.values()])) for score in OF_LEVELS}
    return {'n': len(levels), **mean, 'per_level': per_level}


def score_calibration(role: str, predictions: Mapping[str, np.ndarray], splits: Iterable[str]) -> dict[str, Any]:
    """Fits a temperature on one split, and scores other splits with their logits divided by it.

    Args:
      role: name of the split to fit on.
      predictions: arrays of all splits, see `NetworkScorer.predictions`.
      splits: names of the splits to score.

    Returns:
      fitted_on, temperature, and splits {name: {nll, ece}}; {} where labels are attributes.
    """
    labels = predictions[f'{role}/labels']
    if labels.ndim > 1:
        return {}
    temperature = metrics.temperature(predictions[f'{role}/logits'], labels)
    calibrated: dict[str, Any] = {'fitted_on': role, 'temperature': temperature, 'splits': {}}
    for name in splits:
        logits, truth = predictions[f'{name}/logits'], predictions[f'{name}/labels']
        calibrated['splits'][name] = score_at_temperature(logits, truth, temperature)
    return calibrated


def score_at_temperature(logits: np.ndarray, labels: np.ndarray, temperature: float) -> dict[str, Any]:
    """Computes the NLL and the calibration error of logits divided by a temperature.

    Args:
      logits: float [N, C].
      labels: int [N].
      temperature: above 0.

    Returns:
      {nll, ece}.
    """
    scaled = logits / temperature
    ece = metrics.calibration(scaled, labels)['ece']
    return {'nll': metrics.negative_log_likelihood(scaled, labels), 'ece': ece}


def average_seeds(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Averages the scores of one split over runs.

    Args:
      runs: scores of each run, see `score_logits`.

    Returns:
      The mean of each of `AVERAGED`, its 95 % interval as <name>_ci95, `n`, `interval`, and `each`, the scores of the
      runs.
    """
    each = {name: [run[name] for run in runs] for name in AVERAGED if name in runs[0]}
    pooled: dict[str, Any] = {'n': runs[0]['n'], 'interval': 'seeds'}
    for name, values in each.items():
        pooled[name] = float(np.mean(values))
        low, high = intervals.t_interval(values)
        pooled[f'{name}_ci95'] = [max(low, 0.0), min(high, 1.0)] if name in BOUNDED else [low, high]
    return pooled | {'each': each}
