from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, confusion_matrix, precision_recall_fscore_support

from protembed.finetuning.analysis import Analysis
from protembed.finetuning.class_results import Confusion, class_results

RNG = np.random.default_rng(0)
CLASSES = ["H", "E", "C", "never"]
TRUTH = RNG.choice(3, size=200, p=[0.62, 0.35, 0.03])
PREDICTED = np.where(RNG.random(200) < 0.7, TRUTH, RNG.integers(3, size=200))


@pytest.fixture(scope="module")
def classified(make_evaluation):
    """Two hundred proteins of three classes, most of them predicted well, and a class that never occurs."""
    training = [SimpleNamespace(label=name) for name in ["H", "H", "E", "never"]]
    return make_evaluation(
        "classification", list(map(np.array, TRUTH)), list(np.eye(4)[PREDICTED]), CLASSES, training=training
    )


def test_precision_recall_and_f1_of_each_class_are_those_of_scikit_learn(classified):
    results = {result.name: result for result in class_results(classified)}

    expected = precision_recall_fscore_support(TRUTH, PREDICTED, labels=[0, 1, 2])
    for name, precision, recall, f1, support in zip("HEC", *expected, strict=True):
        result = results[name]
        assert (result.precision.value, result.recall.value, result.f1.value) == pytest.approx((precision, recall, f1))
        assert result.num_tested == support
        assert result.num_predicted == (PREDICTED == CLASSES.index(name)).sum()


def test_classes_are_listed_by_the_number_of_their_test_proteins(classified):
    results = class_results(classified)

    assert [result.name for result in results] == ["H", "E", "C", "never"]
    assert [result.num_training for result in results] == [2, 1, 0, 1]


def test_a_class_that_is_neither_true_nor_predicted_has_no_metrics(classified):
    result = class_results(classified)[-1]

    assert {result.precision.value, result.recall.value, result.f1.value} == {None}


def test_metrics_of_a_class_have_intervals_if_they_concern_ten_proteins(classified):
    results = {result.name: result for result in class_results(classified)}

    assert results["H"].recall.low < results["H"].recall.value < results["H"].recall.high
    assert results["H"].f1.low < results["H"].f1.value < results["H"].f1.high
    assert results["C"].num_tested < 10 < results["C"].num_predicted
    assert results["C"].recall.low is None
    assert results["C"].precision.low is not None


def test_recall_of_ten_right_proteins_has_a_score_interval(make_evaluation):
    truth = [np.array(number % 2) for number in range(20)]

    results = class_results(make_evaluation("classification", truth, list(np.eye(2)[np.array(truth)]), ["a", "b"]))

    assert [round(result.recall.low, 3) for result in results] == [0.722, 0.722]


def test_precision_of_a_label_follows_the_threshold_of_the_head(make_evaluation):
    truth = (RNG.random((60, 2)) < 0.4).astype(np.float32)
    probabilities = 0.3 * truth + 0.5 * RNG.random((60, 2))
    evaluation = make_evaluation("multilabel", list(truth), list(probabilities), ["a", "b"], threshold=0.6)

    results = {result.name: result for result in class_results(evaluation)}

    for number, name in enumerate("ab"):
        predicted = probabilities[:, number] >= 0.6
        assert results[name].num_predicted == predicted.sum()
        assert results[name].precision.value == pytest.approx(truth[predicted, number].mean())
        auprc = average_precision_score(truth[:, number], probabilities[:, number])
        assert results[name].auprc.value == pytest.approx(auprc)
        assert results[name].auprc.low < auprc < results[name].auprc.high


def test_residues_are_counted_and_proteins_resampled(make_evaluation):
    truth = [np.array([0, 0, 1, -1]) for _ in range(12)]
    predicted = [np.eye(2)[[0, number % 2, 1, 1]] for number in range(12)]

    first, second = class_results(make_evaluation("residue-classification", truth, predicted, ["H", "E"]))

    assert (first.name, first.num_tested, first.num_predicted) == ("H", 24, 18)
    assert first.recall.value == pytest.approx(0.75)
    assert first.recall.low < 0.75 < first.recall.high
    assert second.precision.value == pytest.approx(12 / 18)
    assert first.auprc is None


def test_values_have_no_classes(make_evaluation):
    values = list(map(np.array, [0.0, 1.0]))

    assert class_results(make_evaluation("regression", values, values)) == []
    assert Confusion.from_evaluation(make_evaluation("regression", values, values)) is None


# Confusion


def test_the_confusion_matrix_lists_the_largest_class_first(classified):
    confusion = Confusion.from_evaluation(classified)

    assert confusion.classes == ["H", "E", "C", "never"]
    assert confusion.counts.tolist() == confusion_matrix(TRUTH, PREDICTED, labels=range(4)).tolist()


def test_rare_classes_are_joined_in_a_large_confusion_matrix(classified):
    whole = Confusion.from_evaluation(classified)

    joined = whole.largest(3)

    assert joined.classes == ["H", "E", "all others"]
    assert joined.counts[:2, :2].tolist() == whole.counts[:2, :2].tolist()
    assert joined.counts[2, 2] == whole.counts[2:, 2:].sum()
    assert joined.counts.sum() == 200
    assert whole.largest(4) is whole


def test_a_recorded_confusion_matrix_has_a_hundred_classes_at_most(make_evaluation):
    truth = list(map(np.array, range(150)))
    evaluation = make_evaluation(
        "classification", truth, list(np.eye(150)), [f"class {number}" for number in range(150)]
    )

    recorded = Analysis.from_evaluation(evaluation).as_plain_values()["confusion_matrix"]

    assert recorded["classes"][-1] == "all others"
    assert np.shape(recorded["counts"]) == (100, 100)


def test_the_most_frequent_error_is_named_with_its_count(classified, make_evaluation):
    true, predicted, count = Confusion.from_evaluation(classified).most_frequent_error()

    assert true != predicted
    assert count == ((TRUTH == CLASSES.index(true)) & (PREDICTED == CLASSES.index(predicted))).sum()
    right = make_evaluation("classification", [np.array(0)], [np.array([0.9, 0.1])], ["a", "b"])
    assert Confusion.from_evaluation(right).most_frequent_error() is None
