"""Metrics of predictions, each implemented once: a few matrix products that measure many resamples together.

A resample counts how often each protein was drawn. The point estimate of a metric is its value on the resample in which
each protein was drawn once. The tests compare both with scikit-learn, whose functions, called once for each resample,
took longer than everything else about a frozen encoder.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# How often each of n units was drawn, (resamples, n), float64.
Draws = NDArray[np.float64]
# Values of each metric, (resamples,), float64; NaN where one is undefined.
ResampledMetrics = dict[str, NDArray[np.float64]]
Measure = Callable[[Draws], ResampledMetrics]
# The point estimate of each metric; None where one is undefined.
Metrics = dict[str, float | None]

_THRESHOLDS = np.arange(1, 100) / 100
# Numbers held at once for one metric: few enough for the cache of a core.
MAX_VALUES_AT_ONCE = 1 << 18


def point_metrics(measure: Measure, num_units: int) -> Metrics:
    """Measure with each unit drawn once.

    >>> point_metrics(classification_measure(np.array([0, 1]), np.eye(3)[[0, 1]]), 2)
    {'accuracy': 1.0, 'macro_f1': 1.0, 'mcc': 1.0, 'auroc': 1.0}
    """
    measured = measure(np.ones((1, num_units)))
    return {name: None if np.isnan(values[0]) else float(values[0]) for name, values in measured.items()}


def measure_in_blocks(measure: Measure, draws: Draws, num_values: int) -> ResampledMetrics:
    """Measure some resamples at a time, so that a metric does not hold the values of all of them at once.

    It holds `num_values` numbers for each resample.
    """
    num = max(1, MAX_VALUES_AT_ONCE // num_values)
    parts = [measure(draws[start : start + num]) for start in range(0, len(draws), num)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


# Classes


def classification_measure(truth: NDArray[np.int64], probabilities: NDArray[np.floating]) -> Measure:
    """Prepare the metrics of a classifier of proteins.

    They are `accuracy`; `macro_f1`, averaged over the classes that are true or predicted somewhere; `mcc`; and `auroc`,
    of the second of two classes, else the mean of one against the rest over the classes that occur.

    Args:
        truth: True classes, (proteins,), int64.
        probabilities: Predicted probability of each class, (proteins, classes).
    """
    num_classes = probabilities.shape[1]
    true, predicted = (np.eye(num_classes)[classes] for classes in (truth, probabilities.argmax(1)))  # (n, classes)
    right = true * predicted
    positive_classes = [1] if num_classes == 2 else range(num_classes)
    curves = [_area_under_roc(truth == number, probabilities[:, number]) for number in positive_classes]

    def measure(draws: Draws) -> ResampledMetrics:
        measured = _metrics_of_counts(draws @ right, draws @ true, draws @ predicted)
        return {**measured, "auroc": _mean_of_defined([curve(draws) for curve in curves])}

    return measure


def residue_classification_measure(
    truth: list[NDArray[np.int64]], probabilities: list[NDArray[np.floating]]
) -> Measure:
    """Prepare `accuracy`, `macro_f1` and `mcc` over the residues of proteins, which are drawn as wholes.

    Each protein has its true classes, (residues,), and the predicted probability of each, (residues, classes).
    """
    confusions = np.stack([confusion_matrix(*pair) for pair in zip(truth, probabilities, strict=True)])
    right = confusions.diagonal(axis1=1, axis2=2)
    counts = [part.astype(np.float64) for part in (right, confusions.sum(2), confusions.sum(1))]  # (proteins, classes)
    return lambda draws: _metrics_of_counts(*(draws @ part for part in counts))


def confusion_matrix(truth: NDArray[np.int64], probabilities: NDArray[np.floating]) -> NDArray[np.int64]:
    """Count how often each class was predicted for each true class, (true, predicted).

    The arguments are the true classes, (n,), and the predicted probability of each class, (n, classes).
    """
    num_classes = probabilities.shape[1]
    pairs = np.bincount(truth * num_classes + probabilities.argmax(1), minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes)


@dataclass(frozen=True, kw_only=True)
class ClassMetrics:
    """How well the members of one class are predicted.

    Attributes:
        loss: Mean loss, nats; None without members.
        accuracy: Fraction of members whose most likely class is right; None without members.
        top_confusion: Class that is most often predicted wrongly for the members; None without wrong predictions.
    """

    name: str
    count: int
    loss: float | None
    accuracy: float | None
    top_confusion: str | None


def class_metrics(names: Sequence[str], losses: NDArray[np.float64], guesses: NDArray[np.int64]) -> list[ClassMetrics]:
    """Measure each class separately.

    Args:
        names: Names of the classes.
        losses: Loss summed over the members of each class, (classes,), float64, nats.
        guesses: Counts of the most likely classes, from `confusion_matrix`.
    """
    wrong = guesses * ~np.eye(len(names), dtype=bool)
    return [
        ClassMetrics(
            name=name,
            count=int(count),
            loss=float(losses[number] / count) if count else None,
            accuracy=float(guesses[number, number] / count) if count else None,
            top_confusion=names[int(wrong[number].argmax())] if wrong[number].any() else None,
        )
        for number, (name, count) in enumerate(zip(names, guesses.sum(1), strict=True))
    ]


def _metrics_of_counts(right: Draws, true: Draws, predicted: Draws) -> ResampledMetrics:
    """Compute accuracy, macro F1 and MCC from how often each class is right, true and predicted, (resamples, classes).

    Source: Gorodkin 2004, "Comparing two K-category assignments by a K-category correlation coefficient".
    """
    total = _positive(true.sum(1))
    occurs = (true + predicted) > 0
    f1 = 2 * right / np.maximum(true + predicted, 1)
    covariance = right.sum(1) * total - (true * predicted).sum(1)
    spread = np.sqrt((total**2 - (true**2).sum(1)) * (total**2 - (predicted**2).sum(1)))
    mcc = covariance / np.where(spread > 0, spread, 1)
    mcc[occurs.sum(1) < 2] = np.nan
    # A class that is neither true nor predicted anywhere can be neither found nor missed.
    return {"accuracy": right.sum(1) / total, "macro_f1": f1.sum(1) / _positive(occurs.sum(1)), "mcc": mcc}


def _area_under_roc(is_positive: NDArray[np.bool_], scores: NDArray[np.floating]) -> Callable[[Draws], Draws]:
    """Prepare the fraction of pairs of a positive and a negative in which the positive scores higher; ties are half."""
    count = _counter_at_positives(is_positive, scores)

    def measure(draws: Draws) -> Draws:
        positives, before, through = count(draws)
        cumulative, total = positives.cumsum(1), positives.sum(1)
        # Negatives with a lower score, and half of those with the same.
        below = (before + through) / 2 - cumulative + positives / 2
        return np.asarray((positives * below).sum(1) / _positive(total * (draws.sum(1) - total)))

    return measure


# Labels


def multilabel_measure(truth: NDArray[np.floating], probabilities: NDArray[np.floating]) -> Measure:
    """Prepare the metrics of a predictor of any number of labels.

    They are `auprc`, the area under the precision-recall curve averaged over the labels that occur; and `fmax`, the
    best harmonic mean of precision and recall over all thresholds, where precision is averaged over the proteins with a
    prediction and recall over those with a label.

    Args:
        truth: Zeros and ones, (proteins, labels).
        probabilities: Predicted probability of each label, (proteins, labels).

    Source: Radivojac et al. 2013, "A large-scale evaluation of computational protein function prediction" (CAFA).
    """
    curves = [_average_precision(truth[:, number] > 0, probabilities[:, number]) for number in range(truth.shape[1])]
    precision_recall = _precision_recall(truth, probabilities)
    filled = [np.nan_to_num(curve) for curve in precision_recall]
    known = [(~np.isnan(curve)).astype(np.float64) for curve in precision_recall]

    def measure(draws: Draws) -> ResampledMetrics:
        means = (draws @ values / np.maximum(draws @ counts, 1) for values, counts in zip(filled, known, strict=True))
        fmax = _f1(*means).max(1)
        fmax[(draws @ known[1])[:, 0] == 0] = np.nan
        return {"auprc": _mean_of_defined([curve(draws) for curve in curves]), "fmax": fmax}

    return measure


def average_precision_measure(is_positive: NDArray[np.bool_], scores: NDArray[np.floating]) -> Measure:
    """Prepare `auprc`, the area under the precision-recall curve, of a single label.

    Args:
        is_positive: Whether each protein has the label, (proteins,), bool.
        scores: Predicted probability of the label, (proteins,).
    """
    curve = _average_precision(is_positive, scores)
    return lambda draws: {"auprc": curve(draws)}


def best_threshold(truth: NDArray[np.floating], probabilities: NDArray[np.floating]) -> float:
    """Find the lowest of the thresholds at which a predictor of labels reaches its `fmax`.

    The arguments are those of `multilabel_measure`.
    """
    curves = _precision_recall(truth, probabilities)
    means = (np.nansum(curve, 0) / np.maximum((~np.isnan(curve)).sum(0), 1) for curve in curves)
    return float(_THRESHOLDS[int(_f1(*means).argmax())])


def _precision_recall(
    truth: NDArray[np.floating], probabilities: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute each protein's precision and recall at each threshold, (proteins, thresholds) each.

    Precision is NaN where nothing is predicted, recall where nothing is true.
    """
    precision, recall = (np.empty((len(truth), len(_THRESHOLDS))) for _ in range(2))
    with np.errstate(invalid="ignore"):
        for column, threshold in enumerate(_THRESHOLDS):
            predicted = probabilities >= threshold
            num_right = (predicted * truth).sum(1)
            precision[:, column], recall[:, column] = num_right / predicted.sum(1), num_right / truth.sum(1)
    return precision, recall


def _f1(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> NDArray[np.float64]:
    return 2 * precision * recall / np.maximum(precision + recall, 1e-12)


def _average_precision(is_positive: NDArray[np.bool_], scores: NDArray[np.floating]) -> Callable[[Draws], Draws]:
    """Prepare the area under the precision-recall curve, as the sum of its steps; NaN where nothing is positive."""
    count = _counter_at_positives(is_positive, -scores)

    def measure(draws: Draws) -> Draws:
        positives, _, through = count(draws)
        precision = positives.cumsum(1) / np.maximum(through, 1)
        return np.asarray((positives * precision).sum(1) / _positive(positives.sum(1)))

    return measure


# Values


def regression_measure(
    truth: NDArray[np.floating], predicted: NDArray[np.floating], owners: NDArray[np.int64] | None = None
) -> Measure:
    """Prepare `spearman`, `rmse`, `mse` and `r2` of a predictor of values, or of proteins with several values each.

    Args:
        truth: Measured values, (n,).
        predicted: Predicted values, (n,), in the same units.
        owners: Index of the protein of each value, (n,), int64; None where the values themselves are resampled.
    """
    if not len(truth):
        return lambda draws: {name: np.full(len(draws), np.nan) for name in ("spearman", "rmse", "mse", "r2")}
    values = truth.astype(np.float64)
    rank_truth, rank_predicted = _ranker(truth), _ranker(predicted)
    errors = (values - predicted) ** 2

    def measure_values(weights: Draws) -> ResampledMetrics:
        count = _positive(weights.sum(1))
        mse = weights @ errors / count
        # Rounding leaves a little variance where all drawn values are equal.
        varies = np.where(weights > 0, values, np.inf).min(1) < np.where(weights > 0, values, -np.inf).max(1)
        r2 = 1 - mse / np.where(varies, _positive(_variance(values, weights, count)), np.nan)
        spearman = _correlation(rank_truth(weights), rank_predicted(weights), weights)
        return {"spearman": spearman, "rmse": np.sqrt(mse), "mse": mse, "r2": r2}

    def measure(draws: Draws) -> ResampledMetrics:
        if owners is None:
            return measure_values(draws)
        return measure_in_blocks(lambda block: measure_values(block[:, owners]), draws, len(owners))

    return measure


def _ranker(values: NDArray[np.floating]) -> Callable[[Draws], Draws]:
    """Prepare the rank of each value among the drawn ones, (resamples, n); equal values share their mean rank."""
    order, starts = _groups(values)
    group_of = np.empty(len(values), np.int64)
    group_of[order] = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(values))))

    def rank(draws: Draws) -> Draws:
        drawn = np.add.reduceat(draws[:, order], starts, axis=1)
        return np.asarray((drawn.cumsum(1) - drawn / 2)[:, group_of])

    return rank


def _correlation(left: Draws, right: Draws, weights: Draws) -> Draws:
    """Correlate two (resamples, n) row by row, weighting each pair by its draws; NaN where one does not vary."""
    total = _positive(weights.sum(1, keepdims=True))
    left = left - (weights * left).sum(1, keepdims=True) / total
    right = right - (weights * right).sum(1, keepdims=True) / total
    spread = np.sqrt((weights * left**2).sum(1) * (weights * right**2).sum(1))
    return np.asarray((weights * left * right).sum(1) / _positive(spread))


def _variance(values: NDArray[np.float64], weights: Draws, count: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the variance of drawn values, (resamples,).

    Each resample is centred on its own mean: as a mean of squares less the square of a mean, the variance of values
    that span many powers of ten would lose all its digits, and be negative.
    """
    means = weights @ values / count
    return np.asarray((weights * (values - means[:, None]) ** 2).sum(1) / count)


# Ranks and counts


def _counter_at_positives(
    is_positive: NDArray[np.bool_], scores: NDArray[np.floating]
) -> Callable[[Draws], tuple[Draws, Draws, Draws]]:
    """Prepare three counts at each distinct score of a positive, from low scores to high, (resamples, scores) each.

    They count the positives with that score, all units with a lower one, and all units with that or a lower one.
    """
    order, starts = _groups(scores)
    ends = np.append(starts[1:], len(scores))
    positives = order[is_positive[order]]
    groups, firsts = np.unique(np.repeat(np.arange(len(starts)), ends - starts)[is_positive[order]], return_index=True)

    def count(draws: Draws) -> tuple[Draws, Draws, Draws]:
        if not len(groups):
            return (np.zeros((len(draws), 0)),) * 3
        sums = np.zeros((len(draws), len(order) + 1))
        np.cumsum(draws[:, order], axis=1, out=sums[:, 1:])
        counts = np.add.reduceat(draws[:, positives], firsts, axis=1)
        return counts, sums[:, starts[groups]], sums[:, ends[groups]]

    return count


def _groups(scores: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sort scores, and find where each distinct one begins among them."""
    order = np.argsort(scores, kind="stable")
    is_new = np.diff(scores[order], prepend=-np.inf) != 0
    is_new[0] = True
    return order, np.flatnonzero(is_new)


def _mean_of_defined(parts: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Average the values of classes or labels, (resamples,) each, over the defined ones; NaN where none is defined."""
    values = np.stack(parts)
    return np.asarray(np.nansum(values, 0) / _positive((~np.isnan(values)).sum(0)))


def _positive(numbers: NDArray[Any]) -> NDArray[np.float64]:
    """Replace zeros by NaN, so that nothing is divided by them."""
    return np.where(numbers > 0, numbers, np.nan)
