"""Damage to the small files that a run writes beside its arrays and reads again."""

import json
import os

import numpy as np
import pytest

from fer_jax.data.imaging import crop_folder
from fer_jax.data.sources import files
from fer_jax.errors import UserError
from fer_jax.feature_cache import store as feature_store
from fer_jax.runs import checksums, lock, metrics_log, model_file
from fer_jax.runs import config as run_config
from fer_jax.utils import atomic_files

DAMAGED = (
    b'',
    b'{"',
    b'[]',
    b'[1, 2]',
    b'5',
    b'null',
    b'\xff\xfe',
    b'\0' * 100,
    b'[' * 100_000,
    b'{"step": [], "x": {}}',
)
CONFIG = {'seed': 0, 'phases': [{'epochs': 1.0}]}


@pytest.fixture(params=DAMAGED, ids=lambda data: repr(data[:8]))
def damaged(request, tmp_path):
    def write(name):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(request.param)
        return path

    return write


def test_a_damaged_model_is_named(damaged):
    path = damaged('checkpoints/model.json')
    with pytest.raises(UserError, match=r'model\.json cannot be read \(.*start again in another --workdir'):
        model_file.read_spec(path.parent.parent)


def test_a_damaged_config_is_refused(damaged):
    with pytest.raises(UserError, match=r'config\.json is damaged|holds a run of another config'):
        run_config.check_run_config(damaged('config.json').parent, CONFIG)


@pytest.mark.parametrize('epochs', ['many', [1], None])
def test_a_config_of_other_types_is_another_config(tmp_path, epochs):
    (tmp_path / 'config.json').write_text(json.dumps(CONFIG | {'phases': [{'epochs': epochs}]}))
    with pytest.raises(UserError, match='holds a run of another config'):
        run_config.check_run_config(tmp_path, CONFIG)


def test_a_damaged_manifest_seals_nothing(damaged):
    step = damaged('5.manifest.json').with_name('5')
    step.mkdir()
    (step / 'x').write_bytes(b'x')
    assert checksums.find_damage(step)
    checksums.write_checksums(step)
    assert not checksums.find_damage(step)


def test_features_with_a_damaged_note_are_not_used(damaged):
    path = damaged('features.json').with_suffix('.bin')
    path.write_bytes(b'x')
    assert not feature_store.FeatureFile(path, (2, 3), np.dtype(np.float32), 'train').is_whole()


def test_a_damaged_lock_holds_nobody_up(damaged):
    path = damaged('writer.json')
    with lock.workdir_lock(path.parent):
        assert json.loads(path.read_text())['pid'] == os.getpid()


def test_records_end_where_the_damage_begins(damaged):
    path = damaged('metrics.jsonl')
    whole = '{"step": 1, "loss": 0.5}\n'
    path.write_bytes(whole.encode() + path.read_bytes() + b'\n{"step": 2}\n')
    metrics_log.RecordFile(path, 1).close()
    assert path.read_text() == whole


def test_a_damaged_log_of_crops_is_made_anew_or_refused(damaged):
    path = damaged('crops.jsonl')
    path.write_bytes(b'{"size": 8}\n' + path.read_bytes() + b'\n')
    assert crop_folder._done(path, {'size': 8}) == {}
    assert path.read_text() == '{"size": 8}\n'


@pytest.mark.parametrize(
    'harm', [lambda data: data[:-30], lambda data: data.replace(b'stamps', b'stamqs'), lambda _: b'PK']
)
def test_damaged_digests_are_made_anew(tmp_path, monkeypatch, harm):
    monkeypatch.setenv('FER_JAX_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(files, 'MIN_NEW_FILES', 1)
    images = tmp_path / 'images'
    images.mkdir()
    (images / 'a.png').write_bytes(b'x')
    first = files.open_files(images, np.array(['a.png']))[0]
    (kept,) = (tmp_path / 'cache' / 'digests').iterdir()
    kept.write_bytes(harm(kept.read_bytes()))
    assert np.array_equal(files.open_files(images, np.array(['a.png']))[0], first)


def test_a_file_is_as_it_was_or_as_it_is_to_be(tmp_path, monkeypatch):
    path = tmp_path / 'config.json'
    atomic_files.write_text(path, 'old')

    def killed(*_):
        raise KeyboardInterrupt

    for function in ('fsync', 'replace', 'rename'):
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(os, function, killed)
            atomic_files.write_text(path, 'new')
            raise KeyboardInterrupt  # rename is not what pathlib calls
        assert path.read_text() in ('old', 'new')
    atomic_files.write_text(path, 'new')
    assert path.read_text() == 'new' and list(tmp_path.iterdir()) == [path]
