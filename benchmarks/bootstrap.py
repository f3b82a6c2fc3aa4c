"""Metrics of many bootstrap resamples at once.

A resample is the number of times that each protein was drawn; a metric of all resamples takes a few matrix products and
sums over proteins that were sorted once. Calling scikit-learn's functions for each resample took longer than everything
else in fine-tuning a frozen encoder; the tests compare with them.

Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapters 6 and 13.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from protembed.evaluation.metrics import MAX_VALUES_AT_ONCE, Draws, ResampledMetrics

NUM_RESAMPLES = 1_000


def bootstrap(measure: Callable[[Draws], ResampledMetrics], num_units: int, *, seed: int = 0) -> ResampledMetrics:
    """Compute metrics on bootstrap resamples.

    Args:
        measure: Computes the metrics of some draws.
        num_units: The number of independent units, such as proteins.
        seed: The seed of the draws; metrics with the same seed have the same resamples, and can be paired.
    """
    parts = [measure(draws) for draws in _draws(num_units, seed)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def interval(values: NDArray[np.float64]) -> tuple[float, float] | None:
    """Compute the 95 % percentile interval; None if a twentieth of the values or more are not defined.

    Args:
        values: The metric of each resample, (resamples,).

    Source: Efron and Tibshirani 1993, section 13.3.
    """
    if np.isnan(values).mean() >= 0.05:
        return None
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)


def bootstrap_interval(
    measure: Callable[[NDArray[np.int64]], float], num_units: int, *, num_resamples: int = 2_000, seed: int = 0
) -> tuple[float, float]:
    """Compute the 95 % percentile interval of any metric that is always defined, one resample after the other.

    Args:
        measure: Computes the metric of some units from their indices, (num_units,), with repetitions.
        num_units: The number of independent units, such as proteins.
        num_resamples: The number of resamples.
        seed: The seed of the draws; metrics with the same seed have the same resamples.

    Returns:
        The lower and the upper end, in units of the metric.
    """
    rng = np.random.default_rng(seed)
    values = [measure(rng.integers(num_units, size=num_units)) for _ in range(num_resamples)]
    ends = interval(np.array(values))
    assert ends is not None
    return ends


def _draws(num_units: int, seed: int) -> Iterator[Draws]:
    rng, remaining = np.random.default_rng(seed), NUM_RESAMPLES
    while remaining:
        num = min(remaining, max(1, MAX_VALUES_AT_ONCE // num_units))
        yield rng.multinomial(num_units, np.full(num_units, 1 / num_units), size=num).astype(np.float64)
        remaining -= num
