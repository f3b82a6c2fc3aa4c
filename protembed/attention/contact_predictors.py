"""Contacts predicted from attention heads, and how precisely."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold

from protembed.attention.contacts import PrecisionRow, ResiduePairs, head_precisions, precisions
from protembed.attention.significance import HeadTest, permutation_test
from protembed.errors import NoStructureMatchError
from protembed.model.heads import ContactHead

MAX_TOP_HEADS = 10
# What fitting takes for each pair and head, measured; most of it is liblinear's own copy.
FITTING_BYTES = 46


@dataclass(frozen=True, kw_only=True)
class ContactPredictor:
    """Heads added up: what any of the predictors is, and what a Hugging Face contact head stores.

    Attributes:
        weight: (heads,), float64; heads in the order of the features, layer · heads + head.
        bias: logit where all features are zero.
    """

    weight: NDArray[np.float64]
    bias: float

    @classmethod
    def of(cls, head: ContactHead) -> "ContactPredictor":
        """Read a model's contact head."""
        return cls(weight=head.weight[0].double().numpy(), bias=float(head.bias))

    @property
    def is_nonzero(self) -> bool:
        """Whether any head has a weight: a penalty may leave none, and then all pairs are alike."""
        return bool(self.weight.any())

    def head(self) -> ContactHead:
        """Make a model's contact head of it."""
        head = ContactHead(len(self.weight))
        head.weight.copy_(torch.from_numpy(self.weight)[None])
        head.bias.fill_(self.bias)
        return head

    def logits(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Turn (heads, …) features into (…) logits; those of a mean of heads are mere scores."""
        used = np.flatnonzero(self.weight)  # few: the product takes a copy of them, as float64
        return np.asarray(np.tensordot(self.weight[used], features[used], axes=1) + self.bias)

    def probabilities(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Turn (heads, …) features into (…) probabilities, where the combination was fitted."""
        return np.asarray(expit(self.logits(features)))


Fit = Callable[[Sequence[NDArray[np.floating]], Sequence[ResiduePairs]], ContactPredictor]


def top_heads(
    features: Sequence[NDArray[np.floating]], proteins: Sequence[ResiduePairs], num_heads: int | None = None
) -> NDArray[np.int64]:
    """Choose the heads that predict long-range contacts best on these proteins, the best first.

    Args:
        features: of each protein (heads, pairs).
        proteins: the pairs of each; one at least with more long-range pairs than residues.
        num_heads: heads to choose; None for the number, up to 10, whose mean is the most precise on these proteins.

    Raises:
        ValueError: no protein has more long-range pairs than residues.
    """
    order = np.argsort(-_mean_long_range(features, proteins), kind="stable")
    if num_heads is None:
        best = order[:MAX_TOP_HEADS]
        num_heads = 1 + int(_mean_long_range((np.cumsum(one[best], axis=0) for one in features), proteins).argmax())
    return order[:num_heads]


def fit_top_heads(
    features: Sequence[NDArray[np.floating]], proteins: Sequence[ResiduePairs], num_heads: int | None = None
) -> ContactPredictor:
    """Take the mean of the top heads; arguments as for `top_heads`."""
    chosen = top_heads(features, proteins, num_heads)
    weight = np.zeros(len(features[0]))
    weight[chosen] = 1 / len(chosen)
    return ContactPredictor(weight=weight, bias=0.0)


def fit_contact_head(features: Sequence[NDArray[np.floating]], proteins: Sequence[ResiduePairs]) -> ContactPredictor:
    """Fit a logistic regression with an L1 penalty on the unscaled features, as ESM's contact heads were fitted.

    Args:
        features: of each protein (heads, pairs).
        proteins: the pairs of each, among them contacts and others.

    Returns:
        Weight and bias as the Hugging Face contact head takes them.

    Raises:
        ValueError: all pairs are contacts, or none is.

    Source: Rao et al. 2021, section 3 and appendix: scikit-learn, C = 0.15, pairs at least 6 apart.
    """
    # saga, the other solver with an L1 penalty, took 20 times as long on 16 chains and ended at a higher loss. That
    # liblinear also penalises the bias, 170,000 pairs do not feel: nearly without that, it was lower by 0.005.
    regression = LogisticRegression(l1_ratio=1, C=0.15, solver="liblinear", random_state=0)
    regression.fit(np.concatenate([one.T for one in features]), np.concatenate([one.is_contact for one in proteins]))
    return ContactPredictor(weight=regression.coef_[0], bias=float(regression.intercept_[0]))


def cross_validated_scores(
    fit: Fit,
    features: Sequence[NDArray[np.floating]],
    proteins: Sequence[ResiduePairs],
    *,
    num_folds: int = 6,
    seed: int = 0,
) -> list[NDArray[np.float64]]:
    """Score each protein by a predictor that was made from others.

    Args:
        fit: `fit_contact_head` or `fit_top_heads`.
        features: of each protein (heads, pairs).
        proteins: the pairs of each; two at least.
        num_folds: predictors; each leaves out an equal share of the proteins. At most one for each protein.
        seed: of the division.

    Returns:
        Of each protein (pairs,) logits.

    Raises:
        ValueError: there are fewer than two proteins.
    """
    scores = dict[int, NDArray[np.float64]]()
    folds = KFold(min(num_folds, len(proteins)), shuffle=True, random_state=seed)
    for training, held_out in folds.split(proteins):
        combination = fit([features[number] for number in training], [proteins[number] for number in training])
        scores.update({number: combination.logits(features[number]) for number in held_out})
    return [scores[number] for number in range(len(proteins))]


def _mean_long_range(features: Iterable[NDArray[np.floating]], proteins: Sequence[ResiduePairs]) -> NDArray[np.float64]:
    """Average long-range precision at L over the proteins where it is defined, (heads,)."""
    of_proteins = np.stack(
        [head_precisions(one, pairs, "long", 1.0) for one, pairs in zip(features, proteins, strict=True)]
    )
    measured = of_proteins[~np.isnan(of_proteins).any(1)]
    if not len(measured):
        raise ValueError("no protein has more long-range pairs than residues")
    return np.asarray(measured.mean(0))


NUM_FOLDS = 6
# To learn from some and to be measured on others.
_FEWEST_TO_FIT = 2

Features = Sequence[NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class ContactEvaluation:
    """What the maps of some proteins say about their contacts.

    Attributes:
        head_precisions: (heads,), mean long-range precision at L of each head alone.
        significance: of each head.
        precisions: of each way to combine heads, the figures of `contacts.PrecisionRow`.
        fitted: the regression over all heads, fitted to all proteins; None where one protein alone has a structure.
        num_proteins: proteins with a structure.
    """

    head_precisions: NDArray[np.float64]
    significance: HeadTest
    precisions: Mapping[str, Sequence[PrecisionRow]]
    fitted: ContactPredictor | None
    num_proteins: int

    @property
    def predictor(self) -> ContactPredictor | None:
        """The regression, if it predicts anything: fitted to all proteins, and to some when measured on the others."""
        is_found = self.fitted is not None and self.fitted.is_nonzero and "regression" in self.precisions
        return self.fitted if is_found else None


def evaluate_contacts(
    features: Features,
    proteins: Sequence[ResiduePairs],
    own: ContactPredictor | None,
    *,
    num_permutations: int,
    seed: int,
) -> ContactEvaluation:
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
        raise NoStructureMatchError()
    long_range = np.stack(
        [head_precisions(one, pairs, "long", 1.0) for one, pairs in zip(features, proteins, strict=True)]
    )
    is_measured = ~np.isnan(long_range).any(1) & np.array([pairs.is_contact.any() for pairs in proteins])
    if not is_measured.any():
        raise NoStructureMatchError()
    # Those of which nothing can be learned would leave a fold without anything to choose by.
    features = [one for one, measured in zip(features, is_measured, strict=True) if measured]
    proteins = [one for one, measured in zip(proteins, is_measured, strict=True) if measured]
    scores = _held_out_scores(features, proteins, seed) if len(proteins) >= _FEWEST_TO_FIT else {}
    if own is not None:
        scores["own head"] = [own.logits(one) for one in features]
    marked = (pairs.marked(one) for one, pairs in zip(features, proteins, strict=True))
    return ContactEvaluation(
        head_precisions=long_range[is_measured].mean(0),
        significance=permutation_test(marked, num_permutations=num_permutations, seed=seed),
        precisions={name: precisions(one, proteins) for name, one in scores.items()},
        fitted=fit_contact_head(features, proteins) if len(proteins) >= _FEWEST_TO_FIT else None,
        num_proteins=len(proteins),
    )


def _held_out_scores(
    features: Features, proteins: Sequence[ResiduePairs], seed: int
) -> dict[str, list[NDArray[np.float64]]]:
    """Score each protein, (pairs,), by what was made from others, in each way that finds anything."""
    scores = {
        "top heads": cross_validated_scores(fit_top_heads, features, proteins, num_folds=NUM_FOLDS, seed=seed),
        "regression": cross_validated_scores(fit_contact_head, features, proteins, num_folds=NUM_FOLDS, seed=seed),
    }
    # Without any weight all pairs have the same score, which is the bias and seldom zero.
    if all(np.ptp(one) == 0 for one in scores["regression"]):
        del scores["regression"]
    return scores
