"""How long steps take on this machine, and how many of them fit into a time."""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from protembed.data.batching import LabelledBatch, MaskedBatch
from protembed.device import peak_memory
from protembed.training.loop import NUM_DEFAULT_VALIDATIONS, TrainingSchedule, TrainingSetup, take_step
from protembed.training.optimizer import make_optimizers

AnyBatch = TypeVar("AnyBatch", MaskedBatch, LabelledBatch)

_WARMUP_STEPS, _SECONDS = 2, 4.0
# A training step passes over its tokens once forwards and, twice as long, backwards.
_FORWARD_FRACTION = 1 / 3
_MAX_VALIDATION_FRACTION = 0.05
# Exports and the last checkpoint take what a short calibration does not see.
_TIME_FRACTION = 0.98


@dataclass(frozen=True, kw_only=True)
class StepTiming:
    """What was measured on a few steps.

    Attributes:
        step_seconds: of one step.
        validation_seconds: of one validation, reckoned.
        memory_bytes: the most memory that this process, or its GPU, has held so far.
    """

    step_seconds: float
    validation_seconds: float
    memory_bytes: int

    def seconds(self, plan: TrainingSchedule) -> float:
        """Estimate how long a run takes."""
        num_validations = math.ceil(plan.num_steps / plan.validate_every)
        return plan.num_steps * self.step_seconds + num_validations * self.validation_seconds


def time_steps(training: TrainingSetup[AnyBatch], plan: TrainingSchedule, num_valid_residues: int) -> StepTiming:
    """Time a few steps on a copy of the model, which leaves the run's first step as it was.

    Args:
        training: what is to be timed.
        plan: of which the optimiser counts.
        num_valid_residues: of all validation sets together; a validation is reckoned from it, not made.
    """
    objective, compute = copy.deepcopy(training.objective), training.executor
    optimizers = make_optimizers(objective, plan.optimizer, plan.weight_decay, compute.pool)
    trial = replace(training, objective=objective, optimizers=optimizers)
    step, num_residues, seconds = 0, 0, 0.0
    while not compute.processes.any(seconds >= _SECONDS):
        began = time.perf_counter()
        result = take_step(trial, training.batches.micro_batches(step), plan.clip_norm)
        if step >= _WARMUP_STEPS:
            seconds += time.perf_counter() - began
            num_residues += result.num_residues
        step += 1
    return StepTiming(
        step_seconds=seconds / (step - _WARMUP_STEPS),
        validation_seconds=_FORWARD_FRACTION * num_valid_residues * seconds / max(1, num_residues),
        memory_bytes=peak_memory(objective.device),
    )


class TimeBudget:
    """A time at which a run is to be finished.

    Args:
        began: when the command began, by `time.monotonic`.
        minutes: from then on.
    """

    def __init__(self, began: float, minutes: float) -> None:
        self._when = began + minutes * 60 * _TIME_FRACTION
        self._first: tuple[int, float] | None = None

    def plan_within(
        self, make_plan: Callable[[int, int | None], TrainingSchedule], pace: StepTiming, validate_every: int | None
    ) -> TrainingSchedule:
        """Plan as many steps as fit, and not more validations than a twentieth of the time allows.

        Args:
            make_plan: makes a plan from the number of steps and the steps between validations.
            pace: as measured.
            validate_every: as the user wants it; None leaves it open.
        """
        # The last validation, and the table of amino acids after it.
        self._when -= 2 * pace.validation_seconds
        seconds = self._when - time.monotonic()
        if validate_every is not None:
            num_steps = int(seconds / (pace.step_seconds + pace.validation_seconds / validate_every))
            return make_plan(max(1, num_steps), validate_every)
        num_affordable = int(_MAX_VALIDATION_FRACTION * seconds / pace.validation_seconds)
        num_validations = max(1, min(NUM_DEFAULT_VALIDATIONS, num_affordable))
        num_steps = max(1, int((seconds - (num_validations - 1) * pace.validation_seconds) / pace.step_seconds))
        return make_plan(num_steps, math.ceil(num_steps / num_validations))

    def should_replan(self, plan: TrainingSchedule, step: int) -> bool:
        """Tell whether a plan should be corrected: after an eighth, half-way, and where the rate begins to fall.

        Until then the rate is at its peak in the old plan and the new one, so that what lies behind stays true.

        Args:
            plan: as it stands.
            step: that comes next, from 0; asked at every step.
        """
        if self._first is None:
            self._first = step, time.monotonic()
            return False
        decay_begins = plan.num_steps - plan.decay_steps
        due = (plan.num_steps // 8, plan.num_steps // 2, decay_begins)
        return plan.schedule == "stable" and 0 < step <= decay_begins and step in due

    def replan(self, plan: TrainingSchedule, step: int) -> TrainingSchedule:
        """Move the end of a plan to where the pace of the run so far leads."""
        assert self._first is not None
        first_step, began = self._first
        now = time.monotonic()
        num_left = max(1, round((self._when - now) * (step - first_step) / (now - began)))
        share = plan.decay_steps / plan.num_steps
        decay_steps = min(num_left, round(share * (step + num_left)))
        return replace(plan, num_steps=step + num_left, decay_steps=decay_steps)
