"""What else than the class of an image can be learnt: its attributes, and who is shown."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from fer_jax.data import dataset
from fer_jax.data.sources import folder
from fer_jax.errors import UserError

ROLES = {'train': 'train', 'validation': 'validation', 'test': 'test'}


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Loads 40 images of four people with an annotation of three columns, some of it unknown."""
    for name in ('happy', 'sad'):
        (tmp_path / name).mkdir()
        for at in range(20):
            Image.new('L', (16, 16), at).save(tmp_path / name / f'S{at % 4}_{at:02d}.png')
    units = np.random.default_rng(0).choice([0.0, 0.4, 1.0, np.nan], (40, 3)).astype(np.float32)
    units[5] = np.nan

    def open_table(**_):
        table = folder.scan(tmp_path, subject='S[0-9]')
        return dataclasses.replace(table, targets={'units': units}, columns={'units': ('AU1', 'AU2', 'AU4')})

    monkeypatch.setattr(dataset, 'open_table', open_table)
    shape = {'image_size': 16, 'channels': 1, 'root': tmp_path, 'splits': ROLES}
    return lambda **settings: (dataset.load_dataset(**shape, **settings), open_table())


def test_attributes_are_the_columns_of_the_annotation(load):
    data, table = load(annotation='units')
    assert data.classes == ('AU1', 'AU2', 'AU4')
    ids = np.concatenate([split.ids for split in data.splits.values()])
    assert sorted(ids) == sorted(np.delete(table.ids, 5))  # of which nothing is known
    for split in data.splits.values():
        units = table.targets['units'][[list(table.ids).index(name) for name in split.ids]]
        np.testing.assert_array_equal(np.isnan(split.truth), np.isnan(units))
        np.testing.assert_array_equal(split.truth == 1, units > 0)
    truth = data.splits['train'].truth[0]
    expected = ', '.join(np.array(data.classes)[truth == 1])
    assert data.describe_example('train', 0) == expected
    plain, _ = load()
    assert plain.describe_example('train', 0) in ('happy', 'sad') and plain.fingerprint != data.fingerprint


def test_levels_are_the_numbers_of_the_annotation(load):
    data, table = load(annotation='units', levels=True)
    for split in data.splits.values():
        units = table.targets['units'][[list(table.ids).index(name) for name in split.ids]]
        np.testing.assert_array_equal(split.truth, units)
        assert split.attributes is None


def test_subjects_are_classes_and_none_of_them_tests_expressions(load):
    data, _ = load(label='subject')
    expressions, _ = load()
    people = set(expressions.splits['train'].subjects)
    assert set(data.classes) == people and len(people) == 2
    ids = [name for split in data.splits.values() for name in split.ids]
    assert sorted(ids) == sorted(expressions.splits['train'].ids)
    for split in data.splits.values():
        assert set(split.labels) == {0, 1} and not split.subjects.any()
        assert [data.classes[label] for label in split.labels] == [name.split('/')[1][:2] for name in split.ids]
    assert len(load(label='subject', train_examples=8)[0].splits['train'].labels) == 8


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'annotation': 'action_units'}, "'action_units' is no annotation of .*; it has units"),
        ({'annotation': 'units', 'target': 'cross_entropy'}, 'needs votes'),
        ({'label': 'identity'}, "data.label='identity' is unknown"),
        ({'train_examples': 100}, 'train_examples=100; the training split of .* has'),
    ],
)
def test_wrong_settings_are_named(load, settings, message):
    with pytest.raises(UserError, match=message):
        load(**settings)
