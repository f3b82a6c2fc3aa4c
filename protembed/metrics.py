"""The field's metrics, and the trivial predictors that a model must beat."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics

Metrics = dict[str, float | None]


def classification_metrics(truth: NDArray[np.int64], probabilities: NDArray[np.floating]) -> Metrics:
    """Measure a classifier.

    Args:
        truth: (proteins,), the true classes.
        probabilities: (proteins, classes).

    Returns:
        `accuracy`, `macro_f1`, `mcc` and `auroc` (of the second of two classes, else the mean of one against the rest);
        None where a metric is not defined.
    """
    predicted = probabilities.argmax(1)
    num_classes = probabilities.shape[1]
    labels = list(range(num_classes))
    auroc: float | None = None
    if len(set(truth.tolist())) == num_classes:
        scores = probabilities[:, 1] if num_classes == 2 else probabilities
        auroc = float(metrics.roc_auc_score(truth, scores, multi_class="ovr", labels=labels))
    return {
        "accuracy": float(metrics.accuracy_score(truth, predicted)),
        "macro_f1": float(metrics.f1_score(truth, predicted, average="macro", labels=labels, zero_division=0)),
        "mcc": float(metrics.matthews_corrcoef(truth, predicted)) if len({*truth, *predicted}) > 1 else None,
        "auroc": auroc,
    }


def regression_metrics(truth: NDArray[np.floating], predicted: NDArray[np.floating]) -> Metrics:
    """Measure a predictor of values.

    Args:
        truth: (proteins,).
        predicted: (proteins,), in the same units.

    Returns:
        `spearman`, `rmse`, `mse` and `r2`; None where a metric is not defined.
    """
    varies = len(set(truth.tolist())) > 1 and len(set(predicted.tolist())) > 1
    mse = float(metrics.mean_squared_error(truth, predicted))
    return {
        "spearman": float(stats.spearmanr(truth, predicted).statistic) if varies else None,
        "rmse": mse**0.5,
        "mse": mse,
        "r2": float(metrics.r2_score(truth, predicted)) if len(set(truth.tolist())) > 1 else None,
    }


def majority_probabilities(train: NDArray[np.int64], num_classes: int, num_proteins: int) -> NDArray[np.float64]:
    """Predict the training part's shares of the classes for every protein, (proteins, classes)."""
    shares = np.bincount(train, minlength=num_classes) / len(train)
    return np.tile(shares, (num_proteins, 1))


def mean_values(train: NDArray[np.float64], num_proteins: int) -> NDArray[np.float64]:
    """Predict the training part's mean for every protein, (proteins,)."""
    return np.full(num_proteins, np.mean(train))


def bootstrap_interval(
    measure: Callable[[NDArray[np.int64]], float], num_units: int, *, num_resamples: int = 2_000, seed: int = 0
) -> tuple[float, float]:
    """Compute the 95 % percentile interval of a figure by resampling the units that it was measured on.

    Args:
        measure: the figure of some units, given as their numbers, (num_units,), with repetitions.
        num_units: proteins, or whatever was drawn independently.
        num_resamples: how often they are drawn anew.
        seed: of the draws; figures that are measured with the same one are resampled alike.

    Returns:
        The lower and the upper end, in the figure's units.

    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", section 13.3.
    """
    rng = np.random.default_rng(seed)
    figures = [measure(rng.integers(num_units, size=num_units)) for _ in range(num_resamples)]
    low, high = np.quantile(figures, [0.025, 0.975])
    return float(low), float(high)


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
