"""The proteins of a result that are worth a look: the longest and shortest, and those with unusual vectors."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protembed.embedding.checks import MAX_DEVIATION
from protembed.embedding.diagnosis import Diagnosis

# Proteins that are listed for each reason; more of them if their norm is far from those of the others.
_NUM_LISTED, _MAX_FAR = 5, 20


@dataclass(frozen=True, kw_only=True)
class UnusualProtein:
    """A protein that is worth a look.

    Attributes:
        index: Index of its row, from 0.
        reasons: Why it is listed.
    """

    index: int
    reasons: list[str]


def find_unusual(diagnosis: Diagnosis) -> list[UnusualProtein]:
    """List the proteins that are worth a look, those with the most serious reasons first."""
    reasons = dict[int, list[str]]()
    for index, reason in _reasons(diagnosis):
        reasons.setdefault(index, []).append(reason)
    return [UnusualProtein(index=index, reasons=found) for index, found in reasons.items()]


def _reasons(diagnosis: Diagnosis) -> Iterator[tuple[int, str]]:
    proteins, deviations = diagnosis.proteins, diagnosis.deviations
    for index in np.flatnonzero(np.isnan(diagnosis.vectors.norms))[:_MAX_FAR].tolist():
        yield index, "NaN or infinity"
    far = np.nan_to_num(np.abs(deviations))
    for index in _highest(far, max(_NUM_LISTED, min(_MAX_FAR, int((far > MAX_DEVIATION).sum())))):
        yield index, "highest norms" if deviations[index] > 0 else "lowest norms"
    for index in _highest(-np.nan_to_num(proteins.agreements, nan=1.0) + 1, _NUM_LISTED):
        yield index, "lowest agreement"
    for index in _highest(diagnosis.residues.num_nonstandard / np.maximum(1, proteins.num_residues), _NUM_LISTED):
        yield index, "most non-standard"
    for index in _highest(proteins.num_residues, _NUM_LISTED):
        yield index, "longest"
    for index in _highest(1 / np.maximum(1, proteins.num_residues), _NUM_LISTED):
        yield index, "shortest"


def _highest(values: NDArray[np.floating | np.integer], number: int) -> list[int]:
    """List the indices of the highest positive values, the highest first, and of equal ones the first."""
    if not len(values) or (values == values[0]).all():
        return []
    order = np.argsort(-values, kind="stable")[:number]
    return [int(index) for index in order if values[index] > 0]
