"""How good transferred labels are: labelled proteins get those of others, with all similar proteins left out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protembed.evaluation.intervals import MetricWithInterval, ratio_with_interval
from protembed.search.neighbours import Neighbours
from protembed.search.reliability import Reliability, calibration_error, cross_fitted
from protembed.search.transfer import Guesses, KnownLabels
from protembed.text import format_percent, format_with_interval, pluralize

# What is averaged over proteins, by the kind of the labels: its name, and that of the scale of its interval.
_METRICS: Mapping[str, tuple[str, str]] = {
    "class": ("accuracy", "accuracy"),
    "labels": ("mean F1", "macro_f1"),
    "value": ("mean absolute error", "rmse"),
}
_COVERAGE = 0.95
_THRESHOLDS = np.arange(1, 20) / 20


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What was measured on the labelled proteins of a database.

    Attributes:
        known: Their labels.
        threshold: Least share of a label among the neighbours, if a protein may have several.
        reliability: Model of the probability that a label is right.
        half_width: Half the width of the interval that holds 95 % of the values; None for labels.
        vectors: Mean quality of labels from neighbours by vectors.
        kmers: Mean quality of the label of the nearest protein by k-mers.
        gain: By how much vectors are better than k-mers.
        error: Mean difference between reliability and what is right, by models of other clusters.
        num_proteins: Proteins that were tested.
        num_clusters: Their clusters of similar sequences.
    """

    known: KnownLabels
    threshold: float
    reliability: Reliability
    half_width: float | None
    vectors: MetricWithInterval
    kmers: MetricWithInterval
    gain: MetricWithInterval
    error: float
    num_proteins: int
    num_clusters: int

    @classmethod
    def measure(
        cls,
        known: KnownLabels,
        rows: NDArray[np.int64],
        clusters: NDArray[np.int64],
        neighbours: Neighbours,
        nearest_by_kmers: NDArray[np.int64],
    ) -> "Calibration":
        """Measure how good transferred labels are.

        Args:
            known: Labels of all labelled proteins.
            rows: Indices of the labelled proteins that are tested, (proteins,), int64.
            clusters: Cluster of each of them, (proteins,), int64.
            neighbours: Their neighbours in other clusters.
            nearest_by_kmers: The labelled protein of another cluster that is nearest by k-mers, (proteins,), int64; -1
                where none shares more k-mers than unrelated proteins do.
        """
        truth = known.of(rows)
        threshold = _best_threshold(known, neighbours, truth) if known.kind == "labels" else 0.0
        guesses, features = known.transfer(neighbours, threshold)
        right = known.right(guesses, truth)
        qualities = known.quality(guesses, truth), known.quality(known.of(nearest_by_kmers), truth)
        vectors, kmers = (_mean(quality, clusters, _METRICS[known.kind][1]) for quality in qualities)
        sign = -1 if known.kind == "value" else 1
        is_value = known.kind == "value"
        return cls(
            known=known,
            threshold=threshold,
            reliability=Reliability.fit(features, right, clusters),
            half_width=float(np.quantile(known.error(guesses, truth), _COVERAGE)) if is_value else None,
            vectors=vectors,
            kmers=kmers,
            gain=_mean(sign * (qualities[0] - qualities[1]), clusters, ""),
            error=calibration_error(cross_fitted(features, right, clusters), right),
            num_proteins=len(rows),
            num_clusters=len(np.unique(clusters)),
        )

    def transfer(self, neighbours: Neighbours) -> tuple[Guesses, NDArray[np.float64]]:
        """Give queries the labels of their neighbours.

        Returns:
            The labels, and the reliability of each query's with the ends of its 95 % interval, (queries, 3), float64.
        """
        guesses, features = self.known.transfer(neighbours, self.threshold)
        return guesses, self.reliability.predict(features)

    def sentences(self) -> list[str]:
        """Describe what was measured."""
        name = _METRICS[self.known.kind][0]
        vectors, kmers = (format_with_interval(part.value, part.low, part.high) for part in (self.vectors, self.kmers))
        gain = format_with_interval(self.gain.value, self.gain.low, self.gain.high, 3, signed=True)
        if self.gain.low is not None and self.gain.low > 0:
            verdict = f"vectors are better than k-mers: {gain}"
        elif self.gain.high is not None and self.gain.high < 0:
            verdict = f"vectors are worse than k-mers: {gain}; use the column kmer_label"
        else:
            verdict = f"vectors add nothing to k-mers on this database: {gain}"
        tested = f"{pluralize(self.num_proteins, 'labelled protein')} in {pluralize(self.num_clusters, 'cluster')}"
        return [
            f"{tested}, each without its cluster of similar sequences: {name} {vectors} by the neighbours' vectors, "
            f"{kmers} by the nearest protein by k-mers",
            verdict,
            f"the reliability differs from what is right by {format_percent(self.error)} on average",
        ]

    def record(self) -> dict[str, Any]:
        """Return what was measured as plain values, for the record of the table."""
        return {
            "label_kind": self.known.kind,
            "metric": _METRICS[self.known.kind][0],
            **{name: vars(getattr(self, name)) for name in ("vectors", "kmers", "gain")},
            "calibration_error": self.error,
            "threshold": self.threshold,
            "num_proteins": self.num_proteins,
            "num_clusters": self.num_clusters,
        }


def _best_threshold(known: KnownLabels, neighbours: Neighbours, truth: Guesses) -> float:
    """Find the share of a label among the neighbours above which the mean F1 of all proteins is largest."""
    means = [known.quality(known.transfer(neighbours, threshold)[0], truth).mean() for threshold in _THRESHOLDS]
    return float(_THRESHOLDS[int(np.argmax(means))])


def _mean(values: NDArray[np.float64], clusters: NDArray[np.int64], metric: str) -> MetricWithInterval:
    """Average over proteins, with a 95 % interval over clusters."""
    _, codes = np.unique(clusters, return_inverse=True)
    sums = np.bincount(codes, values).astype(np.float64)
    counts = np.bincount(codes).astype(np.float64)
    return ratio_with_interval(sums, counts, metric)
