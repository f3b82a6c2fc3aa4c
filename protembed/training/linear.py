"""The linear head on a frozen encoder, fitted by scikit-learn on vectors that were computed once."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from protembed.model.heads import TaskHead

_INVERSE_PENALTIES = (0.001, 0.01, 0.1, 1.0, 10.0)
_PENALTIES = (0.1, 1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0)
_MAX_ITERATIONS = 5_000

Vectors = NDArray[np.float32]


def fit_classifier(
    vectors: Vectors, labels: NDArray[np.int64], valid: tuple[Vectors, NDArray[np.int64]], classes: tuple[str, ...]
) -> TaskHead:
    """Fit a logistic regression; the strength of its penalty is the best on the validation part.

    Args:
        vectors: (proteins, dim), of the training part.
        labels: (proteins,), their classes.
        valid: vectors and classes of the validation part.
        classes: the names of the classes.

    Returns:
        A head that takes vectors as they are: the standardisation is folded into its weights.
    """
    scaler = StandardScaler().fit(vectors)
    fitted = [
        LogisticRegression(C=strength, max_iter=_MAX_ITERATIONS).fit(scaler.transform(vectors), labels)
        for strength in _INVERSE_PENALTIES
    ]
    best = max(fitted, key=lambda model: _log_likelihood(model, scaler.transform(valid[0]), valid[1]))
    weight, bias = best.coef_, best.intercept_
    if len(classes) == 2:  # scikit-learn keeps the second class's logit alone, against zero
        weight, bias = np.vstack([np.zeros_like(weight), weight]), np.concatenate([[0.0], bias])
    return _as_head(weight, bias, scaler, classes)


def fit_values(vectors: Vectors, values: NDArray[np.float64], valid: tuple[Vectors, NDArray[np.float64]]) -> TaskHead:
    """Fit a ridge regression; the strength of its penalty is the best on the validation part.

    Args:
        vectors: (proteins, dim), of the training part.
        values: (proteins,), their labels.
        valid: vectors and labels of the validation part.

    Returns:
        A head that takes vectors as they are and predicts in the labels' units.
    """
    scaler = StandardScaler().fit(vectors)
    mean, deviation = float(values.mean()), float(values.std())
    standardised = (values - mean) / deviation
    fitted = [Ridge(alpha=strength).fit(scaler.transform(vectors), standardised) for strength in _PENALTIES]
    vectors_valid, values_valid = scaler.transform(valid[0]), (valid[1] - mean) / deviation
    best = min(fitted, key=lambda model: float(np.square(model.predict(vectors_valid) - values_valid).mean()))
    head = _as_head(best.coef_[None], np.array([best.intercept_]), scaler, None)
    head.offset.fill_(mean)
    head.scale.fill_(deviation)
    return head


def _log_likelihood(model: Any, vectors: Vectors, labels: NDArray[np.int64]) -> float:
    with np.errstate(divide="ignore"):  # a probability of zero is minus infinity, and never the best
        return float(model.predict_log_proba(vectors)[np.arange(len(labels)), labels].mean())


def _as_head(
    weight: NDArray[np.floating], bias: NDArray[np.floating], scaler: Any, classes: tuple[str, ...] | None
) -> TaskHead:
    head = TaskHead(weight.shape[1], classes)
    folded = weight / scaler.scale_
    with torch.no_grad():
        head.linear.weight.copy_(torch.from_numpy(folded))
        head.linear.bias.copy_(torch.from_numpy(bias - folded @ scaler.mean_))
    return head.eval()
