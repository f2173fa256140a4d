"""The simulation of intervals, with few repeats, and its table."""

import json
from pathlib import Path

import pytest

from scripts.experiments import interval_coverage

RESULTS = Path(__file__).parents[2] / 'docs' / 'results' / 'interval_coverage.jsonl'


@pytest.mark.parametrize(('subjects', 'correlation'), [(2, 0.6), (3, 0.3), (5, 0.1)])
def test_intervals_of_few_people_hold_the_accuracy(subjects, correlation):
    """Resampling people held it in 47 to 86 %."""
    row = interval_coverage.measure_coverage(subjects, '5', 0.6, correlation, repeats=300)
    assert row['coverage'] >= 93 and row['width'] < 0.97
    assert row == interval_coverage.measure_coverage(subjects, '5', 0.6, correlation, repeats=300)


def test_intervals_of_few_people_hold_the_gain():
    assert interval_coverage.measure_gain_coverage(3, '5', 0.6, 0.3, repeats=300)['coverage'] >= 93
    assert interval_coverage.measure_gain_coverage(10, '30', 0.9, 0.6, repeats=200)['coverage'] >= 93  # 88 without more


def test_the_measured_coverage_is_whole():
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    accuracy = [row for row in rows if row['kind'] == 'accuracy']
    assert len(accuracy) == 7 * 3 * 4 * 4
    assert min(row['coverage'] for row in rows if row['kind'] == 'gain') > 92
    assert min(row['coverage'] for row in accuracy if row['images'] != 'uneven') > 92
    assert interval_coverage.format_table(rows).count('\n') == 14
