"""The one training loop, shared by pretraining and fine-tuning."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch.optim import Optimizer

from protembed.config.common import OptimizerConfig, OptimizerName, ScheduleName
from protembed.data.batching import BatchSource, LabelledBatch, MaskedBatch
from protembed.device import is_out_of_memory
from protembed.errors import DivergedError, TooLongForMemoryError
from protembed.training.checkpoints import Checkpoints, TrainingProgress
from protembed.training.distributed import Executor
from protembed.training.objective import LossSum, Objective
from protembed.training.optimizer import Gradients, GradientSum, learning_rate_at, set_learning_rate

AnyBatch = TypeVar("AnyBatch", MaskedBatch, LabelledBatch)
Validation = Callable[[], Mapping[str, float]]

NUM_DEFAULT_VALIDATIONS = 5
_NUM_DEFAULT_CHECKPOINTS = 20
_MAX_SKIPPED_IN_A_ROW = 5


@dataclass(frozen=True, kw_only=True)
class TrainingSchedule:
    """The course of a run, with every number decided.

    Attributes:
        num_steps: optimiser steps of the whole run.
        validate_every: steps between validations; the last step is always validated.
        save_every: steps between checkpoints; the last step is always saved.
        optimizer: the rule of the updates.
        learning_rate: at the peak.
        schedule: the rate's course after the warm-up.
        warmup_steps: steps of linear warm-up.
        decay_steps: the last steps, over which the rate falls to zero (`stable`).
        weight_decay: of weight matrices.
        clip_norm: the largest norm of a step's gradient; None leaves gradients as they are.
        patience: validations in a row without a lower loss after which the run ends; None never ends it early.
    """

    num_steps: int
    validate_every: int
    save_every: int
    optimizer: OptimizerName
    learning_rate: float
    schedule: ScheduleName
    warmup_steps: int
    decay_steps: int
    weight_decay: float
    clip_norm: float | None
    patience: int | None = None

    def learning_rate_at(self, step: int) -> float:
        """Compute the learning rate of a step, from 0."""
        return learning_rate_at(
            step,
            self.num_steps,
            self.learning_rate,
            warmup_steps=self.warmup_steps,
            decay_steps=self.decay_steps,
            schedule=self.schedule,
        )


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """What happened in one step.

    Attributes:
        step: steps taken, this one included.
        num_steps: of the whole run, as planned now.
        num_residues: residues seen in the run.
        train_loss: mean over the step's targets; None when the step had none or was skipped.
        learning_rate: of this step.
        residues_per_second: of this step.
        validation: what was measured after it, `valid_loss` among it; None when it was not validated.
        is_best: whether `valid_loss` is the lowest so far.
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
        """Spell the report as a line of `metrics.jsonl`."""
        return {
            "step": self.step,
            "residues": self.num_residues,
            "train_loss": self.train_loss,
            "learning_rate": self.learning_rate,
            "residues_per_second": round(self.residues_per_second, 1),
            **(self.validation or {}),
        }


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


def make_schedule(
    config: OptimizerConfig,
    num_steps: int,
    default_rates: Mapping[OptimizerName, float],
    *,
    validate_every: int | None = None,
    save_every: int | None = None,
    patience: int | None = None,
) -> TrainingSchedule:
    """Decide what the options left open.

    Args:
        config: the optimiser's options.
        num_steps: of the whole run.
        default_rates: the task's learning rate for each optimiser; the first is its default optimiser.
        validate_every: steps between validations; None is a fifth of the run.
        save_every: steps between checkpoints; None is a twentieth of the run.
        patience: validations without a lower loss after which the run ends.
    """
    optimizer = next(iter(default_rates)) if config.optimizer is None else config.optimizer
    return TrainingSchedule(
        num_steps=num_steps,
        validate_every=validate_every or math.ceil(num_steps / NUM_DEFAULT_VALIDATIONS),
        save_every=save_every or math.ceil(num_steps / _NUM_DEFAULT_CHECKPOINTS),
        optimizer=optimizer,
        learning_rate=default_rates[optimizer] if config.learning_rate is None else config.learning_rate,
        schedule=config.schedule,
        warmup_steps=math.ceil(num_steps / 20) if config.warmup_steps is None else config.warmup_steps,
        decay_steps=round(config.decay_fraction * num_steps),
        weight_decay=config.weight_decay,
        clip_norm=None if optimizer == "sgd" else config.clip_norm,
        patience=patience,
    )


@dataclass(frozen=True, kw_only=True)
class TrainingSetup(Generic[AnyBatch]):
    """What a training is made of.

    Attributes:
        objective: the model and its loss.
        batches: what each step sees.
        optimizers: each updates some of the objective's parameters.
        executor: who computes.
    """

    objective: Objective[AnyBatch]
    batches: BatchSource[AnyBatch]
    optimizers: Sequence[Optimizer]
    executor: Executor


def train(
    training: TrainingSetup[AnyBatch],
    plan: TrainingSchedule,
    run: Checkpoints,
    *,
    validate: Validation | None = None,
    replan: Callable[[TrainingSchedule, int], TrainingSchedule] = lambda plan, step: plan,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[StepReport]:
    """Train until the planned step, yielding a report after each; goes on where `run` stands.

    A checkpoint is written only after the caller has dealt with the report of its step, so that whatever the caller
    keeps (a log, the best model) is never behind the checkpoint.

    Args:
        training: the model, its loss, what it sees, and how it is updated.
        plan: the course of the run.
        run: restored already; advanced and saved here.
        validate: measures `valid_loss`, and what else should be reported.
        replan: asked before each step for the course from there on.
        stop: asked after each step; when true, in any process, the run is saved and left.

    Raises:
        DivergedError: several steps in a row had no finite loss or gradient, or a validation had no finite loss; the
            checkpoints are intact.
    """
    progress = run.progress
    with _prefetch(training.batches) as micro_batches:
        while not progress.is_finished(plan.num_steps, plan.patience):
            plan = replan(plan, progress.step)
            yield _advance(training, micro_batches(progress.step), plan, progress, validate)
            leaving = training.executor.processes.any(stop())
            is_due = progress.is_finished(plan.num_steps, plan.patience) or progress.step % plan.save_every == 0
            # Amid skipped steps the last good checkpoint is the place to go on from.
            if progress.num_skipped_in_a_row == 0 and (leaving or is_due or run.is_save_due()):
                run.save(training.objective, training.optimizers)
            if leaving:
                return


def _advance(
    training: TrainingSetup[AnyBatch],
    micro_batches: Sequence[AnyBatch],
    plan: TrainingSchedule,
    progress: TrainingProgress,
    validate: Validation | None,
) -> StepReport:
    """Take a step, count it, and validate where the plan says so."""
    learning_rate = plan.learning_rate_at(progress.step)
    set_learning_rate(training.optimizers, learning_rate)
    began = time.perf_counter()
    result = take_step(training, micro_batches, plan.clip_norm)
    seconds = time.perf_counter() - began
    progress.record_step(result.num_residues, is_finite=result.is_finite)
    if progress.num_skipped_in_a_row == _MAX_SKIPPED_IN_A_ROW:
        raise DivergedError(progress.step, progress.num_skipped_in_a_row)
    measured, is_best = None, False
    if validate is not None and (progress.step == plan.num_steps or progress.step % plan.validate_every == 0):
        measured = validate()
        is_best = progress.record_validation(measured["valid_loss"])
    return StepReport(
        step=progress.step,
        num_steps=plan.num_steps,
        num_residues=progress.num_residues,
        train_loss=result.loss,
        learning_rate=learning_rate,
        residues_per_second=result.num_residues / seconds,
        validation=measured,
        is_best=is_best,
    )


@contextmanager
def _prefetch(batches: BatchSource[AnyBatch]) -> Iterator[Callable[[int], Sequence[AnyBatch]]]:
    """Draw the next step's micro-batches while one is being computed."""
    with ThreadPoolExecutor(1) as drawer:
        drawn: dict[int, Future[Sequence[AnyBatch]]] = {}

        def micro_batches(step: int) -> Sequence[AnyBatch]:
            current = drawn.pop(step, None) or drawer.submit(batches.micro_batches, step)
            drawn[step + 1] = drawer.submit(batches.micro_batches, step + 1)
            return current.result()

        yield micro_batches


def take_step(
    training: TrainingSetup[AnyBatch], micro_batches: Sequence[AnyBatch], clip_norm: float | None
) -> StepResult:
    """Sum the gradients of a step's micro-batches, divide them once by all its targets, and update the weights.

    A step without targets changes nothing, and neither does one whose loss or gradient is not finite.

    Args:
        training: the model, its loss, and how it is updated.
        micro_batches: of the whole step; each process computes its share.
        clip_norm: the largest norm of the gradient; None leaves it as it is.

    Raises:
        TooLongForMemoryError: a micro-batch does not fit into memory with its gradients.
    """
    objective, compute = training.objective, training.executor
    parameters = [parameter for parameter in objective.parameters() if parameter.requires_grad]

    def gradients_of(micro_batch: AnyBatch) -> tuple[LossSum, Gradients]:
        try:
            with torch.autocast(objective.device.type, torch.bfloat16, enabled=compute.precision == torch.bfloat16):
                loss = objective(micro_batch)
            # Not .backward(): micro-batches run side by side, and only gradients of their own can be summed in a fixed
            # order.
            gradients = torch.autograd.grad(loss.sum, parameters, allow_unused=True) if loss.count else ()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise TooLongForMemoryError(micro_batch.num_tokens) from error
        return loss.detach(), gradients

    losses, total = LossSum.zero(objective.device), GradientSum()
    for loss, gradients in compute.pool.map(gradients_of, compute.processes.shard(micro_batches)):
        losses += loss
        if loss.count:
            total.add(gradients)
    num_residues = sum(micro_batch.num_residues for micro_batch in micro_batches)
    # One wait for the device, after all micro-batches were handed to it.
    loss_sum, count = compute.processes.all_reduce_sum(losses.sum.item(), losses.count)
    if not count:
        return StepResult(loss=None, num_residues=num_residues, is_finite=True)
    total.all_reduce(parameters, compute.processes)
    norm = total.divide(int(count))
    if not math.isfinite(loss_sum) or not norm.isfinite():
        return StepResult(loss=None, num_residues=num_residues, is_finite=False)
    if clip_norm is not None:
        total.clip(norm, clip_norm)
    total.assign_to(parameters)
    for optimizer in training.optimizers:
        optimizer.step()
    return StepResult(loss=loss_sum / count, num_residues=num_residues, is_finite=True)
