"""The training loop of pretraining and fine-tuning."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Generic

import torch
from torch import nn
from torch.optim import Optimizer

from protembed.callbacks import StepReport
from protembed.data.batching import AnyBatch
from protembed.device import peak_memory
from protembed.errors import DivergedError, TooLongForMemoryError
from protembed.resources import is_out_of_memory
from protembed.training.checkpoints import Checkpoints, TrainingProgress
from protembed.training.distributed import Executor
from protembed.training.objective import LossSum, Objective
from protembed.training.optimizer import Gradients, GradientSum, ShardedGradientSum, set_learning_rate
from protembed.training.schedule import TrainingSchedule

_MAX_SKIPPED_IN_A_ROW = 5

Validation = Callable[[], Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """The result of one update.

    Attributes:
        loss: Mean over all targets of the step; None if there was no target, or the step was skipped.
        mask_token_loss: Mean over the targets that the model sees as `<mask>`; None as above, or if there is none.
        grad_norm: Norm of the gradient before it is clipped; None if there was no target, or it is not finite.
        is_finite: False if the step was skipped because its loss or gradient was not finite.
    """

    loss: float | None = None
    mask_token_loss: float | None = None
    grad_norm: float | None = None
    num_residues: int
    is_finite: bool


@dataclass(frozen=True, kw_only=True)
class TrainingSetup(Generic[AnyBatch]):
    """What a training run consists of.

    Attributes:
        micro_batches: Function from the number of a step to this process's share of its micro-batches, whose gradients
            are accumulated.
        optimizers: Optimisers, each of some of the objective's parameters.
    """

    objective: Objective[AnyBatch]
    micro_batches: Callable[[int], Sequence[AnyBatch]]
    optimizers: Sequence[Optimizer]
    executor: Executor


def _compute_gradients(
    training: TrainingSetup[AnyBatch], parameters: Sequence[nn.Parameter], total: GradientSum, micro_batch: AnyBatch
) -> tuple[LossSum, Gradients]:
    """Compute the loss of a micro-batch, and its gradients, which the caller adds to the total."""
    objective, executor = training.objective, training.executor
    is_mixed = executor.precision == torch.bfloat16
    # The cache would hold all weights in bfloat16 until the last layer, when those of a sharded layer are released.
    is_cached = not executor.processes.is_sharded
    try:
        with torch.autocast(objective.device.type, torch.bfloat16, enabled=is_mixed, cache_enabled=is_cached):
            loss = objective(micro_batch)
        gradients = total.differentiate(loss, parameters)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise TooLongForMemoryError(micro_batch.num_tokens) from error
    return loss.detach(), gradients


def take_step(
    training: TrainingSetup[AnyBatch], micro_batches: Sequence[AnyBatch], clip_norm: float | None
) -> StepResult:
    """Sum the gradients of a step's micro-batches, divide them once by all its targets, and update the weights.

    Each process computes its share of the micro-batches. A step without targets changes nothing, nor does a step whose
    loss or gradient is not finite.

    Raises:
        TooLongForMemoryError: If a micro-batch and its gradients do not fit into memory.
    """
    objective, executor = training.objective, training.executor
    parameters = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    is_sharded = executor.processes.is_sharded
    total = ShardedGradientSum(parameters, executor.processes) if is_sharded else GradientSum()
    compute = partial(_compute_gradients, training, parameters, total)
    losses = LossSum.zero(objective.device)
    for loss, gradients in executor.pool.map(compute, micro_batches):
        losses += loss
        if loss.count:
            total.add(gradients)
    residues = sum(micro_batch.num_residues for micro_batch in micro_batches)
    counts = (losses.count, losses.num_mask_tokens, residues)
    count, num_mask_tokens, num_residues = map(int, executor.processes.all_reduce_sum(*counts))
    if not count:
        return StepResult(num_residues=num_residues, is_finite=True)
    total.all_reduce(parameters, executor.processes)
    norm = total.divide(count)
    # The only time that a step waits for the device, which has received all micro-batches by then.
    *sums, grad_norm = torch.stack([losses.sum, torch.as_tensor(losses.mask_token_sum), norm]).tolist()
    loss_sum, mask_token_sum = executor.processes.all_reduce_sum(*sums)
    if not math.isfinite(loss_sum) or not math.isfinite(grad_norm):
        grad_norm = grad_norm if math.isfinite(grad_norm) else None
        return StepResult(grad_norm=grad_norm, num_residues=num_residues, is_finite=False)
    if clip_norm is not None:
        total.clip(norm, clip_norm)
    total.assign_to(parameters)
    for optimizer in training.optimizers:
        optimizer.step()
    return StepResult(
        loss=loss_sum / count,
        mask_token_loss=mask_token_sum / num_mask_tokens if num_mask_tokens else None,
        grad_norm=grad_norm,
        num_residues=num_residues,
        is_finite=True,
    )


@contextmanager
def _prefetch(micro_batches: Callable[[int], Sequence[AnyBatch]]) -> Iterator[Callable[[int], Sequence[AnyBatch]]]:
    """Prepare the micro-batches of the next step while a step is computed."""
    with ThreadPoolExecutor(1) as thread:
        prepared: dict[int, Future[Sequence[AnyBatch]]] = {}

        def prefetched(step: int) -> Sequence[AnyBatch]:
            current = prepared.pop(step, None) or thread.submit(micro_batches, step)
            prepared[step + 1] = thread.submit(micro_batches, step + 1)
            return current.result()

        yield prefetched


def _advance(
    training: TrainingSetup[AnyBatch],
    micro_batches: Sequence[AnyBatch],
    schedule: TrainingSchedule,
    progress: TrainingProgress,
    validate: Validation | None,
) -> StepReport:
    """Take and record a step, and validate after it if the schedule says so."""
    learning_rate = schedule.learning_rate_at(progress.step)
    set_learning_rate(training.optimizers, learning_rate)
    started = time.perf_counter()
    result = take_step(training, micro_batches, schedule.clip_norm)
    seconds = time.perf_counter() - started
    progress.record_step(result.num_residues, is_finite=result.is_finite)
    if progress.num_skipped_in_a_row == _MAX_SKIPPED_IN_A_ROW:
        raise DivergedError(progress.step, progress.num_skipped_in_a_row)
    metrics, is_best = None, False
    if validate is not None and (progress.step == schedule.num_steps or progress.step % schedule.validate_every == 0):
        metrics = validate()
        progress.record_validation(metrics["valid_loss"])
        is_best = progress.best_step == progress.step
    return StepReport(
        step=progress.step,
        num_steps=schedule.num_steps,
        num_residues=progress.num_residues,
        train_loss=result.loss,
        mask_token_loss=result.mask_token_loss,
        learning_rate=learning_rate,
        grad_norm=result.grad_norm,
        residues_per_second=result.num_residues / seconds,
        peak_memory_bytes=peak_memory(training.objective.device),
        validation=metrics,
        is_best=is_best,
    )


def train(
    training: TrainingSetup[AnyBatch],
    schedule: TrainingSchedule,
    checkpoints: Checkpoints,
    *,
    validate: Validation | None = None,
    replan: Callable[[TrainingSchedule, int], TrainingSchedule] = lambda schedule, step: schedule,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[StepReport]:
    """Train to the last step of the schedule from where `checkpoints` left off; yield a report after each step.

    A checkpoint is written only after the caller has processed the report of its step. Whatever the caller stores (a
    log, the best model) is therefore never older than the checkpoint.

    Args:
        training: Model, loss, batches and optimisers.
        schedule: Course of the run.
        checkpoints: Checkpoints of the run, already restored; updated and saved.
        validate: Function that returns the metrics of the model, including `valid_loss`.
        replan: Function that returns the schedule from a step on; called before each step.
        stop: Function that returns whether to save and stop; called after each step in every process.

    Raises:
        DivergedError: If several steps in a row had no finite loss or gradient, or a validation had no finite loss;
            the checkpoints are intact.
    """
    progress = checkpoints.progress
    with _prefetch(training.micro_batches) as micro_batches:
        while not progress.is_finished(schedule.num_steps, schedule.patience):
            schedule = replan(schedule, progress.step)
            yield _advance(training, micro_batches(progress.step), schedule, progress, validate)
            is_stopped = training.executor.processes.any(stop())
            is_finished = progress.is_finished(schedule.num_steps, schedule.patience)
            is_due = is_finished or progress.step % schedule.save_every == 0 or checkpoints.is_save_due()
            # Do not replace the last good checkpoint while steps are being skipped.
            if progress.num_skipped_in_a_row == 0 and (is_stopped or is_due):
                checkpoints.save(training.objective, training.optimizers)
            if is_stopped:
                return
