import math

import numpy as np
import pytest

from protembed.config.common import TASKS
from protembed.finetuning.comparison import MIN_PROTEINS_FOR_INTERVAL, Predictions
from protembed.finetuning.subgroups import SIMILARITY_EDGES, join_small_ranges, length_edges, measure_subgroups

LENGTHS_IN_RESIDUES = (0, 128, 256, 512, 1024, np.inf)

TRUTH = list(map(np.array, [1.0, 2.0, 3.0, 4.0, 5.0]))
PREDICTIONS = list(map(np.array, [1.0, 3.0, 3.0, 4.0, 9.0]))


def subgroups_of(values, edges, truth=TRUTH, predicted=PREDICTIONS, task="regression"):
    predictions = Predictions(task=TASKS[task], truth=truth, predicted=predicted)
    return measure_subgroups(predictions, np.array(values), edges)


def test_each_protein_is_measured_in_the_subgroup_of_its_length():
    subgroups = subgroups_of([127, 128, 255, 256, 5000], LENGTHS_IN_RESIDUES)

    assert [(subgroup.low, subgroup.high, subgroup.num_proteins) for subgroup in subgroups] == [
        (0, 128, 1),
        (128, 256, 2),
        (256, 512, 1),
        (1024, None, 1),
    ]
    assert [subgroup.metrics["mse"] for subgroup in subgroups] == [0, 0.5, 0, 16]


def test_copies_of_training_proteins_are_a_separate_subgroup():
    subgroups = subgroups_of([0.0, 0.39, 0.4, 0.999, 1.0], SIMILARITY_EDGES)

    assert [(subgroup.low, subgroup.high, subgroup.num_proteins) for subgroup in subgroups] == [
        (0, 0.4, 2),
        (0.4, 0.6, 1),
        (0.8, 1, 1),
        (1, None, 1),
    ]


def test_correlation_of_a_single_protein_is_undefined():
    (subgroup,) = subgroups_of([0.5], SIMILARITY_EDGES, TRUTH[:1], PREDICTIONS[:1])

    assert subgroup.metrics["spearman"] is None
    assert subgroup.metrics["rmse"] == 0


def test_an_empty_test_split_has_no_subgroups():
    assert subgroups_of([], LENGTHS_IN_RESIDUES, [], []) == []


@pytest.mark.parametrize(("task", "unknown"), [("residue-classification", -1), ("residue-regression", math.nan)])
def test_metrics_of_a_subgroup_without_known_targets_are_undefined(task, unknown):
    known = np.array([0, 1, 1]) if task == "residue-classification" else np.array([0.1, 0.5, 0.7])
    prediction = np.eye(2)[[0, 1, 0]] if task == "residue-classification" else known + 1
    truth = [known, np.full_like(known, unknown)]

    subgroups = subgroups_of([100, 300], LENGTHS_IN_RESIDUES, truth, [prediction, prediction], task)

    assert [subgroup.num_proteins for subgroup in subgroups] == [1, 1]
    assert None not in subgroups[0].metrics.values()
    assert set(subgroups[1].metrics.values()) == {None}


def test_a_subgroup_has_intervals_if_it_has_enough_proteins():
    rng = np.random.default_rng(0)
    truth = list(rng.normal(size=40))
    predictions = list(np.array(truth) + 0.5 * rng.normal(size=40))

    few, many = subgroups_of([100] * 9 + [200] * 31, LENGTHS_IN_RESIDUES, truth, predictions)

    assert set(few.intervals.values()) == {None}
    assert few.metrics.keys() == few.intervals.keys()
    for metric, (low, high) in many.intervals.items():
        assert low < many.metrics[metric] < high


# Ranges


def test_ranges_of_length_have_about_as_many_proteins_each():
    lengths = np.random.default_rng(0).integers(30, 900, size=200)

    edges = length_edges(lengths)

    counts = np.histogram(lengths, edges)[0]
    assert len(counts) == 4
    assert counts.sum() == 200
    assert counts.min() >= 45


@pytest.mark.parametrize("lengths", [[70] * 50, [70], []])
def test_proteins_of_one_length_are_one_range_at_most(lengths):
    assert len(length_edges(np.array(lengths, int))) == (2 if lengths else 0)


@pytest.mark.parametrize(
    ("counts", "edges"),
    [
        ([290, 4, 3, 2, 1], [0, 0.4, np.inf]),
        ([290, 4, 3, 1, 1], [0, np.inf]),
        ([2, 4, 30, 1, 40], [0, 0.8, np.inf]),
        ([20, 20, 20, 20, 20], list(SIMILARITY_EDGES)),
        ([1, 0, 0, 0, 0], [0, np.inf]),
        ([0, 0, 0, 0, 0], [0, np.inf]),
    ],
)
def test_ranges_with_too_few_proteins_are_joined_with_the_next(counts, edges):
    similarities = np.repeat([0.2, 0.5, 0.7, 0.9, 1.0], counts)

    joined = join_small_ranges(similarities, SIMILARITY_EDGES)

    assert joined == edges
    if sum(counts) >= MIN_PROTEINS_FOR_INTERVAL:
        assert np.histogram(similarities, [*joined[:-1], 9.0])[0].min() >= MIN_PROTEINS_FOR_INTERVAL
