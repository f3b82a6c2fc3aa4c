import tracemalloc
from itertools import combinations_with_replacement

import numpy as np
import pytest

from protembed.evaluation.intervals import jackknife
from protembed.evaluation.metrics import (
    classification_measure,
    multilabel_measure,
    point_metrics,
    regression_measure,
    residue_classification_measure,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def assert_equals_metrics_of_repeated_rows(resampled, measure, draws):
    """Assert that resampled metrics equal those that `measure` computes on the drawn rows; NaN where it gives None."""
    measured = resampled(draws)
    expected = [measure(np.repeat(np.arange(draws.shape[1]), drawn.astype(int))) for drawn in draws]
    assert {len(values) for values in measured.values()} == {len(draws)}
    for name in expected[0]:
        values = np.array([np.nan if one[name] is None else one[name] for one in expected])
        np.testing.assert_allclose(measured[name], values, atol=1e-9, err_msg=name)
    assert measured.keys() == expected[0].keys()


def random_draws(rng, num_units):
    draws = rng.multinomial(num_units, np.full(num_units, 1 / num_units), size=40).astype(float)
    draws[0] = 1
    return draws


def all_draws(num_units):
    """Enumerate all ways to draw as many units as there are, as rows of counts."""
    chosen = combinations_with_replacement(range(num_units), num_units)
    return np.stack([np.bincount(rows, minlength=num_units) for rows in chosen]).astype(float)


# Classes


@pytest.mark.parametrize("num_classes", [2, 4])
def test_classification_metrics_of_draws_equal_those_of_repeated_proteins(rng, num_classes):
    truth = rng.integers(num_classes, size=60)
    # Few distinct scores, so that many are equal.
    scores = rng.integers(1, 5, size=(60, num_classes)) + 2.0 * np.eye(num_classes)[truth]
    probabilities = scores / scores.sum(1, keepdims=True)

    assert_equals_metrics_of_repeated_rows(
        classification_measure(truth, probabilities),
        lambda rows: point_metrics(classification_measure(truth[rows], probabilities[rows]), len(rows)),
        random_draws(rng, 60),
    )


@pytest.mark.parametrize("num_classes", [2, 3])
def test_draws_without_a_class_have_no_auroc_and_draws_of_one_class_no_mcc(num_classes):
    truth = np.array([0, 1, 1, num_classes - 1])
    probabilities = np.array([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [0.5, 0.3, 0.2], [0.1, 0.3, 0.6]])[:, :num_classes]
    probabilities /= probabilities.sum(1, keepdims=True)
    resampled = classification_measure(truth, probabilities)

    assert_equals_metrics_of_repeated_rows(
        resampled,
        lambda rows: point_metrics(classification_measure(truth[rows], probabilities[rows]), len(rows)),
        all_draws(4),
    )

    measured = resampled(all_draws(4))
    assert 0 < np.isnan(measured["mcc"]).sum() < np.isnan(measured["auroc"]).sum() < 35


# Residues


def residue_indices(owners, rows):
    return np.concatenate([np.flatnonzero(owners == row) for row in rows])


def test_classified_residues_of_a_protein_are_drawn_together(rng):
    owners = np.repeat(np.arange(12), rng.integers(3, 30, size=12))
    truth = rng.integers(3, size=len(owners))
    probabilities = rng.dirichlet(np.ones(3), size=len(owners)) + np.eye(3)[truth] * 0.3
    by_protein = [[part[owners == protein] for protein in range(12)] for part in (truth, probabilities)]

    def measure(rows):
        drawn = residue_indices(owners, rows)
        return point_metrics(residue_classification_measure([truth[drawn]], [probabilities[drawn]]), 1)

    assert_equals_metrics_of_repeated_rows(residue_classification_measure(*by_protein), measure, random_draws(rng, 12))


def test_values_of_the_residues_of_a_protein_are_drawn_together(rng):
    owners = np.repeat(np.arange(9), rng.integers(3, 30, size=9))
    truth = np.round(rng.random(len(owners)), 1)
    predicted = np.round(truth + 0.5 * rng.random(len(owners)), 1)

    def measure(rows):
        drawn = residue_indices(owners, rows)
        return point_metrics(regression_measure(truth[drawn], predicted[drawn]), len(drawn))

    assert_equals_metrics_of_repeated_rows(regression_measure(truth, predicted, owners), measure, random_draws(rng, 9))


def test_metrics_are_undefined_in_draws_of_unlabelled_proteins_only():
    nothing, draws = np.zeros((0, 2)), np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 2.0]])
    known = np.array([[0.8, 0.2], [0.3, 0.7]])
    classes = residue_classification_measure([np.array([0, 1]), np.array([], np.int64)], [known, nothing])
    values = regression_measure(np.array([1.0, 2.0]), np.array([1.0, 3.0]), np.array([0, 0]))

    for resampled in (classes(draws), values(draws)):
        for name, measured in resampled.items():
            assert np.isnan(measured).tolist() == [False, False, True], name


def test_resamples_of_many_residues_are_processed_in_blocks(rng):
    owners = np.repeat(np.arange(20), 1000)
    truth = rng.random(len(owners))
    measure = regression_measure(truth, truth + rng.random(len(owners)), owners)

    tracemalloc.start()
    jackknife(measure, 20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    # A thousand resamples of the residues are 160 MB, and a metric needs several such arrays.
    assert peak < 300e6


# Labels


def test_multilabel_metrics_of_draws_equal_those_of_repeated_proteins(rng):
    # Some labels are so rare that many draws lack them.
    truth = (rng.random((80, 5)) < [0.02, 0.05, 0.1, 0.3, 0.6]).astype(float)
    probabilities = np.round(0.7 * rng.random((80, 5)) + 0.3 * truth, 2)

    assert_equals_metrics_of_repeated_rows(
        multilabel_measure(truth, probabilities),
        lambda rows: point_metrics(multilabel_measure(truth[rows], probabilities[rows]), len(rows)),
        random_draws(rng, 80),
    )


def test_multilabel_metrics_are_undefined_in_draws_without_labels():
    truth = np.array([[0, 0], [0, 1.0], [0, 0]])
    probabilities = np.array([[0.3, 0.2], [0.2, 0.7], [0.004, 0.0]])
    resampled = multilabel_measure(truth, probabilities)

    assert_equals_metrics_of_repeated_rows(
        resampled,
        lambda rows: point_metrics(multilabel_measure(truth[rows], probabilities[rows]), len(rows)),
        all_draws(3),
    )

    assert np.isnan(resampled(np.array([[2.0, 0, 1]]))["fmax"]).all()


# Values


@pytest.mark.parametrize("decimals", [1, 9])
def test_regression_metrics_of_draws_equal_those_of_repeated_values(rng, decimals):
    truth = np.round(rng.random(50), decimals)
    predicted = np.round(truth + rng.random(50), decimals)

    assert_equals_metrics_of_repeated_rows(
        regression_measure(truth, predicted),
        lambda rows: point_metrics(regression_measure(truth[rows], predicted[rows]), len(rows)),
        random_draws(rng, 50),
    )


@pytest.mark.parametrize("truth", [[1.0, 2.0, 4.0], [0.1, 0.3, 0.7], [1e6 + 0.1, 1e6 + 0.2, 1e6 + 0.2]])
def test_draws_of_one_value_have_neither_spearman_nor_r2(truth):
    truth, predicted = np.array(truth), np.array([0.2, 0.2, 0.6])

    assert_equals_metrics_of_repeated_rows(
        regression_measure(truth, predicted),
        lambda rows: point_metrics(regression_measure(truth[rows], predicted[rows]), len(rows)),
        all_draws(3),
    )
