from functools import partial

import numpy as np
import pytest

from bootstrap import NUM_RESAMPLES, bootstrap, bootstrap_interval, interval

# Intervals


def share_of_large(values, draws):
    return {"share": draws @ (values > 0.5) / draws.sum(1)}


def test_an_interval_is_as_wide_as_theory_has_it():
    values = np.random.default_rng(1).random(400)
    share = (values > 0.5).mean()

    low, high = interval(bootstrap(partial(share_of_large, values), 400)["share"])

    standard_error = np.sqrt(share * (1 - share) / 400)
    assert low == pytest.approx(share - 1.96 * standard_error, abs=0.25 * standard_error)
    assert high == pytest.approx(share + 1.96 * standard_error, abs=0.25 * standard_error)


def test_each_resample_draws_as_many_units_as_there_are():
    drawn = bootstrap(lambda draws: {"units": draws.sum(1), "most": draws.max(1)}, 30)

    assert len(drawn["units"]) == NUM_RESAMPLES
    assert set(drawn["units"]) == {30.0}
    assert drawn["most"].min() > 1


def test_measurements_with_the_same_seed_use_the_same_units():
    values = np.random.default_rng(1).random(50)
    one, other = (bootstrap(partial(share_of_large, values + shift), 50, seed=3)["share"] for shift in (0, 10))
    same, different = (bootstrap(partial(share_of_large, values), 50, seed=seed)["share"] for seed in (3, 4))

    assert one.tolist() == same.tolist() != different.tolist()
    # Paired: no resample has a larger share of values above a half than of values above ten less.
    assert (other == 1).all()


def test_many_units_are_drawn_in_parts_and_come_to_the_same_number_of_resamples():
    sizes = []

    drawn = bootstrap(lambda draws: sizes.append(len(draws)) or {"first": draws[:, 0]}, 9_000)

    assert len(sizes) > 2
    assert sum(sizes) == len(drawn["first"]) == NUM_RESAMPLES
    assert drawn["first"].mean() == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize(("num_undefined", "has_one"), [(0, True), (49, True), (50, False), (1_000, False)])
def test_a_figure_that_is_undefined_too_often_has_no_interval(num_undefined, has_one):
    figures = np.linspace(0, 1, 1_000)
    figures[:num_undefined] = np.nan

    found = interval(figures)

    assert (found is not None) == has_one
    if has_one:
        assert found == pytest.approx(tuple(np.quantile(figures[num_undefined:], [0.025, 0.975])))


# One figure


def test_a_bootstrap_interval_is_as_wide_as_theory_has_it():
    values = np.random.default_rng(0).normal(size=400)

    low, high = bootstrap_interval(lambda rows: values[rows].mean(), len(values))

    standard_error = values.std() / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - 1.96 * standard_error, abs=0.15 * standard_error)
    assert high == pytest.approx(values.mean() + 1.96 * standard_error, abs=0.15 * standard_error)


def test_figures_with_one_seed_are_resampled_alike():
    values = np.arange(10.0)
    one, other = (bootstrap_interval(lambda rows: values[rows].mean(), 10, seed=seed) for seed in (3, 3))

    assert one == other
    assert one != bootstrap_interval(lambda rows: values[rows].mean(), 10, seed=4)
