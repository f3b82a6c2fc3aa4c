import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from protembed.training.linear import fit_classifier, fit_values

RNG = np.random.default_rng(0)
# Of very different scales, and one that never varies.
VECTORS = (RNG.normal(size=(90, 6)) * [1, 100, 0.01, 5, 1, 0] + [0, 50, 3, -9, 0, 7]).astype(np.float32)
SCALED = StandardScaler().fit(VECTORS[:60]).transform(VECTORS)
TRAIN, VALID, TEST = VECTORS[:60], VECTORS[60:75], VECTORS[75:]
SIGNAL = SCALED @ [1.0, -2, 0.5, 0, 0, 0] + 0.3 * RNG.normal(size=90)


def outputs(head, vectors):
    with torch.no_grad():
        return head.predict(torch.from_numpy(vectors)).numpy()


@pytest.mark.parametrize("classes", [("no", "yes"), ("low", "middle", "high")])
def test_a_classifier_predicts_what_scikit_learn_predicts_on_standardised_vectors(classes):
    labels = np.digitize(SIGNAL, np.quantile(SIGNAL, np.arange(1, len(classes)) / len(classes)))

    head = fit_classifier(TRAIN, labels[:60], (VALID, labels[60:75]), classes)

    fitted = [LogisticRegression(C=c, max_iter=5000).fit(SCALED[:60], labels[:60]) for c in (0.001, 0.01, 0.1, 1, 10)]
    likelihoods = [model.predict_log_proba(SCALED[60:75])[range(15), labels[60:75]].mean() for model in fitted]
    best = fitted[int(np.argmax(likelihoods))]
    assert head.classes == classes
    assert outputs(head, TEST) == pytest.approx(best.predict_proba(SCALED[75:]), abs=1e-4)
    assert (outputs(head, TEST).argmax(1) == labels[75:]).mean() > 0.7


def test_a_regressor_predicts_what_scikit_learn_predicts_in_the_units_of_the_labels():
    values = 1000 + 50 * SIGNAL

    head = fit_values(TRAIN, values[:60], (VALID, values[60:75]))

    penalties = (0.1, 1, 10, 100, 1e3, 1e4, 1e5)
    fitted = [Ridge(alpha=penalty).fit(SCALED[:60], values[:60]) for penalty in penalties]
    best = max(fitted, key=lambda model: model.score(SCALED[60:75], values[60:75]))
    assert outputs(head, TEST) == pytest.approx(best.predict(SCALED[75:]), abs=0.1)
    assert head.offset.item() == pytest.approx(values[:60].mean())
    assert head.scale.item() == pytest.approx(values[:60].std())


def test_noise_is_given_the_strongest_penalty():
    noise = np.random.default_rng(1).normal(size=75)

    head = fit_values(TRAIN, noise[:60], (VALID, noise[60:]))

    assert outputs(head, TEST) == pytest.approx(np.full(15, noise[:60].mean()), abs=0.1)


@pytest.mark.parametrize("num_valid", [1, 3])
def test_one_value_in_the_validation_part_is_enough_to_choose_a_penalty(num_valid):
    values = np.where(np.arange(75) < 60, SIGNAL[:75], SIGNAL[:60].mean())

    head = fit_values(TRAIN, values[:60], (VALID[:num_valid], values[60 : 60 + num_valid]))

    # These labels are the training mean, which a strong penalty predicts best.
    assert outputs(head, TEST) == pytest.approx(np.full(15, SIGNAL[:60].mean()), abs=0.1)


def test_validation_proteins_far_from_all_others_are_no_trouble():
    labels = (SIGNAL > 0).astype(int)

    head = fit_classifier(TRAIN, labels[:60], (VALID * 1e5, labels[60:75]), ("no", "yes"))

    assert np.isfinite(outputs(head, TEST)).all()
