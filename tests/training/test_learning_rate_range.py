"""The learning-rate range test: what it suggests, and what it refuses."""

import numpy as np
import pytest

from fer_jax.config.check import plain_config
from fer_jax.config.files import get_config
from fer_jax.errors import UserError
from fer_jax.training import learning_rate_range
from fer_jax.training.learning_rate_range import RangeTest


def test_a_tenth_of_the_rate_of_the_least_loss_is_suggested_and_drawn(tmp_path):
    rates = np.geomspace(1e-5, 1, 51)
    result = RangeTest(1, rates, 1 + (np.log10(rates) + 2) ** 2)
    assert result.lowest == pytest.approx(1e-2) and result.suggestion == pytest.approx(1e-3)
    assert RangeTest(0, rates, rates).suggestion == 1e-5
    learning_rate_range.plot(tmp_path / 'plot.png', result)
    assert (tmp_path / 'plot.png').read_bytes().startswith(b'\x89PNG')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'phase': 2}, '--find_lr=2: the config has 2 phases, counted from 0'),
        ({'low': 1, 'high': 0.1}, 'expected 0 < low < high and 10 steps or more'),
    ],
)
def test_a_mistake_is_one_message(options, message):
    with pytest.raises(UserError, match=message):
        learning_rate_range.find_learning_rate(plain_config(get_config('quickstart')), **options)


@pytest.mark.slow
def test_the_rate_rises_and_the_loss_diverges(faces, tmp_path, capsys):
    from tests.small_run import config_of

    config = config_of(faces)
    plain = config.to_dict() | {'data': config.data.to_dict()}
    plain['phases'] = [phase.to_dict() for phase in config.phases]
    result = learning_rate_range.find_learning_rate(plain, phase=0, steps=30, low=1e-3, high=1e4)
    assert result.phase == 0 and 10 <= len(result.rates) <= 30
    np.testing.assert_allclose(result.rates[:2], [1e-3, 1e-3 * 1e7 ** (1 / 29)])
    assert result.losses[-1] > 2 * result.losses.min()
