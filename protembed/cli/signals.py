"""Signals: long runs finish their step and save; everything else leaves tidily."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED, TERMINATED = 130, 143
# A scheduler's early warning ends a run like its termination would.
_STATUS = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED, signal.SIGUSR1: TERMINATED}


class StopRequest:
    """Whether a signal has asked the run to stop; asked after each step.

    Attributes:
        status: the exit status that goes with the signal; None while there was none.
        is_awaited: whether somebody asks; before the first step there is nothing to save, and a signal leaves at once.
    """

    def __init__(self) -> None:
        self.status: int | None = None
        self.is_awaited = False

    def __call__(self) -> bool:
        """Tell whether to stop."""
        return self.status is not None


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn the first signal into a request; a second one leaves at once."""
    request = StopRequest()

    def receive(number: int, frame: FrameType | None) -> None:
        if request.status is not None or not request.is_awaited:
            raise SystemExit(_STATUS[signal.Signals(number)])
        request.status = _STATUS[signal.Signals(number)]

    before = {number: signal.signal(number, receive) for number in _STATUS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave_tidily_on_termination() -> None:
    """Let a termination, or a scheduler's warning of one, unwind the stack, so that temporary files are removed."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(TERMINATED)

    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, leave)


def end_with_the_reader() -> None:
    """Let a reader of stdout that leaves end the program by SIGPIPE, as it ends others; help leaves nothing to tidy."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def outlive_the_reader() -> None:
    """Let a reader of stdout that leaves be an error of writing, as Python has it: a command has files to tidy up."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
