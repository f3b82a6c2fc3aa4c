"""Tables of predictions: one line per protein, with a probability per class or label."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from protembed.config.common import Task
from protembed.io.text import LabelText


def prediction_header(classes: Sequence[str] | None) -> list[str]:
    """Name the columns that describe a prediction.

    >>> prediction_header(["cytoplasm", "nucleus"])
    ['prediction', 'p_cytoplasm', 'p_nucleus']
    """
    return ["prediction", *(f"p_{name}" for name in classes or ())]


def prediction_cells(
    output: NDArray[np.floating], task: Task, classes: Sequence[str] | None, threshold: float = 0.5
) -> list[str]:
    """Spell one prediction.

    Args:
        output: (classes,) or (labels,) probabilities, or () a value; with a first dimension of residues where each
            residue has an answer of its own.
        task: what was predicted.
        classes: their names, or None for values.
        threshold: the probability from which on a label is predicted.

    Returns:
        The prediction, and the probability of each class. Of residues the prediction is a string if all classes are
        letters, and a list divided by `;` otherwise; their values and probabilities are such lists.

    >>> from protembed.config.common import TASKS
    >>> prediction_cells(np.array([0.25, 0.75]), TASKS["classification"], ["cytoplasm", "nucleus"])
    ['nucleus', '0.25', '0.75']
    >>> prediction_cells(np.array([[0.9, 0.1], [0.2, 0.8]]), TASKS["residue-classification"], ["H", "E"])
    ['HE', '0.9;0.2', '0.1;0.8']
    """
    if classes is None:
        return [_numbers(output)]
    probabilities = np.moveaxis(np.asarray(output), -1, 0)  # (classes,), or (classes, residues)
    if task.answer == "labels":
        chosen = [name for name, one in zip(classes, probabilities, strict=True) if one >= threshold]
        return [LabelText(";".join(chosen)), *map(_numbers, probabilities)]
    names = [classes[number] for number in np.atleast_1d(probabilities.argmax(0))]
    are_letters = all(len(name) == 1 for name in classes)
    return [LabelText(("" if are_letters else ";").join(names)), *map(_numbers, probabilities)]


def _numbers(values: NDArray[np.floating]) -> str:
    return ";".join(f"{value:.6g}" for value in np.atleast_1d(values))
