"""Describe the proteins that a fine-tuned model was trained and tested on, for its metadata."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from protembed.data.hashing import KmerSample
from protembed.finetuning.labels import SplitTable
from protembed.finetuning.targets import TaskTable, class_counts
from protembed.inference.applicability import num_nonstandard
from protembed.model.metadata import TrainingData

# Of the lengths of training proteins.
_QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)


def _class_counts(table: TaskTable) -> Mapping[str, int]:
    """Count the training proteins of each class, or the residues where each residue has a class."""
    names = table.classes or ()
    if table.task.per_residue:
        numbers = np.bincount(table.known_targets("train"), minlength=len(names))
        return dict(zip(names, numbers.tolist(), strict=True))
    counts = class_counts(table.splits["train"], table.task)
    return {name: counts[name] for name in names}


def describe_training(final: TaskTable, folds: Sequence[SplitTable]) -> tuple[TrainingData, Tensor]:
    """Describe the proteins that the final model is trained on, and those that models are tested on in the folds.

    Returns:
        The description, and the hashes of the training proteins' k-mers, (k-mers,), int64, ascending.
    """
    train, sample = final.sequences("train"), KmerSample.from_sequences(final.sequences("train"))
    tested = [sequence for table in folds for sequence in table.sequences("test")]
    sequences = [*(protein.sequence for protein in final.proteins), *tested]
    num_related = 0
    for table in folds:
        fold = sample if table is final else KmerSample.from_sequences(table.sequences("train"))
        num_related += sum(map(fold.shares_kmer, table.sequences("test")))
    values = final.known_targets("train") if final.task.label_kind == "value" else None
    data = TrainingData(
        num_proteins=len(train),
        lengths=tuple(int(np.quantile(list(map(len, train)), q, method="nearest")) for q in _QUANTILES),
        shortest=min(map(len, sequences)),
        longest=max(map(len, sequences)),
        num_nonstandard_residues=sum(map(num_nonstandard, train)),
        highest_nonstandard_fraction=max(num_nonstandard(sequence) / len(sequence) for sequence in sequences),
        starts_with_met_fraction=sum(sequence.startswith("M") for sequence in train) / len(train),
        class_counts=_class_counts(final) if values is None else None,
        value_range=None if values is None else (float(values.min()), float(values.max())),
        kmer_length=sample.length,
        num_tested=len(tested),
        num_tested_related=num_related,
    )
    return data, torch.from_numpy(sample.hashes)
