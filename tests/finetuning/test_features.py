import numpy as np
import pytest

from protembed.data.alphabet import AMINO_ACIDS
from protembed.finetuning.baselines import composition, kmer_vectorizer, one_hot_window


def test_the_composition_is_the_share_of_each_amino_acid_among_all_residues():
    shares = composition(["AAACX", "WYB"])

    expected = np.zeros((2, 20))
    expected[0, [AMINO_ACIDS.index("A"), AMINO_ACIDS.index("C")]] = [3 / 5, 1 / 5]
    expected[1, [AMINO_ACIDS.index("W"), AMINO_ACIDS.index("Y")]] = 1 / 3
    assert shares == pytest.approx(expected)
    assert shares.dtype == np.float32


def test_a_sequence_of_nothing_known_has_an_empty_composition():
    assert composition(["XXX"]).tolist() == [[0.0] * 20]


def test_runs_of_one_to_three_residues_are_counted_and_rare_ones_weigh_more():
    counter = kmer_vectorizer(["MKMK", "MA"])
    columns = counter.vocabulary_

    counts = counter.transform(["MKMK"]).toarray()[0]

    assert set(columns) == {"M", "K", "A", "MK", "KM", "MA", "MKM", "KMK"}
    # Two of three sequences (one is thought of as having everything) and both; twice each is 1 + log 2.
    rare, usual = np.log(3 / 2) + 1, np.log(3 / 3) + 1
    expected = {
        **{"M": usual * (1 + np.log(2)), "K": rare * (1 + np.log(2)), "MK": rare * (1 + np.log(2))},
        **{"KM": rare, "MKM": rare, "KMK": rare, "A": 0.0, "MA": 0.0},
    }
    length = np.linalg.norm(list(expected.values()))
    assert {name: counts[column] for name, column in columns.items()} == pytest.approx(
        {name: value / length for name, value in expected.items()}
    )


def test_what_no_training_sequence_has_is_not_counted():
    assert kmer_vectorizer(["MKMK"]).transform(["WWW", "WMW"]).toarray().sum(1).tolist() == [0.0, 1.0]


def letters_by_hand(sequence, place):
    ones = np.zeros((15, 22))
    for position in range(15):
        at = place - 7 + position
        if not 0 <= at < len(sequence):
            ones[position, 21] = 1
        elif sequence[at] in AMINO_ACIDS:
            ones[position, AMINO_ACIDS.index(sequence[at])] = 1
        else:
            ones[position, 20] = 1
    return ones.ravel()


@pytest.mark.parametrize("sequence", ["M", "MKXWB", "ACDEFGHIKLMNPQRSTVWYU"])
def test_the_letters_around_a_residue_are_seven_on_each_side_and_itself(sequence):
    places = np.arange(len(sequence))[::-1]

    letters = one_hot_window(sequence, places)

    assert letters.shape == (len(sequence), 15 * 22)
    assert letters.toarray().tolist() == [letters_by_hand(sequence, place).tolist() for place in places]


def test_no_residue_has_no_letters(proteins):
    assert one_hot_window(proteins[0], np.array([], np.int64)).shape == (0, 15 * 22)
