"""Whether a head attends to what is marked by more than chance, tested within strata of each protein.

Two null hypotheses are tested, and a head's p-value is the larger of the two:

1. Marks are exchangeable within the strata of each protein: residues of the same amino acid and the same part of the
   chain, or pairs of the same separation, whose values are relative to the mean of their two amino acids. Without this
   a head that looks for aspartate "attends" to any site that is rich in it.
2. Marks could be elsewhere on the chain in the same pattern. Neighbours are alike, so that marks in clusters say less
   than as many marks apart, and the first null hypothesis alone would find too much.

What they leave open: sites that many proteins have at the same place, or copies of one family, are no independent
examples; `num_above` says in how many proteins the effect is there.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.stats import false_discovery_control, rankdata

# Random keys drawn, or marks moved, at once.
_MARKS_AT_ONCE = 1 << 21


class MovedMarks(ABC):
    """A way to move the marks of one protein that keeps their pattern."""

    @abstractmethod
    def sums(self, ranks: NDArray[np.float32], num: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Sum the ranks of marks that were moved.

        Args:
            ranks: The ranks of all residues or pairs in the order of `LabelledScores`, (n, heads).
            num: The number of moves that are drawn.
            rng: The source of the moves.

        Returns:
            The sums, (num, heads).
        """


class MovedSegments(MovedMarks):
    """Residues moved as segments: marks that are close together stay together, and segments never overlap.

    Attention received is alike in neighbours: over 24 proteins and the 120 heads of the bundled model the ranks of two
    residues correlate by 0.26 next to each other and by 0.11 from 9 residues on, so that ten marks in two segments say
    less than ten marks apart.

    Args:
        is_marked: The marked residues, (residues,), bool; at least one.
        max_gap: Marks at most so many residues apart belong to one segment.
    """

    def __init__(self, is_marked: NDArray[np.bool_], max_gap: int) -> None:
        marks = np.flatnonzero(is_marked)
        segments = np.split(marks, np.flatnonzero(np.diff(marks) > max_gap) + 1)
        self._within = [segment - segment[0] for segment in segments]
        self._spans = np.array([segment[-1] + 1 for segment in self._within])
        self._num_residues = len(is_marked)

    @property
    def num_segments(self) -> int:
        """The number of segments."""
        return len(self._within)

    def sums(self, ranks: NDArray[np.float32], num: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Sum the ranks of the residues that the moved segments mark."""
        return np.concatenate([marks @ ranks for marks in self._moved(num, rng)]).astype(np.float64)

    def _moved(self, num: int, rng: np.random.Generator) -> Iterator[csr_array]:
        """Yield moved marks, (some, residues), float32, until there were `num`."""
        num_marks = sum(map(len, self._within))
        at_once = max(1, _MARKS_AT_ONCE // self._num_residues)
        for done in range(0, num, at_once):
            rows = min(at_once, num - done)
            starts = self._starts(rows, rng)  # (rows, segments)
            moved = [starts[:, [number]] + within for number, within in enumerate(self._within)]
            columns, ends = np.concatenate(moved, axis=1).ravel(), num_marks * np.arange(rows + 1)
            yield csr_array((np.ones(len(columns), np.float32), columns, ends), shape=(rows, self._num_residues))

    def _starts(self, rows: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw the first residue of each segment, (rows, segments): any order, any gaps, all alike likely."""
        num_segments, num_free = len(self._spans), self._num_residues - int(self._spans.sum())
        keys = rng.random((rows, num_free + num_segments), dtype=np.float32)
        slots = np.sort(keys.argpartition(num_segments - 1, axis=1)[:, :num_segments], axis=1)
        order = rng.random((rows, num_segments)).argsort(axis=1)  # the segment in each slot
        spans = self._spans[order]
        starts = np.empty_like(slots)
        # A slot is a free residue or a whole segment: those before it are counted, the segments by their length.
        np.put_along_axis(starts, order, slots - np.arange(num_segments) + spans.cumsum(1) - spans, axis=1)
        return starts


class ShiftedPairs(MovedMarks):
    """Pairs shifted along the chain, both residues by the same number; who leaves it at one end enters at the other.

    Contacts lie in patches and maps are smooth: neighbouring pairs say less than as many pairs apart.

    Args:
        first: The first residues of all pairs from 0, (pairs,), int64.
        second: The second residues, (pairs,), int64, above `first`.
        is_marked: The pairs in contact, (pairs,), bool.
        num_residues: The residues of the protein.
    """

    def __init__(
        self, first: NDArray[np.int64], second: NDArray[np.int64], is_marked: NDArray[np.bool_], num_residues: int
    ) -> None:
        self._first, self._second = first, second
        self._is_marked, self._num_residues = is_marked, num_residues

    def sums(self, ranks: NDArray[np.float32], num: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Sum the ranks of the shifted pairs; one of which nothing is known has the mean rank, which is zero."""
        length = self._num_residues
        index = np.full((length, length), len(ranks))  # of a pair among `ranks`
        index[self._first, self._second] = index[self._second, self._first] = np.arange(len(ranks))
        ranks = np.concatenate([ranks, np.zeros((1, ranks.shape[1]), np.float32)])
        first, second = self._first[self._is_marked], self._second[self._is_marked]
        of_shifts = [
            ranks[index[(first + shift) % length, (second + shift) % length]].sum(0, dtype=np.float64)
            for shift in range(length)
        ]
        return np.stack(of_shifts)[rng.integers(0, length, num)]


# Heads with a q-value of at most so much are reported.
SIGNIFICANT = 0.05
# Below this many residues apart, each separation is a stratum of its own.
_FIRST_WIDE_SEPARATION = 24
# Above it, this many strata for each doubling of the separation: 3 residues wide at 24, 12 % wide everywhere.
_STRATA_PER_DOUBLING = 6
# Random keys drawn, or marks placed, at once.
_AT_ONCE = 1 << 21
# Sums of the same ranks in another order differ by about 1e-5 in float32. What is closer than this counts as equal.
_ROUNDING = 1e-4
# Means of strata and of amino acids are taken away in turns: once and four times found 12 and 13 heads of 8 proteins.
_NUM_CENTRINGS = 4
# Heads whose ranks are centred at once.
_HEADS_AT_ONCE = 16


@dataclass(frozen=True, kw_only=True)
class LabelledScores:
    """What heads give to the residues, or pairs of residues, of one protein, and which of those are marked.

    Attributes:
        values: (heads, n), floating; NaN nowhere.
        is_marked: (n,), bool; contacts among pairs, or the residues of a site.
        strata: (n,), int64; marks are exchanged only within a stratum. All zeros where there is but one.
        kinds: (n,), int64, such as the two amino acids of a pair: ranks are relative to the mean of their kind. None
            where the strata are of one kind each.
        moved: How marks are moved along the chain for the second null hypothesis; None where that is not tested.
    """

    values: NDArray[np.floating]
    is_marked: NDArray[np.bool_]
    strata: NDArray[np.int64]
    kinds: NDArray[np.int64] | None = None
    moved: MovedMarks | None = None


@dataclass(frozen=True, kw_only=True)
class HeadTest:
    """How far each head tells what is marked from the rest of its stratum.

    Attributes:
        p_values: (heads,), one-sided; never below 1 / (1 + num_permutations).
        q_values: (heads,), the same after Benjamini and Hochberg, over the heads.
        effects: (heads,), the chance that a marked value exceeds an unmarked one of its protein and stratum, ties half:
            0.5 is no relation, 1 complete separation. NaN where nothing could be compared.
        deviations: (heads,), the statistic in standard deviations of the null distribution; 0 where that has none.
        num_above: (heads,), int64; proteins whose own effect exceeds 0.5.
        num_proteins: proteins in which something could be compared: with a stratum that is marked in part.
        num_marks: marked residues, or pairs, in such strata; the others say nothing.
        num_permutations: permutations.
    """

    p_values: NDArray[np.float64]
    q_values: NDArray[np.float64]
    effects: NDArray[np.float64]
    deviations: NDArray[np.float64]
    num_above: NDArray[np.int64]
    num_proteins: int
    num_marks: int
    num_permutations: int

    def ranking(self) -> NDArray[np.int64]:
        """Order the heads, the most significant first; among equal p-values the larger deviation."""
        return np.lexsort((-self.deviations, self.p_values))


def separation_strata(separation: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the strata within which pairs of residues are compared.

    Contacts become rarer with separation, and attention weaker, so that pairs of unlike separation say little about one
    another. Up to 23 residues each separation is a stratum; from there on strata widen with the separation, since both
    change slowly there, and pairs of large separation are few.

    Args:
        separation: (pairs,), residues.

    Returns:
        (pairs,), int64.

    >>> separation_strata(np.array([6, 23, 24, 26, 27, 48]))
    array([ 6, 23, 24, 24, 25, 30])
    """
    doublings = np.log2(np.maximum(separation, _FIRST_WIDE_SEPARATION) / _FIRST_WIDE_SEPARATION)
    wide = _FIRST_WIDE_SEPARATION + np.floor(doublings * _STRATA_PER_DOUBLING).astype(np.int64)
    return np.where(separation < _FIRST_WIDE_SEPARATION, separation, wide)


def permutation_test(proteins: Iterable[LabelledScores], *, num_permutations: int = 10_000, seed: int = 0) -> HeadTest:
    """Test each head against marks that are permuted within the strata of each protein, and moved along its chain.

    A head's statistic is the sum, over the marked of all proteins, of the rank of its value in the stratum, centred and
    divided by the stratum's size plus one: the stratified rank sum of van Elteren. Ranks make heads of any scale, and
    maps with a few huge values, alike; and the statistic is the mean chance that a marked value exceeds an unmarked
    one, scaled, so that significance and effect cannot disagree. All heads see the same permutations and moves.

    Args:
        proteins: one after the other, each with the same heads; only one is held at a time.
        num_permutations: permutations of all proteins, and as many moves.
        seed: of the permutations.

    Raises:
        ValueError: there is no protein.

    Source: van Elteren 1960, "On the combination of independent two-sample tests of Wilcoxon"; p-values: Phipson and
        Smyth 2010, "Permutation p-values should never be zero"; false discoveries: Benjamini and Hochberg 1995.
    """
    moments, num_compared, num_marks = list[NDArray[np.float64]](), 0, 0
    permuted = moved = np.zeros((num_permutations, 1))  # (permutations, heads)
    for number, protein in enumerate(proteins):
        ranked = _rank(protein)
        moments.append(ranked.moments())
        num_compared += bool(ranked.compares.any())
        num_marks += int(ranked.num_marked[ranked.compares].sum())
        rng = np.random.default_rng([seed, number])
        drawn = np.concatenate([marks @ ranked.ranks for marks in ranked.permutations(num_permutations, rng)])
        permuted = permuted + drawn
        moved = moved + (drawn if protein.moved is None else ranked.moved(protein.moved, num_permutations, rng))
    of_proteins = np.stack(moments)  # (proteins, 3, heads)
    statistic, variance, scale = of_proteins.sum(0)
    p_values = np.maximum(_p_values(statistic, permuted), _p_values(statistic, moved))
    return HeadTest(
        p_values=p_values,
        q_values=np.asarray(false_discovery_control(p_values)),
        effects=0.5 + _ratio(statistic, scale, np.nan),
        deviations=_ratio(statistic, np.sqrt(variance), 0.0),
        num_above=(of_proteins[:, 0] > _ROUNDING).sum(0),
        num_proteins=num_compared,
        num_marks=num_marks,
        num_permutations=num_permutations,
    )


def _p_values(statistic: NDArray[np.float64], null: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute how often the null reaches the statistic, (heads,), from (draws, heads)."""
    # Written so that a NaN, which is below nothing, is never significant.
    return np.asarray((1 + (~(null < statistic - _ROUNDING)).sum(0)) / (1 + len(null)))


@dataclass(frozen=True, kw_only=True)
class _RankedScores:
    """One protein's values as ranks, stratum after stratum.

    Attributes:
        ranks: (n, heads), float32: the rank within the stratum, less its mean, over the stratum's size plus one.
        is_marked: (n,).
        order: (n,), int64, where each stands in the protein.
        sizes: (strata,).
        num_marked: (strata,).
    """

    ranks: NDArray[np.float32]
    is_marked: NDArray[np.bool_]
    order: NDArray[np.int64]
    sizes: NDArray[np.int64]
    num_marked: NDArray[np.int64]

    @property
    def compares(self) -> NDArray[np.bool_]:
        """Which strata are marked in part, (strata,): a wholly marked or unmarked one adds nothing to a sum."""
        return (self.num_marked > 0) & (self.num_marked < self.sizes)

    def moments(self) -> NDArray[np.float64]:
        """Give the statistic, its variance under permutation, and what it is divided by for an effect, (3, heads)."""
        exchanges = self.num_marked * (self.sizes - self.num_marked)
        # The variance of a sum drawn without replacement.
        per_square = np.repeat(exchanges / (self.sizes * np.maximum(self.sizes - 1, 1)), self.sizes)
        scale = (exchanges / (self.sizes + 1)).sum()
        statistic = self.ranks[self.is_marked].sum(0, dtype=np.float64)
        variance = np.einsum("nh,nh,n->h", self.ranks, self.ranks, per_square)
        return np.stack([statistic, variance, np.full_like(statistic, scale)])

    def moved(self, marks: MovedMarks, num: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Sum the ranks of moved marks, (num, heads)."""
        ranks = np.empty_like(self.ranks)
        ranks[self.order] = self.ranks
        return marks.sums(ranks, num, rng)

    def permutations(self, num: int, rng: np.random.Generator) -> Iterator[csr_array]:
        """Yield permuted marks, (some, n), float32, until there were `num`.

        Few pairs are contacts, so that as a sparse matrix they are multiplied faster than by a library whose threads
        wait for one another on a busy machine.
        """
        starts, num_marked = self.sizes.cumsum() - self.sizes, int(self.num_marked.sum())
        at_once = max(1, _AT_ONCE // max(int(self.sizes.max(initial=1)), num_marked))
        for done in range(0, num, at_once):
            rows = min(at_once, num - done)
            chosen = [np.empty((rows, 0), np.int64)]
            for start, size, marked in zip(starts, self.sizes, self.num_marked, strict=True):
                # Those with the smallest of random keys: five times as fast as Generator.permuted.
                keys = rng.random((rows, size), dtype=np.float32)
                chosen.append(start + keys.argpartition(marked - 1, axis=1)[:, :marked])
            columns, ends = np.concatenate(chosen, axis=1).ravel(), num_marked * np.arange(rows + 1)
            yield csr_array((np.ones(len(columns), np.float32), columns, ends), shape=(rows, len(self.is_marked)))


def _rank(protein: LabelledScores) -> _RankedScores:
    _, stratum, sizes = np.unique(protein.strata, return_inverse=True, return_counts=True)
    num_marked = np.bincount(stratum, protein.is_marked, len(sizes)).astype(np.int64)
    order = np.argsort(stratum, kind="stable")
    if protein.moved is None:  # what cannot be compared plays no part, and is often most of it
        compares = (num_marked > 0) & (num_marked < sizes)
        order = order[compares[stratum[order]]]
        sizes, num_marked = sizes[compares], num_marked[compares]
    ranks = np.empty((len(order), len(protein.values)), np.float32)
    for end, size in zip(sizes.cumsum(), sizes, strict=True):
        within = slice(end - size, end)
        ranks[within] = (rankdata(protein.values[:, order[within]], axis=1).T - (size + 1) / 2) / (size + 1)
    if protein.kinds is not None:
        _centre(ranks, np.repeat(np.arange(len(sizes)), sizes), protein.kinds[order])
    return _RankedScores(
        ranks=ranks, is_marked=protein.is_marked[order], order=order, sizes=sizes, num_marked=num_marked
    )


def _centre(ranks: NDArray[np.float32], strata: NDArray[np.int64], kinds: NDArray[np.int64]) -> None:
    """Take from ranks, (n, heads), the mean of their kind, and leave that of their stratum at zero; in place."""
    _, kind = np.unique(kinds, return_inverse=True)
    ones, ends = np.ones(len(ranks), np.float32), np.arange(len(ranks) + 1)
    groupings = [csr_array((ones, groups, ends)) for groups in (kind, strata)]  # (n, groups)
    for start in range(0, ranks.shape[1], _HEADS_AT_ONCE):
        some = ranks[:, start : start + _HEADS_AT_ONCE]
        for members in _NUM_CENTRINGS * groupings:
            some -= members @ ((members.T @ some) / members.sum(0)[:, None])


def _ratio(values: NDArray[np.float64], by: NDArray[np.float64], otherwise: float) -> NDArray[np.float64]:
    return np.divide(values, by, out=np.full_like(values, otherwise), where=by > 0)
