import math

import numpy as np
import pytest

from bootstrap import NUM_RESAMPLES, bootstrap
from protembed.config.common import METRIC_NAMES, TASKS, UNKNOWN_CLASS
from protembed.evaluation import metrics
from protembed.evaluation.intervals import MetricWithInterval, ratio_with_interval
from protembed.finetuning.comparison import MIN_PROTEINS_FOR_INTERVAL, Predictions

LENGTHS = [5, 9, 3, 12, 7, 8]


def six_proteins(task):
    """Return targets and predictions of six proteins, some of whose residues have no target."""
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


def known_residues(truth, predictions):
    pairs = [
        (true, predicted)
        for target, prediction in zip(truth, predictions, strict=True)
        for true, predicted in zip(target.tolist(), prediction, strict=True)
        if true != UNKNOWN_CLASS and not math.isnan(true)
    ]
    return np.array([true for true, _ in pairs]), np.array([predicted for _, predicted in pairs])


def predictions_of(task, truth, predicted):
    return Predictions(task=TASKS[task], truth=truth, predicted=predicted)


def measure(task, truth, predicted):
    """Return the metrics without their intervals."""
    return {name: metric.value for name, metric in predictions_of(task, truth, predicted).measure().items()}


# Metrics


@pytest.mark.parametrize(
    ("task", "prepare"),
    [
        ("classification", metrics.classification_measure),
        ("multilabel", metrics.multilabel_measure),
        ("regression", metrics.regression_measure),
    ],
)
def test_proteins_are_measured_by_the_metrics_of_their_task(task, prepare):
    truth, predictions = six_proteins(task)

    measured = measure(task, truth, predictions)

    assert measured == metrics.point_metrics(prepare(np.array(truth), np.array(predictions)), 6)
    assert TASKS[task].main_metric in measured
    assert measured.keys() <= METRIC_NAMES.keys()


def test_metrics_of_residue_classes_are_over_all_residues_with_a_target():
    truth, predictions = six_proteins("residue-classification")
    true, predicted = known_residues(truth, predictions)

    measured = measure("residue-classification", truth, predictions)

    assert len(true) == sum(LENGTHS) - 3 - 6
    assert measured["accuracy"] == pytest.approx((predicted.argmax(1) == true).mean())
    assert measured.keys() == {"accuracy", "macro_f1", "mcc"}


def test_metrics_of_residue_values_are_over_all_residues_with_a_target():
    truth, predictions = six_proteins("residue-regression")

    measured = measure("residue-regression", truth, predictions)

    true, predicted = known_residues(truth, predictions)
    assert measured == metrics.point_metrics(metrics.regression_measure(true, predicted), len(true))


@pytest.mark.parametrize("task", ["residue-classification", "residue-regression"])
def test_metrics_of_proteins_without_known_targets_are_undefined(task):
    truth, predictions = six_proteins(task)
    unknown = UNKNOWN_CLASS if task == "residue-classification" else math.nan

    measured = measure(task, [np.full_like(truth[0], unknown)], predictions[:1])

    assert set(measured.values()) == {None}


# Resampling


@pytest.mark.parametrize("task", TASKS)
def test_resampled_metrics_are_those_of_the_resampled_proteins(task):
    truth, predictions = six_proteins(task)
    draws = np.array([[1.0] * 6, [2, 0, 1, 1, 0, 2], [0, 3, 0, 1, 1, 1], [0, 0, 2, 2, 2, 0]])

    resampled = predictions_of(task, truth, predictions).resampled()(draws)

    for number, counts in enumerate(draws.astype(int)):
        rows = np.repeat(np.arange(6), counts)
        measured = measure(task, [truth[row] for row in rows], [predictions[row] for row in rows])
        expected = {name: np.nan if value is None else value for name, value in measured.items()}
        assert {name: values[number] for name, values in resampled.items()} == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("task", ["residue-classification", "residue-regression"])
def test_metrics_of_resamples_without_known_targets_are_undefined(task):
    truth, predictions = six_proteins(task)
    truth, predictions = truth[1:3], predictions[1:3]
    truth[0] = np.full_like(truth[0], UNKNOWN_CLASS if task == "residue-classification" else math.nan)

    resampled = bootstrap(predictions_of(task, truth, predictions).resampled(), 2)

    # A quarter of all resamples of two proteins hold the first one twice.
    undefined = np.isnan(resampled[TASKS[task].main_metric])
    assert undefined.sum() == pytest.approx(NUM_RESAMPLES / 4, abs=60)


# Intervals


@pytest.mark.parametrize("task", TASKS)
def test_metrics_of_enough_proteins_lie_within_their_intervals(task):
    truth, predictions = six_proteins(task)
    truth, predictions = truth * 5, predictions * 5

    measured = predictions_of(task, truth, predictions).measure()

    assert {name: metric.value for name, metric in measured.items()} == measure(task, truth, predictions)
    for metric in measured.values():
        assert metric.low < metric.value < metric.high


def test_metrics_of_few_proteins_have_no_interval():
    truth, predictions = six_proteins("regression")

    for number in (1, 2, 6):
        measured = predictions_of("regression", truth[:number], predictions[:number]).measure()
        assert number < MIN_PROTEINS_FOR_INTERVAL
        assert {(metric.low, metric.high) for metric in measured.values()} == {(None, None)}


# Classes that occur


@pytest.mark.parametrize(
    ("present", "num_classes", "expected"),
    [([0, 1, 2], 3, {}), ([0, 2], 3, {"auroc": (2, 3)}), ([1], 3, {}), ([0, 1], 2, {}), ([1], 2, {})],
)
def test_auroc_is_reported_as_averaged_over_the_classes_that_occur(present, num_classes, expected):
    truth, predictions = [np.array(number) for number in present], [np.ones(num_classes) / num_classes] * len(present)

    assert predictions_of("classification", truth, predictions).averaged_over() == expected
    of_residues = predictions_of("residue-classification", [np.stack(truth)], [np.stack(predictions)])
    assert of_residues.averaged_over() == {}


def test_auprc_is_reported_as_averaged_over_the_labels_that_occur():
    truth = list(np.array([[1.0, 0, 0], [1, 1, 0]]))

    assert predictions_of("multilabel", truth, list(np.ones((2, 3)))).averaged_over() == {"auprc": (2, 3)}


# Ratios


def test_the_interval_of_a_ratio_of_sums_is_over_proteins():
    rng = np.random.default_rng(0)
    counts = rng.integers(5, 50, size=40).astype(float)
    sums = counts * (0.3 + 0.1 * rng.normal(size=40))

    ratio = ratio_with_interval(sums, counts)

    assert ratio.value == pytest.approx(sums.sum() / counts.sum())
    residuals = (sums - ratio.value * counts) / counts.sum()
    error = (40 / 39 * (residuals**2).sum()) ** 0.5
    assert (ratio.low, ratio.high) == pytest.approx((ratio.value - 2.05 * error, ratio.value + 2.05 * error), rel=0.02)


def test_a_ratio_of_one_protein_has_no_interval():
    assert ratio_with_interval(np.array([2.0]), np.array([4.0])) == MetricWithInterval(value=0.5, low=None, high=None)
