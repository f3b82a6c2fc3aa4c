import numpy as np
import pytest
import torch
from scipy import stats

from protembed.attention.contacts import (
    ResiduePairs,
    contact_rates,
    gather,
    head_features,
    head_precisions,
    precision,
    precisions,
)
from protembed.model.heads import ContactHead


def make_pairs(separations, is_contact, num_residues):
    separations = np.array(separations)
    return ResiduePairs(
        first=np.zeros_like(separations),
        second=separations,
        is_contact=np.array(is_contact, bool),
        num_residues=num_residues,
        sequence="A" * (1 + separations.max(initial=0)),
    )


def random_pairs(rng, num_residues, rate=0.1):
    drawn = np.triu(rng.random((num_residues, num_residues)) < rate)
    return ResiduePairs.from_contact_map(drawn | drawn.T, np.ones_like(drawn), "A" * num_residues)


# Pairs


def test_pairs_are_at_least_six_apart_and_unique():
    is_contact = np.zeros((8, 8), bool)
    is_contact[0, 7] = is_contact[7, 0] = is_contact[0, 5] = is_contact[5, 0] = True

    pairs = ResiduePairs.from_contact_map(is_contact, np.ones((8, 8), bool), 8 * "A")

    assert list(zip(pairs.first, pairs.second, pairs.is_contact, strict=True)) == [
        (0, 6, False),
        (0, 7, True),
        (1, 7, False),
    ]
    assert pairs.separation.tolist() == [6, 7, 6]


def test_unobserved_residues_have_no_pairs_and_do_not_count():
    is_observed = np.arange(10) != 8
    is_known = is_observed[:, None] & is_observed

    pairs = ResiduePairs.from_contact_map(np.zeros((10, 10), bool), is_known, 10 * "A")

    assert 8 not in pairs.second
    assert len(pairs.first) == 4 + 3 + 2 + 1 - 3
    assert pairs.num_residues == 9


def test_residues_are_those_with_a_known_pair():
    is_known = np.ones((20, 20), bool)
    is_known[[0, 13]] = is_known[:, [0, 13]] = False
    pairs = ResiduePairs.from_contact_map(np.zeros((20, 20), bool), is_known, 20 * "A")

    assert pairs.residues.tolist() == [residue for residue in range(20) if residue not in (0, 13)]


def test_values_are_gathered_at_the_pairs():
    matrix = np.arange(2 * 8 * 8).reshape(2, 8, 8)

    values = gather(ResiduePairs.from_contact_map(np.zeros((8, 8), bool), np.ones((8, 8), bool), 8 * "A"), matrix)

    assert values.tolist() == [[6, 7, 15], [64 + 6, 64 + 7, 64 + 15]]


@pytest.mark.parametrize(("name", "inside"), [("short", [6, 11]), ("medium", [12, 23]), ("long", [24, 500])])
def test_ranges_partition_the_separations(name, inside):
    separations = [6, 11, 12, 23, 24, 500]

    pairs = make_pairs(separations, [False] * 6, 501)

    assert [separation for separation, is_in in zip(separations, pairs.is_in(name), strict=True) if is_in] == inside


# Features


def test_weighted_features_equal_the_logits_of_a_contact_head():
    rng = np.random.default_rng(0)
    maps = rng.dirichlet(np.full(30, 0.3), size=(2, 3, 30)).astype(np.float32)  # (layer, head, residues, residues)
    head = ContactHead(6)
    head.weight += torch.from_numpy(rng.normal(size=(1, 6)).astype(np.float32)) * 10
    head.bias -= 1.5
    pairs = random_pairs(rng, 30)

    features = gather(pairs, head_features(maps.reshape(6, 30, 30)))
    probabilities = 1 / (1 + np.exp(-(head.weight[0].numpy() @ features + head.bias.numpy())))

    assert features.dtype == np.float32
    assert np.ptp(probabilities) > 0.05
    np.testing.assert_allclose(probabilities, gather(pairs, head(torch.from_numpy(maps)).numpy()), rtol=0, atol=1e-6)


def test_features_of_a_layer_do_not_depend_on_other_layers():
    maps = np.random.default_rng(0).random((4, 12, 12))

    by_layer = np.concatenate([head_features(maps[:2]), head_features(maps[2:])])

    np.testing.assert_array_equal(by_layer, head_features(maps))


def test_head_without_attention_to_residues_has_features_of_zero():
    maps = np.stack([np.zeros((8, 8)), np.eye(8)])

    features = head_features(maps)

    assert not features[0].any()
    assert features[1].any()


# Precision


def test_precision_is_the_fraction_of_contacts_among_top_scoring_pairs():
    pairs = make_pairs([6, 24, 25, 26, 27, 28], [True, True, False, True, False, True], num_residues=4)
    scores = np.array([9.0, 5.0, 4.0, 3.0, 2.0, 1.0])

    assert precision(scores, pairs, "long", 1.0) == 2 / 4
    assert precision(scores, pairs, "long", 0.75) == pytest.approx(2 / 3)
    assert precision(scores, pairs, "long", 0.5) == 1 / 2
    assert precision(scores, pairs, "long", 0.25) == 1
    assert precision(-scores, pairs, "long", 0.5) == 1 / 2
    assert precision(-scores, pairs, "long", 0.25) == 1


def test_precision_uses_at_least_one_pair():
    pairs = make_pairs([24, 25, 26], [False, True, False], num_residues=2)

    assert precision(np.array([0.0, 1.0, 0.0]), pairs, "long", 0.2) == 1


def test_precision_with_ties_does_not_depend_on_the_order_of_pairs():
    pairs = make_pairs([24, 25, 26, 27], [True, True, False, False], num_residues=2)
    turned = make_pairs([24, 25, 26, 27], [False, False, True, True], num_residues=2)
    scores = np.array([1.0, 0.0, 0.0, 0.0])

    # The first pair is always used, and one of three tied pairs, of which one or two are contacts.
    assert precision(scores, pairs, "long", 1.0) == pytest.approx((1 + 1 / 3) / 2)
    assert precision(scores, turned, "long", 1.0) == pytest.approx((0 + 2 / 3) / 2)
    assert precision(np.zeros(4), pairs, "long", 1.0) == precision(np.zeros(4), turned, "long", 1.0) == 0.5


def test_precision_is_undefined_if_every_pair_is_used():
    pairs = make_pairs([12, 13, 24, 25, 26], [True] * 5, num_residues=2)

    assert precision(np.arange(5.0), pairs, "short", 1.0) is None
    assert precision(np.arange(5.0), pairs, "medium", 1.0) is None
    assert precision(np.arange(5.0), pairs, "long", 1.0) == 1


def test_precisions_of_heads_equal_those_of_single_heads():
    rng = np.random.default_rng(0)
    pairs, features = random_pairs(rng, 50), rng.integers(0, 5, (3, 990)).astype(float)

    together = head_precisions(features, pairs, "medium", 0.5)

    assert together.tolist() == pytest.approx([precision(scores, pairs, "medium", 0.5) for scores in features])
    assert len(set(together)) > 1
    assert np.isnan(head_precisions(features, pairs, "long", 20)).all()


# What is expected without looking at the maps


def test_random_precision_is_the_mean_over_random_scores():
    rng = np.random.default_rng(0)
    pairs = random_pairs(rng, 60)

    expected = precisions([rng.random(len(pairs.first))], [pairs])[-1].random
    drawn = [precision(rng.random(len(pairs.first)), pairs, "long", 0.5) for _ in range(500)]

    assert expected == pairs.is_contact[pairs.separation >= 24].mean()
    assert np.mean(drawn) == pytest.approx(expected, abs=3 * np.std(drawn) / np.sqrt(500))
    assert precisions([np.zeros(1)], [make_pairs([6], [True], 7)])[-1].random is None


def test_matched_precision_is_the_expectation_from_separations_alone():
    first = make_pairs([6] * 2 + [7] * 2, [False] * 4, num_residues=2)
    second = make_pairs([6] * 99 + [7] * 99, [True] * 99 + [False] * 99, num_residues=2)

    rates, _ = contact_rates([first, second])

    # Each stratum has 99 pairs, and one more with the mean rate.
    assert rates.tolist() == pytest.approx([0.995, 0.995, 0.005, 0.005])
    assert precision(np.array([1, 1, 0, 0]), first, "short", 1.0, rates) == pytest.approx(0.995)
    assert precision(np.array([1, 0, 1, 0]), first, "short", 1.0, rates) == pytest.approx(0.5)


def test_contact_rates_of_a_protein_do_not_depend_on_its_contacts():
    rng = np.random.default_rng(0)
    others = [random_pairs(rng, 40) for _ in range(2)]
    empty, full = random_pairs(rng, 40, rate=0.0), random_pairs(rng, 40, rate=1.0)

    np.testing.assert_array_equal(contact_rates([empty, *others])[0], contact_rates([full, *others])[0])
    assert (contact_rates([empty, *others])[1] < contact_rates([full, *others])[1]).all()


def test_unique_separations_have_the_mean_contact_rate():
    long, short = make_pairs([400], [True], 401), make_pairs([6, 7, 8, 9], [True, False, False, False], 10)

    assert contact_rates([long, short])[0] == pytest.approx(0.25)


# Over several proteins


def test_precisions_are_unweighted_means_over_proteins():
    rng = np.random.default_rng(0)
    proteins = [random_pairs(rng, size) for size in (40, 60, 90)]
    scores = [rng.random(len(pairs.first)) for pairs in proteins]

    rows = precisions(scores, proteins)
    row = next(row for row in rows if (row.range_name, row.fraction_name) == ("long", "L/5"))

    by_protein = [precision(*protein, "long", 0.2) for protein in zip(scores, proteins, strict=True)]
    assert len(rows) == 9
    assert row.num_proteins == 3
    assert row.precision.value == pytest.approx(np.mean(by_protein))
    # The score interval of a fraction with the same standard error, over three proteins.
    mean, error = np.mean(by_protein), np.std(by_protein, ddof=1) / 3**0.5
    for end in (row.precision.low, row.precision.high):
        assert row.precision.low < row.precision.value < row.precision.high
        size = mean * (1 - mean) / error**2
        assert (end - mean) ** 2 / (end * (1 - end) / size) == pytest.approx(stats.t.ppf(0.975, 2) ** 2)
    assert row.random == pytest.approx(np.mean([pairs.is_contact[pairs.is_in("long")].mean() for pairs in proteins]))
    assert row.matched_random == pytest.approx(0.1, abs=0.03)
    assert precisions(scores, proteins) == rows


def test_protein_that_is_too_short_for_a_range_is_not_counted():
    rng = np.random.default_rng(0)
    proteins = [random_pairs(rng, size) for size in (20, 60, 60)]
    scores = [pairs.is_contact.astype(float) for pairs in proteins]

    counts = {(row.range_name, row.fraction_name): row.num_proteins for row in precisions(scores, proteins)}

    assert counts["long", "L"] == counts["long", "L/5"] == 2
    assert counts["short", "L"] == 3


def test_single_protein_has_precisions_without_intervals():
    pairs = random_pairs(np.random.default_rng(0), 60)

    rows = precisions([pairs.is_contact.astype(float)], [pairs])

    assert rows[-1].precision.value == 1
    assert {(row.precision.low, row.precision.high, row.matched_random) for row in rows} == {(None, None, None)}
    assert None not in {row.random for row in rows}
