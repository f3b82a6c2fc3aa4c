"""The test proteins whose predictions are most wrong."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protembed.finetuning.evaluation import Evaluation

NUM_SHOWN = 20

# What is known about one wrong prediction, by the names of `metrics.json`.
WrongPrediction = Mapping[str, Any]
# How wrong a prediction is, and what it says; None for a prediction without any error.
_Judgement = tuple[float, dict[str, Any]] | None
_Judge = Callable[[NDArray[Any], NDArray[Any], Sequence[str]], _Judgement]

# Smallest probability whose logarithm is taken.
_MIN_PROBABILITY = 1e-7


def worst_predictions(evaluation: Evaluation, num_shown: int = NUM_SHOWN) -> list[WrongPrediction]:
    """Describe the test proteins whose predictions are most wrong, the worst first.

    Returns:
        For each protein `id`, `num_residues`, `similarity` and `nearest_training_protein`, and, by the task:
        `label`, `predicted`, `p_label` and `p_predicted` of a wrong class, sorted by `p_label`; `missed` and `added`,
        the probabilities of wrong labels by name, sorted by the mean loss over all labels; `label`, `predicted` and
        `error` of a value, sorted by size; `num_wrong`, `num_labelled`, `accuracy` and `top_confusion` of classes of
        residues, sorted by the accuracy; or `rmse` and `num_labelled` of values of residues.
    """
    judge = _choose_judge(evaluation)
    wrong = list[tuple[float, WrongPrediction]]()
    pairs = zip(*evaluation.predictions.known(), strict=True)
    for number, (truth, predicted) in enumerate(pairs):
        if judgement := judge(truth, predicted, evaluation.classes or ()):
            wrong.append((judgement[0], {**_identify(evaluation, number), **judgement[1]}))
    wrong.sort(key=lambda pair: -pair[0])
    return [description for _, description in wrong[:num_shown]]


def _choose_judge(evaluation: Evaluation) -> _Judge:
    task = evaluation.predictions.task
    if task.per_residue:
        return _judge_residue_classes if task.label_kind == "class" else _judge_residue_values
    if task.label_kind == "labels":
        return _label_judge(evaluation.threshold)
    return _judge_class if task.label_kind == "class" else _judge_value


def _identify(evaluation: Evaluation, number: int) -> dict[str, Any]:
    protein, relatives = evaluation.proteins[number], evaluation.relatives
    return {
        "id": protein.id,
        "num_residues": len(protein.sequence),
        "similarity": float(relatives.similarities[number]),
        "nearest_training_protein": relatives.neighbours[number],
    }


def _judge_class(truth: NDArray[Any], predicted: NDArray[Any], classes: Sequence[str]) -> _Judgement:
    chosen = int(predicted.argmax())
    if chosen == int(truth):
        return None
    p_label = float(predicted[int(truth)])
    names = {"label": classes[int(truth)], "predicted": classes[chosen]}
    return 1 - p_label, {**names, "p_label": p_label, "p_predicted": float(predicted[chosen])}


def _label_judge(threshold: float) -> _Judge:
    def judge(truth: NDArray[Any], predicted: NDArray[Any], classes: Sequence[str]) -> _Judgement:
        is_true, is_predicted = truth > 0, predicted >= threshold
        if (is_true == is_predicted).all():
            return None
        p_right = np.where(is_true, predicted, 1 - predicted.astype(np.float64))
        loss = float(-np.log(np.maximum(p_right, _MIN_PROBABILITY)).mean())
        wrong = {"missed": is_true & ~is_predicted, "added": is_predicted & ~is_true}
        return loss, {
            name: {classes[number]: float(predicted[number]) for number in np.flatnonzero(rows).tolist()}
            for name, rows in wrong.items()
        }

    return judge


def _judge_value(truth: NDArray[Any], predicted: NDArray[Any], classes: Sequence[str]) -> _Judgement:
    error = float(predicted) - float(truth)
    return (abs(error), {"label": float(truth), "predicted": float(predicted), "error": error}) if error else None


def _judge_residue_classes(truth: NDArray[Any], predicted: NDArray[Any], classes: Sequence[str]) -> _Judgement:
    chosen = predicted.argmax(-1)
    wrong = np.flatnonzero(chosen != truth)
    if not len(wrong):
        return None
    pairs = Counter(zip(truth[wrong].tolist(), chosen[wrong].tolist(), strict=True))
    (true, most_predicted), count = pairs.most_common(1)[0]
    confusion = {"label": classes[true], "predicted": classes[most_predicted], "count": count}
    share = len(wrong) / len(truth)
    counts = {"num_wrong": len(wrong), "num_labelled": len(truth)}
    return share, {**counts, "accuracy": 1 - share, "top_confusion": confusion}


def _judge_residue_values(truth: NDArray[Any], predicted: NDArray[Any], classes: Sequence[str]) -> _Judgement:
    if not len(truth):
        return None
    rmse = float(np.sqrt(np.square(predicted - truth).mean()))
    return (rmse, {"rmse": rmse, "num_labelled": len(truth)}) if rmse else None
