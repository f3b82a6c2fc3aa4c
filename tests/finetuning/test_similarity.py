from collections import Counter

import numpy as np
import pytest

from protembed.finetuning.splits import greedy_clusters, kmer_sets, nearest


@pytest.fixture(scope="module")
def long_proteins(proteins):
    return [protein for protein in proteins if len(protein) >= 90]


def similarity_of(one, other):
    return nearest([one], [other])[1][0]


# 5-mers


def test_a_set_holds_each_five_mer_once():
    sets = kmer_sets(["MKTAYIA", "AAAAAAAAA", "MKTA", ""])

    assert sets.shape == (4, 20**5)
    assert sets.sum(1).tolist() == [3, 1, 0, 0]


def test_five_mers_with_an_unknown_residue_do_not_count():
    sets = kmer_sets(["MKTXAYIAK", "AYIAK", "XXXXXX", "MKTBAYIAK"])

    assert sets.sum(1).tolist() == [1, 1, 0, 1]
    assert (sets @ sets.T).toarray()[0].tolist() == [1, 1, 0, 1]


def test_different_five_mers_have_different_columns():
    neighbours = ["MKTAY", "YATKM", "MKTAV", "KMTAY", "AAAAA", "YYYYY"]

    assert (kmer_sets(neighbours).sum(0) <= 1).all()


# Nearest


def test_a_protein_is_identical_to_itself_alone(proteins):
    numbers, similarities = nearest(proteins, proteins)

    assert numbers.tolist() == list(range(len(proteins)))
    assert similarities.tolist() == [1.0] * len(proteins)


def test_of_two_copies_the_first_is_the_nearest(proteins):
    numbers, similarities = nearest([proteins[3]], [*proteins[:5], *proteins[:5]])

    assert (numbers.tolist(), similarities.tolist()) == ([3], [1.0])


def test_a_fragment_is_as_similar_as_can_be_to_its_whole(long_proteins):
    fragments = [protein[20:60] for protein in long_proteins]

    numbers, similarities = nearest(fragments, long_proteins)

    assert numbers.tolist() == list(range(len(long_proteins)))
    assert similarities == pytest.approx(1)
    assert nearest(long_proteins, fragments)[1] == pytest.approx(1)


def test_unrelated_proteins_are_not_similar(proteins):
    for row, protein in enumerate(proteins):
        assert nearest([protein], [*proteins[:row], *proteins[row + 1 :]])[1][0] < 0.2


def test_a_shuffled_protein_is_a_stranger(long_proteins):
    rng = np.random.default_rng(0)

    assert all(similarity_of("".join(rng.permutation(list(protein))), protein) == 0 for protein in long_proteins)


def test_the_more_a_protein_mutates_the_less_similar_it_is(long_proteins, mutate):
    shares = (0.0, 0.1, 0.2, 0.3, 0.6)
    means = [
        np.mean([similarity_of(mutate(protein, share, seed), protein) for seed, protein in enumerate(long_proteins)])
        for share in shares
    ]

    assert means[0] == 1
    assert all(before - after > 0.05 for before, after in zip(means, means[1:], strict=False))


@pytest.mark.parametrize("identity", [0.9, 0.7])
def test_the_estimate_is_near_the_share_of_identical_residues(proteins, mutate, identity):
    # Of short proteins too few 5-mers are left at 70 %.
    originals = [protein for protein in proteins if len(protein) >= 200]
    estimates = [
        similarity_of(mutate(protein, 1 - identity, seed), protein) for protein in originals for seed in range(5)
    ]

    assert estimates == pytest.approx([identity] * len(estimates), abs=0.06)


def test_it_is_the_same_from_both_sides(proteins, mutate):
    for seed, protein in enumerate(proteins):
        relative = mutate(protein, 0.15, seed)[5:]
        assert similarity_of(protein, relative) == pytest.approx(similarity_of(relative, protein))


def test_sequences_without_a_five_mer_are_similar_to_themselves_alone(proteins):
    numbers, similarities = nearest(["MKT", "MKTA", "M"], [*proteins, "MKT"])

    assert similarities.tolist() == [1.0, 0.0, 0.0]
    assert numbers[0] == len(proteins)


def test_unknown_residues_have_nothing_in_common(proteins):
    assert similarity_of("X" * 50, "X" * 60) == 0
    assert similarity_of("X" * 50, "X" * 50) == 1
    assert similarity_of(f"{proteins[0]}{'X' * 50}", proteins[0]) == pytest.approx(1)


def test_nobody_asks_for_nothing(proteins):
    numbers, similarities = nearest([], proteins)

    assert (len(numbers), len(similarities)) == (0, 0)


# Clusters


@pytest.fixture(scope="module")
def families(proteins, mutate):
    """Twelve proteins, each with four shorter relatives that are 90 % identical to it."""
    originals = [protein for protein in proteins if len(protein) > 40][:12]  # peptides have too few 5-mers
    return [[protein, *(mutate(protein, 0.1, seed)[1:] for seed in range(4))] for protein in originals]


def test_mutated_copies_join_their_original(families):
    members = [member for family in families for member in family]

    assert greedy_clusters(members, 0.5) == [family[0] for family in families for _ in family]


def test_unrelated_proteins_stay_alone(proteins):
    assert greedy_clusters(proteins, 0.5) == proteins


def test_the_longest_represents_its_cluster_and_of_equals_the_first_by_letter(proteins, mutate):
    protein = max(proteins, key=len)
    relative = mutate(protein, 0.05)

    assert greedy_clusters([protein[50:200], protein, protein[10:]], 0.5) == [protein] * 3
    assert greedy_clusters([protein, relative], 0.5) == [min(protein, relative)] * 2


def test_every_representative_represents_itself(families):
    members = [member for family in families for member in family]
    representative_of = dict(zip(members, greedy_clusters(members, 0.88), strict=True))

    assert all(representative_of[representative] == representative for representative in representative_of.values())
    assert len(families) < len(set(representative_of.values())) < len(members)


def test_clusters_do_not_depend_on_the_order(families):
    members = [member for family in families for member in family]
    shuffled = np.random.default_rng(0).permutation(members).tolist()

    whole = dict(zip(members, greedy_clusters(members, 0.88), strict=True))
    again = dict(zip(shuffled, greedy_clusters(shuffled, 0.88), strict=True))

    assert whole == again


def test_clusters_do_not_depend_on_the_block_size(families):
    members = [member for family in families for member in family]
    whole = greedy_clusters(members, 0.88)

    for block_size in (1, 7):
        assert greedy_clusters(members, 0.88, block_size=block_size) == whole
        assert nearest(members[:9], members[4:], block_size=block_size)[0].tolist()[4:] == [0, 1, 2, 3, 4]


def test_copies_share_a_cluster(families):
    members = [*families[0], *families[1]]

    assert greedy_clusters(members * 2, 0.5) == greedy_clusters(members, 0.5) * 2


def test_the_wanted_similarity_decides_who_is_a_relative(long_proteins, mutate):
    pairs = [protein for original in long_proteins for protein in (original, mutate(original, 0.25))]

    sizes = {wanted: Counter(greedy_clusters(pairs, wanted)) for wanted in (0.5, 0.95)}

    assert set(sizes[0.5].values()) == {2}
    assert set(sizes[0.95].values()) == {1}


def test_clusters_of_short_sequences_are_their_copies():
    assert greedy_clusters(["MKT", "MKTA", "MKT", "X"], 0.5) == ["MKT", "MKTA", "MKT", "X"]
