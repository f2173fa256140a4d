"""Scores of a split, from arrays to results: every example counts once, every share has its interval."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from fer_jax import features, integrity, metrics
from fer_jax.data.datasets import Dataset, Split
from fer_jax.data.feed import Feed
from fer_jax.features import FeatureFeed
from fer_jax.network import PRIMARY, Network
from fer_jax.partition import Flat
from fer_jax.steps import eval_step

PREDICTED = ('ids', 'labels', 'subjects', 'logits')
OF_LEVELS = ('concordance', 'rmse')
LISTED = 50  # with more classes there is no confusion matrix, and no table by class
INTERVALS = {
    'wilson': 'Wilson',
    'examples': "Student's t over examples",
    'subjects': 'resampled by subject',
    'seeds': "Student's t over seeds",
}


class Scorer:
    """Scores splits of one task; each is placed at its first use, and all share one compiled step.

    Args:
      task: its name, by which what is scored is called: 'test' of the primary task, 'test/<task>' of another.
      head: the task whose head it uses; its own if ''.
    """

    def __init__(
        self,
        network: Network,
        data: Dataset,
        *,
        batch_size: int,
        placement: str,
        mesh: Mesh,
        task: str = PRIMARY,
        head: str = '',
    ):
        self._data, self._batch_size, self._placement, self._mesh = data, batch_size, placement, mesh
        self._network, self._task = network, task
        step = functools.partial(eval_step, network=network, task=head or task)
        self._step = jax.jit(step, static_argnames='start')
        self._feeds: dict[tuple[str, str | None], Feed | FeatureFeed] = {}

    def logits(self, role: str, params: Flat, batch_stats: Flat, start: str | None = None) -> np.ndarray:
        """float32 [N, classes] of the split, in its order.

        Args:
          start: a stage below which nothing changes between calls: what enters it is computed once.
        """
        split = self._data.splits[role]
        feed = self._feed(role, params, batch_stats, start)
        parts = [
            (self._step(params, batch_stats, feed.resident, host, start=start), weight)
            for host, weight in feed.in_order(self._batch_size)
        ]
        rows = np.concatenate([np.asarray(part)[weight > 0] for part, weight in parts])
        if len(rows) != len(split.labels):
            raise RuntimeError(f'{len(rows)} of {len(split.labels)} examples of {role} were scored')
        return rows

    def _feed(self, role: str, params: Flat, batch_stats: Flat, start: str | None) -> Feed | FeatureFeed:
        if (role, start) not in self._feeds:
            if start is None:
                split = self._data.splits[role]
                feed: Feed | FeatureFeed = Feed(split, placement=self._placement, mesh=self._mesh, role=role)
            else:
                spec = self._network.spec
                images: Any = self._feed(role, params, batch_stats, None)
                feed = features.feed(
                    self._network,
                    features.boundary_recipe(self._network, start, spec.image_size, dtype=spec.dtype),
                    params,
                    batch_stats,
                    images,
                    fingerprint=self._data.fingerprint,
                    role=role,
                    mesh=self._mesh,
                )
            self._feeds[role, start] = feed
        return self._feeds[role, start]

    def forget_features(self) -> None:
        """To be called when a phase begins: what lies below its boundary may have changed."""
        self._feeds = {key: feed for key, feed in self._feeds.items() if key[1] is None}

    def score(self, role: str, params: Flat, batch_stats: Flat, start: str | None = None) -> dict[str, dict[str, Any]]:
        """{role: scores} and, for each subset of the split, {role_subset: scores}; see `scores` and `logits`."""
        return self.scores(role, self.logits(role, params, batch_stats, start))

    def scores(self, role: str, logits: np.ndarray) -> dict[str, dict[str, Any]]:
        """As `score`, of logits that are known already."""
        found = split_scores(role, self._data.splits[role], logits, self._data.classes)
        return {self.named(part): one for part, one in found.items()}

    def named(self, role: str) -> str:
        """What the split of this role is called among those of all tasks."""
        return role if self._task == PRIMARY else f'{role}/{self._task}'

    def predictions(self, role: str, logits: np.ndarray) -> dict[str, np.ndarray]:
        """{'<split>/ids', '<split>/labels', '<split>/subjects', '<split>/logits': arrays} of a scored split."""
        split = self._data.splits[role]
        arrays = (split.ids, split.truth, split.subjects, logits)
        return {f'{self.named(role)}/{name}': array for name, array in zip(PREDICTED, arrays, strict=True)}


def split_scores(role: str, split: Split, logits: np.ndarray, classes: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """{role: scores} and, for each subset of the split, {role_subset: scores}; see `scores`."""
    if split.levels is not None:
        return {role: level_scores(logits, split.levels, classes)}
    result = {role: scores(logits, split.truth, classes, split.subjects)}
    for name, mask in split.subsets.items():
        result[f'{role}_{name}'] = scores(logits[mask], split.truth[mask], classes, split.subjects[mask])
    return result


def write_predictions(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """As .npz, whole or not at all; of what `Scorer.predictions` gives."""
    scratch = path.with_name(f'.{path.name}.tmp.npz')
    np.savez(scratch, **dict[str, Any](arrays))
    scratch.replace(path)


def read_predictions(path: Path, split: str) -> dict[str, np.ndarray]:
    """{'ids': str [N], 'labels': int32 [N] or float32 [N, C], 'subjects': str [N], 'logits': float32 [N, C]}."""
    with np.load(path) as file:
        return {name: file[f'{split}/{name}'] for name in PREDICTED}


def scores(
    logits: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], subjects: np.ndarray | None = None
) -> dict[str, Any]:
    """Plain numbers, ready for JSON.

    Args:
      logits: [N, C].
      labels: int [N]; or float [N, C] of attributes, see `attribute_scores`.
      subjects: str [N], '' where unknown. Where all are known, and at least two, whole subjects are resampled for the
        interval of the accuracy; images of one person are not independent.

    Returns:
      n, accuracy, accuracy_ci95, interval ('wilson' or 'subjects', how that was found), balanced_accuracy, macro_f1,
      nll, per_class {name: n, precision, recall, recall_ci95 (Wilson), f1} and, of up to 50 classes, confusion [C][C]
      (row: label). A prediction is the largest logit, the first among equals.

    Raises:
      ValueError: there is nothing to score, or a logit is NaN or infinite (JSON has no word for the NLL of those).
    """
    if not len(labels):
        raise ValueError('no examples to score')
    broken = int((~np.isfinite(logits)).any(-1).sum())
    if broken:
        raise ValueError(f'{broken} of {len(labels)} examples have logits that are NaN or infinite')
    if labels.ndim == 2:
        return attribute_scores(logits, labels, classes, subjects)
    predictions = logits.argmax(-1)
    matrix = metrics.confusion(labels, predictions, len(classes))
    precision, recall, f1 = metrics.precision_recall_f1(matrix)
    hits, n = int(np.trace(matrix)), len(labels)
    interval = _by_subject(predictions == labels, subjects)
    per_class = {
        name: {
            'n': int(matrix[c].sum()),
            'precision': float(precision[c]),
            'recall': float(recall[c]),
            'recall_ci95': list(metrics.wilson_interval(int(matrix[c, c]), int(matrix[c].sum()))),
            'f1': float(f1[c]),
        }
        for c, name in enumerate(classes)
    }
    found = {
        'n': n,
        'accuracy': hits / n,
        'accuracy_ci95': list(interval or metrics.wilson_interval(hits, n)),
        'interval': 'subjects' if interval else 'wilson',
        'balanced_accuracy': metrics.balanced_accuracy(matrix),
        'macro_f1': metrics.macro_f1(matrix),
        'nll': metrics.negative_log_likelihood(logits, labels),
        'per_class': per_class,
    }
    return found | ({'confusion': matrix.tolist()} if len(classes) <= LISTED else {})


def _by_subject(hits: np.ndarray, subjects: np.ndarray | None) -> tuple[float, float] | None:
    """The interval of the mean of `hits` [N] from resampled subjects; None where these are not known."""
    if subjects is None or not subjects.all() or len(np.unique(subjects)) < 2:
        return None
    return metrics.subject_interval(hits, subjects)


def attribute_scores(
    logits: np.ndarray, labels: np.ndarray, names: tuple[str, ...], subjects: np.ndarray | None = None
) -> dict[str, Any]:
    """Plain numbers, ready for JSON; an attribute is told present at a probability above 0.5.

    Args:
      logits: [N, K].
      labels: [N, K] of 0, 1, or NaN where unknown; every example has one that is known.
      subjects: as in `scores`.

    Returns:
      n; accuracy, the mean over examples of the share of their attributes that is right, which without unknown ones is
      the mean over attributes; accuracy_ci95 and interval ('examples' or 'subjects'); balanced_accuracy, macro_f1 (of
      presence) and average_precision, means over attributes; nll, the mean over examples of the mean over attributes;
      per_attribute {name: n, present, accuracy, accuracy_ci95 (Wilson), balanced_accuracy, f1, average_precision}.
    """
    known, present, told = ~np.isnan(labels), labels > 0.5, logits > 0
    right = (told == present) & known
    each = right.sum(1) / known.sum(1)
    interval = _by_subject(each, subjects)
    losses = np.logaddexp(0, logits, dtype=np.float64) - present * logits
    per_attribute = {}
    for k, name in enumerate(names):
        if not (rows := known[:, k]).any():
            continue
        matrix = metrics.confusion(present[rows, k].astype(int), told[rows, k].astype(int), 2)
        n, hits = int(rows.sum()), int(np.trace(matrix))
        per_attribute[name] = {
            'n': n,
            'present': int(matrix[1].sum()),
            'accuracy': hits / n,
            'accuracy_ci95': list(metrics.wilson_interval(hits, n)),
            'balanced_accuracy': metrics.balanced_accuracy(matrix),
            'f1': float(metrics.precision_recall_f1(matrix)[2][1]),
            'average_precision': metrics.average_precision(logits[rows, k], present[rows, k]),
        }
    mean = {
        score: float(np.mean([one[score] for one in per_attribute.values()]))
        for score in ('balanced_accuracy', 'f1', 'average_precision')
    }
    by_example = metrics.t_interval(each.tolist()) if len(each) > 1 else (0.0, 1.0)
    return {
        'n': len(labels),
        'accuracy': float(each.mean()),
        'accuracy_ci95': list(interval or by_example),
        'interval': 'subjects' if interval else 'examples',
        'balanced_accuracy': mean['balanced_accuracy'],
        'macro_f1': mean['f1'],
        'average_precision': mean['average_precision'],
        'nll': float((np.where(known, losses, 0).sum(1) / known.sum(1)).mean()),
        'per_attribute': per_attribute,
    }


def level_scores(predicted: np.ndarray, levels: np.ndarray, names: tuple[str, ...]) -> dict[str, Any]:
    """Plain numbers, ready for JSON.

    Args:
      predicted, levels: [N, K]; the latter NaN where unknown.

    Returns:
      n; concordance (Lin 1989) and rmse, means over levels; per_level {name: n, concordance, rmse, same_sign (the
      share of predictions on the same side of 0)}.

    Raises:
      ValueError: a prediction is NaN or infinite.
    """
    if not np.isfinite(predicted).all():
        raise ValueError('a predicted level is NaN or infinite')
    per_level = {}
    for k, name in enumerate(names):
        if not (known := ~np.isnan(levels[:, k])).any():
            continue
        told, true = predicted[known, k].astype(np.float64), levels[known, k].astype(np.float64)
        per_level[name] = {
            'n': int(known.sum()),
            'concordance': metrics.concordance(told, true),
            'rmse': float(np.sqrt(np.mean((told - true) ** 2))),
            'same_sign': float(np.mean(np.sign(told) == np.sign(true))),
        }
    mean = {score: float(np.mean([one[score] for one in per_level.values()])) for score in OF_LEVELS}
    return {'n': len(levels), **mean, 'per_level': per_level}


def write(path: Path, results: dict[str, Any]) -> None:
    """As JSON, whole or not at all."""
    integrity.write_whole(path, json.dumps(results, indent=2) + '\n')


def share(value: float, interval: list[float]) -> str:
    """'71.23 % [69.7, 72.7]'"""
    return f'{value:.2%}'.replace('%', ' %') + f' [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]'


def headline(one: dict[str, Any]) -> str:
    """The first score of a split: 'accuracy 71.23 %', or 'concordance 0.412'."""
    if 'per_level' in one:
        return f'concordance {one["concordance"]:.3f}'
    return f'accuracy {one["accuracy"]:.2%}'.replace('%', ' %')


def summary(results: dict[str, Any]) -> str:
    """The table at the end of a run: phases, splits, and each class of the last official split."""
    levels = {name: one for name, one in results['splits'].items() if 'concordance' in one}
    told = {name: one for name, one in results['splits'].items() if name not in levels}
    how = ' or '.join(dict.fromkeys(INTERVALS[one['interval']] for one in told.values()))
    steps = ', '.join(map(str, results['steps'])) if 'steps' in results else results['step']
    lines = [f'selected on {results["selected_on"]}, step {steps}; 95 % intervals of the accuracy: {how}', '']
    role = results['selected_on'].split('/')[0]
    for entry in results.get('phases', []):
        lines.append(
            f'phase {entry["phase"]}, epoch {entry["epoch"]:g}: best {role} accuracy '
            f'{share(entry["accuracy"], entry["accuracy_ci95"])}'
        )
    lines += ['', f'{"split":<16}{"n":>7}  {"accuracy":<24}{"balanced":>9}{"macro F1":>10}{"NLL":>8}']
    for name, one in told.items():
        lines.append(
            f'{name:<16}{one["n"]:>7,}  {share(one["accuracy"], one["accuracy_ci95"]):<24}'
            f'{one["balanced_accuracy"]:>9.2%}{one["macro_f1"]:>10.3f}{one["nll"]:>8.3f}'
        )
        if 'each' in one:
            lines.append('  each: ' + ', '.join(f'{100 * value:.1f}' for value in one['each']['accuracy']))
    for name, one in levels.items():
        lines.append(f'{name:<24}concordance {one["concordance"]:.3f}, RMSE {one["rmse"]:.3f}')
    last = 'test' if 'test' in results['splits'] else next(iter(results['splits']))
    if 'confusion' in results['splits'][last]:
        lines += ['', f'{last + ", by class":<24}{"n":>7}  {"recall (Wilson)":<24}{"precision":>10}{"F1":>8}']
        for name, one in results['splits'][last]['per_class'].items():
            lines.append(
                f'{name:<24}{one["n"]:>7,}  {share(one["recall"], one["recall_ci95"]):<24}'
                f'{one["precision"]:>10.2%}{one["f1"]:>8.3f}'
            )
    if 'per_attribute' in results['splits'][last]:
        lines += ['', f'{last + ", by attribute":<24}{"present":>9}  {"accuracy (Wilson)":<24}{"AP":>7}{"F1":>8}']
        for name, one in results['splits'][last]['per_attribute'].items():
            lines.append(
                f'{name:<24}{one["present"]:>9,}  {share(one["accuracy"], one["accuracy_ci95"]):<24}'
                f'{one["average_precision"]:>7.3f}{one["f1"]:>8.3f}'
            )
    return '\n'.join(lines)
