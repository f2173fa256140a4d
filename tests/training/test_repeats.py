"""Seeds and folds as one unit."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs import default
from fer_jax.errors import UserError
from fer_jax.evaluation import score_logits
from fer_jax.training import repeats
from fer_jax.utils.signals import Stopped
from tests.command import call_main
from tests.lazy import lazy

stats = lazy('scipy.stats')

REPOSITORY = Path(__file__).parents[2]


def made_up(seed):
    """The results of a run whose scores depend on its seed."""
    labels = np.arange(30) % 2
    logits = np.random.default_rng(seed).normal(size=(30, 2)).astype(np.float32)
    splits = {'test': score_logits.score_logits(logits, labels, ('happy', 'sad'))}
    return {'selected_on': 'validation/accuracy', 'step': 5, 'classes': ['happy', 'sad'], 'splits': splits}


@pytest.fixture
def trained(monkeypatch):
    """Names of the runs that were trained, in order; 'seed-1' is stopped once."""
    names, left = [], ['seed-1']

    def train(config, workdir):
        if workdir.name in left:
            left.remove(workdir.name)
            raise Stopped('stopped by SIGTERM')
        names.append(workdir.name)
        workdir.mkdir(parents=True, exist_ok=True)
        results = made_up(config['seed'])
        (workdir / 'config.json').write_text(json.dumps(config))
        (workdir / 'results.json').write_text(json.dumps(results))
        (workdir / 'report.html').touch()
        return results

    monkeypatch.setattr(repeats, 'train', train)
    return names


def test_seeds_are_pooled_and_the_same_call_goes_on(trained, tmp_path, capsys):
    config = {'seed': 0, 'log_every': 1, 'phases': [{'epochs': 1}]}
    with pytest.raises(Stopped):
        repeats.train_seeds(config, [0, 1, 2], tmp_path)
    assert not (tmp_path / 'results.json').exists()
    results = repeats.train_seeds(config, [0, 1, 2], tmp_path)
    assert trained == ['seed-0', 'seed-1', 'seed-2']
    assert json.loads((tmp_path / 'results.json').read_text()) == results
    assert 'href="seed-2/report.html"' in (tmp_path / 'report.html').read_text()
    each = [made_up(seed)['splits']['test']['accuracy'] for seed in range(3)]
    test = results['splits']['test']
    expected = stats.t.interval(0.95, 2, np.mean(each), stats.sem(each))
    assert test['each']['accuracy'] == each and test['accuracy'] == pytest.approx(np.mean(each))
    np.testing.assert_allclose(test['accuracy_ci95'], expected)
    assert "Student's t over seeds" in capsys.readouterr().out
    repeats.train_seeds({**config, 'phases': [{'epochs': 2}]}, [0, 1], tmp_path)  # longer
    assert trained[3:] == ['seed-0', 'seed-1']
    with pytest.raises(UserError, match='seed-2 holds a run of another config'):
        repeats.train_seeds({**config, 'phases': [{'epochs': 0}]}, [2, 3], tmp_path)
    with pytest.raises(UserError, match='at least two'):
        repeats.train_seeds(config, [1, 1], tmp_path)


def test_an_interval_of_a_share_is_one_of_a_share():
    runs = [{'n': 10, 'accuracy': share, 'nll': 0.1 * share} for share in (0.8, 1.0)]
    pooled = score_logits.average_seeds(runs)
    assert pooled['accuracy_ci95'] == [0.0, 1.0] and pooled['nll_ci95'][0] < 0


def test_folds_pool_the_splits_that_there_are(monkeypatch, tmp_path):
    def train(config, workdir):
        fold, labels = config['data']['fold'], np.arange(4) % 2
        logits = np.eye(2, dtype=np.float32)[labels if fold else 1 - labels]
        workdir.mkdir(parents=True)
        ids, subjects = np.array([f'{fold}/{at}' for at in range(4)]), np.full(4, '')
        arrays = {'ids': ids, 'labels': labels, 'subjects': subjects, 'groups': subjects, 'logits': logits}
        np.savez(workdir / 'predictions.npz', **{f'validation/{name}': array for name, array in arrays.items()})
        splits = {'validation': score_logits.score_logits(logits, labels, ('happy', 'sad'))}
        return {'selected_on': 'validation/accuracy', 'step': 5, 'classes': ['happy', 'sad'], 'splits': splits}

    monkeypatch.setattr(repeats, 'train', train)
    config = {'data': {'folds': 3, 'splits': {'train': 'train', 'validation': 'validation', 'test': ''}}}
    splits = repeats.train_folds(config, tmp_path)['splits']
    assert list(splits) == ['validation'] and splits['validation']['n'] == 12
    assert splits['validation']['accuracy'] == 8 / 12 and splits['validation']['each']['accuracy'] == [0, 1, 1]
    with pytest.raises(UserError, match='which a probe does not keep'):
        repeats.train_folds({**config, 'probe': {}}, tmp_path / 'probe')


def test_average_precision_is_pooled_where_there_are_attributes():
    noise, labels = np.random.default_rng(0), np.eye(2, dtype=np.float32)[np.arange(20) % 2]
    runs = [score_logits.score_logits(noise.normal(size=(20, 2)), labels, ('AU1', 'AU2')) for _ in range(3)]
    pooled = score_logits.average_seeds(runs)
    assert pooled['average_precision'] == pytest.approx(np.mean([run['average_precision'] for run in runs]))
    assert len(pooled['average_precision_ci95']) == 2


@pytest.fixture
def people(tmp_path):
    """Two classes of noise from 9 people, 4 images each."""
    noise = np.random.default_rng(0)
    for at, name in enumerate(('happy', 'sad')):
        (tmp_path / 'faces' / name).mkdir(parents=True)
        for person in range(9):
            for take in range(2):
                pixels = noise.integers(0, 100, (32, 32), np.uint8) + np.uint8(100 * at)
                Image.fromarray(pixels).save(tmp_path / 'faces' / name / f'S{person}_{take}.png')
    return tmp_path / 'faces'


@pytest.mark.slow
def test_every_example_is_scored_once_in_its_own_fold(people, tmp_path, capsys):
    config = default.get_config()
    config.model.update({'name': 'resnet8_small', 'weights': 'scratch', 'image_size': 32, 'channels': 1})
    config.data.update({'name': '', 'dir': str(people), 'subject': 'S[0-9]', 'folds': 3, 'batch_size': 12})
    config.data.placement = 'stream'
    config.phases = (default.phase(epochs=2, rates=default.HEAD_ONLY, learning_rate=1e-2),)
    plain = json.loads(config.to_json())
    workdir = tmp_path / 'runs'
    results = repeats.train_folds(plain, workdir)
    parts = [np.load(workdir / f'fold-{fold}' / 'predictions.npz') for fold in range(3)]
    ids = np.concatenate([part['test/ids'] for part in parts])
    assert sorted(ids) == sorted(str(path.relative_to(people)) for path in people.rglob('*.png'))
    hits = sum((part['test/logits'].argmax(1) == part['test/labels']).sum() for part in parts)
    test = results['splits']['test']
    assert test['n'] == 36 and test['accuracy'] == hits / 36 and test['interval'] == 'by_subject'
    assert np.mean(test['each']['accuracy']) == pytest.approx(hits / 36)  # folds of one size
    assert (workdir / 'confusion_test.png').exists() and 'by subject, beta-binomial' in capsys.readouterr().out
    written = [(workdir / f'fold-{fold}' / 'results.json').stat().st_mtime_ns for fold in range(3)]
    assert repeats.train_folds(plain, workdir) == results
    assert written == [(workdir / f'fold-{fold}' / 'results.json').stat().st_mtime_ns for fold in range(3)]
    with pytest.raises(UserError, match='config.data.folds=10'):
        repeats.train_folds({**plain, 'data': {**plain['data'], 'folds': 0}}, workdir)


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (['--seeds=0,x'], "'x' is no whole number"),
        (['--seeds=1'], 'at least two'),
        (['--seeds=0,1', '--folds=all'], 'give one of them'),
        (['--folds=all'], 'config.data.folds=10'),
    ],
)
def test_wrong_flags_are_one_message(flags, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY)
    done = call_main(capsys, '--config=configs/quickstart.py', f'--workdir={tmp_path}', *flags)
    assert done.returncode == 2 and message in done.stderr and 'Traceback' not in done.stderr
