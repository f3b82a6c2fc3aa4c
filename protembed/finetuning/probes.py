"""What is fitted by scikit-learn on vectors that were computed once: linear maps, and small networks, of any task.

Vectors may be those of a frozen encoder, of which a task head is made, or counts, which a model must beat.
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

# Of vectors with a standard deviation of one, and of rows of counts with a length of one.
_INVERSE_PENALTIES = {"dense": (0.001, 0.01, 0.1, 1.0, 10.0), "counts": (0.1, 1.0, 10.0, 100.0)}
_PENALTIES = {
    "dense": (0.1, 1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0),
    "counts": (0.001, 0.01, 0.1, 1.0, 10.0, 100.0),
}
_MAX_ITERATIONS = 1_000
_HIDDEN_UNITS, _MOST_EPOCHS, _PATIENCE = 64, 200, 10
# The logit of what was seen always, or never.
_MAX_LOGIT = 15.0

# (n, inputs), float32; or sparse counts.
Vectors = Any
Truth = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class ProbeData:
    """Vectors with their answers.

    Attributes:
        vectors: (n, inputs), float32, or sparse.
        answers: (n,) classes or values, or (n, labels).
    """

    vectors: Vectors
    answers: Truth

    def __len__(self) -> int:
        return len(self.answers)


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A map from vectors to logits or values, of one or two steps.

    Attributes:
        task: what it predicts.
        steps: each a weight, (outputs, inputs), and a bias, (outputs,); between two of them negative numbers become 0.
        offset: of values: what is added to a value that was multiplied by `scale`.
        scale: of values.
    """

    task: Task
    steps: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]
    offset: float = 0.0
    scale: float = 1.0

    def logits(self, vectors: Vectors) -> NDArray[np.float64]:
        """Compute (n, outputs)."""
        for number, (weight, bias) in enumerate(self.steps):
            vectors = (np.maximum(vectors, 0.0) if number else vectors) @ weight.T + bias
        return np.asarray(vectors)

    def outputs(self, vectors: Vectors) -> NDArray[np.float64]:
        """Compute probabilities, (n, classes) or (n, labels), or values, (n,)."""
        logits = self.logits(vectors)
        if self.task.label_kind == "value":
            return np.asarray(logits[:, 0] * self.scale + self.offset)
        return np.asarray(expit(logits) if self.task.label_kind == "labels" else softmax(logits, axis=1))

    def head(self, classes: Sequence[str] | None) -> TaskHead:
        """Make a head of a model of it."""
        num_inputs = self.steps[0][0].shape[1]
        num_hidden = len(self.steps[0][1]) if len(self.steps) > 1 else None
        head = TaskHead(num_inputs, self.task, classes, num_hidden=num_hidden)
        layers = [head.linear] if head.hidden is None else [head.hidden, head.linear]
        with torch.no_grad():
            for layer, (weight, bias) in zip(layers, self.steps, strict=True):
                layer.weight.copy_(torch.from_numpy(weight))
                layer.bias.copy_(torch.from_numpy(bias))
            head.offset.fill_(self.offset)
            head.scale.fill_(self.scale)
        return head.eval()


def fit_linear(task: Task, num_classes: int, train: ProbeData, valid: ProbeData, *, balanced: bool = False) -> Probe:
    """Fit logistic regressions or a ridge regression; the strength of the penalty is the best on the validation part.

    Args:
        task: what is predicted.
        num_classes: or labels; 0 for values.
        train: to be fitted.
        valid: to choose by.
        balanced: whether rare classes and labels weigh more, so that all weigh alike.

    Returns:
        A map that takes vectors as they are: the standardisation is folded into its weights.
    """
    return min(_linear_maps(task, num_classes, train, balanced), key=lambda fitted: loss(fitted, valid))


def fit_network(task: Task, num_classes: int, train: ProbeData, valid: ProbeData, *, seed: int) -> Probe:
    """Fit a network with a hidden layer, until the validation part gets no better; arguments as for `fit_linear`."""
    scaler, network = _Standardizer(train.vectors), _network(task, seed)
    offset, scale = _scale_of(task, train)
    answers = (train.answers - offset) / scale if task.label_kind == "value" else train.answers
    options = {} if task.label_kind == "value" else {"classes": np.arange(num_classes)}
    if task.label_kind == "labels" and num_classes == 1:  # one label alone is two classes to scikit-learn
        answers, options = answers.ravel(), {"classes": np.arange(2)}
    scaled = scaler.scale(train.vectors)
    best, best_loss, num_worse = None, np.inf, 0
    for _ in range(_MOST_EPOCHS):
        network.partial_fit(scaled, answers, **options)
        fitted = Probe(task=task, steps=_steps_of(network, scaler, num_classes), offset=offset, scale=scale)
        now = loss(fitted, valid)
        best, best_loss, num_worse = (fitted, now, 0) if now < best_loss else (best, best_loss, num_worse + 1)
        if num_worse == _PATIENCE:
            break
    assert best is not None
    return best


def loss(fitted: Probe, sample: ProbeData) -> float:
    """Measure a map as training does: mean nats, or half the mean squared error in standard deviations."""
    logits, truth = fitted.logits(sample.vectors), sample.answers
    if fitted.task.label_kind == "value":
        return float(np.square(logits[:, 0] - (truth - fitted.offset) / fitted.scale).mean() / 2)
    if fitted.task.label_kind == "labels":
        return float((np.logaddexp(0.0, logits) - truth * logits).mean())
    return float((np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(truth)), truth]).mean())


class _Standardizer:
    """Brings vectors to a mean of zero and a standard deviation of one; counts stay as they are."""

    def __init__(self, vectors: Vectors) -> None:
        self.kind = "dense" if isinstance(vectors, np.ndarray) else "counts"
        self._scaler = StandardScaler().fit(vectors) if self.kind == "dense" else None

    def scale(self, vectors: Vectors) -> Vectors:
        """Map (n, inputs) to the same."""
        return vectors if self._scaler is None else self._scaler.transform(vectors)

    def fold(self, weight: NDArray[Any], bias: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Turn a linear map of scaled vectors into one of vectors as they are."""
        weight, bias = weight.astype(np.float64), bias.astype(np.float64)
        if self._scaler is None:
            return weight, bias
        folded = weight / self._scaler.scale_
        return folded, bias - folded @ self._scaler.mean_


def _linear_maps(task: Task, num_classes: int, train: ProbeData, balanced: bool) -> Iterator[Probe]:
    """Fit with one penalty after another, the strongest first, each from where the last one ended."""
    scaler = _Standardizer(train.vectors)
    scaled = scaler.scale(train.vectors)
    if task.label_kind == "value":
        offset, scale = _scale_of(task, train)
        values = (train.answers - offset) / scale
        for penalty in _PENALTIES[scaler.kind]:
            solver = "auto" if scaler.kind == "dense" else "lsqr"
            with warnings.catch_warnings():
                # Features that say nearly the same need a penalty; the validation part judges who had too little.
                warnings.simplefilter("ignore", LinAlgWarning)
                model = Ridge(alpha=penalty, solver=solver).fit(scaled, values)
            step = scaler.fold(model.coef_[None], np.array([model.intercept_]))
            yield Probe(task=task, steps=[step], offset=offset, scale=scale)
        return
    columns = train.answers.T if task.label_kind == "labels" else [train.answers]
    weights = "balanced" if balanced else None
    # The default, lbfgs, waits for OpenMP's threads between its many steps: 40 times as long on a busy machine.
    options = {"solver": "newton-cg", "max_iter": _MAX_ITERATIONS, "class_weight": weights}
    models = [LogisticRegression(warm_start=True, **options) for _ in columns]
    for strength in _INVERSE_PENALTIES[scaler.kind]:
        parts = [
            _fit_logistic(model.set_params(C=strength), scaled, column)
            for model, column in zip(models, columns, strict=True)
        ]
        if task.label_kind == "labels":
            logits = [np.concatenate(kind) for kind in zip(*(_of_second_class(*part) for part in parts), strict=True)]
        else:
            logits = list(_of_all_classes(*parts[0], num_classes))
        yield Probe(task=task, steps=[scaler.fold(logits[0], logits[1])])


_Logits = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]


def _fit_logistic(model: Any, vectors: Vectors, classes: NDArray[Any]) -> _Logits:
    """Fit, and return coefficients, biases and the classes that occur; one alone needs no fit."""
    occurring = np.unique(classes)
    if len(occurring) == 1:
        return np.zeros((1, vectors.shape[1])), np.zeros(1), occurring
    with warnings.catch_warnings():
        # The user was warned of so many classes when the labels were read.
        warnings.filterwarnings("ignore", "The number of unique classes is greater", UserWarning)
        model.fit(vectors, classes)
    return model.coef_, model.intercept_, occurring


def _of_second_class(weight: NDArray[Any], bias: NDArray[Any], occurring: NDArray[Any]) -> tuple[Any, Any]:
    """Give a label's logit, of being there against not: (1, inputs) and (1,)."""
    return weight, bias if len(occurring) > 1 else np.array([_MAX_LOGIT if occurring[0] else -_MAX_LOGIT])


def _of_all_classes(
    weight: NDArray[Any], bias: NDArray[Any], occurring: NDArray[Any], num_classes: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Give each class a logit; scikit-learn keeps one alone of two, against zero, and none of what does not occur."""
    weights, biases = np.zeros((num_classes, weight.shape[1])), np.full(num_classes, -_MAX_LOGIT)
    biases[occurring] = 0.0
    places = occurring[1:] if len(occurring) == 2 else occurring
    weights[places], biases[places] = weight, bias
    return weights, biases


def _scale_of(task: Task, train: ProbeData) -> tuple[float, float]:
    return (float(train.answers.mean()), float(train.answers.std())) if task.label_kind == "value" else (0.0, 1.0)


def _network(task: Task, seed: int) -> Any:
    make = MLPRegressor if task.label_kind == "value" else MLPClassifier
    return make(hidden_layer_sizes=(_HIDDEN_UNITS,), alpha=1e-3, random_state=seed)


def _steps_of(network: Any, scaler: _Standardizer, num_classes: int) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    hidden, last = zip((weight.T for weight in network.coefs_), network.intercepts_, strict=True)
    weight, bias = last
    if num_classes == 2 and len(bias) == 1 and network.out_activation_ == "logistic":
        weight, bias = np.vstack([np.zeros_like(weight), weight]), np.concatenate([[0.0], bias])
    return [scaler.fold(*hidden), (weight.astype(np.float64), bias.astype(np.float64))]
