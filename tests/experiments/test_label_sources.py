"""The parts of the experiments with other sources that are no training."""

import argparse
import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from fer_jax.data import dataset
from fer_jax.data.sources import folder, manifest
from scripts.experiments import label_sources


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

    monkeypatch.setattr(dataset, 'open_table', open_table)
    return open_table()


def test_a_share_of_the_labels_is_given_and_the_rest_is_known_to_the_count(prepared, tmp_path):
    labelled, everything, unlabelled, truth = label_sources.parted('any', 0.1, tmp_path / 'out')
    some, all_ = manifest.read_manifest(labelled), manifest.read_manifest(everything)
    assert [int((some.splits == split).sum()) for split in ('train', 'validation', 'test')] == [8, 20, 20]
    assert np.bincount(some.labels[some.splits == 'train']).tolist() == [4, 4] and len(all_) == 120
    names = sorted(path.name for path in unlabelled.iterdir())
    assert len(names) == 72 and set(names) <= set(truth)
    at = int(names[0].removesuffix('.png'))
    assert (unlabelled / names[0]).read_bytes() == prepared.fetch(np.array([at]))[0]
    assert truth[names[0]] == prepared.classes[prepared.labels[at]]


def test_the_table_says_what_was_labelled_and_what_of_it_is_right():
    row = {'row': 'round 1', 'n': 100, 'accuracy': 0.5, 'accuracy_ci95': [0.4, 0.6], 'interval': 'wilson'}
    text = label_sources.table([row, row | {'coverage': 0.25, 'precision': 0.9, 'precision_ci95': [0.8, 0.95]}])
    assert '| round 1 | 50.00 % [40.0, 60.0] | Wilson, n = 100 | 25.0 % | 90.00 % [80.0, 95.0] |' in text


def test_a_teacher_is_needed(tmp_path, capsys):
    command = ['distil', '--out', str(tmp_path), '--output', str(tmp_path / 'x.jsonl')]
    assert label_sources.main(command) == 2 and '--teacher is missing' in capsys.readouterr().err
    assert label_sources.main([*command, '--teacher', str(tmp_path)]) == 2
    assert 'holds no finished run' in capsys.readouterr().err


def test_rounds_of_another_threshold_are_others(prepared, tmp_path, monkeypatch):
    """Their labels are made anew; images without a true label say nothing of how many are right."""
    prepared.labels[np.flatnonzero(prepared.splits == 'train')[-30:]] = -1
    monkeypatch.setattr(dataset, 'open_table', lambda **_: prepared)
    test = {'n': 20, 'accuracy': 0.5, 'accuracy_ci95': [0.3, 0.7], 'interval': 'wilson', 'balanced_accuracy': 0.5}
    runs, thresholds = [], []

    def taught_by(labels, workdir, arguments):
        runs.append(workdir)
        return {'splits': {'test': test, 'test_clean': test | {'n': 19}}}

    def label(command):
        given = dict(zip(command[::2], command[1::2], strict=True))
        thresholds.append(given['--threshold'])
        table, output = folder.unlabelled(Path(given['--data'])), Path(given['--output'])
        output.parent.mkdir(parents=True, exist_ok=True)
        labels, splits = np.zeros(len(table), np.int32), np.full(len(table), 'train')
        made = dataclasses.replace(table, classes=('happy', 'sad'), labels=labels, splits=splits)
        manifest.write_manifest(output, made, np.ones(len(table), bool), Path(given['--data']))
        record = {'coverage': 1.0, 'temperature': 1.5, 'validation': {'precision': 0.6}}
        output.with_suffix('.json').write_text(json.dumps(record))
        return 0

    monkeypatch.setattr(label_sources, 'taught_by', taught_by)
    monkeypatch.setattr(label_sources.pseudo_label, 'main', label)
    output = tmp_path / 'x.jsonl'
    command = ['pseudo', '--out', str(tmp_path / 'out'), '--output', str(output), '--rounds', '1', '--data', 'some']
    for threshold in ('0.8', '0.8', '0.6'):
        assert label_sources.main([*command, '--threshold', threshold]) == 0
    assert thresholds == ['0.8', '0.6'] and len(set(runs)) == 4
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    left = [path.name for path in (tmp_path / 'out' / 'some-0.1' / 'unlabelled').iterdir()]
    true = [label for at, label in enumerate(prepared.labels) if f'{at:06d}.png' in left and label >= 0]
    assert len(true) < len(left) and rows[1]['precision'] == np.mean(np.array(true) == 0)
    assert rows[0]['clean']['n'] == 19 and rows[1]['validation'] == {'precision': 0.6}


def test_devices_are_those_that_are_there(tmp_path, monkeypatch):
    """Two are asked for where one is here: on a machine of one GPU, or where JAX has started."""
    seen, here = [], len(jax.devices())
    monkeypatch.setattr(label_sources.repeats, 'once', lambda config, workdir: seen.append(config['parallel']))
    arguments = argparse.Namespace(image_size=0, epochs=0.0)
    label_sources.taught_by(tmp_path / 'x.csv', tmp_path, arguments)
    assert seen[0]['devices'] == min(here, 2)
