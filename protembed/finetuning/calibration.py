"""Whether predicted values are right on average: the mean measured value where the predictions are about the same."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from protembed.evaluation.intervals import MetricWithInterval, ratio_with_interval
from protembed.finetuning.comparison import MIN_PROTEINS_FOR_INTERVAL, Predictions
from protembed.finetuning.targets import has_target

_MAX_POINTS = 10


@dataclass(frozen=True, kw_only=True)
class CalibrationPoint:
    """The mean measured value of a tenth of the test proteins or residues, whose predictions are about the same.

    Attributes:
        predicted: Mean of the predictions.
        measured: Mean of the measured values, with its 95 % interval over proteins.
        num_values: Test proteins, or residues.
    """

    predicted: float
    measured: MetricWithInterval
    num_values: int


def calibrate(predictions: Predictions) -> Sequence[CalibrationPoint]:
    """Sort predicted values, divide them into up to ten parts, and average the measured values of each.

    It is empty for classes and labels, and for fewer than 20 test proteins.

    Source: Niculescu-Mizil and Caruana 2005, "Predicting good probabilities with supervised learning", for the diagram.
    """
    num_points = min(_MAX_POINTS, len(predictions) // MIN_PROTEINS_FOR_INTERVAL)
    if predictions.task.label_kind != "value" or num_points < 2:
        return []
    measured, predicted = predictions.flatten()
    if len(measured) < num_points:
        return []
    num_known = [int(has_target(target).sum()) for target in predictions.truth]
    owners = np.repeat(np.arange(len(predictions)), num_known)
    points = []
    for rows in np.array_split(np.argsort(predicted, kind="stable"), num_points):
        counts = np.bincount(owners[rows], minlength=len(predictions)).astype(np.float64)
        sums = np.bincount(owners[rows], measured[rows].astype(np.float64), len(predictions)).astype(np.float64)
        has_values = counts > 0
        points.append(
            CalibrationPoint(
                predicted=float(predicted[rows].mean()),
                measured=ratio_with_interval(sums[has_values], counts[has_values]),
                num_values=len(rows),
            )
        )
    return points
