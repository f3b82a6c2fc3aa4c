import numpy as np
import pytest

from protembed.report.curves import curve, evenly, running_mean, thinned


def test_a_curve_leaves_out_the_reports_in_which_its_value_is_unknown():
    reports = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": None}, {"step": 3}, {"step": 4, "loss": 2.0}]

    assert curve(reports, "step", "loss").tolist() == [[1, 4], [3, 2]]
    assert curve([], "step", "loss").shape == (2, 0)


@pytest.mark.parametrize("num", [0, 1, 2, 39, 1000])
def test_the_running_mean_of_a_straight_line_is_the_line_except_near_its_ends(num):
    line = np.arange(num, dtype=float)

    mean = running_mean(line)

    half = num // 20 // 2
    assert mean.shape == line.shape
    assert mean[half : num - half] == pytest.approx(line[half : num - half])


def test_the_running_mean_averages_noise_away():
    noise = np.random.default_rng(0).normal(size=2000)

    assert running_mean(noise).std() < 0.15


def test_a_thinned_curve_keeps_its_extremes_its_ends_and_its_order():
    values = np.random.default_rng(0).normal(size=100_000)
    values[4321] = 50
    points = np.stack([np.arange(100_000.0), values])

    thin = thinned(points)

    assert thin.shape[1] <= 1002
    assert (thin[1].max(), thin[1].min()) == (50, values.min())
    assert thin[0, 0] == 0
    assert thin[0, -1] == 99_999
    assert (np.diff(thin[0]) > 0).all()


@pytest.mark.parametrize("num", [0, 1, 5, 1000, 5000])
def test_few_points_are_all_kept_and_many_are_spread_evenly(num):
    points = np.stack([np.arange(num, dtype=float)] * 2)

    spread = evenly(points)

    assert spread.shape[1] == min(num, 1000)
    assert spread[:, :1].tolist() == points[:, :1].tolist()
    assert spread[:, -1:].tolist() == points[:, -1:].tolist()
