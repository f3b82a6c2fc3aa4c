import numpy as np
import pytest

from protembed.attention.contact_predictors import evaluate_contacts
from protembed.attention.contacts import FRACTIONS, RANGES, ResiduePairs, gather, precision
from protembed.attention.pictures import encode_ranked
from protembed.attention.ranked_contacts import (
    CONTACT,
    NO_CONTACT,
    UNKNOWN,
    held_out_matrix,
    rank_contacts,
)

NUM_RESIDUES = 70


@pytest.fixture
def scores():
    upper = np.triu(np.random.default_rng(1).random((NUM_RESIDUES, NUM_RESIDUES)), 1)
    return upper + upper.T


@pytest.fixture
def structure():
    """A structure with a fifth of all pairs in contact, in which residues 10 to 14 have no coordinates."""
    upper = np.triu(np.random.default_rng(2).random((NUM_RESIDUES, NUM_RESIDUES)) < 0.2, 6)
    is_seen = np.ones(NUM_RESIDUES, bool)
    is_seen[10:15] = False
    return ResiduePairs.from_contact_map(upper | upper.T, np.outer(is_seen, is_seen), "A" * NUM_RESIDUES)


@pytest.mark.parametrize("range_name", RANGES)
def test_ranked_pairs_are_the_best_of_their_range_in_order(scores, structure, range_name):
    ranked = rank_contacts(scores, structure)[range_name]

    low, high = RANGES[range_name]
    separation = ranked.second - ranked.first
    assert (separation >= low).all()
    assert (separation < (high or NUM_RESIDUES)).all()
    values = scores[ranked.first, ranked.second]
    assert (np.diff(values) <= 0).all()
    others = scores[np.triu(np.ones(scores.shape, bool), low) & ~np.triu(np.ones(scores.shape, bool), high or 999)]
    assert np.array_equal(values, -np.sort(-others)[: len(values)])


@pytest.mark.parametrize("range_name", RANGES)
def test_right_and_wrong_pairs_give_the_precision(scores, structure, range_name):
    ranked = rank_contacts(scores, structure)[range_name]

    assert list(ranked.num_top) == list(FRACTIONS)
    for name, fraction in FRACTIONS.items():
        state = ranked.state[: ranked.num_top[name]]
        num_right, num_wrong = (state == CONTACT).sum(), (state == NO_CONTACT).sum()
        assert num_right + num_wrong == round(structure.num_residues * fraction)
        known = scores[structure.first, structure.second]
        assert ranked.precisions[name] == pytest.approx(num_right / (num_right + num_wrong))
        assert ranked.precisions[name] == precision(known, structure, range_name, fraction)
    assert (state == UNKNOWN).sum() == len(state) - num_right - num_wrong


def test_pair_is_unknown_where_a_residue_lacks_coordinates(scores, structure):
    scores[12, 60] = scores[60, 12] = 2
    ranked = rank_contacts(scores, structure)["long"]

    assert (ranked.first[0], ranked.second[0], ranked.state[0]) == (12, 60, UNKNOWN)
    is_unseen = np.isin(ranked.first, range(10, 15)) | np.isin(ranked.second, range(10, 15))
    assert np.array_equal(ranked.state == UNKNOWN, is_unseen)


def test_without_a_structure_pairs_are_unknown_and_have_no_precision(scores):
    ranked = rank_contacts(scores, None)["long"]

    assert ranked.num_top == {"L": 70, "L/2": 35, "L/5": 14}
    assert (ranked.state == UNKNOWN).all()
    assert ranked.precisions == {}
    assert ranked.random is None


def test_fraction_is_missing_where_the_range_has_no_more_pairs():
    ranked = rank_contacts(np.random.default_rng(0).random((30, 30)), None)

    assert ranked["long"].num_top == {"L/2": 15, "L/5": 6}  # 21 pairs
    assert len(ranked["long"].first) == 15
    assert rank_contacts(np.zeros((20, 20)), None)["long"].num_top == {}


def test_region_keeps_the_pairs_inside_and_numbers_them_from_its_start(scores, structure):
    whole = rank_contacts(scores, structure)["long"]
    part = whole.within(slice(20, 60))

    is_in = (whole.first >= 20) & (whole.second < 60)
    assert np.array_equal(part.first + 20, whole.first[is_in])
    assert np.array_equal(part.second + 20, whole.second[is_in])
    assert part.num_top == {name: is_in[:num].sum() for name, num in whole.num_top.items()}
    assert part.precisions == whole.precisions


def test_pairs_without_a_held_out_score_are_not_ranked(scores, structure):
    logits = scores[structure.first, structure.second]
    ranked = rank_contacts(held_out_matrix(logits, structure), structure)["long"]

    assert (ranked.state != UNKNOWN).all()
    assert len(ranked.first) == structure.num_residues
    assert ranked.precisions == rank_contacts(scores, structure)["long"].precisions


@pytest.fixture(scope="module")
def planted():
    """Three proteins, and features of four heads, of which the second follows the contacts."""
    rng, features, proteins = np.random.default_rng(3), [], []
    for letter in "ACD":
        drawn = np.triu(rng.random((60, 60)) < 0.1, 6)
        pairs = ResiduePairs.from_contact_map(drawn | drawn.T, np.ones((60, 60), bool), 60 * letter)
        maps = rng.random((4, 60, 60)) * 0.5
        maps[1] += drawn
        features.append(gather(pairs, maps).astype(np.float32))
        proteins.append(pairs)
    return features, proteins


def test_mean_precision_of_held_out_proteins_is_that_of_all_proteins(planted):
    evaluation = evaluate_contacts(*planted, None, num_permutations=100, seed=0)

    held_out = [held_out_matrix(evaluation.held_out[pairs.sequence], pairs) for pairs in planted[1]]
    ranked = [rank_contacts(scores, pairs) for scores, pairs in zip(held_out, planted[1], strict=True)]
    for row in evaluation.precisions["regression"]:
        known = [each[row.range_name] for each in ranked if row.fraction_name in each[row.range_name].precisions]
        precisions = [each.precisions[row.fraction_name] for each in known]
        assert row.num_proteins == len(known)
        assert not known or row.precision.value == pytest.approx(np.mean(precisions))
        assert not known or row.random == pytest.approx(np.mean([each.random for each in known]))


def test_compressed_ranking_is_read_as_it_was(scores, structure, decompress):
    ranked = rank_contacts(scores, structure)

    encoded = encode_ranked(ranked)

    content, num = decompress(encoded), sum(len(pairs.state) for pairs in ranked.values())
    for name, dtype, start in (("first", "<u2", 0), ("second", "<u2", 2 * num), ("state", np.uint8, 4 * num)):
        expected = np.concatenate([getattr(pairs, name) for pairs in ranked.values()])
        assert np.array_equal(np.frombuffer(content, dtype, num, start), expected)
    long = encoded["ranges"]["long"]
    assert long["number"] == len(ranked["long"].state)
    assert long["top"] == ranked["long"].num_top
    assert long["precision"]["L"] == pytest.approx(ranked["long"].precisions["L"], rel=1e-5)
    assert encode_ranked({}) is None
