import numpy as np
import pytest

from protembed.metrics import (
    bootstrap_interval,
    classification_metrics,
    majority_probabilities,
    mean_values,
    regression_metrics,
)


def certain(*classes, num_classes=2):
    return np.eye(num_classes)[list(classes)]


# Classification


def test_two_classes_by_hand():
    truth = np.array([0, 0, 0, 1, 1, 1])
    probability = np.array([0.1, 0.4, 0.6, 0.3, 0.7, 0.9])

    measured = classification_metrics(truth, np.stack([1 - probability, probability], axis=1))

    # Two of three right in each class; the pairs ranked wrong are 0.4 over 0.3 and 0.6 over 0.3.
    assert measured == pytest.approx({"accuracy": 4 / 6, "macro_f1": 2 / 3, "mcc": 1 / 3, "auroc": 7 / 9})


def test_three_classes_by_hand():
    truth = np.array([0, 0, 1, 1, 2, 2])

    measured = classification_metrics(truth, certain(0, 0, 1, 2, 2, 2, num_classes=3))

    # Class 1 has precision 1 and recall 1/2, class 2 the opposite way 2/3 and 1.
    assert measured["accuracy"] == pytest.approx(5 / 6)
    assert measured["macro_f1"] == pytest.approx((1 + 2 / 3 + 4 / 5) / 3)
    assert measured["auroc"] == pytest.approx((1 + 3 / 4 + 7 / 8) / 3)


def test_a_perfect_classifier_and_its_opposite():
    truth = np.array([0, 1, 0, 1])

    assert set(classification_metrics(truth, certain(0, 1, 0, 1)).values()) == {1.0}
    assert classification_metrics(truth, certain(1, 0, 1, 0)) == {"accuracy": 0, "macro_f1": 0, "mcc": -1, "auroc": 0}


@pytest.mark.parametrize(("truth", "predicted"), [([0, 0], [0, 0]), ([0, 0], [0, 1]), ([1], [1]), ([1], [0])])
def test_a_test_part_of_one_class_has_no_auroc(truth, predicted):
    measured = classification_metrics(np.array(truth), certain(*predicted))

    assert measured["auroc"] is None
    assert measured["accuracy"] == np.mean(np.array(truth) == predicted)


def test_a_class_that_the_test_part_lacks_leaves_auroc_undefined():
    measured = classification_metrics(np.array([0, 1, 1]), certain(0, 1, 2, num_classes=3))

    assert measured["auroc"] is None
    assert measured["macro_f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)


# Regression


def test_values_by_hand():
    measured = regression_metrics(np.array([1.0, 2, 3, 4]), np.array([1.0, 2, 4, 3]))

    assert measured == pytest.approx({"spearman": 0.8, "rmse": 0.5**0.5, "mse": 0.5, "r2": 1 - 2 / 5})


def test_ranks_alone_count_for_spearman_and_units_for_the_others():
    measured = regression_metrics(np.array([1.0, 2, 3]), np.array([10.0, 20, 1000]))

    assert measured["spearman"] == pytest.approx(1)
    assert measured["mse"] == pytest.approx((9**2 + 18**2 + 997**2) / 3)
    assert measured["r2"] < 0


def test_the_mean_explains_nothing():
    assert regression_metrics(np.array([1.0, 2, 3]), np.full(3, 2.0)) == pytest.approx(
        {"spearman": None, "rmse": (2 / 3) ** 0.5, "mse": 2 / 3, "r2": 0}
    )


@pytest.mark.parametrize("truth", [[3.0], [3.0, 3.0]])
def test_constant_labels_have_neither_a_correlation_nor_a_share_explained(truth):
    measured = regression_metrics(np.array(truth), np.arange(len(truth)) + 2.0)

    assert (measured["spearman"], measured["r2"]) == (None, None)
    assert measured["mse"] == pytest.approx(1.0 if len(truth) == 1 else 0.5)


# Trivial predictors


def test_the_majority_predicts_the_training_shares_for_everyone():
    assert majority_probabilities(np.array([0, 2, 2, 2]), 4, 2).tolist() == [[0.25, 0, 0.75, 0]] * 2


def test_the_mean_is_predicted_for_everyone():
    assert mean_values(np.array([1.0, 2, 6]), 2).tolist() == [3.0, 3.0]


# Intervals


def test_a_bootstrap_interval_is_as_wide_as_theory_has_it():
    values = np.random.default_rng(0).normal(size=400)

    low, high = bootstrap_interval(lambda rows: values[rows].mean(), len(values))

    standard_error = values.std() / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - 1.96 * standard_error, abs=0.15 * standard_error)
    assert high == pytest.approx(values.mean() + 1.96 * standard_error, abs=0.15 * standard_error)


def test_figures_with_one_seed_are_resampled_alike():
    values = np.arange(10.0)
    one, other = (bootstrap_interval(lambda rows: values[rows].mean(), 10, seed=seed) for seed in (3, 3))

    assert one == other
    assert one != bootstrap_interval(lambda rows: values[rows].mean(), 10, seed=4)
