"""Numbers about predictions against scikit-learn and SciPy; scores as a whole are in test_score_logits.py."""

import numpy as np
import pytest

from fer_jax.evaluation import intervals, metrics, score_logits
from tests.lazy import lazy

special = lazy('scipy.special')
stats = lazy('scipy.stats')
reference = lazy('sklearn.metrics')
calibration = lazy('sklearn.calibration')

RNG = np.random.default_rng(1)
LABELS = RNG.choice(6, 400, p=[0.4, 0.3, 0.1, 0.1, 0.1, 0.0])  # class 5 is never there
PREDICTIONS = np.where(RNG.random(400) < 0.6, LABELS, RNG.choice([0, 1, 2, 4], 400))
PREDICTIONS[PREDICTIONS == 3] = 0  # class 3 is never predicted


def test_z_is_the_normal_quantile():
    assert pytest.approx(stats.norm.ppf(0.975), abs=1e-15) == intervals.Z95


@pytest.mark.parametrize('n', [1, 2, 7, 50])
def test_wilson_is_scipys_at_every_count(n):
    for hits in range(n + 1):
        expected = stats.binomtest(hits, n).proportion_ci(0.95, method='wilson')
        np.testing.assert_allclose(intervals.wilson_interval(hits, n), (expected.low, expected.high), atol=1e-12)


@pytest.mark.parametrize(('n', 'accuracy', 'points'), [(3589, 0.73, 1.45), (3068, 0.92, 0.96)])
def test_wilson_has_the_width_known_for_the_fields_test_sets(n, accuracy, points):
    """FER2013's PrivateTest and RAF-DB's test set at accuracies usual there."""
    low, high = intervals.wilson_interval(round(n * accuracy), n)
    assert 50 * (high - low) == pytest.approx(points, abs=0.01)


def test_the_confusion_has_labels_in_rows():
    matrix = metrics.confusion(LABELS, PREDICTIONS, 6)
    np.testing.assert_array_equal(matrix, reference.confusion_matrix(LABELS, PREDICTIONS, labels=range(6)))
    np.testing.assert_array_equal(metrics.confusion(np.array([0]), np.array([2]), 3), [[0, 0, 1], [0, 0, 0], [0, 0, 0]])


def test_classes_that_are_absent_or_never_predicted_count_as_scikit_learn_counts_them():
    matrix = metrics.confusion(LABELS, PREDICTIONS, 6)
    assert matrix[:, 3].sum() == 0 < matrix[3].sum() and matrix[5].sum() == 0
    expected = reference.precision_recall_fscore_support(LABELS, PREDICTIONS, labels=range(6), zero_division=0)
    np.testing.assert_allclose(metrics.precision_recall_f1(matrix), expected[:3], atol=1e-15)
    assert metrics.balanced_accuracy(matrix) == pytest.approx(reference.balanced_accuracy_score(LABELS, PREDICTIONS))
    f1 = reference.f1_score(LABELS, PREDICTIONS, average='macro', zero_division=0)
    assert metrics.macro_f1(matrix) == pytest.approx(f1)


@pytest.mark.parametrize('scale', [1, 1e4])
def test_nll_is_scipys_and_does_not_overflow(scale):
    logits = (RNG.normal(size=(400, 6)) * scale).astype(np.float32)
    expected = -special.log_softmax(logits.astype(float), axis=-1)[np.arange(400), LABELS].mean()
    assert metrics.negative_log_likelihood(logits, LABELS) == pytest.approx(expected, rel=1e-12)


def test_the_interval_of_many_people_is_scipys_bootstrap():
    subjects = np.repeat(np.arange(200), RNG.integers(1, 20, 200))
    skill = RNG.beta(4, 2, 200)[subjects]
    hits = RNG.random(len(subjects)) < skill
    sums, sizes = np.bincount(subjects, hits), np.bincount(subjects)
    expected = stats.bootstrap(
        (sums, sizes), lambda hit, all, axis: hit.sum(axis) / all.sum(axis), paired=True, vectorized=True,
        n_resamples=10_000, method='percentile', rng=0,
    ).confidence_interval  # fmt: skip
    interval, method = intervals.rate_interval(hits, subjects.astype(str))
    assert method == 'by_subject'
    np.testing.assert_allclose(interval, expected, atol=0.006)
    low, high = intervals.wilson_interval(int(hits.sum()), len(hits))
    assert interval[1] - interval[0] > 1.3 * (high - low)  # people differ: their images say less than as many people's


def test_with_one_image_a_person_the_interval_is_clopper_pearsons_or_narrower():
    for hits in range(31):
        low, high = intervals.subject_interval(np.arange(30) < hits, np.arange(30))
        exact = stats.binomtest(hits, 30).proportion_ci(0.95, method='exact')
        assert exact.low - 1e-4 < low <= hits / 30 <= high < exact.high + 1e-4
        assert high - low > 0.75 * (exact.high - exact.low)


def test_right_and_wrong_change_places_in_the_interval():
    subjects = np.repeat(list('abcd'), (3, 9, 2, 7))
    hits = RNG.random(21) < 0.7
    low, high = intervals.subject_interval(hits, subjects)
    assert intervals.subject_interval(~hits, subjects) == pytest.approx((1 - high, 1 - low), abs=1e-4)


def test_two_people_do_not_give_the_interval_between_their_accuracies():
    """14.3 and 30 % of 7 and 10 images; resampling gave their own accuracies as the bounds."""
    subjects, hits = np.repeat(['a', 'b'], (7, 10)), np.zeros(17, bool)
    hits[[0, 7, 8, 9]] = True
    (low, high), _ = intervals.rate_interval(hits, subjects)
    wilson_low, wilson_high = intervals.wilson_interval(4, 17)
    assert low < wilson_low and wilson_high < high
    assert intervals.rate_interval(hits, np.full(17, 'a')) == (None, 'one_subject')
    assert intervals.rate_interval(hits, np.where(hits, '', 'a')) == ([wilson_low, wilson_high], 'wilson')


def test_temperature_is_the_one_that_made_the_labels():
    """And a stationary point of the likelihood, by finite differences."""
    logits = RNG.normal(size=(40_000, 5)) * 4
    shares = np.exp(logits / 2.5) / np.exp(logits / 2.5).sum(1, keepdims=True)
    labels = (shares.cumsum(1) < RNG.random((len(shares), 1))).sum(1)
    found = metrics.temperature(logits, labels)
    assert found == pytest.approx(2.5, rel=0.03)
    around = [metrics.negative_log_likelihood(logits / (found * factor), labels) for factor in (0.99, 1.0, 1.01)]
    assert around[1] < min(around[0], around[2])


def test_temperature_lowers_the_likelihood_of_labels_it_was_not_fitted_on():
    logits = RNG.normal(size=(4_000, 5)) * 4
    shares = np.exp(logits / 2.5) / np.exp(logits / 2.5).sum(1, keepdims=True)
    labels = (shares.cumsum(1) < RNG.random((len(shares), 1))).sum(1)
    found = metrics.temperature(logits[:2000], labels[:2000])
    held_out = score_logits.score_at_temperature(logits[2000:], labels[2000:], found)
    before = score_logits.score_at_temperature(logits[2000:], labels[2000:], 1.0)
    assert held_out['nll'] < before['nll'] - 0.1 and held_out['ece'] < before['ece'] / 3


def test_concordance_is_lins():
    """Pearson's correlation times how near the line of equality is (Lin 1989, equation 4)."""
    told, true = RNG.normal(size=50), RNG.normal(size=50) + 0.5
    told = 0.6 * true + 0.4 * told
    scale, shift = np.std(told) / np.std(true), (np.mean(told) - np.mean(true)) / np.sqrt(np.std(told) * np.std(true))
    expected = np.corrcoef(told, true)[0, 1] * 2 / (scale + 1 / scale + shift**2)
    assert metrics.concordance(told, true) == pytest.approx(expected)
    assert metrics.concordance(true, true) == pytest.approx(1) and metrics.concordance(np.ones(3), np.ones(3)) == 0


def test_the_interval_over_runs_is_students():
    values = [0.61, 0.64, 0.60, 0.66]
    expected = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    np.testing.assert_allclose(intervals.t_interval(values), expected)


@pytest.mark.parametrize('values', [1000, 5])  # of which 5 are mostly ties
def test_average_precision_is_scikit_learns(values):
    scores, present = RNG.integers(0, values, 200) / 7, RNG.random(200) < 0.2
    expected = reference.average_precision_score(present, scores)
    assert metrics.average_precision(scores, present) == pytest.approx(expected, abs=1e-12)
    assert metrics.average_precision(scores, np.zeros(200, bool)) == 0


def test_top_k_calibration_and_coverage_are_scikit_learns():
    logits = (RNG.normal(size=(500, 7)) * 2).astype(np.float32)
    labels = RNG.integers(0, 7, 500)
    for k in (1, 2, 5):
        expected = reference.top_k_accuracy_score(labels, logits, k=k, labels=range(7))
        assert metrics.top_k_accuracy(logits, labels, k) == pytest.approx(expected)
    shares = special.softmax(logits.astype(np.float64), axis=1)
    confidence, hits = shares.max(1), shares.argmax(1) == labels
    found = metrics.calibration(logits, labels)
    accuracy, mean = calibration.calibration_curve(hits, confidence, n_bins=15, strategy='uniform')
    np.testing.assert_allclose(found['accuracy'], accuracy)
    np.testing.assert_allclose(found['confidence'], mean)
    assert found['ece'] == pytest.approx(np.abs(accuracy - mean) @ found['n'] / 500)
    coverage, right = metrics.coverage_curve(confidence, hits)
    assert coverage[-1] == 1 and right[-1] == pytest.approx(hits.mean())
    surest = np.argsort(-confidence)[:50]
    assert right[49] == pytest.approx(hits[surest].mean())


def test_logits_that_are_right_as_often_as_they_say_are_calibrated():
    """And others are off by what they are over-confident."""
    labels = (RNG.random(20_000) < 0.2).astype(int)  # class 1 in a fifth
    logits = np.tile(np.log([0.8, 0.2]), (20_000, 1))
    assert metrics.calibration(logits, labels)['ece'] == pytest.approx(0, abs=0.01)
    assert metrics.calibration(logits * 10, labels)['ece'] == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize(('first', 'second'), [(3, 14), (20, 20), (0, 5), (120, 90)])
def test_mcnemar_is_the_exact_binomial(first, second):
    one = np.r_[np.ones(first, bool), np.zeros(second, bool), np.ones(30, bool)]
    other = np.r_[np.zeros(first, bool), np.ones(second, bool), np.ones(30, bool)]
    assert intervals.mcnemar(one, other) == pytest.approx(stats.binomtest(first, first + second).pvalue)
