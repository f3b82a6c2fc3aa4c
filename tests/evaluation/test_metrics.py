import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as theirs

from protembed.evaluation.metrics import (
    best_threshold,
    classification_measure,
    confusion_matrix,
    multilabel_measure,
    point_metrics,
    regression_measure,
    residue_classification_measure,
)


def metrics_of(prepare, truth, predictions):
    return point_metrics(prepare(truth, predictions), len(truth))


def certain(*classes, num_classes=2):
    return np.eye(num_classes)[list(classes)]


# Classification


def test_metrics_of_two_classes_equal_hand_computed_values():
    truth = np.array([0, 0, 0, 1, 1, 1])
    probability = np.array([0.1, 0.4, 0.6, 0.3, 0.7, 0.9])

    measured = metrics_of(classification_measure, truth, np.stack([1 - probability, probability], axis=1))

    # Two of three are right in each class; the wrongly ranked pairs are 0.4 over 0.3 and 0.6 over 0.3.
    assert measured == pytest.approx({"accuracy": 4 / 6, "macro_f1": 2 / 3, "mcc": 1 / 3, "auroc": 7 / 9})


def test_metrics_of_three_classes_equal_hand_computed_values():
    truth = np.array([0, 0, 1, 1, 2, 2])

    measured = metrics_of(classification_measure, truth, certain(0, 0, 1, 2, 2, 2, num_classes=3))

    # Class 1 has precision 1 and recall 1/2, class 2 has precision 2/3 and recall 1.
    assert measured["accuracy"] == pytest.approx(5 / 6)
    assert measured["macro_f1"] == pytest.approx((1 + 2 / 3 + 4 / 5) / 3)
    assert measured["auroc"] == pytest.approx((1 + 3 / 4 + 7 / 8) / 3)


def test_metrics_of_a_perfect_classifier_and_its_opposite_are_the_bounds():
    truth = np.array([0, 1, 0, 1])

    assert set(metrics_of(classification_measure, truth, certain(0, 1, 0, 1)).values()) == {1.0}
    assert metrics_of(classification_measure, truth, certain(1, 0, 1, 0)) == {
        "accuracy": 0,
        "macro_f1": 0,
        "mcc": -1,
        "auroc": 0,
    }


@pytest.mark.parametrize(("truth", "predicted"), [([0, 0], [0, 0]), ([0, 0], [0, 1]), ([1], [1]), ([1], [0])])
def test_test_set_of_one_class_has_no_auroc(truth, predicted):
    measured = metrics_of(classification_measure, np.array(truth), certain(*predicted))

    assert measured["auroc"] is None
    assert measured["accuracy"] == np.mean(np.array(truth) == predicted)


def test_perfect_predictions_score_one_if_the_test_set_lacks_a_class():
    assert set(metrics_of(classification_measure, np.array([0, 1]), certain(0, 1, num_classes=3)).values()) == {1.0}


def test_class_that_is_predicted_but_never_true_counts_in_macro_f1_only():
    measured = metrics_of(classification_measure, np.array([0, 1, 1]), certain(0, 1, 2, num_classes=4))

    # F1 is 1 for class 0, 2/3 for class 1 and 0 for class 2; class 3 occurs nowhere. One positive of class 1 ties with
    # the negative.
    assert measured["macro_f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert measured["auroc"] == pytest.approx((1 + 3 / 4) / 2)


@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_classification_metrics_equal_scikit_learn(num_classes):
    rng = np.random.default_rng(num_classes)
    truth = np.append(np.arange(num_classes), rng.integers(num_classes, size=80))
    probabilities = rng.dirichlet(np.ones(num_classes), size=len(truth)) + 0.3 * np.eye(num_classes)[truth]
    probabilities = (np.round(probabilities, 1) + 0.05) / (np.round(probabilities, 1) + 0.05).sum(1, keepdims=True)
    predicted = probabilities.argmax(1)

    measured = metrics_of(classification_measure, truth, probabilities)

    scores = probabilities[:, 1] if num_classes == 2 else probabilities
    assert measured == pytest.approx(
        {
            "accuracy": theirs.accuracy_score(truth, predicted),
            "macro_f1": theirs.f1_score(truth, predicted, average="macro"),
            "mcc": theirs.matthews_corrcoef(truth, predicted),
            "auroc": theirs.roc_auc_score(truth, scores, multi_class="ovr"),
        },
        rel=1e-12,
    )


def test_auroc_is_the_mean_over_classes_that_have_proteins():
    rng = np.random.default_rng(0)
    truth, probabilities = rng.choice([0, 2, 3], size=50), rng.dirichlet(np.ones(4), size=50)

    measured = metrics_of(classification_measure, truth, probabilities)

    each = [theirs.roc_auc_score(truth == number, probabilities[:, number]) for number in (0, 2, 3)]
    assert measured["auroc"] == pytest.approx(np.mean(each))


# Confusions


def test_confusion_matrix_counts_predicted_classes_by_true_class():
    truth, predicted = np.array([0, 2, 2, 1, 2]), certain(0, 1, 2, 1, 1, num_classes=3)

    assert confusion_matrix(truth, predicted).tolist() == [[1, 0, 0], [0, 1, 0], [0, 2, 1]]


def pairs_of(confusion):
    """List the true and the predicted class of each residue that a confusion matrix counts."""
    return np.repeat(np.indices(np.shape(confusion)).reshape(2, -1), np.ravel(confusion), axis=1)


def residue_metrics(truth, probabilities):
    return point_metrics(residue_classification_measure([truth], [probabilities]), 1)


@pytest.mark.parametrize(
    "confusion",
    [
        [[50, 3], [7, 2]],
        [[5, 1, 0], [2, 9, 4], [0, 0, 30]],
        [[5, 1, 0], [2, 9, 0], [0, 0, 0]],  # a class that occurs nowhere
        [[0, 4, 0], [0, 3, 0], [0, 5, 0]],  # always the same guess
    ],
)
def test_metrics_of_residue_classes_equal_scikit_learn(confusion):
    truth, predicted = pairs_of(confusion)

    measured = residue_metrics(truth, certain(*predicted, num_classes=len(confusion)))

    assert measured == pytest.approx(
        {
            "accuracy": theirs.accuracy_score(truth, predicted),
            "macro_f1": theirs.f1_score(truth, predicted, average="macro", zero_division=0),
            "mcc": theirs.matthews_corrcoef(truth, predicted),
        }
    )


@pytest.mark.parametrize(("confusion", "accuracy"), [([[9, 0], [0, 0]], 1), ([[0, 0, 0], [0, 4, 0], [0, 0, 0]], 1)])
def test_residues_of_one_class_have_no_mcc(confusion, accuracy):
    truth, predicted = pairs_of(confusion)

    measured = residue_metrics(truth, certain(*predicted, num_classes=len(confusion)))

    assert (measured["mcc"], measured["accuracy"]) == (None, accuracy)


# Labels


def random_labels(num_proteins=60, num_labels=6):
    """Make labels, the first of which never occurs and some proteins lack, and predictions with two decimals."""
    rng = np.random.default_rng(0)
    truth = (rng.random((num_proteins, num_labels)) < [0, 0.05, 0.1, 0.2, 0.3, 0.5]).astype(float)
    return truth, np.round(0.6 * rng.random(truth.shape) * rng.random((num_proteins, 1)) + 0.3 * truth, 2)


def plain_fmax(truth, probabilities):
    best = 0.0
    for threshold in range(1, 100):
        precisions, recalls = [], []
        for true, likely in zip(truth, probabilities, strict=True):
            chosen = {label for label, probability in enumerate(likely) if probability >= threshold / 100}
            has = set(np.flatnonzero(true))
            if chosen:
                precisions.append(len(chosen & has) / len(chosen))
            if has:
                recalls.append(len(chosen & has) / len(has))
        precision, recall = (sum(part) / max(1, len(part)) for part in (precisions, recalls))
        if precision + recall:
            best = max(best, 2 * precision * recall / (precision + recall))
    return best


def test_fmax_is_the_best_f1_over_thresholds():
    truth, probabilities = random_labels()

    assert metrics_of(multilabel_measure, truth, probabilities)["fmax"] == pytest.approx(
        plain_fmax(truth, probabilities)
    )
    assert 0.3 < plain_fmax(truth, probabilities) < 0.95


def test_auprc_is_the_mean_over_the_labels_that_occur():
    truth, probabilities = random_labels()

    each = [theirs.average_precision_score(truth[:, label], probabilities[:, label]) for label in range(1, 6)]

    assert metrics_of(multilabel_measure, truth, probabilities)["auprc"] == pytest.approx(np.mean(each))


def test_multilabel_metrics_equal_hand_computed_values():
    truth = np.array([[1, 0], [1, 1], [0, 0]])
    probabilities = np.array([[0.9, 0.6], [0.7, 0.5], [0.1, 0.1]])

    # Precisions and recalls of both proteins by threshold. 0.2 to 0.5: 1/2 and 1, 1 and 1. 0.51 to 0.6: 1/2 and 1,
    # 1 and 1/2. 0.61 to 0.7: 1 and 1, 1 and 1/2.
    assert metrics_of(multilabel_measure, truth, probabilities) == pytest.approx(
        {"auprc": (1 + 1 / 2) / 2, "fmax": 6 / 7}
    )


def test_multilabel_metrics_are_undefined_without_labels():
    assert metrics_of(multilabel_measure, np.zeros((3, 2)), np.full((3, 2), 0.7)) == {"auprc": None, "fmax": None}


def test_perfect_multilabel_predictions_score_one():
    truth = np.array([[1.0, 0], [1, 1], [0, 0]])

    assert metrics_of(multilabel_measure, truth, 0.6 * truth) == {"auprc": 1.0, "fmax": 1.0}


def test_best_threshold_is_the_lowest_of_equally_good_ones():
    assert best_threshold(np.array([[1.0, 0]]), np.array([[0.8, 0.25]])) == pytest.approx(0.26)


def test_best_threshold_is_the_lowest_at_which_all_predictions_are_right():
    truth, probabilities = np.array([[1, 0], [1, 1], [0, 0]]), np.array([[0.3, 0.15], [0.4, 0.2], [0.1, 0.05]])

    assert best_threshold(truth, probabilities) == pytest.approx(0.16)  # from 0.16 to 0.2 all are right


def test_best_threshold_is_one_at_which_fmax_is_reached():
    truth, probabilities = random_labels()

    certain_labels = (probabilities >= best_threshold(truth, probabilities)).astype(float)

    assert plain_fmax(truth, certain_labels) == pytest.approx(plain_fmax(truth, probabilities))


# Regression


def test_regression_metrics_equal_hand_computed_values():
    measured = metrics_of(regression_measure, np.array([1.0, 2, 3, 4]), np.array([1.0, 2, 4, 3]))

    assert measured == pytest.approx({"spearman": 0.8, "rmse": 0.5**0.5, "mse": 0.5, "r2": 1 - 2 / 5})


def test_spearman_depends_on_ranks_only_and_other_metrics_on_units():
    measured = metrics_of(regression_measure, np.array([1.0, 2, 3]), np.array([10.0, 20, 1000]))

    assert measured["spearman"] == pytest.approx(1)
    assert measured["mse"] == pytest.approx((9**2 + 18**2 + 997**2) / 3)
    assert measured["r2"] < 0


def test_predicting_the_mean_has_an_r2_of_zero():
    assert metrics_of(regression_measure, np.array([1.0, 2, 3]), np.full(3, 2.0)) == pytest.approx(
        {"spearman": None, "rmse": (2 / 3) ** 0.5, "mse": 2 / 3, "r2": 0}
    )


@pytest.mark.parametrize("truth", [[3.0], [3.0, 3.0]])
def test_constant_values_have_neither_spearman_nor_r2(truth):
    measured = metrics_of(regression_measure, np.array(truth), np.arange(len(truth)) + 2.0)

    assert (measured["spearman"], measured["r2"]) == (None, None)
    assert measured["mse"] == pytest.approx(1.0 if len(truth) == 1 else 0.5)


def test_regression_metrics_equal_scikit_learn_and_scipy():
    rng = np.random.default_rng(0)
    truth = np.round(rng.normal(size=60), 1)
    predicted = np.round(truth + rng.normal(size=60), 1)

    mse = theirs.mean_squared_error(truth, predicted)
    assert metrics_of(regression_measure, truth, predicted) == pytest.approx(
        {
            "spearman": stats.spearmanr(truth, predicted).statistic,
            "rmse": mse**0.5,
            "mse": mse,
            "r2": theirs.r2_score(truth, predicted),
        },
        rel=1e-12,
    )


def test_r2_stays_below_one_without_warnings_for_values_over_fifteen_powers_of_ten():
    rng = np.random.default_rng(0)
    truth = 10 ** rng.uniform(-12, 3, size=60)
    predicted = truth * 10 ** rng.normal(scale=0.1, size=60)
    draws = rng.multinomial(6, np.full(60, 1 / 60), size=500).astype(float)

    measured = regression_measure(truth, predicted)(draws)["r2"]

    assert measured.max() <= 1
    for drawn, r2 in zip(draws.astype(int), measured, strict=True):
        rows = np.repeat(np.arange(60), drawn)
        assert r2 == pytest.approx(theirs.r2_score(truth[rows], predicted[rows]), rel=1e-9, abs=1e-9)
