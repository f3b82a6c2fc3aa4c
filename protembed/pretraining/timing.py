"""The duration of steps on this machine, and the number of steps that fit into a time."""

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from protembed.data.batching import MaskedBatch
from protembed.device import peak_memory
from protembed.training.distributed import Executor
from protembed.training.loop import TrainingSetup, take_step
from protembed.training.objective import MaskedLM
from protembed.training.optimizer import make_optimizers
from protembed.training.schedule import NUM_DEFAULT_VALIDATIONS, TrainingSchedule

_WARMUP_STEPS, _SECONDS = 2, 4.0
# A training step consists of a forward pass and a backward pass that takes twice as long.
_FORWARD_FRACTION = 1 / 3
_MAX_VALIDATION_FRACTION = 0.05
# The rest is for exports and the last checkpoint, which are not timed.
_TIME_FRACTION = 0.98


@dataclass(frozen=True, kw_only=True)
class StepTiming:
    """Time and memory that a few steps took.

    Attributes:
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


def time_steps(
    objective: MaskedLM,
    micro_batches: Callable[[int], Sequence[MaskedBatch]],
    schedule: TrainingSchedule,
    executor: Executor,
    num_valid_residues: int,
) -> StepTiming:
    """Time a few steps of a copy of the model, and estimate the time of a validation from its number of residues.

    Sharded weights cannot be copied. They are not changed either, because the learning rate of the steps is zero.
    """
    trained = objective if executor.processes.is_sharded else copy.deepcopy(objective)
    optimizers = make_optimizers(trained, schedule.optimizer, schedule.weight_decay, executor)
    setup = TrainingSetup(objective=trained, micro_batches=micro_batches, optimizers=optimizers, executor=executor)
    step, num_residues, seconds = 0, 0, 0.0
    while not executor.processes.any(seconds >= _SECONDS):
        started = time.perf_counter()
        result = take_step(setup, micro_batches(step), schedule.clip_norm)
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
        timing: Measured duration of steps and validations.
    """

    def __init__(self, started: float, minutes: float, timing: StepTiming) -> None:
        # After the last step come a validation, and an evaluation of the best model that takes as long.
        self._deadline = started + minutes * 60 * _TIME_FRACTION - 2 * timing.validation_seconds
        self._timing = timing
        self._first_step: tuple[int, float] | None = None  # and when it began

    def plan(self, validate_every: int | None) -> tuple[int, int]:
        """Return the number of steps that fit, and the steps between validations.

        Args:
            validate_every: Steps between validations that the user asked for; None validates at most five times, and
                in at most a twentieth of the time.
        """
        seconds, step, validation = self._seconds_left(), self._timing.step_seconds, self._timing.validation_seconds
        if validate_every is not None:
            return max(1, int(seconds / (step + validation / validate_every))), validate_every
        num_affordable = int(_MAX_VALIDATION_FRACTION * seconds / validation)
        num_validations = max(1, min(NUM_DEFAULT_VALIDATIONS, num_affordable))
        num_steps = max(1, int((seconds - (num_validations - 1) * validation) / step))
        return num_steps, math.ceil(num_steps / num_validations)

    def replan(self, schedule: TrainingSchedule, step: int) -> TrainingSchedule:
        """Correct the number of steps by the speed so far: after an eighth, half-way, and where the decay begins.

        Until then the learning rate is at its peak in the old and the new schedule, so earlier steps remain valid. A
        cosine depends on the number of steps from the first one on, and is never corrected.

        Args:
            schedule: Current schedule; returned unchanged unless a correction is due.
            step: Number of the next step, from 0; the method must be called before every step.
        """
        first_step, started = self._first_step = self._first_step or (step, time.monotonic())
        decay_start = schedule.num_steps - schedule.decay_steps
        is_due = step in (schedule.num_steps // 8, schedule.num_steps // 2, decay_start)
        if schedule.schedule != "stable" or not is_due or not first_step < step <= decay_start:
            return schedule
        seconds_per_step = (time.monotonic() - started) / (step - first_step)
        num_left = max(1, round(self._seconds_left() / seconds_per_step))
        decay_fraction = schedule.decay_steps / schedule.num_steps
        decay_steps = min(num_left, round(decay_fraction * (step + num_left)))
        return replace(schedule, num_steps=step + num_left, decay_steps=decay_steps)

    def _seconds_left(self) -> float:
        return self._deadline - time.monotonic()
