from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import expit

from protembed.attention.contact_predictors import (
    ContactPredictor,
    cross_validated_scores,
    evaluate_contacts,
    fit_contact_head,
    fit_top_heads,
    top_heads,
)
from protembed.attention.contacts import ResiduePairs, gather, head_features, head_precisions, precision
from protembed.model.heads import ContactHead

NUM_HEADS = 8


def make_protein(rng, num_residues=50, informative=(), rate=0.1):
    """Draw contacts, and maps whose informative heads follow the contacts, the first of them best."""
    drawn = np.triu(rng.random((num_residues, num_residues)) < rate)
    is_contact = drawn | drawn.T
    maps = rng.random((NUM_HEADS, num_residues, num_residues))
    for rank, head in enumerate(informative):
        maps[head] += is_contact * (1.0 - 0.3 * rank)
    pairs = ResiduePairs.from_contact_map(is_contact, np.ones_like(is_contact), "A" * num_residues)
    return gather(pairs, head_features(maps / maps.sum(-1, keepdims=True))), pairs


def make_proteins(seed, num_proteins=6, **options):
    rng = np.random.default_rng(seed)
    return tuple(zip(*(make_protein(rng, **options) for _ in range(num_proteins)), strict=True))


# The mean of the top heads


def test_top_heads_are_chosen_by_long_range_precision():
    features, proteins = make_proteins(0, informative=(5, 2))

    chosen = top_heads(features, proteins, num_heads=NUM_HEADS)
    means = np.mean([head_precisions(*pair, "long", 1.0) for pair in zip(features, proteins, strict=True)], axis=0)

    assert chosen.tolist()[:2] == [5, 2]
    assert (np.diff(means[chosen]) <= 0).all()


def test_number_of_top_heads_is_the_most_precise_on_the_training_proteins():
    # Two heads follow the contacts with independent noise: their mean is better, and no third head adds anything.
    features, proteins = make_proteins(0, informative=(5, 2))

    by_number = {
        number: np.mean(
            [
                precision(protein[top_heads(features, proteins, number)].mean(0), pairs, "long", 1.0)
                for protein, pairs in zip(features, proteins, strict=True)
            ]
        )
        for number in range(1, NUM_HEADS + 1)
    }

    assert len(top_heads(features, proteins)) == max(by_number, key=by_number.get) == 2


def test_score_of_top_heads_is_their_mean():
    features, proteins = make_proteins(0, informative=(5, 2))

    scores = fit_top_heads(features, proteins, num_heads=2).logits(features[0])

    np.testing.assert_allclose(scores, features[0][[5, 2]].mean(0), atol=1e-7)


def test_choosing_heads_without_long_range_pairs_raises():
    features, proteins = make_proteins(0, num_residues=20)

    with pytest.raises(ValueError, match="long-range"):
        top_heads(features, proteins)


# The fitted head


def test_fitted_weights_equal_those_of_a_hugging_face_contact_head():
    rng = np.random.default_rng(0)
    features, proteins = make_proteins(1, informative=(5, 2))
    fitted = fit_contact_head(features, proteins)
    head = ContactHead(NUM_HEADS)
    head.weight += torch.from_numpy(fitted.weight)
    head.bias += fitted.bias
    maps = rng.dirichlet(np.ones(50), size=(2, NUM_HEADS // 2, 50)).astype(np.float32)

    probabilities = expit(fitted.logits(head_features(maps.reshape(NUM_HEADS, 50, 50))))

    assert np.ptp(probabilities) > 0.05
    np.testing.assert_allclose(probabilities, head(torch.from_numpy(maps)).numpy(), atol=1e-5)


def test_fit_minimises_the_penalised_loss_of_rao():
    features, proteins = make_proteins(1, informative=(5, 2))
    inputs, truth = np.concatenate(features, axis=1), np.concatenate([pairs.is_contact for pairs in proteins])
    fitted = fit_contact_head(features, proteins)

    def loss(weight, bias):
        logits = weight @ inputs + bias
        return np.abs(weight).sum() + 0.15 * np.logaddexp(0, np.where(truth, -logits, logits)).sum()

    best = loss(fitted.weight, fitted.bias)
    assert set(np.argsort(fitted.weight)[-2:]) == {5, 2}
    assert loss(np.zeros(NUM_HEADS), np.log(truth.mean() / (1 - truth.mean()))) > best + 10
    for head in range(NUM_HEADS):
        for step in (-3.0, 3.0):
            moved = fitted.weight + step * (np.arange(NUM_HEADS) == head)
            assert loss(moved, fitted.bias) > best


def test_probabilities_of_the_fitted_head_are_calibrated():
    features, proteins = make_proteins(1, informative=(5, 2))

    fitted = fit_contact_head(features, proteins)
    probabilities = np.concatenate([expit(fitted.logits(protein)) for protein in features])

    assert probabilities.mean() == pytest.approx(np.mean(np.concatenate([p.is_contact for p in proteins])), rel=0.02)


# Cross-validation


@pytest.mark.parametrize("fit", [fit_contact_head, fit_top_heads])
def test_head_that_is_informative_in_all_proteins_scores_held_out_proteins(fit):
    features, proteins = make_proteins(0, informative=(5,))

    scores = cross_validated_scores(fit, features, proteins, num_folds=3)

    assert all(precision(*pair, "long", 0.2) > 0.8 for pair in zip(scores, proteins, strict=True))


@pytest.mark.parametrize("fit", [fit_contact_head, fit_top_heads])
def test_head_that_is_informative_in_one_protein_does_not_score_that_protein(fit):
    features, proteins = make_proteins(0, informative=(5,))
    # In all proteins but the first, the head is as wrong as it is right in the first.
    features = [
        features[0],
        *(np.where(np.arange(NUM_HEADS)[:, None] == 5, -protein, protein) for protein in features[1:]),
    ]

    held_out = cross_validated_scores(fit, features, proteins)[0]
    with_itself = fit(features[:1] * 6, proteins[:1] * 6).logits(features[0])

    assert precision(with_itself, proteins[0], "long", 0.2) > 0.8
    assert precision(held_out, proteins[0], "long", 0.2) < 0.3


@pytest.mark.parametrize("fit", [fit_contact_head, fit_top_heads])
def test_scores_of_a_protein_do_not_depend_on_its_contacts(fit):
    features, proteins = make_proteins(0, informative=(5, 2))
    changed = [replace(proteins[0], is_contact=~proteins[0].is_contact), *proteins[1:]]

    before, after = cross_validated_scores(fit, features, proteins), cross_validated_scores(fit, features, changed)

    np.testing.assert_array_equal(before[0], after[0])
    assert any(not np.array_equal(*pair) for pair in zip(before[1:], after[1:], strict=True))


def test_each_protein_is_held_out_once():
    features, proteins = make_proteins(0, num_proteins=7)
    seen = []

    def fit(some_features, some_proteins):
        seen.append([next(n for n, pairs in enumerate(proteins) if pairs is training) for training in some_proteins])
        assert all(protein is features[number] for protein, number in zip(some_features, seen[-1], strict=True))
        # The score identifies the predictor.
        return ContactPredictor(weight=np.zeros(NUM_HEADS), bias=float(len(seen) - 1))

    scores = cross_validated_scores(fit, features, proteins, num_folds=3)

    assert len(seen) == 3
    assert sorted(len(training) for training in seen) == [4, 5, 5]
    assert all(number not in seen[int(logits[0])] for number, logits in enumerate(scores))


def test_each_protein_is_held_out_alone_with_fewer_proteins_than_folds():
    features, proteins = make_proteins(0, num_proteins=2, informative=(5,))

    scores = cross_validated_scores(fit_top_heads, features, proteins)

    assert [logits.shape for logits in scores] == [pairs.first.shape for pairs in proteins]
    with pytest.raises(ValueError, match="n_splits"):
        cross_validated_scores(fit_top_heads, features[:1], proteins[:1])


# What was found


def evaluate(features, proteins, model_head=None):
    return evaluate_contacts(features, proteins, model_head, num_permutations=100, seed=0)


def head_with(*weights):
    return ContactPredictor(weight=np.array([*weights, *np.zeros(NUM_HEADS - len(weights))]), bias=0.0)


def test_regression_that_finds_contacts_is_drawn_and_described_by_its_precision():
    found = evaluate(*make_proteins(0, informative=(5, 2)))

    assert found.found_contacts
    assert found.finding.startswith("Contacts are predicted by the regression over all heads: long-range precision at")
    assert found.warnings() == []


def test_regression_without_heads_is_not_drawn():
    evaluation = evaluate(*make_proteins(0, informative=(5, 2)))
    nothing = replace(evaluation, fitted=ContactPredictor(weight=np.zeros(NUM_HEADS), bias=-2.0))

    assert (nothing.found_contacts, nothing.shown) == (False, None)
    assert nothing.finding == "The regression over all heads selected no heads, so it predicts no contacts."
    assert nothing.warnings() == ["the regression over all heads selected no heads; no contact head is saved"]


def test_own_head_is_drawn_only_if_it_is_more_precise_than_random_pairs():
    features, proteins = make_proteins(0, informative=(5,))

    right = evaluate(features, proteins, head_with(0, 0, 0, 0, 0, 1))
    wrong = evaluate(features, proteins, head_with(0, 0, 0, 0, 0, -1))

    assert right.found_contacts
    assert right.finding.startswith("Contacts are predicted by the model's own contact head")
    assert not wrong.found_contacts
    assert wrong.shown.precision.value < wrong.shown.random
    assert wrong.finding.startswith("No contacts are drawn, because the model's own contact head finds no more of them")
    assert wrong.warnings()[0] == wrong.finding[0].lower() + wrong.finding[1:-1]


def test_single_protein_is_judged_by_the_own_head_alone():
    features, proteins = make_proteins(0, num_proteins=1, informative=(5,))

    alone, with_head = evaluate(features, proteins), evaluate(features, proteins, head_with(0, 0, 0, 0, 0, 1))

    assert (alone.found_contacts, with_head.found_contacts) == (False, True)
    assert alone.finding == "Only one protein has a structure, and fitting a contact predictor needs two."


def test_random_pairs_of_a_head_have_the_mean_rate_of_long_range_contacts():
    features, proteins = make_proteins(0, rate=0.1)

    assert evaluate(features, proteins).random_precision == pytest.approx(0.1, rel=0.1)
