import numpy as np
import pytest
from scipy import stats

from protembed.evaluation.intervals import SCALES, MetricWithInterval, Spread, interval, jackknife, jackknife_draws
from protembed.evaluation.metrics import classification_measure, point_metrics, regression_measure


def mean_of(values):
    return lambda draws: {"mean": draws @ values / draws.sum(1)}


def jackknife_interval(value, left_out, **options):
    """Compute the interval of a metric; None where there is none."""
    measured = MetricWithInterval.from_jackknife(value, left_out, **options)
    assert measured.value == value
    return None if measured.low is None else (measured.low, measured.high)


def test_jackknife_draws_omit_each_unit_once():
    assert jackknife_draws(4).tolist() == (1 - np.eye(4)).tolist()


def test_jackknife_draws_omit_many_units_in_equal_groups():
    draws = jackknife_draws(10_000)

    assert len(draws) <= 1_000
    assert set((draws == 0).sum(0)) == {1}
    assert (draws == 0).sum(1).max() - (draws == 0).sum(1).min() <= 1


@pytest.mark.parametrize("num", [30, 4_000])
def test_interval_of_a_mean_equals_students_t(num):
    values = np.random.default_rng(0).normal(size=num)

    low, high = jackknife_interval(values.mean(), jackknife(mean_of(values), num)["mean"], metric="mean", num_units=num)

    error = values.std(ddof=1) / num**0.5
    half = stats.t.ppf(0.975, num - 1) * error
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.2 * error)


def test_interval_is_wider_if_the_mean_hinges_on_few_units():
    few, even = np.repeat([0.0, 10.0], [48, 2]), np.repeat([0.0, 4.0], [25, 25])
    few = few * even.std() / few.std()

    widths = []
    for values in (few, even):
        low, high = jackknife_interval(
            values.mean(), jackknife(mean_of(values), 50)["mean"], metric="mean", num_units=50
        )
        widths.append(high - low)

    assert widths[0] > 1.2 * widths[1]


@pytest.mark.parametrize("num_right", [0, 1, 7, 19, 20])
def test_interval_of_accuracy_is_close_to_wilson_and_never_empty(num_right):
    is_right = np.arange(20) < num_right
    share = num_right / 20

    low, high = jackknife_interval(share, jackknife(mean_of(is_right), 20)["mean"], metric="accuracy", num_units=20)

    wilson = stats.binomtest(num_right, 20).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((wilson.low, wilson.high), abs=0.09)
    assert 0 <= low <= share <= high <= 1
    assert high - low > 0.15


def test_accuracy_of_two_correct_proteins_of_two_is_not_certain():
    low, high = jackknife_interval(1.0, jackknife(mean_of(np.ones(2)), 2)["mean"], metric="accuracy", num_units=2)

    assert low == pytest.approx(2 / (2 + stats.norm.ppf(0.975) ** 2))
    assert high == 1


@pytest.mark.parametrize(("metric", "value"), [("mcc", 1.0), ("mcc", -1.0), ("auroc", 1.0), ("rmse", 0.0), ("r2", 1.0)])
def test_perfect_metric_that_no_protein_changes_has_no_interval(metric, value):
    assert jackknife_interval(value, np.full(50, value), metric=metric, num_units=50) is None


def test_metric_that_cannot_vary_has_an_interval_of_zero_width():
    assert jackknife_interval(0.5, np.full(50, 0.5), metric="auroc", num_units=50) == (0.5, 0.5)
    assert jackknife_interval(0.0, np.full(50, 0.0), metric="mcc", num_units=50) == (0.0, 0.0)


def test_metric_that_is_undefined_without_one_protein_has_no_interval():
    truth, probability = np.array([1, 0, 0, 0, 0, 0]), np.linspace(0.9, 0.1, 6)
    measure = classification_measure(truth, np.stack([1 - probability, probability], axis=1))

    assert point_metrics(measure, 6)["auroc"] == 1
    assert jackknife_interval(1.0, jackknife(measure, 6)["auroc"], metric="auroc", num_units=6) is None


@pytest.mark.parametrize("metric", SCALES)
@pytest.mark.parametrize("variance", [1e-12, 0.01, 1.0, 100.0])
def test_interval_contains_the_value_and_stays_in_the_range_of_the_metric(metric, variance):
    bottom = {"correlation": -1.0, "explained": -np.inf}.get(SCALES[metric], 0.0)
    top = np.inf if SCALES[metric] == "error" else 1.0

    for value in (0.001, 0.4, 0.999):
        low, high = interval(value, Spread(variance=variance, freedom=5), metric=metric, num_units=50)

        assert bottom <= low <= value <= high <= top
        assert np.isfinite([low, high]).all()


def test_intervals_of_mse_and_rmse_agree():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=200)
    measure = regression_measure(truth, truth + rng.normal(size=200))
    exact, without = point_metrics(measure, 200), jackknife(measure, 200)

    spans = {
        name: jackknife_interval(exact[name], without[name], metric=name, num_units=200) for name in ("mse", "rmse")
    }

    assert np.sqrt(spans["mse"]) == pytest.approx(spans["rmse"], rel=1e-2)


def test_variance_between_training_runs_widens_an_interval():
    values = np.random.default_rng(0).normal(size=50)
    without = jackknife(mean_of(values), 50)["mean"]

    narrow = jackknife_interval(values.mean(), without, metric="mean", num_units=50)
    wide = jackknife_interval(
        values.mean(), without, metric="mean", num_units=50, extra_variance=3 * values.var(ddof=1) / 50
    )

    assert wide[1] - wide[0] == pytest.approx(2 * (narrow[1] - narrow[0]), rel=0.05)


def test_intervals_of_a_correlation_cover_the_true_value_at_the_nominal_rate():
    rng, covered = np.random.default_rng(0), []
    for _ in range(300):
        truth = rng.normal(size=60)
        measure = regression_measure(truth, 0.6 * truth + 0.8 * rng.normal(size=60))
        value = point_metrics(measure, 60)["spearman"]
        low, high = jackknife_interval(value, jackknife(measure, 60)["spearman"], metric="spearman", num_units=60)
        covered.append(low <= 6 / np.pi * np.arcsin(0.6 / 2) <= high)

    assert 0.92 <= np.mean(covered) <= 0.98
