import numpy as np
import pytest

from protembed.data.alphabet import AMINO_ACIDS
from protembed.finetuning.baselines import composition, kmer_vectorizer, one_hot_window


def test_composition_is_the_fraction_of_each_amino_acid_among_all_residues():
    fractions = composition(["AAACX", "WYB"])

    expected = np.zeros((2, 20))
    expected[0, [AMINO_ACIDS.index("A"), AMINO_ACIDS.index("C")]] = [3 / 5, 1 / 5]
    expected[1, [AMINO_ACIDS.index("W"), AMINO_ACIDS.index("Y")]] = 1 / 3
    assert fractions == pytest.approx(expected)
    assert fractions.dtype == np.float32


def test_composition_of_unknown_residues_is_zero():
    assert composition(["XXX"]).tolist() == [[0.0] * 20]


def test_kmers_of_one_to_three_residues_are_counted_and_rare_ones_weigh_more():
    vectorizer = kmer_vectorizer(["MKMK", "MA"])
    columns = vectorizer.vocabulary_

    counts = vectorizer.transform(["MKMK"]).toarray()[0]

    assert set(columns) == {"M", "K", "A", "MK", "KM", "MA", "MKM", "KMK"}
    # scikit-learn adds a sequence with all k-mers: two of three have a rare one, all have a usual one. Two occurrences
    # count 1 + log 2.
    rare, usual = np.log(3 / 2) + 1, np.log(3 / 3) + 1
    expected = {
        **{"M": usual * (1 + np.log(2)), "K": rare * (1 + np.log(2)), "MK": rare * (1 + np.log(2))},
        **{"KM": rare, "MKM": rare, "KMK": rare, "A": 0.0, "MA": 0.0},
    }
    length = np.linalg.norm(list(expected.values()))
    assert {name: counts[column] for name, column in columns.items()} == pytest.approx(
        {name: value / length for name, value in expected.items()}
    )


def test_kmers_that_occur_in_no_training_sequence_are_not_counted():
    assert kmer_vectorizer(["MKMK"]).transform(["WWW", "WMW"]).toarray().sum(1).tolist() == [0.0, 1.0]


def window_by_hand(sequence, index):
    ones = np.zeros((15, 22))
    for position in range(15):
        neighbour = index - 7 + position
        if not 0 <= neighbour < len(sequence):
            ones[position, 21] = 1
        elif sequence[neighbour] in AMINO_ACIDS:
            ones[position, AMINO_ACIDS.index(sequence[neighbour])] = 1
        else:
            ones[position, 20] = 1
    return ones.ravel()


@pytest.mark.parametrize("sequence", ["M", "MKXWB", "ACDEFGHIKLMNPQRSTVWYU"])
def test_a_window_holds_a_residue_and_seven_on_each_side(sequence):
    indices = np.arange(len(sequence))[::-1]

    windows = one_hot_window(sequence, indices)

    assert windows.shape == (len(sequence), 15 * 22)
    assert windows.toarray().tolist() == [window_by_hand(sequence, index).tolist() for index in indices]


def test_no_residues_have_no_windows(proteins):
    assert one_hot_window(proteins[0], np.array([], np.int64)).shape == (0, 15 * 22)
