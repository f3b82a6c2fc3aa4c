"""Signals: long runs finish their step and save; everything else leaves tidily, and at once if asked twice."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TextIO

INTERRUPTED, TERMINATED = 130, 143
# A lost terminal, and a scheduler's early warning (SLURM, LSF: SIGUSR1; SGE: SIGUSR2; a limit of seconds: SIGXCPU), end
# a run like its termination would.
STATUS_OF_SIGNAL = {
    signal.SIGINT: INTERRUPTED,
    **dict.fromkeys(
        (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGXCPU),
        TERMINATED,
    ),
}


class StopFlag:
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
def stop_on_signals() -> Iterator[StopFlag]:
    """Turn the first signal into a request; a second one leaves, and a third does not wait for what is tidied up."""
    request = StopFlag()
    leave = _ExitHandler()

    def receive(number: int, frame: FrameType | None) -> None:
        if request.status is not None or not request.is_awaited:
            leave(number, frame)
        request.status = STATUS_OF_SIGNAL[signal.Signals(number)]

    # nohup has SIGHUP ignored: the run outlives its terminal.
    survives_hangup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    heeded = [number for number in STATUS_OF_SIGNAL if number != signal.SIGHUP or not survives_hangup]
    before = {number: signal.signal(number, receive) for number in heeded}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _ExitHandler:
    """Unwinds the stack at the first signal, so that temporary files are removed, and ends the process at the next."""

    def __init__(self) -> None:
        self._is_leaving = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        status = STATUS_OF_SIGNAL[signal.Signals(number)]
        if self._is_leaving:
            os._exit(status)
        self._is_leaving = True
        raise SystemExit(status)


def restore_default_sigint() -> None:
    """Let an interrupt end the process without a word, as long as there is nothing to tidy up."""
    # Whoever started it in the background may have it ignored; that stays so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def exit_on_signals() -> None:
    """Unwind the stack on an interrupt, a termination, a lost terminal, or a scheduler's warning."""
    leave = _ExitHandler()
    for number in STATUS_OF_SIGNAL:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, leave)


def exit_process(status: int) -> None:
    """End the process; who was interrupted does not wait for matrix products in other threads."""
    if status in (INTERRUPTED, TERMINATED) and threading.active_count() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    raise SystemExit(status)


def default_sigpipe() -> None:
    """Let a reader of stdout that leaves end the program by SIGPIPE, as it ends others; help leaves nothing to tidy."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def ignore_sigpipe() -> None:
    """Let a reader of stdout that leaves be an error of writing, as Python has it: a command has files to tidy up."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)


class BestEffortStream:
    """A stream that drops what cannot be written: its reader has left, or its disk is full.

    Args:
        stream: all else is asked of it.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text, or drop it."""
        try:
            return self._stream.write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        """Flush what was written, or drop it."""
        try:
            self._stream.flush()
        except OSError:
            return

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
