"""95 % confidence intervals of metrics, over the units (proteins) that were sampled independently.

An interval covers the mean of the metric over test sets of the same size from the same population. This is the
population value for every metric whose mean does not depend on the number of proteins. Metrics that are averaged over
the classes or labels that occur do depend on it, because rare ones are missing from some test sets.

The standard error comes from a delete-a-group jackknife. It is used with Student's t distribution, whose degrees of
freedom follow from the kurtosis of the jackknife values, so that a metric that hinges on a few proteins has a wide
interval. It is applied on a scale on which the metric is nearly symmetric: the scale of a score interval for metrics
between two bounds, so that ten correct proteins of ten are not certain, and the logarithm for errors.
`benchmarks/interval_coverage.py` measures how often these intervals cover the true value.

Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 11; Satterthwaite 1946 (degrees of
freedom); Wilson 1927 (score interval).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from protembed.evaluation.metrics import Draws, Measure, ResampledMetrics, measure_in_blocks

Interval = tuple[float, float]
Scale = Literal["share", "correlation", "error", "explained", "plain"]

_LEVEL = 0.95
# With more units than this, several are omitted together.
_MAX_GROUPS = 200
# A kurtosis that is estimated from a sample cannot support fewer degrees of freedom than this.
_MIN_FREEDOM = 4.0

# The scale of each metric; differences are on the plain scale.
SCALES: Mapping[str, Scale] = {
    "accuracy": "share",
    "macro_f1": "share",
    "auroc": "share",
    "auprc": "share",
    "fmax": "share",
    "precision": "share",
    "mcc": "correlation",
    "spearman": "correlation",
    "rmse": "error",
    "mse": "error",
    "r2": "explained",
}
_BOUNDS: Mapping[Scale, tuple[float, ...]] = {
    "share": (0.0, 1.0),
    "correlation": (-1.0, 1.0),
    "error": (0.0,),
    "explained": (1.0,),
    "plain": (),
}
# Accuracy and MCC depend on right and wrong alone, and the scale of a score interval already describes how those vary.
# Omitting the only protein of a label changes mean AUPRC more than another test set would, so that its standard error
# is large enough without the kurtosis.
_WITHOUT_KURTOSIS = ("accuracy", "mcc", "auprc")


def jackknife_draws(num_units: int) -> Draws:
    """Make the draws that omit each unit once, or each group of units where there are many, (groups, units), float64.

    >>> jackknife_draws(3)
    array([[0., 1., 1.],
           [1., 0., 1.],
           [1., 1., 0.]])
    """
    units = np.arange(num_units)
    draws = np.ones((min(num_units, _MAX_GROUPS), num_units))
    draws[units % len(draws), units] = 0
    return draws


def jackknife(measure: Measure, num_units: int) -> ResampledMetrics:
    """Measure without each unit, such as a protein, or without each group of units where there are many.

    Returns:
        Values of each metric by name, (groups,), float64; NaN where one is undefined.
    """
    return measure_in_blocks(measure, jackknife_draws(num_units), num_units)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How much a metric varies between test sets.

    Attributes:
        freedom: Degrees of freedom of the t distribution.
    """

    variance: float
    freedom: float

    @classmethod
    def from_jackknife(
        cls, left_out: NDArray[np.float64], *, metric: str = "", extra_variance: float = 0.0
    ) -> "Spread | None":
        """Estimate the spread from the values without each unit or group, (groups,), from `jackknife`.

        It is None with fewer than two groups, or where the metric is undefined without one of them, because it then
        hinges on that one alone.
        """
        num = len(left_out)
        if num < 2 or np.isnan(left_out).any():
            return None
        squares = (left_out - left_out.mean()) ** 2
        total = float(squares.sum())
        if total == 0 and extra_variance == 0:
            return cls(variance=0.0, freedom=num - 1)
        variance = total * (num - 1) / num
        excess = float((squares**2).sum()) - total**2 / num
        freedom = num - 1.0
        if metric not in _WITHOUT_KURTOSIS and excess > 0:
            freedom = min(max(2 * total**2 / excess, _MIN_FREEDOM), freedom)
        if variance > 0:
            freedom *= (1 + extra_variance / variance) ** 2
        return cls(variance=variance + extra_variance, freedom=freedom)


def interval(value: float, spread: Spread, *, metric: str = "", num_units: int) -> Interval | None:
    """Compute the 95 % interval of a metric.

    Args:
        value: Value on all units.
        spread: Variation between test sets.
        metric: Name of the metric; empty for a difference.
        num_units: Number of proteins, or of other units that were sampled independently.

    Returns:
        The lower and the upper end, with `value` between them. None where the value is at a bound of the metric and no
        omitted unit changes it, because its uncertainty is then unknown; accuracy, a fraction of a known number of
        proteins, has an interval even there.

    >>> perfect = Spread(variance=0.0, freedom=9)
    >>> low, high = interval(1.0, perfect, metric="accuracy", num_units=10)
    >>> round(low, 3), high
    (0.722, 1.0)
    """
    from scipy import stats  # which takes most of a second to import, and finished results do not need it

    scale, factor = SCALES.get(metric, "plain"), float(stats.t.ppf((1 + _LEVEL) / 2, spread.freedom))
    if spread.variance == 0:
        if all(abs(value - bound) >= 1e-9 for bound in _BOUNDS[scale]):
            return value, value
        if metric != "accuracy":
            return None
        factor = float(stats.norm.ppf((1 + _LEVEL) / 2))
        return _around(value, *_score_interval(round(value), num_units, factor))
    error = spread.variance**0.5
    if scale == "share":
        return _around(value, *_score_interval(value, value * (1 - value) / error**2, factor))
    if scale == "correlation":
        low, high = _score_interval((1 + value) / 2, (1 - value**2) / error**2, factor)
        return _around(value, 2 * low - 1, 2 * high - 1)
    if scale == "error":
        return _around(value, *_ratio_interval(value, error, factor))
    if scale == "explained":
        low, high = _ratio_interval(1 - value, error, factor)
        return _around(value, 1 - high, 1 - low)
    return value - factor * error, value + factor * error


def _score_interval(share: float, size: float, factor: float) -> Interval:
    """Find the two population shares from which a sample's share of this size is `factor` standard errors away."""
    centre = (size * share + factor**2 / 2) / (size + factor**2)
    half = factor * max(size * share * (1 - share) + factor**2 / 4, 0.0) ** 0.5 / (size + factor**2)
    return max(centre - half, 0.0), min(centre + half, 1.0)


def _ratio_interval(value: float, error: float, factor: float) -> Interval:
    ratio = float(np.exp(min(factor * error / value, 50.0)))
    return value / ratio, value * ratio


def _around(value: float, low: float, high: float) -> Interval:
    """Widen the interval where rounding has put the value outside."""
    return min(low, value), max(high, value)


@dataclass(frozen=True, kw_only=True)
class MetricWithInterval:
    """A metric and its 95 % interval over other samples of proteins.

    Attributes:
        value: Value on all proteins; None where it is undefined.
        low: Lower end of the 95 % interval; None where there is no interval.
        high: Upper end of the 95 % interval; None where there is no interval.
    """

    value: float | None
    low: float | None = None
    high: float | None = None

    @classmethod
    def from_jackknife(
        cls,
        value: float | None,
        left_out: NDArray[np.float64],
        *,
        metric: str,
        num_units: int,
        extra_variance: float = 0.0,
        is_difference: bool = False,
    ) -> "MetricWithInterval":
        """Combine the value of a metric, or a difference between two values, with its interval.

        Args:
            value: Value on all units; None where it is undefined.
            left_out: Values without each unit or group, (groups,), from `jackknife`.
            metric: Name of the metric, from `SCALES`.
            num_units: Number of proteins, or of other units that were sampled independently.
            extra_variance: Variance that does not come from the units, such as that between training runs.
            is_difference: Whether `value` is a difference between two values on the same units.

        Returns:
            The value with its interval; without one where the value or one of `left_out` is undefined, or where the
            uncertainty is unknown, as described in `interval`.
        """
        spread = Spread.from_jackknife(left_out, metric=metric, extra_variance=extra_variance)
        if value is None or spread is None:
            return cls(value=value)
        ends = interval(value, spread, metric="" if is_difference else metric, num_units=num_units)
        low, high = ends or (None, None)
        return cls(value=value, low=low, high=high)


def ratio_with_interval(
    sums: NDArray[np.float64], counts: NDArray[np.float64], metric: str = "ratio"
) -> MetricWithInterval:
    """Compute a ratio of two sums over proteins, such as nats per residue, with its 95 % interval.

    Each protein, (proteins,), adds to the numerator (`sums`) and to the denominator (`counts`, above 0). The metric
    decides on the scale of the interval.

    >>> ratio_with_interval(np.array([1.0, 3.0]), np.array([2.0, 2.0])).value
    1.0
    """
    num, value = len(sums), float(sums.sum() / counts.sum())
    if num < 2:
        return MetricWithInterval(value=value)
    left_out = jackknife(lambda draws: {metric: draws @ sums / (draws @ counts)}, num)[metric]
    return MetricWithInterval.from_jackknife(value, left_out, metric=metric, num_units=num)
