"""Measured values of variants in the table that is scored, and how well the scores rank them."""

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protembed.data.alphabet import AMINO_ACIDS
from protembed.scoring.baselines import BLOSUM62, POSITION_INDEPENDENT, MeasuredComparison, Values, blosum62
from protembed.scoring.mutations import Mutation
from protembed.scoring.variants import Variant

# Fewer measured variants than these have no correlation worth a line.
_MIN_VARIANTS = 3


def sum_over_substitutions(matrix: Values, substitutions: Sequence[Mutation]) -> float:
    """Sum the values of a matrix, (wild type, mutant), over substitutions.

    >>> sum_over_substitutions(blosum62(), [Mutation("L", 5, "I"), Mutation("L", 9, "D")])
    -2.0
    """
    return float(sum(matrix[AMINO_ACIDS.index(old.wild_type), AMINO_ACIDS.index(old.mutant)] for old in substitutions))


@dataclass(frozen=True, kw_only=True)
class MeasuredRow:
    """A variant that was measured, and its scores.

    Attributes:
        scores: The mean over the models, then that of each of several models, nats.
        per_residue: Score per residue of a variant with insertions or deletions, nats; NaN for others.
        measured: Measured value; NaN or None if there is none.
        position_independent: Mean score of the same substitutions at all positions, nats.
    """

    variant: Variant
    measured: float | None
    scores: Sequence[float]
    per_residue: float
    position_independent: float


class _Group:
    """Measured variants that are compared together, as columns of numbers."""

    def __init__(self, num_columns: int) -> None:
        self._values, self._num_columns = array("d"), num_columns
        self._numbers, self._keys = array("q"), dict[object, int]()

    def add(self, values: Sequence[float], key: object) -> None:
        self._values.extend(values)
        self._numbers.append(self._keys.setdefault(key, len(self._keys)))

    def __len__(self) -> int:
        return len(self._numbers)

    def columns(self) -> list[Values]:
        return list(np.array(self._values).reshape(-1, self._num_columns).T)

    def numbers(self) -> NDArray[np.int64]:
        return np.array(self._numbers, dtype=np.int64)


class MeasuredScores:
    """Collects the measured variants of a table, and compares the scores with the measurements.

    Substitutions are compared with BLOSUM62 and position-independent scores; insertions and deletions, which have
    neither, by themselves. The wild type is left out.

    Args:
        column: Column of the measurements.
        names: Columns of the scores: the mean over the models, then each of several models.
        per_residue: Column of the scores per residue.
    """

    def __init__(self, column: str, names: Sequence[str], per_residue: str) -> None:
        self._column, self._names, self._per_residue = column, names, per_residue
        self._substitutions = _Group(3 + len(names))
        self._indels = _Group(2 + len(names))

    def add(self, row: MeasuredRow) -> None:
        """Add a variant; one that was not measured, or is the wild type, is ignored."""
        variant = row.variant
        if row.measured is None or math.isnan(row.measured):
            return
        if variant.has_indels:
            self._indels.add([row.measured, *row.scores, row.per_residue], (variant.wild_type, variant.sequence))
        elif variant.mutations:
            positions = (variant.wild_type, *sorted(old.position for old in variant.substitutions))
            matrix_score = sum_over_substitutions(blosum62(), variant.substitutions)
            values = [row.measured, *row.scores, matrix_score, row.position_independent]
            self._substitutions.add(values, positions)

    def compare(self) -> list[MeasuredComparison]:
        """Compare substitutions, then insertions and deletions, each if there are at least three."""
        found = list[MeasuredComparison]()
        if len(self._substitutions) >= _MIN_VARIANTS:
            measured, *scores, matrix_scores, means = self._substitutions.columns()
            baselines = {BLOSUM62: matrix_scores, POSITION_INDEPENDENT: means}
            predictions = dict(zip(self._names, scores, strict=True))
            numbers, kind = self._substitutions.numbers(), "substitutions"
            found.append(MeasuredComparison.measure(self._column, measured, predictions, baselines, numbers, kind))
        if len(self._indels) >= _MIN_VARIANTS:
            measured, *scores, per_residue = self._indels.columns()
            names = [*self._names, self._per_residue]
            predictions = dict(zip(names, [*scores, per_residue], strict=True))
            numbers = self._indels.numbers()
            kind = "insertions and deletions"
            found.append(MeasuredComparison.measure(self._column, measured, predictions, {}, numbers, kind))
        return found
