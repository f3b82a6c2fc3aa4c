"""What a model predicts for the test proteins, and what is known about each of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protembed.data.similarity import nearest
from protembed.finetuning.comparison import Predictions
from protembed.finetuning.labels import LabelledProtein
from protembed.finetuning.subgroups import (
    SIMILARITY_EDGES,
    Subgroup,
    join_small_ranges,
    length_edges,
    measure_subgroups,
)
from protembed.finetuning.targets import TaskTable


@dataclass(frozen=True, kw_only=True)
class Relatives:
    """The nearest training protein of each test protein.

    Attributes:
        similarities: Similarity to it, (proteins,), float64.
        neighbours: Its identifier; empty where no training protein is similar.
    """

    similarities: NDArray[np.float64]
    neighbours: Sequence[str]

    @classmethod
    def find(cls, folds: Sequence[TaskTable]) -> "Relatives":
        """Compare the test proteins of each fold with its training proteins."""
        similarities, neighbours = list[float](), list[str]()
        for fold in folds:
            indices, of_fold = nearest(fold.sequences("test"), fold.sequences("train"))
            similarities += of_fold.tolist()
            neighbours += [
                fold.splits["train"][index].id if similarity > 0 else ""
                for index, similarity in zip(indices, of_fold, strict=True)
            ]
        return cls(similarities=np.array(similarities), neighbours=neighbours)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A model's predictions for the test proteins, fold by fold.

    Attributes:
        classes: Names of the classes or labels; None for values.
        training: Proteins that the final model was trained on.
        proteins: Test proteins.
        threshold: Probability from which on a label counts as predicted.
    """

    classes: Sequence[str] | None
    training: Sequence[LabelledProtein]
    proteins: Sequence[LabelledProtein]
    predictions: Predictions
    threshold: float
    relatives: Relatives

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Residues of each test protein, (proteins,), int64."""
        return np.array([len(protein.sequence) for protein in self.proteins], np.int64)

    def by_similarity(self) -> list[Subgroup]:
        """Compute metrics by the similarity to the nearest training protein."""
        similarities = self.relatives.similarities
        return measure_subgroups(self.predictions, similarities, join_small_ranges(similarities, SIMILARITY_EDGES))

    def by_length(self) -> list[Subgroup]:
        """Compute metrics by length."""
        lengths = self.lengths
        return measure_subgroups(self.predictions, lengths, join_small_ranges(lengths, length_edges(lengths)))

    def relative_rows(self) -> Iterator[list[str]]:
        """Yield a row of `test_similarity.tsv` for each test protein."""
        relatives = zip(self.proteins, self.relatives.similarities, self.relatives.neighbours, strict=True)
        for protein, similarity, neighbour in relatives:
            yield [protein.id, f"{similarity:.3f}", neighbour]
