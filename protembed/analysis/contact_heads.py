"""Contact predictors made of attention heads: the mean of the best, or a regression over all."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold

from protembed.analysis.contacts import Pairs, head_precisions
from protembed.model.heads import ContactHead

MAX_TOP_HEADS = 10
# What fitting takes for each pair and head, measured; most of it is liblinear's own copy.
FITTING_BYTES = 46


@dataclass(frozen=True, kw_only=True)
class Combination:
    """Heads added up: what any of the predictors is, and what a Hugging Face contact head stores.

    Attributes:
        weight: (heads,), float64; heads in the order of the features, layer · heads + head.
        bias: logit where all features are zero.
    """

    weight: NDArray[np.float64]
    bias: float

    @classmethod
    def of(cls, head: ContactHead) -> "Combination":
        """Read a model's contact head."""
        return cls(weight=head.weight[0].double().numpy(), bias=float(head.bias))

    @property
    def says_anything(self) -> bool:
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


Fit = Callable[[Sequence[NDArray[np.floating]], Sequence[Pairs]], Combination]


def top_heads(
    features: Sequence[NDArray[np.floating]], proteins: Sequence[Pairs], num_heads: int | None = None
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
    features: Sequence[NDArray[np.floating]], proteins: Sequence[Pairs], num_heads: int | None = None
) -> Combination:
    """Take the mean of the top heads; arguments as for `top_heads`."""
    chosen = top_heads(features, proteins, num_heads)
    weight = np.zeros(len(features[0]))
    weight[chosen] = 1 / len(chosen)
    return Combination(weight=weight, bias=0.0)


def fit_contact_head(features: Sequence[NDArray[np.floating]], proteins: Sequence[Pairs]) -> Combination:
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
    return Combination(weight=regression.coef_[0], bias=float(regression.intercept_[0]))


def cross_fitted(
    fit: Fit,
    features: Sequence[NDArray[np.floating]],
    proteins: Sequence[Pairs],
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


def _mean_long_range(features: Iterable[NDArray[np.floating]], proteins: Sequence[Pairs]) -> NDArray[np.float64]:
    """Average long-range precision at L over the proteins where it is defined, (heads,)."""
    of_proteins = np.stack(
        [head_precisions(one, pairs, "long", 1.0) for one, pairs in zip(features, proteins, strict=True)]
    )
    measured = of_proteins[~np.isnan(of_proteins).any(1)]
    if not len(measured):
        raise ValueError("no protein has more long-range pairs than residues")
    return np.asarray(measured.mean(0))
