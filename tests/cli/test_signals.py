import os
import signal

import pytest

from protembed.cli.process import STATUS_OF_SIGNAL, exit_on_signals, stop_on_signals


@pytest.mark.promise(3)
@pytest.mark.parametrize(
    ("number", "status"),
    [("SIGINT", 130), *((name, 143) for name in ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP"))],
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


@pytest.fixture
def same_handlers_after():
    """Restore the handlers of all signals after the test."""
    before = {number: signal.getsignal(number) for number in STATUS_OF_SIGNAL}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("same_handlers_after")
@pytest.mark.parametrize("number", STATUS_OF_SIGNAL)
def test_a_signal_that_the_parent_process_ignores_stays_ignored(number):
    signal.signal(number, signal.SIG_IGN)  # as nohup and shells do, for a terminal that closes, or for background jobs
    exit_on_signals()

    with stop_on_signals() as stop:
        stop.is_awaited = True
        os.kill(os.getpid(), number)
        assert not stop()

    assert signal.getsignal(number) == signal.SIG_IGN


@pytest.mark.usefixtures("same_handlers_after")
def test_a_time_limit_that_warns_every_second_counts_as_one_signal():
    with stop_on_signals() as stop:
        stop.is_awaited = True
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGXCPU)
        assert stop.status == 143
        with pytest.raises(SystemExit):
            os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGXCPU)

    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    exit_on_signals()
    with pytest.raises(SystemExit) as left:
        os.kill(os.getpid(), signal.SIGXCPU)
    os.kill(os.getpid(), signal.SIGXCPU)
    assert left.value.code == 143


WARNINGS = [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGXCPU]


@pytest.mark.promise(3)
@pytest.mark.usefixtures("same_handlers_after")
@pytest.mark.parametrize("number", WARNINGS)
def test_termination_or_its_early_warning_unwinds_the_stack(number):
    exit_on_signals()

    with pytest.raises(SystemExit) as left:
        os.kill(os.getpid(), number)

    assert left.value.code == 143
