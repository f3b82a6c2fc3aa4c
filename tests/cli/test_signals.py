import os
import signal

import pytest

from protembed.cli.process import exit_on_signals, stop_on_signals


@pytest.mark.promise(3)
@pytest.mark.parametrize(
    ("number", "status"),
    [("SIGINT", 130), *((name, 143) for name in ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGXCPU"))],
)
def test_first_signal_requests_a_stop_and_the_second_exits(number, status):
    with stop_on_signals() as stop:
        stop.is_awaited = True
        assert not stop()
        os.kill(os.getpid(), signal.Signals[number])
        assert stop()
        assert stop.status == status
        with pytest.raises(SystemExit) as left:
            os.kill(os.getpid(), signal.Signals[number])
    assert left.value.code == status


def test_earlier_signal_handlers_are_restored():
    before = signal.getsignal(signal.SIGTERM)

    with stop_on_signals():
        assert signal.getsignal(signal.SIGTERM) is not before

    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.promise(3)
def test_signal_before_the_first_step_exits_at_once():
    with stop_on_signals(), pytest.raises(SystemExit) as left:
        os.kill(os.getpid(), signal.SIGUSR1)

    assert left.value.code == 143


def test_run_under_nohup_survives_its_terminal():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signals() as stop:
            stop.is_awaited = True
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop()
    finally:
        signal.signal(signal.SIGHUP, before)


WARNINGS = [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGXCPU]


@pytest.mark.promise(3)
@pytest.mark.parametrize("number", WARNINGS)
def test_termination_or_its_early_warning_unwinds_the_stack(number):
    before = {one: signal.getsignal(one) for one in WARNINGS}
    try:
        exit_on_signals()
        with pytest.raises(SystemExit) as left:
            os.kill(os.getpid(), number)
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)

    assert left.value.code == 143
