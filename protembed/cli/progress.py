"""How far a task is: a live display on a terminal, else a line every half minute."""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from protembed.callbacks import StepReport
from protembed.cli.layout import join_facts
from protembed.cli.messages import describe_validation, validation_text
from protembed.cli.sparkline import LossCurve
from protembed.text import format_duration, format_loss, format_percent, format_perplexity, pluralize

SECONDS_BETWEEN_LINES = 30.0
_REFRESHES_PER_SECOND = 4
_LARGEST_EXPONENT = 700.0
# The first pieces take longer than the others, because threads start and memory is allocated.
_MIN_FRACTION_FOR_ESTIMATE = 0.01
# Columns of the panel that are neither names nor facts: its border, its padding, and the gap between the two.
_AROUND_FACTS = 6
_MAX_BAR, _MAX_CURVE, _MAX_NAME = 60, 48, 14


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
        self._console, self._say, self._is_live = console, say, is_live
        self._what, self.noun, self._part = what, noun, part
        self._spinner = Spinner("line" if console.options.ascii_only else "dots")
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

    # What the task reports

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
        self._say_when_due(self._counts_text)

    def advance(self, amount: int) -> None:
        """Count a finished protein or crop."""
        if self._report is not None:  # what is computed after a training is counted from 0
            self.begin_stage(self._stage or "")
        self.num_finished += 1
        self._amount += amount
        self._computed = self._amount
        self._moved = time.monotonic()
        self._say_when_due(self._counts_text)

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
        self._curve = LossCurve()
        self._validation: Mapping[str, float] = {}

    def step(self, report: StepReport) -> None:
        """Count a step of the training."""
        self._report, self._moved = report, time.monotonic()
        # That behind <mask>, where it is known, because it can be compared with the validation loss beside it.
        loss = report.train_loss if report.mask_token_loss is None else report.mask_token_loss
        self._loss = _running_mean(self._loss, loss)
        self._rate = _running_mean(self._rate, report.residues_per_second)
        if self._loss is not None and math.isfinite(self._loss):
            self._curve.add(self._loss)
        step = f"{f'{self._stage}, ' if self._stage else ''}step {self._steps(report)}"
        if report.validation is not None:
            self._validation = report.validation
            self._say(f"{step}: {validation_text(report.validation)}")
        self._say_when_due(
            lambda: f"{step}: {', '.join([*self._losses(), self._speed()])}; {', '.join(self._training_times(report))}"
        )

    def _say_when_due(self, sentence: Callable[[], str]) -> None:
        if not self._is_live and time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            self._say(sentence())

    # What is computed: proteins, or crops

    def _counts_text(self) -> str:
        """Describe in a line what has been computed."""
        title, counts, times = self._title(), ", ".join(self._counts()), ", ".join(self._times())
        return f"{title}: {counts}; {times}" if counts else f"{title}: {times}"

    def _title(self) -> str:
        if not self._computed:
            return self._stage or "starting"
        return f"{self._stage}: {self._what}" if self._stage else self._what

    def _counts(self) -> list[str]:
        """List how much has been computed, and how fast; nothing at the beginning."""
        amount = self._amount_so_far()
        if not amount:
            return []
        finished = [pluralize(self.num_finished, self.noun)] if self.num_finished else []
        rate = amount / max(self._moved - self._began, 1e-9)
        return [*finished, pluralize(amount, self._part), f"{rate:,.0f} {self._part}s/s"]

    def _times(self) -> list[str]:
        """List the time that has passed, the fraction of the work that is done, and the time left."""
        elapsed, amount = format_duration(time.monotonic() - self._began), self._amount_so_far()
        if not self._expected or not amount:
            return [elapsed]
        if amount == self._expected:  # what follows, such as figures and renaming, is not counted
            return [elapsed, "finishing"]
        return [elapsed, format_percent(amount / self._expected), *self._time_left(amount, self._expected)]

    def _amount_so_far(self) -> int:
        return min(self._computed, self._expected or self._computed)

    # A training

    def _losses(self) -> list[str]:
        """List the running mean of the loss, and the perplexity."""
        if self._loss is None:
            return ["no loss yet"]
        loss = f"loss {format_loss(self._loss)}"
        if not self._shows_perplexity:
            return [loss]
        return [loss, f"perplexity {format_perplexity(math.exp(min(self._loss, _LARGEST_EXPONENT)))}"]

    def _speed(self) -> str:
        return f"{self._rate:,.0f} residues/s"

    def _steps(self, report: StepReport) -> str:
        return f"{report.step:,} of {'about ' if self._is_adjusted else ''}{report.num_steps:,}"

    def _training_times(self, report: StepReport) -> list[str]:
        left = self._time_left(report.step - self._first_step, report.num_steps - self._first_step)
        return [format_duration(time.monotonic() - self._began), *left]

    def _time_left(self, done: int, total: int) -> list[str]:
        """Estimate the time left from the pace of the pieces that are done; nothing while too few are."""
        if done < max(total * _MIN_FRACTION_FOR_ESTIMATE, 1):
            return []
        waited = time.monotonic() - self._moved  # for the next piece
        seconds = (self._moved - self._began) / done * (total - done) - waited
        return [f"about {format_duration(max(seconds, 0))} left"]

    # The live display

    def _drawn(self) -> RenderableType:
        """Draw the live display."""
        return self._drawn_counts() if self._report is None else self._panel(self._report)

    def _drawn_counts(self) -> RenderableType:
        facts, width = [*self._counts(), *self._times()], self._console.width - 2
        line = Table.grid(padding=(0, 1))
        if not self._expected:
            line.add_row(self._spinner, Text(join_facts([self._title(), *facts], width)))
            return line
        bar = ProgressBar(self._expected, self._amount_so_far(), width=min(_MAX_BAR, width - len(self._title()) - 1))
        line.add_row(self._spinner, Text(self._title()), bar)
        indented = join_facts(facts, width).replace("\n", "\n  ")
        return Group(line, Text(f"  {indented}"))

    def _panel(self, report: StepReport) -> Panel:
        rows = self._panel_rows(report)
        names = [name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 1]}…" for name in rows]
        width = self._console.width - _AROUND_FACTS - max(map(len, names))
        facts = Table.grid(padding=(0, 2))
        for name, values in zip(names, rows.values(), strict=True):
            facts.add_row(Text(name), Text(join_facts(values, width)))
        bar = Table.grid(expand=True)
        bar.add_row(ProgressBar(report.num_steps, report.step))
        return Panel(Group(bar, facts), title=Text(self._stage or "training"), title_align="left")

    def _panel_rows(self, report: StepReport) -> dict[str, list[str]]:
        """List the facts of the panel by the names of its rows."""
        rows = {"step": [self._steps(report)], "time": self._training_times(report), "training": self._losses()}
        curve = "" if self._console.options.ascii_only else self._curve.draw(min(_MAX_CURVE, self._console.width // 2))
        if curve:
            rows["loss so far"] = [curve]
        rows |= describe_validation(self._validation) or {"validation": ["none yet"]}
        return {
            **rows,
            "speed": [self._speed(), f"{report.num_residues:,} residues seen"],
            "learning rate": [f"{report.learning_rate:.2g}"],
        }


def _running_mean(mean: float | None, value: float | None) -> float | None:
    if value is None or mean is None:
        return mean if value is None else value
    return 0.95 * mean + 0.05 * value
