"""Where the observed residues of a chain stand in the sequence of a whole protein."""

from itertools import pairwise

import numpy as np
from Bio.Align import PairwiseAligner
from numpy.typing import NDArray

# Loops begin and end with a few residues that their neighbours may happen to repeat, rarely more.
_FARTHEST_SHIFT = 10


def make_aligner() -> PairwiseAligner:
    """Make an aligner for a protein and what was observed of it: global, with free ends.

    Letters are the same or not, for both are one protein: a substitution matrix would forgive exchanges that a mutant
    has no reason to prefer, and BLOSUM62 knows neither U nor O. X fits everything and proves nothing. A long gap costs
    little more than a short one, for loops that move are long, and two gaps cost more than a mutated residue.
    """
    aligner = PairwiseAligner(mode="global", match_score=2, mismatch_score=-2, wildcard="X")
    aligner.open_gap_score = -4
    aligner.extend_gap_score = -0.05
    aligner.end_gap_score = 0
    return aligner


def place_residues(
    aligner: PairwiseAligner, sequence: str, observed: str, breaks: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Align the observed residues of a chain to a sequence.

    When `AGTGS` is seen as `AG` and `S`, or as `A` and `GS`, letters alone cannot tell which G was observed. There the
    gap is put where the chain is interrupted.

    Args:
        aligner: from `make_aligner`.
        sequence: of the whole protein; not empty.
        observed: one letter for each residue of the chain; not empty.
        breaks: (residues of the chain,); True where the chain is interrupted after a residue.

    Returns:
        (residues of the sequence,), int64: the number of the chain's residue that stands there, from 0, or -1.
    """
    places = np.full(len(sequence), -1, dtype=np.int64)
    for (start, stop), (first, last) in zip(*aligner.align(sequence, observed)[0].aligned, strict=True):
        places[start:stop] = np.arange(first, last)
    for before, stop in pairwise(np.flatnonzero(places >= 0).tolist()):
        if stop - before > 1 and places[stop] - places[before] == 1:
            for shift in sorted(range(-_FARTHEST_SHIFT, _FARTHEST_SHIFT + 1), key=abs):
                if _shift_gap(places, sequence, breaks, (before + 1, stop), shift):
                    break
    return places


def _shift_gap(
    places: NDArray[np.int64], sequence: str, breaks: NDArray[np.bool_], gap: tuple[int, int], shift: int
) -> bool:
    """Shift a gap by some residues, if the letters stay the same and the chain is interrupted there."""
    start, stop = gap
    left, right = min(shift, 0), max(shift, 0)
    first, last = start - 1 + left, stop + right  # a residue on either side stays where it is
    block = np.concatenate([places[max(first, 0) : start], places[stop : last + 1]])
    wanted = np.arange(places[start - 1] + left, places[stop] + right + 1)
    has_same_letters = sequence[start + left : start + right] == sequence[stop + left : stop + right]
    if not np.array_equal(block, wanted) or not has_same_letters or not breaks[places[start - 1] + shift]:
        return False
    num_before = start + shift - first
    places[first : last + 1] = -1
    places[first : start + shift] = block[:num_before]
    places[stop + shift : last + 1] = block[num_before:]
    return True
