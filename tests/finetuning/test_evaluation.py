import math

import numpy as np
import pytest

from bootstrap import NUM_RESAMPLES, bootstrap
from protembed.config.common import METRIC_NAMES, TASKS
from protembed.data.batching import UNKNOWN_CLASS
from protembed.evaluation import metrics
from protembed.evaluation.intervals import MetricWithInterval, ratio_with_interval
from protembed.finetuning.evaluation import (
    MIN_PROTEINS_FOR_INTERVAL,
    averaged_over,
    measure,
    resampled_metrics,
    scores_of,
)

LENGTHS = [5, 9, 3, 12, 7, 8]


def predictions(task):
    """Answers and outputs of six proteins; of some residues nothing is known."""
    rng = np.random.default_rng(0)
    if task == "classification":
        return [np.array(number % 3) for number in range(6)], list(rng.dirichlet(np.ones(3), size=6))
    if task == "multilabel":
        return list((rng.random((6, 4)) < 0.4).astype(np.float32)), list(rng.random((6, 4)))
    if task == "regression":
        return list(map(np.array, rng.random(6))), list(rng.random(6).astype(np.float32))
    if task == "residue-classification":
        truth = [rng.integers(3, size=length) for length in LENGTHS]
        truth[0][2:], truth[3][::2] = UNKNOWN_CLASS, UNKNOWN_CLASS
        return truth, [rng.dirichlet(np.ones(3), size=length) for length in LENGTHS]
    truth = [rng.random(length) for length in LENGTHS]
    truth[0][2:], truth[3][::2] = math.nan, math.nan
    return truth, [rng.random(length) for length in LENGTHS]


def known_residues(truth, outputs):
    pairs = [
        (true, output)
        for answer, of_one in zip(truth, outputs, strict=True)
        for true, output in zip(answer.tolist(), of_one, strict=True)
        if true != UNKNOWN_CLASS and not math.isnan(true)
    ]
    return np.array([true for true, _ in pairs]), np.array([output for _, output in pairs])


# Figures


@pytest.mark.parametrize(
    ("task", "figures_of"),
    [
        ("classification", metrics.classification_metrics),
        ("multilabel", metrics.multilabel_metrics),
        ("regression", metrics.regression_metrics),
    ],
)
def test_proteins_are_measured_by_the_metrics_of_their_task(task, figures_of):
    truth, outputs = predictions(task)

    measured = measure(TASKS[task], truth, outputs)

    assert measured == figures_of(np.array(truth), np.array(outputs))
    assert TASKS[task].main_metric in measured
    assert measured.keys() <= METRIC_NAMES.keys()


def test_residues_are_measured_together_and_only_those_of_which_something_is_known():
    truth, outputs = predictions("residue-classification")
    true, predicted = known_residues(truth, outputs)

    measured = measure(TASKS["residue-classification"], truth, outputs)

    assert len(true) == sum(LENGTHS) - 3 - 6
    assert measured["accuracy"] == pytest.approx((predicted.argmax(1) == true).mean())
    assert measured.keys() == {"accuracy", "macro_f1", "mcc"}


def test_values_of_residues_are_measured_together_and_only_those_that_are_known():
    truth, outputs = predictions("residue-regression")

    measured = measure(TASKS["residue-regression"], truth, outputs)

    assert measured == metrics.regression_metrics(*known_residues(truth, outputs))


@pytest.mark.parametrize("task", ["residue-classification", "residue-regression"])
def test_proteins_of_which_nothing_is_known_have_no_figures(task):
    truth, outputs = predictions(task)
    unknown = UNKNOWN_CLASS if task == "residue-classification" else math.nan

    measured = measure(TASKS[task], [np.full_like(truth[0], unknown)], outputs[:1])

    assert set(measured.values()) == {None}


# Draws


@pytest.mark.parametrize("task", TASKS)
def test_figures_of_draws_are_those_of_the_proteins_as_often_as_they_were_drawn(task):
    truth, outputs = predictions(task)
    draws = np.array([[1.0] * 6, [2, 0, 1, 1, 0, 2], [0, 3, 0, 1, 1, 1], [0, 0, 2, 2, 2, 0]])

    drawn = resampled_metrics(TASKS[task], truth, outputs)(draws)

    for number, counts in enumerate(draws.astype(int)):
        rows = np.repeat(np.arange(6), counts)
        measured = measure(TASKS[task], [truth[row] for row in rows], [outputs[row] for row in rows])
        expected = {name: np.nan if value is None else value for name, value in measured.items()}
        assert {name: values[number] for name, values in drawn.items()} == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("task", ["residue-classification", "residue-regression"])
def test_a_protein_of_which_nothing_is_known_may_be_drawn_again_and_again(task):
    truth, outputs = predictions(task)
    truth, outputs = truth[1:3], outputs[1:3]
    truth[0] = np.full_like(truth[0], UNKNOWN_CLASS if task == "residue-classification" else math.nan)

    drawn = bootstrap(resampled_metrics(TASKS[task], truth, outputs), 2)

    # A quarter of all draws of two are twice the first.
    undefined = np.isnan(drawn[TASKS[task].main_metric])
    assert undefined.sum() == pytest.approx(NUM_RESAMPLES / 4, abs=60)


# Scores


@pytest.mark.parametrize("task", TASKS)
def test_figures_of_enough_proteins_have_intervals_around_them(task):
    truth, outputs = predictions(task)
    truth, outputs = truth * 5, outputs * 5

    scores = scores_of(TASKS[task], truth, outputs)

    assert {name: score.value for name, score in scores.items()} == measure(TASKS[task], truth, outputs)
    for score in scores.values():
        assert score.low < score.value < score.high


def test_figures_of_few_proteins_have_no_interval():
    truth, outputs = predictions("regression")

    for number in (1, 2, 6):
        scores = scores_of(TASKS["regression"], truth[:number], outputs[:number])
        assert number < MIN_PROTEINS_FOR_INTERVAL
        assert {(score.low, score.high) for score in scores.values()} == {(None, None)}


# Classes that occur


@pytest.mark.parametrize(
    ("present", "num_classes", "expected"),
    [([0, 1, 2], 3, {}), ([0, 2], 3, {"auroc": (2, 3)}), ([1], 3, {}), ([0, 1], 2, {}), ([1], 2, {})],
)
def test_auroc_is_said_to_be_over_the_classes_that_occur(present, num_classes, expected):
    truth, outputs = [np.array(number) for number in present], [np.ones(num_classes) / num_classes] * len(present)

    assert averaged_over(TASKS["classification"], truth, outputs) == expected
    assert averaged_over(TASKS["residue-classification"], [np.stack(truth)], [np.stack(outputs)]) == {}


def test_auprc_is_said_to_be_over_the_labels_that_occur():
    truth = list(np.array([[1.0, 0, 0], [1, 1, 0]]))

    assert averaged_over(TASKS["multilabel"], truth, list(np.ones((2, 3)))) == {"auprc": (2, 3)}


# Ratios


def test_a_ratio_of_sums_has_its_interval_over_proteins():
    rng = np.random.default_rng(0)
    counts = rng.integers(5, 50, size=40).astype(float)
    sums = counts * (0.3 + 0.1 * rng.normal(size=40))

    score = ratio_with_interval(sums, counts)

    assert score.value == pytest.approx(sums.sum() / counts.sum())
    residuals = (sums - score.value * counts) / counts.sum()
    error = (40 / 39 * (residuals**2).sum()) ** 0.5
    assert (score.low, score.high) == pytest.approx((score.value - 2.05 * error, score.value + 2.05 * error), rel=0.02)


def test_a_ratio_of_one_protein_has_no_interval():
    assert ratio_with_interval(np.array([2.0]), np.array([4.0])) == MetricWithInterval(value=0.5, low=None, high=None)
