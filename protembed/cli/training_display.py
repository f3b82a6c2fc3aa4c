"""The course of a training: a live panel on a terminal, plain lines elsewhere."""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table

if TYPE_CHECKING:
    from protembed.training.loop import StepReport

_SECONDS_BETWEEN_LINES = 30.0
_REFRESHES_PER_SECOND = 4
_LARGEST_EXPONENT = 700.0


class EveryHalfMinute:
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
        self._clock = EveryHalfMinute()
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

    def advance(self, report: "StepReport") -> None:
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

    def _panel(self, report: "StepReport") -> Panel:
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
        return duration(pace * (self._num_steps - step))


def duration(seconds: float) -> str:
    """Spell a time.

    >>> duration(3725), duration(61)
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
