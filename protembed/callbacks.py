"""What a long task reports to its caller while it runs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


def _ignore(*values: object) -> None:
    """Do nothing."""


def _never() -> bool:
    return False


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
        on_step: Receives the report of each step of a training, a `protembed.training.loop.StepReport`.
        stop: Returns whether to save the training and stop; called after each step.
    """

    on_plan: Callable[[Any], None] = _ignore
    on_warning: Callable[[str], None] = _ignore
    on_start: Callable[[int], None] = _ignore
    on_progress: Callable[[int], None] = _ignore
    on_stage: Callable[[str, int | None, int], None] = _ignore
    on_step: Callable[[Any], None] = _ignore
    stop: Callable[[], bool] = _never
