import os
import signal

import pytest

from fer_jax.signals import STOP, stop_request


@pytest.mark.parametrize('number', STOP)
def test_the_first_signal_asks(number):
    before = signal.getsignal(number)
    with stop_request() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop and stop.name == number.name
    assert signal.getsignal(number) is before


def test_a_second_interrupt_insists():
    with pytest.raises(KeyboardInterrupt), stop_request():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
