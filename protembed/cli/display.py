"""What users see: progress and messages on stderr, a machine-readable summary on stdout."""

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

from protembed.config.base import with_flags
from protembed.config.common import DEFAULT_MODEL, ConsoleConfig, ModelConfig
from protembed.errors import OutputError, PeerProcessError, ProtembedError
from protembed.text import pluralize, printable

_SECONDS_BETWEEN_LINES = 30.0
_REFRESHES_PER_SECOND = 4
_LARGEST_EXPONENT = 700.0


class StepReport(Protocol):
    """What the training loop reports after each step; see `protembed.training.loop.StepReport`."""

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
    """Limits plain lines to one every half minute."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def is_due(self) -> bool:
        """Return whether half a minute has passed since this was last true."""
        if time.monotonic() - self._last < _SECONDS_BETWEEN_LINES:
            return False
        self._last = time.monotonic()
        return True


class TrainingDisplay:
    """A context manager that shows the steps of a training; loss and speed are running means.

    Args:
        console: The console of the live panel.
        say: A function that prints a line.
        is_live: Whether a panel can be drawn: on a terminal, unless --quiet.
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
        # An error of a closed terminal must not replace the one that is raised.
        with suppress(OSError):
            self._live.stop()

    def begin(self, num_steps: int, first_step: int, *, shows_perplexity: bool = True) -> None:
        """Start with a number of steps, of which an interrupted run has taken the first ones."""
        self._num_steps, self._first_step = num_steps, first_step
        self._shows_perplexity = shows_perplexity
        self._loss = self._rate = None
        self._validation = "not yet validated"
        self._began = time.monotonic()

    def advance(self, report: StepReport) -> None:
        """Show a step when it is due."""
        self._num_steps = report.num_steps
        self._loss = _running(self._loss, report.train_loss)
        self._rate = _running(self._rate, report.residues_per_second)
        step = f"step {report.step:,} of {self._num_steps:,}"
        if report.validation is not None:
            self._validation = describe_validation(report.validation)
            self._say(f"{step}: {self._validation}")
        if self._is_live:
            self._live.update(self._panel(report))
        elif self._clock.is_due():
            self._say(f"{step}: {self._progress()}, {self._time_left(report.step)} left")

    def _progress(self) -> str:
        if self._loss is None:
            return f"no loss yet, {self._rate:,.0f} residues/s"
        perplexity = f" (perplexity {math.exp(min(self._loss, _LARGEST_EXPONENT)):.2f})"
        return f"loss {self._loss:.3f}{perplexity if self._shows_perplexity else ''}, {self._rate:,.0f} residues/s"

    def _panel(self, report: StepReport) -> Panel:
        facts = Table.grid(padding=(0, 2))
        facts.add_row("step", f"{report.step:,} of {self._num_steps:,}, {self._time_left(report.step)} left")
        facts.add_row("training", self._progress())
        facts.add_row("validation", self._validation)
        facts.add_row("seen", f"{report.num_residues:,} residues; learning rate {report.learning_rate:.2e}")
        rows = Table.grid(expand=True)
        rows.add_row(ProgressBar(self._num_steps, report.step))
        rows.add_row(facts)
        return Panel(rows, title="training", title_align="left")

    def _time_left(self, step: int) -> str:
        seconds_per_step = (time.monotonic() - self._began) / max(step - self._first_step, 1)
        return format_duration(seconds_per_step * (self._num_steps - step))


def format_duration(seconds: float) -> str:
    """Format a duration.

    >>> format_duration(3725), format_duration(61)
    ('1 h 02 min', '1 min 01 s')
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {rest:02d} s"


def describe_validation(metrics: Mapping[str, float]) -> str:
    """Describe the metrics of each validation set, with the perplexities of the baselines in parentheses."""
    names = dict.fromkeys(key.rpartition("/")[0] for key in metrics)
    return "; ".join(_describe_set(name, metrics) for name in names)


def _describe_set(name: str, metrics: Mapping[str, float]) -> str:
    values = {key.rpartition("/")[2]: value for key, value in metrics.items() if key.rpartition("/")[0] == name}
    loss = f"{name or 'validation'} loss {values['valid_loss']:.4f}"
    if "valid_perplexity" not in values:
        return loss
    baselines = ", ".join(
        f"{key.removesuffix('_perplexity')} {value:.2f}"
        for key, value in values.items()
        if key.endswith("_perplexity") and key != "valid_perplexity"
    )
    return f"{loss}, perplexity {values['valid_perplexity']:.2f} ({baselines})"


def _running(mean: float | None, value: float | None) -> float | None:
    if value is None or mean is None:
        return mean if value is None else value
    return 0.95 * mean + 0.05 * value


_INTERRUPTED, _BROKEN_PIPE, _FAILED = 130, 141, 1
# Errors that any path can meet on any machine; another error with a path is a bug in protembed.
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
    """Shows the progress and the result of a command.

    Args:
        show: The options of the console.
        data_on_stdout: Whether stdout carries data; the machine-readable summary goes to stderr then.
    """

    def __init__(self, show: ConsoleConfig, *, data_on_stdout: bool = False) -> None:
        # Of the processes that torchrun starts, only the first prints.
        self._show = show if is_first_process() else ConsoleConfig(quiet=True)
        self._data_on_stdout = data_on_stdout
        self._console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)

    @property
    def is_live(self) -> bool:
        """Whether live progress can be drawn: on a terminal, unless --quiet."""
        return self._console.is_terminal and not self._show.quiet

    def say(self, sentence: str) -> None:
        """Print a line, unless the user asked for quiet."""
        if not self._show.quiet:
            self._console.print(printable(sentence))

    def announce_model(self, config: ModelConfig) -> None:
        """Print which model is used if none was named, and where larger ones are listed."""
        if config.model is None:
            self.say(f"using the bundled model {DEFAULT_MODEL} (small); `protembed models` lists larger ones")

    def announce_download(self, config: ModelConfig) -> None:
        """Print that a model on the hub may have to be downloaded."""
        from protembed.model.catalog import hub_name

        name = hub_name(config.model)
        if name is not None:
            self.say(f"downloading {name} from the Hugging Face hub, unless it is in the cache")

    def warn(self, sentences: Sequence[str]) -> None:
        """Print warnings, even with --quiet."""
        if not is_first_process():
            return
        for sentence in sentences:
            self._console.print(f"warning: {printable(sentence)}")

    def summary(self, summary: Any, *lines: str) -> None:
        """Print the result of a command in a few lines, and with --json the whole summary as JSON."""
        for line in lines:
            self.say(line)
        if self._show.json:
            text = json.dumps(_plain(dataclasses.asdict(summary)))
            print(text, file=sys.stderr if self._data_on_stdout else sys.stdout)

    @contextmanager
    def progress(self, what: str, thing: str = "protein", part: str = "residue") -> Iterator["ProgressCounter"]:
        """Count proteins and residues as they are computed: a live line on a terminal, else one every half minute.

        Args:
            what: What is done with them, as in `embedded`.
            thing: The noun of what is counted.
            part: The noun of its parts, by which progress is measured.
        """
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=self._console, disable=not self.is_live, transient=True) as bar:
            counter = ProgressCounter(self, bar, what, thing, part)
            yield counter

    @contextmanager
    def resume_hint(self, counter: "ProgressCounter") -> Iterator[None]:
        """Print how to resume when the command is interrupted."""
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            if counter.num_proteins and not self._data_on_stdout:
                saved = pluralize(counter.num_proteins, "more protein")
                are = "is" if counter.num_proteins == 1 else "are"
                self.say(f"interrupted: {saved} {are} saved; run the same command to resume")
            raise

    @contextmanager
    def training_progress(self) -> Iterator["TrainingDisplay"]:
        """Show the steps of a training: a live panel on a terminal, else a line every half minute."""
        with TrainingDisplay(self._console, self.say, is_live=self.is_live) as steps:
            yield steps


class ProgressCounter:
    """Counts the proteins that the engine has finished.

    Attributes:
        num_proteins: Proteins finished so far.
    """

    def __init__(self, display: Display, bar: Progress, what: str, thing: str, part: str) -> None:
        self._display, self._bar, self._what, self._thing, self._part = display, bar, what, thing, part
        self._task = bar.add_task(what, total=None)
        self._began, self._clock = time.monotonic(), Throttle()
        self.num_proteins = self._num_residues = 0
        self._expected: int | None = None

    def expect(self, num_residues: int) -> None:
        """Set the number of residues to come."""
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
    """Return whether this is the only process, or the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def exit_on_errors() -> Iterator[None]:
    """End the process with one sentence and the documented status on an error that protembed raises.

    Unknown exceptions pass with their traceback, because they are bugs.
    """
    try:
        yield
        sys.stdout.flush()
    except ProtembedError as error:
        # What stopped one process stops the others too: those print nothing more.
        if is_first_process() or not isinstance(error, PeerProcessError):
            print(f"protembed: {printable(with_flags(error))}", file=sys.stderr)
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
        print(f"protembed: cannot write <stdout> ({error.strerror})", file=sys.stderr)
        raise typer.Exit(_FAILED) from None


def _redirect_stdout_to_null() -> None:
    """Redirect stdout to the null device, so that the interpreter's last flush does not fail a second time."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value
