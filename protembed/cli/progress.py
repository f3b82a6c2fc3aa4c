"""How far a task is: a live line or panel on a terminal, else a line every half minute."""

import math
import time
from collections.abc import Callable
from contextlib import suppress

from rich.console import Console, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table

from protembed.callbacks import StepReport
from protembed.cli.messages import format_duration, format_percent, validation_text
from protembed.text import pluralize

SECONDS_BETWEEN_LINES = 30.0
_REFRESHES_PER_SECOND = 4
_LARGEST_EXPONENT = 700.0
# The first pieces take longer than the others, because threads start and memory is allocated.
_MIN_FRACTION_FOR_ESTIMATE = 0.01


class Progress:
    """Shows what a task computes: the number of proteins, or the steps of a training with their running mean loss.

    Args:
        console: Console of the live display.
        say: Function that prints a line.
        is_live: Whether a live display can be drawn.
        what: What is done, as in `embedded`.
        noun: Noun of what is counted.
        part: Noun of its parts, by which progress is measured.

    Attributes:
        num_finished: Proteins finished so far.
    """

    def __init__(
        self, console: Console, say: Callable[[str], None], *, is_live: bool, what: str, noun: str, part: str
    ) -> None:
        self._say, self._is_live = say, is_live
        self._what, self._noun, self._part = what, noun, part
        self._spinner = Spinner("dots")
        self._began = self._last_line = time.monotonic()
        self.num_finished = self._amount = 0
        self._expected: int | None = None
        self._report: StepReport | None = None
        self._live = Live(
            console=console, get_renderable=self._drawn, refresh_per_second=_REFRESHES_PER_SECOND, transient=True
        )

    def __enter__(self) -> "Progress":
        if self._is_live:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        # An error of a closed terminal must not replace the one that is raised.
        with suppress(OSError):
            self._live.stop()

    def expect(self, amount: int) -> None:
        """Set the amount of work to come, in residues or tokens."""
        self._expected, self._began = amount, time.monotonic()

    def advance(self, amount: int) -> None:
        """Count a finished protein or crop."""
        self.num_finished += 1
        self._amount += amount
        self._report = None
        self._say_when_due(self._counts)

    def begin_training(self, first_step: int = 0, *, shows_perplexity: bool = True) -> None:
        """Begin with a training, of which an interrupted run has taken the first steps."""
        self._first_step, self._shows_perplexity = first_step, shows_perplexity
        self._loss: float | None = None
        self._rate: float | None = None
        self._validation = "not yet validated"
        self._training_began = time.monotonic()

    def step(self, report: StepReport) -> None:
        """Count a step of the training."""
        self._report = report
        self._loss = _running_mean(self._loss, report.train_loss)
        self._rate = _running_mean(self._rate, report.residues_per_second)
        if report.validation is not None:
            self._validation = validation_text(report.validation)
            self._say(f"{_step_text(report)}: {self._validation}")
        self._say_when_due(lambda: f"{_step_text(report)}: {self._training_text()}{self._step_time_left(report)}")

    def _say_when_due(self, sentence: Callable[[], str]) -> None:
        if not self._is_live and time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            self._say(sentence())

    def _drawn(self) -> RenderableType:
        """Draw the live display."""
        if self._report is not None:
            return self._panel(self._report)
        line = Table.grid(padding=(0, 1))
        line.add_row(self._spinner, self._counts())
        return line

    def _counts(self) -> str:
        seconds = max(time.monotonic() - self._began, 1e-9)
        counts = f"{pluralize(self.num_finished, self._noun)}, {pluralize(self._amount, self._part)}"
        done = f"{self._what}: {counts}, {self._amount / seconds:,.0f} {self._part}s/s; {format_duration(seconds)}"
        if not self._expected:
            return done
        percent = format_percent(self._amount / self._expected)
        return f"{done}, {percent}{_time_left(seconds, self._amount, self._expected)}"

    def _training_text(self) -> str:
        if self._loss is None:
            return f"no loss yet, {self._rate:,.0f} residues/s"
        perplexity = f" (perplexity {math.exp(min(self._loss, _LARGEST_EXPONENT)):.2f})"
        return f"loss {self._loss:.3f}{perplexity if self._shows_perplexity else ''}, {self._rate:,.0f} residues/s"

    def _panel(self, report: StepReport) -> Panel:
        facts = Table.grid(padding=(0, 2))
        facts.add_row("step", f"{_step_text(report).removeprefix('step ')}{self._step_time_left(report)}")
        facts.add_row("training", self._training_text())
        facts.add_row("validation", self._validation)
        facts.add_row("seen", f"{report.num_residues:,} residues; learning rate {report.learning_rate:.2e}")
        rows = Table.grid(expand=True)
        rows.add_row(ProgressBar(report.num_steps, report.step))
        rows.add_row(facts)
        return Panel(rows, title="training", title_align="left")

    def _step_time_left(self, report: StepReport) -> str:
        seconds = time.monotonic() - self._training_began
        return _time_left(seconds, report.step - self._first_step, report.num_steps - self._first_step)


def _time_left(seconds: float, done: int, total: int) -> str:
    """Estimate the time left from the pace so far; nothing while too little is done."""
    if done < max(total * _MIN_FRACTION_FOR_ESTIMATE, 1):
        return ""
    return f", about {format_duration(seconds / done * (total - done))} left"


def _step_text(report: StepReport) -> str:
    return f"step {report.step:,} of {report.num_steps:,}"


def _running_mean(mean: float | None, value: float | None) -> float | None:
    if value is None or mean is None:
        return mean if value is None else value
    return 0.95 * mean + 0.05 * value
