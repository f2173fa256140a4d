"""Intervals of scores, and whether two classifiers differ."""

import math
from collections.abc import Sequence

import numpy as np

Z95 = 1.959963984540054


def wilson_interval(successes: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Interval of a proportion (Wilson 1927); (0, 1) where n is 0."""
    if n == 0:
        return 0.0, 1.0
    share = successes / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def subject_interval(hits: np.ndarray, subjects: np.ndarray, draws: int = 10_000) -> tuple[float, float]:
    """95 % percentile interval of a mean, from resampling whole subjects (Field and Welsh 2007), always the same draws.

    Where all hits are 1, or all 0, resampling finds nothing else, and the interval is Wilson's, of so many subjects.

    Args:
      hits: bool or float [N].
      subjects: str [N], at least two different ones.
    """
    names, member, sizes = np.unique(subjects, return_inverse=True, return_counts=True)
    sums = np.bincount(member, hits)
    if hits.min() == hits.max() and hits[0] in (0, 1):
        return wilson_interval(len(names) * int(hits[0]), len(names))
    generator = np.random.default_rng(0)
    means = []
    for first in range(0, draws, 1000):
        taken = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), min(1000, draws - first))
        means.append(taken @ sums / (taken @ sizes))
    low, high = np.percentile(np.concatenate(means), (2.5, 97.5))
    return float(low), float(high)


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean of at least two independent values (Student 1908)."""
    from scipy.special import stdtrit

    half = stdtrit(len(values) - 1, 0.975) * np.std(values, ddof=1) / math.sqrt(len(values))
    return float(np.mean(values) - half), float(np.mean(values) + half)


def mcnemar(one: np.ndarray, other: np.ndarray) -> float:
    """Two-sided p of two classifiers being right equally often, from their hits, bool [N], on the same examples.

    Exact, by the binomial distribution of the examples on which one alone is right (McNemar 1947).
    """
    from scipy.special import bdtr

    first, second = int(np.sum(one & ~other)), int(np.sum(~one & other))
    if first == second:
        return 1.0
    return float(min(1.0, 2 * bdtr(min(first, second), first + second, 0.5)))
