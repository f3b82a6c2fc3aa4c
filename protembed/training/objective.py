"""Training objectives: models that compute the summed loss of a batch and the number of its targets.

The sum is divided once, by the number of targets of the whole step. The loss is therefore the mean over all masked
tokens (or all proteins), however a step is divided into micro-batches; a mean of means would weight small ones more.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Generic, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from protembed.config.common import UNKNOWN_CLASS, PoolingName, Span
from protembed.data.alphabet import AMINO_ACID_IDS, FIRST_AMINO_ACID, MASK, PAD
from protembed.data.batching import AnyBatch, LabelledBatch, MaskedBatch
from protembed.device import to_device
from protembed.model.encoder import Encoder
from protembed.model.heads import MaskedLMHead, TaskHead
from protembed.model.pooling import merge_windows, pool_protein
from protembed.training.distributed import Executor, ProcessGroup

# The class of a position that pads a micro-batch.
_NO_TARGET = PAD - FIRST_AMINO_ACID


@dataclass(frozen=True)
class LossSum:
    """A loss summed over targets, not yet divided by their number.

    Attributes:
        sum: (), float32; in nats for classes and labels, in squared standard deviations for values.
        count: Number of targets.
        num_correct: (), int64; targets whose most probable class is the true one; 0 if there are no classes.
        mask_token_sum: (), float32, without gradient; the loss of the targets that the model sees as `<mask>`.
        num_mask_tokens: Number of these targets.
    """

    sum: Tensor
    count: int
    num_correct: Tensor
    mask_token_sum: Tensor | float = 0.0
    num_mask_tokens: int = 0

    @classmethod
    def zero(cls, device: torch.device) -> "LossSum":
        """Return a loss of zero over zero targets."""
        zero = torch.zeros((), device=device)
        return cls(zero, 0, torch.zeros((), dtype=torch.int64, device=device), zero)

    def detach(self) -> "LossSum":
        """Detach the loss from the graph of its computation."""
        return replace(self, sum=self.sum.detach())

    def mean(self) -> Tensor:
        """Divide by the number of targets; NaN if there is none."""
        return self.sum / self.count

    def __add__(self, other: "LossSum") -> "LossSum":
        return LossSum(
            self.sum + other.sum,
            self.count + other.count,
            self.num_correct + other.num_correct,
            self.mask_token_sum + other.mask_token_sum,
            self.num_mask_tokens + other.num_mask_tokens,
        )


def cross_entropy_sum(logits: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> LossSum:
    """Sum the categorical cross-entropy.

    Args:
        logits: (n, classes), float32.
        targets: True classes, (n,), int64; those of the padding of a micro-batch cost nothing, but are counted.
        class_weights: Weight of each class, (classes,); None weights all equally.

    >>> round(cross_entropy_sum(torch.tensor([[0.57, 0.43]]).log(), torch.tensor([0])).mean().item(), 3)
    0.562
    """
    num_correct = (logits.argmax(-1) == targets).sum() if len(targets) else targets.sum()
    loss = F.cross_entropy(logits, targets, class_weights, reduction="sum", ignore_index=_NO_TARGET)
    return LossSum(loss, len(targets), num_correct)


class Objective(nn.Module, Generic[AnyBatch]):
    """A model together with its loss."""

    def __call__(self, batch: AnyBatch) -> LossSum:
        """Compute the summed loss of a batch."""
        loss: LossSum = super().__call__(batch)
        return loss

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next(self.parameters()).device


def head_arithmetic(device: torch.device) -> AbstractContextManager[object]:
    """Multiply in float32 in a head and its pooling on a CPU, also while the encoder trains in bfloat16.

    The number of its rows varies, and oneDNN, which torch uses in bfloat16, would keep compiled code for each.
    """
    return torch.autocast("cpu", enabled=False) if device.type == "cpu" else nullcontext()


class MaskedLM(Objective[MaskedBatch]):
    """Masked language modelling: cross-entropy over the 20 amino acids, at the masked positions only."""

    def __init__(self, encoder: Encoder, lm_head: MaskedLMHead) -> None:
        super().__init__()
        self.encoder, self.lm_head = encoder, lm_head

    def logits(self, batch: MaskedBatch) -> Tensor:
        """Predict the masked residues of a batch: logits over the 20 amino acids, (masked, 20)."""
        layout = self.encoder.layout(batch.offsets, batch.longest)
        selected = layout.select(batch.positions)
        masked = self.encoder(to_device(batch.tokens, self.device), layout, selected=selected)  # (masked, dim)
        with head_arithmetic(self.device):
            return cast("Tensor", self.lm_head(masked, self.encoder.embedding.weight, AMINO_ACID_IDS))

    def nats(self, batch: MaskedBatch) -> Tensor:
        """Compute the cross-entropy of each masked residue of a batch, (masked,), float32."""
        targets = to_device(batch.targets, self.device) - FIRST_AMINO_ACID
        return F.cross_entropy(self.logits(batch), targets, reduction="none")

    def forward(self, batch: MaskedBatch) -> LossSum:
        """Sum the loss of a batch; see `loss`."""
        return self.loss(self.logits(batch), batch)

    def loss(self, logits: Tensor, batch: MaskedBatch) -> LossSum:
        """Sum C(y, ŷ) = -Σ y_i log ŷ_i over the masked residues of a batch, and over those behind `<mask>` alone.

        The logits are those of the batch, (masked, 20), float32.
        """
        targets = to_device(batch.targets, self.device) - FIRST_AMINO_ACID
        is_target = batch.targets != PAD
        # Other targets show a random residue, or the original one.
        is_mask_token = is_target & (batch.tokens[batch.positions] == MASK)
        nats = F.cross_entropy(logits.detach(), targets, reduction="none", ignore_index=_NO_TARGET)
        behind_mask = nats.where(to_device(is_mask_token, self.device), 0.0)
        return replace(
            cross_entropy_sum(logits, targets),
            count=int(is_target.sum()),
            mask_token_sum=behind_mask.sum(),
            num_mask_tokens=int(is_mask_token.sum()),
        )


class Distillation(MaskedLM):
    """Masked language modelling whose targets are mixtures of the true amino acid and what a teacher predicts.

    The loss is the cross-entropy with (1 - w) y + w q, where y is one for the true amino acid, and q are the teacher's
    probabilities for the same masked crops. The loss behind `<mask>` tokens is that of the true amino acids, as without
    a teacher.

    Args:
        encoder: Encoder that learns.
        lm_head: Its head.
        teacher: Function that computes the teacher's logits of a batch's masked residues, (masked, 20).
        weight: Weight w of the teacher's predictions.

    Source: Hinton et al. 2015, "Distilling the knowledge in a neural network", at temperature 1.
    """

    def __init__(
        self, encoder: Encoder, lm_head: MaskedLMHead, teacher: Callable[[MaskedBatch], Tensor], weight: float
    ) -> None:
        super().__init__(encoder, lm_head)
        self._teacher, self._weight = teacher, weight

    def forward(self, batch: MaskedBatch) -> LossSum:
        """Sum the loss of a batch with the mixed targets."""
        logits = self.logits(batch)
        targets = to_device(batch.targets, self.device)[:, None] - FIRST_AMINO_ACID  # (masked, 1)
        with torch.no_grad():
            expected = self._weight * self._teacher(batch).float().softmax(-1)  # (masked, 20)
        expected.scatter_add_(1, targets.clamp(min=0), torch.full_like(targets, 1 - self._weight, dtype=torch.float32))
        expected *= targets != _NO_TARGET
        return replace(self.loss(logits, batch), sum=F.cross_entropy(logits, expected, reduction="sum"))


class SupervisedObjective(Objective[LabelledBatch]):
    """Prediction of the labels of proteins, or of their residues, from the encoder's vectors.

    The loss is the cross-entropy for classes, the binary cross-entropy for labels, and half the squared error, in
    standard deviations of the training labels, for values. The vectors of a long protein are merged from its windows,
    as in `embed`.

    Args:
        encoder: Encoder, whose weights are trained with those of the head.
        task_head: Head, which defines the task.
        poolings: Poolings whose results are concatenated for the head; ignored if residues have labels.
        layer: Layer whose output is pooled; None is the last.
        class_weights: Weight of each class, or of the positives of each label, (classes,); None weights all equally.
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
        hidden = self.encoder(to_device(batch.tokens, self.device), layout, self._layer)  # (tokens, dim)
        crops, targets = iter(layout.split(hidden)), to_device(batch.targets, self.device)
        with head_arithmetic(self.device):
            vectors = [self._vectors([next(crops)[0] for _ in spans], spans) for spans in batch.spans]
            return self._loss(self.task_head(torch.cat(vectors)), targets)

    def _vectors(self, windows: Sequence[Tensor], spans: Sequence[Span]) -> Tensor:
        """Compute the input of the head for a protein: (1, poolings · dim), or (residues, dim)."""
        cls, residues = merge_windows(windows, spans)
        if self.task_head.task.per_residue:
            return residues
        return pool_protein(cls, residues, self._poolings, self.task_head.query)[None]

    def _loss(self, predictions: Tensor, targets: Tensor) -> LossSum:
        num_correct = torch.zeros((), dtype=torch.int64, device=predictions.device)
        if self.task_head.task.label_kind == "labels":
            loss = F.binary_cross_entropy_with_logits(
                predictions, targets, pos_weight=self.class_weights, reduction="sum"
            )
            return LossSum(loss, targets.numel(), num_correct)
        if self.task_head.task.label_kind == "class":
            has_target = targets != UNKNOWN_CLASS
            return cross_entropy_sum(predictions[has_target], targets[has_target], self.class_weights)
        has_target = ~targets.isnan()
        standardised = (targets[has_target] - self.task_head.offset) / self.task_head.scale
        error = F.mse_loss(predictions[has_target], standardised, reduction="sum") / 2
        return LossSum(error, len(standardised), num_correct)


def evaluate(objective: Objective[AnyBatch], batches: Sequence[AnyBatch], executor: Executor) -> LossSum:
    """Sum the loss over batches without training, in float32; each process computes its share of them.

    Raises:
        ValueError: If there is no batch.
    """
    if not batches:
        raise ValueError("there is no batch to evaluate")

    def compute_loss(batch: AnyBatch) -> LossSum:
        with torch.inference_mode():
            return objective(batch)

    losses = executor.pool.map(compute_loss, executor.processes.shard(batches))
    return total_loss(losses, objective.device, executor.processes)


def total_loss(losses: Iterable[LossSum], device: torch.device, processes: ProcessGroup) -> LossSum:
    """Sum the losses of batches that this process has computed on a device, and then those of all processes."""
    total = sum(losses, start=LossSum.zero(device))
    loss, count, num_correct = processes.all_reduce_sum(total.sum.item(), total.count, total.num_correct.item())
    return LossSum(torch.tensor(loss), int(count), torch.tensor(int(num_correct)))
