"""The training of an encoder, whole or by adapters, and of a new head on it, by the loop that pretraining uses."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from scipy.special import xlogy
from torch import Tensor

from protembed.config.common import OptimizerConfig, OptimizerName
from protembed.config.finetune import FinetuneConfig, FinetuneMethod
from protembed.data.alphabet import encode
from protembed.device import default_micro_batch_tokens
from protembed.errors import DamagedRunError
from protembed.evaluation.metrics import best_threshold, label_curves
from protembed.finetuning.labels import Split, SplitTable
from protembed.finetuning.targets import FinetuningBatches, LabelledDataset, Targets
from protembed.io.reading import sha256_of_file
from protembed.io.writing import atomic_path
from protembed.model.checkpoint import Checkpoint
from protembed.model.esm2 import initialise
from protembed.model.heads import TaskHead
from protembed.model.lora import add_adapters, merge_adapters
from protembed.model.weights import with_current_names, write_tensors
from protembed.training.checkpoints import Checkpoints
from protembed.training.distributed import Executor
from protembed.training.loop import StepReport, TrainingSetup, make_schedule, train
from protembed.training.objective import SupervisedObjective, evaluate
from protembed.training.optimizer import make_optimizers
from protembed.training.run_directory import RunDirectory

# For an encoder of width 160, and less for a wider one (benchmarks/README.md).
_DEFAULT_RATES: Mapping[FinetuneMethod, Mapping[OptimizerName, float]] = {
    "full": {"adamw": 1e-3, "muon": 1e-3, "sgd": 0.01},
    "lora": {"adamw": 3e-3, "muon": 3e-3, "sgd": 0.1},
}
_WIDTH_OF_RATES = 160
# Of a head when a training begins, at the default learning rate. AdamW moves each coordinate of the vectors by up to
# rate · width = 0.16 a step, all of them in the direction that changes an output most: by 1.6 then. Heads that were
# fitted to an encoder whose vectors vary little have a steepness of several hundreds.
_STARTING_STEEPNESS = 10.0
# A training diverged if its losses, in training and in validation, exceed so many times that of an uninformed model.
_DIVERGED_RATIO = 2.0
_HIDDEN_UNITS = 64
_BEST = "best.safetensors"


@dataclass(frozen=True, kw_only=True)
class FinetuneSpec:
    """How a training goes.

    Attributes:
        method: whether all parameters are trained, or adapters.
        config: head, batches, epochs.
        optimizer: of encoder and head.
        compute: who computes.
        seed: of the head, the adapters and the order.
        head: fitted to the frozen encoder, to start from; None: a new one.
    """

    method: FinetuneMethod
    config: FinetuneConfig
    optimizer: OptimizerConfig
    compute: Executor
    seed: int
    head: TaskHead | None = None


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """The worst epoch of a training that diverged.

    Attributes:
        epoch: Its number, from 1.
        valid_loss: The validation loss after the epoch.
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


class EncoderTrainer:
    """The training of an encoder and its head together, resumed where its run stands.

    A head that was fitted to the frozen encoder is the better start: its gradients do not distort the encoder, and
    the training cannot end worse on the validation part than the frozen encoder. But where vectors of different
    proteins differ little, the fitted head is steep, and one step of the encoder would change its logits by tens.
    Training therefore starts from the same head with its outputs divided by a temperature; the fitted head is kept as
    the result to improve on.

    Source: Kumar et al. 2022, "Fine-tuning can distort pretrained features and underperform out-of-distribution".

    Args:
        table: the labelled proteins.
        targets: their labels as numbers.
        checkpoint: the model, whose record names window, layer and poolings; it receives the head, and is trained in
            place.
        course: how.
        run: keeps the checkpoints and the best weights.

    Attributes:
        plan: the course of the training, step by step.
        state: how far it has come.
        warnings: what the user should know about damaged checkpoints, in sentences.
    """

    def __init__(
        self, table: SplitTable, targets: Targets, checkpoint: Checkpoint, course: FinetuneSpec, run: RunDirectory
    ) -> None:
        self._checkpoint, self._run, self._course = checkpoint, run, course
        generator = torch.Generator().manual_seed(course.seed)
        head = _new_head(targets, checkpoint, course.config, generator)
        if course.head is not None:
            head.load_state_dict(course.head.state_dict(), strict=False)  # a learned pooling starts as the mean
        checkpoint.task_head = head
        if course.method == "lora":
            add_adapters(checkpoint.encoder, course.config.lora_rank, generator)
        checkpoint.encoder.gradient_checkpointing = course.config.gradient_checkpointing
        record = checkpoint.metadata
        weights = _class_weights(targets) if course.config.balance_classes else None
        self._uninformed_loss = _uninformed_loss(targets, weights)
        self._objective = SupervisedObjective(checkpoint.encoder, head, record.poolings, record.layer, weights)
        self._objective.to(checkpoint.device)
        proteins = _proteins(table, targets, "train", checkpoint)
        valid = _proteins(table, targets, "valid", checkpoint)
        self._batches = FinetuningBatches(proteins, course.config.batch_tokens, course.seed)
        self._valid_batches = valid.micro_batches(range(len(valid.residues)))
        steps = self._batches.steps_per_epoch
        self.plan = make_schedule(
            course.optimizer,
            course.config.epochs * steps,
            default_rates(course.method, checkpoint.encoder.shape.dim),
            validate_every=steps,
            save_every=steps,
            patience=course.config.patience,
        )
        self._optimizers = make_optimizers(
            self._objective,
            self.plan.optimizer,
            self.plan.weight_decay,
            course.compute.pool,
            head=head,
            head_lr_multiplier=course.config.head_lr_multiplier,
        )
        self.state = Checkpoints(run.path(""))
        self.warnings = self.state.restore(self._objective, self._optimizers)
        run.truncate_log(self.state.progress.step)

    def run(self, on_step: Callable[[StepReport], None], stop: Callable[[], bool]) -> bool:
        """Train to the end, and turn the checkpoint into the best model; False if it was left before.

        What is left of adapters is in the encoder's own matrices then.
        """
        training = TrainingSetup(
            objective=self._objective,
            batches=self._batches,
            optimizers=self._optimizers,
            executor=self._course.compute,
        )
        if self._course.head is not None and self.state.progress.step == 0:
            self._begin()
        for report in train(training, self.plan, self.state, validate=self._validate, stop=stop):
            if report.is_best:
                self._keep()
            self._run.log(report.log_line())
            on_step(report)
        if not self.state.progress.is_finished(self.plan.num_steps, self.plan.patience):
            return False
        self._objective.load_state_dict(with_current_names(load_file(self._intact_best())))
        if self._course.method == "lora":
            merge_adapters(self._checkpoint.encoder)
        return True

    def _begin(self) -> None:
        """Keep the fitted head as the result to improve on, and soften it for the first steps of the encoder."""
        self.state.progress.record_validation(self._validate()["valid_loss"])
        self._keep()
        self._objective.task_head.soften(self._starting_steepness())

    def _starting_steepness(self) -> float:
        """Allow a head the steeper, the less a step moves the encoder."""
        if not self.plan.learning_rate:
            return math.inf
        rates = default_rates(self._course.method, self._checkpoint.encoder.shape.dim)
        return _STARTING_STEEPNESS * rates[self.plan.optimizer] / self.plan.learning_rate

    def divergence(self) -> Divergence | None:
        """Describe the worst epoch of a training that diverged; None for any other.

        Where a model overfits, the validation loss may rise as far, but the training loss does not.
        """
        epochs = defaultdict[int, list[Mapping[str, Any]]](list)
        for line in self._run.read_log():
            epochs[math.ceil(line["step"] / self._batches.steps_per_epoch)].append(line)
        limit, worst = _DIVERGED_RATIO * self._uninformed_loss, (0.0, 0)
        for epoch, lines in epochs.items():
            train_losses = [line["train_loss"] for line in lines if line["train_loss"] is not None]
            valid_loss = lines[-1].get("valid_loss", 0.0)
            if train_losses and min(valid_loss, mean(train_losses)) > limit:
                worst = max(worst, (valid_loss, epoch))
        if not worst[1]:
            return None
        return Divergence(
            epoch=worst[1],
            valid_loss=worst[0],
            uninformed_loss=self._uninformed_loss,
            learning_rate=self.plan.learning_rate,
        )

    @property
    def valid_loss(self) -> float:
        """The lowest validation loss so far."""
        assert self.state.progress.best_loss is not None
        return self.state.progress.best_loss

    def _keep(self) -> None:
        with atomic_path(self._run.path(_BEST)) as temporary:
            write_tensors(self._objective.state_dict(), temporary)
        self._run.store(_BEST, sha256_of_file(self._run.path(_BEST)))

    def _intact_best(self) -> Path:
        """Name the file of the best weights.

        Raises:
            DamagedRunError: it is not what it was.
        """
        path = self._run.path(_BEST)
        # What an earlier version kept has no hash.
        if not path.exists() or sha256_of_file(path) != self._run.load_or_compute(_BEST, lambda: sha256_of_file(path)):
            raise DamagedRunError(path, "the best weights of this training are missing or damaged")
        return path

    def _validate(self) -> dict[str, float]:
        return {"valid_loss": evaluate(self._objective, self._valid_batches, self._course.compute).mean().item()}


def default_rates(method: FinetuneMethod, dim: int) -> dict[OptimizerName, float]:
    """Choose the peak learning rate of each optimiser: the wider an encoder, the less.

    Source: Yang et al. 2022, "Tensor Programs V", table 3, for the proportion.
    """
    return {name: rate * _WIDTH_OF_RATES / dim for name, rate in _DEFAULT_RATES[method].items()}


def choose_threshold(head: TaskHead, truth: NDArray[np.floating], probabilities: NDArray[np.floating]) -> None:
    """Set from which probability on a head predicts a label: the best of the validation part.

    Args:
        head: of a multi-label task.
        truth: (proteins, labels), zeros and ones.
        probabilities: (proteins, labels), its own.
    """
    head.threshold.fill_(best_threshold(*label_curves(truth, probabilities))[0])


def _new_head(targets: Targets, checkpoint: Checkpoint, config: FinetuneConfig, generator: torch.Generator) -> TaskHead:
    dim, poolings = checkpoint.encoder.shape.dim, checkpoint.metadata.poolings
    per_residue = targets.task.per_residue
    head = TaskHead(
        dim if per_residue else dim * len(poolings),
        targets.task,
        targets.classes,
        num_hidden=_HIDDEN_UNITS if config.head == "mlp" else None,
        query_dim=dim if "attention" in poolings and not per_residue else None,
    )
    initialise(head, "gaussian", generator)
    if targets.task.label_kind == "value":
        known = targets.known_targets("train")
        head.offset.fill_(known.mean())
        head.scale.fill_(known.std())
    return head


def _proteins(table: SplitTable, targets: Targets, split: Split, checkpoint: Checkpoint) -> LabelledDataset:
    return LabelledDataset(
        residues=[encode(protein.sequence) for protein in table.splits[split]],
        targets=targets.by_split[split],
        task=targets.task,
        window_residues=checkpoint.metadata.window_residues,
        micro_batch_tokens=default_micro_batch_tokens(checkpoint.device),
    )


def _class_weights(targets: Targets) -> Tensor | None:
    """Weigh each class so that all count alike, and a training target one on average; labels' positives likewise."""
    known = targets.known_targets("train")
    if targets.task.label_kind == "labels":
        share = known.mean(0).clip(1 / len(known), 1 - 1 / len(known))
        return torch.from_numpy((1 - share) / share).float()
    counts = np.bincount(known, minlength=len(targets.classes or ()))
    return torch.from_numpy(len(known) / (len(counts) * np.maximum(counts, 1))).float()


def _uninformed_loss(targets: Targets, weights: Tensor | None) -> float:
    """Compute the training loss of the best constant prediction, in the units of `SupervisedObjective`."""
    if targets.task.label_kind == "value":
        return 0.5  # half the variance of standardised values
    known = targets.known_targets("train")
    weight = 1.0 if weights is None else weights.numpy()
    if targets.task.label_kind == "labels":
        masses = np.stack([known.mean(0) * weight, 1 - known.mean(0)])  # (2, labels)
    else:
        masses = (np.bincount(known, minlength=len(targets.classes or ())) / len(known) * weight)[:, None]
    return float(-xlogy(masses, masses / masses.sum(0)).sum(0).mean())
