"""Which steps `--profile` traces, and what it says of them."""

import jax
import numpy as np
import pytest

from fer_jax.training.profiler import Window


@pytest.mark.parametrize(
    ('steps', 'message'),
    [
        ([1] * 30, 'steps 6 to 15 of this process'),
        ([10, 10, 10], 'steps 11 to 20 of this process'),
        ([1] * 8, 'steps 6 to 8 of this process'),
        ([1] * 3, 'no step was traced: this process took 3, of which the first 5 are left out'),
        ([10], 'no step was traced: this process took 10, of which the first 10 are left out'),
    ],
)
def test_what_is_said_is_what_is_traced(tmp_path, monkeypatch, steps, message):
    said, events, taken = [], [], 0
    monkeypatch.setattr(jax.profiler, 'start_trace', lambda folder: events.append(taken))
    monkeypatch.setattr(jax.profiler, 'stop_trace', lambda: events.append(taken))
    window = Window(tmp_path, said.append)
    for count in steps:
        taken += count
        window.stepped(count, np.zeros(1))
    window.close()
    assert len(said) == 1 and message in said[0]
    if 'steps' in message:
        assert f'steps {events[0] + 1} to {events[1]} ' in said[0]
