import math

import numpy as np
import pytest

from protembed.config.common import TASKS
from protembed.finetuning.evaluation import LENGTH_EDGES, SIMILARITY_EDGES, measure_bands

REGRESSION = TASKS["regression"]
TRUTH = list(map(np.array, [1.0, 2.0, 3.0, 4.0, 5.0]))
OUTPUTS = list(map(np.array, [1.0, 3.0, 3.0, 4.0, 9.0]))


def bands_of(values, edges, truth=TRUTH, outputs=OUTPUTS, task=REGRESSION):
    return measure_bands(task, truth, outputs, np.array(values), edges)


def test_each_protein_is_measured_in_the_band_that_its_length_falls_into():
    bands = bands_of([127, 128, 255, 256, 5000], LENGTH_EDGES)

    assert [(band.low, band.high, band.num_proteins) for band in bands] == [
        (0, 128, 1),
        (128, 256, 2),
        (256, 512, 1),
        (1024, None, 1),
    ]
    assert [band.metrics["mse"] for band in bands] == [0, 0.5, 0, 16]


def test_a_copy_of_a_training_protein_is_in_a_band_of_its_own():
    bands = bands_of([0.0, 0.39, 0.4, 0.999, 1.0], SIMILARITY_EDGES)

    assert [(band.low, band.high, band.num_proteins) for band in bands] == [
        (0, 0.4, 2),
        (0.4, 0.6, 1),
        (0.8, 1, 1),
        (1, None, 1),
    ]


def test_what_one_protein_alone_cannot_tell_is_undefined_and_no_error():
    (band,) = bands_of([0.5], SIMILARITY_EDGES, TRUTH[:1], OUTPUTS[:1])

    assert band.metrics["spearman"] is None
    assert band.metrics["rmse"] == 0


def test_without_proteins_there_are_no_bands():
    assert bands_of([], LENGTH_EDGES, [], []) == []


@pytest.mark.parametrize(("task", "unknown"), [("residue-classification", -1), ("residue-regression", math.nan)])
def test_a_band_of_proteins_of_which_nothing_is_known_has_no_figures(task, unknown):
    known = np.array([0, 1, 1]) if task == "residue-classification" else np.array([0.1, 0.5, 0.7])
    output = np.eye(2)[[0, 1, 0]] if task == "residue-classification" else known + 1
    truth = [known, np.full_like(known, unknown)]

    bands = bands_of([100, 300], LENGTH_EDGES, truth, [output, output], TASKS[task])

    assert [band.num_proteins for band in bands] == [1, 1]
    assert None not in bands[0].metrics.values()
    assert set(bands[1].metrics.values()) == {None}


def test_a_band_has_intervals_where_it_has_enough_proteins():
    rng = np.random.default_rng(0)
    truth = list(rng.normal(size=40))
    outputs = list(np.array(truth) + 0.5 * rng.normal(size=40))

    few, many = bands_of([100] * 9 + [200] * 31, LENGTH_EDGES, truth, outputs)

    assert set(few.intervals.values()) == {None}
    assert few.metrics.keys() == few.intervals.keys()
    for metric, (low, high) in many.intervals.items():
        assert low < many.metrics[metric] < high
