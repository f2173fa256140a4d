"""Classifiers on the same images, against scikit-learn, SciPy, and sums made by hand."""

import numpy as np
import pytest

from fer_jax import evaluate
from fer_jax.errors import UserError
from fer_jax.evaluation import comparison, intervals
from fer_jax.evaluation.comparison import Predictions
from tests.lazy import lazy

special = lazy('scipy.special')
stats = lazy('scipy.stats')
reference = lazy('sklearn.metrics')

RNG = np.random.default_rng(0)
CLASSES = ('angry', 'happy', 'sad')


def told(seed, n=400, classes=CLASSES, skill=1.0):
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    logits = generator.normal(size=(n, 3)).astype(np.float32)
    logits[np.arange(n), labels] += skill
    blank = np.full(n, '')
    groups = np.where(np.arange(n) % 2, 'old', 'young')
    return Predictions(classes, np.array([f'{at:04}' for at in range(n)]), labels, blank, groups, logits)


def test_each_is_scored_and_compared_with_the_first():
    first, second = told(1), told(2, skill=1.5)
    found = comparison.compare({'a': first, 'b': second}, {'clean': first.ids[:100]}, ensemble=['a', 'b'])
    assert list(found['splits']) == ['test', 'test_clean']
    of_all = found['splits']['test']
    assert list(of_all) == ['a', 'b', 'ensemble'] and 'p' not in of_all['a']
    hits = [one.logits.argmax(1) == one.labels for one in (first, second)]
    alone = [int((hits[0] & ~hits[1]).sum()), int((hits[1] & ~hits[0]).sum())]
    assert of_all['b']['p'] == pytest.approx(stats.binomtest(alone[0], sum(alone)).pvalue)
    change = hits[1].astype(float) - hits[0]
    low, high = stats.ttest_1samp([*change, -1, 1], 0).confidence_interval(0.95)  # Agresti and Min 2005
    assert of_all['b']['gain'] == pytest.approx(change.mean())
    assert of_all['b']['gain_ci95'] == pytest.approx([low, high])
    shares = (special.softmax(first.logits, 1) + special.softmax(second.logits, 1)) / 2
    assert of_all['ensemble']['accuracy'] == np.mean(shares.argmax(1) == first.labels)
    assert of_all['ensemble']['nll'] == pytest.approx(reference.log_loss(first.labels, shares), abs=1e-6)
    assert found['splits']['test_clean']['b']['accuracy'] == np.mean(hits[1][:100])
    table = comparison.table(found)
    assert 'test_clean, n = 100' in table and 'ensemble' in table and 'left out' not in table


def test_a_gain_has_the_interval_of_few_people():
    """By Student's t over their residuals and those of two people who were not seen; none from one person."""
    subjects = np.repeat(['a', 'b', 'c', 'd'], (20, 30, 50, 40))
    before, after = RNG.random(140) < 0.4, RNG.random(140) < np.repeat((0.3, 0.8, 0.5, 0.9), (20, 30, 50, 40))
    change = after.astype(float) - before
    value, (low, high) = comparison.gain(before, after, subjects)
    residuals = [(change - value)[subjects == name].sum() for name in 'abcd']
    variance = (np.square(change - value).sum() + 2) / 140
    unseen = 35 * np.sqrt(intervals.UNSEEN_CORRELATION * variance)
    residuals += [unseen, -unseen]
    half = stats.t.ppf(0.975, 5) * np.sqrt(6) * np.std(residuals, ddof=1) / (140 + 2 * 35)
    assert value == change.mean()
    np.testing.assert_allclose((low, high), (value - half, min(value + half, 1)))
    value, (low, high) = comparison.gain(before, before, subjects)
    assert value == 0 and -0.1 < low < 0 < high < 0.1
    value, interval = comparison.gain(before, after, np.full(140, 'a'))
    assert interval is None and comparison.points(value, interval) == f'{100 * value:+.2f}'


def test_rows_and_classes_are_put_into_the_order_of_the_first():
    first, other = told(1), told(2)
    rows = RNG.permutation(400)[:390]
    columns = [2, 0, 1]
    moved = Predictions(
        ('sadness', 'anger', 'joy'),
        other.ids[rows],
        np.array([1, 2, 0])[other.labels[rows]],
        other.subjects[rows],
        other.groups[rows],
        other.logits[rows][:, columns],
    )
    found = comparison.compare({'a': first, 'b': moved})
    kept = np.sort(rows)
    assert found['left_out'] == 10 and 'left out: 10 images' in comparison.table(found)
    expected = reference.accuracy_score(other.labels[kept], other.logits[kept].argmax(1))
    assert found['splits']['test']['b']['accuracy'] == pytest.approx(expected)
    assert found['splits']['test']['b']['per_group']['old']['n'] == int((rows % 2 == 1).sum())


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'classes': ('angry', 'happy', 'fear')}, 'b tells angry, happy, fear, the first'),
        ({'ids': np.array([f'x{at}' for at in range(400)])}, 'no image in common'),
        ({'labels': np.zeros(400, int)}, 'other labels'),
    ],
)
def test_what_cannot_be_compared_is_refused(change, message):
    with pytest.raises(UserError, match=message):
        comparison.compare({'a': told(1), 'b': told(2)._replace(**change)})


def test_attributes_are_averaged_one_by_one():
    logits = [RNG.normal(size=(9, 4)) for _ in range(3)]
    expected = np.mean([special.expit(one) for one in logits], 0)
    np.testing.assert_allclose(special.expit(comparison.together(logits, attributes=True)), expected, atol=1e-6)
    half = np.where(RNG.random((9, 4)) < 0.5, 0.0, 1.0).astype(np.float32)
    blank = np.full(9, '')
    both = {
        f'{at}': Predictions(tuple('abcd'), np.arange(9).astype(str), half, blank, blank, logits[at]) for at in range(2)
    }
    scored = comparison.compare(both, ensemble=['0', '1'])['splits']['test']
    assert 'p' not in scored['1'] and scored['ensemble']['n'] == 9


def test_probabilities_of_others_are_read_in_any_order(tmp_path):
    one = told(3, n=6)
    shares = special.softmax(one.logits.astype(np.float64), 1)
    rows = [f'{one.ids[at]},{shares[at, 1]},{shares[at, 0]},{shares[at, 2]}' for at in (5, 0, 3, 1, 4, 2)]
    path = tmp_path / 'peer.csv'
    path.write_text('\n'.join(['id,Joy,Anger,sad', *rows, 'stranger,1,0,0']) + '\n')
    found = comparison.read_csv(path, one.ids, CLASSES)
    np.testing.assert_allclose(special.softmax(found, 1), shares, atol=1e-12)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('id,angry,happy\n0000,1,0\n', 'expected id, angry, happy, sad'),
        ('', 'the columns none'),
        ('id,angry,happy,sad\n0000,1,0,0\n', "nothing on 1 of 2 images, such as '0001'"),
        ('id,angry,happy,sad\n0000,1,0,0\n0000,1,0,0\n', "row 2: '0000' stands there twice"),
        ('id,angry,happy,sad\n0000,1,-1,0\n', 'row 1: expected a share'),
        ('id,angry,happy,sad\n0000,0,0,0\n', 'row 1: expected a share'),
        ('id,angry,happy,sad\n0000,1\n', 'row 1: expected a share'),
    ],
)
def test_a_wrong_csv_is_one_message(tmp_path, text, message):
    path = tmp_path / 'peer.csv'
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        comparison.read_csv(path, np.array(['0000', '0001']), CLASSES)


def test_peers_alone_need_a_set(tmp_path, capsys):
    assert evaluate.main([]) == 2 and '--workdir DIR, or --predictions CSV' in capsys.readouterr().err
    assert evaluate.main(['--predictions', str(tmp_path / 'x.csv')]) == 2
    assert 'needs --data SET' in capsys.readouterr().err
    assert evaluate.main(['--workdir', str(tmp_path), str(tmp_path)]) == 2
    assert 'names a run twice' in capsys.readouterr().err
