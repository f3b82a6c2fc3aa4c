import json

import numpy as np
import pytest
from Bio.Align import substitution_matrices

from protembed.data.alphabet import AMINO_ACIDS, NUM_AMINO_ACIDS
from protembed.pretraining.amino_acids import AminoAcidPredictions, similarity_to_blosum62

LEUCINE, ALANINE, GLYCINE = (AMINO_ACIDS.index(letter) for letter in "LAG")


def predictions_of(targets, probabilities):
    predictions = AminoAcidPredictions.zero()
    predictions.add(np.array(targets), np.log(np.array(probabilities, np.float32)))
    return predictions


def sharp(letter, probability=0.81):
    """Probabilities that favour one amino acid."""
    rest = (1 - probability) / (NUM_AMINO_ACIDS - 1)
    return [probability if name == letter else rest for name in AMINO_ACIDS]


def test_predictions_are_counted_by_the_amino_acid_that_was_masked():
    predictions = predictions_of([LEUCINE, LEUCINE, ALANINE], [sharp("L"), sharp("A"), sharp("A")])

    assert predictions.num_masked[[LEUCINE, ALANINE, GLYCINE]].tolist() == [2, 1, 0]
    assert predictions.counts[LEUCINE, [LEUCINE, ALANINE]].tolist() == [1, 1]
    assert predictions.losses[LEUCINE] == pytest.approx(-np.log(0.81) - np.log(0.01))
    assert predictions.accuracy == pytest.approx(2 / 3)
    assert predictions.most_frequent == ("L", pytest.approx(2 / 3))


def test_mean_probabilities_add_up_to_one_and_are_unknown_of_what_was_never_masked():
    means = predictions_of([LEUCINE, LEUCINE], [sharp("L"), sharp("A")]).mean_probabilities()

    assert means[LEUCINE].sum() == pytest.approx(1)
    assert means[LEUCINE, LEUCINE] == pytest.approx((0.81 + 0.01) / 2)
    assert np.isnan(means[GLYCINE]).all()


def test_predictions_added_in_two_parts_equal_those_of_the_whole():
    rng = np.random.default_rng(0)
    targets, probabilities = rng.integers(20, size=50), rng.dirichlet(np.ones(20), size=50)
    whole, parts = predictions_of(targets, probabilities), predictions_of(targets[:20], probabilities[:20])

    parts.add(targets[20:], np.log(probabilities[20:].astype(np.float32)))

    assert parts.counts.tolist() == whole.counts.tolist()
    assert parts.losses == pytest.approx(whole.losses)
    assert parts.probabilities == pytest.approx(whole.probabilities)


def test_predictions_survive_json():
    predictions = predictions_of([LEUCINE, GLYCINE], [sharp("L"), sharp("C")])

    again = AminoAcidPredictions.from_plain(json.loads(json.dumps(predictions.plain())))

    assert again.plain() == predictions.plain()
    assert again.metrics() == predictions.metrics()


def test_log_odds_are_zero_for_a_model_that_ignores_the_context():
    composition = np.linspace(1, 3, 20) / np.linspace(1, 3, 20).sum()

    odds = predictions_of(range(20), [composition] * 20).log_odds()

    assert odds == pytest.approx(0, abs=1e-6)


def test_log_odds_are_one_bit_where_a_prediction_is_twice_as_probable_as_elsewhere():
    probabilities = [sharp("L", 0.2), sharp("L", 0.1), sharp("L", 0.0)]

    odds = predictions_of([LEUCINE, ALANINE, GLYCINE], np.maximum(probabilities, 1e-30)).log_odds()

    assert odds[LEUCINE, LEUCINE] == pytest.approx(1, abs=1e-5)
    assert odds[ALANINE, LEUCINE] == pytest.approx(0, abs=1e-5)
    assert np.isnan(odds[AMINO_ACIDS.index("C")]).all()


def test_a_prediction_with_a_probability_of_zero_has_no_log_odds():
    certain = np.zeros((1, 20), np.float32)
    certain[0, LEUCINE] = 1
    predictions = AminoAcidPredictions.zero()
    with np.errstate(divide="ignore"):
        predictions.add(np.array([LEUCINE]), np.log(certain))

    odds = predictions.log_odds()

    assert odds[LEUCINE, LEUCINE] == 0
    assert np.isnan(odds[LEUCINE, ALANINE])


def test_log_odds_equal_to_blosum62_correlate_with_it_perfectly_and_opposite_ones_do_not():
    blosum = substitution_matrices.load("BLOSUM62")
    scores = np.array([[blosum[row][column] for column in AMINO_ACIDS] for row in AMINO_ACIDS])

    assert similarity_to_blosum62(scores / 2) == pytest.approx(1)
    assert similarity_to_blosum62(-scores) == pytest.approx(-1)
    assert similarity_to_blosum62(np.zeros((20, 20))) is None
    assert similarity_to_blosum62(np.full((20, 20), np.nan)) is None


def test_the_rows_of_the_table_name_both_amino_acids():
    rows = list(predictions_of([LEUCINE], [sharp("A")]).rows())

    assert len(rows) == 400
    assert rows[1] == ("L", "A", 1, pytest.approx(0.81))
    assert rows[-1] == ("C", "C", 0, None)
