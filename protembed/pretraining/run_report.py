"""The page and the picture of a run, which are written again while it trains."""

import time
from collections.abc import Callable
from contextlib import suppress

from protembed.io.writing import write_text
from protembed.pretraining.page import pretraining_page
from protembed.pretraining.run_record import RunRecord
from protembed.report.page import render_page
from protembed.report.training_figures import draw_training
from protembed.text import pluralize
from protembed.training.run_directory import RunDirectory

# Writing takes a second or two, which must not slow the training down.
_MAX_TIME_FRACTION = 0.01
_SECONDS_BEFORE_FIRST = 60.0


class RunReport:
    """Writes `report.html` and `training.png` of a run, in its first process.

    Args:
        run: Directory of the run.
        make_record: Function that collects what they show.
    """

    def __init__(self, run: RunDirectory, make_record: Callable[[], RunRecord]) -> None:
        self._run, self._make_record = run, make_record
        self._due = time.monotonic() + _SECONDS_BEFORE_FIRST

    def refresh(self) -> None:
        """Write both, unless that would take more than a hundredth of the time; a training continues if it fails.

        Both are written at the end in any case, where a failure is an error.
        """
        started = time.monotonic()
        if started < self._due:
            return
        self.try_to_write()
        ended = time.monotonic()
        self._due = ended + (ended - started) / _MAX_TIME_FRACTION

    def try_to_write(self) -> None:
        """Write both if that is possible: nothing that a page cannot show or a disk cannot hold stops a training."""
        with suppress(Exception):
            self.write()

    def write(self) -> None:
        """Write both.

        Raises:
            OutputError: If they cannot be written.
        """
        record = self._make_record()
        title = (
            f"{record.shape.name} ({record.plan.num_parameters:,} parameters), trained on "
            f"{pluralize(record.plan.num_proteins, 'protein')} with {record.schedule.optimizer}"
        )
        draw_training(
            self._run.path("training.png"),
            record.log,
            record.gains,
            title=title,
            kept_step=record.progress.best_step,
        )
        write_text(self._run.path("report.html"), render_page(pretraining_page(record)))
