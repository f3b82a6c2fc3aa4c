"""What is minimised: from a batch to a loss, its sum and its count carried apart.

Dividing once, by the count of the whole step, is what makes a loss the mean over all masked tokens (or all proteins),
however a step is divided into packs; a mean of means would weigh small packs more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from protembed.config.shared import PoolingName
from protembed.data.alphabet import AMINO_ACID_IDS, FIRST_AMINO_ACID
from protembed.data.batching import LabelledBatch, MaskedBatch
from protembed.model.encoder import Encoder
from protembed.model.heads import MaskedLMHead, TaskHead
from protembed.model.pooling import pool
from protembed.training.distributed import Compute

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
    def nothing(cls, device: torch.device) -> "LossSum":
        """Begin a sum."""
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
        pack = self.encoder.pack(batch.offsets)
        hidden = self.encoder(batch.tokens.to(self.device, non_blocking=True), pack)  # (tokens, dim)
        masked = hidden[batch.positions.to(self.device, non_blocking=True)]  # (masked, dim)
        return cast("Tensor", self.lm_head(masked, self.encoder.embedding.weight, AMINO_ACID_IDS))

    def forward(self, batch: MaskedBatch) -> LossSum:
        """Sum C(y, ŷ) = -Σ y_i log ŷ_i over the hidden residues of a batch."""
        targets = batch.targets.to(self.device, non_blocking=True) - FIRST_AMINO_ACID
        return cross_entropy_sum(self.logits(batch), targets)


class WholeProtein(Objective[LabelledBatch]):
    """Predict one label per protein from its pooled representation.

    The loss is the cross-entropy for classes, and half the squared error, in standard deviations of the training
    labels, for values.

    Args:
        encoder: the encoder.
        task_head: the head; it knows whether there are classes.
        pooling: from residues to the vector that the head sees.
        layer: whose output is pooled; None is the last.
    """

    def __init__(self, encoder: Encoder, task_head: TaskHead, pooling: PoolingName, layer: int | None) -> None:
        super().__init__()
        self.encoder, self.task_head, self._pooling, self._layer = encoder, task_head, pooling, layer

    def forward(self, batch: LabelledBatch) -> LossSum:
        """Sum the loss over the proteins of a batch."""
        pack = self.encoder.pack(batch.offsets)
        hidden = self.encoder(batch.tokens.to(self.device), pack, self._layer)  # (tokens, dim)
        output = self.task_head(pool(hidden, pack, self._pooling))  # (proteins, classes) or (proteins,)
        targets = batch.targets.to(self.device)
        if self.task_head.classes:
            return cross_entropy_sum(output, targets)
        standardised = (targets - self.task_head.offset) / self.task_head.scale
        error = F.mse_loss(output, standardised, reduction="sum") / 2
        return LossSum(error, len(targets), torch.zeros((), dtype=torch.int64, device=error.device))


def cross_entropy_sum(logits: Tensor, targets: Tensor) -> LossSum:
    """Sum the categorical cross-entropy.

    Args:
        logits: (n, classes).
        targets: (n,), int64, the true classes.

    Returns:
        Sum in nats, count, and how often the likeliest class is the true one.

    >>> round(cross_entropy_sum(torch.tensor([[0.57, 0.43]]).log(), torch.tensor([0])).mean().item(), 3)
    0.562
    """
    num_correct = (logits.argmax(-1) == targets).sum() if len(targets) else targets.sum()
    return LossSum(F.cross_entropy(logits, targets, reduction="sum"), len(targets), num_correct)


def evaluate(objective: Objective[AnyBatch], batches: Sequence[AnyBatch], compute: Compute) -> LossSum:
    """Sum an objective's loss over batches without training, in float32; every target counts once.

    Raises:
        ValueError: there is no batch.
    """
    if not batches:
        raise ValueError("nothing to evaluate")

    def loss_of(batch: AnyBatch) -> LossSum:
        with torch.inference_mode():
            return objective(batch)

    total = sum(compute.pool.map(loss_of, compute.processes.share(batches)), start=LossSum.nothing(objective.device))
    loss, count, num_correct = compute.processes.totals(total.sum.item(), total.count, total.num_correct.item())
    return LossSum(torch.tensor(loss), int(count), torch.tensor(int(num_correct)))
