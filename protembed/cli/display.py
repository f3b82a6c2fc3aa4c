"""What people see: progress and sentences on stderr, a machine-readable summary on stdout."""

import dataclasses
import errno
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import typer
from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress_bar import ProgressBar
from rich.table import Table

from protembed.config.common import DEFAULT_MODEL, ConsoleConfig, ModelConfig
from protembed.errors import OutputError, PeerProcessError, ProtembedError
from protembed.io.text import pluralize, printable

_SECONDS_BETWEEN_LINES = 30.0
_REFRESHES_PER_SECOND = 4
_LARGEST_EXPONENT = 700.0


class StepReport(Protocol):
    """What a training reports after each step; see `protembed.training.loop.StepReport`."""

    @property
    def step(self) -> int: ...  # noqa: D102
    @property
    def num_steps(self) -> int: ...  # noqa: D102
    @property
    def num_residues(self) -> int: ...  # noqa: D102
    @property
    def train_loss(self) -> float | None: ...  # noqa: D102
    @property
    def learning_rate(self) -> float: ...  # noqa: D102
    @property
    def residues_per_second(self) -> float: ...  # noqa: D102
    @property
    def validation(self) -> Mapping[str, float] | None: ...  # noqa: D102


class Throttle:
    """A clock for plain lines."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def is_due(self) -> bool:
        """Tell whether half a minute has passed since this was last true."""
        if time.monotonic() - self._last < _SECONDS_BETWEEN_LINES:
            return False
        self._last = time.monotonic()
        return True


class TrainingDisplay:
    """Shows the steps of a training; loss and pace are running means.

    Use as a context manager.

    Args:
        console: for the panel.
        say: prints a line.
        is_live: whether there is a terminal to draw on.
    """

    def __init__(self, console: Console, say: Callable[[str], None], *, is_live: bool) -> None:
        self._say, self._is_live = say, is_live
        self._live = Live(console=console, refresh_per_second=_REFRESHES_PER_SECOND, transient=True)
        self._clock = Throttle()
        self._loss: float | None = None
        self._rate: float | None = None
        self._validation = "not yet validated"

    def __enter__(self) -> "TrainingDisplay":
        if self._is_live:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        # A terminal that was closed must not hide why.
        with suppress(OSError):
            self._live.stop()

    def begin(self, num_steps: int, first_step: int, *, shows_perplexity: bool = True) -> None:
        """Take in how many steps a training has, how many were taken in an earlier run, and what its loss says."""
        self._num_steps, self._first_step = num_steps, first_step
        self._shows_perplexity = shows_perplexity
        self._loss = self._rate = None
        self._validation = "not yet validated"
        self._began = time.monotonic()

    def advance(self, report: StepReport) -> None:
        """Take a step in, and show it when it is time."""
        self._num_steps = report.num_steps
        self._loss = _running(self._loss, report.train_loss)
        self._rate = _running(self._rate, report.residues_per_second)
        place = f"step {report.step:,} of {self._num_steps:,}"
        if report.validation is not None:
            self._validation = describe_validation(report.validation)
            self._say(f"{place}: {self._validation}")
        if self._is_live:
            self._live.update(self._panel(report))
        elif self._clock.is_due():
            self._say(f"{place}: {self._course()}, {self._time_left(report.step)} left")

    def _course(self) -> str:
        if self._loss is None:
            return f"no loss yet, {self._rate:,.0f} residues/s"
        perplexity = f" (perplexity {math.exp(min(self._loss, _LARGEST_EXPONENT)):.2f})"
        shown = perplexity if self._shows_perplexity else ""
        return f"loss {self._loss:.3f}{shown}, {self._rate:,.0f} residues/s"

    def _panel(self, report: StepReport) -> Panel:
        facts = Table.grid(padding=(0, 2))
        facts.add_row("step", f"{report.step:,} of {self._num_steps:,}, {self._time_left(report.step)} left")
        facts.add_row("training", self._course())
        facts.add_row("validation", self._validation)
        facts.add_row("seen", f"{report.num_residues:,} residues; learning rate {report.learning_rate:.2e}")
        rows = Table.grid(expand=True)
        rows.add_row(ProgressBar(self._num_steps, report.step))
        rows.add_row(facts)
        return Panel(rows, title="training", title_align="left")

    def _time_left(self, step: int) -> str:
        pace = (time.monotonic() - self._began) / max(step - self._first_step, 1)
        return format_duration(pace * (self._num_steps - step))


def format_duration(seconds: float) -> str:
    """Spell a time.

    >>> format_duration(3725), format_duration(61)
    ('1 h 02 min', '1 min 01 s')
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {rest:02d} s"


def describe_validation(figures: Mapping[str, float]) -> str:
    """Say what a validation measured, each set by its name, beside what is to be beaten."""
    names = dict.fromkeys(key.rpartition("/")[0] for key in figures)
    return "; ".join(_describe_set(name, figures) for name in names)


def _describe_set(name: str, figures: Mapping[str, float]) -> str:
    own = {key.rpartition("/")[2]: value for key, value in figures.items() if key.rpartition("/")[0] == name}
    loss = own["valid_loss"]
    who = f"{name} loss" if name else "validation loss"
    if "valid_perplexity" not in own:
        return f"{who} {loss:.4f}"
    others = ", ".join(
        f"{key.removesuffix('_perplexity')} {value:.2f}"
        for key, value in own.items()
        if key.endswith("_perplexity") and key != "valid_perplexity"
    )
    return f"{who} {loss:.4f}, perplexity {own['valid_perplexity']:.2f} ({others})"


def _running(mean: float | None, value: float | None) -> float | None:
    if value is None or mean is None:
        return mean if value is None else value
    return 0.95 * mean + 0.05 * value


_INTERRUPTED, _BROKEN_PIPE, _FAILED = 130, 141, 1
# What a path may meet on any machine, wherever it is looked at; of other errors with a path the mistake is ours.
_ENVIRONMENT_ERRNOS = (
    errno.ENAMETOOLONG,
    errno.EACCES,
    errno.EPERM,
    errno.ELOOP,
    errno.EIO,
    errno.ESTALE,
    errno.EMFILE,
)


class Display:
    """Shows a command's course and its result.

    Args:
        show: what is wanted.
        data_on_stdout: whether stdout carries data, so that the machine-readable summary must go elsewhere.
    """

    def __init__(self, show: ConsoleConfig, *, data_on_stdout: bool = False) -> None:
        # Of the processes that torchrun starts only the first speaks.
        self._show = show if is_first_process() else ConsoleConfig(quiet=True)
        self._data_on_stdout = data_on_stdout
        self._console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)

    @property
    def is_live(self) -> bool:
        """Whether a bar can move: on a terminal that is to be used."""
        return self._console.is_terminal and not self._show.quiet

    def say(self, sentence: str) -> None:
        """Print a line, unless the user asked for quiet."""
        if not self._show.quiet:
            self._console.print(printable(sentence))

    def announce_model(self, config: ModelConfig) -> None:
        """Tell whoever named no model which one was taken, and that there are better ones."""
        if config.model is None:
            self.say(f"the model is {DEFAULT_MODEL}, the small one in the box; `protembed models` lists better ones")

    def announce_download(self, config: ModelConfig) -> None:
        """Tell whoever named a model of the hub why it may take a while."""
        from protembed.model.catalog import hub_name

        name = hub_name(config.model)
        if name is not None:
            self.say(f"{name} is fetched from the Hugging Face hub unless it is in its cache")

    def warn(self, sentences: Sequence[str]) -> None:
        """Print warnings; quiet does not silence them."""
        if not is_first_process():
            return
        for sentence in sentences:
            self._console.print(f"warning: {printable(sentence)}")

    def summary(self, summary: Any, *lines: str) -> None:
        """Print what came of a command: a few lines, and on request the whole summary as JSON."""
        for line in lines:
            self.say(line)
        if self._show.json:
            text = json.dumps(_plain(dataclasses.asdict(summary)))
            print(text, file=sys.stderr if self._data_on_stdout else sys.stdout)

    @contextmanager
    def progress(self, what: str, thing: str = "protein", part: str = "residue") -> Iterator["ProgressCounter"]:
        """Count proteins and residues as they are computed: a live line on a terminal, else one every half minute.

        Args:
            what: is done with them.
            thing: what is counted, where it is no protein.
            part: what it consists of, where that is no residue.
        """
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=self._console, disable=not self.is_live, transient=True) as bar:
            counter = ProgressCounter(self, bar, what, thing, part)
            yield counter

    @contextmanager
    def resume_hint(self, counter: "ProgressCounter") -> Iterator[None]:
        """Tell whoever interrupts a command that its finished rows are safe."""
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            if counter.num_proteins and not self._data_on_stdout:
                self.say(
                    f"interrupted; {counter.num_proteins:,} proteins more are done, the same command goes on there"
                )
            raise

    @contextmanager
    def training_progress(self) -> Iterator["TrainingDisplay"]:
        """Show the steps of a training: a live panel on a terminal, else a line every half minute."""
        with TrainingDisplay(self._console, self.say, is_live=self.is_live) as steps:
            yield steps


class ProgressCounter:
    """Counts what the engine finishes; `advance` is told of each protein.

    Attributes:
        num_proteins: finished so far.
    """

    def __init__(self, display: Display, bar: Progress, what: str, thing: str, part: str) -> None:
        self._display, self._bar, self._what, self._thing, self._part = display, bar, what, thing, part
        self._task = bar.add_task(what, total=None)
        self._began, self._clock = time.monotonic(), Throttle()
        self.num_proteins = self._num_residues = 0
        self._expected: int | None = None

    def expect(self, num_residues: int) -> None:
        """Tell how many residues there are to come."""
        self._expected, self._began = num_residues, time.monotonic()

    def advance(self, num_residues: int) -> None:
        """Count a protein."""
        self.num_proteins += 1
        self._num_residues += num_residues
        if self._display.is_live:
            self._bar.update(self._task, description=self._sentence())
        elif self._clock.is_due():
            self._display.say(self._sentence())

    def _sentence(self) -> str:
        rate = self._num_residues / max(time.monotonic() - self._began, 1e-9)
        counts = f"{pluralize(self.num_proteins, self._thing)}, {pluralize(self._num_residues, self._part)}"
        done = f"{self._what}: {counts}, {rate:,.0f} {self._part}s/s"
        if not self._expected:
            return done
        left = format_duration((self._expected - self._num_residues) / max(rate, 1e-9))
        return f"{done}; {self._num_residues / self._expected:.0%}, about {left} left"


def is_first_process() -> bool:
    """Tell whether this is the only process, or the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def exit_on_errors() -> Iterator[None]:
    """End the process with one sentence and the documented status where something went wrong on purpose.

    Unknown exceptions pass with their traceback: they are our mistakes.
    """
    try:
        yield
        sys.stdout.flush()
    except ProtembedError as error:
        # What stopped one process stops the others too: those say nothing more.
        if is_first_process() or not isinstance(error, PeerProcessError):
            print(f"protembed: {printable(str(error))}", file=sys.stderr)
        if isinstance(error, OutputError) and error.path == "<stdout>":
            _redirect_stdout_to_null()
        raise typer.Exit(error.exit_status) from None
    except KeyboardInterrupt:
        raise typer.Exit(_INTERRUPTED) from None
    except BrokenPipeError:
        _redirect_stdout_to_null()
        raise typer.Exit(_BROKEN_PIPE) from None
    except OSError as error:
        if error.errno in _ENVIRONMENT_ERRNOS and error.filename is not None:
            print(f"protembed: {printable(str(error.filename))}: {error.strerror}", file=sys.stderr)
            raise typer.Exit(_FAILED) from None
        if error.filename is not None:
            raise
        _redirect_stdout_to_null()
        print(f"protembed: <stdout> could not be written ({error.strerror})", file=sys.stderr)
        raise typer.Exit(_FAILED) from None


def _redirect_stdout_to_null() -> None:
    """Point stdout at nothing, so that the interpreter's last flush does not fail a second time."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value
