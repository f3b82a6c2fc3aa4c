"""The strongest pairs of attention maps: which residue attends to which, and how much."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protembed.data.structures import MIN_SEPARATION

NUM_STRONGEST = 10
# Smallest separations of the pairs that are listed, residues. Most heads attend to close neighbours, and the pairs
# that may be in contact would not be among the strongest.
SEPARATIONS = (0, MIN_SEPARATION)


@dataclass(frozen=True, kw_only=True)
class StrongestPairs:
    """The pairs with the most attention in each of several maps, the strongest first.

    Attributes:
        rows: Residue that attends, from 0 at the first residue of the map, (…, separations, pairs), int64.
        columns: Residue that it attends to, (…, separations, pairs), int64.
        weights: Attention, (…, separations, pairs), float32; 0 where a map has fewer pairs.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    weights: NDArray[np.float32]


def stack_pairs(maps: Sequence[StrongestPairs]) -> StrongestPairs:
    """Stack the strongest pairs of several maps, or of several layers, along a new first axis."""
    return StrongestPairs(
        rows=np.stack([pairs.rows for pairs in maps]),
        columns=np.stack([pairs.columns for pairs in maps]),
        weights=np.stack([pairs.weights for pairs in maps]),
    )


def strongest_pairs(weights: NDArray[np.floating]) -> StrongestPairs:
    """Find the strongest pairs of a map, (residues, residues), for each of `SEPARATIONS`.

    Of pairs with the same attention, those of earlier residues come first.

    >>> found = strongest_pairs(np.eye(9, k=7) + 0.5 * np.eye(9))
    >>> found.rows[:, :2].tolist(), found.columns[:, :2].tolist(), found.weights[:, :3].tolist()
    ([[0, 1], [0, 1]], [[7, 8], [7, 8]], [[1.0, 1.0, 0.5], [1.0, 1.0, 0.0]])
    """
    return stack_pairs([_strongest(weights, separation) for separation in SEPARATIONS])


def _strongest(weights: NDArray[np.floating], separation: int) -> StrongestPairs:
    """Find the strongest pairs whose residues are at least so far apart; each array is (pairs,)."""
    apart = weights.astype(np.float32)
    for offset in range(1 - separation, separation):
        np.fill_diagonal(apart[max(0, -offset) :, max(0, offset) :], 0)
    # They are in the rows with the highest maxima; a sort of all pairs would take several times as long.
    rows = np.sort(np.argsort(-apart.max(1), kind="stable")[:NUM_STRONGEST])
    candidates = apart[rows].ravel()
    best = np.argsort(-candidates, kind="stable")[:NUM_STRONGEST]
    padding = (0, NUM_STRONGEST - len(best))
    return StrongestPairs(
        rows=np.pad(rows[best // len(weights)], padding),
        columns=np.pad(best % len(weights), padding),
        weights=np.pad(candidates[best], padding),
    )
