"""Pairs of residues: what attention says of them, and how precisely scores pick those in contact."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray

from protembed.attention.significance import LabelledScores, ShiftedPairs, separation_strata
from protembed.attention.structures import MIN_SEPARATION
from protembed.evaluation import intervals
from protembed.evaluation.intervals import MetricWithInterval
from protembed.model.heads import average_product_correction

# Least separation, and the one that is too much; residues.
RANGES: Mapping[str, tuple[int, int | None]] = MappingProxyType(
    {"short": (MIN_SEPARATION, 12), "medium": (12, 24), "long": (24, None)}
)
# Picked pairs for each residue.
FRACTIONS: Mapping[str, float] = MappingProxyType({"L": 1.0, "L/2": 0.5, "L/5": 0.2})


@dataclass(frozen=True, kw_only=True)
class ResiduePairs:
    """One protein's pairs of residues of which it is known whether they are in contact, at least 6 apart.

    Attributes:
        first: (pairs,), int64, residues from 0.
        second: (pairs,), int64, above `first`.
        is_contact: (pairs,), bool.
        num_residues: residues of which anything is known: the L of precision at L.
        sequence: The whole protein, a letter for each residue.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    is_contact: NDArray[np.bool_]
    num_residues: int
    sequence: str

    @property
    def separation(self) -> NDArray[np.int64]:
        """(pairs,), residues."""
        return self.second - self.first

    @property
    def amino_acids(self) -> NDArray[np.int64]:
        """(pairs,), a number for the two amino acids of a pair, in either order."""
        letters = np.frombuffer(self.sequence.encode("ascii"), np.uint8).astype(np.int64)
        one, other = letters[self.first], letters[self.second]
        return 256 * np.minimum(one, other) + np.maximum(one, other)

    def marked(self, values: NDArray[np.floating]) -> LabelledScores:
        """Prepare a test of what heads give to the pairs, (heads, pairs), against contacts."""
        return LabelledScores(
            values=values,
            is_marked=self.is_contact,
            strata=separation_strata(self.separation),
            kinds=self.amino_acids,
            moved=ShiftedPairs(self.first, self.second, self.is_contact, len(self.sequence)),
        )

    def is_in(self, range_name: str) -> NDArray[np.bool_]:
        """Tell which pairs are of a range of `RANGES`, (pairs,)."""
        low, high = RANGES[range_name]
        return (self.separation >= low) & (high is None or self.separation < high)


@dataclass(frozen=True, kw_only=True)
class PrecisionRow:
    """Precision over several proteins, beside what is reached without looking at the maps.

    Attributes:
        range_name: of `RANGES`.
        fraction_name: of `FRACTIONS`.
        score: mean over proteins, with its 95 % interval over proteins; no interval of fewer than two proteins.
        random: expected of random pairs of the range.
        matched: expected of other pairs at the separations that were picked, at the other proteins' contact rates;
            None where there is no other protein.
        num_proteins: proteins with enough pairs; all means are over these.
    """

    range_name: str
    fraction_name: str
    score: MetricWithInterval
    random: float | None
    matched: float | None
    num_proteins: int


def pairs_of(is_contact: NDArray[np.bool_], is_known: NDArray[np.bool_], sequence: str) -> ResiduePairs:
    """List the pairs of one protein.

    Args:
        is_contact: (residues, residues), symmetric.
        is_known: (residues, residues), symmetric; whether both residues have a place in the structure.
        sequence: The protein, a letter for each residue.
    """
    first, second = np.triu_indices(len(is_known), MIN_SEPARATION)
    known = is_known[first, second]
    first, second = first[known], second[known]
    num_residues = int(is_known.any(0).sum())
    return ResiduePairs(
        first=first,
        second=second,
        is_contact=is_contact[first, second],
        num_residues=num_residues,
        sequence=sequence,
    )


def head_features(maps: NDArray[np.floating]) -> NDArray[np.float32]:
    """Symmetrise the maps of one protein and correct them, as its contact head does.

    Each map is treated alone, so that layers can be given one after the other.

    Args:
        maps: (head, residues, residues), special tokens removed, of the whole protein.

    Returns:
        The same shape; zeros for a head without any attention to residues.

    Source: Rao et al. 2021, "Transformer protein language models are unsupervised structure learners", section 3.
    """
    symmetric = torch.from_numpy(np.asarray(maps + maps.swapaxes(-1, -2), np.float32))
    corrected = average_product_correction(symmetric)
    return np.asarray(torch.where(symmetric.any(-1).any(-1)[:, None, None], corrected, 0.0).numpy())


def at(pairs: ResiduePairs, matrix: NDArray[np.floating]) -> NDArray[np.floating]:
    """Take from (…, residues, residues) what belongs to each pair, (…, pairs)."""
    return matrix[..., pairs.first, pairs.second]


def precision(scores: NDArray[np.floating], pairs: ResiduePairs, range_name: str, fraction: float) -> float | None:
    """Compute the share of contacts among the pairs of a range with the highest scores.

    Where scores are equal at the limit, it is the mean over all ways to choose among them.

    Args:
        scores: (pairs,).
        pairs: of the protein.
        range_name: of `RANGES`.
        fraction: picks for each residue; at least one pair is picked.

    Returns:
        A share; None where the range has no more pairs than are picked: any scores would do as well there.
    """
    (value,) = head_precisions(scores[None], pairs, range_name, fraction)
    return None if np.isnan(value) else float(value)


def head_precisions(
    features: NDArray[np.floating], pairs: ResiduePairs, range_name: str, fraction: float
) -> NDArray[np.float64]:
    """Compute `precision` of each head, (heads,), from (heads, pairs) features; NaN where it is None."""
    is_contact = pairs.is_contact[pairs.is_in(range_name)]
    # Head by head: what is computed on the way is several times as large as the features.
    of_heads = (_picked(one, pairs, range_name, fraction) for one in features)
    return np.array([np.nan if shares is None else shares @ is_contact for shares in of_heads], np.float64)


def random_precision(pairs: ResiduePairs, range_name: str) -> float | None:
    """Compute the share of contacts among all pairs of a range; None where it has none."""
    is_contact = pairs.is_contact[pairs.is_in(range_name)]
    return float(is_contact.mean()) if len(is_contact) else None


def contact_rates(proteins: Sequence[ResiduePairs]) -> list[NDArray[np.float64]]:
    """Compute how often pairs are in contact at the separation of each pair, in the other proteins.

    Separations are pooled as in `separation_strata`, and to each stratum one pair of the mean rate is added, which also
    stands for separations that no other protein has.

    Returns:
        Of each protein (pairs,).
    """
    strata = [separation_strata(pairs.separation) for pairs in proteins]
    num_strata = 1 + max((int(one.max(initial=0)) for one in strata), default=0)
    num_pairs = np.stack([np.bincount(one, minlength=num_strata) for one in strata])  # (proteins, strata)
    contacts = np.stack(
        [np.bincount(one, pairs.is_contact, num_strata) for one, pairs in zip(strata, proteins, strict=True)]
    )
    other_pairs, other_contacts = num_pairs.sum(0) - num_pairs, contacts.sum(0) - contacts
    mean = other_contacts.sum(1, keepdims=True) / np.maximum(other_pairs.sum(1, keepdims=True), 1)
    rates = (other_contacts + mean) / (other_pairs + 1)
    return [rate[one] for rate, one in zip(rates, strata, strict=True)]


def matched_precision(
    scores: NDArray[np.floating], pairs: ResiduePairs, rates: NDArray[np.float64], range_name: str, fraction: float
) -> float | None:
    """Compute the precision expected if each picked pair were another one of the same separation.

    Args:
        scores: (pairs,).
        pairs: of the protein.
        rates: (pairs,), of `contact_rates`.
        range_name: of `RANGES`.
        fraction: picks for each residue.
    """
    shares = _picked(scores, pairs, range_name, fraction)
    return None if shares is None else float(shares @ rates[pairs.is_in(range_name)])


def precisions(scores: Sequence[NDArray[np.floating]], proteins: Sequence[ResiduePairs]) -> list[PrecisionRow]:
    """Measure a predictor in each range and at each fraction, over proteins.

    Args:
        scores: of each protein (pairs,).
        proteins: the pairs of each.
    """
    rates = contact_rates(proteins) if len(proteins) > 1 else None
    return [
        _row(scores, proteins, rates, range_name, fraction_name) for range_name in RANGES for fraction_name in FRACTIONS
    ]


def _picked(
    scores: NDArray[np.floating], pairs: ResiduePairs, range_name: str, fraction: float
) -> NDArray[np.float64] | None:
    """Share one out among the picked of (pairs,), (pairs of the range,); equal scores at the limit share alike."""
    scores = scores[pairs.is_in(range_name)]
    num_picks, num_pairs = max(1, round(pairs.num_residues * fraction)), len(scores)
    if num_picks >= num_pairs:
        return None
    limit = np.partition(scores, num_pairs - num_picks)[num_pairs - num_picks]
    is_above, is_at = scores > limit, scores == limit
    left = num_picks - is_above.sum()
    return np.asarray((is_above + is_at * (left / is_at.sum())) / num_picks)


def _row(
    scores: Sequence[NDArray[np.floating]],
    proteins: Sequence[ResiduePairs],
    rates: Sequence[NDArray[np.float64]] | None,
    range_name: str,
    fraction_name: str,
) -> PrecisionRow:
    fraction = FRACTIONS[fraction_name]
    values = [precision(one, pairs, range_name, fraction) for one, pairs in zip(scores, proteins, strict=True)]
    measured = [number for number, value in enumerate(values) if value is not None]
    matched = [
        matched_precision(scores[number], proteins[number], rates[number], range_name, fraction)
        for number in measured
        if rates is not None
    ]
    return PrecisionRow(
        range_name=range_name,
        fraction_name=fraction_name,
        score=_score(np.array([values[number] for number in measured], np.float64)),
        random=_mean([random_precision(proteins[number], range_name) for number in measured]),
        matched=_mean(matched),
        num_proteins=len(measured),
    )


def _score(values: NDArray[np.float64]) -> MetricWithInterval:
    """Average the precisions of proteins, (proteins,)."""
    num = len(values)
    if num < 2:
        return MetricWithInterval(value=float(values[0]) if num else None, low=None, high=None)
    left_out = intervals.jackknife(lambda draws: {"mean": draws @ values / draws.sum(1)}, num)["mean"]
    value = float(values.mean())
    return MetricWithInterval.from_interval(
        value, intervals.jackknife_interval(value, left_out, metric="precision", num_units=num)
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
