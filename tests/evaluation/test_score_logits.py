import json

import numpy as np
import pytest

from fer_jax.evaluation import intervals, score_logits, summary
from fer_jax.reporting import figures
from tests.lazy import lazy

special = lazy('scipy.special')
stats = lazy('scipy.stats')
reference = lazy('sklearn.metrics')

RNG = np.random.default_rng(0)
CLASSES = ('angry', 'disgust', 'fear', 'happy', 'absent')
LOGITS = RNG.normal(size=(300, 5)).astype(np.float32)
LABELS = RNG.choice(4, 300, p=[0.5, 0.3, 0.15, 0.05])


@pytest.mark.parametrize(('hits', 'n'), [(0, 10), (10, 10), (1, 3), (2584, 3589), (7, 1000)])
def test_wilson_is_scipys(hits, n):
    expected = stats.binomtest(hits, n).proportion_ci(0.95, method='wilson')
    np.testing.assert_allclose(intervals.wilson_interval(hits, n), (expected.low, expected.high), atol=1e-12)
    assert intervals.wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize('never_predicted', [False, True])
def test_scores_are_scikit_learns(never_predicted):
    logits = LOGITS.copy()
    if never_predicted:
        logits[:, [1, 4]] = logits.min() - 5
    predictions = logits.argmax(-1)
    one = score_logits.score_logits(logits, LABELS, CLASSES)
    assert one['n'] == 300
    assert one['accuracy'] == pytest.approx(reference.accuracy_score(LABELS, predictions))
    seen = [reference.recall_score(c == LABELS, predictions == c) for c in range(4)]  # the fifth class is absent
    assert one['balanced_accuracy'] == pytest.approx(np.mean(seen))
    assert one['macro_f1'] == pytest.approx(reference.f1_score(LABELS, predictions, average='macro', zero_division=0))
    probabilities = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities /= probabilities.sum(-1, keepdims=True)
    assert one['nll'] == pytest.approx(reference.log_loss(LABELS, probabilities, labels=range(5)), rel=1e-5)
    np.testing.assert_array_equal(one['confusion'], reference.confusion_matrix(LABELS, predictions, labels=range(5)))
    table = reference.precision_recall_fscore_support(LABELS, predictions, labels=range(5), zero_division=0)
    for name, precision, recall, f1, support in zip(CLASSES, *table, strict=True):
        row = one['per_class'][name]
        assert (row['precision'], row['recall'], row['f1']) == pytest.approx((precision, recall, f1))
        assert row['n'] == support
    json.dumps(one)


@pytest.mark.parametrize('broken', [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_numbers_are_refused(broken):
    logits = LOGITS.copy()
    logits[3, 2] = broken
    with pytest.raises(ValueError, match='1 of 300 examples have logits that are NaN'):
        score_logits.score_logits(logits, LABELS, CLASSES)
    with pytest.raises(ValueError, match='no examples'):
        score_logits.score_logits(LOGITS[:0], LABELS[:0], CLASSES)


def results():
    one = score_logits.score_logits(LOGITS, LABELS, CLASSES)
    phase = {'phase': 0, 'epoch': 2.0, 'accuracy': one['accuracy'], 'accuracy_ci95': one['accuracy_ci95']}
    return {
        'selected_on': 'validation/accuracy',
        'step': 10,
        'classes': list(CLASSES),
        'phases': [phase],
        'splits': {'validation': one, 'test': one},
    }


def test_the_summary_names_what_selected_and_every_class():
    text = summary.summary(results())
    (absent,) = (line for line in text.splitlines() if line.startswith('absent'))
    assert absent.split()[1:7] == ['0', 'no', 'image', 'in', 'this', 'split'] and '%' not in absent.split('split')[0]
    accuracy = results()['splits']['test']['accuracy']
    assert 'selected on validation/accuracy, step 10' in text
    assert text.count(f'{100 * accuracy:.2f} %') == 3
    for name in CLASSES:
        assert f'\n{name} ' in text


def test_the_pictures_are_pictures(tmp_path):
    from PIL import Image

    history = [
        {'step': step, 'epoch': step / 5, 'phase': int(step > 10), 'split': 'train', 'loss': 2 / step, 'accuracy': 0.5}
        for step in range(1, 21)
    ]
    history += [
        {'step': step, 'epoch': step / 5, 'phase': int(step > 10), 'split': 'validation', 'nll': 1.0, 'accuracy': 0.6}
        for step in (5, 10, 15, 20)
    ]
    figures.write_figures(tmp_path, results(), history)
    for name in ('curves.png', 'confusion_validation.png', 'confusion_test.png'):
        with Image.open(tmp_path / name) as image:
            assert min(image.size) > 400
            assert len(image.convert('RGB').getcolors(2**24)) > 10


def test_attribute_scores_are_scikit_learns():
    logits, labels = RNG.normal(size=(200, 3)), (RNG.random((200, 3)) < 0.3).astype(np.float32)
    one = score_logits.score_logits(logits, labels, ('AU1', 'AU2', 'AU4'))
    told = logits > 0
    assert one['accuracy'] == pytest.approx((told == labels).mean()) and one['interval'] == 'examples'
    shares = 1 / (1 + np.exp(-logits))
    assert one['nll'] == pytest.approx(np.mean([reference.log_loss(labels[:, k], shares[:, k]) for k in range(3)]))
    assert one['macro_f1'] == pytest.approx(reference.f1_score(labels, told, average='macro'))
    assert one['average_precision'] == pytest.approx(reference.average_precision_score(labels, logits))
    for k, row in enumerate(one['per_attribute'].values()):
        expected = stats.binomtest(int((told == labels)[:, k].sum()), 200).proportion_ci(0.95, method='wilson')
        np.testing.assert_allclose(row['accuracy_ci95'], (expected.low, expected.high), atol=1e-12)
        assert row['balanced_accuracy'] == pytest.approx(reference.balanced_accuracy_score(labels[:, k], told[:, k]))
    json.dumps(one)


def test_unknown_attributes_do_not_count(tmp_path):
    nan = np.nan
    labels = np.array([[1, 0, nan], [0, nan, nan], [1, 1, nan]], np.float32)
    logits = np.array([[1, 1, 5], [-1, 5, 5], [1, 1, 5.0]])
    one = score_logits.score_logits(logits, labels, ('AU1', 'AU2', 'AU4'), np.array(['a', 'b', 'b']))
    assert one['accuracy'] == pytest.approx((0.5 + 1 + 1) / 3) and one['interval'] == 'by_subject'
    assert one['accuracy_ci95'][0] < 0.5 and one['accuracy_ci95'][1] == 1 and one['subjects'] == 2
    assert {name: row['n'] for name, row in one['per_attribute'].items()} == {'AU1': 3, 'AU2': 2}
    results = {
        'selected_on': 'validation/accuracy',
        'step': 1,
        'classes': ['AU1', 'AU2', 'AU4'],
        'splits': {'test': one},
    }
    text = summary.summary(results)
    assert 'test, by attribute' in text and '\nAU2 ' in text
    figures.confusions(tmp_path, results)
    assert (tmp_path / 'attributes_test.png').stat().st_size > 5000


def test_groups_are_scored_apart():
    """Against scikit-learn, group by group; examples of no group count in none."""
    generator = np.random.default_rng(5)
    labels, groups = generator.integers(0, 3, 300), generator.choice(['', 'old', 'young'], 300)
    logits = generator.normal(size=(300, 3)) + 1.2 * np.eye(3)[labels]
    found = score_logits.score_logits(logits, labels, ('a', 'b', 'c'), groups=groups)['per_group']
    assert list(found) == ['old', 'young']
    for name, one in found.items():
        rows = groups == name
        told = logits[rows].argmax(1)
        assert one['n'] == rows.sum() and one['accuracy'] == reference.accuracy_score(labels[rows], told)
        assert one['balanced_accuracy'] == pytest.approx(reference.balanced_accuracy_score(labels[rows], told))
        assert one['macro_f1'] == pytest.approx(reference.f1_score(labels[rows], told, average='macro'))
    only = np.where(groups == 'old', 'old', '')
    assert 'per_group' not in score_logits.score_logits(logits, labels, ('a', 'b', 'c'), groups=only)
    present = (generator.random((300, 2)) < 0.5).astype(np.float32)
    of_attributes = score_logits.score_logits(logits[:, :2], present, ('x', 'y'), groups=groups)['per_group']
    expected = (logits[groups == 'old', :2] > 0) == (present[groups == 'old'] > 0.5)
    assert of_attributes['old']['accuracy'] == pytest.approx(expected.mean())


def test_abstention_keeps_the_most_confident():
    generator = np.random.default_rng(6)
    labels = generator.integers(0, 4, 200)
    logits = generator.normal(size=(200, 4)) * 2 + np.eye(4)[labels]
    sure = special.softmax(logits, 1).max(1)
    for one in score_logits.score_logits(logits, labels, tuple('abcd'))['abstention']:
        kept = sure >= one['confidence'] - 1e-12
        assert kept.sum() == round(one['coverage'] * 200)
        assert one['accuracy'] == pytest.approx(np.mean(logits[kept].argmax(1) == labels[kept]))


def test_the_same_rate_has_the_same_interval_everywhere():
    """All images are the most confident 100 %, and here all are of one class and half of the attributes."""
    subjects = np.repeat(['a', 'b', 'c'], 40)
    labels, logits = np.zeros(120, int), RNG.normal(size=(120, 3))
    one = score_logits.score_logits(logits, labels, ('x', 'y', 'z'), subjects)
    assert one['interval'] == 'by_subject' and one['subjects'] == 3
    assert one['abstention'][0]['accuracy_ci95'] == one['per_class']['x']['recall_ci95'] == one['accuracy_ci95']
    attributes = score_logits.score_logits(logits[:, :1], labels[:, None].astype(float), ('x',), subjects)
    expected, _ = intervals.rate_interval(logits[:, 0] <= 0, subjects)
    assert attributes['per_attribute']['x']['accuracy_ci95'] == expected
    groups = score_logits.score_logits(
        logits, labels, ('x', 'y', 'z'), subjects, np.where(subjects == 'a', 'old', 'young')
    )
    assert groups['per_group']['old']['accuracy_ci95'] is None and groups['per_group']['young']['subjects'] == 2


def test_few_people_are_told_and_one_person_has_no_interval():
    found = results()
    for people, message in ((1, 'no interval'), (3, 'images of 3 people'), (9, 'images of 9 people')):
        one = score_logits.score_logits(LOGITS, LABELS, CLASSES, (np.arange(300) % people).astype(str))
        text = summary.summary(json.loads(json.dumps(found | {'splits': {'test': one}})))
        assert message in text and ('[' in text.split('\ntest ')[1].splitlines()[0]) == (people > 1)
    for subjects in (None, (np.arange(300) % 10).astype(str)):
        assert not summary.note(score_logits.score_logits(LOGITS, LABELS, CLASSES, subjects))


def test_results_of_earlier_versions_are_still_read():
    found = results()
    old = {name: value for name, value in found['splits']['test'].items() if name != 'subjects'}
    found['splits']['test'] = old | {'interval': 'subjects'}
    assert 'resampled by subject' in summary.summary(found)
