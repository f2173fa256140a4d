"""`fer_jax.train` with images in memory and a function at each evaluation; checkpoints kept; Weights & Biases."""

import importlib.util
import json

import numpy as np
import pytest
from PIL import Image

import fer_jax
from fer_jax.data.sources.arrays import read_arrays
from fer_jax.errors import UserError
from fer_jax.runs.data import data_of_run
from tests.small_run import config_of

GREY = np.zeros((4, 6, 6), np.uint8)


@pytest.mark.parametrize(
    ('data', 'message'),
    [
        (GREY, 'data is ndarray; give .images, labels.'),
        ((GREY, ['a'] * 3), '4 images, 3 labels and 4 subjects'),
        ((GREY / 255, ['a'] * 4), 'data, image 0 is float64; expected uint8'),
        ((GREY[:, :, :, None].repeat(2, 3), ['a'] * 4), r'image 0 has the shape .6, 6, 2.; expected'),
        ((GREY, [0, 1, 1.5, 0]), 'label 2 is 1.5; expected the name of a class'),
        ({'train': (GREY, 'abab'), 'tset': (GREY, 'abab')}, "'tset' is no split"),
        ([(GREY[0], 'a'), GREY[1]], 'an element is no pair'),
        ({'test': (GREY[:0], [])}, "data.'test'. has 0 images"),
    ],
)
def test_other_types_and_lengths_are_named(data, message):
    with pytest.raises(UserError, match=message):
        read_arrays(data)


def test_arrays_pairs_and_splits_are_one_source():
    labels = [10, 2, 2, 10]
    table = read_arrays((GREY, labels))
    assert table.classes == ('2', '10') and table.labels.tolist() == [1, 0, 0, 1] and set(table.splits) == {'all'}
    pairs = read_arrays(zip(GREY, labels, strict=True))
    assert np.array_equal(pairs.digests, table.digests) and pairs.fetch([2]) == table.fetch([2])
    parts = read_arrays({'train': (GREY[:3], labels[:3], ['x', 'y', 'x']), 'val': (GREY[3:], labels[3:], ['z'])})
    assert parts.splits.tolist() == ['train'] * 3 + ['validation'] and parts.subjects.tolist() == ['x', 'y', 'x', 'z']
    colour = read_arrays(([np.ones((2, 3, 3), np.uint8), np.ones((4, 4), np.uint8)], ['a', 'b']))
    assert colour.shape == (None, None, 3)


@pytest.mark.slow
def test_arrays_train_stop_at_a_word_and_go_on_with_the_same_arrays(faces, tmp_path, capsys, monkeypatch):
    paths = sorted(faces.glob('*/*.png'))
    images = np.stack([np.asarray(Image.open(path)) for path in paths])
    labels = [path.parent.name for path in paths]
    config = config_of('')
    config.checkpoint.keep = 3
    logged = importlib.util.find_spec('wandb') is not None
    if logged:
        monkeypatch.setenv('WANDB_MODE', 'offline')
        config.wandb = 'faces'
    seen = []

    def second(record):
        seen.append(record)
        return len(seen) == 2

    results = fer_jax.train(config, tmp_path / 'run', data=(images, labels), on_evaluation=second)
    assert [record['epoch'] for record in seen] == [1, 2] and seen[0]['best']['step'] == seen[0]['step']
    assert results['splits']['test']['n'] == 12 and results['step'] in [record['step'] for record in seen]
    out = capsys.readouterr().out
    assert 'on_evaluation ends the training after step' in out and 'compiling the first takes a while' in out
    assert out.count('best so far') == 2
    steps = {int(path.name) for path in (tmp_path / 'run/checkpoints').iterdir() if path.name.isdecimal()}
    assert steps == {record['step'] for record in seen}  # neither is left out for being old
    if logged:
        (written,) = (tmp_path / 'run/wandb').glob('offline-run-*/run-*.wandb')
        assert written.stat().st_size
    config.wandb = ''
    with pytest.raises(UserError, match='holds'):
        fer_jax.train(config, tmp_path / 'run', data=(images[::-1], labels))
    fer_jax.train(config, tmp_path / 'run', data=(images, labels))
    out = capsys.readouterr().out
    assert f'resuming at step {seen[-1]["step"]} of' in out
    lines = [json.loads(line) for line in (tmp_path / 'run/metrics.jsonl').read_text().splitlines()]
    assert [line['epoch'] for line in lines if line['split'] == 'validation'] == [1, 2, 3]
    with pytest.raises(UserError, match='was trained on arrays'):
        data_of_run(tmp_path / 'run')
