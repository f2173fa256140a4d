import os
import signal
import time

import pytest

from fer_jax.utils import threads
from fer_jax.utils.signals import STOP, Stopped, stop_request


@pytest.fixture(autouse=True)
def hangups_are_heard():
    """Also where the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def test_a_terminal_that_is_closed_stops_a_run_but_not_under_nohup():
    assert signal.SIGHUP in STOP
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stop_request() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not stop
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


@pytest.mark.parametrize('number', STOP)
def test_a_signal_stops_at_once_where_nothing_waits(number):
    before = signal.getsignal(number)
    with pytest.raises(Stopped, match=f'stopped by {number.name}, nothing is lost'), stop_request():
        os.kill(os.getpid(), number)
        raise AssertionError('not reached')
    assert signal.getsignal(number) is before


@pytest.mark.parametrize('number', STOP)
def test_a_signal_asks_where_a_step_is_waited_for(number):
    done = []
    with pytest.raises(Stopped), stop_request() as stop, stop.waiting():
        assert not stop
        os.kill(os.getpid(), number)
        assert stop and stop.name == number.name
        done.append('the step')
    assert done


def test_a_stop_is_no_damage_to_a_reader():
    with pytest.raises(Stopped), stop_request():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Exception as error:
            raise ValueError('this file is damaged') from error


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
def test_a_stop_that_was_lost_in_a_destructor_is_remembered():
    class Late:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)

    def begin(stop):
        with stop.waiting():
            raise AssertionError('not reached')

    with pytest.raises(Stopped), stop_request() as stop:
        late = Late()
        del late
        begin(stop)


def test_a_second_interrupt_insists():
    with pytest.raises(KeyboardInterrupt), stop_request() as stop, stop.waiting():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)


def test_threads_that_read_data_do_not_hold_a_stop_up():
    taken = []

    def slow(number):
        taken.append(number)
        time.sleep(0.05)

    with pytest.raises(Stopped), stop_request(), threads.threads() as pool:
        for _ in pool.map(slow, range(1000)):
            os.kill(os.getpid(), signal.SIGTERM)
    assert len(taken) < 1000
