"""Metrics of predictions, of all test proteins and of subgroups, with intervals whose unit is the protein."""

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

Output = NDArray[Any]

# A figure of fewer test proteins has no interval.
MIN_PROTEINS_FOR_INTERVAL = 10


def scores_of(task: Task, truth: Sequence[Target], outputs: Sequence[Output]) -> dict[str, MetricWithInterval]:
    """Measure predictions, with 95 % intervals; of fewer than `MIN_PROTEINS_FOR_INTERVAL` there are none.

    Args:
        task: The task.
        truth: The answer of each protein.
        outputs: The prediction of each protein, as for `measure`.
    """
    figures, num = resampled_metrics(task, truth, outputs), len(truth)
    exact = metrics.point_metrics(figures, num)
    if num < MIN_PROTEINS_FOR_INTERVAL:
        return {name: MetricWithInterval(value=value, low=None, high=None) for name, value in exact.items()}
    left_out = intervals.jackknife(figures, num)
    return {
        name: MetricWithInterval.from_interval(
            value, intervals.jackknife_interval(value, left_out[name], metric=name, num_units=num)
        )
        for name, value in exact.items()
    }


def averaged_over(task: Task, truth: Sequence[Target], outputs: Sequence[Output]) -> dict[str, tuple[int, int]]:
    """Count over how many of the classes or labels a metric is averaged, where some do not occur.

    Args:
        task: The task.
        truth: The answer of each protein.
        outputs: The prediction of each protein, as for `measure`; they tell how many classes there are.

    Returns:
        For `auroc` or `auprc`, if it is averaged over fewer than all: the number that occurs, and that of all.
    """
    metric = {"class": "auroc", "labels": "auprc"}.get(task.label_kind)
    if metric is None or task.per_residue or not len(truth):
        return {}
    num_all, answers = outputs[0].shape[-1], np.stack(list(truth))
    num_occurring = int(answers.any(0).sum()) if task.label_kind == "labels" else len(np.unique(answers))
    is_partial = num_occurring < num_all and (metric == "auprc" or num_all > 2)
    return {metric: (num_occurring, num_all)} if is_partial and num_occurring > (metric == "auroc") else {}


def shown_names(names: Mapping[str, str], averages: Mapping[str, Sequence[int]], kind: str) -> dict[str, str]:
    """Spell the names of metrics, with the number of classes that one is averaged over where some do not occur.

    Args:
        names: The plain name of each metric.
        averages: The number of classes that occur and of all, from `averaged_over`.
        kind: What they are: classes or labels.

    >>> shown_names({"mcc": "MCC", "auroc": "AUROC"}, {"auroc": (23, 24)}, "classes")
    {'mcc': 'MCC', 'auroc': 'AUROC over 23 of 24 classes'}
    """
    spelled = {name: f" over {some:,} of {all_:,} {kind}" for name, (some, all_) in averages.items()}
    return {name: plain + spelled.get(name, "") for name, plain in names.items()}


def measure(task: Task, truth: Sequence[Target], outputs: Sequence[Output]) -> Metrics:
    """Measure predictions.

    Args:
        task: what was predicted.
        truth: the answer of each protein.
        outputs: of each protein (classes,) or (labels,) probabilities or a value, or those of each residue.
    """
    return metrics.point_metrics(resampled_metrics(task, truth, outputs), len(truth))


def joined(task: Task, truth: Sequence[Target], outputs: Sequence[Output]) -> tuple[Output, Output]:
    """Join answers and outputs of proteins, or of all their residues that have an answer; arguments as for `measure`.

    Returns:
        Both with a first dimension of proteins or residues.
    """
    true, predicted = _known(task, truth, outputs)
    join = np.concatenate if task.per_residue else np.stack
    return join(true), join(predicted)


def resampled_metrics(task: Task, truth: Sequence[Target], outputs: Sequence[Output]) -> metrics.Measure:
    """Prepare to measure predictions of proteins that are drawn anew; arguments as for `measure`."""
    true, predicted = _known(task, truth, outputs)
    if task.label_kind == "labels":
        return metrics.multilabel_measure(np.stack(true), np.stack(predicted))
    if not task.per_residue:
        prepare = metrics.classification_measure if task.label_kind == "class" else metrics.regression_measure
        return prepare(np.stack(true), np.stack(predicted))
    if task.label_kind == "class":
        return metrics.residue_classification_measure(true, predicted)
    owners = np.repeat(np.arange(len(true)), [len(one) for one in true])
    return metrics.regression_measure(np.concatenate(true), np.concatenate(predicted), owners)


def _known(
    task: Task, truth: Sequence[Target], outputs: Sequence[Output]
) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """Leave out the residues of which nothing is known."""
    if not task.per_residue:
        return list(truth), list(outputs)
    known = [has_target(answer) for answer in truth]
    return (
        [answer[chosen] for answer, chosen in zip(truth, known, strict=True)],
        [output[chosen] for output, chosen in zip(outputs, known, strict=True)],
    )


LENGTH_EDGES = (0, 128, 256, 512, 1024, np.inf)
# Below 0.4 strangers cannot be told from distant relatives (`protembed.finetuning.splits`).
SIMILARITY_EDGES = (0.0, 0.4, 0.6, 0.8, 1.0, np.inf)


@dataclass(frozen=True, kw_only=True)
class Subgroup:
    """Some of the test proteins.

    Attributes:
        low: they have at least this length or similarity.
        high: and less than this; None: no limit.
        num_proteins: how many.
        metrics: of the model on them.
        intervals: The 95 % interval of each metric; None where there is none, as with few proteins.
    """

    low: float
    high: float | None
    num_proteins: int
    metrics: Metrics
    intervals: Mapping[str, tuple[float, float] | None]


def measure_bands(
    task: Task,
    truth: Sequence[Target],
    outputs: Sequence[Output],
    values: NDArray[np.floating] | NDArray[np.integer],
    edges: Sequence[float],
) -> list[Subgroup]:
    """Measure groups of proteins apart; groups without proteins are left out.

    Args:
        task: what was predicted.
        truth: of each protein.
        outputs: of each protein.
        values: (proteins,), the length or similarity of each.
        edges: of the groups.
    """
    bands = []
    for low, high in pairwise(edges):
        rows = np.flatnonzero((values >= low) & (values < high)).tolist()
        if rows:
            scores = scores_of(task, [truth[row] for row in rows], [outputs[row] for row in rows])
            bands.append(
                Subgroup(
                    low=float(low),
                    high=None if np.isinf(high) else float(high),
                    num_proteins=len(rows),
                    metrics={metric: score.value for metric, score in scores.items()},
                    intervals={metric: _span(score) for metric, score in scores.items()},
                )
            )
    return bands


def _span(score: MetricWithInterval) -> tuple[float, float] | None:
    return None if score.low is None or score.high is None else (score.low, score.high)
