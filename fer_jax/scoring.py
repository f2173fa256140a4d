"""Scores of a split, from arrays to results: every example counts once, every share has its interval."""

import functools
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from fer_jax import features, metrics
from fer_jax.data.datasets import Dataset
from fer_jax.data.feed import Feed
from fer_jax.features import FeatureFeed
from fer_jax.network import Network
from fer_jax.partition import Flat
from fer_jax.steps import eval_step


class Scorer:
    """Scores splits of one data set; each is placed at its first use, and all share one compiled step."""

    def __init__(self, network: Network, data: Dataset, *, batch_size: int, placement: str, mesh: Mesh):
        self._data, self._batch_size, self._placement, self._mesh = data, batch_size, placement, mesh
        self._network = network
        self._step = jax.jit(functools.partial(eval_step, network=network), static_argnames='start')
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
        split = self._data.splits[role]
        logits = self.logits(role, params, batch_stats, start)
        result = {role: scores(logits, split.labels, self._data.classes)}
        for name, mask in split.subsets.items():
            result[f'{role}_{name}'] = scores(logits[mask], split.labels[mask], self._data.classes)
        return result


def scores(logits: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> dict[str, Any]:
    """Plain numbers, ready for JSON.

    Args:
      logits: [N, C].
      labels: int [N].

    Returns:
      n, accuracy, accuracy_ci95 (Wilson), balanced_accuracy, macro_f1, nll, confusion [C][C] (row: label) and per_class
      {name: n, precision, recall, recall_ci95, f1}. A prediction is the largest logit, the first among equals.

    Raises:
      ValueError: there is nothing to score, or a logit is NaN or infinite (JSON has no word for the NLL of those).
    """
    if not len(labels):
        raise ValueError('no examples to score')
    broken = int((~np.isfinite(logits)).any(-1).sum())
    if broken:
        raise ValueError(f'{broken} of {len(labels)} examples have logits that are NaN or infinite')
    matrix = metrics.confusion(labels, logits.argmax(-1), len(classes))
    precision, recall, f1 = metrics.precision_recall_f1(matrix)
    hits, n = int(np.trace(matrix)), len(labels)
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
    return {
        'n': n,
        'accuracy': hits / n,
        'accuracy_ci95': list(metrics.wilson_interval(hits, n)),
        'balanced_accuracy': metrics.balanced_accuracy(matrix),
        'macro_f1': metrics.macro_f1(matrix),
        'nll': metrics.negative_log_likelihood(logits, labels),
        'per_class': per_class,
        'confusion': matrix.tolist(),
    }


def write(path: Path, results: dict[str, Any]) -> None:
    """As JSON, whole or not at all."""
    scratch = path.with_name(f'.{path.name}.tmp')
    scratch.write_text(json.dumps(results, indent=2) + '\n')
    scratch.replace(path)


def share(value: float, interval: list[float]) -> str:
    """'71.23 % [69.7, 72.7]'"""
    return f'{value:.2%}'.replace('%', ' %') + f' [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]'


def summary(results: dict[str, Any]) -> str:
    """The table at the end of a run: phases, splits, and each class of the last official split."""
    lines = [f'selected on {results["selected_on"]}, step {results["step"]}; intervals are Wilson, 95 %', '']
    role = results['selected_on'].split('/')[0]
    for entry in results.get('phases', []):
        lines.append(
            f'phase {entry["phase"]}, epoch {entry["epoch"]:g}: best {role} accuracy '
            f'{share(entry["accuracy"], entry["accuracy_ci95"])}'
        )
    lines += ['', f'{"split":<16}{"n":>7}  {"accuracy":<24}{"balanced":>9}{"macro F1":>10}{"NLL":>8}']
    for name, one in results['splits'].items():
        lines.append(
            f'{name:<16}{one["n"]:>7,}  {share(one["accuracy"], one["accuracy_ci95"]):<24}'
            f'{one["balanced_accuracy"]:>9.2%}{one["macro_f1"]:>10.3f}{one["nll"]:>8.3f}'
        )
    last = 'test' if 'test' in results['splits'] else next(iter(results['splits']))
    lines += ['', f'{last + ", by class":<24}{"n":>7}  {"recall":<24}{"precision":>10}{"F1":>8}']
    for name, one in results['splits'][last]['per_class'].items():
        lines.append(
            f'{name:<24}{one["n"]:>7,}  {share(one["recall"], one["recall_ci95"]):<24}'
            f'{one["precision"]:>10.2%}{one["f1"]:>8.3f}'
        )
    return '\n'.join(lines)
