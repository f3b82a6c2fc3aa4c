import numpy as np
import pytest

from protembed.attention.contact_predictors import ContactEvaluation
from protembed.attention.significance import LabelledScores, permutation_test
from protembed.attention.sites import SiteResult
from protembed.attention.tables import STATISTIC_LABELS, Evaluation


@pytest.fixture(scope="module")
def evaluation(random_statistics):
    rng = np.random.default_rng(0)
    scores = LabelledScores(values=rng.random((6, 40)), is_labelled=np.arange(40) < 9, strata=np.zeros(40, int))
    test = permutation_test([scores], num_permutations=100)
    contacts = ContactEvaluation(
        head_precisions=rng.random(6),
        random_precision=0.04,
        significance=test,
        precisions={},
        fitted=None,
        num_proteins=1,
    )
    sites = {label: SiteResult(significance=test, num_residues=9, num_segments=1) for label in ("a", "b")}
    return Evaluation(statistics=random_statistics(), contacts=contacts, sites=sites)


@pytest.fixture(params=["head", "precision", "site"])
def columns(request, evaluation):
    return getattr(evaluation, f"{request.param}_columns")()


def test_labels_of_columns_are_unique_and_have_no_underscores(columns):
    labels = [column.label or column.name for column in columns]

    assert len(set(labels)) == len(labels)
    assert not any("_" in label for label in labels)


def test_columns_of_a_table_are_equally_long(columns):
    assert len({len(column.values) for column in columns}) == 1


def test_layers_and_heads_are_numbered_from_one_in_the_order_of_the_maps(evaluation):
    layers, heads, entropy = (column.values.tolist() for column in evaluation.head_columns()[:3])

    assert (layers, heads) == ([1, 1, 1, 2, 2, 2], [1, 2, 3, 1, 2, 3])
    assert entropy == evaluation.statistics.means[0].ravel().tolist()


def test_labels_of_statistics_include_their_units():
    assert STATISTIC_LABELS["entropy"] == "entropy (nats)"
    assert STATISTIC_LABELS["mean_distance"] == "mean distance (residues)"
    assert STATISTIC_LABELS["on_W"] == "fraction on Trp (W)"
