import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler

from protembed.config.common import TASKS
from protembed.finetuning import probes
from protembed.finetuning.probes import Probe, ProbeData, fit_linear, fit_network, loss

CLASSES, LABELS, VALUES = TASKS["classification"], TASKS["multilabel"], TASKS["regression"]
RNG = np.random.default_rng(0)
# Features of very different scales, and one that is constant.
VECTORS = (RNG.normal(size=(90, 6)) * [1, 100, 0.01, 5, 1, 0] + [0, 50, 3, -9, 0, 7]).astype(np.float32)
SCALED = StandardScaler().fit(VECTORS[:60]).transform(VECTORS.astype(np.float64))
SIGNAL = SCALED @ [1.0, -2, 0.5, 0, 0, 0] + 0.3 * RNG.normal(size=90)
VALUE = 1000 + 50 * SIGNAL
# Three labels: two that depend on the vectors, and one that is noise.
LABEL = np.stack([SIGNAL > 1, SCALED[:, 3] > 0, RNG.random(90) < 0.3], axis=1).astype(np.float32)
TRAIN, VALID, TEST = slice(60), slice(60, 75), slice(75, 90)
# Of probabilities, because a solver stops near its optimum.
TOLERANCE = 5e-3
STRENGTHS, PENALTIES = (0.001, 0.01, 0.1, 1, 10), (0.1, 1, 10, 100, 1e3, 1e4, 1e5)


def in_classes(num_classes):
    return np.digitize(SIGNAL, np.quantile(SIGNAL, np.arange(1, num_classes) / num_classes))


def fit(task, num_classes, targets, how=fit_linear, vectors=VECTORS, **options):
    train, valid = (ProbeData(vectors=vectors[rows], targets=targets[rows]) for rows in (TRAIN, VALID))
    return how(task, num_classes, train, valid, **options)


def best_logistic(targets, vectors=SCALED, strengths=STRENGTHS, **options):
    """Fit scikit-learn's logistic regression with the penalty that has the highest validation likelihood."""

    def likelihood(model):
        return model.predict_log_proba(vectors[VALID])[range(15), targets[VALID]].sum()

    models = [LogisticRegression(C=c, max_iter=5000, tol=1e-8, **options) for c in strengths]
    return max((model.fit(vectors[TRAIN], targets[TRAIN]) for model in models), key=likelihood)


# Linear probes


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("num_classes", [2, 3])
def test_class_probabilities_equal_those_of_scikit_learn_on_standardised_vectors(num_classes, balanced):
    classes = in_classes(num_classes) if not balanced else np.minimum(in_classes(6), num_classes - 1)

    fitted = fit(CLASSES, num_classes, classes, balanced=balanced)

    best = best_logistic(classes, class_weight="balanced" if balanced else None)
    assert fitted.predict(VECTORS[TEST]) == pytest.approx(best.predict_proba(SCALED[TEST]), abs=TOLERANCE)
    assert (fitted.predict(VECTORS[TEST]).argmax(1) == classes[TEST]).mean() > 0.6


def test_each_label_has_a_regression_and_all_share_one_penalty():
    fitted = fit(LABELS, 3, LABEL)

    def probabilities(strength, rows):
        models = [LogisticRegression(C=strength, max_iter=5000).fit(SCALED[TRAIN], label[TRAIN]) for label in LABEL.T]
        return np.stack([model.predict_proba(SCALED[rows])[:, 1] for model in models], axis=1)

    def cost(strength):
        likely = probabilities(strength, VALID)
        return -np.log(np.where(LABEL[VALID] == 1, likely, 1 - likely)).mean()

    best = min(STRENGTHS, key=cost)
    assert fitted.predict(VECTORS[TEST]) == pytest.approx(probabilities(best, TEST), abs=TOLERANCE)


def test_values_equal_those_of_scikit_learn_in_the_units_of_the_labels():
    fitted = fit(VALUES, 0, VALUE)

    models = [Ridge(alpha=penalty).fit(SCALED[TRAIN], VALUE[TRAIN]) for penalty in PENALTIES]
    best = max(models, key=lambda model: model.score(SCALED[VALID], VALUE[VALID]))
    assert fitted.predict(VECTORS[TEST]) == pytest.approx(best.predict(SCALED[TEST]), abs=0.1)
    assert (fitted.offset, fitted.scale) == pytest.approx((VALUE[TRAIN].mean(), VALUE[TRAIN].std()))


def test_noise_gets_the_strongest_penalty():
    noise = np.random.default_rng(1).normal(size=90)

    assert fit(VALUES, 0, noise).predict(VECTORS[TEST]) == pytest.approx(np.full(15, noise[TRAIN].mean()), abs=0.1)


@pytest.mark.parametrize("num_valid", [1, 3])
def test_one_validation_value_is_enough_to_choose_a_penalty(num_valid):
    # These labels are the training mean, which a strong penalty predicts best.
    train = ProbeData(vectors=VECTORS[TRAIN], targets=SIGNAL[TRAIN])
    valid = ProbeData(vectors=VECTORS[60 : 60 + num_valid], targets=np.full(num_valid, SIGNAL[TRAIN].mean()))

    fitted = fit_linear(VALUES, 0, train, valid)

    assert fitted.predict(VECTORS[TEST]) == pytest.approx(np.full(15, SIGNAL[TRAIN].mean()), abs=0.1)


def test_predictions_are_finite_for_validation_vectors_far_from_all_others():
    vectors = VECTORS.copy()
    vectors[VALID] *= 1e5

    fitted = fit(CLASSES, 2, in_classes(2), vectors=vectors)

    assert np.isfinite(fitted.predict(vectors)).all()


# Missing classes and labels


@pytest.mark.parametrize(("occurring", "missing"), [((0, 2), (1, 3)), ((0, 1, 3), (2,)), ((2,), (0, 1, 3))])
def test_a_class_without_training_proteins_is_never_predicted(occurring, missing):
    classes = np.array(occurring)[in_classes(len(occurring))]

    fitted = fit(CLASSES, 4, classes)

    predictions = fitted.predict(VECTORS[TEST])
    assert predictions[:, missing].max() < 1e-4
    if len(occurring) > 1:
        alone = fit(CLASSES, len(occurring), in_classes(len(occurring)))
        assert predictions[:, occurring] == pytest.approx(alone.predict(VECTORS[TEST]), abs=TOLERANCE)


def test_labels_of_all_or_no_training_proteins_are_predicted_for_all_or_none():
    labels = LABEL.copy()
    labels[TRAIN, 1], labels[TRAIN, 2] = 1, 0

    predictions = fit(LABELS, 3, labels).predict(VECTORS[TEST])

    assert predictions[:, 1].min() > 0.9999
    assert predictions[:, 2].max() < 0.0001
    assert 0.01 < predictions[:, 0].std()


# Counts


def test_counts_are_not_standardised():
    rng = np.random.default_rng(3)
    counts = sparse.csr_array(rng.poisson(0.5, size=(90, 40)).astype(np.float32))
    classes = (counts[:, [0, 1]].sum(1) > counts[:, [2, 3]].sum(1)).astype(int)

    fitted = fit(CLASSES, 2, classes, vectors=counts)

    best = best_logistic(classes, vectors=counts, strengths=(0.1, 1, 10, 100))
    # Nearly separable: the optimum is flat.
    assert fitted.predict(counts[TEST]) == pytest.approx(best.predict_proba(counts[TEST]), abs=4 * TOLERANCE)
    assert fitted.predict(counts[TEST]) == pytest.approx(fitted.predict(counts[TEST].toarray()), abs=1e-6)


def test_values_predicted_from_counts_equal_those_of_a_ridge_regression():
    rng = np.random.default_rng(3)
    counts = sparse.csr_array(rng.poisson(0.5, size=(90, 20)).astype(np.float32))
    values = counts @ rng.normal(size=20) + 0.1 * rng.normal(size=90)

    fitted = fit(VALUES, 0, values, vectors=counts)

    models = [Ridge(alpha=c).fit(counts[TRAIN].toarray(), values[TRAIN]) for c in (1e-3, 0.01, 0.1, 1, 10, 100)]
    best = max(models, key=lambda model: model.score(counts[VALID].toarray(), values[VALID]))
    assert fitted.predict(counts[TEST]) == pytest.approx(best.predict(counts[TEST].toarray()), abs=0.02)


# Networks


@pytest.mark.parametrize(
    ("task", "num_classes", "targets"),
    [(CLASSES, 2, in_classes(2)), (CLASSES, 3, in_classes(3)), (LABELS, 3, LABEL), (VALUES, 0, VALUE)],
    ids=["two classes", "three classes", "labels", "values"],
)
def test_a_network_predicts_the_same_as_that_of_scikit_learn(task, num_classes, targets):
    fitted = fit(task, num_classes, targets, fit_network, seed=3, max_epochs=5)

    options = {"hidden_layer_sizes": (64,), "alpha": 1e-3, "random_state": 3}
    network = MLPRegressor(**options) if task is VALUES else MLPClassifier(**options)
    mean, std = (VALUE[TRAIN].mean(), VALUE[TRAIN].std()) if task is VALUES else (0, 1)
    truth = (targets[TRAIN] - mean) / std if task is VALUES else targets[TRAIN]
    # Within five epochs the validation loss does not rise, so that the last epoch is the best.
    for _ in range(5):
        network.partial_fit(SCALED[TRAIN], truth, **({} if task is VALUES else {"classes": np.arange(num_classes)}))
    expected = network.predict(SCALED[TEST]) * std + mean if task is VALUES else network.predict_proba(SCALED[TEST])
    assert fitted.predict(VECTORS[TEST]) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_a_network_has_the_weights_of_its_best_epoch_and_stops_when_none_is_better(monkeypatch):
    measured = []
    monkeypatch.setattr(probes, "loss", lambda probe, data: measured.append(loss(probe, data)) or measured[-1])
    noise = np.random.default_rng(2).integers(2, size=90)

    fitted = fit(CLASSES, 2, noise, fit_network, seed=0)

    assert loss(fitted, ProbeData(vectors=VECTORS[VALID], targets=noise[VALID])) == min(measured)
    assert len(measured) == int(np.argmin(measured)) + 1 + 10 < 200


def test_a_network_learns_a_single_label():
    predictions = fit(LABELS, 1, LABEL[:, :1], fit_network, seed=0).predict(VECTORS[TEST])

    assert predictions.shape == (15, 1)
    assert np.corrcoef(predictions[:, 0], SIGNAL[TEST])[0, 1] > 0.7


# Heads


@pytest.mark.parametrize("how", [fit_linear, fit_network])
@pytest.mark.parametrize(
    ("task", "classes", "targets"),
    [
        (CLASSES, ("no", "yes"), in_classes(2)),
        (CLASSES, ("low", "middle", "high"), in_classes(3)),
        (LABELS, ("a", "b", "c"), LABEL),
        (VALUES, None, VALUE),
        (TASKS["residue-classification"], ("H", "E", "C"), in_classes(3)),
        (TASKS["residue-regression"], None, VALUE),
    ],
)
def test_a_head_predicts_the_same_as_the_probe_that_it_is_made_from(how, task, classes, targets):
    options = {"seed": 0, "max_epochs": 3} if how is fit_network else {}
    fitted = fit(task, len(classes or ()), targets, how, **options)

    head = fitted.to_head(classes)

    with torch.no_grad():
        predicted = head.predict(torch.from_numpy(VECTORS[TEST])).numpy()
    assert predicted == pytest.approx(fitted.predict(VECTORS[TEST]), rel=1e-4, abs=1e-4)
    assert (head.task, head.classes, head.training) == (task, classes, False)
    assert (head.hidden is None) == (how is fit_linear)


# The loss


def test_the_loss_is_in_nats_or_half_squared_standard_deviations():
    layer = (np.array([[1.0], [-1.0]]), np.array([0.5, 0.0]))
    vectors = np.array([[2.0], [-3.0]])
    logits = vectors @ layer[0].T + layer[1]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    yes = 1 / (1 + np.exp(-logits))
    labels = np.array([[1.0, 0.0], [1.0, 1.0]])

    def measured(task, targets, **scale):
        layers = [layer] if task is not VALUES else [(layer[0][:1], layer[1][:1])]
        return loss(Probe(task=task, layers=layers, **scale), ProbeData(vectors=vectors, targets=targets))

    assert measured(CLASSES, np.array([0, 0])) == pytest.approx(-np.log(probabilities[:, 0]).mean())
    assert measured(LABELS, labels) == pytest.approx(-np.log(np.where(labels == 1, yes, 1 - yes)).mean())
    # Predicted are 2.5 and -2.5 standard deviations; true are 3 and -1.
    assert measured(VALUES, np.array([16.0, 8.0]), offset=10.0, scale=2.0) == pytest.approx((0.5**2 + 1.5**2) / 4)
