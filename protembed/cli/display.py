"""What people see: progress and sentences on stderr, a machine-readable summary on stdout."""

import dataclasses
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from protembed.config import ShowConfig
from protembed.errors import ProtembedError
from protembed.files import printable

if TYPE_CHECKING:
    from protembed.training.loop import StepReport

_SECONDS_BETWEEN_LINES = 30.0
_INTERRUPTED, _BROKEN_PIPE, _FAILED = 130, 141, 1


class Display:
    """Shows a command's course and its result.

    Args:
        show: what is wanted.
        data_on_stdout: whether stdout carries data, so that the machine-readable summary must go elsewhere.
    """

    def __init__(self, show: ShowConfig, *, data_on_stdout: bool = False) -> None:
        self._show, self._data_on_stdout = show, data_on_stdout
        self._console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)

    @property
    def is_live(self) -> bool:
        """Whether a bar can move: on a terminal that is to be used."""
        return self._console.is_terminal and not self._show.quiet

    def say(self, sentence: str) -> None:
        """Print a line, unless the user asked for quiet."""
        if not self._show.quiet:
            self._console.print(printable(sentence))

    def warn(self, sentences: Sequence[str]) -> None:
        """Print warnings; quiet does not silence them."""
        for sentence in sentences:
            self._console.print(f"warning: {printable(sentence)}")

    def summary(self, summary: Any, *lines: str) -> None:
        """Print what came of a command: a few lines, and on request the whole summary as JSON."""
        for line in lines:
            self.say(line)
        if self._show.json:
            text = json.dumps({name: _plain(value) for name, value in dataclasses.asdict(summary).items()})
            print(text, file=sys.stderr if self._data_on_stdout else sys.stdout)

    @contextmanager
    def counting(self, what: str) -> Iterator["Counter"]:
        """Count proteins and residues as they are computed: a live line on a terminal, else one every half minute."""
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=self._console, disable=not self.is_live, transient=True) as bar:
            counter = Counter(self, bar, what)
            yield counter

    @contextmanager
    def stepping(self) -> Iterator["Stepper"]:
        """Show the steps of a training: a live bar on a terminal, else a line every half minute."""
        columns = (
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console, disable=not self.is_live, transient=True) as bar:
            yield Stepper(self, bar)


class _EveryHalfMinute:
    def __init__(self) -> None:
        self._last = time.monotonic()

    def is_due(self) -> bool:
        """Tell whether half a minute has passed since this was last true."""
        if time.monotonic() - self._last < _SECONDS_BETWEEN_LINES:
            return False
        self._last = time.monotonic()
        return True


class Counter:
    """Counts what the engine finishes; `advance` is told of each protein."""

    def __init__(self, display: Display, bar: Progress, what: str) -> None:
        self._display, self._bar, self._what = display, bar, what
        self._task = bar.add_task(what, total=None)
        self._began, self._clock = time.monotonic(), _EveryHalfMinute()
        self._num_proteins = self._num_residues = 0

    def advance(self, num_residues: int) -> None:
        """Count a protein."""
        self._num_proteins += 1
        self._num_residues += num_residues
        if self._display.is_live:
            self._bar.update(self._task, description=self._sentence())
        elif self._clock.is_due():
            self._display.say(self._sentence())

    def _sentence(self) -> str:
        rate = self._num_residues / max(time.monotonic() - self._began, 1e-9)
        return f"{self._what}: {self._num_proteins:,} proteins, {self._num_residues:,} residues, {rate:,.0f} residues/s"


class Stepper:
    """Shows the steps of a training; the loss is a running mean, the time left follows the recent pace."""

    def __init__(self, display: Display, bar: Progress) -> None:
        self._display, self._bar = display, bar
        self._clock = _EveryHalfMinute()
        self._loss: float | None = None
        self._rate: float | None = None

    def begin(self, num_steps: int, first_step: int) -> None:
        """Take in how many steps there are, and how many were taken in an earlier run."""
        self._num_steps, self._first_step = num_steps, first_step
        self._task = self._bar.add_task("", total=num_steps, completed=first_step)
        self._began = time.monotonic()

    def advance(self, report: "StepReport") -> None:
        """Take a step in, and show it when it is time."""
        self._loss = _running(self._loss, report.train_loss)
        self._rate = _running(self._rate, report.residues_per_second)
        loss = "no loss yet" if self._loss is None else f"loss {self._loss:.3f}"
        place, course = f"step {report.step:,} of {self._num_steps:,}", f"{loss}, {self._rate:,.0f} residues/s"
        if self._display.is_live:
            self._bar.update(self._task, completed=report.step, description=course)
        elif self._clock.is_due():
            self._display.say(f"{place}: {course}, {self._time_left(report.step)} left")
        if report.validation is not None:
            self._display.say(f"{place}: {_describe(report.validation)}")

    def _time_left(self, step: int) -> str:
        pace = (time.monotonic() - self._began) / max(step - self._first_step, 1)
        minutes, seconds = divmod(round(pace * (self._num_steps - step)), 60)
        return f"{minutes} min {seconds:02d} s"


def _describe(validation: Mapping[str, float]) -> str:
    loss = validation["valid_loss"]
    if "valid_perplexity" not in validation:
        return f"validation loss {loss:.4f}"
    return (
        f"validation loss {loss:.4f}, perplexity {validation['valid_perplexity']:.2f} "
        f"(unigram {validation['unigram_perplexity']:.2f}, bigram {validation['bigram_perplexity']:.2f})"
    )


def _running(mean: float | None, value: float | None) -> float | None:
    if value is None or mean is None:
        return mean if value is None else value
    return 0.95 * mean + 0.05 * value


@contextmanager
def reported_errors() -> Iterator[None]:
    """End the process with one sentence and the documented status where something went wrong on purpose.

    Unknown exceptions pass with their traceback: they are our mistakes.
    """
    try:
        yield
        sys.stdout.flush()
    except ProtembedError as error:
        print(f"protembed: {printable(str(error))}", file=sys.stderr)
        raise typer.Exit(error.exit_status) from None
    except KeyboardInterrupt:
        raise typer.Exit(_INTERRUPTED) from None
    except BrokenPipeError:
        _give_up_stdout()
        raise typer.Exit(_BROKEN_PIPE) from None
    except OSError as error:
        if error.filename is not None:
            raise
        _give_up_stdout()
        print(f"protembed: <stdout> could not be written ({error.strerror})", file=sys.stderr)
        raise typer.Exit(_FAILED) from None


def _give_up_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush does not fail a second time."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
