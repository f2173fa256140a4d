"""A loaded run."""

import json

import numpy as np
import pytest

import fer_jax
from fer_jax.training import setup
from tests.small_run import config_of


def test_a_loaded_run_answers_as_the_evaluation_does(finished, faces):
    workdir, results = finished
    predictor = fer_jax.load(workdir)
    assert predictor.classes == ('angry', 'happy', 'surprise')
    config = json.loads(config_of(faces).to_json())
    split = setup.prepare(config).data.splits['test']
    probabilities = predictor(split.read(np.arange(len(split.labels))))
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-5)
    assert np.mean(probabilities.argmax(-1) == split.labels) == results['splits']['test']['accuracy']
    one = split.read(np.array([0]))[0]
    np.testing.assert_allclose(predictor(one), predictor(one[None, ..., 0]), rtol=1e-6)
    with pytest.raises(ValueError, match='expected uint8 images'):
        predictor(one.astype(np.float32))
