"""Names that README and docs showed lead to where they are now, and say so."""

from importlib import import_module

import numpy as np
import pytest

import fer_jax
import fer_jax.models
import fer_jax.pretrained


@pytest.mark.parametrize(
    ('old', 'new'),
    [
        ('checkpoints.Checkpoints', 'runs.checkpoints'),
        ('checkpoints.read_spec', 'runs.model_file'),
        ('predict.Predictor', 'inference.predictor'),
        ('predict.load', 'inference.predictor'),
        ('photographs.look', 'inference.face_pipeline'),
        ('data.faces.detector', 'data.imaging.faces'),
    ],
)
def test_an_old_public_name_leads_to_the_new_one(old, new):
    module, _, name = old.rpartition('.')
    with pytest.warns(DeprecationWarning, match=f'fer_jax.{old} is fer_jax.{new}.{name} now'):
        found = getattr(import_module(f'fer_jax.{module}'), name)
    assert found is getattr(import_module(f'fer_jax.{new}'), name)


def test_another_name_is_none():
    with pytest.raises(AttributeError, match="module 'fer_jax.predict' has no attribute 'nothing'"):
        _ = import_module('fer_jax.predict').nothing


def test_documented_names_stay():
    assert fer_jax.models.create('resnet8_small', classes=3)(np.zeros((1, 32, 32, 3), np.float32))['primary'].shape == (
        1,
        3,
    )
    assert {'convert', 'fill', 'load', 'resolve', 'save', 'Weights', 'Preprocessing'} <= set(dir(fer_jax.pretrained))
    assert callable(fer_jax.train) and callable(fer_jax.load) and callable(fer_jax.create_model)
