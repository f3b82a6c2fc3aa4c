from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
from scipy.stats import kstest, mannwhitneyu, norm
from sklearn.metrics import roc_auc_score

from protembed.attention.contacts import ResiduePairs, gather, head_features
from protembed.attention.significance import (
    LabelledScores,
    permutation_test,
    permutation_warnings,
    separation_strata,
)
from protembed.data.alphabet import AMINO_ACIDS


def labelled_scores(values, is_labelled, strata=None):
    values = np.atleast_2d(np.array(values, float))
    strata = np.zeros(values.shape[1], int) if strata is None else np.array(strata)
    return LabelledScores(values=values, is_labelled=np.array(is_labelled, bool), strata=strata)


def make_chain(rng, num_residues, num_heads=12, planted=None):
    """Draw contacts that become rarer with separation, and maps that fade with it; one head may follow the contacts."""
    positions = np.arange(num_residues)
    distance = np.abs(positions[:, None] - positions)
    drawn = np.triu(rng.random(distance.shape) < 2 / np.maximum(distance, 6))
    is_contact = drawn | drawn.T
    maps = rng.exponential(size=(num_heads, *distance.shape)) / (1 + distance)
    if planted is not None:
        maps[planted] += is_contact * maps[planted].mean()
    maps /= maps.sum(-1, keepdims=True)
    pairs = ResiduePairs.from_contact_map(
        is_contact, np.ones_like(is_contact), "".join(rng.choice(list(AMINO_ACIDS), num_residues))
    )
    return pairs.labelled_scores(gather(pairs, head_features(maps)))


def with_permuted_labels(rng, protein):
    """Permute the labels within the strata."""
    is_labelled = protein.is_labelled.copy()
    for stratum in np.unique(protein.strata):
        inside = protein.strata == stratum
        is_labelled[inside] = rng.permutation(is_labelled[inside])
    return replace(protein, is_labelled=is_labelled)


# Strata


def test_strata_are_single_separations_below_24_and_widen_beyond():
    strata = separation_strata(np.arange(6, 1001))

    assert strata[: 24 - 6].tolist() == list(range(6, 24))
    assert set(np.diff(strata)) == {0, 1}
    widths = np.bincount(strata)[24:-1]
    starts = 24 + widths.cumsum() - widths
    assert widths[0] == 3
    assert (np.abs(widths - 0.1225 * starts) < 1.2).all()


def test_all_strata_but_the_farthest_two_hold_as_many_pairs_as_a_separation():
    pairs = ResiduePairs.from_contact_map(np.zeros((200, 200), bool), np.ones((200, 200), bool), 200 * "A")

    sizes = np.bincount(separation_strata(pairs.separation))[6:]

    assert len(sizes) < 40
    assert min(sizes[:-2]) > 100


# The statistic


def test_p_value_agrees_with_the_exact_permutation_test():
    values, is_labelled = np.array([3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0]), np.array([1, 0, 1, 0, 0, 1, 0], bool)

    result = permutation_test([labelled_scores(values, is_labelled)], num_permutations=20_000)

    sums = [values.argsort().argsort()[list(chosen)].sum() for chosen in combinations(range(7), 3)]
    observed = values.argsort().argsort()[is_labelled].sum()
    # The two equal values are unlabelled and lowest: their mean rank does not change which sums reach `observed`.
    exact = np.mean(np.array(sums) >= observed)
    assert result.p_values[0] == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 20_000))


def test_strata_and_proteins_are_permuted_separately():
    # Two equal proteins, each with two labels among four values and one label among three.
    protein = labelled_scores([3, 1, 4, 2, 7, 6, 5], [1, 0, 1, 0, 1, 0, 0], [8, 8, 8, 8, 9, 9, 9])
    sums_of_four = [sum(ranks) / 5 for ranks in combinations([1, 2, 3, 4], 2)]
    sums_of_protein = [four + rank / 4 for four, rank in product(sums_of_four, [1, 2, 3])]
    observed = 2 * ((3 + 4) / 5 + 3 / 4)

    for threshold, values in [(observed, protein.values), (2 * ((1 + 3) / 5 + 3 / 4), [[3, 4, 1, 2, 7, 6, 5]])]:
        twice = [replace(protein, values=np.array(values))] * 2
        exact = np.mean([first + second >= threshold - 1e-9 for first, second in product(sums_of_protein, repeat=2)])

        p_value = permutation_test(twice, num_permutations=20_000).p_values[0]

        assert p_value == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 20_000))


def test_heads_of_equal_p_values_are_ranked_by_deviation():
    values = np.arange(200.0)
    is_labelled = values >= 150
    weaker = np.where(values % 10 == 0, -values, values)

    result = permutation_test([labelled_scores([weaker, values, -values], is_labelled)], num_permutations=99)

    assert result.p_values[0] == result.p_values[1]
    assert result.ranking().tolist() == [1, 0, 2]


def test_effect_is_auroc_in_a_single_stratum():
    rng = np.random.default_rng(0)
    values, is_labelled = rng.integers(0, 20, 200), rng.random(200) < 0.2

    result = permutation_test([labelled_scores(values, is_labelled)], num_permutations=10)

    assert result.effects[0] == pytest.approx(roc_auc_score(is_labelled, values), abs=1e-6)


def test_deviation_agrees_with_the_rank_sum_test_in_a_single_stratum():
    rng = np.random.default_rng(0)
    values, is_labelled = rng.integers(0, 20, 200), rng.random(200) < 0.2

    result = permutation_test([labelled_scores(values, is_labelled)], num_permutations=10)

    expected = mannwhitneyu(
        values[is_labelled], values[~is_labelled], alternative="greater", use_continuity=False, method="asymptotic"
    )
    assert norm.sf(result.deviations[0]) == pytest.approx(expected.pvalue, rel=1e-4)


def test_deviation_is_standard_normal_under_the_null():
    rng = np.random.default_rng(0)
    protein = labelled_scores(rng.random(60), rng.random(60) < 0.3, np.repeat([0, 1, 2], [10, 20, 30]))

    deviations = np.array(
        [permutation_test([with_permuted_labels(rng, protein)], num_permutations=1).deviations[0] for _ in range(2000)]
    )

    assert deviations.mean() == pytest.approx(0, abs=4 / np.sqrt(2000))
    assert deviations.std() == pytest.approx(1, abs=0.07)


def test_difference_between_strata_alone_is_not_significant():
    # Near pairs have higher values and more contacts; within a stratum, values and contacts are independent.
    rng = np.random.default_rng(0)
    strata = np.repeat([0, 1], 300)
    values, is_labelled = rng.random(600) + (strata == 0), rng.random(600) < np.where(strata == 0, 0.5, 0.05)

    within, without = (
        permutation_test([labelled_scores(values, is_labelled, chosen)], num_permutations=999).p_values[0]
        for chosen in (strata, np.zeros(600, int))
    )

    assert without == 1 / 1000
    assert within > 0.05


def test_difference_between_proteins_alone_is_not_significant():
    rng = np.random.default_rng(0)
    proteins = [
        labelled_scores(rng.random(300) + shift, rng.random(300) < rate) for shift, rate in [(5, 0.5), (0, 0.05)]
    ]

    assert permutation_test(proteins, num_permutations=999).p_values[0] > 0.05


def test_single_huge_value_is_not_significant():
    rng = np.random.default_rng(0)
    values, is_labelled = rng.random(300), rng.random(300) < 0.2
    values[np.flatnonzero(is_labelled)[0]] = 1e6

    result = permutation_test([labelled_scores(values, is_labelled)], num_permutations=999)

    assert result.p_values[0] > 0.05


def test_p_values_do_not_depend_on_the_scale_of_a_head():
    rng = np.random.default_rng(0)
    values, is_labelled = rng.random(200), rng.random(200) < 0.2

    result = permutation_test(
        [labelled_scores([values, 1000 * values - 7, values**3], is_labelled)], num_permutations=999
    )

    assert len(set(result.p_values)) == len(set(result.effects)) == 1
    assert 1 / 1000 < result.p_values[0] < 1


def test_constant_head_has_a_p_value_of_one():
    result = permutation_test([labelled_scores(np.ones(50), np.arange(50) < 10)], num_permutations=99)

    assert (result.p_values[0], result.effects[0], result.deviations[0]) == (1, 0.5, 0)


def test_head_with_nan_has_a_p_value_of_one():
    values = np.arange(50.0)
    values[3] = np.nan

    assert permutation_test([labelled_scores(values, np.arange(50) > 40)], num_permutations=99).p_values[0] == 1


def test_p_value_is_one_if_no_stratum_is_labelled_in_part():
    result = permutation_test(
        [labelled_scores(np.arange(5.0), [True] * 5), labelled_scores(np.arange(4.0), [1, 1, 0, 0], [7, 7, 9, 9])],
        num_permutations=99,
    )

    assert result.p_values[0] == 1
    assert np.isnan(result.effects[0])
    assert result.num_proteins == 0


def test_p_values_are_one_sided_and_never_zero():
    values = np.arange(100.0)

    best, worst = permutation_test([labelled_scores([values, -values], values > 80)], num_permutations=999).p_values

    assert best == 1 / 1000
    assert worst == 1


def test_q_values_equal_benjamini_hochberg_over_heads():
    rng = np.random.default_rng(0)
    result = permutation_test([labelled_scores(rng.random((12, 200)), rng.random(200) < 0.2)], num_permutations=999)

    ordered = np.sort(result.p_values)
    by_hand = [min(ordered[rank:] * 12 / np.arange(rank + 1, 13)) for rank in range(12)]
    assert np.sort(result.q_values) == pytest.approx(np.minimum(by_hand, 1))


def test_permutations_depend_on_the_seed_only():
    rng = np.random.default_rng(0)
    protein = labelled_scores(rng.random((3, 200)), rng.random(200) < 0.2)

    first, repeated, different = (
        permutation_test([protein], num_permutations=500, seed=seed).p_values.tolist() for seed in (1, 1, 2)
    )

    assert first == repeated != different


def test_p_values_do_not_depend_on_the_block_size(monkeypatch):
    rng = np.random.default_rng(0)
    protein = labelled_scores(rng.random((3, 200)), rng.random(200) < 0.2, rng.integers(0, 3, 200))

    whole = permutation_test([protein], num_permutations=2000).p_values.tolist()
    monkeypatch.setattr("protembed.attention.significance._BLOCK_SIZE", 200 * 7)
    in_blocks = permutation_test([protein], num_permutations=2000).p_values.tolist()

    assert in_blocks == pytest.approx(whole, abs=4 * 0.5 * np.sqrt(2 / 2000))


def test_proteins_with_an_effect_are_counted():
    values = np.arange(20.0)
    proteins = [labelled_scores([values, -values], values > 15), labelled_scores([values, values], values > 15)]

    result = permutation_test(iter(proteins), num_permutations=99)

    assert result.num_above.tolist() == [2, 1]
    assert result.num_proteins == 2


def test_permutation_test_without_proteins_raises():
    with pytest.raises(ValueError, match="at least one"):
        permutation_test([])


# Contacts and sites


def test_head_that_attends_to_contacts_is_ranked_first_and_significant():
    rng = np.random.default_rng(0)
    proteins = [make_chain(rng, 50, planted=7) for _ in range(4)]

    result = permutation_test(proteins, num_permutations=1000)

    assert result.ranking()[0] == 7
    assert result.q_values[7] < 0.05
    assert result.effects[7] > 0.6 > np.delete(result.effects, 7).max()


def make_contacts_of_acids(rng, num_residues=60):
    """Make pairs in which two acids are often in contact, independent of any head."""
    sequence = "".join(rng.choice(list("DEKLVAGS"), num_residues))
    is_acid = np.isin(list(sequence), ["D", "E"])
    drawn = np.triu(rng.random((num_residues, num_residues)) < np.where(is_acid[:, None] & is_acid, 0.3, 0.03))
    return ResiduePairs.from_contact_map(drawn | drawn.T, np.ones_like(drawn), sequence), is_acid


def test_head_that_depends_on_amino_acids_alone_is_not_significant():
    rng = np.random.default_rng(0)
    within, among_all = [], []
    for _ in range(4):
        pairs, is_acid = make_contacts_of_acids(rng)
        noise = 0.1 * rng.random((6, len(pairs.first)))
        scores = pairs.labelled_scores(noise + is_acid[pairs.first] + is_acid[pairs.second])
        within.append(scores)
        among_all.append(replace(scores, kinds=None, moved_sums=None))

    assert (permutation_test(among_all, num_permutations=500).q_values <= 0.05).all()
    assert (permutation_test(within, num_permutations=500).q_values > 0.05).all()


def test_head_that_depends_on_contacts_beyond_amino_acids_is_significant():
    rng = np.random.default_rng(0)
    proteins = []
    for _ in range(4):
        pairs, is_acid = make_contacts_of_acids(rng)
        values = rng.random((6, len(pairs.first))) + is_acid[pairs.first] + is_acid[pairs.second]
        values[2] += 0.5 * pairs.is_contact
        proteins.append(pairs.labelled_scores(values))

    assert np.flatnonzero(permutation_test(proteins, num_permutations=500).q_values <= 0.05).tolist() == [2]


def test_patch_of_contacts_in_a_smooth_map_is_not_significant():
    # Each of 40 heads has one smooth bump somewhere; a patch of contacts lies in one of them by chance.
    rng, positions = np.random.default_rng(0), np.arange(60)
    tests = []
    for _ in range(3):
        bumps = [np.exp(-(((positions - centre) / 6) ** 2)) for centre in rng.integers(0, 60, 80)]
        maps = np.stack([np.add.outer(*factors) for factors in zip(bumps[:40], bumps[40:], strict=True)])
        patch = np.zeros((60, 60), bool)
        patch[20:27, 40:47] = True
        tests.append(
            ResiduePairs.from_contact_map(patch | patch.T, np.ones((60, 60), bool), 60 * "A").labelled_scores(
                gather_pairs(maps)
            )
        )

    exchanged = permutation_test([replace(test, moved_sums=None) for test in tests], num_permutations=500)

    assert (exchanged.q_values <= 0.05).sum() > 3
    assert (permutation_test(tests, num_permutations=500).q_values <= 0.05).sum() == 0


def gather_pairs(maps):
    return gather(
        ResiduePairs.from_contact_map(np.zeros((60, 60), bool), np.ones((60, 60), bool), 60 * "A"),
        maps + maps.swapaxes(1, 2),
    )


def test_head_that_attends_to_sites_is_significant():
    rng = np.random.default_rng(0)
    proteins = []
    for num_residues in (60, 90, 120):
        is_site = np.isin(np.arange(num_residues), rng.choice(num_residues, 6, replace=False))
        received = rng.random((5, num_residues))
        received[3] += 0.8 * is_site
        proteins.append(labelled_scores(received, is_site))

    result = permutation_test(proteins, num_permutations=999)

    assert result.ranking()[0] == 3
    assert np.flatnonzero(result.q_values < 0.05).tolist() == [3]


def test_p_values_are_uniform_under_the_null():
    rng = np.random.default_rng(0)
    # 300 heads of independent noise, which share the labels.
    proteins = [
        labelled_scores(rng.random((300, 150)), rng.random(150) < 0.1, rng.integers(0, 4, 150)) for _ in range(3)
    ]

    p_values = permutation_test(proteins, num_permutations=999).p_values

    assert kstest(p_values, "uniform").pvalue > 0.01
    assert (p_values <= 0.05).mean() == pytest.approx(0.05, abs=0.04)


@pytest.mark.slow
def test_at_most_eleven_of_a_hundred_null_data_sets_have_a_significant_head():
    # At q = 0.05 five are expected; twelve or more have a chance of 0.4 %.
    rng = np.random.default_rng(0)
    chains = [make_chain(rng, num_residues) for num_residues in range(40, 56, 4)]

    num_found = sum(
        permutation_test(
            [with_permuted_labels(rng, chain) for chain in chains], num_permutations=1000, seed=seed
        ).q_values.min()
        <= 0.05
        for seed in range(100)
    )

    assert num_found <= 11


def test_too_few_permutations_for_a_single_head_to_be_significant_are_warned_of():
    values = np.random.default_rng(0).random((12, 60))
    values[3, :10] += 1
    protein = labelled_scores(values, np.arange(60) < 10)

    few, enough = (permutation_test([protein], num_permutations=number) for number in (100, 1000))

    assert permutation_warnings(few) == [
        "100 permutations are too few for a single one of 12 heads to be significant: use --num-permutations 240"
    ]
    assert enough.q_values.min() <= 0.05
    assert permutation_warnings(enough) == []
