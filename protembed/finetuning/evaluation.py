"""Metrics of predictions, over all test proteins and by subgroup, with intervals whose unit is the protein."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protembed.config.common import Task
from protembed.evaluation import intervals, metrics
from protembed.evaluation.intervals import MetricWithInterval
from protembed.evaluation.metrics import Metrics
from protembed.finetuning.targets import Target, has_target

# Probabilities, (classes,) or (labels,), or a value, (); with a first dimension of residues where each has a label.
Prediction = NDArray[Any]

# Metrics of fewer test proteins have no interval.
MIN_PROTEINS_FOR_INTERVAL = 10

# The edges of the subgroups, in residues and in similarity to the nearest training protein. Below a similarity of 0.4,
# unrelated proteins cannot be distinguished from distant relatives (`protembed.finetuning.splits`).
LENGTH_EDGES = (0, 128, 256, 512, 1024, np.inf)
SIMILARITY_EDGES = (0.0, 0.4, 0.6, 0.8, 1.0, np.inf)


def resampled_metrics(task: Task, truth: Sequence[Target], predictions: Sequence[Prediction]) -> metrics.Measure:
    """Prepare the metrics of predictions for resampling of the proteins.

    Args:
        task: The task that the predictions are for.
        truth: The target of each protein.
        predictions: The prediction for each protein.
    """
    true, predicted = _known(task, truth, predictions)
    if task.label_kind == "labels":
        return metrics.multilabel_measure(np.stack(true), np.stack(predicted))
    if not task.per_residue:
        prepare = metrics.classification_measure if task.label_kind == "class" else metrics.regression_measure
        return prepare(np.stack(true), np.stack(predicted))
    if task.label_kind == "class":
        return metrics.residue_classification_measure(true, predicted)
    proteins = np.repeat(np.arange(len(true)), [len(values) for values in true])
    return metrics.regression_measure(np.concatenate(true), np.concatenate(predicted), proteins)


def measure(task: Task, truth: Sequence[Target], predictions: Sequence[Prediction]) -> Metrics:
    """Compute the metrics of predictions.

    Args:
        task: The task that the predictions are for.
        truth: The target of each protein.
        predictions: The prediction for each protein.
    """
    return metrics.point_metrics(resampled_metrics(task, truth, predictions), len(truth))


def measure_with_intervals(
    task: Task, truth: Sequence[Target], predictions: Sequence[Prediction]
) -> dict[str, MetricWithInterval]:
    """Compute the metrics of predictions with 95 % intervals.

    Args:
        task: The task that the predictions are for.
        truth: The target of each protein.
        predictions: The prediction for each protein.

    Returns:
        Each metric by its name; without an interval for fewer than `MIN_PROTEINS_FOR_INTERVAL` proteins.
    """
    resampled, num = resampled_metrics(task, truth, predictions), len(truth)
    values = metrics.point_metrics(resampled, num)
    if num < MIN_PROTEINS_FOR_INTERVAL:
        return {name: MetricWithInterval(value=value) for name, value in values.items()}
    left_out = intervals.jackknife(resampled, num)
    return {
        name: MetricWithInterval.from_jackknife(value, left_out[name], metric=name, num_units=num)
        for name, value in values.items()
    }


def averaged_over(task: Task, truth: Sequence[Target], predictions: Sequence[Prediction]) -> dict[str, tuple[int, int]]:
    """Count the classes or labels that a metric is averaged over, where some do not occur.

    Args:
        task: The task that the predictions are for.
        truth: The target of each protein.
        predictions: The prediction for each protein; its last dimension is the number of classes.

    Returns:
        For `auroc` or `auprc`, if it is averaged over fewer than all: the number that occurs, and the number of all.
    """
    metric = {"class": "auroc", "labels": "auprc"}.get(task.label_kind)
    if metric is None or task.per_residue or not len(truth):
        return {}
    num_all, targets = predictions[0].shape[-1], np.stack(list(truth))
    num_occurring = int(targets.any(0).sum()) if task.label_kind == "labels" else len(np.unique(targets))
    is_partial = num_occurring < num_all and (metric == "auprc" or num_all > 2)
    return {metric: (num_occurring, num_all)} if is_partial and num_occurring > (metric == "auroc") else {}


def metric_titles(names: Mapping[str, str], averages: Mapping[str, Sequence[int]], kind: str) -> dict[str, str]:
    """Name metrics, with the number of classes that one is averaged over where some do not occur.

    Args:
        names: The plain name of each metric.
        averages: The number of classes that occur and of all classes, from `averaged_over`.
        kind: The plural of what is counted: classes or labels.

    >>> metric_titles({"mcc": "MCC", "auroc": "AUROC"}, {"auroc": (23, 24)}, "classes")
    {'mcc': 'MCC', 'auroc': 'AUROC over 23 of 24 classes'}
    """
    endings = {name: f" over {some:,} of {all_:,} {kind}" for name, (some, all_) in averages.items()}
    return {name: plain + endings.get(name, "") for name, plain in names.items()}


def flatten(
    task: Task, truth: Sequence[Target], predictions: Sequence[Prediction]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Join the targets and the predictions of all proteins, or of all their residues that have a target.

    Args:
        task: The task that the predictions are for.
        truth: The target of each protein.
        predictions: The prediction for each protein.

    Returns:
        The targets and the predictions, both with a first dimension of proteins or residues.
    """
    true, predicted = _known(task, truth, predictions)
    join = np.concatenate if task.per_residue else np.stack
    return join(true), join(predicted)


def _known(
    task: Task, truth: Sequence[Target], predictions: Sequence[Prediction]
) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """Leave out the residues without a target."""
    if not task.per_residue:
        return list(truth), list(predictions)
    known = [has_target(target) for target in truth]
    return (
        [target[rows] for target, rows in zip(truth, known, strict=True)],
        [prediction[rows] for prediction, rows in zip(predictions, known, strict=True)],
    )


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
    intervals: Mapping[str, tuple[float, float] | None]


def measure_subgroups(
    task: Task,
    truth: Sequence[Target],
    predictions: Sequence[Prediction],
    values: NDArray[np.floating] | NDArray[np.integer],
    edges: Sequence[float],
) -> list[Subgroup]:
    """Compute metrics for each subgroup of proteins that is not empty.

    Args:
        task: The task that the predictions are for.
        truth: The target of each protein.
        predictions: The prediction for each protein.
        values: The length (residues) or similarity of each protein, (proteins,).
        edges: The limits of the subgroups, ascending.
    """
    subgroups = []
    for low, high in pairwise(edges):
        rows = np.flatnonzero((values >= low) & (values < high)).tolist()
        if rows:
            measured = measure_with_intervals(task, [truth[row] for row in rows], [predictions[row] for row in rows])
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


def _interval(metric: MetricWithInterval) -> tuple[float, float] | None:
    return None if metric.low is None or metric.high is None else (metric.low, metric.high)
