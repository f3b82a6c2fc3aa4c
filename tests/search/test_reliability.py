import numpy as np
import pytest

from protembed.search.reliability import Reliability, calibration_error, cross_fitted


@pytest.fixture(scope="module")
def planted():
    """Features, and labels that are right with a probability that follows from the first one."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(4000, 2)) * [1.0, 30.0]
    probability = 1 / (1 + np.exp(-(0.5 + 1.5 * features[:, 0])))
    return features, probability, (rng.random(4000) < probability).astype(float)


def test_a_planted_probability_is_found(planted):
    features, probability, right = planted

    found = Reliability.fit(features, right, np.arange(4000)).predict(features)

    assert np.abs(found[:, 0] - probability).mean() < 0.02
    assert ((found[:, 1] <= found[:, 0]) & (found[:, 0] <= found[:, 2])).all()
    assert np.mean((found[:, 1] <= probability) & (probability <= found[:, 2])) > 0.8


def test_weights_equal_those_of_scikit_learn(planted):
    from sklearn.linear_model import LogisticRegression

    features, _, right = planted
    standard = (features - features.mean(0)) / features.std(0)

    model = Reliability.fit(features, right, np.arange(4000))

    oracle = LogisticRegression(C=1.0, tol=1e-10).fit(standard, right)
    expected = np.concatenate([oracle.intercept_, oracle.coef_[0]])
    assert np.allclose(model.weights, expected, atol=5e-3)  # the targets are not quite 0 and 1


def test_a_few_labels_that_are_often_wrong_do_not_make_all_others_certain():
    feature, right = np.repeat([0.0, 1.0], [200, 1800])[:, None], np.ones(2000)
    right[:100], right[200:202] = 0.0, 0.0  # half of the few are wrong, and one in 900 of the others

    found = Reliability.fit(feature, right, np.arange(2000)).predict(np.array([[0.0], [1.0]]))

    assert found[:, 0] == pytest.approx([0.5, 1 - 2 / 1800], abs=0.01)
    assert (found[:, 1] < found[:, 0]).all()


def test_intervals_hold_the_true_probability_in_19_of_20_samples():
    rng, covered = np.random.default_rng(0), []
    for _ in range(200):
        features = rng.exponential(size=(300, 1))
        probability = 1 / (1 + np.exp(-1 - features[:, 0]))
        found = Reliability.fit(features, (rng.random(300) < probability).astype(float), np.arange(300))
        low, high = found.predict(np.array([[0.7]]))[0, 1:]
        covered.append(low <= 1 / (1 + np.exp(-1.7)) <= high)

    assert 0.92 <= np.mean(covered) <= 0.98


def test_no_reliability_is_above_that_of_one_more_cluster_after_all_were_right(planted):
    features, right = planted[0][:60], np.ones(60)

    found = Reliability.fit(features, right, np.repeat(np.arange(20), 3)).predict(100 * features)

    assert found[:, :2].max() <= 21 / 22


def test_features_beyond_those_of_the_fit_count_as_the_most_extreme_of_these(planted):
    features, _, right = planted
    model = Reliability.fit(features, right, np.arange(4000))

    extreme = np.stack([features.min(0), features.max(0)])
    assert np.array_equal(model.predict(extreme + [[-9.0], [9.0]]), model.predict(extreme))


def test_members_of_a_cluster_count_less_than_independent_proteins(planted):
    features, _, right = (part[:200] for part in planted)
    repeated = [np.repeat(part, 10, axis=0) for part in (features, right)]

    alone = Reliability.fit(*repeated, np.arange(2000)).predict(features)
    together = Reliability.fit(*repeated, np.repeat(np.arange(200), 10)).predict(features)

    widths = [np.mean(found[:, 2] - found[:, 1]) for found in (alone, together)]
    assert widths[1] / widths[0] == pytest.approx(np.sqrt(10), rel=0.1)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_labels_that_are_all_right_or_all_wrong_have_a_finite_reliability(planted, value):
    features = planted[0][:50]

    found = Reliability.fit(features, np.full(50, value), np.arange(50)).predict(features)

    assert np.isfinite(found).all()
    assert np.abs(found[:, 0] - value).max() < 0.05


def test_a_constant_feature_changes_nothing(planted):
    features, _, right = (part[:300] for part in planted)
    constant = np.column_stack([features, np.ones(300)])

    expected = Reliability.fit(features, right, np.arange(300)).predict(features)

    assert np.allclose(Reliability.fit(constant, right, np.arange(300)).predict(constant), expected)


def test_cross_fitted_reliability_is_calibrated(planted):
    features, _, right = planted

    reliability = cross_fitted(features, right, np.arange(4000) // 4)

    assert calibration_error(reliability, right) < 0.03
    assert calibration_error(np.full(4000, 0.99), right) > 0.3
