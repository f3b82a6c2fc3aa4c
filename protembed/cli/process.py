"""How the process behaves: signals, errors, exit statuses, closed streams.

On a signal long runs finish their step and save; all else cleans up and exits. A second signal exits at once. Signals
that the parent process ignores, as `nohup` and shells do for background jobs, stay ignored.
"""

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, TextIO

from protembed.config.base import with_flags
from protembed.errors import InputNotFoundError, OutputError, PeerProcessError, ProtembedError, ResourceError
from protembed.io.writing import check_temporary_directory
from protembed.resources import available_memory, environment_number, is_out_of_memory
from protembed.text import format_bytes, printable

INTERRUPTED, TERMINATED = 130, 143
_BROKEN_PIPE, _FAILED = 141, 1
# A lost terminal, and a scheduler's early warning (SLURM, LSF: SIGUSR1; SGE: SIGUSR2; a limit of seconds: SIGXCPU), end
# a run like its termination would.
STATUS_OF_SIGNAL = {
    signal.SIGINT: INTERRUPTED,
    **dict.fromkeys((signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGXCPU), TERMINATED),
}
# Errors that any path can meet on any machine; another error with a path is a bug in protembed.
_ENVIRONMENT_ERRNOS = (
    errno.ENAMETOOLONG,
    errno.EACCES,
    errno.EPERM,
    errno.ELOOP,
    errno.EIO,
    errno.ESTALE,
    errno.EMFILE,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
)


class StopFlag:
    """Whether a signal has requested the run to stop; the training loop checks it after each step.

    Attributes:
        status: The exit status of the signal; None as long as there was none.
        is_awaited: Whether the loop is running. Before its first step there is nothing to save, and a signal exits.
    """

    def __init__(self) -> None:
        self.status: int | None = None
        self.is_awaited = False

    def __call__(self) -> bool:
        """Return whether to stop."""
        return self.status is not None

    def exit_unless(self, is_finished: bool) -> None:
        """Exit with the status of the signal, unless there was none or the run has finished nevertheless."""
        if self.status is not None and not is_finished:
            raise SystemExit(self.status)


@contextmanager
def stop_on_signals() -> Iterator[StopFlag]:
    """Turn the first signal into a request; a second one exits, and a third does not wait for the clean-up."""
    request = StopFlag()
    exit_on_signal = _ExitHandler()

    def receive(number: int, frame: FrameType | None) -> None:
        if request.status is not None or not request.is_awaited:
            exit_on_signal(number, frame)
        request.status = STATUS_OF_SIGNAL[signal.Signals(number)]
        _ignore_repetitions(number)

    before = {number: signal.signal(number, receive) for number in _heeded_signals()}
    try:
        yield request
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is receive:  # and not ignored since
                signal.signal(number, handler)


def _heeded_signals() -> list[signal.Signals]:
    """List the signals that end a command, without those that its parent process ignores."""
    return [number for number in STATUS_OF_SIGNAL if signal.getsignal(number) != signal.SIG_IGN]


def _ignore_repetitions(number: int) -> None:
    """Ignore further warnings of a time limit: Linux sends one every second, and only the first one is a request."""
    if number == signal.SIGXCPU:
        signal.signal(number, signal.SIG_IGN)


class _ExitHandler:
    """Unwinds the stack at the first signal, so that temporary files are removed, and ends the process at the next."""

    def __init__(self) -> None:
        self._is_exiting = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        status = STATUS_OF_SIGNAL[signal.Signals(number)]
        if self._is_exiting:
            os._exit(status)
        self._is_exiting = True
        _ignore_repetitions(number)
        raise SystemExit(status)


def exit_on_signals() -> None:
    """Unwind the stack on an interrupt, a termination, a lost terminal, or a scheduler's warning."""
    exit_on_signal = _ExitHandler()
    for number in _heeded_signals():
        signal.signal(number, exit_on_signal)


def exit_process(status: int) -> None:
    """End the process; on Ctrl-C, do not wait for running matrix products."""
    if status in (INTERRUPTED, TERMINATED) and threading.active_count() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    raise SystemExit(status)


class BestEffortStream:
    """A stderr that drops what cannot be written, because its reader has exited or its disk is full."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text, or drop it on an error."""
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, ignoring errors."""
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def is_first_process() -> bool:
    """Return whether this is the only process, or the first of those that torchrun started.

    A script may set RANK for its own purposes; it counts beside WORLD_SIZE alone.
    """
    return environment_number("WORLD_SIZE", 1) == 1 or environment_number("RANK", 0) == 0


def check_current_directory() -> None:
    """Check that the current directory exists; in one that was removed, torch and MKL end in obscure errors.

    Raises:
        InputNotFoundError: It was removed.
    """
    try:
        os.getcwd()
    except FileNotFoundError:
        raise InputNotFoundError(".", "the current directory was removed", "change to one that exists") from None


def print_error(sentence: str, error: Exception, status: int) -> None:
    """Print an error as one sentence on stderr."""
    print(f"protembed: {sentence}", file=sys.stderr)


@contextmanager
def _temporary_file_errors() -> Iterator[None]:
    """Explain the errors of torch and matplotlib on a machine on which no temporary file can be written."""
    try:
        yield
    except OSError as error:
        if error.errno in (None, errno.ENOENT):
            check_temporary_directory()
        raise


@contextmanager
def exit_on_errors(report: Callable[[str, Exception, int], None] = print_error) -> Iterator[None]:
    """End the process with one sentence and the documented status on an error that protembed raises.

    Unknown exceptions pass with their traceback, because they are bugs.

    Args:
        report: Function that prints the sentence of an error, given the error and the exit status too.
    """
    try:
        with _temporary_file_errors():
            yield
            sys.stdout.flush()
    except ProtembedError as error:
        # What stopped one process stops the others too: those print nothing more.
        if is_first_process() or not isinstance(error, PeerProcessError):
            report(printable(with_flags(error)), error, error.exit_status)
        if isinstance(error, OutputError) and error.path == "<stdout>":
            redirect_stdout_to_null()
        raise SystemExit(error.exit_status) from None
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except BrokenPipeError:
        redirect_stdout_to_null()
        raise SystemExit(_BROKEN_PIPE) from None
    except (MemoryError, ImportError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        shortage = ResourceError(f"memory ran out ({format_bytes(available_memory())} may be used); ask for more")
        report(str(shortage), shortage, shortage.exit_status)
        raise SystemExit(shortage.exit_status) from None
    except OSError as error:
        if error.errno is None:
            raise
        if error.filename is None:
            redirect_stdout_to_null()
            report(f"cannot write <stdout> ({error.strerror})", error, _FAILED)
        elif error.errno in _ENVIRONMENT_ERRNOS:
            report(f"{printable(str(error.filename))}: {error.strerror}", error, _FAILED)
        else:
            raise
        raise SystemExit(_FAILED) from None


def redirect_stdout_to_null() -> None:
    """Redirect stdout to the null device, so that the interpreter's last flush does not fail a second time."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
