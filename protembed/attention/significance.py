"""Permutation tests of whether a head attends to labelled residues or pairs more than by chance.

Two null hypotheses are tested, and a head's p-value is the larger of the two:

1. Labels are exchangeable within the strata of each protein: residues of the same amino acid and the same part of the
   chain, or pairs of the same separation, whose values are relative to the mean of their two amino acids. Without this,
   a head that looks for aspartate "attends" to any site that is rich in it.
2. Labels could lie elsewhere on the chain in the same pattern. Neighbours have similar values, so that labels in
   clusters carry less information than as many scattered labels, and the first test alone would find too many heads.

Neither test covers dependence between proteins: sites at the same position in many proteins, or copies of one family,
are not independent examples. `num_above` counts the proteins that show the effect.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.stats import false_discovery_control, rankdata

# Heads with a q-value of at most this are reported.
SIGNIFICANT = 0.05
# Below this many residues apart, each separation is a separate stratum.
_FIRST_WIDE_SEPARATION = 24
# Above it, each doubling of the separation has this many strata: 3 residues wide at 24, 12 % wide everywhere.
_STRATA_PER_DOUBLING = 6
# Sums of the same ranks in another order differ by about 1e-5 in float32. Sums closer than this count as equal.
_ROUNDING = 1e-4
# Means of strata and of amino acids are subtracted in turn: one round found 12 heads on 8 proteins, four rounds 13.
_NUM_CENTRINGS = 4
# Heads whose ranks are centred in one block.
_HEADS_PER_BLOCK = 16
# Random keys drawn, or labels moved, in one block.
_BLOCK_SIZE = 1 << 21

# Function that moves the labels along the chain at random, and sums the ranks there: from ranks, (n, heads), the number
# of moves and their source to sums, (moves, heads).
MovedSums = Callable[[NDArray[np.float32], int, np.random.Generator], NDArray[np.float64]]


def _sums_of_draws(
    ranks: NDArray[np.float32], num: int, num_keys: int, draw: Callable[[int], NDArray[np.int64]]
) -> NDArray[np.float32]:
    """Sum the ranks of labels that are drawn at random, in blocks that bound the memory.

    Few residues or pairs are labelled, so that multiplying a sparse matrix is faster than a dense product, whose
    threads wait for one another on a busy machine. Of `ranks`, (n, heads), `draw` draws indices, (rows, labels), by
    `num_keys` random keys for each row.
    """
    sums, block = [], max(1, _BLOCK_SIZE // num_keys)
    for done in range(0, num, block):
        indices = draw(min(block, num - done))
        ends = indices.shape[1] * np.arange(len(indices) + 1)
        labels = csr_array((np.ones(indices.size, np.float32), indices.ravel(), ends), shape=(len(indices), len(ranks)))
        sums.append(labels @ ranks)
    return np.concatenate(sums)


def label_segments(is_labelled: NDArray[np.bool_], max_gap: int) -> list[NDArray[np.int64]]:
    """Group labelled residues, (residues,), into segments: neighbouring labels at most `max_gap` residues apart."""
    labelled = np.flatnonzero(is_labelled)
    return np.split(labelled, np.flatnonzero(np.diff(labelled) > max_gap) + 1)


class MovedSegments:
    """Labelled residues that move as segments: labels close together stay together, and segments never overlap.

    Neighbouring residues receive similar attention: over 24 proteins and the 120 heads of the bundled model the ranks
    of two residues correlate by 0.26 next to each other and by 0.11 from 9 residues on, so that ten labels in two
    segments carry less information than ten scattered labels.

    Args:
        segments: Labelled residues of each segment, from 0, at least one.
        num_residues: Length of the protein.
    """

    def __init__(self, segments: Sequence[NDArray[np.int64]], num_residues: int) -> None:
        self._offsets = [segment - segment[0] for segment in segments]  # from the first residue of each segment
        self._spans = np.array([offsets[-1] + 1 for offsets in self._offsets])
        self._num_residues = num_residues

    def sums(self, ranks: NDArray[np.float32], num: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Sum the ranks, (residues, heads), of the residues in the moved segments: `MovedSums`, (num, heads)."""
        return _sums_of_draws(ranks, num, self._num_residues, lambda rows: self._draw(rows, rng)).astype(np.float64)

    def _draw(self, rows: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw moved labels, (rows, labels): all orders of the segments and all gaps are equally likely."""
        num_segments, num_free = len(self._spans), self._num_residues - int(self._spans.sum())
        keys = rng.random((rows, num_free + num_segments), dtype=np.float32)
        slots = np.sort(keys.argpartition(num_segments - 1, axis=1)[:, :num_segments], axis=1)
        order = rng.random((rows, num_segments)).argsort(axis=1)  # the segment in each slot
        spans = self._spans[order]
        starts = np.empty_like(slots)
        # A slot is a free residue or a whole segment: those before it are counted, the segments by their length.
        np.put_along_axis(starts, order, slots - np.arange(num_segments) + spans.cumsum(1) - spans, axis=1)
        moved = [starts[:, [number]] + offsets for number, offsets in enumerate(self._offsets)]
        return np.concatenate(moved, axis=1)


@dataclass(frozen=True, kw_only=True)
class LabelledScores:
    """Scores that heads give to the residues, or pairs of residues, of one protein, and which of them are labelled.

    Attributes:
        values: Scores, (heads, n), floating, without NaN.
        is_labelled: Contacts among pairs, or the residues of a site, (n,), bool.
        strata: Number of each stratum, (n,), int64; labels are exchanged only within a stratum.
        kinds: Kinds, such as the two amino acids of a pair, (n,), int64: ranks are relative to the mean of their kind.
            None where each stratum is of one kind.
        moved_sums: Sums for the second null hypothesis; None where that is not tested.
    """

    values: NDArray[np.floating]
    is_labelled: NDArray[np.bool_]
    strata: NDArray[np.int64]
    kinds: NDArray[np.int64] | None = None
    moved_sums: MovedSums | None = None


@dataclass(frozen=True, kw_only=True)
class HeadTest:
    """How well each head separates labelled scores from the others of their stratum.

    Attributes:
        p_values: One-sided p-values, (heads,); never below 1 / (1 + num_permutations).
        q_values: P-values corrected for the number of heads after Benjamini and Hochberg, (heads,).
        effects: Probability that a labelled score exceeds an unlabelled one of its protein and stratum, (heads,); ties
            count half. 0.5 is no relation, 1 complete separation; NaN where nothing can be compared.
        deviations: Statistic in standard deviations of the null distribution, (heads,); 0 where that is constant.
        num_above: Number of proteins with an effect above 0.5, (heads,), int64.
        num_proteins: Number of proteins with a comparable stratum, one that is labelled in part.
        num_labelled: Number of labelled residues or pairs in comparable strata.
        num_permutations: Number of random relabellings that the p-values are from.
    """

    p_values: NDArray[np.float64]
    q_values: NDArray[np.float64]
    effects: NDArray[np.float64]
    deviations: NDArray[np.float64]
    num_above: NDArray[np.int64]
    num_proteins: int
    num_labelled: int
    num_permutations: int

    def ranking(self) -> NDArray[np.int64]:
        """Order the heads, the most significant first; of equal p-values, the larger deviation comes first."""
        return np.lexsort((-self.deviations, self.p_values))


def separation_strata(separation: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the strata within which pairs are compared, (pairs,), int64, by their separation in residues.

    Contacts become rarer and attention becomes weaker with separation, so that pairs of different separations are not
    comparable. Up to 23 residues each separation is a stratum. Beyond, strata widen with the separation, because both
    change slowly there and pairs of large separation are few.

    >>> separation_strata(np.array([6, 23, 24, 26, 27, 48]))
    array([ 6, 23, 24, 24, 25, 30])
    """
    doublings = np.log2(np.maximum(separation, _FIRST_WIDE_SEPARATION) / _FIRST_WIDE_SEPARATION)
    wide = _FIRST_WIDE_SEPARATION + np.floor(doublings * _STRATA_PER_DOUBLING).astype(np.int64)
    return np.where(separation < _FIRST_WIDE_SEPARATION, separation, wide)


def permutation_test(proteins: Iterable[LabelledScores], *, num_permutations: int = 10_000, seed: int = 0) -> HeadTest:
    """Test each head against labels that are permuted within the strata of each protein, and moved along its chain.

    A head's statistic is the sum of ranks over the labelled scores of all proteins. Each rank is taken within its
    stratum, centred, and divided by the stratum's size plus one: the stratified rank sum of van Elteren. Ranks make
    heads of any scale comparable, and bound the influence of a few huge values. The statistic is a scaled mean of the
    probability that a labelled score exceeds an unlabelled one, so that significance and effect cannot disagree. All
    heads see the same permutations and as many moves. One protein is held at a time.

    Raises:
        ValueError: There is no protein.

    Source: van Elteren 1960, "On the combination of independent two-sample tests of Wilcoxon"; p-values: Phipson and
        Smyth 2010, "Permutation p-values should never be zero"; false discoveries: Benjamini and Hochberg 1995.
    """
    moments, num_compared, num_labelled = list[NDArray[np.float64]](), 0, 0
    permuted = moved = np.zeros((num_permutations, 1))  # (permutations, heads)
    for number, protein in enumerate(proteins):
        ranked = _rank(protein)
        moments.append(ranked.moments())
        num_compared += bool(ranked.is_comparable.any())
        num_labelled += int(ranked.num_labelled[ranked.is_comparable].sum())
        rng = np.random.default_rng([seed, number])
        drawn = ranked.permuted_sums(num_permutations, rng)
        permuted = permuted + drawn
        sums = protein.moved_sums
        moved = moved + (drawn if sums is None else sums(ranked.in_order(), num_permutations, rng))
    moments_by_protein = np.stack(moments)  # (proteins, 3, heads)
    statistic, variance, scale = moments_by_protein.sum(0)
    p_values = np.maximum(_p_values(statistic, permuted), _p_values(statistic, moved))
    return HeadTest(
        p_values=p_values,
        q_values=np.asarray(false_discovery_control(p_values)),
        effects=0.5 + _ratio(statistic, scale, np.nan),
        deviations=_ratio(statistic, np.sqrt(variance), 0.0),
        num_above=(moments_by_protein[:, 0] > _ROUNDING).sum(0),
        num_proteins=num_compared,
        num_labelled=num_labelled,
        num_permutations=num_permutations,
    )


def permutation_warnings(test: HeadTest) -> list[str]:
    """Warn if no head is significant, and there are too few permutations for any single one of so many heads to be."""
    num_heads = len(test.p_values)
    num_needed = math.ceil(num_heads / SIGNIFICANT)
    is_limited = test.p_values.min() * (1 + test.num_permutations) < 1.5  # the lowest p-value that there can be
    if (test.q_values <= SIGNIFICANT).any() or not is_limited or test.num_permutations >= num_needed:
        return []
    return [
        f"{test.num_permutations:,} permutations are too few for a single one of {num_heads} heads to be significant: "
        f"use --num-permutations {num_needed}"
    ]


def _p_values(statistic: NDArray[np.float64], null: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute how often the null distribution, (draws, heads), reaches the statistic, (heads,)."""
    # Written so that NaN, which compares as not below, is never significant.
    return np.asarray((1 + (~(null < statistic - _ROUNDING)).sum(0)) / (1 + len(null)))


@dataclass(frozen=True, kw_only=True)
class _RankedScores:
    """One protein's scores as ranks, stratum after stratum.

    Attributes:
        ranks: Centred ranks within the stratum, divided by its size plus one, (n, heads), float32.
        order: Index of each score in the protein, (n,), int64.
        sizes: Number of scores of each stratum, (strata,).
        num_labelled: Number of labelled scores of each stratum, (strata,).
    """

    ranks: NDArray[np.float32]
    is_labelled: NDArray[np.bool_]
    order: NDArray[np.int64]
    sizes: NDArray[np.int64]
    num_labelled: NDArray[np.int64]

    @property
    def is_comparable(self) -> NDArray[np.bool_]:
        """Strata that are labelled in part, (strata,): others add nothing to a sum."""
        return (self.num_labelled > 0) & (self.num_labelled < self.sizes)

    def moments(self) -> NDArray[np.float64]:
        """Compute the statistic, its variance under permutation, and the divisor of the effect, (3, heads)."""
        exchanges = self.num_labelled * (self.sizes - self.num_labelled)
        # The variance of a sum drawn without replacement.
        per_square = np.repeat(exchanges / (self.sizes * np.maximum(self.sizes - 1, 1)), self.sizes)
        scale = (exchanges / (self.sizes + 1)).sum()
        statistic = self.ranks[self.is_labelled].sum(0, dtype=np.float64)
        variance = np.einsum("nh,nh,n->h", self.ranks, self.ranks, per_square)
        return np.stack([statistic, variance, np.full_like(statistic, scale)])

    def in_order(self) -> NDArray[np.float32]:
        """Return the ranks in the order of the protein, (n, heads)."""
        ranks = np.empty_like(self.ranks)
        ranks[self.order] = self.ranks
        return ranks

    def permuted_sums(self, num: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Sum the ranks of labels that are permuted within the strata, (num, heads)."""
        num_keys = max(int(self.sizes.max(initial=1)), int(self.num_labelled.sum()))
        return _sums_of_draws(self.ranks, num, num_keys, lambda rows: self._permute(rows, rng))

    def _permute(self, rows: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw permuted labels, (rows, labels)."""
        chosen = [np.empty((rows, 0), np.int64)]
        for end, size, count in zip(self.sizes.cumsum(), self.sizes, self.num_labelled, strict=True):
            # The smallest of random keys: five times as fast as Generator.permuted.
            keys = rng.random((rows, size), dtype=np.float32)
            chosen.append(end - size + keys.argpartition(count - 1, axis=1)[:, :count])
        return np.concatenate(chosen, axis=1)


def _rank(protein: LabelledScores) -> _RankedScores:
    _, stratum, sizes = np.unique(protein.strata, return_inverse=True, return_counts=True)
    num_labelled = np.bincount(stratum, protein.is_labelled, len(sizes)).astype(np.int64)
    order = np.argsort(stratum, kind="stable")
    if protein.moved_sums is None:  # incomparable strata have no effect, and often hold most of the scores
        is_comparable = (num_labelled > 0) & (num_labelled < sizes)
        order = order[is_comparable[stratum[order]]]
        sizes, num_labelled = sizes[is_comparable], num_labelled[is_comparable]
    ranks = np.empty((len(order), len(protein.values)), np.float32)
    for end, size in zip(sizes.cumsum(), sizes, strict=True):
        within = slice(end - size, end)
        ranks[within] = (rankdata(protein.values[:, order[within]], axis=1).T - (size + 1) / 2) / (size + 1)
    if protein.kinds is not None:
        _centre(ranks, np.repeat(np.arange(len(sizes)), sizes), protein.kinds[order])
    return _RankedScores(
        ranks=ranks, is_labelled=protein.is_labelled[order], order=order, sizes=sizes, num_labelled=num_labelled
    )


def _centre(ranks: NDArray[np.float32], strata: NDArray[np.int64], kinds: NDArray[np.int64]) -> None:
    """Subtract the mean of their kind from ranks, (n, heads), in place; the mean of each stratum stays zero."""
    _, kind = np.unique(kinds, return_inverse=True)
    ones, ends = np.ones(len(ranks), np.float32), np.arange(len(ranks) + 1)
    groupings = [csr_array((ones, groups, ends)) for groups in (kind, strata)]  # (n, groups)
    for start in range(0, ranks.shape[1], _HEADS_PER_BLOCK):
        block = ranks[:, start : start + _HEADS_PER_BLOCK]
        for members in _NUM_CENTRINGS * groupings:
            block -= members @ ((members.T @ block) / members.sum(0)[:, None])


def _ratio(values: NDArray[np.float64], by: NDArray[np.float64], otherwise: float) -> NDArray[np.float64]:
    return np.divide(values, by, out=np.full_like(values, otherwise), where=by > 0)
