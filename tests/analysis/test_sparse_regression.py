import tracemalloc

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from protembed.analysis.sparse_regression import Examples, fit_sparse_logistic


def make_groups(seed=0, num_inputs=12, sizes=(400, 300, 500), scale=1.0):
    """Draw correlated inputs, of which three say what is true."""
    rng = np.random.default_rng(seed)
    groups = []
    for size in sizes:
        inputs = rng.normal(size=(num_inputs, size)) + rng.normal(size=size)
        logits = 1.5 * inputs[0] - inputs[3] + 0.5 * inputs[7] - 2
        is_true = rng.random(size) < 1 / (1 + np.exp(-logits))
        groups.append(Examples(inputs=(scale * inputs).astype(np.float32), is_true=is_true))
    return groups


def laid_together(groups):
    return np.concatenate([one.inputs.T for one in groups]), np.concatenate([one.is_true for one in groups])


# Features of real heads are small, and their weights large.
@pytest.mark.parametrize(("strength", "scale"), [(0.01, 1.0), (0.15, 1.0), (10.0, 1.0), (0.15, 0.01)])
def test_the_fit_is_that_of_liblinear(strength, scale):
    groups = make_groups(scale=scale)
    regression = LogisticRegression(
        l1_ratio=1, C=strength, solver="liblinear", random_state=0, tol=1e-8, max_iter=100_000
    ).fit(*laid_together(groups))

    bias, *weight = fit_sparse_logistic(groups, strength)

    assert bias == pytest.approx(regression.intercept_[0], rel=1e-3)
    np.testing.assert_allclose(weight, regression.coef_[0], rtol=1e-3, atol=1e-4 / scale)
    assert np.array_equal(np.array(weight) == 0, regression.coef_[0] == 0)


def test_how_the_examples_are_grouped_does_not_matter():
    groups = make_groups()
    inputs, is_true = laid_together(groups)

    whole = fit_sparse_logistic([Examples(inputs=inputs.T, is_true=is_true)], 0.15)

    np.testing.assert_allclose(fit_sparse_logistic(groups, 0.15), whole, rtol=1e-6)


def test_an_input_that_is_nothing_gets_no_weight():
    groups = make_groups()
    for one in groups:
        one.inputs[5] = 0

    weight = fit_sparse_logistic(groups, 0.15)

    assert weight[1 + 5] == 0
    assert np.isfinite(weight).all()


def test_a_penalty_that_is_too_strong_leaves_nothing():
    assert not fit_sparse_logistic(make_groups(), 1e-6).any()


@pytest.mark.parametrize("is_true", [False, True])
def test_examples_of_one_kind_teach_nothing(is_true):
    groups = [Examples(inputs=one.inputs, is_true=np.full(len(one.is_true), is_true)) for one in make_groups()]

    with pytest.raises(ValueError, match="one kind"):
        fit_sparse_logistic(groups, 0.15)


def test_the_inputs_are_not_copied(monkeypatch):
    monkeypatch.setattr("protembed.analysis.sparse_regression._AT_ONCE", 1 << 14)
    groups = make_groups(num_inputs=100, sizes=(20_000, 20_000))
    num_bytes = sum(one.inputs.nbytes for one in groups)

    tracemalloc.start()
    fit_sparse_logistic(groups, 0.15)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < num_bytes / 3
