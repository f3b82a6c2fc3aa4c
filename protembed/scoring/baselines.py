"""What a model's scores are compared with where variants were measured: substitution scores that know no position.

BLOSUM62 needs no model at all. The position-independent score is the mean of the model's own scores of a substitution
over all positions with its wild-type residue: where the model is no better than that, what it knows about single
positions does not help.

Source: Henikoff and Henikoff 1992, "Amino acid substitution matrices from protein blocks"; Livesey and Marsh 2020,
"Using deep mutational scanning to benchmark variant effect predictors", which compares predictors with such matrices.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from protembed.data.alphabet import AMINO_ACIDS, NUM_AMINO_ACIDS
from protembed.evaluation.intervals import MetricWithInterval, jackknife
from protembed.evaluation.metrics import point_metrics, regression_measure
from protembed.text import format_difference, format_with_interval

BLOSUM62, POSITION_INDEPENDENT = "BLOSUM62", "position-independent"
# With fewer groups of variants, a correlation has no interval.
MIN_GROUPS_FOR_INTERVAL = 10

Values = NDArray[np.float64]


@cache
def blosum62() -> Values:
    """Return BLOSUM62, (wild type, mutant), float64, half-bits, both in the order of the alphabet.

    >>> leucine, isoleucine, aspartate = (AMINO_ACIDS.index(letter) for letter in "LID")
    >>> blosum62()[leucine, [leucine, isoleucine, aspartate]].tolist()
    [4.0, 2.0, -4.0]
    """
    from Bio.Align import substitution_matrices  # which takes a fifth of a second to import

    matrix = substitution_matrices.load("BLOSUM62")
    return np.array([[matrix[old, new] for new in AMINO_ACIDS] for old in AMINO_ACIDS], dtype=np.float64)


class SubstitutionMeans:
    """The mean score of each substitution over the positions at which a model was asked.

    >>> means = SubstitutionMeans()
    >>> means.add(np.array([3, 3]), np.stack([np.full(20, -1.0), np.full(20, -2.0)]))
    >>> float(means.matrix()[3, 0]), bool(np.isnan(means.matrix()[4]).all())
    (-1.5, True)
    """

    def __init__(self) -> None:
        self._sums = np.zeros((NUM_AMINO_ACIDS, NUM_AMINO_ACIDS))
        self._counts = np.zeros((NUM_AMINO_ACIDS, 1))

    def add(self, wild_types: NDArray[np.int64], scores: NDArray[np.floating]) -> None:
        """Add positions.

        Args:
            wild_types: Index of each position's wild-type residue in the alphabet, (positions,), int64.
            scores: Scores of all substitutions, log p(mutant) - log p(wild type), (positions, 20), nats.
        """
        np.add.at(self._sums, wild_types, scores)
        np.add.at(self._counts, wild_types, 1.0)

    def matrix(self) -> Values:
        """Return the means, (wild type, mutant), float64, nats; NaN for residues that no position has."""
        return self._sums / np.where(self._counts > 0, self._counts, np.nan)


def spearman_with_interval(measured: Values, predicted: Values, groups: NDArray[np.int64]) -> MetricWithInterval:
    """Correlate predictions with measurements by rank, with the 95 % interval over groups of variants.

    Args:
        measured: Measured values, (variants,), float64.
        predicted: Predicted values, (variants,), float64.
        groups: Number of each variant's group, (variants,), int64, from 0: variants of the same positions are one.

    Returns:
        Spearman's correlation; without an interval for a handful of groups, None where one side does not vary.
    """
    return _with_interval(*_spearman(measured, predicted, groups), groups)


@dataclass(frozen=True, kw_only=True)
class MeasuredComparison:
    """How well a model and the baselines rank measured variants.

    Attributes:
        column: Column, or other name, of the measurements.
        num_variants: Variants that were measured and compared.
        num_groups: Groups of variants with the same mutated positions, the units of the intervals.
        spearman: Spearman's correlation of each predictor with the measurements, the model's first.
        differences: The model's correlation minus that of each baseline, on the same variants.
        kind: Kind of the variants, in the plural.
    """

    column: str
    num_variants: int
    num_groups: int
    spearman: Mapping[str, MetricWithInterval]
    differences: Mapping[str, MetricWithInterval]
    kind: str = "variants"

    @classmethod
    def measure(
        cls,
        column: str,
        measured: Values,
        predictions: Mapping[str, Values],
        baselines: Mapping[str, Values],
        groups: NDArray[np.int64],
        kind: str = "variants",
    ) -> Self:
        """Compare predictors on the same variants.

        Args:
            column: Column, or other name, of the measurements.
            measured: Measured values, (variants,), float64.
            predictions: Scores by the name of the model, (variants,), float64 each; the first is compared.
            baselines: Scores by the name of the baseline, (variants,), float64 each.
            groups: Number of each variant's group, as in `spearman_with_interval`.
            kind: Kind of the variants, in the plural.
        """
        raw = {name: _spearman(measured, values, groups) for name, values in {**predictions, **baselines}.items()}
        first = raw[next(iter(predictions))]
        return cls(
            column=column,
            num_variants=len(measured),
            num_groups=_num_groups(groups),
            spearman={name: _with_interval(*pair, groups) for name, pair in raw.items()},
            differences={name: _difference(first, raw[name], groups) for name in baselines},
            kind=kind,
        )

    @classmethod
    def from_record(cls, recorded: Mapping[str, Any]) -> Self:
        """Read what `as_record` returned."""
        metrics = {
            name: {key: MetricWithInterval(**value) for key, value in recorded[name].items()}
            for name in ("spearman", "differences")
        }
        return cls(**{**recorded, **metrics})

    def as_record(self) -> dict[str, Any]:
        """Return all values as JSON can hold them."""
        return asdict(self)

    def verdict(self, baseline: str) -> str | None:
        """Say whether the model ranks better than a baseline; None where a correlation is undefined."""
        difference = self.differences[baseline]
        name = "its position-independent means" if baseline == POSITION_INDEPENDENT else baseline
        if difference.value is None:
            return None
        size = f"Spearman {format_difference(difference.value)}"
        if difference.low is None or difference.high is None:
            return f"too few measured positions to compare the model with {name}: {size}"
        size += f" (95 % interval {format_difference(difference.low)} to {format_difference(difference.high)})"
        if difference.low > 0:
            return f"the model ranks these variants better than {name}: {size}"
        if difference.high < 0:
            return f"the model is no better than {name} here, but worse: {size}"
        return f"the model is no better than {name} here, as far as these variants show: {size}"

    def lines(self) -> list[str]:
        """Report the correlations in one line, and how the model compares with each baseline."""
        values = [
            f"{name} {format_with_interval(metric.value, metric.low, metric.high, 3)}"
            for name, metric in self.spearman.items()
        ]
        counts = f"{self.num_variants:,} {self.kind} at {self.num_groups:,} positions"
        verdicts = [self.verdict(name) for name in self.differences]
        return [f"Spearman with {self.column!r} ({counts}): {', '.join(values)}", *filter(None, verdicts)]


def _num_groups(groups: NDArray[np.int64]) -> int:
    return int(groups.max()) + 1 if len(groups) else 0


_Jackknifed = tuple[float | None, Values]


def _spearman(measured: Values, predicted: Values, groups: NDArray[np.int64]) -> _Jackknifed:
    """Return the correlation, and that without each group or groups of them in turn, (groups,)."""
    measure, num_groups = regression_measure(measured, predicted, groups), _num_groups(groups)
    value = point_metrics(measure, num_groups)["spearman"]
    if num_groups < MIN_GROUPS_FOR_INTERVAL:
        return value, np.empty(0)
    return value, jackknife(lambda draws: {"spearman": measure(draws)["spearman"]}, num_groups)["spearman"]


def _difference(model: _Jackknifed, baseline: _Jackknifed, groups: NDArray[np.int64]) -> MetricWithInterval:
    value = None if model[0] is None or baseline[0] is None else model[0] - baseline[0]
    return _with_interval(value, model[1] - baseline[1], groups, is_difference=True)


def _with_interval(
    value: float | None, left_out: Values, groups: NDArray[np.int64], *, is_difference: bool = False
) -> MetricWithInterval:
    return MetricWithInterval.from_jackknife(
        value, left_out, metric="spearman", num_units=_num_groups(groups), is_difference=is_difference
    )
