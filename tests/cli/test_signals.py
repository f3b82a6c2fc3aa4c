import os
import signal

import pytest

from protembed.cli.signals import leave_tidily, stop_on_signals


@pytest.mark.promise(3)
@pytest.mark.parametrize(("number", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGUSR1", 143)])
def test_the_first_signal_asks_to_stop_and_the_second_leaves(number, status):
    with stop_on_signals() as stop:
        stop.is_awaited = True
        assert not stop()
        os.kill(os.getpid(), signal.Signals[number])
        assert stop()
        assert stop.status == status
        with pytest.raises(SystemExit) as left:
            os.kill(os.getpid(), signal.Signals[number])
    assert left.value.code == status


def test_the_earlier_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)

    with stop_on_signals():
        assert signal.getsignal(signal.SIGTERM) is not before

    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.promise(3)
def test_before_the_first_step_a_signal_leaves_at_once():
    with stop_on_signals(), pytest.raises(SystemExit) as left:
        os.kill(os.getpid(), signal.SIGUSR1)

    assert left.value.code == 143


@pytest.mark.promise(3)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_termination_or_its_early_warning_unwinds_the_stack(number):
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        leave_tidily()
        with pytest.raises(SystemExit) as left:
            os.kill(os.getpid(), number)
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)

    assert left.value.code == 143
