import json
import math

import numpy as np
import pytest

from protembed.finetuning.evaluation import Relatives
from protembed.finetuning.worst_predictions import worst_predictions


def test_wrong_classes_are_sorted_by_the_probability_of_the_right_one(make_evaluation):
    truth = list(map(np.array, [0, 0, 1, 1]))
    predicted = [np.array(pair) for pair in ([0.9, 0.1], [0.4, 0.6], [0.99, 0.01], [0.2, 0.8])]

    first, second = worst_predictions(make_evaluation("classification", truth, predicted, ["a", "b"]))

    assert (first["id"], first["label"], first["predicted"]) == ("p2", "b", "a")
    assert (first["p_label"], first["p_predicted"]) == (0.01, 0.99)
    assert (second["id"], second["num_residues"]) == ("p1", 51)


def test_the_nearest_training_protein_of_a_wrong_prediction_is_named(make_evaluation):
    relatives = Relatives(similarities=np.array([0.5, 0.0]), neighbours=["P12345", ""])
    evaluation = make_evaluation(
        "regression", [np.array(0.0)] * 2, [np.array(2.0), np.array(-1.0)], relatives=relatives
    )

    first, second = worst_predictions(evaluation)

    assert (first["similarity"], first["nearest_training_protein"]) == (0.5, "P12345")
    assert (second["similarity"], second["nearest_training_protein"]) == (0.0, "")


def test_values_are_sorted_by_the_size_of_their_error(make_evaluation):
    truth, predicted = ([np.array(value) for value in values] for values in ([1.0, 2.0, 3.0], [1.5, 0.0, 3.0]))

    wrong = worst_predictions(make_evaluation("regression", truth, predicted))

    assert [(row["id"], row["error"]) for row in wrong] == [("p1", -2.0), ("p0", 0.5)]


def test_missed_and_added_labels_have_their_probabilities(make_evaluation):
    truth = [np.array([1, 0, 0], np.float32)] * 3
    predicted = [np.array(row) for row in ([0.9, 0.6, 0.1], [0.1, 0.9, 0.9], [0.9, 0.1, 0.1])]

    first, second = worst_predictions(make_evaluation("multilabel", truth, predicted, ["a", "b", "c"]))

    assert (first["id"], first["missed"], first["added"]) == ("p1", {"a": 0.1}, {"b": 0.9, "c": 0.9})
    assert (second["id"], second["missed"], second["added"]) == ("p0", {}, {"b": 0.6})


def test_a_label_of_probability_zero_that_is_true_has_a_finite_loss(make_evaluation):
    evaluation = make_evaluation("multilabel", [np.array([1.0])], [np.array([0.0])], ["a"])

    assert len(worst_predictions(evaluation)) == 1


def test_residues_are_counted_by_protein_without_those_that_have_no_label(make_evaluation):
    truth = [np.array([0, 0, 1, -1]), np.array([-1, -1]), np.array([0, 0, 0, 0])]
    predicted = [np.eye(2)[[0, 1, 1, 0]], np.eye(2)[[0, 1]], np.eye(2)[[1, 1, 0, 0]]]

    first, second = worst_predictions(make_evaluation("residue-classification", truth, predicted, ["H", "E"]))

    assert (first["id"], first["num_wrong"], first["num_labelled"], first["accuracy"]) == ("p2", 2, 4, 0.5)
    assert first["top_confusion"] == {"label": "H", "predicted": "E", "count": 2}
    assert (second["id"], second["num_wrong"], second["num_labelled"]) == ("p0", 1, 3)


def test_values_of_residues_are_sorted_by_the_error_of_their_protein(make_evaluation):
    truth = [np.array([0.0, math.nan]), np.array([math.nan]), np.array([1.0, 1.0])]
    predicted = [np.array([3.0, 9.0]), np.array([1.0]), np.array([2.0, 2.0])]

    wrong = worst_predictions(make_evaluation("residue-regression", truth, predicted))

    assert [(row["id"], row["rmse"], row["num_labelled"]) for row in wrong] == [("p0", 3.0, 1), ("p2", 1.0, 2)]


@pytest.mark.parametrize("num_proteins", [3, 50])
def test_at_most_twenty_proteins_are_listed(make_evaluation, num_proteins):
    values = list(map(np.array, np.arange(float(num_proteins))))

    wrong = worst_predictions(make_evaluation("regression", values, [np.array(-1.0)] * num_proteins))

    assert len(wrong) == min(num_proteins, 20)
    assert wrong[0]["id"] == f"p{num_proteins - 1}"
    json.dumps(wrong, allow_nan=False)
