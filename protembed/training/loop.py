"""The one training loop, shared by pretraining and fine-tuning."""

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch.optim import Optimizer

from protembed.config import OptimizerConfig
from protembed.data.batching import BatchPlan, LabelledBatch, MaskedBatch
from protembed.device import WorkerPool
from protembed.errors import DivergedError
from protembed.training.objectives import LossSum, Objective
from protembed.training.optimizer import Gradients, GradientSum, learning_rate_at, make_optimizer, set_learning_rate
from protembed.training.state import RunState

AnyBatch = TypeVar("AnyBatch", MaskedBatch, LabelledBatch)
Validation = Callable[[], Mapping[str, float]]

NUM_DEFAULT_VALIDATIONS = 5
_NUM_DEFAULT_CHECKPOINTS = 20
_DEFAULT_LEARNING_RATE = {"adamw": 1e-3, "sgd": 0.1}
_MAX_SKIPPED_IN_A_ROW = 5
_CALIBRATION_WARMUP_STEPS, _CALIBRATION_SECONDS = 2, 4.0


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """The course of a run, with every number decided.

    Attributes:
        num_steps: optimiser steps of the whole run.
        validate_every: steps between validations; the last step is always validated.
        save_every: steps between checkpoints; the last step is always saved.
        learning_rate: at the peak.
        warmup_steps: steps of linear warm-up.
        decay_share: the last share of the steps, over which the rate falls to zero.
        clip_norm: the largest norm of a step's gradient; None leaves gradients as they are.
    """

    num_steps: int
    validate_every: int
    save_every: int
    learning_rate: float
    warmup_steps: int
    decay_share: float
    clip_norm: float | None

    def learning_rate_at(self, step: int) -> float:
        """Compute the learning rate of a step, from 0."""
        return learning_rate_at(
            step, self.num_steps, self.learning_rate, warmup_steps=self.warmup_steps, decay_share=self.decay_share
        )


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """What happened in one step.

    Attributes:
        step: steps taken, this one included.
        num_residues: residues seen in the run.
        train_loss: mean over the step's targets; None when the step had none or was skipped.
        learning_rate: of this step.
        residues_per_second: of this step.
        validation: what was measured after it, `valid_loss` among it; None when it was not validated.
        is_best: whether `valid_loss` is the lowest so far.
    """

    step: int
    num_residues: int
    train_loss: float | None
    learning_rate: float
    residues_per_second: float
    validation: Mapping[str, float] | None = None
    is_best: bool = False


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one update came to.

    Attributes:
        loss: mean over all targets of the step; None where there was none, or no finite one.
        num_residues: residues seen.
        is_finite: false where the step was skipped because its loss or gradient was not finite.
    """

    loss: float | None
    num_residues: int
    is_finite: bool


def plan_training(
    config: OptimizerConfig,
    num_steps: int,
    *,
    validate_every: int | None = None,
    save_every: int | None = None,
    default_learning_rate: float | None = None,
) -> TrainingPlan:
    """Decide what the options left open.

    Args:
        config: the optimiser's options.
        num_steps: of the whole run.
        validate_every: steps between validations; None is a fifth of the run.
        save_every: steps between checkpoints; None is a twentieth of the run.
        default_learning_rate: for AdamW where the task asks for another than pretraining.
    """
    default = default_learning_rate if config.optimizer == "adamw" else None
    fallback = _DEFAULT_LEARNING_RATE[config.optimizer] if default is None else default
    return TrainingPlan(
        num_steps=num_steps,
        validate_every=validate_every or math.ceil(num_steps / NUM_DEFAULT_VALIDATIONS),
        save_every=save_every or math.ceil(num_steps / _NUM_DEFAULT_CHECKPOINTS),
        learning_rate=fallback if config.learning_rate is None else config.learning_rate,
        warmup_steps=math.ceil(num_steps / 20) if config.warmup_steps is None else config.warmup_steps,
        decay_share=config.decay_share,
        clip_norm=config.clip_norm if config.optimizer == "adamw" else None,
    )


def train(
    objective: Objective[AnyBatch],
    batches: BatchPlan[AnyBatch],
    optimizer: Optimizer,
    plan: TrainingPlan,
    run: RunState,
    pool: WorkerPool,
    *,
    validate: Validation | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[StepReport]:
    """Train until the planned step, yielding a report after each; goes on where `run` stands.

    A checkpoint is written only after the caller has dealt with the report of its step, so that whatever the caller
    keeps (a log, the best model) is never behind the checkpoint.

    Args:
        objective: the model and its loss.
        batches: what each step sees.
        optimizer: of the objective's parameters.
        plan: the course of the run.
        run: restored already; advanced and saved here.
        pool: computes the packs of a step side by side.
        validate: measures `valid_loss`, and what else should be reported.
        stop: asked after each step; when true the run is saved and left.

    Raises:
        DivergedError: several steps in a row had no finite loss or gradient, or a validation had no finite loss; the
            checkpoints are intact.
    """
    progress, skipped_in_a_row = run.progress, 0
    while progress.step < plan.num_steps:
        learning_rate = plan.learning_rate_at(progress.step)
        set_learning_rate(optimizer, learning_rate)
        began = time.perf_counter()
        result = take_step(objective, batches.packs(progress.step), optimizer, plan.clip_norm, pool)
        seconds = time.perf_counter() - began

        progress.count(result.num_residues, is_finite=result.is_finite)
        skipped_in_a_row = 0 if result.is_finite else skipped_in_a_row + 1
        if skipped_in_a_row == _MAX_SKIPPED_IN_A_ROW:
            raise DivergedError(progress.step, skipped_in_a_row)
        is_last = progress.step == plan.num_steps
        measured, is_best = None, False
        if validate is not None and (is_last or progress.step % plan.validate_every == 0):
            measured = validate()
            is_best = progress.is_best(measured["valid_loss"])
        yield StepReport(
            step=progress.step,
            num_residues=progress.num_residues,
            train_loss=result.loss,
            learning_rate=learning_rate,
            residues_per_second=result.num_residues / seconds,
            validation=measured,
            is_best=is_best,
        )
        leaving = stop()
        if is_last or leaving or progress.step % plan.save_every == 0:
            run.save(objective, optimizer)
        if leaving:
            return


def take_step(
    objective: Objective[AnyBatch],
    packs: Sequence[AnyBatch],
    optimizer: Optimizer,
    clip_norm: float | None,
    pool: WorkerPool,
) -> StepResult:
    """Sum the gradients of a step's packs, divide them once by all its targets, and update the weights.

    A step without targets changes nothing, and neither does one whose loss or gradient is not finite.
    """
    parameters = [parameter for parameter in objective.parameters() if parameter.requires_grad]

    def gradients_of(pack: AnyBatch) -> tuple[LossSum, Gradients]:
        loss = objective(pack)
        # Not .backward(): packs run side by side, and only gradients of their own can be summed in a fixed order.
        return loss, torch.autograd.grad(loss.sum, parameters, allow_unused=True) if loss.count else ()

    loss_sum, count, total = 0.0, 0, GradientSum()
    for loss, gradients in pool.map(gradients_of, packs):
        if loss.count:
            loss_sum += loss.sum.item()
            count += loss.count
            total.add(gradients)
    num_residues = sum(pack.num_residues for pack in packs)
    if not count:
        return StepResult(loss=None, num_residues=num_residues, is_finite=True)
    norm = total.divide(count)
    if not math.isfinite(loss_sum) or not norm.isfinite():
        return StepResult(loss=None, num_residues=num_residues, is_finite=False)
    if clip_norm is not None:
        total.clip(norm, clip_norm)
    total.hand_to(parameters)
    optimizer.step()
    return StepResult(loss=loss_sum / count, num_residues=num_residues, is_finite=True)


def measure_seconds_per_step(
    objective: Objective[AnyBatch],
    batches: BatchPlan[AnyBatch],
    config: OptimizerConfig,
    clip_norm: float | None,
    pool: WorkerPool,
) -> float:
    """Time a few steps on a copy of the model, which leaves the run's first step as it was; seconds per step."""
    trial = copy.deepcopy(objective)
    optimizer = make_optimizer(trial, config)
    step, seconds = 0, 0.0
    while seconds < _CALIBRATION_SECONDS:
        began = time.perf_counter()
        take_step(trial, batches.packs(step), optimizer, clip_norm, pool)
        if step >= _CALIBRATION_WARMUP_STEPS:
            seconds += time.perf_counter() - began
        step += 1
    return seconds / (step - _CALIBRATION_WARMUP_STEPS)
