"""How well each class or label is predicted, and which classes are taken for which."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from protembed.evaluation.intervals import MetricWithInterval, jackknife, ratio_with_interval
from protembed.evaluation.metrics import average_precision_measure, confusion_matrix, point_metrics
from protembed.finetuning.comparison import MIN_PROTEINS_FOR_INTERVAL
from protembed.finetuning.evaluation import Evaluation
from protembed.finetuning.targets import class_counts

_OTHERS = "all others"


@dataclass(frozen=True, kw_only=True)
class ClassResult:
    """How well one class or label is predicted for the test proteins.

    Metrics that concern fewer than ten proteins have no interval.

    Attributes:
        num_training: Training proteins that have it, or a residue of it.
        num_tested: Test proteins, or residues of them, that have it.
        num_predicted: Test proteins, or residues of them, for which it is predicted.
        num_right: Those that have it and for which it is predicted.
        precision: Share of the predicted ones that have it; undefined where it is never predicted.
        recall: Share of those that have it for which it is predicted; undefined where it is not tested.
        f1: Harmonic mean of both.
        auprc: Area under the precision-recall curve of a label; None for classes.
    """

    name: str
    num_training: int
    num_tested: int
    num_predicted: int
    num_right: int
    precision: MetricWithInterval
    recall: MetricWithInterval
    f1: MetricWithInterval
    auprc: MetricWithInterval | None


@dataclass(frozen=True, kw_only=True)
class _Counts:
    """How often each class is true, predicted, and both, for each test protein, (proteins, classes), float64."""

    true: NDArray[np.float64]
    predicted: NDArray[np.float64]
    right: NDArray[np.float64]


def _count(evaluation: Evaluation) -> _Counts:
    predictions, num_classes = evaluation.predictions, len(evaluation.classes or ())
    if predictions.task.per_residue:
        matrices = np.stack([confusion_matrix(*pair) for pair in zip(*predictions.known(), strict=True)]).astype(float)
        return _Counts(true=matrices.sum(2), predicted=matrices.sum(1), right=matrices.diagonal(axis1=1, axis2=2))
    truth, probabilities = predictions.flatten()
    if predictions.task.label_kind == "labels":
        true, predicted = truth.astype(float), (probabilities >= evaluation.threshold).astype(float)
    else:
        true, predicted = np.eye(num_classes)[truth], np.eye(num_classes)[probabilities.argmax(1)]
    return _Counts(true=true, predicted=predicted, right=true * predicted)


def _ratio(sums: NDArray[np.float64], counts: NDArray[np.float64], metric: str) -> MetricWithInterval:
    """Divide the sums of two counts of each protein, (proteins,); proteins whose second count is 0 are left out."""
    rows = counts > 0
    if not rows.any():
        return MetricWithInterval(value=None)
    ratio = ratio_with_interval(sums[rows], counts[rows], metric)
    return ratio if rows.sum() >= MIN_PROTEINS_FOR_INTERVAL else MetricWithInterval(value=ratio.value)


def _average_precision(is_positive: NDArray[np.bool_], scores: NDArray[np.floating]) -> MetricWithInterval:
    measure, num_proteins = average_precision_measure(is_positive, scores), len(scores)
    value = point_metrics(measure, num_proteins)["auprc"]
    if is_positive.sum() < MIN_PROTEINS_FOR_INTERVAL:
        return MetricWithInterval(value=value)
    left_out = jackknife(measure, num_proteins)["auprc"]
    return MetricWithInterval.from_jackknife(value, left_out, metric="auprc", num_units=num_proteins)


def class_results(evaluation: Evaluation) -> list[ClassResult]:
    """Measure each class or label separately, those with the most test proteins or residues first.

    It is empty for values. Precision and recall have score intervals, as accuracy has.
    """
    task, classes = evaluation.predictions.task, evaluation.classes or ()
    if not classes:
        return []
    counts, num_training = _count(evaluation), class_counts(evaluation.training, task)
    truth, probabilities = evaluation.predictions.flatten()
    results = []
    for number, name in enumerate(classes):
        true, predicted, right = (part[:, number] for part in (counts.true, counts.predicted, counts.right))
        is_label = task.label_kind == "labels"
        results.append(
            ClassResult(
                name=name,
                num_training=num_training[name],
                num_tested=int(true.sum()),
                num_predicted=int(predicted.sum()),
                num_right=int(right.sum()),
                precision=_ratio(right, predicted, "accuracy"),
                recall=_ratio(right, true, "accuracy"),
                f1=_ratio(2 * right, true + predicted, "macro_f1"),
                auprc=_average_precision(truth[:, number] > 0, probabilities[:, number]) if is_label else None,
            )
        )
    return sorted(results, key=lambda result: -result.num_tested)


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """How often each class was predicted for each true class.

    Attributes:
        classes: Names of the classes, the most frequent among the true ones first.
        counts: Test proteins or residues, (true, predicted), int64.
    """

    classes: Sequence[str]
    counts: NDArray[np.int64]

    @classmethod
    def from_evaluation(cls, evaluation: Evaluation) -> "Confusion | None":
        """Count the pairs of a true and a predicted class; None where a protein has no class or several."""
        if evaluation.predictions.task.label_kind != "class" or evaluation.classes is None:
            return None
        counts = confusion_matrix(*evaluation.predictions.flatten())
        order = np.argsort(-counts.sum(1), kind="stable")
        return cls(classes=[evaluation.classes[number] for number in order], counts=counts[np.ix_(order, order)])

    def largest(self, num_classes: int) -> "Confusion":
        """Join the rarest classes in one, so that there are at most `num_classes`."""
        if len(self.classes) <= num_classes:
            return self
        num_kept = num_classes - 1
        rows = np.concatenate([self.counts[:num_kept], self.counts[num_kept:].sum(0, keepdims=True)])
        joined = np.concatenate([rows[:, :num_kept], rows[:, num_kept:].sum(1, keepdims=True)], axis=1)
        return replace(self, classes=[*self.classes[:num_kept], _OTHERS], counts=joined)

    def most_frequent_error(self) -> tuple[str, str, int] | None:
        """Return the true class, the predicted class and the count of the most frequent error; None without errors."""
        wrong = self.counts * ~np.eye(len(self.classes), dtype=bool)
        row, column = divmod(int(wrong.argmax()), len(self.classes))
        number = int(wrong[row, column])
        return (self.classes[row], self.classes[column], number) if number else None
