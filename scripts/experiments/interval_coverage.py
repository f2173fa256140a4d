"""Measures how often the 95 % intervals by subject hold the true value, by simulation.

    python scripts/experiments/interval_coverage.py --output docs/results/interval_coverage.jsonl

The probability of each person to be recognised is drawn from a beta distribution, whose mean is the accuracy and whose
variance gives the correlation of two images of one person; the images are drawn from it. A row `accuracy` is about
`evaluation.intervals.rate_interval`, a row `gain` about `mean_interval` of the difference of two classifiers on the
same images. `uneven` people have from 1 to 29 images each.
"""

import argparse
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.evaluation import intervals

SUBJECTS = (2, 3, 5, 10, 20, 50, 100)
ACCURACIES = (0.3, 0.6, 0.9, 0.97)
CORRELATIONS = (0.0, 0.1, 0.3, 0.6)
IMAGES: dict[str, Any] = {'5': (5,), '30': (30,), 'uneven': (1, 3, 8, 18, 29)}
GAIN, SHARED = 0.03, 0.5  # of two classifiers: true difference, share of the person in the second one's probability


def main(argv: list[str] | None = None) -> int:
    """Runs all cells and writes them; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--output', type=Path, required=True, help='.jsonl to write')
    parser.add_argument('--repeats', type=int, default=1000, help='simulated test sets of each cell')
    arguments = parser.parse_args(argv)
    rows = []
    for subjects, images, accuracy, correlation in itertools.product(SUBJECTS, IMAGES, ACCURACIES, CORRELATIONS):
        cell = {'subjects': subjects, 'images': images, 'accuracy': accuracy, 'correlation': correlation}
        rows.append({'kind': 'accuracy', **cell, **measure_coverage(**cell, repeats=arguments.repeats)})
        if accuracy < 0.97 and images != 'uneven':
            rows.append({'kind': 'gain', **cell, **measure_gain_coverage(**cell, repeats=arguments.repeats)})
    arguments.output.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    print(format_table(rows))
    return 0


def measure_coverage(
    subjects: int, images: str, accuracy: float, correlation: float, *, repeats: int
) -> dict[str, float]:
    """Returns the coverage, in percent, and the mean width of intervals of the accuracy."""
    generator = np.random.default_rng(0)
    person = _person_of_image(subjects, images)
    known: dict[tuple[tuple[int, int], ...], tuple[float, float]] = {}  # few people often have the same counts again
    ends = np.empty((repeats, 2))
    for index in range(repeats):
        hits = generator.random(len(person)) < _draw_people(generator, accuracy, correlation, subjects)[person]
        counts = tuple(sorted(zip(np.bincount(person), np.bincount(person, hits).astype(int), strict=True)))
        if counts not in known:
            known[counts] = intervals.subject_interval(hits, person)
        ends[index] = known[counts]
    return _summarize(ends, accuracy)


def measure_gain_coverage(
    subjects: int, images: str, accuracy: float, correlation: float, *, repeats: int
) -> dict[str, float]:
    """Returns the coverage, in percent, and the mean width of intervals of the difference of two classifiers."""
    generator = np.random.default_rng(0)
    person, ends = _person_of_image(subjects, images), np.empty((repeats, 2))
    for index in range(repeats):
        first = _draw_people(generator, accuracy, correlation, subjects)
        other = _draw_people(generator, accuracy + GAIN / (1 - SHARED), correlation, subjects)
        second = SHARED * first + (1 - SHARED) * other
        before, after = (generator.random(len(person)) < each[person] for each in (first, second))
        change = after.astype(float) - before
        ends[index] = intervals.mean_interval(change, person.astype(str), bounds=(-1.0, 1.0))[0]
    return _summarize(ends, GAIN)


def format_table(rows: list[dict[str, Any]]) -> str:
    """Returns the least and the largest coverage, for each kind, number of people and accuracy."""
    lines = [f'{"kind":<10}{"people":>7}' + ''.join(f'{f"at {accuracy:.0%}":>15}' for accuracy in ACCURACIES)]
    for kind, subjects in itertools.product(('accuracy', 'gain'), SUBJECTS):
        cells = ''
        for accuracy in ACCURACIES:
            coverage = [
                row['coverage']
                for row in rows
                if (row['kind'], row['subjects'], row['accuracy']) == (kind, subjects, accuracy)
            ]
            cells += f'{f"{min(coverage):.1f} to {max(coverage):.1f}":>15}' if coverage else ''
        lines.append(f'{kind:<10}{subjects:>7}{cells}')
    return '\n'.join(lines)


def _person_of_image(subjects: int, images: str) -> np.ndarray:
    sizes = np.resize(IMAGES[images], subjects)
    return np.repeat(np.arange(subjects), sizes)


def _draw_people(generator: np.random.Generator, mean: float, correlation: float, subjects: int) -> np.ndarray:
    if correlation == 0:
        return np.full(subjects, mean)
    strength = 1 / correlation - 1
    return generator.beta(mean * strength, (1 - mean) * strength, subjects)


def _summarize(ends: np.ndarray, true: float) -> dict[str, float]:
    covered = (ends[:, 0] <= true) & (true <= ends[:, 1])
    return {'coverage': round(100 * covered.mean(), 1), 'width': round(float(np.ptp(ends, axis=1).mean()), 3)}


if __name__ == '__main__':
    sys.exit(main())
