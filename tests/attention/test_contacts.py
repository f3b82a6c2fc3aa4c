import numpy as np
import pytest
import torch
from scipy import stats

from protembed.attention.contacts import (
    ResiduePairs,
    at,
    contact_rates,
    head_features,
    head_precisions,
    matched_precision,
    pairs_of,
    precision,
    precisions,
    random_precision,
)
from protembed.model.heads import ContactHead


def pairs_at(separations, is_contact, num_residues):
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
    return pairs_of(drawn | drawn.T, np.ones_like(drawn), "A" * num_residues)


# Pairs


def test_pairs_are_at_least_six_apart_and_each_is_listed_once():
    is_contact = np.zeros((8, 8), bool)
    is_contact[0, 7] = is_contact[7, 0] = is_contact[0, 5] = is_contact[5, 0] = True

    pairs = pairs_of(is_contact, np.ones((8, 8), bool), 8 * "A")

    assert list(zip(pairs.first, pairs.second, pairs.is_contact, strict=True)) == [
        (0, 6, False),
        (0, 7, True),
        (1, 7, False),
    ]
    assert pairs.separation.tolist() == [6, 7, 6]


def test_residues_without_a_place_in_the_structure_have_no_pairs_and_do_not_count():
    has_place = np.arange(10) != 8
    is_known = has_place[:, None] & has_place

    pairs = pairs_of(np.zeros((10, 10), bool), is_known, 10 * "A")

    assert 8 not in pairs.second
    assert len(pairs.first) == 4 + 3 + 2 + 1 - 3
    assert pairs.num_residues == 9


def test_values_are_taken_at_the_pairs():
    matrix = np.arange(2 * 8 * 8).reshape(2, 8, 8)

    values = at(pairs_of(np.zeros((8, 8), bool), np.ones((8, 8), bool), 8 * "A"), matrix)

    assert values.tolist() == [[6, 7, 15], [64 + 6, 64 + 7, 64 + 15]]


@pytest.mark.parametrize(("name", "inside"), [("short", [6, 11]), ("medium", [12, 23]), ("long", [24, 500])])
def test_each_separation_is_in_one_range(name, inside):
    separations = [6, 11, 12, 23, 24, 500]

    pairs = pairs_at(separations, [False] * 6, 501)

    assert [separation for separation, is_in in zip(separations, pairs.is_in(name), strict=True) if is_in] == inside


# Features


def test_features_at_pairs_are_what_the_contact_head_adds_up():
    rng = np.random.default_rng(0)
    maps = rng.dirichlet(np.full(30, 0.3), size=(2, 3, 30)).astype(np.float32)  # (layer, head, residues, residues)
    head = ContactHead(6)
    head.weight += torch.from_numpy(rng.normal(size=(1, 6)).astype(np.float32)) * 10
    head.bias -= 1.5
    pairs = random_pairs(rng, 30)

    features = at(pairs, head_features(maps.reshape(6, 30, 30)))
    probabilities = 1 / (1 + np.exp(-(head.weight[0].numpy() @ features + head.bias.numpy())))

    assert features.dtype == np.float32
    assert np.ptp(probabilities) > 0.05
    np.testing.assert_allclose(probabilities, at(pairs, head(torch.from_numpy(maps)).numpy()), rtol=0, atol=1e-6)


def test_features_of_a_layer_do_not_depend_on_the_other_layers():
    maps = np.random.default_rng(0).random((4, 12, 12))

    alone = np.concatenate([head_features(maps[:2]), head_features(maps[2:])])

    np.testing.assert_array_equal(alone, head_features(maps))


def test_a_head_without_attention_to_residues_has_features_of_zero_and_not_nan():
    maps = np.stack([np.zeros((8, 8)), np.eye(8)])

    features = head_features(maps)

    assert not features[0].any()
    assert features[1].any()


# Precision


def test_precision_counts_contacts_among_the_best_pairs_of_the_range():
    pairs = pairs_at([6, 24, 25, 26, 27, 28], [True, True, False, True, False, True], num_residues=4)
    scores = np.array([9.0, 5.0, 4.0, 3.0, 2.0, 1.0])

    assert precision(scores, pairs, "long", 1.0) == 2 / 4
    assert precision(scores, pairs, "long", 0.75) == pytest.approx(2 / 3)
    assert precision(scores, pairs, "long", 0.5) == 1 / 2
    assert precision(scores, pairs, "long", 0.25) == 1
    assert precision(-scores, pairs, "long", 0.5) == 1 / 2
    assert precision(-scores, pairs, "long", 0.25) == 1


def test_at_least_one_pair_is_picked():
    pairs = pairs_at([24, 25, 26], [False, True, False], num_residues=2)

    assert precision(np.array([0.0, 1.0, 0.0]), pairs, "long", 0.2) == 1


def test_ties_at_the_limit_are_shared_so_that_the_order_of_pairs_does_not_matter():
    pairs = pairs_at([24, 25, 26, 27], [True, True, False, False], num_residues=2)
    turned = pairs_at([24, 25, 26, 27], [False, False, True, True], num_residues=2)
    scores = np.array([1.0, 0.0, 0.0, 0.0])

    # One pick is the first pair, the other one of three, of which one is a contact, or two.
    assert precision(scores, pairs, "long", 1.0) == pytest.approx((1 + 1 / 3) / 2)
    assert precision(scores, turned, "long", 1.0) == pytest.approx((0 + 2 / 3) / 2)
    assert precision(np.zeros(4), pairs, "long", 1.0) == precision(np.zeros(4), turned, "long", 1.0) == 0.5


def test_precision_is_undefined_where_every_pair_would_be_picked():
    pairs = pairs_at([12, 13, 24, 25, 26], [True] * 5, num_residues=2)

    assert precision(np.arange(5.0), pairs, "short", 1.0) is None
    assert precision(np.arange(5.0), pairs, "medium", 1.0) is None
    assert precision(np.arange(5.0), pairs, "long", 1.0) == 1


def test_heads_are_measured_as_each_alone():
    rng = np.random.default_rng(0)
    pairs, features = random_pairs(rng, 50), rng.integers(0, 5, (3, 990)).astype(float)

    together = head_precisions(features, pairs, "medium", 0.5)

    assert together.tolist() == pytest.approx([precision(one, pairs, "medium", 0.5) for one in features])
    assert len(set(together)) > 1
    assert np.isnan(head_precisions(features, pairs, "long", 20)).all()


# What is expected without looking at the maps


def test_the_random_expectation_is_the_mean_precision_of_random_scores():
    rng = np.random.default_rng(0)
    pairs = random_pairs(rng, 60)

    expected = random_precision(pairs, "long")
    drawn = [precision(rng.random(len(pairs.first)), pairs, "long", 0.5) for _ in range(500)]

    assert expected == pairs.is_contact[pairs.separation >= 24].mean()
    assert np.mean(drawn) == pytest.approx(expected, abs=3 * np.std(drawn) / np.sqrt(500))
    assert random_precision(pairs_at([6], [True], 7), "long") is None


def test_the_matched_background_is_what_separation_alone_would_give():
    first = pairs_at([6] * 2 + [7] * 2, [False] * 4, num_residues=2)
    other = pairs_at([6] * 99 + [7] * 99, [True] * 99 + [False] * 99, num_residues=2)

    rates, _ = contact_rates([first, other])

    # One pair of the mean rate is added to each 99.
    assert rates.tolist() == pytest.approx([0.995, 0.995, 0.005, 0.005])
    assert matched_precision(np.array([1, 1, 0, 0]), first, rates, "short", 1.0) == pytest.approx(0.995)
    assert matched_precision(np.array([1, 0, 1, 0]), first, rates, "short", 1.0) == pytest.approx(0.5)


def test_the_background_of_a_protein_does_not_know_its_own_contacts():
    rng = np.random.default_rng(0)
    others = [random_pairs(rng, 40) for _ in range(2)]
    empty, full = random_pairs(rng, 40, rate=0.0), random_pairs(rng, 40, rate=1.0)

    np.testing.assert_array_equal(contact_rates([empty, *others])[0], contact_rates([full, *others])[0])
    assert (contact_rates([empty, *others])[1] < contact_rates([full, *others])[1]).all()


def test_separations_that_no_other_protein_has_take_the_mean_rate():
    long, short = pairs_at([400], [True], 401), pairs_at([6, 7, 8, 9], [True, False, False, False], 10)

    assert contact_rates([long, short])[0] == pytest.approx(0.25)


# Over several proteins


def test_precisions_are_means_over_proteins_each_counting_once():
    rng = np.random.default_rng(0)
    proteins = [random_pairs(rng, size) for size in (40, 60, 90)]
    scores = [rng.random(len(pairs.first)) for pairs in proteins]

    rows = precisions(scores, proteins)
    row = next(row for row in rows if (row.range_name, row.fraction_name) == ("long", "L/5"))

    alone = [precision(one, pairs, "long", 0.2) for one, pairs in zip(scores, proteins, strict=True)]
    assert len(rows) == 9
    assert row.num_proteins == 3
    assert row.score.value == pytest.approx(np.mean(alone))
    # Wilson's interval of a mean, as of a share with the same standard error, of three proteins.
    mean, error = np.mean(alone), np.std(alone, ddof=1) / 3**0.5
    for end in (row.score.low, row.score.high):
        assert row.score.low < row.score.value < row.score.high
        size = mean * (1 - mean) / error**2
        assert (end - mean) ** 2 / (end * (1 - end) / size) == pytest.approx(stats.t.ppf(0.975, 2) ** 2)
    assert row.random == pytest.approx(np.mean([random_precision(pairs, "long") for pairs in proteins]))
    assert row.matched == pytest.approx(0.1, abs=0.03)
    assert precisions(scores, proteins) == rows


def test_a_protein_too_short_for_a_range_is_left_out_of_it_and_said_so():
    rng = np.random.default_rng(0)
    proteins = [random_pairs(rng, size) for size in (20, 60, 60)]
    scores = [pairs.is_contact.astype(float) for pairs in proteins]

    counts = {(row.range_name, row.fraction_name): row.num_proteins for row in precisions(scores, proteins)}

    assert counts["long", "L"] == counts["long", "L/5"] == 2
    assert counts["short", "L"] == 3


def test_one_protein_has_figures_but_no_interval_and_no_background():
    pairs = random_pairs(np.random.default_rng(0), 60)

    rows = precisions([pairs.is_contact.astype(float)], [pairs])

    assert rows[-1].score.value == 1
    assert {(row.score.low, row.score.high, row.matched) for row in rows} == {(None, None, None)}
    assert None not in {row.random for row in rows}
