"""How many steps a program takes."""

import time

import jax
import pytest

from fer_jax.data.loading import batch_loop
from fer_jax.distributed import processes
from fer_jax.training import multi_step
from fer_jax.training.multi_step import StepsPerCall

UP_TO_60 = {'last': 60, 'ends': {23: 1.0, 60: 2.0}, 'every': 25}


def taken(pace, step=0):
    """Where each program begins, to the end of the phase."""
    begun = []
    while step < 60:
        begun.append(step)
        step += pace.count(step)
        pace.took(step - begun[-1], jax.numpy.zeros(()))
    return begun


def test_programs_end_where_something_is_recorded():
    assert taken(StepsPerCall(features=True, **UP_TO_60)) == [0, 10, 20, 23, 25, 35, 45, 50]
    assert taken(StepsPerCall(features=True, **UP_TO_60), step=41) == [41, 50]


def test_of_images_the_first_program_takes_one_step_the_next_as_many_as_take_ten_seconds(monkeypatch):
    assert multi_step.rows(features=False) == 4
    now = 0.0
    monkeypatch.setattr(time, 'perf_counter', lambda: now)
    pace = StepsPerCall(features=False, **UP_TO_60)
    counts, step = [], 0
    for seconds in (30.0, 3.0, 9.0, 0.1, 0.1):  # of each program: the first one compiles
        counts.append(pace.count(step))
        now += seconds
        step += counts[-1]
        pace.took(counts[-1], jax.numpy.zeros(()))
    assert counts == [1, 1, 3, 3, 4]


@pytest.mark.parametrize(('backend', 'count'), [('gpu', 1), ('cpu', 2)])
def test_of_images_accelerators_and_several_processes_are_given_one_batch(monkeypatch, backend, count):
    monkeypatch.setattr(jax, 'default_backend', lambda: backend)
    monkeypatch.setattr(processes, 'count', lambda: count)
    assert (multi_step.rows(features=False), multi_step.rows(features=True)) == (1, 10)
    assert batch_loop.of_images() == (1 if backend == 'gpu' else 4)
