"""Heads on frozen features, against scikit-learn and each against itself alone."""

import json

import numpy as np
import pytest

import fer_jax
from configs import probe as probe_config
from fer_jax.errors import UserError
from fer_jax.feature_cache import store as feature_store
from fer_jax.training import probe
from tests.data.images import link_ck48

FIELDS = {'learning_rates': (1e-2, 3e-2), 'weight_decays': (0.0, 0.5), 'seeds': (0, 1), 'epochs': 3, 'batch_size': 32}


@pytest.fixture(scope='module')
def data():
    """Three classes, 90 examples in two views, ten features, standardised."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 3, 90)
    x = draw.normal(size=(2, 90, 10)) + 1.5 * np.eye(3, 10)[labels]
    mean, std = probe.moments(x)
    return ((x - mean) / std).astype(np.float32), labels


def test_moments_are_those_of_all_views(data):
    draw = np.random.default_rng(1)
    x = (draw.normal(size=(2, 50, 4)) * [1, 10, 0, 3] + [5, -2, 7, 0]).astype(np.float32)
    mean, std = probe.moments(x)
    np.testing.assert_allclose(mean, x.reshape(-1, 4).mean(0), rtol=1e-5)
    np.testing.assert_allclose(std, np.where(x.reshape(-1, 4).std(0) > 0, x.reshape(-1, 4).std(0), 1), rtol=1e-5)


@pytest.mark.parametrize('strength', [1e-3, 1.0])
def test_ridge_is_scikit_learns(data, strength):
    linear = pytest.importorskip('sklearn.linear_model')
    x, labels = data
    rows, targets = x.reshape(-1, 10), np.tile(np.eye(3)[labels], (2, 1))
    expected = linear.Ridge(alpha=strength * len(rows)).fit(rows, targets)
    (head,) = probe.ridge(x, labels, 3, [strength])
    np.testing.assert_allclose(head['kernel'], expected.coef_.T, atol=1e-5)
    np.testing.assert_allclose(head['bias'], expected.intercept_, atol=1e-5)


def test_a_head_of_the_grid_is_what_it_would_be_alone(data):
    heads = probe.trained(*data, 3, FIELDS)
    assert len(heads) == 8
    for head in heads[::3]:
        what = head['what']
        single = {'learning_rates': (what['learning_rate'],), 'weight_decays': (what['weight_decay'],)}
        (alone,) = probe.trained(*data, 3, FIELDS | single | {'seeds': (what['seed'],)})
        np.testing.assert_allclose(head['kernel'], alone['kernel'], atol=1e-5)
    kernels = np.stack([head['kernel'] for head in heads])
    assert np.abs(kernels[:, None] - kernels[None]).max((2, 3))[~np.eye(8, dtype=bool)].min() > 1e-4


def test_training_finds_what_logistic_regression_does(data):
    linear = pytest.importorskip('sklearn.linear_model')
    x, labels = data
    fields = {'learning_rates': (0.05,), 'weight_decays': (0.0,), 'seeds': (0,), 'epochs': 300, 'batch_size': 90}
    (head,) = probe.trained(x[:1], labels, 3, fields)
    expected = linear.LogisticRegression(C=1e6, max_iter=5000).fit(x[0], labels).predict_proba(x[0])
    logits = x[0] @ head['kernel'] + head['bias']
    found = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert np.abs(found - expected).mean() < 0.02


@pytest.fixture
def config(shared_data, tmp_path):
    link_ck48(shared_data, tmp_path / 'faces', ('happy', 'surprise', 'anger'), 20)
    config = probe_config.get_config()
    config.model.image_size = 32
    config.parallel.devices = 0
    config.data.update({'name': '', 'dir': str(tmp_path / 'faces'), 'batch_size': 16})
    config.probe.update({'stages': ('blocks1', 'blocks2'), 'epochs': 4, 'mirror': False})
    config.probe.update({'learning_rates': (1e-3, 1e-2), 'weight_decays': (0.1, 1.0)})
    return config


@pytest.mark.slow
def test_a_probe_picks_on_validation_and_leaves_what_it_promises(config, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(feature_store.cache, 'root', lambda: tmp_path / 'cache')
    results = fer_jax.train(config, tmp_path / 'run')
    assert json.loads((tmp_path / 'run' / 'results.json').read_text()) == results
    assert len(results['grid']) == 8 and results['features'] == 9 * (24 + 40)
    best = max(one['accuracy'] for one in results['grid'])
    assert results['pick']['accuracy'] == best == results['splits']['validation']['accuracy'] > 0.5
    assert results['splits']['test']['n'] == 9
    assert 'Linear-probe grid' in (tmp_path / 'run' / 'report.html').read_text()
    for name in ('grid.png', 'confusion_test.png', 'config.json', 'environment.json'):
        assert (tmp_path / 'run' / name).stat().st_size > 0
    assert 'heads on 576 features' in capsys.readouterr().out
    monkeypatch.setattr(feature_store, '_fill', None)  # a second grid computes no features
    config.probe.update({'ridge': (10.0,), 'learning_rates': (1e38, 1e-2)})  # the first diverges, and loses
    again = fer_jax.train(config, tmp_path / 'second')
    assert again['grid'][0]['strength'] == 10
    assert [one['accuracy'] for one in again['grid'] if one.get('learning_rate') == 1e38] == [0, 0]
    assert again['pick'].get('learning_rate') != 1e38


@pytest.mark.parametrize(
    ('fields', 'said'),
    [
        ({'stages': ('blocks9',)}, r"probe.stages: 'blocks9' is no stage below the head; there are stem, blocks0"),
        ({'stages': ('head',)}, r"probe.stages: 'head' is no stage"),
        ({'seeds': ()}, r'probe.seeds=\[\]; expected a list of whole numbers from 0 to .*, not empty'),
        ({'pool': 0}, r'probe.pool=0; expected a whole number from 1'),
    ],
)
def test_what_a_probe_cannot_do_is_said(config, tmp_path, fields, said):
    config.probe.update(fields)
    with pytest.raises(UserError, match=said):
        fer_jax.train(config, tmp_path / 'run')


def test_a_probe_does_not_select_on_likelihood(config, tmp_path):
    config.checkpoint.select = 'validation/nll'
    with pytest.raises(UserError, match="checkpoint.select='validation/nll': a probe compares ridge heads"):
        fer_jax.train(config, tmp_path / 'run')
