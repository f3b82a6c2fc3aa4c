"""Contact predictors that combine attention heads, and their evaluation against structures."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold

from protembed.attention.contacts import PrecisionRow, ResiduePairs, head_precisions, precisions
from protembed.attention.significance import HeadTest, permutation_test, permutation_warnings
from protembed.errors import NoStructureMatchError
from protembed.model.heads import ContactHead
from protembed.text import format_in_sentence, format_number

MAX_TOP_HEADS = 10
NUM_FOLDS = 6
# The predictor that a model brings.
OWN_HEAD = "own head"

# Features of the pairs of each protein, (heads, pairs) each.
Features = Sequence[NDArray[np.floating]]


@dataclass(frozen=True, kw_only=True)
class ContactPredictor:
    """A weighted sum of heads, which is also what a Hugging Face contact head stores.

    Attributes:
        weight: Weight of each head, (heads,), float64, in the order of the features: layer · heads + head.
        bias: Logit where all features are zero.
    """

    weight: NDArray[np.float64]
    bias: float

    @classmethod
    def from_contact_head(cls, head: ContactHead) -> "ContactPredictor":
        """Copy the weights of a model's contact head."""
        return cls(weight=head.weight[0].double().numpy(), bias=float(head.bias))

    def to_contact_head(self) -> ContactHead:
        """Make the contact head of a model."""
        head = ContactHead(len(self.weight))
        head.weight.copy_(torch.from_numpy(self.weight)[None])
        head.bias.fill_(self.bias)
        return head

    def logits(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Compute logits, (…), from features, (heads, …); those of a mean of heads are uncalibrated scores."""
        used = np.flatnonzero(self.weight)  # few: the product copies their features as float64
        return np.asarray(np.tensordot(self.weight[used], features[used], axes=1) + self.bias)


FitFunction = Callable[[Features, Sequence[ResiduePairs]], ContactPredictor]


def top_heads(features: Features, proteins: Sequence[ResiduePairs], num_heads: int | None = None) -> NDArray[np.int64]:
    """Choose the heads that predict long-range contacts best on these proteins, the best first.

    Without `num_heads`, it is the number, up to 10, whose mean is most precise on these proteins.

    Raises:
        ValueError: No protein has more long-range pairs than residues.
    """
    order = np.argsort(-_mean_long_range(features, proteins), kind="stable")
    if num_heads is None:
        best = order[:MAX_TOP_HEADS]
        sums_of_best = (np.cumsum(protein[best], axis=0) for protein in features)
        num_heads = 1 + int(_mean_long_range(sums_of_best, proteins).argmax())
    return order[:num_heads]


def fit_top_heads(
    features: Features, proteins: Sequence[ResiduePairs], num_heads: int | None = None
) -> ContactPredictor:
    """Average as many heads as `top_heads` chooses."""
    chosen = top_heads(features, proteins, num_heads)
    weight = np.zeros(len(features[0]))
    weight[chosen] = 1 / len(chosen)
    return ContactPredictor(weight=weight, bias=0.0)


def fit_contact_head(features: Features, proteins: Sequence[ResiduePairs]) -> ContactPredictor:
    """Fit a logistic regression with an L1 penalty on the unscaled features, as ESM's contact heads were fitted.

    Raises:
        ValueError: All pairs are contacts, or none is.

    Source: Rao et al. 2021, section 3 and appendix: scikit-learn, C = 0.15, pairs at least 6 apart.
    """
    # saga, the other solver with an L1 penalty, took 20 times as long on 16 chains and ended at a higher loss.
    # liblinear penalises the bias too, which is negligible for 170,000 pairs: with almost no such penalty the bias was
    # lower by 0.005.
    regression = LogisticRegression(l1_ratio=1, C=0.15, solver="liblinear", random_state=0)
    regression.fit(
        np.concatenate([protein.T for protein in features]), np.concatenate([pairs.is_contact for pairs in proteins])
    )
    return ContactPredictor(weight=regression.coef_[0], bias=float(regression.intercept_[0]))


def cross_validated_scores(
    fit: FitFunction, features: Features, proteins: Sequence[ResiduePairs], *, num_folds: int = NUM_FOLDS, seed: int = 0
) -> list[NDArray[np.float64]]:
    """Score the pairs of each protein, (pairs,) each, float64, by a predictor that was fitted to other proteins.

    Each of the predictors omits an equal number of proteins; there is at most one predictor for each protein.

    Raises:
        ValueError: There are fewer than two proteins.
    """
    scores = dict[int, NDArray[np.float64]]()
    folds = KFold(min(num_folds, len(proteins)), shuffle=True, random_state=seed)
    for training, held_out in folds.split(proteins):
        predictor = fit([features[number] for number in training], [proteins[number] for number in training])
        scores.update({number: predictor.logits(features[number]) for number in held_out})
    return [scores[number] for number in range(len(proteins))]


def _long_range_precisions(
    features: Iterable[NDArray[np.floating]], proteins: Sequence[ResiduePairs]
) -> NDArray[np.float64]:
    """Compute the long-range precision at L, (proteins, heads); NaN where it is undefined."""
    return np.stack([head_precisions(*protein, "long", 1.0) for protein in zip(features, proteins, strict=True)])


def _mean_long_range(features: Iterable[NDArray[np.floating]], proteins: Sequence[ResiduePairs]) -> NDArray[np.float64]:
    """Average long-range precision at L over the proteins where it is defined, (heads,)."""
    by_protein = _long_range_precisions(features, proteins)
    measured = by_protein[~np.isnan(by_protein).any(1)]
    if not len(measured):
        raise ValueError("no protein has more long-range pairs than residues")
    return np.asarray(measured.mean(0))


@dataclass(frozen=True, kw_only=True)
class ContactEvaluation:
    """How well single heads and predictors follow the contacts of structures.

    Attributes:
        head_precisions: Mean long-range precision at L of each single head, (heads,), float64.
        random_precision: The same of random pairs.
        precisions: Precisions of each predictor, by its name.
        held_out: Logits of each protein's pairs, (pairs,), float64, by its sequence: of the regression when fitted
            without it; empty without such a regression.
        fitted: Regression over all heads, fitted to all proteins; None if only one protein has a structure.
    """

    head_precisions: NDArray[np.float64]
    random_precision: float
    significance: HeadTest
    precisions: Mapping[str, Sequence[PrecisionRow]]
    fitted: ContactPredictor | None
    num_proteins: int
    held_out: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    @property
    def predictor(self) -> ContactPredictor | None:
        """The regression; None unless it selects heads both in the fit to all proteins and in cross-validation."""
        is_useful = self.fitted is not None and self.fitted.weight.any() and "regression" in self.precisions
        return self.fitted if is_useful else None

    @property
    def shown(self) -> PrecisionRow | None:
        """Long-range precision at L of the predictor whose contacts are saved: the model's own head, or the regression.

        None without such a predictor.
        """
        name = OWN_HEAD if OWN_HEAD in self.precisions else "regression"
        if name == "regression" and self.predictor is None:
            return None
        return next(row for row in self.precisions[name] if (row.range_name, row.fraction_name) == ("long", "L"))

    @property
    def found_contacts(self) -> bool:
        """Whether that predictor exists and is more precise than random pairs, also those of the same separations.

        Otherwise there is nothing to draw, and `finding` says so.
        """
        row = self.shown
        return row is not None and (row.precision.value or 0.0) > max(row.random or 0.0, row.matched_random or 0.0)

    @property
    def finding(self) -> str:
        """What the predictor whose contacts are saved has found, in a sentence."""
        row = self.shown
        if row is None and self.fitted is None:
            return "Only one protein has a structure, and fitting a contact predictor needs two."
        if row is None:
            return "The regression over all heads selected no heads, so it predicts no contacts."
        name = "the model's own contact head" if OWN_HEAD in self.precisions else "the regression over all heads"
        precision = format_in_sentence(row.precision.value, row.precision.low, row.precision.high)
        values = f"long-range precision at L {precision}, random pairs {format_number(row.random)}"
        if self.found_contacts:
            return f"Contacts are predicted by {name}: {values}."
        return f"No contacts are drawn, because {name} finds no more of them than random pairs: {values}."

    def warnings(self) -> list[str]:
        """Warn if no contact head is fitted, or none that selects heads or finds contacts."""
        warnings = []
        if self.fitted is None:
            warnings.append(
                "only one protein has a structure; fitting a contact head needs two, and the tests of heads rest on "
                "this protein alone"
            )
        elif self.predictor is None:
            warnings.append("the regression over all heads selected no heads; no contact head is saved")
        if self.shown is not None and not self.found_contacts:
            warnings.append(self.finding[0].lower() + self.finding[1:].rstrip("."))
        warnings += permutation_warnings(self.significance)
        return warnings


def evaluate_contacts(
    features: Features,
    proteins: Sequence[ResiduePairs],
    model_head: ContactPredictor | None,
    *,
    num_permutations: int,
    seed: int,
) -> ContactEvaluation:
    """Compare all heads, and predictors that combine them, with the contacts of structures.

    Top heads and the regression are evaluated on proteins that they were not fitted to; with a single protein, nothing
    is fitted. `model_head` is the contact head of the model, if it has one.

    Raises:
        NoStructureMatchError: No protein has enough long-range pairs.
    """
    long_range = _long_range_precisions(features, proteins)
    is_measured = ~np.isnan(long_range).any(1) & np.array([pairs.is_contact.any() for pairs in proteins])
    if not is_measured.any():
        raise NoStructureMatchError()
    # A fold of proteins without long-range contacts would have nothing to choose heads by.
    features = [protein for protein, measured in zip(features, is_measured, strict=True) if measured]
    proteins = [pairs for pairs, measured in zip(proteins, is_measured, strict=True) if measured]
    can_fit = len(proteins) > 1  # one to fit on and one to evaluate on
    scores = _scores_by_predictor(features, proteins, seed) if can_fit else {}
    if model_head is not None:
        scores[OWN_HEAD] = [model_head.logits(protein) for protein in features]
    labelled = (pairs.labelled_scores(protein) for protein, pairs in zip(features, proteins, strict=True))
    return ContactEvaluation(
        head_precisions=long_range[is_measured].mean(0),
        random_precision=float(np.mean([pairs.is_contact[pairs.is_in("long")].mean() for pairs in proteins])),
        significance=permutation_test(labelled, num_permutations=num_permutations, seed=seed),
        precisions={name: precisions(values, proteins) for name, values in scores.items()},
        held_out=_by_sequence(proteins, scores.get("regression")),
        fitted=fit_contact_head(features, proteins) if can_fit else None,
        num_proteins=len(proteins),
    )


def _by_sequence(
    proteins: Sequence[ResiduePairs], scores: Sequence[NDArray[np.float64]] | None
) -> dict[str, NDArray[np.float64]]:
    sequences = [pairs.sequence for pairs in proteins]
    return {} if scores is None else dict(zip(sequences, scores, strict=True))


def _scores_by_predictor(
    features: Features, proteins: Sequence[ResiduePairs], seed: int
) -> dict[str, list[NDArray[np.float64]]]:
    """Cross-validate each predictor, (pairs,) for each protein; a regression that selects no heads is omitted."""
    scores = {
        "top heads": cross_validated_scores(fit_top_heads, features, proteins, seed=seed),
        "regression": cross_validated_scores(fit_contact_head, features, proteins, seed=seed),
    }
    # Without any weight all pairs have the same score, the bias, which is rarely zero.
    if all(np.ptp(logits) == 0 for logits in scores["regression"]):
        del scores["regression"]
    return scores
