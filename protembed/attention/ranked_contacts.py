"""The top-scoring pairs of a protein: where they are, which of them are contacts of its structure, and how many."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from protembed.attention.contacts import (
    FRACTIONS,
    RANGES,
    ResiduePairs,
    gather,
    num_top_pairs,
    precision,
    random_precision,
)

CONTACT, NO_CONTACT, UNKNOWN = 1, 0, 2


@dataclass(frozen=True, kw_only=True)
class RankedContacts:
    """The top-scoring pairs of one protein in a range of separations, the best first.

    Attributes:
        first: First residue of each pair, from 0, (pairs,), int64.
        second: Second residue of each pair, (pairs,), int64, above `first`.
        state: `CONTACT` or `NO_CONTACT` in the structure, or `UNKNOWN` where it lacks a residue or there is no
            structure, (pairs,), uint8.
        num_top: Number of leading pairs by the name of their fraction in `FRACTIONS`. As many of them are known as
            the fraction asks for, so that right and wrong ones add up to it; without a structure, all count. A fraction
            is missing where the range has no more pairs than it asks for.
        precisions: Fraction of contacts among the known leading pairs, by the same names; empty without a structure.
        random: Expected precision of random pairs of the range; None without a structure.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    state: NDArray[np.uint8]
    num_top: Mapping[str, int]
    precisions: Mapping[str, float]
    random: float | None

    def within(self, part: slice) -> "RankedContacts":
        """Keep the pairs whose residues are both in a region, and number these from 0; precisions stay as they are."""
        is_in = (self.first >= part.start) & (self.second < part.stop)
        return replace(
            self,
            first=self.first[is_in] - part.start,
            second=self.second[is_in] - part.start,
            state=self.state[is_in],
            num_top={name: int(is_in[:num].sum()) for name, num in self.num_top.items()},
        )


def rank_contacts(scores: NDArray[np.floating], structure: ResiduePairs | None) -> dict[str, RankedContacts]:
    """Rank the pairs of one protein by their scores, for each range of `RANGES`.

    Args:
        scores: Score of each pair, (residues, residues), symmetric; -inf for a pair that is not ranked.
        structure: Pairs whose contact state a structure shows; None without a structure.
    """
    state = np.full(scores.shape, UNKNOWN, np.uint8)
    if structure is not None:
        state[structure.first, structure.second] = np.where(structure.is_contact, CONTACT, NO_CONTACT)
    return {name: _rank_range(scores, state, structure, name) for name in RANGES}


def _rank_range(
    scores: NDArray[np.floating], state: NDArray[np.uint8], structure: ResiduePairs | None, range_name: str
) -> RankedContacts:
    low, high = RANGES[range_name]
    is_in = np.triu(scores > -np.inf, low)
    if high is not None:
        is_in &= ~np.triu(is_in, high)
    first, second = np.nonzero(is_in)
    order = np.argsort(-scores[first, second], kind="stable")
    first, second = first[order], second[order]
    ranked_state = state[first, second]
    if structure is None:
        num_top = _num_top(np.ones(len(order), np.bool_), len(scores))
    else:
        num_top = _num_top(ranked_state != UNKNOWN, structure.num_residues)
    longest = max(num_top.values(), default=0)
    return RankedContacts(
        first=first[:longest],
        second=second[:longest],
        state=ranked_state[:longest],
        num_top=num_top,
        precisions={} if structure is None else _precisions(scores, structure, range_name),
        random=None if structure is None else random_precision(structure, range_name),
    )


def _num_top(counts: NDArray[np.bool_], num_residues: int) -> dict[str, int]:
    """Find how many leading pairs hold as many that count, (pairs,), as each fraction asks for."""
    totals = np.cumsum(counts)
    needed = {name: num_top_pairs(num_residues, fraction) for name, fraction in FRACTIONS.items()}
    return {name: int(np.searchsorted(totals, num)) + 1 for name, num in needed.items() if num < counts.sum()}


def _precisions(scores: NDArray[np.floating], structure: ResiduePairs, range_name: str) -> dict[str, float]:
    known = gather(structure, scores)
    values = {name: precision(known, structure, range_name, fraction) for name, fraction in FRACTIONS.items()}
    return {name: value for name, value in values.items() if value is not None}


def held_out_matrix(logits: NDArray[np.float64], structure: ResiduePairs) -> NDArray[np.float64]:
    """Arrange the scores of a structure's pairs, (pairs,), as a matrix, (residues, residues); -inf elsewhere."""
    scores = np.full((len(structure.sequence), len(structure.sequence)), -np.inf)
    scores[structure.first, structure.second] = scores[structure.second, structure.first] = logits
    return scores
