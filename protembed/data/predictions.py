"""Tables of predictions: one line per protein, and a probability per class."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def prediction_header(classes: Sequence[str] | None) -> list[str]:
    """Name the columns that describe a prediction.

    >>> prediction_header(["cytoplasm", "nucleus"])
    ['prediction', 'p_cytoplasm', 'p_nucleus']
    """
    return ["prediction", *(f"p_{name}" for name in classes or ())]


def prediction_cells(output: NDArray[np.floating] | np.floating, classes: Sequence[str] | None) -> list[str]:
    """Spell one prediction.

    Args:
        output: (classes,) probabilities, or () a value.
        classes: their names, or None for a value.

    >>> prediction_cells(np.array([0.25, 0.75]), ["cytoplasm", "nucleus"])
    ['nucleus', '0.25', '0.75']
    """
    if classes is None:
        return [f"{output:.6g}"]
    probabilities = np.asarray(output)
    return [classes[int(probabilities.argmax())], *(f"{probability:.6g}" for probability in probabilities)]
