"""The HTML reports: figures that can be counted by hand, and text that looks like markup."""

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from fer_jax.data.dataset import Dataset, Split
from fer_jax.evaluation import score_logits
from fer_jax.inference.saliency import Explanation
from fer_jax.reporting import html_report
from fer_jax.reporting import images as report_images
from fer_jax.reporting import sections as report_sections
from fer_jax.runs import results as run_results

HOSTILE = ('<script>alert(1)</script>', '" onload="alert(2)', "' onload='alert(3)", '</pre></style>&lt;b>')


def split(files, labels, subjects, ids=None):
    """A split of these files, each the digest of its own number."""
    count = len(files)
    digests = np.zeros((count, 32), np.uint8)
    digests[:, 0] = files
    blank = np.full(count, '')
    names = {'attributes': None, 'levels': None, 'distributions': None, 'subsets': {}, 'targets': {}}
    return Split(
        ids=np.array([f'{at}' for at in range(count)] if ids is None else ids),
        digests=digests,
        labels=np.array(labels, np.int32),
        shape=(8, 8, 1),
        read=lambda index: np.zeros((len(index), 8, 8, 1), np.uint8),
        weights=np.ones(count, np.float32),
        subjects=np.array(subjects),
        groups=blank,
        **names,
    )


def test_the_data_are_counted_and_what_splits_share_is_said():
    train = split([1, 2, 3, 3, 4, 4], [0, 1, 0, 0, 0, 1], ['a', 'a', 'b', 'b', 'c', ''])
    test = split([2, 4, 9], [1, 1, 1], ['c', 'd', 'd'])
    data = Dataset('mine', ('happy', 'sad'), {'train': train, 'test': test}, {}, '0' * 64)
    summary = report_sections.summarize_data(data)
    assert summary['columns'] == ['class', 'train', 'test']
    assert summary['rows'] == [['happy', '4', '0'], ['sad', '2', '3'], ['all', '6', '3']]
    assert summary['findings'] == [
        'duplicates in train and test: 2 images of test',
        'subjects in both train and test: 1',
        'duplicates within train: 2 images',
        'duplicates with different labels within train: 1',
    ]
    alone = dataclasses.replace(data, splits={'train': test})
    assert report_sections.summarize_data(alone)['findings'] == ['no duplicates, and no subject in two splits']


class Page(HTMLParser):
    """Tags, names of attributes, and texts of a page."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.attributes, self.texts = set(), set(), []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.texts += [value for name, value in attrs if name == 'alt']

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture
def hostile_run(tmp_path):
    """The folder of a run with markup in every text, and its data set."""
    workdir = tmp_path / HOSTILE[0].replace('/', '')
    workdir.mkdir()
    labels = np.arange(40) % 4
    logits = np.eye(4, dtype=np.float32)[labels]
    logits[:5] = logits[:5, ::-1]
    subjects, ids = np.full(40, ''), np.array([f'{at} {HOSTILE[at % 4]}' for at in range(40)])
    groups = np.repeat(HOSTILE[:2], 20)
    scores = score_logits.score_logits(logits, labels, HOSTILE, groups=groups)
    calibrated = {'temperature': 1.0, 'fitted_on': HOSTILE[1], 'splits': {HOSTILE[0]: {'ece': 0.1, 'nll': 1.0}}}
    results = {'splits': {'test': scores, HOSTILE[3]: scores}, 'classes': HOSTILE, 'step': 1}
    run_results.write_results(workdir / 'results.json', results | {'selected_on': HOSTILE[2], 'calibrated': calibrated})
    arrays = {'ids': ids, 'labels': labels, 'subjects': subjects, 'groups': groups, 'logits': logits}
    run_results.write_predictions(workdir / 'predictions.npz', {f'test/{name}': arrays[name] for name in arrays})
    config = {'model': {'name': HOSTILE[0], 'weights': HOSTILE[1], 'image_size': 8}, 'data': {'name': HOSTILE[3]}}
    (workdir / 'config.json').write_text(json.dumps(config))
    (workdir / 'parameters.txt').write_text('\n'.join(HOSTILE))
    (workdir / 'environment.json').write_text(json.dumps(HOSTILE))
    splits = {'test': split(range(40), labels, subjects, ids), HOSTILE[0]: split(range(40), labels, subjects)}
    return workdir, Dataset(HOSTILE[0], HOSTILE, splits, {}, '0' * 64)


def test_text_that_looks_like_markup_is_shown_as_text(hostile_run, tmp_path):
    workdir, data = hostile_run

    def explain(images, which):
        losses = np.full(len(images), 0.5)
        return Explanation(np.ones((len(images), 8, 8)), np.ones((len(images), 4, 8, 8)), losses + 1, losses)

    results = run_results.read_results(workdir)
    pages = {
        'run': html_report.write_report(workdir, data, explain),
        'comparison': html_report.compare([workdir], tmp_path / 'comparison.html'),
        'pooled': html_report.pooled(workdir.parent, results, HOSTILE),
    }
    expected = {'run': HOSTILE, 'comparison': (HOSTILE[0], HOSTILE[3]), 'pooled': HOSTILE}
    for name, path in pages.items():
        page = Page(path)
        assert 'script' not in page.tags and 'onload' not in page.attributes
        if name == 'run':
            text = path.read_text()
            for tag in ('section', 'table', 'figure', 'svg', 'pre', 'td', 'style'):
                assert len(re.findall(f'<{tag}[ >]', text)) == text.count(f'</{tag}>') > 0
        for word in expected[name]:
            assert word in page.texts


def test_only_templates_hold_markup():
    for path in Path(html_report.__file__).parent.glob('*.py'):
        assert '</' not in path.read_text(), path


def test_the_page_says_so_where_maps_do_not_pass_the_deletion_test(hostile_run):
    workdir, data = hostile_run

    def explain(images, which):
        losses = np.full(len(images), 0.5)
        return Explanation(np.ones((len(images), 8, 8)), np.ones((len(images), 4, 8, 8)), losses, losses + 0.25)

    page = html_report.write_report(workdir, data, explain).read_text()
    assert 'No map is shown' in page and '0.50 on average' in page and 'by 0.75' in page
    assert 'Saliency maps of every class' not in page


def test_explained_images_show_different_people_classes_and_mistakes():
    """In a split where two people are first, and nearly all is right."""
    labels = np.repeat([0, 1, 2], 40)
    subjects = np.tile(np.repeat(['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'], 5), 3)
    hits = np.ones(120, bool)
    hits[[5, 50, 100]] = False
    chosen = report_images.choose_varied(labels, hits, subjects)
    assert len(set(chosen)) == 12 and len(set(subjects[chosen])) >= 7
    assert set(np.flatnonzero(~hits)) < set(chosen) and np.bincount(labels[chosen]).tolist() == [4, 4, 4]
    np.testing.assert_array_equal(chosen, report_images.choose_varied(labels, hits, subjects))
    assert len(report_images.choose_varied(labels[:3], hits[:3], subjects[:3])) == 3


def scored(workdir, subjects, config):
    workdir.mkdir()
    labels = np.arange(40) % 2
    logits = np.eye(2)[np.where(np.arange(40) % 5, labels, 1 - labels)]
    scores = score_logits.score_logits(logits, labels, ('happy', 'sad'), subjects)
    results = {'splits': {'test': scores}, 'classes': ['happy', 'sad'], 'step': 4, 'selected_on': 'validation/accuracy'}
    run_results.write_results(workdir / 'results.json', results)
    (workdir / 'config.json').write_text(json.dumps(config))
    curve = [{'step': step, 'epoch': step / 2, 'split': 'validation', 'accuracy': 0.1 * step} for step in range(1, 5)]
    (workdir / 'metrics.jsonl').write_text(''.join(json.dumps(each) + '\n' for each in curve))
    return workdir


def test_a_comparison_shows_curves_and_what_differs(tmp_path):
    base = {'model': {'name': 'resnet18', 'weights': 'scratch', 'image_size': 48}, 'data': {'name': 'mine'}, 'seed': 0}
    base |= {'phases': [{'epochs': 2.0}]}
    people = np.repeat(['a', 'b', 'c', 'd'], 10)
    first = scored(tmp_path / 'first', people, base)
    second = scored(
        tmp_path / 'second', np.full(40, 'a'), base | {'seed': 1, 'phases': [{'epochs': 3.0}, {'epochs': 1.0}]}
    )
    page = html_report.compare([first, second], tmp_path / 'page.html').read_text()
    assert 'alt="Training curves" src="data:image/png' in page
    rows = re.findall('<tr><td>(.*?)</td></tr>', page.split('Differences of the configs')[1])
    assert [row.split('</td><td>') for row in rows] == [
        ['seed', '0', '1'],
        ['phases[0].epochs', '2.0', '3.0'],
        ['phases[1].epochs', 'not set', '1.0'],
    ]
    assert '<td>80.00 %</td>' in page and '<b>second:</b> all images are of one person' in page
    assert '<b>first:</b> images of 4 people' in page


def test_the_report_of_few_people_warns_and_of_one_has_no_interval(tmp_path):
    base = {'model': {'name': 'resnet18', 'weights': 'scratch', 'image_size': 48}, 'data': {'name': 'mine'}}
    few = html_report.write_report(scored(tmp_path / 'few', np.repeat(['a', 'b'], 20), base)).read_text()
    assert 'images of 2 people' in few and '95 % confidence interval' in few.split('</section>')[0]
    only = html_report.write_report(scored(tmp_path / 'one', np.full(40, 'a'), base)).read_text()
    assert 'all images are of one person' in only and '95 % confidence interval' not in only
    assert '<b style' not in only and 'None' not in only
