"""Probes of any task, fitted by scikit-learn to vectors that were computed once: linear maps and small networks.

The vectors are those of a frozen encoder, whose probe becomes a task head, or counts, whose probe is a baseline.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import LinAlgWarning
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler

from protembed.config.common import Task
from protembed.model.heads import TaskHead

# Of the hidden layer of a network, here and in training.
HIDDEN_UNITS = 64
# For vectors with a standard deviation of one, and for rows of counts with a length of one.
_INVERSE_PENALTIES = {"dense": (0.001, 0.01, 0.1, 1.0, 10.0), "counts": (0.1, 1.0, 10.0, 100.0)}
_PENALTIES = {
    "dense": (0.1, 1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0),
    "counts": (0.001, 0.01, 0.1, 1.0, 10.0, 100.0),
}
_MAX_ITERATIONS = 1_000
_MAX_EPOCHS, _PATIENCE = 200, 10
# The logit of a label that all training proteins have, and the negative logit of one that none has.
_MAX_LOGIT = 15.0

# (n, inputs), float32; or sparse counts, for which scipy has no types.
Vectors = Any
# A weight, (outputs, inputs), and a bias, (outputs,).
Layer = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True)
class ProbeData:
    """Vectors with their targets.

    Attributes:
        vectors: (n, inputs), float32, or sparse counts.
        targets: Classes or values, (n,), or zeros and ones, (n, labels).
    """

    vectors: Vectors
    targets: NDArray[Any]

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A map from vectors to predictions, of one or two layers.

    Attributes:
        layers: The weight, (outputs, inputs), and the bias, (outputs,), of each layer, with a ReLU between two layers.
        offset: The mean of the training values, which is added to the scaled outputs; 0 where there are no values.
        scale: The standard deviation of the training values, by which outputs are multiplied.
    """

    task: Task
    layers: Sequence[Layer]
    offset: float = 0.0
    scale: float = 1.0

    def logits(self, vectors: Vectors) -> NDArray[np.float64]:
        """Compute logits, or standardised values, (n, outputs)."""
        for number, (weight, bias) in enumerate(self.layers):
            vectors = (np.maximum(vectors, 0.0) if number else vectors) @ weight.T + bias
        return np.asarray(vectors)

    def predict(self, vectors: Vectors) -> NDArray[np.float64]:
        """Compute probabilities, (n, classes) or (n, labels), or values, (n,)."""
        logits = self.logits(vectors)
        if self.task.label_kind == "value":
            return np.asarray(logits[:, 0] * self.scale + self.offset)
        return np.asarray(expit(logits) if self.task.label_kind == "labels" else softmax(logits, axis=1))

    def to_head(self, classes: Sequence[str] | None) -> TaskHead:
        """Make a task head that predicts the same."""
        num_inputs = self.layers[0][0].shape[1]
        num_hidden = len(self.layers[0][1]) if len(self.layers) > 1 else None
        head = TaskHead(num_inputs, self.task, classes, num_hidden=num_hidden)
        modules = [head.linear] if head.hidden is None else [head.hidden, head.linear]
        with torch.no_grad():
            for module, (weight, bias) in zip(modules, self.layers, strict=True):
                module.weight.copy_(torch.from_numpy(weight))
                module.bias.copy_(torch.from_numpy(bias))
            head.offset.fill_(self.offset)
            head.scale.fill_(self.scale)
        return head.eval()


def loss(probe: Probe, data: ProbeData) -> float:
    """Compute the loss as training does: mean nats, or half the mean squared error in squared standard deviations."""
    logits, targets = probe.logits(data.vectors), data.targets
    if probe.task.label_kind == "value":
        return float(np.square(logits[:, 0] - (targets - probe.offset) / probe.scale).mean() / 2)
    if probe.task.label_kind == "labels":
        return float((np.logaddexp(0.0, logits) - targets * logits).mean())
    return float((np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(targets)), targets]).mean())


class _Standardizer:
    """Scales vectors to a mean of zero and a standard deviation of one; counts are not changed."""

    def __init__(self, vectors: Vectors) -> None:
        self.kind = "dense" if isinstance(vectors, np.ndarray) else "counts"
        self._scaler = StandardScaler().fit(vectors) if self.kind == "dense" else None

    def scale(self, vectors: Vectors) -> Vectors:
        """Scale vectors, (n, inputs)."""
        return vectors if self._scaler is None else self._scaler.transform(vectors)

    def fold(self, weight: NDArray[Any], bias: NDArray[Any]) -> Layer:
        """Turn a layer for scaled vectors into one for the original vectors."""
        weight, bias = weight.astype(np.float64), bias.astype(np.float64)
        if self._scaler is None:
            return weight, bias
        folded = weight / self._scaler.scale_
        return folded, bias - folded @ self._scaler.mean_


def _value_scale(task: Task, train: ProbeData) -> tuple[float, float]:
    """Return the mean and the standard deviation of the training values; 0 and 1 where there are no values."""
    return (float(train.targets.mean()), float(train.targets.std())) if task.label_kind == "value" else (0.0, 1.0)


def fit_linear(task: Task, num_classes: int, train: ProbeData, valid: ProbeData, *, balanced: bool = False) -> Probe:
    """Fit logistic regressions or a ridge regression, with the penalty that has the lowest validation loss.

    Args:
        task: The task that the targets pose.
        num_classes: The number of classes or labels; 0 for values.
        train: The data to fit.
        valid: The data by which the penalty is chosen.
        balanced: Whether classes are weighted inversely to their frequency.

    Returns:
        A probe of the original vectors: the standardisation is folded into its weights.
    """
    return min(_regularization_path(task, num_classes, train, balanced), key=lambda probe: loss(probe, valid))


def _regularization_path(task: Task, num_classes: int, train: ProbeData, balanced: bool) -> Iterator[Probe]:
    """Fit with one penalty after another, the strongest first, each starting from the previous fit."""
    scaler = _Standardizer(train.vectors)
    scaled = scaler.scale(train.vectors)
    if task.label_kind == "value":
        offset, scale = _value_scale(task, train)
        values = (train.targets - offset) / scale
        for penalty in _PENALTIES[scaler.kind]:
            solver = "auto" if scaler.kind == "dense" else "lsqr"
            with warnings.catch_warnings():
                # Nearly collinear features need a penalty, and the validation loss shows which penalty is too weak.
                warnings.simplefilter("ignore", LinAlgWarning)
                model = Ridge(alpha=penalty, solver=solver).fit(scaled, values)
            layer = scaler.fold(model.coef_[None], np.array([model.intercept_]))
            yield Probe(task=task, layers=[layer], offset=offset, scale=scale)
        return
    are_labels = task.label_kind == "labels"
    columns = train.targets.T if are_labels else [train.targets]
    weights = "balanced" if balanced else None
    # The default, lbfgs, waits for OpenMP's threads between its many steps: 40 times as long on a busy machine.
    options = {"solver": "newton-cg", "max_iter": _MAX_ITERATIONS, "class_weight": weights}
    models = [LogisticRegression(warm_start=True, **options) for _ in columns]
    for strength in _INVERSE_PENALTIES[scaler.kind]:
        fits = [
            _fit_logistic(model.set_params(C=strength), scaled, column, 2 if are_labels else num_classes)
            for model, column in zip(models, columns, strict=True)
        ]
        if are_labels:  # the logit that a protein has a label, against that it has not
            fits = [(np.diff(weight, axis=0), np.diff(bias)) for weight, bias in fits]
        weight, bias = (np.concatenate(parts) for parts in zip(*fits, strict=True))
        yield Probe(task=task, layers=[scaler.fold(weight, bias)])


def _fit_logistic(model: Any, vectors: Vectors, classes: NDArray[Any], num_classes: int) -> Layer:
    """Fit a layer with a logit for each class.

    scikit-learn has a single logit for two classes, which is that of the second against zero, and none for classes that
    do not occur. A single class needs no fit.
    """
    occurring = np.unique(classes).astype(np.int64)
    weights, biases = np.zeros((num_classes, vectors.shape[1])), np.full(num_classes, -_MAX_LOGIT)
    biases[occurring] = 0.0
    if len(occurring) > 1:
        with warnings.catch_warnings():
            # The user was warned of so many classes when the labels were read.
            warnings.filterwarnings("ignore", "The number of unique classes is greater", UserWarning)
            model.fit(vectors, classes)
        fitted = occurring[1:] if len(occurring) == 2 else occurring
        weights[fitted], biases[fitted] = model.coef_, model.intercept_
    return weights, biases


def fit_network(
    task: Task, num_classes: int, train: ProbeData, valid: ProbeData, *, seed: int, max_epochs: int = _MAX_EPOCHS
) -> Probe:
    """Fit a network with one hidden layer until the validation loss no longer falls; keep the best epoch's weights.

    The arguments are those of `fit_linear`; the seed is that of the initialisation and of the order of the data.
    """
    make = MLPRegressor if task.label_kind == "value" else MLPClassifier
    network = make(hidden_layer_sizes=(HIDDEN_UNITS,), alpha=1e-3, random_state=seed)
    scaler = _Standardizer(train.vectors)
    offset, scale = _value_scale(task, train)
    targets = (train.targets - offset) / scale if task.label_kind == "value" else train.targets
    options = {} if task.label_kind == "value" else {"classes": np.arange(num_classes)}
    if task.label_kind == "labels" and num_classes == 1:  # scikit-learn takes a single label for two classes
        targets, options = targets.ravel(), {"classes": np.arange(2)}
    scaled = scaler.scale(train.vectors)
    best, best_loss, num_worse = None, np.inf, 0
    for _ in range(max_epochs):
        network.partial_fit(scaled, targets, **options)
        probe = Probe(task=task, layers=_network_layers(network, scaler, num_classes), offset=offset, scale=scale)
        valid_loss = loss(probe, valid)
        num_worse += 1
        if valid_loss < best_loss:
            best, best_loss, num_worse = probe, valid_loss, 0
        if num_worse == _PATIENCE:
            break
    assert best is not None
    return best


def _network_layers(network: Any, scaler: _Standardizer, num_classes: int) -> list[Layer]:
    hidden, last = zip((weight.T for weight in network.coefs_), network.intercepts_, strict=True)
    weight, bias = last
    if num_classes == 2 and len(bias) == 1 and network.out_activation_ == "logistic":
        weight, bias = np.vstack([np.zeros_like(weight), weight]), np.concatenate([[0.0], bias])
    return [scaler.fold(*hidden), (weight.astype(np.float64), bias.astype(np.float64))]
