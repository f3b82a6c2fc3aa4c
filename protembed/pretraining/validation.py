"""Perplexity on frozen masks, beside what the training composition alone, or another model, would reach."""

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

_LARGEST_EXPONENT = 700.0
_MOST_HELD_OUT = 5_000


def perplexity(loss: float) -> float:
    """Turn mean nats per residue into a perplexity; one that no number can hold is the largest that can be.

    >>> round(perplexity(2.995732), 3)
    20.0
    """
    return math.exp(min(loss, _LARGEST_EXPONENT))


@dataclass(frozen=True)
class ValidationSet:
    """Proteins with hidden residues that never change.

    Attributes:
        name: what the log calls it.
        num_proteins: that are measured.
        micro_batches: all their windows.
    """

    name: str
    num_proteins: int
    micro_batches: Sequence[MaskedBatch]

    @classmethod
    def from_corpus(cls, corpus: Corpus, window_residues: int, micro_batch_tokens: int) -> "ValidationSet":
        """Hide residues of a corpus: of all that the user gave, or of some that were held out.

        Args:
            corpus: the proteins.
            window_residues: longer proteins are cut into windows of this length.
            micro_batch_tokens: the most tokens of a micro_batch.

        Raises:
            NothingToMeasureError: it has no standard residue.
        """
        # A twentieth of a large database would take longer to validate than to learn from.
        num_proteins = min(len(corpus), _MOST_HELD_OUT) if corpus.name == HELD_OUT_NAME else len(corpus)
        rows = np.linspace(0, len(corpus), num_proteins, endpoint=False).astype(int).tolist()
        micro_batches = validation_batches(corpus, window_residues, micro_batch_tokens, rows)
        if not sum(len(micro_batch.targets) for micro_batch in micro_batches):
            raise EmptyValidationSetError(corpus.name)
        return cls(corpus.name, num_proteins, micro_batches)


References = Mapping[str, Mapping[str, float]]


def reference_losses(
    corpora: Corpora, sets: Sequence[ValidationSet], compared: MaskedLM | None, compute: Executor
) -> References:
    """Measure what a model is compared with, as mean nats per hidden residue.

    Args:
        corpora: the training proteins make the unigram and the bigram model.
        sets: to measure on.
        compared: another model.
        compute: who computes.

    Returns:
        For each set by name: `unigram`, `bigram`, and `compared` where there is such a model.

    Raises:
        NotFiniteError: a loss of the compared model is no number.
    """
    composition = NgramModel(corpora.train)
    references = {part.name: composition.losses(part.micro_batches) for part in sets}
    if compared is not None:
        for part in sets:
            loss = evaluate(compared, part.micro_batches, compute).mean().item()
            check_finite(part.name, np.asarray(loss), "compared model's losses")
            references[part.name]["compared"] = loss
    return references


class Validator:
    """Measures a masked-LM objective on validation sets, the first of which decides.

    Args:
        objective: the model, measured as it stands at each call.
        sets: to measure on.
        references: of each set, from `reference_losses`.
        compute: who computes.
    """

    def __init__(
        self, objective: MaskedLM, sets: Sequence[ValidationSet], references: References, compute: Executor
    ) -> None:
        self._objective, self._sets, self._references, self._compute = objective, sets, references, compute

    @property
    def num_residues(self) -> int:
        """Residues of all sets."""
        return sum(micro_batch.num_residues for part in self._sets for micro_batch in part.micro_batches)

    def measure(self) -> dict[str, float]:
        """Measure the model: `valid_loss`, `valid_perplexity`, `valid_accuracy` and each reference's perplexity.

        The first set's figures have plain names, those of a further one begin with its name and a slash.
        """
        figures = dict[str, float]()
        for part in self._sets:
            prefix = "" if part is self._sets[0] else f"{part.name}/"
            loss = evaluate(self._objective, part.micro_batches, self._compute)
            mean = loss.mean().item()
            figures[f"{prefix}valid_loss"] = mean
            figures[f"{prefix}valid_perplexity"] = perplexity(mean)
            figures[f"{prefix}valid_accuracy"] = loss.num_correct.item() / loss.count
            for name, reference in self._references[part.name].items():
                figures[f"{prefix}{name}_perplexity"] = perplexity(reference)
        return figures


def evaluate_by_amino_acid(objective: MaskedLM, part: ValidationSet, compute: Executor) -> list[ClassMetrics]:
    """Measure a model on each amino acid apart, in this process alone, in the order of the alphabet."""
    losses = np.zeros(NUM_AMINO_ACIDS)
    guesses = np.zeros((NUM_AMINO_ACIDS, NUM_AMINO_ACIDS), dtype=np.int64)  # (true, guessed)

    def guess(batch: MaskedBatch) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        with torch.inference_mode():
            log_probabilities = objective.logits(batch).log_softmax(-1).cpu().numpy()  # (masked, 20)
        return batch.targets.numpy() - FIRST_AMINO_ACID, log_probabilities

    for truth, log_probabilities in compute.pool.map(guess, part.micro_batches):
        np.subtract.at(losses, truth, log_probabilities[np.arange(len(truth)), truth])
        np.add.at(guesses, (truth, log_probabilities.argmax(1)), 1)
    return class_metrics(AMINO_ACIDS, losses, guesses)


def gains_over_references(
    objective: MaskedLM, part: ValidationSet, composition: NgramModel, compared: MaskedLM | None, compute: Executor
) -> dict[str, MetricWithInterval]:
    """Measure how much better a model is than each reference, in this process alone.

    Args:
        objective: The model.
        part: The validation proteins.
        composition: The unigram and the bigram model.
        compared: Another model, if there is one.
        compute: The threads to use.

    Returns:
        For `unigram`, `bigram` and perhaps `compared`: the reference's mean loss less the model's, in nats per masked
        residue, with its 95 % interval over proteins. Both models of a pair are measured on the same proteins.
    """
    models = {"own": objective} | ({} if compared is None else {"compared": compared})

    def measure(batch: MaskedBatch) -> tuple[NDArray[np.int64], dict[str, NDArray[np.floating]]]:
        with torch.inference_mode():
            nats = {name: model.nats(batch).cpu() for name, model in models.items()}
        crops = torch.searchsorted(batch.offsets, batch.positions, right=True) - 1
        nats |= composition.nats(batch)
        return batch.rows[crops].numpy(), {name: values.numpy() for name, values in nats.items()}

    num_rows = 1 + max(int(micro_batch.rows.max()) for micro_batch in part.micro_batches)
    counts, sums = np.zeros(num_rows), dict[str, NDArray[np.float64]]()
    for rows, nats in compute.pool.map(measure, part.micro_batches):
        np.add.at(counts, rows, 1)
        for name, values in nats.items():
            np.add.at(sums.setdefault(name, np.zeros(num_rows)), rows, values)
    own = sums.pop("own")
    is_measured = counts > 0
    return {
        name: ratio_with_interval((reference - own)[is_measured], counts[is_measured])
        for name, reference in sums.items()
    }
