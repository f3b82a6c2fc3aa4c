"""95 % intervals of figures, over the units (proteins) that were drawn independently.

An interval is one of the mean figure over test parts of as many proteins from the same population; this is the
population's own figure for all metrics whose mean does not depend on the number of proteins. Metrics over the classes
or labels that occur do depend on it, because rare ones occur in some test parts only.

The standard error is that of a delete-a-group jackknife. It counts in Student's t distribution with as many degrees of
freedom as the kurtosis of the jackknife values allows, so that a figure that hinges on a few proteins has a wide
interval; and it counts on a scale on which the metric is nearly symmetric: that of a score interval for metrics between
two bounds, so that the figure of ten proteins of ten is not certain, and the logarithm for errors.
`benchmarks/interval_coverage.py` measures how often such intervals hold the true figure.

Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 11; Satterthwaite 1946 (degrees of
freedom); Wilson 1927 (score interval).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from protembed.evaluation.metrics import MAX_VALUES_AT_ONCE, Draws, Measure, ResampledMetrics

Interval = tuple[float, float]
Scale = Literal["share", "correlation", "error", "explained", "plain"]

_LEVEL = 0.95
# With more units than this, several are left out together.
_MAX_GROUPS = 200
# So few degrees of freedom are all that a kurtosis estimated from a sample can show.
_MIN_FREEDOM = 4.0

# The scale of each metric; differences are on the plain one.
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
# Accuracy and MCC are figures of right and wrong alone, and the scale of a score interval knows how those vary. And
# leaving out the only protein of a label changes mean AUPRC more than another test part would, so that its standard
# error is large enough as it is.
_KURTOSIS_COUNTS: Mapping[str, bool] = {"accuracy": False, "mcc": False, "auprc": False}


def jackknife_draws(num_units: int) -> Draws:
    """Leave out each unit once, or each of some groups of units where there are many.

    Args:
        num_units: The proteins, or whatever was drawn independently.

    Returns:
        One row for each unit or group, (groups, units): zeros for what is left out, else ones.

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
    """Measure without each unit, or each group of units, in turn.

    Args:
        measure: The function that computes the figures of some draws.
        num_units: The proteins, or whatever was drawn independently.

    Returns:
        Of each metric its figures, (groups,), NaN where one is not defined.
    """
    draws, num = jackknife_draws(num_units), max(1, MAX_VALUES_AT_ONCE // num_units)
    parts = [measure(draws[start : start + num]) for start in range(0, len(draws), num)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How far a figure is from that of other test parts.

    Attributes:
        variance: The square of its standard error.
        freedom: The degrees of freedom of the t distribution that the error is counted in.
    """

    variance: float
    freedom: float

    @classmethod
    def from_jackknife(
        cls, left_out: NDArray[np.float64], *, metric: str = "", extra_variance: float = 0.0
    ) -> "Spread | None":
        """Estimate it from the figures without each unit or group.

        Args:
            left_out: The figures, (groups,), from `jackknife`.
            metric: The metric's name, if the figures are not differences.
            extra_variance: The variance that does not come from the units, such as that of trainings.

        Returns:
            None where there are fewer than two groups, or where the figure is not defined without one of them: then
            it hinges on that one alone.
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
        if _KURTOSIS_COUNTS.get(metric, True) and excess > 0:
            freedom = min(max(2 * total**2 / excess, _MIN_FREEDOM), freedom)
        if variance > 0:
            freedom *= (1 + extra_variance / variance) ** 2
        return cls(variance=variance + extra_variance, freedom=freedom)


def interval(value: float, spread: Spread, *, metric: str = "", num_units: int) -> Interval | None:
    """Compute the 95 % interval of a figure.

    Args:
        value: The figure of all units.
        spread: How far it is from that of other test parts.
        metric: The metric's name; without one the figure is taken for a difference.
        num_units: The proteins, or whatever was drawn independently.

    Returns:
        The lower and the upper end, with `value` between them; None where a figure is perfect, or as bad as can be, in
        a way that does not tell how certain that is. Of accuracy it tells: a share of so many proteins.

    >>> perfect = Spread(variance=0.0, freedom=9)
    >>> low, high = interval(1.0, perfect, metric="accuracy", num_units=10)
    >>> round(low, 3), high
    (0.722, 1.0)
    """
    scale, factor = SCALES.get(metric, "plain"), float(stats.t.ppf((1 + _LEVEL) / 2, spread.freedom))
    if spread.variance == 0:
        if not _is_at_bound(value, scale):
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


def jackknife_interval(
    value: float | None,
    left_out: NDArray[np.float64],
    *,
    metric: str,
    num_units: int,
    extra_variance: float = 0.0,
    is_difference: bool = False,
) -> Interval | None:
    """Compute the 95 % interval of a figure, or of a difference between two, from those without each unit.

    Args:
        value: The figure of all units; None where it is not defined.
        left_out: The figures without each unit or group, (groups,), from `jackknife`.
        metric: The metric's name.
        num_units: The proteins, or whatever was drawn independently.
        extra_variance: The variance that does not come from the units, such as that of trainings.
        is_difference: Whether it is a difference between two figures on the same units.

    Returns:
        The lower and the upper end, with `value` between them; None where `value` or one of `left_out` is not defined,
        or where the figure is perfect, or as bad as can be, in a way that does not tell how certain that is.
    """
    spread = Spread.from_jackknife(left_out, metric=metric, extra_variance=extra_variance)
    if value is None or spread is None:
        return None
    return interval(value, spread, metric="" if is_difference else metric, num_units=num_units)


def _is_at_bound(value: float, scale: Scale) -> bool:
    bounds: Mapping[Scale, tuple[float, ...]] = {
        "share": (0.0, 1.0),
        "correlation": (-1.0, 1.0),
        "error": (0.0,),
        "explained": (1.0,),
        "plain": (),
    }
    return any(abs(value - bound) < 1e-9 for bound in bounds[scale])


def _score_interval(share: float, size: float, factor: float) -> Interval:
    """Find the shares from which one of a sample of this size is `factor` standard errors away."""
    centre = (size * share + factor**2 / 2) / (size + factor**2)
    half = factor * max(size * share * (1 - share) + factor**2 / 4, 0.0) ** 0.5 / (size + factor**2)
    return max(centre - half, 0.0), min(centre + half, 1.0)


def _ratio_interval(value: float, error: float, factor: float) -> Interval:
    ratio = float(np.exp(min(factor * error / value, 50.0)))
    return value / ratio, value * ratio


def _around(value: float, low: float, high: float) -> Interval:
    """Keep rounding from putting the figure outside."""
    return min(low, value), max(high, value)


@dataclass(frozen=True, kw_only=True)
class MetricWithInterval:
    """A figure and how far another draw of proteins might move it.

    Attributes:
        value: the figure; None where it is not defined.
        low: lower end of its 95 % interval; None where that is not defined.
        high: upper end.
    """

    value: float | None
    low: float | None
    high: float | None

    @classmethod
    def from_interval(cls, value: float | None, interval: Interval | None) -> "MetricWithInterval":
        """Put a figure together with its interval."""
        low, high = interval or (None, None)
        return cls(value=value, low=low, high=high)


def ratio_with_interval(sums: NDArray[np.float64], counts: NDArray[np.float64]) -> MetricWithInterval:
    """Compute a ratio of two sums over proteins, such as nats per residue, with its 95 % interval.

    Args:
        sums: The numerator's part of each protein, (proteins,).
        counts: The denominator's part of each protein, (proteins,), above 0.

    >>> ratio_with_interval(np.array([1.0, 3.0]), np.array([2.0, 2.0])).value
    1.0
    """
    num, value = len(sums), float(sums.sum() / counts.sum())
    if num < 2:
        return MetricWithInterval(value=value, low=None, high=None)
    left_out = jackknife(lambda draws: {"ratio": draws @ sums / (draws @ counts)}, num)
    return MetricWithInterval.from_interval(
        value, jackknife_interval(value, left_out["ratio"], metric="ratio", num_units=num)
    )
