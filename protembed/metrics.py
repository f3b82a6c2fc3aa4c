"""The field's metrics."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics

Metrics = dict[str, float | None]

LabelCurves = tuple[NDArray[np.float64], NDArray[np.float64]]

THRESHOLDS = np.arange(1, 100) / 100


def classification_metrics(truth: NDArray[np.int64], probabilities: NDArray[np.floating]) -> Metrics:
    """Measure a classifier.

    Args:
        truth: (proteins,), the true classes.
        probabilities: (proteins, classes).

    Returns:
        `accuracy`, `macro_f1`, `mcc` and `auroc` (of the second of two classes, else the mean of one against the rest);
        None where a metric is not defined.
    """
    num_classes = probabilities.shape[1]
    auroc: float | None = None
    if len(np.unique(truth)) == num_classes:
        scores = probabilities[:, 1] if num_classes == 2 else probabilities
        auroc = float(metrics.roc_auc_score(truth, scores, multi_class="ovr", labels=list(range(num_classes))))
    return {**confusion_metrics(confusion_of(truth, probabilities)), "auroc": auroc}


def confusion_of(truth: NDArray[np.int64], probabilities: NDArray[np.floating]) -> NDArray[np.int64]:
    """Count how often each class was taken for each, (true, predicted); arguments as for `classification_metrics`."""
    num_classes = probabilities.shape[1]
    pairs = np.bincount(truth * num_classes + probabilities.argmax(1), minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes)


def confusion_metrics(confusion: NDArray[np.integer]) -> Metrics:
    """Measure a classifier by what it took for what.

    Args:
        confusion: (true, predicted), counts.

    Returns:
        `accuracy`, `macro_f1` and `mcc`; None where a metric is not defined.
    """
    if not confusion.any():
        return {"accuracy": None, "macro_f1": None, "mcc": None}
    truth, predicted = (places.ravel() for places in np.indices(confusion.shape))
    weights = confusion.ravel()
    present = (confusion.sum(0) > 0) | (confusion.sum(1) > 0)
    labels = list(range(len(confusion)))
    return {
        "accuracy": float(metrics.accuracy_score(truth, predicted, sample_weight=weights)),
        "macro_f1": float(
            metrics.f1_score(truth, predicted, sample_weight=weights, average="macro", labels=labels, zero_division=0)
        ),
        "mcc": float(metrics.matthews_corrcoef(truth, predicted, sample_weight=weights)) if present.sum() > 1 else None,
    }


def multilabel_metrics(truth: NDArray[np.floating], probabilities: NDArray[np.floating]) -> Metrics:
    """Measure a predictor of any number of labels.

    Args:
        truth: (proteins, labels), zeros and ones.
        probabilities: (proteins, labels).

    Returns:
        `auprc`, the area under the precision-recall curve averaged over the labels that occur, and `fmax`, the best
        harmonic mean of precision and recall over all thresholds, both averaged over proteins; None where no protein
        has a label.
    """
    occurs = truth.any(0)
    if not occurs.any():
        return {"auprc": None, "fmax": None}
    return {
        "auprc": float(metrics.average_precision_score(truth[:, occurs], probabilities[:, occurs], average="macro")),
        "fmax": best_threshold(*label_curves(truth, probabilities))[1],
    }


def label_curves(truth: NDArray[np.floating], probabilities: NDArray[np.floating]) -> LabelCurves:
    """Compute each protein's precision and recall at each of `THRESHOLDS`; arguments as for `multilabel_metrics`.

    Returns:
        Both (proteins, thresholds); NaN where nothing is predicted, or nothing is true.
    """
    precision, recall = (np.empty((len(truth), len(THRESHOLDS))) for _ in range(2))
    with np.errstate(invalid="ignore"):
        for place, threshold in enumerate(THRESHOLDS):
            predicted = probabilities >= threshold
            num_right = (predicted * truth).sum(1)
            precision[:, place], recall[:, place] = num_right / predicted.sum(1), num_right / truth.sum(1)
    return precision, recall


def best_threshold(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> tuple[float, float]:
    """Find the threshold with the best protein-centric F1, and that F1, Fmax.

    Args:
        precision: (proteins, thresholds), from `label_curves`; averaged over the proteins with a prediction.
        recall: (proteins, thresholds); averaged over the proteins with a label.

    Source: Radivojac et al. 2013, "A large-scale evaluation of computational protein function prediction" (CAFA).
    """
    counts = [(~np.isnan(part)).sum(0) for part in (precision, recall)]
    means = [np.nansum(part, 0) / np.maximum(count, 1) for part, count in zip((precision, recall), counts, strict=True)]
    f1 = 2 * means[0] * means[1] / np.maximum(means[0] + means[1], 1e-12)
    best = int(f1.argmax())
    return float(THRESHOLDS[best]), float(f1[best])


def regression_metrics(truth: NDArray[np.floating], predicted: NDArray[np.floating]) -> Metrics:
    """Measure a predictor of values.

    Args:
        truth: (proteins,).
        predicted: (proteins,), in the same units.

    Returns:
        `spearman`, `rmse`, `mse` and `r2`; None where a metric is not defined.
    """
    if not len(truth):
        return {"spearman": None, "rmse": None, "mse": None, "r2": None}
    truth_varies = bool((truth != truth[0]).any())
    varies = truth_varies and bool((predicted != predicted[0]).any())
    mse = float(metrics.mean_squared_error(truth, predicted))
    return {
        "spearman": float(stats.spearmanr(truth, predicted).statistic) if varies else None,
        "rmse": mse**0.5,
        "mse": mse,
        "r2": float(metrics.r2_score(truth, predicted)) if truth_varies else None,
    }


@dataclass(frozen=True, kw_only=True)
class ClassFigures:
    """How well the members of one class are guessed.

    Attributes:
        name: of the class.
        count: its members.
        loss: mean nats; None where there are none.
        accuracy: share of likeliest guesses that are right; None where there are none.
        mistaken_for: the most frequent wrong guess; None where there was none.
    """

    name: str
    count: int
    loss: float | None
    accuracy: float | None
    mistaken_for: str | None


def class_figures(names: Sequence[str], losses: NDArray[np.float64], guesses: NDArray[np.int64]) -> list[ClassFigures]:
    """Measure each class apart.

    Args:
        names: of the classes.
        losses: (classes,), summed over the members of each, in nats.
        guesses: (true, guessed), how often a member of one class was taken for one of another.
    """
    figures = []
    for number, name in enumerate(names):
        count, wrong = int(guesses[number].sum()), guesses[number].copy()
        wrong[number] = 0
        figures.append(
            ClassFigures(
                name=name,
                count=count,
                loss=float(losses[number] / count) if count else None,
                accuracy=float(guesses[number, number] / count) if count else None,
                mistaken_for=names[int(wrong.argmax())] if wrong.any() else None,
            )
        )
    return figures
