"""The parts of the experiments with other sources that are no training."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from fer_jax.data import datasets, folder, manifest
from scripts import sources_table


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """80 images of two classes in training, 20 each for validation and test, as a set of that name would be."""
    for name in ('happy', 'sad'):
        (tmp_path / 'set' / name).mkdir(parents=True)
        for at in range(60):
            Image.new('L', (16, 16), at).save(tmp_path / 'set' / name / f'{at:02d}.png')

    def open_table(**_):
        table = folder.scan(tmp_path / 'set')
        place = np.arange(120) % 60
        return dataclasses.replace(table, splits=np.select([place < 40, place < 50], ['train', 'validation'], 'test'))

    monkeypatch.setattr(datasets, 'open_table', open_table)
    return open_table()


def test_a_share_of_the_labels_is_given_and_the_rest_is_known_to_the_count(prepared, tmp_path):
    labelled, everything, unlabelled, truth = sources_table.parted('any', 0.1, tmp_path / 'out')
    some, all_ = manifest.read(labelled), manifest.read(everything)
    assert [int((some.splits == split).sum()) for split in ('train', 'validation', 'test')] == [8, 20, 20]
    assert np.bincount(some.labels[some.splits == 'train']).tolist() == [4, 4] and len(all_) == 120
    names = sorted(path.name for path in unlabelled.iterdir())
    assert len(names) == 72 and set(names) <= set(truth)
    at = int(names[0].removesuffix('.png'))
    assert (unlabelled / names[0]).read_bytes() == prepared.fetch(np.array([at]))[0]
    assert truth[names[0]] == prepared.classes[prepared.labels[at]]


def test_the_table_says_what_was_labelled_and_what_of_it_is_right():
    row = {'row': 'round 1', 'n': 100, 'accuracy': 0.5, 'accuracy_ci95': [0.4, 0.6], 'interval': 'wilson'}
    text = sources_table.table([row, row | {'coverage': 0.25, 'precision': 0.9, 'precision_ci95': [0.8, 0.95]}])
    assert '| round 1 | 50.00 % [40.0, 60.0] | Wilson, n = 100 | 25.0 % | 90.00 % [80.0, 95.0] |' in text


def test_a_teacher_is_needed(tmp_path, capsys):
    command = ['distil', '--out', str(tmp_path), '--output', str(tmp_path / 'x.jsonl')]
    assert sources_table.main(command) == 2 and '--teacher is missing' in capsys.readouterr().err
    assert sources_table.main([*command, '--teacher', str(tmp_path)]) == 2
    assert 'holds no finished run' in capsys.readouterr().err
