"""Intervals of scores, and whether two classifiers differ."""

import functools
import math
from collections.abc import Sequence

import numpy as np

Z95 = 1.959963984540054
PRIOR = (0.15, 0.5)  # of the correlation of two images of one person: a beta distribution, on GRID values
GRID = 16
AS_FAR = 0.4
BISECTIONS = 14
UNSEEN_CORRELATION = 0.7  # of the images of the two people that `mean_interval` adds; set by simulation, too


def wilson_interval(successes: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Computes the interval of a proportion (Wilson 1927).

    Args:
      successes: number of successes.
      n: number of trials; with 0 the interval is (0, 1).
      z: quantile of the normal distribution.
    """
    if n == 0:
        return 0.0, 1.0
    share = successes / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def rate_interval(hits: np.ndarray, subjects: np.ndarray | None = None) -> tuple[list[float] | None, str]:
    """Computes the 95 % interval of a share of images, and names its method.

    Args:
      hits: bool [N].
      subjects: str [N], '' where unknown.

    Returns:
      The interval, and 'by_subject' (`subject_interval`) where all subjects are known, otherwise 'wilson'. Where all
      images are of one person, None and 'one_subject', because they hold no information about other people.
    """
    if (count := count_subjects(subjects)) is None:
        return list(wilson_interval(int(hits.sum()), len(hits))), 'wilson'
    if count == 1:
        return None, 'one_subject'
    return list(subject_interval(hits, np.asarray(subjects))), 'by_subject'


def mean_interval(
    values: np.ndarray, subjects: np.ndarray | None = None, *, bounds: tuple[float, float] = (0.0, 1.0)
) -> tuple[list[float] | None, str]:
    """Computes the 95 % interval of the mean of bounded numbers, and names its method.

    It is Student's t over images, with one more value at each bound (Agresti and Min 2005), so that the interval of
    equal values is not empty. Where all subjects are known, it is the wider of that and Student's t over people, each
    weighted by the number of their images (the linearised ratio of cluster sampling), with two further people who
    stand for those who were not seen: their means lie to both sides of the mean, as far as images of one person that
    correlate by `UNSEEN_CORRELATION` would put them. Without them the interval of rare differences, which few people
    show, is too narrow (docs/results/interval_coverage.jsonl).

    Args:
      values: float [N], within `bounds`.
      subjects: str [N], '' where unknown.
      bounds: smallest and largest possible value.

    Returns:
      The interval and its method: 'by_subject' where all subjects are known, otherwise 'examples'; None and
      'one_subject' where all images are of one person.
    """
    from scipy.special import stdtrit

    mean, count = float(np.mean(values)), count_subjects(subjects)
    if count == 1:
        return None, 'one_subject'
    low, high = t_interval([*values, *bounds])
    low, high = min(low, mean), max(high, mean)
    if count is not None:
        _, member = np.unique(np.asarray(subjects), return_inverse=True)
        each = len(values) / count
        variance = (np.square(values - mean).sum() + (bounds[1] - bounds[0]) ** 2 / 2) / len(values)
        squares = np.square(np.bincount(member, values - mean)).sum() + 2 * UNSEEN_CORRELATION * variance * each**2
        half = stdtrit(count + 1, 0.975) * math.sqrt((count + 2) / (count + 1) * squares) / (len(values) + 2 * each)
        low, high = min(low, mean - half), max(high, mean + half)
    return [float(max(low, bounds[0])), float(min(high, bounds[1]))], 'examples' if count is None else 'by_subject'


def count_subjects(subjects: np.ndarray | None) -> int | None:
    """Counts the different subjects.

    Args:
      subjects: str [N], '' where unknown.

    Returns:
      The number of subjects; None where the subject of any image is unknown or there are no images.
    """
    return len(np.unique(subjects)) if subjects is not None and len(subjects) and np.all(subjects != '') else None


def subject_interval(hits: np.ndarray, subjects: np.ndarray) -> tuple[float, float]:
    """Computes the 95 % interval of a share of images of several people, for new images of new people.

    A share is inside the interval where the observed share, or one further away, has a probability of at least 2.5 %.
    That probability is of a binomial distribution with `images / design effect` trials (Kish 1965). It is averaged over
    the posterior of the correlation between two images of one person, at this share under the beta-binomial
    distribution. The probability of the observed share itself is weighted by `AS_FAR`, similar to Lancaster's mid-P.
    The prior and `AS_FAR` are set by simulation (docs/results/interval_coverage.jsonl).

    Args:
      hits: bool [N].
      subjects: str [N], at least two different ones.
    """
    _, member, sizes = np.unique(subjects, return_inverse=True, return_counts=True)
    right = np.bincount(member, hits).astype(int)
    (right, sizes), people = np.unique(np.stack([right, sizes]), axis=1, return_counts=True)
    wrong = sizes - right
    return _lower_limit(right, wrong, people), 1 - _lower_limit(wrong, right, people)


def _lower_limit(right: np.ndarray, wrong: np.ndarray, people: np.ndarray) -> float:
    """Finds the lower end of the interval by bisection.

    Args:
      right, wrong: int [K], images of a person; so many `people`, int [K], have these numbers.
    """
    from scipy.special import betainc

    sizes = right + wrong
    images, rate = people @ sizes, people @ right / (people @ sizes)
    correlation = _correlations()
    spread = correlation / (1 - correlation)
    trials = images / (1 + correlation * (people @ sizes**2 / images - 1))
    counted, missed = trials * rate, trials * (1 - rate)
    steps = spread[:, None] * np.arange(sizes.max())
    normaliser = _sums_of_logs(1 + steps)[:, sizes] @ people
    low, high = 0.0, float(rate)
    for _ in range(BISECTIONS if rate else 0):
        middle = (low + high) / 2
        likelihood = _sums_of_logs(middle + steps)[:, right] + _sums_of_logs(1 - middle + steps)[:, wrong]
        logs = likelihood @ people - normaliser
        weights = np.exp(logs - logs.max())
        beyond = betainc(counted + 1, missed, middle) if rate < 1 else 0.0
        tails = AS_FAR * betainc(counted, missed + 1, middle) + (1 - AS_FAR) * beyond
        low, high = (low, middle) if weights @ tails > 0.025 * weights.sum() else (middle, high)
    return low


def _sums_of_logs(values: np.ndarray) -> np.ndarray:
    """float [G, n + 1]: sums of the logarithms of the first 0, 1, ..., n of values [G, n]."""
    return np.pad(np.cumsum(np.log(values), axis=1), ((0, 0), (1, 0)))


@functools.cache
def _correlations() -> np.ndarray:
    """float [G]: equally likely values of the correlation of two images of one person."""
    from scipy.special import betaincinv

    return np.minimum(betaincinv(*PRIOR, (np.arange(GRID) + 0.5) / GRID), 0.995)


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """Computes the 95 % interval of the mean of independent values (Student 1908).

    Args:
      values: at least two values.
    """
    from scipy.special import stdtrit

    half = stdtrit(len(values) - 1, 0.975) * np.std(values, ddof=1) / math.sqrt(len(values))
    return float(np.mean(values) - half), float(np.mean(values) + half)


def mcnemar(left: np.ndarray, right: np.ndarray) -> float:
    """Computes the two-sided p-value of the hypothesis that two classifiers are correct equally often.

    The test is exact: it uses the binomial distribution of the examples on which only one classifier is correct
    (McNemar 1947).

    Args:
      left, right: bool [N], whether each prediction of the two classifiers is correct, on the same examples.
    """
    from scipy.special import bdtr

    first, second = int(np.sum(left & ~right)), int(np.sum(~left & right))
    if first == second:
        return 1.0
    return float(min(1.0, 2 * bdtr(min(first, second), first + second, 0.5)))
