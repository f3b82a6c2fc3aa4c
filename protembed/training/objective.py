"""What is minimised: from a batch to a loss, its sum and its count carried apart.

Dividing once, by the count of the whole step, is what makes a loss the mean over all masked tokens (or all proteins),
however a step is divided into micro-batches; a mean of means would count small ones more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from protembed.config.common import PoolingName
from protembed.data.alphabet import AMINO_ACID_IDS, FIRST_AMINO_ACID
from protembed.data.batching import UNKNOWN_CLASS, LabelledBatch, MaskedBatch
from protembed.data.windows import Span
from protembed.model.esm2 import Encoder
from protembed.model.heads import MaskedLMHead, TaskHead
from protembed.model.pooling import merge_windows, pool_all
from protembed.training.distributed import Executor

AnyBatch = TypeVar("AnyBatch")


@dataclass(frozen=True)
class LossSum:
    """A loss that is not yet divided.

    Attributes:
        sum: (), float32; over all targets, in nats for classes and squared standard deviations for values.
        count: the number of targets.
        num_correct: (), int64; targets whose likeliest class is the true one; 0 where there are no classes.
    """

    sum: Tensor
    count: int
    num_correct: Tensor

    @classmethod
    def zero(cls, device: torch.device) -> "LossSum":
        """Return a loss of zero over zero targets."""
        return cls(torch.zeros((), device=device), 0, torch.zeros((), dtype=torch.int64, device=device))

    def detach(self) -> "LossSum":
        """Forget how the loss was computed."""
        return LossSum(self.sum.detach(), self.count, self.num_correct)

    def mean(self) -> Tensor:
        """Divide; NaN where there is no target."""
        return self.sum / self.count

    def __add__(self, other: "LossSum") -> "LossSum":
        return LossSum(self.sum + other.sum, self.count + other.count, self.num_correct + other.num_correct)


class Objective(nn.Module, Generic[AnyBatch]):
    """A model together with what it is trained for."""

    def __call__(self, batch: AnyBatch) -> LossSum:
        """Compute the summed loss of a batch."""
        loss: LossSum = super().__call__(batch)
        return loss

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device


class MaskedLM(Objective[MaskedBatch]):
    """Guess the hidden residues: categorical cross-entropy over the 20 amino acids, at the masked positions only.

    Args:
        encoder: the encoder.
        lm_head: the masked-LM head, tied to the encoder's embedding.
    """

    def __init__(self, encoder: Encoder, lm_head: MaskedLMHead) -> None:
        super().__init__()
        self.encoder, self.lm_head = encoder, lm_head

    def logits(self, batch: MaskedBatch) -> Tensor:
        """Guess the hidden residues of a batch: logits over the 20 amino acids, (masked, 20)."""
        layout = self.encoder.layout(batch.offsets)
        hidden = self.encoder(batch.tokens.to(self.device, non_blocking=True), layout)  # (tokens, dim)
        masked = hidden[batch.positions.to(self.device, non_blocking=True)]  # (masked, dim)
        return cast("Tensor", self.lm_head(masked, self.encoder.embedding.weight, AMINO_ACID_IDS))

    def nats(self, batch: MaskedBatch) -> Tensor:
        """Compute the cross-entropy of each masked residue of a batch, (masked,), float32."""
        targets = batch.targets.to(self.device, non_blocking=True) - FIRST_AMINO_ACID
        return F.cross_entropy(self.logits(batch), targets, reduction="none")

    def forward(self, batch: MaskedBatch) -> LossSum:
        """Sum C(y, ŷ) = -Σ y_i log ŷ_i over the hidden residues of a batch."""
        targets = batch.targets.to(self.device, non_blocking=True) - FIRST_AMINO_ACID
        return cross_entropy_sum(self.logits(batch), targets)


class SupervisedObjective(Objective[LabelledBatch]):
    """Predict the labels of proteins, or of their residues, from the encoder's vectors.

    The loss is the cross-entropy for classes, the binary cross-entropy for labels, and half the squared error, in
    standard deviations of the training labels, for values. A long protein's vectors are joined from its windows, as
    they are when it is embedded.

    Args:
        encoder: the encoder.
        task_head: the head; it knows the task.
        poolings: from residues to the vector that the head sees, side by side; not used where residues have labels.
        layer: whose output is pooled; None is the last.
        class_weights: (classes,), of each class, or of the positives of each label; None: all weigh alike.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        encoder: Encoder,
        task_head: TaskHead,
        poolings: Sequence[PoolingName],
        layer: int | None,
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.task_head, self._poolings, self._layer = encoder, task_head, poolings, layer
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, batch: LabelledBatch) -> LossSum:
        """Sum the loss over the proteins of a batch, or over their residues."""
        layout = self.encoder.layout(batch.offsets)
        hidden = self.encoder(batch.tokens.to(self.device), layout, self._layer)  # (tokens, dim)
        crops = iter(layout.split(hidden))
        vectors = [self._vectors([next(crops)[0] for _ in spans], spans) for spans in batch.spans]
        targets = batch.targets.to(self.device)
        return self._loss(self.task_head(torch.cat(vectors)), targets)

    def _vectors(self, windows: Sequence[Tensor], spans: Sequence[Span]) -> Tensor:
        """Give what the head sees of a protein: (1, poolings · dim), or (residues, dim)."""
        cls, residues = merge_windows(windows, spans)
        if self.task_head.task.per_residue:
            return residues
        return pool_all(cls, residues, self._poolings, self.task_head.query)[None]

    def _loss(self, output: Tensor, targets: Tensor) -> LossSum:
        nothing = torch.zeros((), dtype=torch.int64, device=output.device)
        if self.task_head.task.label_kind == "labels":
            loss = F.binary_cross_entropy_with_logits(output, targets, pos_weight=self.class_weights, reduction="sum")
            return LossSum(loss, targets.numel(), nothing)
        if self.task_head.task.label_kind == "class":
            known = targets != UNKNOWN_CLASS
            return cross_entropy_sum(output[known], targets[known], self.class_weights)
        known = ~targets.isnan()
        standardised = (targets[known] - self.task_head.offset) / self.task_head.scale
        error = F.mse_loss(output[known], standardised, reduction="sum") / 2
        return LossSum(error, len(standardised), nothing)


def cross_entropy_sum(logits: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> LossSum:
    """Sum the categorical cross-entropy.

    Args:
        logits: (n, classes).
        targets: (n,), int64, the true classes.
        class_weights: (classes,); None: all weigh alike.

    Returns:
        Sum in nats, count, and how often the likeliest class is the true one.

    >>> round(cross_entropy_sum(torch.tensor([[0.57, 0.43]]).log(), torch.tensor([0])).mean().item(), 3)
    0.562
    """
    num_correct = (logits.argmax(-1) == targets).sum() if len(targets) else targets.sum()
    return LossSum(F.cross_entropy(logits, targets, class_weights, reduction="sum"), len(targets), num_correct)


def evaluate(objective: Objective[AnyBatch], batches: Sequence[AnyBatch], compute: Executor) -> LossSum:
    """Sum an objective's loss over batches without training, in float32; every target counts once.

    Raises:
        ValueError: there is no batch.
    """
    if not batches:
        raise ValueError("nothing to evaluate")

    def loss_of(batch: AnyBatch) -> LossSum:
        with torch.inference_mode():
            return objective(batch)

    total = sum(compute.pool.map(loss_of, compute.processes.shard(batches)), start=LossSum.zero(objective.device))
    loss, count, num_correct = compute.processes.all_reduce_sum(total.sum.item(), total.count, total.num_correct.item())
    return LossSum(torch.tensor(loss), int(count), torch.tensor(int(num_correct)))
