import json

import numpy as np
import pytest

from protembed.config.common import TASKS
from protembed.finetuning.comparison import Comparison, Predictions, compare

REGRESSION = TASKS["regression"]
TOO_FEW = "too few test proteins to compare fine-tuned with k-mers (Spearman)"
TRUTH = np.random.default_rng(0).normal(size=80)


def guess(noise, seed=1):
    """Return the truth with added noise."""
    return list(TRUTH + noise * np.random.default_rng(seed).normal(size=80))


def measure(task, truth, predicted):
    return Predictions(task=task, truth=truth, predicted=predicted).measure()


def compare_values(predictions, truth=TRUTH):
    return compare(REGRESSION, list(map(np.array, truth)), predictions)


def test_each_predictor_is_measured_on_the_same_proteins():
    predictions = {"mean": [[0.0] * 80], "k-mers": [guess(1.0)], "fine-tuned": [guess(0.3)]}

    comparison = compare_values(predictions)

    assert list(comparison.predictors) == ["mean", "k-mers", "fine-tuned"]
    assert comparison.model == "fine-tuned"
    for predictor, (training,) in predictions.items():
        assert comparison.predictors[predictor] == measure(REGRESSION, list(TRUTH), training)
    rmse = comparison.model_metrics["rmse"]
    assert comparison.model_metrics is comparison.predictors["fine-tuned"]
    assert rmse.low < rmse.value < rmse.high


def test_differences_are_in_the_main_metric_and_paired_on_the_same_proteins():
    noisy, better = guess(1.0), list(0.9 * np.array(guess(1.0)) + 0.1 * TRUTH)

    comparison = compare_values({"k-mers": [noisy], "fine-tuned": [better]})

    model, baseline = comparison.model_metrics["spearman"], comparison.predictors["k-mers"]["spearman"]
    difference = comparison.differences["k-mers"]
    assert comparison.differences.keys() == {"k-mers"}
    assert difference.value == pytest.approx(model.value - baseline.value)
    # The intervals of both overlap widely; the noise that both share is not in that of their difference.
    assert baseline.high > model.low
    assert difference.high - difference.low < 0.5 * (model.high - model.low)


def test_equal_predictors_have_a_difference_of_zero():
    comparison = compare_values({"k-mers": [guess(1.0)], "fine-tuned": [guess(1.0)]})

    assert vars(comparison.differences["k-mers"]) == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_a_constant_predictor_has_no_correlation_and_no_sentence():
    comparison = compare_values({"mean": [[0.0] * 80], "fine-tuned": [guess(0.3)]})

    assert comparison.predictors["mean"]["spearman"].value is None
    assert comparison.differences["mean"].value is None
    assert not any("mean" in sentence for sentence in comparison.sentences())


# Sentences


@pytest.mark.parametrize(
    ("model_noise", "baseline_noise", "beginning"),
    [
        (0.1, 2.0, "fine-tuned is better than k-mers: +0."),
        (2.0, 0.1, "fine-tuned is worse than k-mers: -0."),
        (1.0, 1.0, "no significant difference between fine-tuned and k-mers: "),
    ],
)
def test_sentences_describe_the_difference_from_each_baseline(model_noise, baseline_noise, beginning):
    comparison = compare_values({"k-mers": [guess(baseline_noise, seed=2)], "fine-tuned": [guess(model_noise)]})

    first, last = comparison.sentences()

    assert first.startswith(beginning)
    difference = comparison.differences["k-mers"]
    interval = f"[{difference.low:+.3f}, {difference.high:+.3f}]"
    assert first.endswith(f"{difference.value:+.3f} {interval} Spearman")
    assert last == "95 % intervals over test proteins; one seed, so training noise is not in the intervals"


def test_two_proteins_are_reported_as_too_few_for_a_comparison():
    truth = [0.0, 1.0]

    comparison = compare_values({"k-mers": [[0.0, 1.0]], "fine-tuned": [[1.0, 0.0]]}, truth=truth)

    assert comparison.differences["k-mers"].low is None
    assert comparison.sentences()[0] == TOO_FEW


# The verdict


@pytest.mark.parametrize(
    ("model_noise", "baseline_noise", "beginning"),
    [
        (0.1, 2.0, "fine-tuning was worth it: Spearman is 0."),
        (2.0, 0.1, "fine-tuning was not worth it: Spearman is 0."),
        (1.0, 1.0, "fine-tuning was not clearly worth it: Spearman is 0."),
    ],
)
def test_the_verdict_compares_the_model_with_the_best_baseline(model_noise, baseline_noise, beginning):
    baselines = {"composition": [guess(4.0, seed=3)], "k-mers": [guess(baseline_noise, seed=2)]}
    comparison = compare_values({**baselines, "fine-tuned": [guess(model_noise)]})

    verdict = comparison.verdict()

    difference = comparison.differences["k-mers"]
    baseline = comparison.predictors["k-mers"]["spearman"].value
    assert verdict.startswith(beginning)
    assert f", and {baseline:.3f} for the best baseline, k-mers (difference {difference.value:+.3f}, " in verdict
    assert verdict.endswith(f"95 % interval {difference.low:+.3f} to {difference.high:+.3f})")


def test_the_verdict_on_a_frozen_encoder_is_about_the_language_model():
    comparison = compare_values({"mean": [[0.0] * 80], "k-mers": [guess(2.0)], "frozen": [guess(0.1)]})

    assert comparison.best_baseline == "k-mers"
    assert comparison.verdict().startswith("the language model was worth it: ")


def test_the_verdict_on_few_proteins_says_that_it_is_not_known():
    comparison = compare(REGRESSION, list(TRUTH[:9]), {"k-mers": [guess(1.0)[:9]], "frozen": [guess(0.1)[:9]]})

    beginning = "whether the language model was worth it is not known, because of too few test proteins: Spearman is "
    assert comparison.verdict().startswith(beginning)


def test_a_model_that_equals_its_baseline_was_not_worth_it():
    comparison = compare_values({"frozen": [guess(1.0)], "fine-tuned": [guess(1.0)]})

    value = f"{comparison.model_metrics['spearman'].value:.3f}"
    end = f"Spearman is {value}, and {value} for the best baseline, frozen"
    assert comparison.verdict() == f"fine-tuning was not worth it: {end}"


def test_there_is_no_verdict_without_a_metric():
    comparison = compare_values({"mean": [[0.0] * 80], "fine-tuned": [guess(0.1)]})

    assert comparison.best_baseline is None
    assert (
        comparison.verdict() == "whether fine-tuning was worth it is not known: Spearman of all baselines is undefined"
    )


# Repeated trainings


def test_repeated_trainings_are_averaged():
    trainings = [guess(0.3, seed) for seed in (1, 2, 3)]

    comparison = compare_values({"k-mers": [guess(1.0)], "fine-tuned": trainings})

    measured = [measure(REGRESSION, list(TRUTH), training) for training in trainings]
    for name, metric in comparison.model_metrics.items():
        assert metric.value == pytest.approx(np.mean([metrics[name].value for metrics in measured]))
    assert comparison.num_repeats == 3
    intervals = "95 % intervals over test proteins and 3 seeds (3 seeds underestimate the variance between runs)"
    assert comparison.sentences()[-1] == intervals


def test_variance_between_trainings_widens_the_interval():
    equal, different = [guess(0.5, 1)] * 2, [guess(0.1, 1), guess(2.0, 1)]

    narrow, wide = (
        compare_values({"fine-tuned": trainings}).model_metrics["spearman"] for trainings in (equal, different)
    )

    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_equal_trainings_have_the_metrics_of_one():
    single, several = (compare_values({"fine-tuned": [guess(0.5)] * number}).model_metrics["rmse"] for number in (1, 3))

    assert vars(several) == pytest.approx(vars(single))


def test_a_metric_that_is_undefined_for_one_training_has_no_mean():
    comparison = compare_values({"k-mers": [guess(1.0)], "fine-tuned": [guess(0.5), [0.0] * 80]})

    assert comparison.model_metrics["spearman"].value is None
    assert comparison.model_metrics["rmse"].value is not None
    assert comparison.sentences()[0] == TOO_FEW


# All tasks, and JSON


def predictions_of(task):
    """Return the targets of thirty proteins, and the predictions of a good and a bad predictor."""
    rng = np.random.default_rng(0)
    if TASKS[task].label_kind == "labels":
        truth = (rng.random((30, 3)) < 0.4).astype(np.float32)
        return list(truth), list(0.5 * truth + 0.5 * rng.random((30, 3))), list(rng.random((30, 3)))
    lengths = rng.integers(4, 9, size=30) if TASKS[task].per_residue else [1] * 30
    if TASKS[task].label_kind == "value":
        truth = [rng.normal(size=length) for length in lengths]
        good, bad = ([target + noise * rng.normal(size=len(target)) for target in truth] for noise in (0.2, 3))
    else:
        truth = [rng.integers(3, size=length) for length in lengths]
        good, bad = (
            [(weight * np.eye(3)[target] + rng.dirichlet(np.ones(3), len(target))) / (1 + weight) for target in truth]
            for weight in (1, 0)
        )
    return (
        (truth, good, bad)
        if TASKS[task].per_residue
        else [[values[0] for values in proteins] for proteins in (truth, good, bad)]
    )


@pytest.mark.parametrize("task", TASKS)
def test_a_good_predictor_is_better_than_a_bad_one_in_each_task(task):
    truth, good, bad = predictions_of(task)

    comparison = compare(TASKS[task], truth, {"k-mers": [bad], "frozen": [good]})

    assert comparison.model_metrics.keys() == measure(TASKS[task], truth, good).keys()
    assert comparison.differences["k-mers"].low > 0
    assert comparison.sentences()[0].startswith("frozen is better than k-mers: ")


@pytest.mark.parametrize("task", TASKS)
def test_a_comparison_survives_json(task):
    truth, good, bad = predictions_of(task)
    comparison = compare(TASKS[task], truth, {"k-mers": [bad], "frozen": [good, good]})

    written = json.dumps(comparison.as_plain_values(), allow_nan=False)

    assert Comparison.from_plain_values(TASKS[task], json.loads(written)) == comparison


def test_a_comparison_of_an_earlier_version_is_read_by_its_former_key():
    comparison = compare_values({"k-mers": [guess(1.0)], "fine-tuned": [guess(0.3)]})
    former = comparison.as_plain_values()
    former["rungs"] = former.pop("predictors")

    assert Comparison.from_plain_values(REGRESSION, former) == comparison


def test_undefined_metrics_survive_json():
    comparison = compare_values({"mean": [[0.0] * 80], "fine-tuned": [guess(0.3)]})

    written = json.dumps(comparison.as_plain_values(), allow_nan=False)

    assert Comparison.from_plain_values(REGRESSION, json.loads(written)) == comparison


def test_nine_proteins_have_no_interval():
    few = {"k-mers": [guess(1.0)[:9]], "frozen": [guess(0.1)[:9]]}

    comparison = compare(REGRESSION, list(TRUTH[:9]), few)

    assert comparison.model_metrics["spearman"].value > 0.5
    assert comparison.model_metrics["spearman"].low is None
    assert comparison.sentences()[0] == "too few test proteins to compare frozen with k-mers (Spearman)"


def test_seeds_are_not_mentioned_if_nothing_is_random():
    predictions = {"k-mers": [guess(1.0)], "frozen": [guess(0.1)]}

    comparison = compare(REGRESSION, list(TRUTH), predictions, is_random=False)

    assert comparison.sentences()[-1] == "95 % intervals over test proteins"


def test_nine_proteins_are_reported_as_too_few_for_intervals():
    comparison = compare(REGRESSION, list(TRUTH[:9]), {"k-mers": [guess(1.0)[:9]], "frozen": [guess(0.1)[:9]]})

    assert comparison.sentences()[-1] == "fewer than 10 test proteins: metrics are uncertain and have no intervals"


def test_auroc_is_named_after_the_number_of_classes_with_test_proteins():
    rng = np.random.default_rng(0)
    truth = [np.array(number % 3) for number in range(30)]
    predictions = list(rng.dirichlet(np.ones(4), size=30))

    comparison = compare(TASKS["classification"], truth, {"majority": [predictions], "frozen": [predictions]})

    assert (
        comparison.model_metrics["auroc"].low
        < comparison.model_metrics["auroc"].value
        < comparison.model_metrics["auroc"].high
    )
    assert comparison.metric_names["auroc"] == "AUROC over 3 of 4 classes"
    assert comparison.metric_names["mcc"] == "MCC"
    written = json.dumps(comparison.as_plain_values(), allow_nan=False)
    assert Comparison.from_plain_values(TASKS["classification"], json.loads(written)) == comparison
