"""Figures of many resamples at once: what a metric would have been on other draws of the same proteins.

A resample is how often each protein was drawn; a figure of all resamples is a few matrix products and sums over
proteins that were sorted once. scikit-learn's functions, called once for each resample, took longer than everything
else about a frozen encoder; they are what these are tested against.

Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapters 6 and 13.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from protembed.evaluation.metrics import MAX_VALUES_AT_ONCE, Draws, ResampledMetrics

NUM_RESAMPLES = 1_000


def bootstrap(measure: Callable[[Draws], ResampledMetrics], num_units: int, *, seed: int = 0) -> ResampledMetrics:
    """Measure on units that are drawn anew, again and again.

    Args:
        measure: the figures of some draws.
        num_units: proteins, or whatever was drawn independently.
        seed: of the draws; what is measured with the same one is measured on the same units, and can be paired.
    """
    parts = [measure(draws) for draws in _draws(num_units, seed)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def interval(figures: NDArray[np.float64]) -> tuple[float, float] | None:
    """Give the 95 % percentile interval; None where a twentieth of the figures or more are not defined.

    Args:
        figures: (resamples,).

    Source: Efron and Tibshirani 1993, section 13.3.
    """
    if np.isnan(figures).mean() >= 0.05:
        return None
    low, high = np.nanquantile(figures, [0.025, 0.975])
    return float(low), float(high)


def bootstrap_interval(
    measure: Callable[[NDArray[np.int64]], float], num_units: int, *, num_resamples: int = 2_000, seed: int = 0
) -> tuple[float, float]:
    """Compute the 95 % interval of any figure that is always defined, one resample after the other.

    Args:
        measure: the figure of some units, given as their numbers, (num_units,), with repetitions.
        num_units: proteins, or whatever was drawn independently.
        num_resamples: how often they are drawn anew.
        seed: of the draws; figures that are measured with the same one are resampled alike.

    Returns:
        The lower and the upper end, in the figure's units.
    """
    rng = np.random.default_rng(seed)
    figures = [measure(rng.integers(num_units, size=num_units)) for _ in range(num_resamples)]
    ends = interval(np.array(figures))
    assert ends is not None
    return ends


def _draws(num_units: int, seed: int) -> Iterator[Draws]:
    rng, remaining = np.random.default_rng(seed), NUM_RESAMPLES
    while remaining:
        num = min(remaining, max(1, MAX_VALUES_AT_ONCE // num_units))
        yield rng.multinomial(num_units, np.full(num_units, 1 / num_units), size=num).astype(np.float64)
        remaining -= num
