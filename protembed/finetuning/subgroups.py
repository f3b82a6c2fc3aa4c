"""Metrics of the test proteins in ranges of similarity to the training proteins, and of length."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from protembed.evaluation.intervals import Interval, MetricWithInterval
from protembed.evaluation.metrics import Metrics
from protembed.finetuning.comparison import MIN_PROTEINS_FOR_INTERVAL, Predictions

# Below a similarity of 0.4, unrelated proteins cannot be distinguished from distant relatives
# (`protembed.finetuning.splits`).
SIMILARITY_EDGES = (0.0, 0.4, 0.6, 0.8, 1.0, np.inf)
_QUARTERS = (0.25, 0.5, 0.75)

# Of each protein, such as its length or similarity, (proteins,).
Values = NDArray[np.floating] | NDArray[np.integer]


@dataclass(frozen=True, kw_only=True)
class Subgroup:
    """The metrics of the test proteins within a range of length or similarity.

    Attributes:
        low: The lowest length (residues) or similarity.
        high: The upper limit of the range, which is not part of it; None where there is no limit.
        metrics: Each metric; None where it is not defined.
        intervals: The 95 % interval of each metric; None where there is none, as with few proteins.
    """

    low: float
    high: float | None
    num_proteins: int
    metrics: Metrics
    intervals: Mapping[str, Interval | None]

    def metric(self, name: str) -> MetricWithInterval:
        """Return a metric with its interval."""
        low, high = self.intervals[name] or (None, None)
        return MetricWithInterval(value=self.metrics[name], low=low, high=high)


def length_edges(lengths: NDArray[np.integer]) -> Sequence[float]:
    """Choose the edges of up to four ranges of length with about as many proteins each.

    >>> length_edges(np.array([30, 40, 50, 60, 70, 80, 90, 100]))
    [30.0, 50.0, 70.0, 90.0, 101.0]
    """
    if not len(lengths):
        return []
    inner = np.quantile(lengths, _QUARTERS, method="higher")
    return [*np.unique([lengths.min(), *inner]).astype(float).tolist(), float(lengths.max() + 1)]


def join_small_ranges(values: Values, edges: Sequence[float]) -> Sequence[float]:
    """Remove edges, so that each range has enough proteins for an interval, if there are enough at all.

    >>> join_small_ranges(np.array([0.1] * 30 + [0.5] * 4 + [0.7] * 6), (0.0, 0.4, 0.6, 0.8))
    [0.0, 0.4, 0.8]
    """
    kept = list(edges[:1])
    for edge in edges[1:]:
        if ((values >= kept[-1]) & (values < edge)).sum() >= MIN_PROTEINS_FOR_INTERVAL:
            kept.append(edge)
    if kept[-1:] != list(edges[-1:]):  # the last range has too few proteins of its own
        kept[max(1, len(kept) - 1) :] = edges[-1:]
    return kept


def measure_subgroups(predictions: Predictions, values: Values, edges: Sequence[float]) -> list[Subgroup]:
    """Compute metrics for each subgroup: the proteins whose values, (proteins,), are between two edges."""
    subgroups = []
    for low, high in pairwise(edges):
        rows = np.flatnonzero((values >= low) & (values < high)).tolist()
        if not rows:
            continue
        measured = predictions.select(rows).measure()
        subgroups.append(
            Subgroup(
                low=float(low),
                high=None if np.isinf(high) else float(high),
                num_proteins=len(rows),
                metrics={name: metric.value for name, metric in measured.items()},
                intervals={name: _interval(metric) for name, metric in measured.items()},
            )
        )
    return subgroups


def _interval(metric: MetricWithInterval) -> Interval | None:
    return None if metric.low is None or metric.high is None else (metric.low, metric.high)
