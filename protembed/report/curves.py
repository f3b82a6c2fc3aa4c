"""Curves of a training, from the lines of `metrics.jsonl`: points, running means, and fewer points for a drawing."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Points of a drawn curve: more cannot be distinguished on a screen, and would make a page of a long run large.
_MAX_POINTS = 1_000
_MEAN_FRACTION = 0.05

Values = NDArray[np.float64]


def curve(reports: Sequence[Mapping[str, Any]], x: str, y: str) -> Values:
    """Collect two values of the reports in which the second is known, (2, reports).

    >>> curve([{"step": 1, "train_loss": 2.5}, {"step": 2, "train_loss": None}, {"step": 3}], "step", "train_loss")
    array([[1. ],
           [2.5]])
    """
    points = [(report[x], report[y]) for report in reports if report.get(y) is not None]
    return np.array(points, np.float64).reshape(-1, 2).T


def running_mean(values: Values) -> Values:
    """Average the values, (n,), over a twentieth of them around each one; over fewer at both ends.

    The mean is centred, because one of past values alone would lag behind a curve that falls.

    >>> running_mean(np.arange(60.0))[[0, 30, 59]]
    array([ 0.5, 30. , 58.5])
    """
    half = int(_MEAN_FRACTION * len(values)) // 2
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    starts, ends = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    return np.asarray((sums[ends] - sums[starts]) / (ends - starts))


def thinned(points: Values, *, max_points: int = _MAX_POINTS) -> Values:
    """Keep the lowest and the highest point of each of many pieces of a curve, (2, n), and its ends: it looks the same.

    A curve with at most `max_points` is returned unchanged.

    >>> thinned(np.array([[1.0, 2, 3, 4, 5, 6], [7, 9, 8, 3, 1, 2]]), max_points=4)
    array([[1., 2., 4., 5., 6.],
           [7., 9., 3., 1., 2.]])
    """
    num = points.shape[1]
    if num <= max_points:
        return points
    edges = np.linspace(0, num, max_points // 2 + 1).astype(np.int64)
    extremes = [
        start + function(points[1, start:end])
        for start, end in zip(edges[:-1], edges[1:], strict=True)
        for function in (np.argmin, np.argmax)
    ]
    return points[:, sorted(set(map(int, extremes)) | {0, num - 1})]


def evenly(points: Values, *, max_points: int = _MAX_POINTS) -> Values:
    """Keep the first, the last and evenly spaced points of a smooth curve, (2, n)."""
    num = points.shape[1]
    return points[:, np.unique(np.linspace(0, num - 1, min(num, max_points)).round().astype(np.int64))]
