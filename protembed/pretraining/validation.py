"""Validation on frozen masks: loss and perplexity of a model, and of the references that it is compared with."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from protembed.data.alphabet import FIRST_AMINO_ACID
from protembed.data.batching import MaskedBatch
from protembed.errors import EmptyValidationSetError
from protembed.evaluation.intervals import MetricWithInterval, ratio_with_interval
from protembed.inference.embedding import check_finite
from protembed.pretraining.amino_acids import AminoAcidPredictions
from protembed.pretraining.batches import fill_up, validation_batches
from protembed.pretraining.corpus import HELD_OUT_NAME, Corpus
from protembed.pretraining.ngrams import NgramModel
from protembed.training.distributed import Executor
from protembed.training.objective import LossSum, MaskedLM, evaluate, total_loss

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


def validates_in_bfloat16(device: torch.device, executor: Executor) -> bool:
    """Return whether validations during a run are in bfloat16: on GPUs, if the training is."""
    return device.type == "cuda" and executor.precision == torch.bfloat16


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
class Validation:
    """The result of a validation.

    Attributes:
        metrics: Metrics of all sets, as in `metrics.jsonl`.
        amino_acids: Predictions of the masked residues of the first set.
    """

    metrics: Mapping[str, float]
    amino_acids: AminoAcidPredictions


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

    @cached_property
    def ngrams(self) -> NgramModel:
        """The n-gram models of the training proteins, which are counted once."""
        return NgramModel(self.train)

    def reference_losses(self) -> References:
        """Evaluate the n-gram models, and the other model if there is one, on each validation set.

        Raises:
            NotFiniteError: If a loss of the compared model is not finite.
        """
        references = {valid_set.name: self.ngrams.losses(valid_set.micro_batches) for valid_set in self.valid_sets}
        compared = self.load_compared()
        if compared is not None:
            for valid_set in self.valid_sets:
                loss = evaluate(compared, valid_set.micro_batches, self.executor).mean().item()
                check_finite(valid_set.name, np.asarray(loss), "compared model's losses")
                references[valid_set.name]["compared"] = loss
        return references

    def validate(self, objective: MaskedLM, references: References) -> Validation:
        """Compute `valid_loss`, `valid_perplexity`, `valid_accuracy` and each reference's perplexity on each set.

        On a GPU this has the precision of the training, because attention in float32 takes one kernel per protein.
        Metrics of all sets but the first are prefixed with the name of the set and a slash.
        """
        metrics = dict[str, float]()
        predictions = list[AminoAcidPredictions]()
        for valid_set in self.valid_sets:
            prefix = "" if valid_set is self.valid_sets[0] else f"{valid_set.name}/"
            loss, by_amino_acid = _predict(objective, valid_set.micro_batches, self.executor)
            predictions.append(by_amino_acid)
            mean = loss.mean().item()
            metrics[f"{prefix}valid_loss"] = mean
            metrics[f"{prefix}valid_perplexity"] = perplexity(mean)
            metrics[f"{prefix}valid_accuracy"] = loss.num_correct.item() / loss.count
            for name, reference in references[valid_set.name].items():
                metrics[f"{prefix}{name}_perplexity"] = perplexity(reference)
        return Validation(metrics=metrics, amino_acids=predictions[0])

    def validate_exactly(self, objective: MaskedLM, references: References) -> Validation:
        """Validate in float32, all proteins in this process."""
        return replace(self, executor=Executor(pool=self.executor.pool)).validate(objective, references)

    def by_amino_acid(self, objective: MaskedLM) -> AminoAcidPredictions:
        """Predict the masked residues of the first set in float32, all of them in this process."""
        return _predict(objective, self.valid_sets[0].micro_batches, Executor(pool=self.executor.pool))[1]

    def gains(self, objective: MaskedLM) -> dict[str, MetricWithInterval]:
        """Compute how much better a model is than each reference on the first set, all of it in this process.

        Returns:
            Mean loss of `unigram`, `bigram` and `compared` (if there is one) minus that of the model, in nats per
            masked residue, with 95 % intervals over proteins. Both losses are of the same proteins.
        """
        ngrams, compared = self.ngrams, self.load_compared()
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


def _predict(
    objective: MaskedLM, micro_batches: Sequence[MaskedBatch], executor: Executor
) -> tuple[LossSum, AminoAcidPredictions]:
    """Predict masked residues in one pass; each process computes its share, and all have the sums."""
    device = objective.device
    is_mixed = validates_in_bfloat16(device, executor)

    def compute(batch: MaskedBatch) -> tuple[LossSum, NDArray[np.int64], NDArray[np.float32]]:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=is_mixed):
            logits = objective.logits(batch).float()
            log_probs = logits.log_softmax(-1).cpu().numpy()  # (masked, 20)
            return objective.loss(logits, batch), batch.targets.numpy() - FIRST_AMINO_ACID, log_probs

    losses, predictions = list[LossSum](), AminoAcidPredictions.zero()
    share = fill_up(executor.processes.shard(micro_batches), len(micro_batches), executor.processes)
    for loss, targets, log_probs in executor.pool.map(compute, share):
        losses.append(loss)
        predictions.add(targets, log_probs)
    sums = (predictions.losses, predictions.counts, predictions.probabilities)
    executor.processes.all_reduce([torch.from_numpy(array) for array in sums])  # in place
    return total_loss(losses, device, executor.processes), predictions
