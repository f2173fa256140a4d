"""Runs from a config to their results, on real faces."""

import json

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import fer_jax
from configs import default, repeat
from fer_jax.runs import results as run_results
from tests.lazy import lazy
from tests.small_run import config_of

special = lazy('scipy.special')


def test_a_run_leaves_what_it_promises(finished):
    workdir, results = finished
    assert json.loads((workdir / 'results.json').read_text()) == results
    assert results['selected_on'] == 'validation/accuracy'
    assert results['splits']['test']['n'] == 12 and len(results['phases']) == 2
    part = run_results.read_predictions(workdir / 'predictions.npz', 'test')
    scaled = part['logits'] / results['calibrated']['temperature']
    shares = special.log_softmax(scaled.astype(np.float64), axis=1)[np.arange(12), part['labels']]
    assert results['calibrated']['splits']['test']['nll'] == pytest.approx(-shares.mean())
    for name in ('curves.png', 'confusion_test.png', 'confusion_validation.png', 'parameters.txt', 'timing.jsonl'):
        assert (workdir / name).stat().st_size > 0
    assert list((workdir / 'tensorboard').iterdir())
    environment = json.loads((workdir / 'environment.json').read_text())
    assert environment['versions']['jax'] == jax.__version__ and len(environment['data']['fingerprint']) == 64
    assert environment['data']['faces'].keys() == {'grey'}  # no log tells how they were cut out
    config = json.loads((workdir / 'config.json').read_text())
    assert config['phases'][1]['optimizer'] == 'sgd'
    records = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    assert {record['split'] for record in records} == {'train', 'validation'}
    assert [record['step'] for record in records if record['split'] == 'validation'] == [5, 9, 13]
    assert not any('second' in key for record in records for key in record)
    table = (workdir / 'parameters.txt').read_text()
    assert 'frozen' in table and 'train x 1' in table


def test_a_run_is_repeated_from_its_config(finished):
    workdir, _ = finished
    again = json.loads(repeat.get_config(str(workdir)).to_json())
    assert again == json.loads((workdir / 'config.json').read_text())
    assert isinstance(repeat.get_config(str(workdir)).phases[0], ConfigDict)
    with pytest.raises(ValueError, match='give the folder of a run'):
        repeat.get_config('nowhere')


@pytest.mark.slow
@pytest.mark.parametrize('target', ['probability', 'cross_entropy', 'multi_target'])
def test_votes_are_trained_on(faces, tmp_path, target):
    """A manifest with votes and weights, classes taken in turn: the loss falls, the labels are scored."""
    names = ('happy', 'surprise', 'anger')
    lines = ['path,weight,' + ','.join(f'p_{name}' for name in names)]
    for label, name in enumerate(names):
        for number, path in enumerate(sorted((faces / name).iterdir())):
            votes = [2] * 3
            votes[label] = 6
            lines.append(f'{path},{1 + number % 2},' + ','.join(map(str, votes)))
    (tmp_path / 'votes.csv').write_text('\n'.join(lines))
    config = config_of(faces)
    config.data.update({'dir': '', 'manifest': str(tmp_path / 'votes.csv'), 'target': target, 'balance': 'classes'})
    config.loss.name = 'multi_target' if target == 'multi_target' else 'cross_entropy'
    config.phases = (default.phase(epochs=6, learning_rate=1e-3),)
    results = fer_jax.train(config, tmp_path / 'run')
    assert results['splits']['validation']['n'] == 12 and len(results['classes']) == 3
    records = [json.loads(line) for line in (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()]
    losses = [record['loss'] for record in records if record['split'] == 'train']
    half = len(losses) // 2
    assert np.mean(losses[half:]) < np.mean(losses[:half])
