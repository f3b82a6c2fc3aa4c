import numpy as np
import pytest

from protembed.config.common import TASKS
from protembed.finetuning.calibration import calibrate
from protembed.finetuning.comparison import Predictions


def predictions_of(task, truth, predicted):
    return Predictions(task=TASKS[task], truth=truth, predicted=predicted)


def test_measured_values_are_averaged_over_tenths_of_the_predictions():
    predicted = np.random.default_rng(0).permutation(np.arange(200.0))
    measured = 2 * predicted

    points = calibrate(predictions_of("regression", list(map(np.array, measured)), list(map(np.array, predicted))))

    assert [point.num_values for point in points] == [20] * 10
    assert [point.predicted for point in points] == [9.5 + 20 * number for number in range(10)]
    assert [point.measured.value for point in points] == [2 * point.predicted for point in points]
    assert all(point.measured.low < point.measured.value < point.measured.high for point in points)


def test_residues_without_a_value_are_left_out():
    truth = [np.array([1.0, np.nan, 3.0])] * 20
    predicted = [np.array([1.0, 50.0, 2.0])] * 20

    points = calibrate(predictions_of("residue-regression", truth, predicted))

    assert [point.num_values for point in points] == [20, 20]
    assert [point.measured.value for point in points] == [1.0, 3.0]


@pytest.mark.parametrize(("num_proteins", "num_points"), [(19, 0), (20, 2), (45, 4), (500, 10)])
def test_each_point_has_at_least_ten_proteins(num_proteins, num_points):
    values = list(map(np.array, np.arange(float(num_proteins))))

    assert len(calibrate(predictions_of("regression", values, values))) == num_points


def test_classes_have_no_calibration():
    truth = [np.array(0)] * 30

    assert calibrate(predictions_of("classification", truth, [np.array([0.9, 0.1])] * 30)) == []
