import json

import numpy as np
import pytest
from scipy.stats import spearmanr

from protembed.data.alphabet import AMINO_ACIDS
from protembed.scoring.baselines import (
    BLOSUM62,
    POSITION_INDEPENDENT,
    MeasuredComparison,
    SubstitutionMeans,
    blosum62,
    spearman_with_interval,
)


@pytest.fixture
def measured():
    return np.random.default_rng(0).normal(size=400)


@pytest.fixture
def groups():
    return np.repeat(np.arange(40), 10)


def noisy(measured, scale, seed=1):
    return measured + np.random.default_rng(seed).normal(scale=scale, size=len(measured))


def compare(measured, model, baseline, groups):
    return MeasuredComparison.measure("DMS_score", measured, {"model": model}, {BLOSUM62: baseline}, groups)


def test_blosum62_is_symmetric_and_rewards_identity():
    matrix = blosum62()

    assert matrix.shape == (20, 20) and (matrix == matrix.T).all()
    assert (matrix.diagonal() == matrix.max(1)).all()
    assert matrix[AMINO_ACIDS.index("W"), AMINO_ACIDS.index("W")] == 11


def test_substitution_means_average_over_the_positions_of_a_residue():
    wild_types, scores = np.array([0, 5, 0]), np.random.default_rng(0).normal(size=(3, 20))
    together, apart = SubstitutionMeans(), SubstitutionMeans()

    together.add(wild_types, scores)
    apart.add(wild_types[:1], scores[:1])
    apart.add(wild_types[1:], scores[1:])

    np.testing.assert_allclose(together.matrix()[0], scores[[0, 2]].mean(0))
    np.testing.assert_allclose(together.matrix()[5], scores[1])
    np.testing.assert_allclose(apart.matrix(), together.matrix())
    assert np.isnan(np.delete(together.matrix(), [0, 5], axis=0)).all()


def test_spearman_is_that_of_scipy_and_lies_in_its_interval(measured, groups):
    predicted = noisy(measured, 1.0)

    metric = spearman_with_interval(measured, predicted, groups)

    assert metric.value == pytest.approx(spearmanr(measured, predicted).statistic)
    assert metric.low < metric.value < metric.high


def test_variants_that_repeat_positions_do_not_narrow_the_interval(measured):
    predicted = noisy(measured, 1.0)
    every = np.arange(len(measured))

    once = spearman_with_interval(measured, predicted, every)
    tenfold = spearman_with_interval(np.repeat(measured, 10), np.repeat(predicted, 10), np.repeat(every, 10))

    assert (tenfold.low, tenfold.high) == pytest.approx((once.low, once.high), abs=0.01)


def test_few_groups_have_no_interval(measured):
    metric = spearman_with_interval(measured, noisy(measured, 1.0), np.arange(len(measured)) % 9)

    assert metric.value is not None and metric.low is None


def test_constant_measurements_have_no_correlation(groups):
    comparison = compare(np.ones(400), noisy(np.ones(400), 1.0), np.arange(400.0), groups)

    assert comparison.spearman["model"].value is None
    assert comparison.verdict(BLOSUM62) is None
    assert "undefined" in comparison.lines()[0]


@pytest.mark.parametrize(
    ("model", "baseline", "expected"),
    [
        (0.2, 3.0, "the model ranks these variants better than BLOSUM62"),
        (3.0, 0.2, "the model is no better than BLOSUM62 here, but worse"),
        (1.0, 1.0, "the model is no better than BLOSUM62 here, as far as these variants show"),
    ],
)
def test_verdict_follows_from_the_interval_of_the_difference(model, baseline, expected, measured, groups):
    comparison = compare(measured, noisy(measured, model), noisy(measured, baseline, seed=2), groups)

    assert comparison.verdict(BLOSUM62).startswith(expected)


def test_a_model_that_knows_no_position_is_no_better_than_itself(measured, groups):
    same = noisy(measured, 1.0)
    comparison = MeasuredComparison.measure(
        "DMS_score", measured, {"model": same}, {POSITION_INDEPENDENT: same.copy()}, groups
    )

    assert comparison.differences[POSITION_INDEPENDENT].value == 0
    assert "no better than its position-independent means here" in comparison.verdict(POSITION_INDEPENDENT)


def test_comparison_survives_its_record(measured, groups):
    comparison = compare(measured, noisy(measured, 1.0), noisy(measured, 2.0, seed=2), groups)

    assert MeasuredComparison.from_record(json.loads(json.dumps(comparison.as_record()))) == comparison
