"""Train an encoder, all of it or adapters, together with a task head, by the loop that pretraining uses."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from scipy.special import xlogy
from torch import Tensor

from protembed.callbacks import StepReport
from protembed.config.common import OptimizerConfig, OptimizerName
from protembed.config.finetune import FinetuneConfig, FinetuneMethod
from protembed.data.alphabet import encode
from protembed.device import default_micro_batch_tokens
from protembed.errors import DamagedRunError
from protembed.finetuning.batches import FinetuningBatches, LabelledDataset
from protembed.finetuning.probes import HIDDEN_UNITS
from protembed.finetuning.split_names import Split
from protembed.finetuning.targets import TaskTable
from protembed.io.reading import sha256_of_file
from protembed.io.writing import atomic_path
from protembed.model.checkpoint import Checkpoint
from protembed.model.encoder import initialise
from protembed.model.heads import TaskHead
from protembed.model.lora import add_adapters, merge_adapters
from protembed.model.weights import with_current_names, write_tensors
from protembed.training.checkpoints import Checkpoints
from protembed.training.distributed import Executor
from protembed.training.loop import TrainingSetup, train
from protembed.training.objective import SupervisedObjective, evaluate
from protembed.training.optimizer import make_optimizers
from protembed.training.run_directory import RunDirectory
from protembed.training.schedule import make_schedule

# For an encoder of `_REFERENCE_WIDTH` or narrower, and lower for a wider one (benchmarks/README.md).
_DEFAULT_RATES: Mapping[FinetuneMethod, Mapping[OptimizerName, float]] = {
    "full": {"adamw": 1e-3, "muon": 1e-3, "sgd": 0.01},
    "lora": {"adamw": 3e-3, "muon": 3e-3, "sgd": 0.1},
}
_REFERENCE_WIDTH = 160
# The steepness of the head when a training starts with the default learning rate. AdamW moves each coordinate of the
# vectors by up to rate · width = 0.16 a step, all of them in the direction that changes a logit most: by 1.6 with this
# steepness. Heads that were fitted to an encoder whose vectors vary little have a steepness of several hundreds.
_INITIAL_STEEPNESS = 10.0
# A training diverged if both its training and its validation loss exceed this multiple of an uninformed model's loss.
_DIVERGED_RATIO = 2.0
_BEST_FILE = "best.safetensors"
# The name in `run.json` of the validation loss of the frozen encoder with its fitted head.
_FROZEN_LOSS = "frozen_valid_loss"


@dataclass(frozen=True, kw_only=True)
class FinetuneSpec:
    """How an encoder and its head are trained.

    Attributes:
        seed: The seed of the head, the adapters and the order of the proteins.
        head: The head to start from, fitted to the frozen encoder; None for a new head.
    """

    method: FinetuneMethod
    config: FinetuneConfig
    optimizer: OptimizerConfig
    executor: Executor
    seed: int
    head: TaskHead | None = None


@dataclass(frozen=True)
class Divergence:
    """The worst epoch of a training that diverged.

    Attributes:
        epoch: Its number, from 1.
        uninformed_loss: The loss of predicting the same for every protein: the mean, or the class frequencies.
        learning_rate: The peak learning rate of the training.
    """

    epoch: int
    valid_loss: float
    uninformed_loss: float
    learning_rate: float

    def __str__(self) -> str:
        return (
            f"the validation loss rose to {self.valid_loss:.2f} in epoch {self.epoch}, where predicting the same for "
            f"every protein costs {self.uninformed_loss:.2f}; choose a --learning-rate below {self.learning_rate:g}"
        )


def default_learning_rates(method: FinetuneMethod, dim: int) -> dict[OptimizerName, float]:
    """Choose the peak learning rate of each optimiser: the wider the encoder, the lower.

    Source: Yang et al. 2022, "Tensor Programs V", table 3, for the proportion.
    """
    # In narrower encoders the proportion's higher rates train worse, or not at all (benchmarks/README.md).
    scale = min(1.0, _REFERENCE_WIDTH / dim)
    return {name: rate * scale for name, rate in _DEFAULT_RATES[method].items()}


def _new_head(table: TaskTable, checkpoint: Checkpoint, config: FinetuneConfig, generator: torch.Generator) -> TaskHead:
    dim, poolings, task = checkpoint.encoder.shape.dim, checkpoint.metadata.poolings, table.task
    head = TaskHead(
        dim if task.per_residue else dim * len(poolings),
        task,
        table.classes,
        num_hidden=HIDDEN_UNITS if config.head == "mlp" else None,
        query_dim=dim if "attention" in poolings and not task.per_residue else None,
    )
    initialise(head, "gaussian", generator)
    if task.label_kind == "value":
        known = table.known_targets("train")
        head.offset.fill_(known.mean())
        head.scale.fill_(known.std())
    return head


def _dataset(table: TaskTable, split: Split, checkpoint: Checkpoint) -> LabelledDataset:
    return LabelledDataset(
        residues=[encode(sequence) for sequence in table.sequences(split)],
        targets=table.targets[split],
        task=table.task,
        window_residues=checkpoint.metadata.window_residues,
        micro_batch_tokens=default_micro_batch_tokens(checkpoint.device),
    )


def _class_weights(table: TaskTable) -> Tensor:
    """Balance classes with weights that have a mean of one, or the positives and the negatives of each label."""
    known = table.known_targets("train")
    if table.task.label_kind == "labels":
        fraction = known.mean(0).clip(1 / len(known), 1 - 1 / len(known))
        return torch.from_numpy((1 - fraction) / fraction).float()
    counts = np.bincount(known, minlength=table.num_classes)
    return torch.from_numpy(len(known) / (len(counts) * np.maximum(counts, 1))).float()


def _uninformed_loss(table: TaskTable, weights: Tensor | None) -> float:
    """Compute the training loss of the best constant prediction, in the units of `SupervisedObjective`."""
    if table.task.label_kind == "value":
        return 0.5  # half the variance of standardised values
    known = table.known_targets("train")
    class_weights = 1.0 if weights is None else weights.numpy()
    if table.task.label_kind == "labels":
        masses = np.stack([known.mean(0) * class_weights, 1 - known.mean(0)])  # (2, labels)
    else:
        masses = (np.bincount(known, minlength=table.num_classes) / len(known) * class_weights)[:, None]
    return float(-xlogy(masses, masses / masses.sum(0)).sum(0).mean())


def _hash_of(path: Path) -> str | None:
    """Compute the SHA-256 of a file; None if it is missing."""
    return sha256_of_file(path) if path.exists() else None


class EncoderTrainer:
    """Trains an encoder and its head together, resuming from the newest checkpoint.

    A head that was fitted to the frozen encoder is the better start: its gradients do not distort the encoder, and the
    validation loss after the training cannot be higher than that of the frozen encoder. But where the vectors of
    different proteins differ little, the fitted head is steep, and one step of the encoder would change its logits by
    tens. Training therefore starts from the same head with its logits divided by a temperature; the fitted head is
    stored as the result to improve on.

    Source: Kumar et al. 2022, "Fine-tuning can distort pretrained features and underperform out-of-distribution".

    The model, whose metadata gives window, layer and poolings, receives the head and is trained in place. The run
    directory holds the checkpoints and the best weights, which the first of several processes writes.

    Attributes:
        warnings: Sentences about damaged checkpoints.
    """

    def __init__(
        self, table: TaskTable, checkpoint: Checkpoint, spec: FinetuneSpec, run_directory: RunDirectory
    ) -> None:
        self._checkpoint, self._run_directory, self._spec = checkpoint, run_directory, spec
        generator = torch.Generator().manual_seed(spec.seed)
        head = _new_head(table, checkpoint, spec.config, generator)
        if spec.head is not None:
            head.load_state_dict(spec.head.state_dict(), strict=False)  # a learned pooling starts as the mean
        checkpoint.task_head = head
        if spec.method == "lora":
            add_adapters(checkpoint.encoder, spec.config.lora_rank, generator)
        checkpoint.encoder.gradient_checkpointing = spec.config.gradient_checkpointing
        metadata = checkpoint.metadata
        weights = _class_weights(table) if spec.config.balance_classes else None
        self._uninformed_loss = _uninformed_loss(table, weights)
        self._objective = SupervisedObjective(checkpoint.encoder, head, metadata.poolings, metadata.layer, weights)
        self._objective.to(checkpoint.device)
        train_set = _dataset(table, "train", checkpoint)
        valid_set = _dataset(table, "valid", checkpoint)
        processes = spec.executor.processes
        self._batches = FinetuningBatches(train_set, spec.config.batch_tokens, spec.seed, processes)
        self._valid_batches = valid_set.micro_batches(range(len(valid_set.residues)))
        steps = self._batches.steps_per_epoch
        self.schedule = make_schedule(
            spec.optimizer,
            spec.config.epochs * steps,
            default_learning_rates(spec.method, checkpoint.encoder.shape.dim),
            validate_every=steps,
            save_every=steps,
            patience=spec.config.patience,
        )
        self._optimizers = make_optimizers(
            self._objective,
            self.schedule.optimizer,
            self.schedule.weight_decay,
            spec.executor,
            head=head,
            head_lr_multiplier=spec.config.head_lr_multiplier,
        )
        self.checkpoints = Checkpoints(run_directory.path(""), processes=processes)
        self.warnings = self.checkpoints.restore(self._objective, self._optimizers)
        run_directory.truncate_log(self.checkpoints.progress.step)

    def run(self, on_step: Callable[[StepReport], None], stop: Callable[[], bool]) -> bool:
        """Train to the end, and load the best weights, with adapters merged, into the model.

        Returns:
            Whether the training is finished; False if `stop` ended it.

        Raises:
            DamagedRunError: The best weights are missing or damaged.
        """
        training = TrainingSetup(
            objective=self._objective,
            micro_batches=self._batches.micro_batches,
            optimizers=self._optimizers,
            executor=self._spec.executor,
        )
        if self._spec.head is not None and self.checkpoints.progress.step == 0:
            self._start_from_fitted_head()
        for report in train(training, self.schedule, self.checkpoints, validate=self._validate, stop=stop):
            if report.is_best:
                self._store_best()
            self._run_directory.log(report.log_line())
            on_step(report)
        if not self.checkpoints.progress.is_finished(self.schedule.num_steps, self.schedule.patience):
            return False
        self._objective.load_state_dict(with_current_names(load_file(self._verified_best())))
        if self._spec.method == "lora":
            merge_adapters(self._checkpoint.encoder)
        return True

    def _start_from_fitted_head(self) -> None:
        """Store the fitted head as the result to improve on, and soften it for the first steps of the encoder."""
        frozen_loss = self._validate()["valid_loss"]
        self.checkpoints.progress.record_validation(frozen_loss)
        self._store_best()
        self._run_directory.store(_FROZEN_LOSS, frozen_loss)
        self._objective.task_head.soften(self._initial_steepness())

    def _initial_steepness(self) -> float:
        """Return the steepness that a head may start with: the lower the learning rate, the higher."""
        if not self.schedule.learning_rate:
            return math.inf
        rates = default_learning_rates(self._spec.method, self._checkpoint.encoder.shape.dim)
        return _INITIAL_STEEPNESS * rates[self.schedule.optimizer] / self.schedule.learning_rate

    def divergence(self) -> Divergence | None:
        """Describe the worst epoch of a training that diverged; return None for any other.

        Overfitting can raise the validation loss as far, but not the training loss.
        """
        epochs = defaultdict[int, list[Mapping[str, Any]]](list)
        for line in self._run_directory.read_log():
            epochs[math.ceil(line["step"] / self._batches.steps_per_epoch)].append(line)
        limit, diverged = _DIVERGED_RATIO * self._uninformed_loss, list[tuple[float, int]]()
        for epoch, lines in epochs.items():
            train_losses = [line["train_loss"] for line in lines if line["train_loss"] is not None]
            valid_loss = lines[-1].get("valid_loss", 0.0)
            if train_losses and min(valid_loss, mean(train_losses)) > limit:
                diverged.append((valid_loss, epoch))
        if not diverged:
            return None
        valid_loss, epoch = max(diverged)
        rate = self.schedule.learning_rate
        return Divergence(epoch, valid_loss, uninformed_loss=self._uninformed_loss, learning_rate=rate)

    @property
    def valid_loss(self) -> float:
        """The lowest validation loss so far."""
        assert self.checkpoints.progress.best_loss is not None
        return self.checkpoints.progress.best_loss

    @property
    def frozen_loss(self) -> float | None:
        """The validation loss of the frozen encoder with its fitted head; None if training began without one."""
        loss: float | None = self._run_directory.facts.get(_FROZEN_LOSS)  # not in runs of earlier versions
        return loss

    @property
    def _is_first(self) -> bool:
        """Whether this process writes files."""
        return self._spec.executor.processes.is_first

    def _store_best(self) -> None:
        path = self._run_directory.path(_BEST_FILE)
        if self._is_first:
            with atomic_path(path) as temporary:
                write_tensors(self._objective.state_dict(), temporary)
        self._run_directory.store(_BEST_FILE, _hash_of(path) if self._is_first else None)

    def _verified_best(self) -> Path:
        """Return the path of the best weights; the first process checks their hash."""
        path = self._run_directory.path(_BEST_FILE)
        # Earlier versions recorded no hash.
        recorded = self._run_directory.load_or_compute(_BEST_FILE, lambda: _hash_of(path))
        if self._is_first and (recorded is None or _hash_of(path) != recorded):
            raise DamagedRunError(path, "the best weights of this training are missing or damaged")
        return path

    def _validate(self) -> dict[str, float]:
        return {"valid_loss": evaluate(self._objective, self._valid_batches, self._spec.executor).mean().item()}
