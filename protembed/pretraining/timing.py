"""The duration of steps on this machine, and the number of steps that fit into a time."""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from protembed.data.batching import LabelledBatch, MaskedBatch
from protembed.device import peak_memory
from protembed.training.loop import TrainingSetup, take_step
from protembed.training.optimizer import make_optimizers
from protembed.training.schedule import NUM_DEFAULT_VALIDATIONS, TrainingSchedule

_WARMUP_STEPS, _SECONDS = 2, 4.0
# A training step consists of a forward pass and a backward pass that takes twice as long.
_FORWARD_FRACTION = 1 / 3
_MAX_VALIDATION_FRACTION = 0.05
# The rest is for exports and the last checkpoint, which are not timed.
_TIME_FRACTION = 0.98

AnyBatch = TypeVar("AnyBatch", MaskedBatch, LabelledBatch)


@dataclass(frozen=True, kw_only=True)
class StepTiming:
    """Time and memory that a few steps took.

    Attributes:
        step_seconds: Seconds per step.
        validation_seconds: Estimated seconds per validation.
        memory_bytes: Peak memory of this process, or of its GPU, so far.
    """

    step_seconds: float
    validation_seconds: float
    memory_bytes: int

    def seconds(self, schedule: TrainingSchedule) -> float:
        """Estimate the duration of a run."""
        num_validations = math.ceil(schedule.num_steps / schedule.validate_every)
        return schedule.num_steps * self.step_seconds + num_validations * self.validation_seconds


def time_steps(training: TrainingSetup[AnyBatch], schedule: TrainingSchedule, num_valid_residues: int) -> StepTiming:
    """Time a few steps on a copy of the model, without changing the model itself.

    Args:
        training: Model, batches and executor; its optimisers are not used.
        schedule: Schedule that names the optimiser.
        num_valid_residues: Residues of all validation sets, from which the time of a validation is estimated.
    """
    objective, executor = copy.deepcopy(training.objective), training.executor
    optimizers = make_optimizers(objective, schedule.optimizer, schedule.weight_decay, executor.pool)
    trial = replace(training, objective=objective, optimizers=optimizers)
    step, num_residues, seconds = 0, 0, 0.0
    while not executor.processes.any(seconds >= _SECONDS):
        started = time.perf_counter()
        result = take_step(trial, training.micro_batches(step), schedule.clip_norm)
        if step >= _WARMUP_STEPS:
            seconds += time.perf_counter() - started
            num_residues += result.num_residues
        step += 1
    return StepTiming(
        step_seconds=seconds / (step - _WARMUP_STEPS),
        validation_seconds=_FORWARD_FRACTION * num_valid_residues * seconds / max(1, num_residues),
        memory_bytes=peak_memory(objective.device),
    )


class TimeBudget:
    """The time by which a run is to be finished.

    Args:
        started: Time at which the command started, from `time.monotonic`.
        minutes: Duration of the command.
    """

    def __init__(self, started: float, minutes: float) -> None:
        self._deadline = started + minutes * 60 * _TIME_FRACTION
        self._first_step: tuple[int, float] | None = None  # and when it began

    def plan_within(
        self,
        make_schedule: Callable[[int, int | None], TrainingSchedule],
        timing: StepTiming,
        validate_every: int | None,
    ) -> TrainingSchedule:
        """Schedule as many steps as fit, and no more validations than a twentieth of the time allows.

        Args:
            make_schedule: Function from the number of steps and the steps between validations to a schedule.
            timing: Measured duration of steps and validations.
            validate_every: Steps between validations that the user asked for; None chooses them.
        """
        # The last validation, and the evaluation by amino acid after it.
        self._deadline -= 2 * timing.validation_seconds
        seconds = self._deadline - time.monotonic()
        if validate_every is not None:
            num_steps = int(seconds / (timing.step_seconds + timing.validation_seconds / validate_every))
            return make_schedule(max(1, num_steps), validate_every)
        num_affordable = int(_MAX_VALIDATION_FRACTION * seconds / timing.validation_seconds)
        num_validations = max(1, min(NUM_DEFAULT_VALIDATIONS, num_affordable))
        num_steps = max(1, int((seconds - (num_validations - 1) * timing.validation_seconds) / timing.step_seconds))
        return make_schedule(num_steps, math.ceil(num_steps / num_validations))

    def should_replan(self, schedule: TrainingSchedule, step: int) -> bool:
        """Return whether to correct a schedule: after an eighth, half-way, and when the learning rate begins to fall.

        Until then the learning rate is at its peak in the old and the new schedule, so earlier steps remain valid.

        Args:
            schedule: Current schedule.
            step: Number of the next step, from 0; the method must be called before every step.
        """
        if self._first_step is None:
            self._first_step = step, time.monotonic()
            return False
        decay_start = schedule.num_steps - schedule.decay_steps
        replan_steps = (schedule.num_steps // 8, schedule.num_steps // 2, decay_start)
        return schedule.schedule == "stable" and 0 < step <= decay_start and step in replan_steps

    def replan(self, schedule: TrainingSchedule, step: int) -> TrainingSchedule:
        """Change the number of steps according to the speed of the run so far.

        Args:
            schedule: Current schedule.
            step: Number of the next step, from 0.
        """
        assert self._first_step is not None
        first_step, started = self._first_step
        now = time.monotonic()
        num_left = max(1, round((self._deadline - now) * (step - first_step) / (now - started)))
        decay_fraction = schedule.decay_steps / schedule.num_steps
        decay_steps = min(num_left, round(decay_fraction * (step + num_left)))
        return replace(schedule, num_steps=step + num_left, decay_steps=decay_steps)
