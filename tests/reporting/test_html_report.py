"""Sections of the report whose figures can be counted by hand."""

import dataclasses

import numpy as np

from fer_jax.data.dataset import Dataset, Split
from fer_jax.evaluation import scoring
from fer_jax.reporting import sections as report_sections


def split(files, labels, subjects):
    """A split of these files, each the digest of its own number."""
    count = len(files)
    digests = np.zeros((count, 32), np.uint8)
    digests[:, 0] = files
    blank = np.full(count, '')
    names = {'attributes': None, 'levels': None, 'distributions': None, 'subsets': {}, 'targets': {}}
    return Split(
        ids=np.array([f'{at}' for at in range(count)]),
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
    page = report_sections.data_found(data)
    assert '<tr><td>happy</td><td>4</td><td>0</td></tr><tr><td>sad</td><td>2</td><td>3</td></tr>' in page
    for found in (
        '2 images of test are the very files of train',
        '1 people of train are in test too',
        '2 images of train are copies of others there',
        '1 images of train stand there under two labels',
    ):
        assert f'<li>{found}</li>' in page
    alone = dataclasses.replace(data, splits={'train': test})
    assert 'no file twice, no person in two splits' in report_sections.data_found(alone)


def test_groups_have_a_row_each():
    labels = np.arange(40) % 2
    logits = np.eye(2)[labels]
    logits[:5] = logits[:5, ::-1]
    groups = np.repeat(['<old>', 'young'], 20)
    page = report_sections.groups(scoring.scores(logits, labels, ('a', 'b'), groups=groups), 'test')
    assert '<td>&lt;old&gt;</td><td>20</td><td>75.00 %' in page and '<td>young</td><td>20</td><td>100.00 %' in page
