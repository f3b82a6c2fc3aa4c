"""Pairs of residues: their attention features, and how precisely scores rank the pairs in contact."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray

from protembed.attention.significance import LabelledScores, separation_strata
from protembed.data.structures import MIN_SEPARATION
from protembed.evaluation.intervals import MetricWithInterval, ratio_with_interval
from protembed.model.heads import average_product_correction

# Smallest separation, and the first that is too large, residues.
RANGES: Mapping[str, tuple[int, int | None]] = MappingProxyType(
    {"short": (MIN_SEPARATION, 12), "medium": (12, 24), "long": (24, None)}
)
# Number of top-scoring pairs for each residue.
FRACTIONS: Mapping[str, float] = MappingProxyType({"L": 1.0, "L/2": 0.5, "L/5": 0.2})


@dataclass(frozen=True, kw_only=True)
class ResiduePairs:
    """One protein's pairs of residues at least 6 apart whose contact state is known.

    Attributes:
        first: First residue of each pair, from 0, (pairs,), int64.
        second: Second residue of each pair, (pairs,), int64, above `first`.
        is_contact: Pairs in contact, (pairs,), bool.
        num_residues: Number of residues with a known pair: the L of precision at L.
        sequence: Amino-acid sequence of the whole protein.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    is_contact: NDArray[np.bool_]
    num_residues: int
    sequence: str

    @classmethod
    def from_contact_map(
        cls, is_contact: NDArray[np.bool_], is_known: NDArray[np.bool_], sequence: str
    ) -> "ResiduePairs":
        """List the pairs of a whole protein by its contacts and known pairs, (residues, residues), both symmetric."""
        first, second = np.triu_indices(len(is_known), MIN_SEPARATION)
        known = is_known[first, second]
        first, second = first[known], second[known]
        num_residues = int(is_known.any(0).sum())
        return cls(
            first=first,
            second=second,
            is_contact=is_contact[first, second],
            num_residues=num_residues,
            sequence=sequence,
        )

    def contact_map(self) -> NDArray[np.bool_]:
        """Return the contacts as a matrix, (residues, residues), symmetric."""
        is_contact = np.zeros((len(self.sequence), len(self.sequence)), np.bool_)
        is_contact[self.first, self.second] = is_contact[self.second, self.first] = self.is_contact
        return is_contact

    @property
    def residues(self) -> NDArray[np.int64]:
        """Residues with a known pair, from 0 in ascending order, (residues,), int64."""
        return np.union1d(self.first, self.second)

    @property
    def separation(self) -> NDArray[np.int64]:
        """Separation of each pair, (pairs,), int64, residues."""
        return self.second - self.first

    @property
    def amino_acids(self) -> NDArray[np.int64]:
        """Number of each pair's two amino acids, (pairs,), int64, whatever their order."""
        letters = np.frombuffer(self.sequence.encode("ascii"), np.uint8).astype(np.int64)
        first, second = letters[self.first], letters[self.second]
        return 256 * np.minimum(first, second) + np.maximum(first, second)

    def labelled_scores(self, values: NDArray[np.floating]) -> LabelledScores:
        """Combine the scores that heads give to the pairs, (heads, pairs), with the contacts, for a test of heads."""
        return LabelledScores(
            values=values,
            is_labelled=self.is_contact,
            strata=separation_strata(self.separation),
            kinds=self.amino_acids,
            moved_sums=self.shifted_sums,
        )

    def shifted_sums(self, ranks: NDArray[np.float32], num: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Sum the ranks, (pairs, heads), of contacts shifted along the chain and around its ends, (num, heads).

        Contacts lie in patches and maps are smooth, so that neighbouring pairs carry less information than scattered
        ones. An unknown pair has the mean rank, zero.
        """
        length = len(self.sequence)
        index = np.full((length, length), len(ranks))  # row of each pair in `ranks`
        index[self.first, self.second] = index[self.second, self.first] = np.arange(len(ranks))
        ranks = np.concatenate([ranks, np.zeros((1, ranks.shape[1]), np.float32)])
        first, second = self.first[self.is_contact], self.second[self.is_contact]
        sums_by_shift = [
            ranks[index[(first + shift) % length, (second + shift) % length]].sum(0, dtype=np.float64)
            for shift in range(length)
        ]
        return np.stack(sums_by_shift)[rng.integers(0, length, num)]

    def is_in(self, range_name: str) -> NDArray[np.bool_]:
        """Return which pairs belong to a range of `RANGES`, (pairs,), bool."""
        low, high = RANGES[range_name]
        return (self.separation >= low) & (high is None or self.separation < high)


@dataclass(frozen=True, kw_only=True)
class PrecisionRow:
    """Precision over several proteins, beside the precision that is expected without attention maps.

    Attributes:
        precision: Mean over proteins with its 95 % interval; no interval with fewer than two proteins.
        random: Expected precision of random pairs of the range.
        matched_random: Expected precision of random pairs at the same separations, by the contact rates of the other
            proteins; None without other proteins.
        num_proteins: Number of proteins with enough pairs; all means are over these.
    """

    range_name: str
    fraction_name: str
    precision: MetricWithInterval
    random: float | None
    matched_random: float | None
    num_proteins: int


def head_features(maps: NDArray[np.floating]) -> NDArray[np.float32]:
    """Symmetrise maps, (head, residues, residues), and apply the average product correction, as a contact head does.

    Each map is processed independently. A head without any attention to residues has features of zero.

    Source: Rao et al. 2021, "Transformer protein language models are unsupervised structure learners", section 3.
    """
    symmetric = torch.from_numpy(np.asarray(maps + maps.swapaxes(-1, -2), np.float32))
    corrected = average_product_correction(symmetric)
    return np.asarray(torch.where(symmetric.any(-1).any(-1)[:, None, None], corrected, 0.0).numpy())


def gather(pairs: ResiduePairs, matrix: NDArray[np.floating]) -> NDArray[np.floating]:
    """Gather the value of each pair, (…, pairs), from a matrix, (…, residues, residues)."""
    return matrix[..., pairs.first, pairs.second]


def precision(
    scores: NDArray[np.floating],
    pairs: ResiduePairs,
    range_name: str,
    fraction: float,
    rates: NDArray[np.float64] | None = None,
) -> float | None:
    """Compute the fraction of contacts among the pairs of a range with the highest scores.

    Where scores are tied at the limit, the result is the mean over all choices among them.

    Args:
        scores: Score of each pair, (pairs,).
        pairs: Pairs of the protein.
        range_name: Key of `RANGES`.
        fraction: Number of top-scoring pairs for each residue; at least one pair is used.
        rates: Contact rate of each pair from `contact_rates`, (pairs,), to compute the precision that is expected if
            each top-scoring pair were replaced by a random pair of its separation; None to compute the precision.

    Returns:
        The precision; None where the range has no more pairs than are used, because all scores would do equally well.
    """
    is_in = pairs.is_in(range_name)
    scores, is_contact = scores[is_in], (pairs.is_contact if rates is None else rates)[is_in]
    num_top, num_pairs = num_top_pairs(pairs.num_residues, fraction), len(scores)
    if num_top >= num_pairs:
        return None
    limit = np.partition(scores, num_pairs - num_top)[num_pairs - num_top]
    is_above, is_tied = scores > limit, scores == limit
    num_left = num_top - is_above.sum()
    weights = (is_above + is_tied * (num_left / is_tied.sum())) / num_top  # ties share their weight; the sum is one
    return float(weights @ is_contact)


def num_top_pairs(num_residues: int, fraction: float) -> int:
    """Compute how many top-scoring pairs a fraction of `FRACTIONS` asks for.

    >>> num_top_pairs(58, 0.2), num_top_pairs(2, 0.2)
    (12, 1)
    """
    return max(1, round(num_residues * fraction))


def random_precision(pairs: ResiduePairs, range_name: str) -> float | None:
    """Compute the expected precision of random pairs of a range; None where it has no pairs."""
    is_contact = pairs.is_contact[pairs.is_in(range_name)]
    return float(is_contact.mean()) if len(is_contact) else None


def head_precisions(
    features: NDArray[np.floating], pairs: ResiduePairs, range_name: str, fraction: float
) -> NDArray[np.float64]:
    """Compute the `precision` of each head, (heads,), from features, (heads, pairs); NaN where it is undefined."""
    # Head by head, because the intermediate arrays are several times as large as the features.
    return np.array([precision(scores, pairs, range_name, fraction) for scores in features], np.float64)


def contact_rates(proteins: Sequence[ResiduePairs]) -> list[NDArray[np.float64]]:
    """Compute how often pairs of each pair's separation are in contact in the other proteins, (pairs,) per protein.

    Separations are pooled as in `separation_strata`. Each stratum counts one additional pair with the mean rate, which
    also covers separations that no other protein has.
    """
    strata_by_protein = [separation_strata(pairs.separation) for pairs in proteins]
    num_strata = 1 + max((int(strata.max(initial=0)) for strata in strata_by_protein), default=0)
    members = list(zip(strata_by_protein, proteins, strict=True))
    num_pairs = np.stack([np.bincount(strata, minlength=num_strata) for strata, _ in members])  # (proteins, strata)
    contacts = np.stack([np.bincount(strata, pairs.is_contact, num_strata) for strata, pairs in members])
    other_pairs, other_contacts = num_pairs.sum(0) - num_pairs, contacts.sum(0) - contacts
    mean = other_contacts.sum(1, keepdims=True) / np.maximum(other_pairs.sum(1, keepdims=True), 1)
    rates = (other_contacts + mean) / (other_pairs + 1)
    return [rate[strata] for rate, strata in zip(rates, strata_by_protein, strict=True)]


def precisions(scores: Sequence[NDArray[np.floating]], proteins: Sequence[ResiduePairs]) -> list[PrecisionRow]:
    """Measure a predictor by its scores, (pairs,) for each protein, in each range and at each fraction."""
    rates = contact_rates(proteins) if len(proteins) > 1 else None
    return [
        _precision_row(scores, proteins, rates, range_name, fraction_name)
        for range_name in RANGES
        for fraction_name in FRACTIONS
    ]


def _precision_row(
    scores: Sequence[NDArray[np.floating]],
    proteins: Sequence[ResiduePairs],
    rates: Sequence[NDArray[np.float64]] | None,
    range_name: str,
    fraction_name: str,
) -> PrecisionRow:
    fraction = FRACTIONS[fraction_name]
    values = [precision(*protein, range_name, fraction) for protein in zip(scores, proteins, strict=True)]
    measured = [number for number, value in enumerate(values) if value is not None]
    random = [random_precision(proteins[number], range_name) for number in measured]
    matched = [
        precision(scores[number], proteins[number], range_name, fraction, rates[number])
        for number in measured
        if rates is not None
    ]
    return PrecisionRow(
        range_name=range_name,
        fraction_name=fraction_name,
        precision=_mean_with_interval(np.array([values[number] for number in measured], np.float64)),
        random=_mean(random),
        matched_random=_mean(matched),
        num_proteins=len(measured),
    )


def _mean_with_interval(values: NDArray[np.float64]) -> MetricWithInterval:
    """Average the precisions of proteins, (proteins,)."""
    if not len(values):
        return MetricWithInterval(value=None)
    return ratio_with_interval(values, np.ones(len(values)), "precision")


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
