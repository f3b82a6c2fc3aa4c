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
from protembed.cli.messages import validation_text
from protembed.text import format_duration, format_loss, format_percent, format_perplexity, pluralize

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
        self._began = self._moved = self._last_line = time.monotonic()
        self.num_finished = self._amount = self._computed = 0
        self._stage: str | None = None
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
        self._expected = amount
        self._began = self._moved = time.monotonic()

    def begin_stage(self, name: str) -> None:
        """Begin with a stage that is not a training, and count from 0."""
        self._stage, self._expected, self._report = name, None, None
        self.num_finished = self._amount = self._computed = 0
        self._began = self._moved = time.monotonic()

    def compute(self, amount: int) -> None:
        """Count residues that are computed, but belong to no finished protein yet."""
        self._computed += amount
        self._moved = time.monotonic()
        self._say_when_due(self._counts)

    def advance(self, amount: int) -> None:
        """Count a finished protein or crop."""
        if self._report is not None:  # what is computed after a training is counted from 0
            self.begin_stage(self._stage or "")
        self.num_finished += 1
        self._amount += amount
        self._computed = self._amount
        self._moved = time.monotonic()
        self._say_when_due(self._counts)

    def begin_training(
        self, first_step: int = 0, *, name: str = "", shows_perplexity: bool = True, is_adjusted: bool = False
    ) -> None:
        """Begin with a training.

        Args:
            first_step: Number of steps that an interrupted run has taken.
            name: Name of this stage of a fine-tuning.
            shows_perplexity: Whether the loss is that of masked residues.
            is_adjusted: Whether the number of steps is adjusted while the run lasts.
        """
        self.begin_stage(name)
        self._first_step, self._shows_perplexity, self._is_adjusted = first_step, shows_perplexity, is_adjusted
        self._loss: float | None = None
        self._rate: float | None = None
        self._validation = "none yet"

    def step(self, report: StepReport) -> None:
        """Count a step of the training."""
        self._report, self._moved = report, time.monotonic()
        # That behind <mask>, where it is known, because it can be compared with the validation loss beside it.
        loss = report.train_loss if report.mask_token_loss is None else report.mask_token_loss
        self._loss = _running_mean(self._loss, loss)
        self._rate = _running_mean(self._rate, report.residues_per_second)
        if report.validation is not None:
            self._validation = validation_text(report.validation)
            self._say(f"step {self._steps(report)}: {self._validation}")
        self._say_when_due(
            lambda: f"step {self._steps(report)}: {self._training_text()}; {self._step_time(report)}",
        )

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
        elapsed = format_duration(time.monotonic() - self._began)
        amount = min(self._computed, self._expected or self._computed)
        if not amount:
            return f"{self._stage or 'starting'}: {elapsed}"
        rate = amount / max(self._moved - self._began, 1e-9)
        what = f"{self._stage}: {self._what}" if self._stage else self._what
        finished = f"{pluralize(self.num_finished, self._noun)}, " if self.num_finished else ""
        counts = f"{finished}{pluralize(amount, self._part)}"
        done = f"{what}: {counts}, {rate:,.0f} {self._part}s/s; {elapsed}"
        if not self._expected:
            return done
        if amount == self._expected:  # what follows, such as figures and renaming, is not counted
            return f"{done}, finishing"
        return f"{done}, {format_percent(amount / self._expected)}{self._time_left(amount, self._expected)}"

    def _training_text(self) -> str:
        if self._loss is None:
            return f"no loss yet, {self._rate:,.0f} residues/s"
        loss, rate = f"loss {format_loss(self._loss)}", f"{self._rate:,.0f} residues/s"
        if not self._shows_perplexity:
            return f"{loss}, {rate}"
        perplexity = math.exp(min(self._loss, _LARGEST_EXPONENT))
        return f"{loss} (perplexity {format_perplexity(perplexity)}), {rate}"

    def _panel(self, report: StepReport) -> Panel:
        facts = Table.grid(padding=(0, 2))
        facts.add_row("step", f"{self._steps(report)}; {self._step_time(report)}")
        facts.add_row("training", self._training_text())
        facts.add_row("validation", self._validation.removeprefix("validation "))
        facts.add_row("seen", f"{report.num_residues:,} residues; learning rate {report.learning_rate:.2e}")
        rows = Table.grid(expand=True)
        rows.add_row(ProgressBar(report.num_steps, report.step))
        rows.add_row(facts)
        return Panel(rows, title=self._stage or "training", title_align="left")

    def _steps(self, report: StepReport) -> str:
        return f"{report.step:,} of {'about ' if self._is_adjusted else ''}{report.num_steps:,}"

    def _step_time(self, report: StepReport) -> str:
        left = self._time_left(report.step - self._first_step, report.num_steps - self._first_step)
        return f"{format_duration(time.monotonic() - self._began)}{left}"

    def _time_left(self, done: int, total: int) -> str:
        """Estimate the time left from the pace of the pieces that are done; nothing while too few are."""
        if done < max(total * _MIN_FRACTION_FOR_ESTIMATE, 1):
            return ""
        waited = time.monotonic() - self._moved  # for the next piece
        seconds = (self._moved - self._began) / done * (total - done) - waited
        return f", about {format_duration(max(seconds, 0))} left"


def _running_mean(mean: float | None, value: float | None) -> float | None:
    if value is None or mean is None:
        return mean if value is None else value
    return 0.95 * mean + 0.05 * value
