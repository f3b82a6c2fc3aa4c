"""How good predictions of a task are, with intervals whose unit is the protein."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protembed import bootstrap, metrics
from protembed.config.task import Task
from protembed.data.targets import Answer, is_known
from protembed.metrics import Metrics

Output = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Score:
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
    def of(cls, value: float | None, resampled: NDArray[np.float64]) -> "Score":
        """Put a figure together with its interval."""
        low, high = bootstrap.interval(resampled) or (None, None)
        return cls(value=value, low=low, high=high)


def measure(task: Task, truth: Sequence[Answer], outputs: Sequence[Output]) -> Metrics:
    """Measure predictions.

    Args:
        task: what was predicted.
        truth: the answer of each protein.
        outputs: of each protein (classes,) or (labels,) probabilities or a value, or those of each residue.
    """
    true, predicted = joined(task, truth, outputs)
    if task.answer == "labels":
        return metrics.multilabel_metrics(true, predicted)
    if task.answer == "value":
        return metrics.regression_metrics(true, predicted)
    if task.per_residue:
        return metrics.confusion_metrics(metrics.confusion_of(true, predicted))
    return metrics.classification_metrics(true, predicted)


def joined(task: Task, truth: Sequence[Answer], outputs: Sequence[Output]) -> tuple[Output, Output]:
    """Join answers and outputs of proteins, or of all their residues that have an answer; arguments as for `measure`.

    Returns:
        Both with a first dimension of proteins or residues.
    """
    true, predicted = _known(task, truth, outputs)
    join = np.concatenate if task.per_residue else np.stack
    return join(true), join(predicted)


def figures_of_draws(
    task: Task, truth: Sequence[Answer], outputs: Sequence[Output]
) -> Callable[[bootstrap.Draws], bootstrap.Figures]:
    """Prepare to measure predictions of proteins that are drawn anew; arguments as for `measure`."""
    true, predicted = _known(task, truth, outputs)
    if task.answer == "labels":
        return bootstrap.multilabel_figures(np.stack(true), np.stack(predicted))
    if not task.per_residue:
        prepare = bootstrap.classification_figures if task.answer == "class" else bootstrap.regression_figures
        return prepare(np.stack(true), np.stack(predicted))
    if task.answer == "class":
        return bootstrap.residue_classification_figures(true, predicted)
    owners = np.repeat(np.arange(len(true)), [len(one) for one in true])
    return bootstrap.regression_figures(np.concatenate(true), np.concatenate(predicted), owners)


def _known(
    task: Task, truth: Sequence[Answer], outputs: Sequence[Output]
) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """Leave out the residues of which nothing is known."""
    if not task.per_residue:
        return list(truth), list(outputs)
    known = [is_known(answer) for answer in truth]
    return (
        [answer[chosen] for answer, chosen in zip(truth, known, strict=True)],
        [output[chosen] for output, chosen in zip(outputs, known, strict=True)],
    )
