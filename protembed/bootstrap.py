"""Figures of many resamples at once: what a metric would have been on other draws of the same proteins.

A resample is how often each protein was drawn; a figure of all resamples is a few matrix products and sums over
proteins that were sorted once. scikit-learn's functions, called once for each resample, took longer than everything
else about a frozen encoder; they are what these are tested against.

Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapters 6 and 13.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from protembed.metrics import LabelCurves, confusion_of, label_curves

NUM_RESAMPLES = 1_000
# Numbers held at once for one figure.
_AT_ONCE = 1 << 21

# (resamples, n), float64: how often each of n was drawn.
Draws = NDArray[np.float64]
# Of each metric (resamples,), NaN where it is not defined.
Figures = dict[str, NDArray[np.float64]]


def bootstrap(measure: Callable[[Draws], Figures], num_units: int, *, seed: int = 0) -> Figures:
    """Measure on units that are drawn anew, again and again.

    Args:
        measure: the figures of some draws.
        num_units: proteins, or whatever was drawn independently.
        seed: of the draws; what is measured with the same one is measured on the same units, and can be paired.
    """
    parts = [measure(draws) for draws in _draws(num_units, seed)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def interval(figures: NDArray[np.float64]) -> tuple[float, float] | None:
    """Give the 95 % percentile interval; None where a twentieth of the figures or more are not defined.

    Args:
        figures: (resamples,).

    Source: Efron and Tibshirani 1993, section 13.3.
    """
    if np.isnan(figures).mean() >= 0.05:
        return None
    low, high = np.nanquantile(figures, [0.025, 0.975])
    return float(low), float(high)


def bootstrap_interval(
    measure: Callable[[NDArray[np.int64]], float], num_units: int, *, num_resamples: int = 2_000, seed: int = 0
) -> tuple[float, float]:
    """Compute the 95 % interval of any figure that is always defined, one resample after the other.

    Args:
        measure: the figure of some units, given as their numbers, (num_units,), with repetitions.
        num_units: proteins, or whatever was drawn independently.
        num_resamples: how often they are drawn anew.
        seed: of the draws; figures that are measured with the same one are resampled alike.

    Returns:
        The lower and the upper end, in the figure's units.
    """
    rng = np.random.default_rng(seed)
    figures = [measure(rng.integers(num_units, size=num_units)) for _ in range(num_resamples)]
    ends = interval(np.array(figures))
    assert ends is not None
    return ends


def classification_figures(truth: NDArray[np.int64], probabilities: NDArray[np.floating]) -> Callable[[Draws], Figures]:
    """Prepare `metrics.classification_metrics` of draws; arguments as there."""
    num_classes = probabilities.shape[1]
    true, predicted = (np.eye(num_classes)[classes] for classes in (truth, probabilities.argmax(1)))  # (n, classes)
    right = true * predicted
    of_interest = [1] if num_classes == 2 else range(num_classes)
    curves = [_area_under_roc(truth == number, probabilities[:, number]) for number in of_interest]

    def measure(draws: Draws) -> Figures:
        counts = draws @ right, draws @ true, draws @ predicted
        auroc = np.mean([curve(draws) for curve in curves], axis=0)
        auroc[~(counts[1] > 0).all(1)] = np.nan
        return {**_class_figures(*counts), "auroc": auroc}

    return measure


def residue_classification_figures(
    truth: list[NDArray[np.int64]], probabilities: list[NDArray[np.floating]]
) -> Callable[[Draws], Figures]:
    """Prepare `metrics.confusion_metrics` of the residues of drawn proteins.

    Args:
        truth: of each protein (residues,), the true classes.
        probabilities: of each protein (residues, classes).
    """
    confusions = np.stack([confusion_of(*pair) for pair in zip(truth, probabilities, strict=True)])
    right = confusions.diagonal(axis1=1, axis2=2)
    counts = [part.astype(np.float64) for part in (right, confusions.sum(2), confusions.sum(1))]  # (proteins, classes)
    return lambda draws: _class_figures(*(draws @ part for part in counts))


def multilabel_figures(truth: NDArray[np.floating], probabilities: NDArray[np.floating]) -> Callable[[Draws], Figures]:
    """Prepare `metrics.multilabel_metrics` of draws; arguments as there."""
    curves = [_average_precision(truth[:, number] > 0, probabilities[:, number]) for number in range(truth.shape[1])]
    best = _best_f1(label_curves(truth, probabilities))

    def measure(draws: Draws) -> Figures:
        areas = np.stack([curve(draws) for curve in curves])  # (labels, resamples)
        occurs = ~np.isnan(areas)
        auprc = np.nansum(areas, 0) / np.where(occurs.any(0), occurs.sum(0), np.nan)
        return {"auprc": auprc, "fmax": best(draws)}

    return measure


def regression_figures(
    truth: NDArray[np.floating], predicted: NDArray[np.floating], owners: NDArray[np.int64] | None = None
) -> Callable[[Draws], Figures]:
    """Prepare `metrics.regression_metrics` of draws.

    Args:
        truth: (n,).
        predicted: (n,), in the same units.
        owners: (n,), the protein of each value, where proteins are drawn and not values.
    """
    rank_truth, rank_predicted = _ranker(truth), _ranker(predicted)
    centred = truth - truth.mean()
    powers, errors = np.stack([np.ones_like(centred), centred, centred**2]), (truth - predicted) ** 2

    def measure_values(weights: Draws) -> Figures:
        count, total, total_of_squares = (weights @ powers.T).T
        count = np.where(count > 0, count, np.nan)
        mse = weights @ errors / count
        variance = total_of_squares / count - (total / count) ** 2
        # Rounding leaves a little variance where all drawn values are one and the same.
        varies = np.where(weights > 0, truth, np.inf).min(1) < np.where(weights > 0, truth, -np.inf).max(1)
        r2 = 1 - mse / np.where(varies, variance, np.nan)
        spearman = _correlation(rank_truth(weights), rank_predicted(weights), weights)
        return {"spearman": spearman, "rmse": np.sqrt(mse), "mse": mse, "r2": r2}

    def measure(draws: Draws) -> Figures:
        if owners is None:
            return measure_values(draws)
        num = max(1, _AT_ONCE // len(owners))
        parts = [measure_values(draws[start : start + num][:, owners]) for start in range(0, len(draws), num)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    return measure


def _draws(num_units: int, seed: int) -> Iterator[Draws]:
    rng, remaining = np.random.default_rng(seed), NUM_RESAMPLES
    while remaining:
        num = min(remaining, max(1, _AT_ONCE // num_units))
        yield rng.multinomial(num_units, np.full(num_units, 1 / num_units), size=num).astype(np.float64)
        remaining -= num


def _class_figures(right: Draws, true: Draws, predicted: Draws) -> Figures:
    """Compute accuracy, macro F1 and MCC of how often each class is right, true and predicted, (resamples, classes).

    Source: Gorodkin 2004, "Comparing two K-category assignments by a K-category correlation coefficient".
    """
    total = np.where(true.any(1), true.sum(1), np.nan)
    f1 = 2 * right / np.maximum(true + predicted, 1)
    covariance = right.sum(1) * total - (true * predicted).sum(1)
    spread = np.sqrt((total**2 - (true**2).sum(1)) * (total**2 - (predicted**2).sum(1)))
    mcc = covariance / np.where(spread > 0, spread, 1)
    mcc[((true + predicted) > 0).sum(1) < 2] = np.nan
    return {"accuracy": right.sum(1) / total, "macro_f1": np.where(np.isnan(total), np.nan, f1.mean(1)), "mcc": mcc}


def _area_under_roc(is_positive: NDArray[np.bool_], scores: NDArray[np.floating]) -> Callable[[Draws], Draws]:
    """Prepare the share of pairs of a positive and a negative in which the positive scores higher, ties half."""
    order, starts = _groups(scores)

    def measure(draws: Draws) -> Draws:
        positives, negatives = _in_groups(draws, order, starts, is_positive)
        below = negatives.cumsum(1) - negatives / 2
        pairs = positives.sum(1) * negatives.sum(1)
        return np.asarray((positives * below).sum(1) / np.where(pairs > 0, pairs, np.nan))

    return measure


def _average_precision(is_positive: NDArray[np.bool_], scores: NDArray[np.floating]) -> Callable[[Draws], Draws]:
    """Prepare the area under the precision-recall curve, as the sum of its steps; NaN where nothing is positive."""
    order, starts = _groups(-scores)

    def measure(draws: Draws) -> Draws:
        positives, negatives = _in_groups(draws, order, starts, is_positive)
        found = positives.cumsum(1)
        precision = found / np.maximum(found + negatives.cumsum(1), 1)
        total = positives.sum(1)
        return np.asarray((positives * precision).sum(1) / np.where(total > 0, total, np.nan))

    return measure


def _groups(scores: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sort scores, and find where each distinct one begins among them."""
    order = np.argsort(scores, kind="stable")
    is_new = np.diff(scores[order], prepend=-np.inf) != 0
    is_new[0] = True
    return order, np.flatnonzero(is_new)


def _in_groups(
    draws: Draws, order: NDArray[np.int64], starts: NDArray[np.int64], is_positive: NDArray[np.bool_]
) -> tuple[Draws, Draws]:
    """Count positives and negatives with each distinct score, both (resamples, scores)."""
    drawn = draws[:, order]
    positives = np.add.reduceat(drawn * is_positive[order], starts, axis=1)
    return positives, np.add.reduceat(drawn, starts, axis=1) - positives


def _best_f1(curves: LabelCurves) -> Callable[[Draws], Draws]:
    filled = [np.nan_to_num(curve) for curve in curves]
    known = [(~np.isnan(curve)).astype(np.float64) for curve in curves]

    def measure(draws: Draws) -> Draws:
        precision, recall = (
            draws @ values / np.maximum(draws @ counts, 1) for values, counts in zip(filled, known, strict=True)
        )
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        best: Draws = f1.max(1)
        best[(draws @ known[1])[:, 0] == 0] = np.nan
        return best

    return measure


def _ranker(values: NDArray[np.floating]) -> Callable[[Draws], Draws]:
    """Prepare the rank of each value among those drawn, equal ones sharing the mean of theirs, (resamples, n)."""
    order, starts = _groups(values)
    group_of = np.empty(len(values), np.int64)
    group_of[order] = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(values))))

    def rank(draws: Draws) -> Draws:
        drawn = np.add.reduceat(draws[:, order], starts, axis=1)
        return np.asarray((drawn.cumsum(1) - drawn / 2)[:, group_of])

    return rank


def _correlation(left: Draws, right: Draws, weights: Draws) -> Draws:
    """Correlate two (resamples, n) row by row, each pair as often as it was drawn; NaN where one does not vary."""
    total = weights.sum(1, keepdims=True)
    total = np.where(total > 0, total, np.nan)
    left = left - (weights * left).sum(1, keepdims=True) / total
    right = right - (weights * right).sum(1, keepdims=True) / total
    spread = np.sqrt((weights * left**2).sum(1) * (weights * right**2).sum(1))
    return np.asarray((weights * left * right).sum(1) / np.where(spread > 0, spread, np.nan))
