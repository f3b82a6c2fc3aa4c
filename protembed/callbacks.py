"""What a long task reports to its caller while it runs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

# Keys of a log line whose values differ from run to run.
MEASURED = ("time", "residues_per_second", "peak_memory_bytes")


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
        learning_rate: Learning rate of the step.
        residues_per_second: Speed of the step, without the validation after it.
        mask_token_loss: Mean over the targets that the model sees as `<mask>`, as in validation; None if there was
            none, as always in fine-tuning.
        grad_norm: Norm of the step's gradient before it is clipped; None if there was none, or it was not finite.
        peak_memory_bytes: Peak memory of this process so far, of the GPU's if it computes on one; None if unknown.
        validation: Metrics after this step, including `valid_loss`; None if it was not validated.
        is_best: Whether `valid_loss` is the lowest so far.
        time: When the step was reported, in UTC.
    """

    step: int
    num_steps: int
    num_residues: int
    train_loss: float | None
    learning_rate: float
    residues_per_second: float
    mask_token_loss: float | None = None
    grad_norm: float | None = None
    peak_memory_bytes: int | None = None
    validation: Mapping[str, float] | None = None
    is_best: bool = False
    time: datetime = field(default_factory=lambda: datetime.now(UTC), compare=False)

    def log_line(self) -> dict[str, Any]:
        """Convert the report to a line of `metrics.jsonl`."""
        return {
            "step": self.step,
            "residues": self.num_residues,
            "time": self.time.isoformat(timespec="milliseconds"),
            "train_loss": self.train_loss,
            **({} if self.mask_token_loss is None else {"mask_token_loss": self.mask_token_loss}),
            "learning_rate": self.learning_rate,
            "grad_norm": self.grad_norm,
            "residues_per_second": round(self.residues_per_second, 1),
            "peak_memory_bytes": self.peak_memory_bytes,
            **(self.validation or {}),
        }


@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """Functions that a task calls while it runs; each does nothing by default.

    Attributes:
        on_plan: Receives the plan of the task before the work begins.
        on_warning: Receives a sentence for the user about what may be wrong.
        on_note: Receives a sentence for the user about what was done besides.
        on_start: Receives the amount of work: the residues, for scores the tokens, for a search the queries, and for a
            map the steps that are to be computed.
        on_computed: Receives the amount of each piece that is computed but not yet saved, for a smooth display: the
            residues of a protein, or for scores the tokens of a crop.
        on_progress: Receives the amount of each finished piece: the residues of a protein, for scores its tokens, and
            1 for each query of a search or step of a map.
        on_stage: Receives the name of each stage of a fine-tuning, the number of steps if it is a training, else None,
            and the number of these steps that an earlier run has taken.
        on_step: Receives the report of each step of a training.
        stop: Returns whether to save the training and stop; called after each step.
    """

    on_plan: Callable[[Any], None] = _ignore
    on_warning: Callable[[str], None] = _ignore
    on_note: Callable[[str], None] = _ignore
    on_start: Callable[[int], None] = _ignore
    on_computed: Callable[[int], None] = _ignore
    on_progress: Callable[[int], None] = _ignore
    on_stage: Callable[[str, int | None, int], None] = _ignore
    on_step: Callable[[StepReport], None] = _ignore
    stop: Callable[[], bool] = _never
