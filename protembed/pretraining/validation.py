"""Validation on frozen masks: loss and perplexity of a model, and of the references that it is compared with."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from protembed.data.alphabet import AMINO_ACIDS, FIRST_AMINO_ACID, NUM_AMINO_ACIDS
from protembed.data.batching import MaskedBatch
from protembed.errors import EmptyValidationSetError
from protembed.evaluation.intervals import MetricWithInterval, ratio_with_interval
from protembed.evaluation.metrics import ClassMetrics, class_metrics
from protembed.inference.embedding import check_finite
from protembed.pretraining.batches import validation_batches
from protembed.pretraining.corpus import HELD_OUT_NAME, Corpora, Corpus
from protembed.pretraining.ngrams import NgramModel
from protembed.training.distributed import Executor
from protembed.training.objective import MaskedLM, evaluate

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
    """Proteins whose masked residues never change.

    Attributes:
        name: Name of the set in messages and logs.
        num_proteins: Number of proteins.
        micro_batches: Windows of all proteins.
    """

    name: str
    num_proteins: int
    micro_batches: Sequence[MaskedBatch]

    @classmethod
    def from_corpus(
        cls, corpus: Corpus, window_residues: int, micro_batch_tokens: int, *, max_held_out: int = _MAX_HELD_OUT
    ) -> "ValidationSet":
        """Mask residues of all proteins that the user gave, or of a sample of those that were held out.

        Args:
            corpus: Validation proteins.
            window_residues: Length of the windows into which longer proteins are divided.
            micro_batch_tokens: Largest number of tokens of a micro-batch.
            max_held_out: Largest number of held-out proteins.

        Raises:
            EmptyValidationSetError: If there is no standard residue.
        """
        num_proteins = min(len(corpus), max_held_out) if corpus.name == HELD_OUT_NAME else len(corpus)
        rows = np.linspace(0, len(corpus), num_proteins, endpoint=False).astype(int).tolist()
        micro_batches = validation_batches(corpus, window_residues, micro_batch_tokens, rows)
        if not sum(len(micro_batch.targets) for micro_batch in micro_batches):
            raise EmptyValidationSetError(corpus.name)
        return cls(corpus.name, num_proteins, micro_batches)


def reference_losses(
    corpora: Corpora, valid_sets: Sequence[ValidationSet], compared: MaskedLM | None, executor: Executor
) -> References:
    """Evaluate the n-gram models, and another model if given, on each validation set.

    Args:
        corpora: Corpora with the training proteins of the n-gram models.
        valid_sets: Validation sets.
        compared: Another model; None if there is none.
        executor: Threads and processes to use.

    Returns:
        Mean nats per masked residue, by the set's name and `unigram`, `bigram`, or `compared` if given.

    Raises:
        NotFiniteError: If a loss of the compared model is not finite.
    """
    ngrams = NgramModel(corpora.train)
    references = {valid_set.name: ngrams.losses(valid_set.micro_batches) for valid_set in valid_sets}
    if compared is not None:
        for valid_set in valid_sets:
            loss = evaluate(compared, valid_set.micro_batches, executor).mean().item()
            check_finite(valid_set.name, np.asarray(loss), "compared model's losses")
            references[valid_set.name]["compared"] = loss
    return references


class Validator:
    """Evaluates a model on all validation sets; the loss on the first set decides which model is best.

    Args:
        objective: Model, which may change between calls.
        valid_sets: Validation sets.
        references: Losses of the references on each set, from `reference_losses`.
        executor: Threads and processes to use.
    """

    def __init__(
        self, objective: MaskedLM, valid_sets: Sequence[ValidationSet], references: References, executor: Executor
    ) -> None:
        self._objective, self._sets, self._references, self._executor = objective, valid_sets, references, executor

    @property
    def num_residues(self) -> int:
        """Residues of all sets."""
        return sum(micro_batch.num_residues for valid_set in self._sets for micro_batch in valid_set.micro_batches)

    def measure(self) -> dict[str, float]:
        """Compute `valid_loss`, `valid_perplexity`, `valid_accuracy` and each reference's perplexity.

        Metrics of all sets but the first are prefixed with the name of the set and a slash.
        """
        metrics = dict[str, float]()
        for valid_set in self._sets:
            prefix = "" if valid_set is self._sets[0] else f"{valid_set.name}/"
            loss = evaluate(self._objective, valid_set.micro_batches, self._executor)
            mean = loss.mean().item()
            metrics[f"{prefix}valid_loss"] = mean
            metrics[f"{prefix}valid_perplexity"] = perplexity(mean)
            metrics[f"{prefix}valid_accuracy"] = loss.num_correct.item() / loss.count
            for name, reference in self._references[valid_set.name].items():
                metrics[f"{prefix}{name}_perplexity"] = perplexity(reference)
        return metrics


def evaluate_by_amino_acid(objective: MaskedLM, valid_set: ValidationSet, executor: Executor) -> list[ClassMetrics]:
    """Evaluate a model on each amino acid separately, in the order of the alphabet, in this process alone.

    Args:
        objective: Model.
        valid_set: Validation proteins.
        executor: Threads to use.
    """
    losses = np.zeros(NUM_AMINO_ACIDS)
    confusion = np.zeros((NUM_AMINO_ACIDS, NUM_AMINO_ACIDS), dtype=np.int64)  # (true, predicted)

    def predict(batch: MaskedBatch) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        with torch.inference_mode():
            log_probs = objective.logits(batch).log_softmax(-1).cpu().numpy()  # (masked, 20)
        return batch.targets.numpy() - FIRST_AMINO_ACID, log_probs

    for targets, log_probs in executor.pool.map(predict, valid_set.micro_batches):
        np.subtract.at(losses, targets, log_probs[np.arange(len(targets)), targets])
        np.add.at(confusion, (targets, log_probs.argmax(1)), 1)
    return class_metrics(AMINO_ACIDS, losses, confusion)


def gains_over_references(
    objective: MaskedLM, valid_set: ValidationSet, ngrams: NgramModel, compared: MaskedLM | None, executor: Executor
) -> dict[str, MetricWithInterval]:
    """Compute how much better a model is than each reference, in this process alone.

    Args:
        objective: Model.
        valid_set: Validation proteins.
        ngrams: Unigram and bigram model.
        compared: Another model; None if there is none.
        executor: Threads to use.

    Returns:
        Mean loss of `unigram`, `bigram` and `compared` (if given) minus that of the model, in nats per masked residue,
        with 95 % intervals over proteins. Both losses are of the same proteins.
    """
    models = {"model": objective} | ({} if compared is None else {"compared": compared})

    def compute_nats(batch: MaskedBatch) -> tuple[NDArray[np.int64], dict[str, NDArray[np.floating]]]:
        with torch.inference_mode():
            nats = {name: model.nats(batch).cpu() for name, model in models.items()}
        crops = torch.searchsorted(batch.offsets, batch.positions, right=True) - 1
        nats |= ngrams.nats(batch)
        return batch.rows[crops].numpy(), {name: values.numpy() for name, values in nats.items()}

    num_rows = 1 + max(int(micro_batch.rows.max()) for micro_batch in valid_set.micro_batches)
    counts, sums = np.zeros(num_rows), dict[str, NDArray[np.float64]]()
    for rows, nats in executor.pool.map(compute_nats, valid_set.micro_batches):
        np.add.at(counts, rows, 1)
        for name, values in nats.items():
            np.add.at(sums.setdefault(name, np.zeros(num_rows)), rows, values)
    model_sums = sums.pop("model")
    has_targets = counts > 0
    return {
        name: ratio_with_interval((reference_sums - model_sums)[has_targets], counts[has_targets])
        for name, reference_sums in sums.items()
    }
