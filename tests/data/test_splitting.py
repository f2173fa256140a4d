import numpy as np
import pytest

from fer_jax.data.sources import folder
from fer_jax.data.tables import splitting
from fer_jax.data.tables.table import Table
from fer_jax.errors import UserError


def table_of(splits, labels, subjects=()):
    count = len(labels)
    return Table(
        name='made',
        classes=tuple('abcdefgh'[: int(np.max(labels)) + 1]),
        ids=np.array([f'{at:05d}.png' for at in range(count)]),
        splits=np.broadcast_to(np.array(splits), (count,)),
        labels=np.asarray(labels, np.int32),
        digests=np.zeros((count, 32), np.uint8),
        fetch=lambda index: [b''] * len(index),
        subjects=np.array(subjects, np.str_),
    )


def whole(dealt, count):
    taken = np.concatenate(list(dealt.values()))
    assert sorted(taken) == list(range(count))


def test_a_set_without_splits_is_dealt_out_by_class():
    table = table_of('all', np.repeat([0, 1], [100, 900]))
    dealt = splitting.assign(table)
    whole(dealt, 1000)
    for split, counts in {'train': [70, 630], 'validation': [15, 135], 'test': [15, 135]}.items():
        assert np.bincount(table.labels[dealt[split]]).tolist() == counts
    assert not np.array_equal(dealt['test'], splitting.assign(table, split_seed=1)['test'])


def test_a_new_image_moves_few_others():
    before = table_of('all', np.zeros(1000, np.int32))
    after = table_of('all', np.zeros(1010, np.int32))
    moved = set(splitting.assign(before)['test']) ^ {at for at in splitting.assign(after)['test'] if at < 1000}
    assert len(moved) <= 6  # 10 more of 1000 shift the border between two splits


def test_published_splits_stay_and_validation_is_carved_from_train():
    table = table_of(['train'] * 100 + ['test'] * 30, np.arange(130) % 4)
    dealt = splitting.assign(table)
    whole(dealt, 130)
    assert set(dealt['test']) == set(range(100, 130))
    assert len(dealt['validation']) == 8  # 10 % of each class of 25, rounded
    table = table_of(['train'] * 100 + ['validation'] * 30, np.arange(130) % 4)
    assert set(splitting.assign(table)['validation']) == set(range(100, 130))


@pytest.mark.parametrize(
    ('split', 'shares', 'sizes'),
    [('all', (0.2, 0.3), (100, 40, 60)), ('train', (0.2, 0.3), (160, 40)), ('all', (), (140, 30, 30))],
)
def test_shares_are_of_the_splits_that_a_set_does_not_come_with(split, shares, sizes):
    dealt = splitting.assign(table_of(split, np.arange(200) % 2), shares=shares)
    assert tuple(len(dealt[name]) for name in ('train', 'validation', 'test') if name in dealt) == sizes
    table = table_of('all', np.arange(200) % 2, [f'{index % 20}' for index in range(200)])
    people = splitting.assign(table, shares=(0.3, 0.3))
    assert [len(people[name]) for name in ('train', 'validation', 'test')] == [80, 60, 60]


@pytest.mark.parametrize('split', ['all', 'train'])
def test_nobody_stands_in_two_splits(split):
    subjects = [f's{at % 50:02d}' for at in range(1000)]
    table = table_of(split, np.arange(1000) % 3, subjects)
    dealt = splitting.assign(table)
    whole(dealt, 1000)
    people = [set(table.subjects[places]) for places in dealt.values()]
    assert sum(map(len, people)) == 50
    assert len(dealt['validation']) == (160 if split == 'all' else 100)


def test_folds_cover_everything_once_and_share_no_subject(shared_data):
    table = folder.scan(shared_data / 'ck48', subject=r'(S\d+)_')
    assert len(set(table.subjects)) == 118
    tested, sizes = [], []
    for fold in range(10):
        dealt = splitting.assign(table, folds=10, fold=fold)
        whole(dealt, 981)
        people = {split: set(table.subjects[places]) for split, places in dealt.items()}
        assert sum(map(len, people.values())) == 118
        tested += dealt['test'].tolist()
        sizes.append(len(dealt['test']))
        assert set(dealt['validation']) == set(splitting.assign(table, folds=10, fold=(fold + 1) % 10)['test'])
    assert sorted(tested) == list(range(981))
    assert max(sizes) - min(sizes) <= 6


def test_folds_without_subjects_are_stratified():
    table = table_of('all', np.repeat([0, 1, 2], [50, 30, 20]))
    for fold in range(10):
        dealt = splitting.assign(table, folds=10, fold=fold)
        whole(dealt, 100)
        assert np.bincount(table.labels[dealt['test']]).tolist() == [5, 3, 2]


@pytest.mark.parametrize(
    ('settings', 'splits', 'message'),
    [
        ({'folds': 2}, 'all', 'at least 3 folds'),
        ({'folds': 5, 'fold': 5}, 'all', 'a fold from 0 to folds - 1'),
        ({'folds': 60}, 'all', 'has only 50 subjects'),
        ({'folds': 5}, ['train'] * 900 + ['test'] * 100, 'has a published test split'),
    ],
)
def test_wrong_folds_are_named(settings, splits, message):
    table = table_of(splits, np.arange(1000) % 3, [f's{at % 50:02d}' for at in range(1000)])
    with pytest.raises(UserError, match=message):
        splitting.assign(table, **settings)


def test_a_stratified_choice_keeps_the_shares_of_the_classes():
    table = table_of('train', np.repeat([0, 1, 2], [10, 300, 690]))
    positions = np.arange(0, 1000, 2)  # 5, 150 and 345
    few, more = splitting.stratified(table, positions, 50), splitting.stratified(table, positions, 100)
    assert np.bincount(table.labels[few]).tolist() == [1, 15, 34]  # shares 0.5, 15, 34.5: the first remainder rounds up
    assert np.bincount(table.labels[more]).tolist() == [1, 30, 69]
    assert set(few) < set(more) < set(positions) and len(set(more)) == 100
    assert not np.array_equal(few, splitting.stratified(table, positions, 50, split_seed=1))
    turned = splitting.stratified(table, positions[::-1], 50)
    assert np.array_equal(few, turned)
    assert np.array_equal(splitting.stratified(table, positions, 500), positions)
    with pytest.raises(UserError, match='train_examples=501; the training split of made has 500'):
        splitting.stratified(table, positions, 501)


def test_subjects_are_told_from_images_in_every_split():
    subjects = [f's{at % 10}' for at in range(150)] + [f's{10 + at % 4}' for at in range(50)]
    published = table_of(['train'] * 150 + ['test'] * 50, np.arange(200) % 3, subjects)
    trained = splitting.assign(published)['train']
    table = splitting.of_subjects(published)
    assert list(table.ids) == list(published.ids[trained])  # nobody who selects or tests on expressions
    assert [table.classes[label] for label in table.labels] == [subjects[at] for at in trained]
    dealt = splitting.assign(table)
    whole(dealt, len(trained))
    assert len(table.classes) == 9 and all(set(table.labels[at]) == set(range(9)) for at in dealt.values())
    with pytest.raises(UserError, match='does not say who is shown'):
        splitting.of_subjects(table_of('train', np.arange(20) % 3))
    with pytest.raises(UserError, match='no training split, only test'):
        splitting.of_subjects(table_of('test', np.arange(4) % 2, list('abcd')))
