"""What a long task reports to its caller while it runs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


def _ignore(*values: object) -> None:
    """Do nothing."""


def _never() -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """The report of one step.

    Attributes:
        step: Steps taken, this one included.
        num_steps: Steps of the whole run, according to the current schedule.
        num_residues: Residues seen in the whole run.
        train_loss: Mean over the step's targets; None if there was none or the step was skipped.
        validation: Metrics after this step, including `valid_loss`; None if it was not validated.
        is_best: Whether `valid_loss` is the lowest so far.
    """

    step: int
    num_steps: int
    num_residues: int
    train_loss: float | None
    learning_rate: float
    residues_per_second: float
    validation: Mapping[str, float] | None = None
    is_best: bool = False

    def log_line(self) -> dict[str, Any]:
        """Convert the report to a line of `metrics.jsonl`."""
        return {
            "step": self.step,
            "residues": self.num_residues,
            "train_loss": self.train_loss,
            "learning_rate": self.learning_rate,
            "residues_per_second": round(self.residues_per_second, 1),
            **(self.validation or {}),
        }


@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """Functions that a task calls while it runs; each does nothing by default.

    Attributes:
        on_plan: Receives the plan of the task before the work begins.
        on_warning: Receives a sentence for the user.
        on_start: Receives the amount of work: the residues, or for scores the tokens, that are to be computed.
        on_progress: Receives the amount of each finished piece: the residues of a protein, or the tokens of a crop.
        on_stage: Receives the name of each stage of a fine-tuning, the number of steps if it is a training, else None,
            and the number of these steps that an earlier run has taken.
        on_step: Receives the report of each step of a training.
        stop: Returns whether to save the training and stop; called after each step.
    """

    on_plan: Callable[[Any], None] = _ignore
    on_warning: Callable[[str], None] = _ignore
    on_start: Callable[[int], None] = _ignore
    on_progress: Callable[[int], None] = _ignore
    on_stage: Callable[[str, int | None, int], None] = _ignore
    on_step: Callable[[StepReport], None] = _ignore
    stop: Callable[[], bool] = _never
