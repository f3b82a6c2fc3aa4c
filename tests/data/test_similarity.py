from collections import Counter

import numpy as np
import pytest

from protembed.data.similarity import greedy_clusters, kmer_sets, nearest


@pytest.fixture(scope="module")
def long_proteins(proteins):
    return [protein for protein in proteins if len(protein) >= 90]


def similarity_of(query, reference):
    return nearest([query], [reference])[1][0]


# 5-mers


def test_a_kmer_set_holds_each_five_mer_once():
    sets = kmer_sets(["MKTAYIA", "AAAAAAAAA", "MKTA", ""])

    assert sets.shape == (4, 20**5)
    assert sets.sum(1).tolist() == [3, 1, 0, 0]


def test_five_mers_with_an_unknown_residue_are_ignored():
    sets = kmer_sets(["MKTXAYIAK", "AYIAK", "XXXXXX", "MKTBAYIAK"])

    assert sets.sum(1).tolist() == [1, 1, 0, 1]
    assert (sets @ sets.T).toarray()[0].tolist() == [1, 1, 0, 1]


def test_different_five_mers_have_different_columns():
    neighbours = ["MKTAY", "YATKM", "MKTAV", "KMTAY", "AAAAA", "YYYYY"]

    assert (kmer_sets(neighbours).sum(0) <= 1).all()


# Nearest


def test_the_nearest_reference_of_a_protein_is_itself(proteins):
    numbers, similarities = nearest(proteins, proteins)

    assert numbers.tolist() == list(range(len(proteins)))
    assert similarities.tolist() == [1.0] * len(proteins)


def test_the_first_of_two_copies_is_the_nearest(proteins):
    numbers, similarities = nearest([proteins[3]], [*proteins[:5], *proteins[:5]])

    assert (numbers.tolist(), similarities.tolist()) == ([3], [1.0])


def test_a_fragment_has_similarity_one_to_its_protein(long_proteins):
    fragments = [protein[20:60] for protein in long_proteins]

    numbers, similarities = nearest(fragments, long_proteins)

    assert numbers.tolist() == list(range(len(long_proteins)))
    assert similarities == pytest.approx(1)
    assert nearest(long_proteins, fragments)[1] == pytest.approx(1)


def test_unrelated_proteins_are_not_similar(proteins):
    for row, protein in enumerate(proteins):
        assert nearest([protein], [*proteins[:row], *proteins[row + 1 :]])[1][0] < 0.2


def test_a_shuffled_protein_has_similarity_zero_to_the_original(long_proteins):
    rng = np.random.default_rng(0)

    assert all(similarity_of("".join(rng.permutation(list(protein))), protein) == 0 for protein in long_proteins)


def test_similarity_decreases_with_the_number_of_mutations(long_proteins, mutate):
    fractions = (0.0, 0.1, 0.2, 0.3, 0.6)
    means = [
        np.mean([similarity_of(mutate(protein, fraction, seed), protein) for seed, protein in enumerate(long_proteins)])
        for fraction in fractions
    ]

    assert means[0] == 1
    assert all(before - after > 0.05 for before, after in zip(means, means[1:], strict=False))


@pytest.mark.parametrize("identity", [0.9, 0.7])
def test_similarity_estimates_the_fraction_of_identical_residues(proteins, mutate, identity):
    # At 70 % identity, short proteins have too few common 5-mers.
    originals = [protein for protein in proteins if len(protein) >= 200]
    estimates = [
        similarity_of(mutate(protein, 1 - identity, seed), protein) for protein in originals for seed in range(5)
    ]

    assert estimates == pytest.approx([identity] * len(estimates), abs=0.06)


def test_similarity_is_symmetric(proteins, mutate):
    for seed, protein in enumerate(proteins):
        relative = mutate(protein, 0.15, seed)[5:]
        assert similarity_of(protein, relative) == pytest.approx(similarity_of(relative, protein))


def test_sequences_without_a_five_mer_are_similar_only_to_copies(proteins):
    numbers, similarities = nearest(["MKT", "MKTA", "M"], [*proteins, "MKT"])

    assert similarities.tolist() == [1.0, 0.0, 0.0]
    assert numbers[0] == len(proteins)


def test_unknown_residues_are_not_similar(proteins):
    assert similarity_of("X" * 50, "X" * 60) == 0
    assert similarity_of("X" * 50, "X" * 50) == 1
    assert similarity_of(f"{proteins[0]}{'X' * 50}", proteins[0]) == pytest.approx(1)


def test_no_queries_give_no_results(proteins):
    numbers, similarities = nearest([], proteins)

    assert (len(numbers), len(similarities)) == (0, 0)


# Clusters


@pytest.fixture(scope="module")
def families(proteins, mutate):
    """Twelve proteins, each with four shorter sequences that are 90 % identical to it."""
    originals = [protein for protein in proteins if len(protein) > 40][:12]  # peptides have too few 5-mers
    return [[protein, *(mutate(protein, 0.1, seed)[1:] for seed in range(4))] for protein in originals]


def test_mutated_copies_are_in_the_cluster_of_their_original(families):
    members = [member for family in families for member in family]

    assert greedy_clusters(members, 0.5) == [family[0] for family in families for _ in family]


def test_unrelated_proteins_are_in_separate_clusters(proteins):
    assert greedy_clusters(proteins, 0.5) == proteins


def test_the_longest_sequence_represents_a_cluster_or_the_first_alphabetically(proteins, mutate):
    protein = max(proteins, key=len)
    relative = mutate(protein, 0.05)

    assert greedy_clusters([protein[50:200], protein, protein[10:]], 0.5) == [protein] * 3
    assert greedy_clusters([protein, relative], 0.5) == [min(protein, relative)] * 2


def test_every_representative_represents_itself(families):
    members = [member for family in families for member in family]
    representative_of = dict(zip(members, greedy_clusters(members, 0.88), strict=True))

    assert all(representative_of[representative] == representative for representative in representative_of.values())
    assert len(families) < len(set(representative_of.values())) < len(members)


def test_clusters_do_not_depend_on_the_order_of_sequences(families):
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


def test_copies_are_in_one_cluster(families):
    members = [*families[0], *families[1]]

    assert greedy_clusters(members * 2, 0.5) == greedy_clusters(members, 0.5) * 2


def test_the_minimum_similarity_decides_whether_sequences_share_a_cluster(long_proteins, mutate):
    pairs = [protein for original in long_proteins for protein in (original, mutate(original, 0.25))]

    sizes = {minimum: Counter(greedy_clusters(pairs, minimum)) for minimum in (0.5, 0.95)}

    assert set(sizes[0.5].values()) == {2}
    assert set(sizes[0.95].values()) == {1}


def test_clusters_of_short_sequences_hold_only_copies():
    assert greedy_clusters(["MKT", "MKTA", "MKT", "X"], 0.5) == ["MKT", "MKTA", "MKT", "X"]
