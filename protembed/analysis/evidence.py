"""What attention maps say about structures: which heads follow contacts, and how well these are predicted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protembed.analysis.contact_heads import Combination, cross_fitted, fit_contact_head, fit_top_heads
from protembed.analysis.contacts import Pairs, PrecisionRow, head_precisions, precisions
from protembed.analysis.significance import HeadSignificance, permutation_test
from protembed.errors import TooFewStructuresError

NUM_FOLDS = 6
# To learn from some and to be measured on others.
_FEWEST_TO_FIT = 2

Features = Sequence[NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class ContactEvidence:
    """What the maps of some proteins say about their contacts.

    Attributes:
        head_precisions: (heads,), mean long-range precision at L of each head alone.
        significance: of each head.
        precisions: of each way to combine heads, the figures of `contacts.PrecisionRow`.
        fitted: the regression over all heads, fitted to all proteins; None where one protein alone has a structure.
        num_proteins: proteins with a structure.
    """

    head_precisions: NDArray[np.float64]
    significance: HeadSignificance
    precisions: Mapping[str, Sequence[PrecisionRow]]
    fitted: Combination | None
    num_proteins: int

    @property
    def predictor(self) -> Combination | None:
        """The regression, if it predicts anything: fitted to all proteins, and to some when measured on the others."""
        is_found = self.fitted is not None and self.fitted.says_anything and "regression" in self.precisions
        return self.fitted if is_found else None


def weigh_contacts(
    features: Features, proteins: Sequence[Pairs], own: Combination | None, *, num_permutations: int, seed: int
) -> ContactEvidence:
    """Compare all heads, and what can be made of them, with the contacts of structures.

    Top heads and the regression are measured on proteins that took no part in choosing and fitting them; where there is
    but one protein nothing is chosen or fitted.

    Args:
        features: of each protein (heads, pairs).
        proteins: the pairs of each.
        own: the contact head that the model brings; None if it brings none.
        num_permutations: of the test of each head.
        seed: of permutations and folds.

    Raises:
        TooFewStructuresError: no protein has enough long-range pairs to learn from.
    """
    if not proteins:
        raise TooFewStructuresError(0)
    long_range = np.stack(
        [head_precisions(one, pairs, "long", 1.0) for one, pairs in zip(features, proteins, strict=True)]
    )
    is_measured = ~np.isnan(long_range).any(1) & np.array([pairs.is_contact.any() for pairs in proteins])
    if not is_measured.any():
        raise TooFewStructuresError(0)
    # Those of which nothing can be learned would leave a fold without anything to choose by.
    features = [one for one, measured in zip(features, is_measured, strict=True) if measured]
    proteins = [one for one, measured in zip(proteins, is_measured, strict=True) if measured]
    scores = _held_out_scores(features, proteins, seed) if len(proteins) >= _FEWEST_TO_FIT else {}
    if own is not None:
        scores["own head"] = [own.logits(one) for one in features]
    marked = (pairs.marked(one) for one, pairs in zip(features, proteins, strict=True))
    return ContactEvidence(
        head_precisions=long_range[is_measured].mean(0),
        significance=permutation_test(marked, num_permutations=num_permutations, seed=seed),
        precisions={name: precisions(one, proteins) for name, one in scores.items()},
        fitted=fit_contact_head(features, proteins) if len(proteins) >= _FEWEST_TO_FIT else None,
        num_proteins=len(proteins),
    )


def _held_out_scores(features: Features, proteins: Sequence[Pairs], seed: int) -> dict[str, list[NDArray[np.float64]]]:
    """Score each protein, (pairs,), by what was made from others, in each way that finds anything."""
    scores = {
        "top heads": cross_fitted(fit_top_heads, features, proteins, num_folds=NUM_FOLDS, seed=seed),
        "regression": cross_fitted(fit_contact_head, features, proteins, num_folds=NUM_FOLDS, seed=seed),
    }
    # Without any weight all pairs have the same score, which is the bias and seldom zero.
    if all(np.ptp(one) == 0 for one in scores["regression"]):
        del scores["regression"]
    return scores
