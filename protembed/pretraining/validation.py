"""Validation on frozen masks: loss and perplexity of a model, and of the references that it is compared with."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from protembed.data.alphabet import AMINO_ACIDS, FIRST_AMINO_ACID, NUM_AMINO_ACIDS
from protembed.data.batching import MaskedBatch
from protembed.errors import EmptyValidationSetError
from protembed.evaluation.intervals import MetricWithInterval, ratio_with_interval
from protembed.evaluation.metrics import ClassMetrics, class_metrics
from protembed.inference.embedding import check_finite
from protembed.pretraining.batches import validation_batches
from protembed.pretraining.corpus import HELD_OUT_NAME, Corpus
from protembed.pretraining.ngrams import NgramModel
from protembed.training.distributed import Executor
from protembed.training.objective import MaskedLM, Objective, evaluate

# Validating on a twentieth of a large database would take longer than training.
_MAX_HELD_OUT = 5_000
_MAX_EXPONENT = 700.0

# Mean nats per masked residue by the name of a validation set and of a reference.
References = Mapping[str, Mapping[str, float]]


def perplexity(loss: float) -> float:
    """Convert mean nats per residue to a perplexity, limited to what float64 can hold.

    >>> round(perplexity(2.995732), 3)
    20.0
    """
    return math.exp(min(loss, _MAX_EXPONENT))


@dataclass(frozen=True)
class ValidationSet:
    """Proteins whose masked residues never change, divided into windows."""

    name: str
    num_proteins: int
    micro_batches: Sequence[MaskedBatch]

    @classmethod
    def from_corpus(
        cls, corpus: Corpus, window_residues: int, micro_batch_tokens: int, *, max_held_out: int = _MAX_HELD_OUT
    ) -> "ValidationSet":
        """Mask residues of all proteins that the user gave, or of a sample of those that were held out.

        Raises:
            EmptyValidationSetError: If there is no standard residue.
        """
        num_proteins = min(len(corpus), max_held_out) if corpus.name == HELD_OUT_NAME else len(corpus)
        rows = np.linspace(0, len(corpus), num_proteins, endpoint=False).astype(int).tolist()
        micro_batches = validation_batches(corpus, window_residues, micro_batch_tokens, rows)
        if not sum(len(micro_batch.targets) for micro_batch in micro_batches):
            raise EmptyValidationSetError(corpus.name)
        return cls(corpus.name, num_proteins, micro_batches)


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """Evaluates models on validation sets, beside the references that they are compared with.

    Attributes:
        train: Training proteins, in which the n-gram models count.
        valid_sets: Validation sets; the first decides which model is best.
        load_compared: Function that loads another model to compare with; it returns None if there is none.
    """

    train: Corpus
    valid_sets: Sequence[ValidationSet]
    load_compared: Callable[[], MaskedLM | None]
    executor: Executor

    @property
    def num_residues(self) -> int:
        """Residues of all windows of all sets, masked ones included."""
        return sum(micro_batch.num_residues for valid_set in self.valid_sets for micro_batch in valid_set.micro_batches)

    def reference_losses(self) -> References:
        """Evaluate the n-gram models, and the other model if there is one, on each validation set.

        Raises:
            NotFiniteError: If a loss of the compared model is not finite.
        """
        ngrams = NgramModel(self.train)
        references = {valid_set.name: ngrams.losses(valid_set.micro_batches) for valid_set in self.valid_sets}
        compared = self.load_compared()
        if compared is not None:
            for valid_set in self.valid_sets:
                loss = evaluate(compared, valid_set.micro_batches, self.executor).mean().item()
                check_finite(valid_set.name, np.asarray(loss), "compared model's losses")
                references[valid_set.name]["compared"] = loss
        return references

    def validate(self, objective: Objective[MaskedBatch], references: References) -> dict[str, float]:
        """Compute `valid_loss`, `valid_perplexity`, `valid_accuracy` and each reference's perplexity on each set.

        Metrics of all sets but the first are prefixed with the name of the set and a slash.
        """
        metrics = dict[str, float]()
        for valid_set in self.valid_sets:
            prefix = "" if valid_set is self.valid_sets[0] else f"{valid_set.name}/"
            loss = evaluate(objective, valid_set.micro_batches, self.executor)
            mean = loss.mean().item()
            metrics[f"{prefix}valid_loss"] = mean
            metrics[f"{prefix}valid_perplexity"] = perplexity(mean)
            metrics[f"{prefix}valid_accuracy"] = loss.num_correct.item() / loss.count
            for name, reference in references[valid_set.name].items():
                metrics[f"{prefix}{name}_perplexity"] = perplexity(reference)
        return metrics

    def by_amino_acid(self, objective: MaskedLM) -> list[ClassMetrics]:
        """Evaluate a model on each amino acid of the first set, in the order of the alphabet, in this process alone."""
        losses = np.zeros(NUM_AMINO_ACIDS)
        confusion = np.zeros((NUM_AMINO_ACIDS, NUM_AMINO_ACIDS), dtype=np.int64)  # (true, predicted)

        def predict(batch: MaskedBatch) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
            with torch.inference_mode():
                log_probs = objective.logits(batch).log_softmax(-1).cpu().numpy()  # (masked, 20)
            return batch.targets.numpy() - FIRST_AMINO_ACID, log_probs

        for targets, log_probs in self.executor.pool.map(predict, self.valid_sets[0].micro_batches):
            np.subtract.at(losses, targets, log_probs[np.arange(len(targets)), targets])
            np.add.at(confusion, (targets, log_probs.argmax(1)), 1)
        return class_metrics(AMINO_ACIDS, losses, confusion)

    def gains(self, objective: MaskedLM) -> dict[str, MetricWithInterval]:
        """Compute how much better a model is than each reference on the first set, in this process alone.

        Returns:
            Mean loss of `unigram`, `bigram` and `compared` (if there is one) minus that of the model, in nats per
            masked residue, with 95 % intervals over proteins. Both losses are of the same proteins.
        """
        ngrams, compared = NgramModel(self.train), self.load_compared()
        models = {"model": objective} | ({} if compared is None else {"compared": compared})

        def compute_nats(batch: MaskedBatch) -> dict[str, Tensor]:
            with torch.inference_mode():
                return {name: model.nats(batch).cpu() for name, model in models.items()} | ngrams.nats(batch)

        micro_batches = self.valid_sets[0].micro_batches
        nats = list(self.executor.pool.map(compute_nats, micro_batches))
        crops = [torch.searchsorted(batch.offsets, batch.positions, right=True) - 1 for batch in micro_batches]
        rows = torch.cat([batch.rows[indices] for batch, indices in zip(micro_batches, crops, strict=True)])
        proteins = rows.unique(return_inverse=True)[1].numpy()  # some have no masked residue
        sums = {
            name: np.bincount(proteins, torch.cat([losses[name] for losses in nats]).numpy()).astype(np.float64)
            for name in nats[0]
        }
        model_sums, num_residues = sums.pop("model"), np.bincount(proteins).astype(np.float64)
        return {name: ratio_with_interval(total - model_sums, num_residues) for name, total in sums.items()}
