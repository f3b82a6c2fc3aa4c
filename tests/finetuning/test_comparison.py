import json

import numpy as np
import pytest

from protembed.config.common import TASKS
from protembed.finetuning.comparison import Comparison, compare
from protembed.finetuning.evaluation import measure, scores_of

REGRESSION = TASKS["regression"]
NO_COMPARISON = "fine-tuned cannot be compared with k-mers in Spearman: the test part says too little"
TRUTH = np.random.default_rng(0).normal(size=80)


def guess(noise, seed=1):
    """Values that are as far from the truth as the noise is strong."""
    return list(TRUTH + noise * np.random.default_rng(seed).normal(size=80))


def ladder_of(outputs, truth=TRUTH):
    return compare(REGRESSION, list(map(np.array, truth)), outputs)


def test_each_way_is_measured_on_the_same_proteins():
    outputs = {"mean": [[0.0] * 80], "k-mers": [guess(1.0)], "fine-tuned": [guess(0.3)]}

    ladder = ladder_of(outputs)

    assert list(ladder.rungs) == ["mean", "k-mers", "fine-tuned"]
    assert ladder.model == "fine-tuned"
    for name, (training,) in outputs.items():
        measured = measure(REGRESSION, list(TRUTH), training)
        assert {metric: score.value for metric, score in ladder.rungs[name].items()} == measured
    score = ladder.figures["rmse"]
    assert ladder.figures is ladder.rungs["fine-tuned"]
    assert ladder.figures == scores_of(REGRESSION, list(TRUTH), outputs["fine-tuned"][0])
    assert score.low < score.value < score.high


def test_differences_are_in_the_main_metric_and_paired_on_the_same_proteins():
    noisy, better = guess(1.0), list(0.9 * np.array(guess(1.0)) + 0.1 * TRUTH)

    ladder = ladder_of({"k-mers": [noisy], "fine-tuned": [better]})

    ours, theirs = ladder.figures["spearman"], ladder.rungs["k-mers"]["spearman"]
    difference = ladder.differences["k-mers"]
    assert ladder.differences.keys() == {"k-mers"}
    assert difference.value == pytest.approx(ours.value - theirs.value)
    # The intervals of both overlap widely; what both share is not in that of their difference.
    assert theirs.high > ours.low
    assert difference.high - difference.low < 0.5 * (ours.high - ours.low)


def test_equal_ways_differ_by_nothing():
    ladder = ladder_of({"k-mers": [guess(1.0)], "fine-tuned": [guess(1.0)]})

    assert vars(ladder.differences["k-mers"]) == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_a_way_that_always_says_the_same_has_no_correlation_to_differ_in():
    ladder = ladder_of({"mean": [[0.0] * 80], "fine-tuned": [guess(0.3)]})

    assert ladder.rungs["mean"]["spearman"].value is None
    assert ladder.differences["mean"].value is None
    assert not any("mean" in sentence for sentence in ladder.sentences())


# Sentences


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"),
    [
        (0.1, 2.0, "fine-tuned adds to k-mers: +0."),
        (2.0, 0.1, "fine-tuned falls short of k-mers: -0."),
        (1.0, 1.0, "fine-tuned and k-mers cannot be told apart: "),
    ],
)
def test_sentences_say_what_the_model_adds(ours, theirs, verdict):
    ladder = ladder_of({"k-mers": [guess(theirs, seed=2)], "fine-tuned": [guess(ours)]})

    first, last = ladder.sentences()

    assert first.startswith(verdict)
    score = ladder.differences["k-mers"]
    assert first.endswith(f"{score.value:+.3f} [{score.low:+.3f}, {score.high:+.3f}] Spearman")
    assert last == "95 % intervals over test proteins; one seed, so training noise is not in the intervals"


def test_too_few_proteins_for_an_interval_are_said_to_be_no_comparison():
    truth = [0.0, 1.0]

    ladder = ladder_of({"k-mers": [[0.0, 1.0]], "fine-tuned": [[1.0, 0.0]]}, truth=truth)

    # Half of all draws of two are twice the same.
    assert ladder.differences["k-mers"].low is None
    assert ladder.sentences()[0] == NO_COMPARISON


# Repeated trainings


def test_repeated_trainings_are_averaged():
    trainings = [guess(0.3, seed) for seed in (1, 2, 3)]

    ladder = ladder_of({"k-mers": [guess(1.0)], "fine-tuned": trainings})

    each = [measure(REGRESSION, list(TRUTH), training) for training in trainings]
    for metric, score in ladder.figures.items():
        assert score.value == pytest.approx(np.mean([one[metric] for one in each]))
    assert ladder.num_repeats == 3
    assert (
        ladder.sentences()[-1]
        == "95 % intervals over test proteins and 3 seeds; so few understate how much trainings differ"
    )


def test_trainings_that_differ_much_make_the_interval_wider():
    alike, unlike = [guess(0.5, 1)] * 2, [guess(0.1, 1), guess(2.0, 1)]

    narrow, wide = (ladder_of({"fine-tuned": trainings}).figures["spearman"] for trainings in (alike, unlike))

    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_equal_trainings_are_as_one():
    one, several = (ladder_of({"fine-tuned": [guess(0.5)] * number}).figures["rmse"] for number in (1, 3))

    assert vars(several) == pytest.approx(vars(one))


def test_a_figure_that_one_training_lacks_has_no_average():
    ladder = ladder_of({"k-mers": [guess(1.0)], "fine-tuned": [guess(0.5), [0.0] * 80]})

    assert ladder.figures["spearman"].value is None
    assert ladder.figures["rmse"].value is not None
    assert ladder.sentences()[0] == NO_COMPARISON


# Other tasks, and files


def outputs_of(task):
    """Answers and outputs of thirty proteins, by a good and a bad way."""
    rng = np.random.default_rng(0)
    if TASKS[task].label_kind == "labels":
        truth = (rng.random((30, 3)) < 0.4).astype(np.float32)
        return list(truth), list(0.5 * truth + 0.5 * rng.random((30, 3))), list(rng.random((30, 3)))
    lengths = rng.integers(4, 9, size=30) if TASKS[task].per_residue else [1] * 30
    if TASKS[task].label_kind == "value":
        truth = [rng.normal(size=length) for length in lengths]
        good, bad = ([answer + noise * rng.normal(size=len(answer)) for answer in truth] for noise in (0.2, 3))
    else:
        truth = [rng.integers(3, size=length) for length in lengths]
        good, bad = (
            [(share * np.eye(3)[answer] + rng.dirichlet(np.ones(3), len(answer))) / (1 + share) for answer in truth]
            for share in (1, 0)
        )
    return (truth, good, bad) if TASKS[task].per_residue else [[one[0] for one in part] for part in (truth, good, bad)]


@pytest.mark.parametrize("task", TASKS)
def test_a_ladder_of_each_task_tells_a_good_way_from_a_bad_one(task):
    truth, good, bad = outputs_of(task)

    ladder = compare(TASKS[task], truth, {"k-mers": [bad], "frozen": [good]})

    assert ladder.figures.keys() == measure(TASKS[task], truth, good).keys()
    assert ladder.differences["k-mers"].low > 0
    assert ladder.sentences()[0].startswith("frozen adds to k-mers: ")


@pytest.mark.parametrize("task", TASKS)
def test_a_ladder_comes_back_from_json_as_it_was(task):
    truth, good, bad = outputs_of(task)
    ladder = compare(TASKS[task], truth, {"k-mers": [bad], "frozen": [good, good]})

    written = json.dumps(ladder.as_plain_values(), allow_nan=False)

    assert Comparison.from_plain_values(TASKS[task], json.loads(written)) == ladder


def test_undefined_figures_come_back_too():
    ladder = ladder_of({"mean": [[0.0] * 80], "fine-tuned": [guess(0.3)]})

    written = json.dumps(ladder.as_plain_values(), allow_nan=False)

    assert Comparison.from_plain_values(REGRESSION, json.loads(written)) == ladder


def test_a_handful_of_proteins_has_no_interval():
    few = {"k-mers": [guess(1.0)[:9]], "frozen": [guess(0.1)[:9]]}

    ladder = compare(REGRESSION, list(TRUTH[:9]), few)

    assert ladder.figures["spearman"].value > 0.5
    assert ladder.figures["spearman"].low is None
    assert ladder.sentences()[0] == "frozen cannot be compared with k-mers in Spearman: the test part says too little"


def test_where_nothing_is_random_no_seed_is_spoken_of():
    outputs = {"k-mers": [guess(1.0)], "frozen": [guess(0.1)]}

    ladder = compare(REGRESSION, list(TRUTH), outputs, is_random=False)

    assert ladder.sentences()[-1] == "95 % intervals over test proteins"


def test_a_handful_of_proteins_is_said_to_be_too_few_for_intervals():
    ladder = compare(REGRESSION, list(TRUTH[:9]), {"k-mers": [guess(1.0)[:9]], "frozen": [guess(0.1)[:9]]})

    assert ladder.sentences()[-1] == "fewer than 10 test proteins: metrics are uncertain and have no intervals"


def test_a_class_without_a_test_protein_leaves_auroc_of_the_others_and_its_name_says_of_how_many():
    rng = np.random.default_rng(0)
    truth = [np.array(number % 3) for number in range(30)]
    outputs = list(rng.dirichlet(np.ones(4), size=30))

    ladder = compare(TASKS["classification"], truth, {"majority": [outputs], "frozen": [outputs]})

    assert ladder.figures["auroc"].low < ladder.figures["auroc"].value < ladder.figures["auroc"].high
    assert ladder.metric_names["auroc"] == "AUROC over 3 of 4 classes"
    assert ladder.metric_names["mcc"] == "MCC"
    written = json.dumps(ladder.as_plain_values(), allow_nan=False)
    assert Comparison.from_plain_values(TASKS["classification"], json.loads(written)) == ladder
