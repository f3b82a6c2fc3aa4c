from dataclasses import replace

import numpy as np
import pytest
import torch

from protembed.config.common import TASKS
from protembed.config.finetune import FinetuneConfig
from protembed.data.alphabet import AMINO_ACIDS
from protembed.evaluation.metrics import best_threshold
from protembed.finetuning import baselines
from protembed.finetuning.baselines import (
    MAX_RESIDUES,
    FrozenEncoder,
    composition,
    constant_baseline,
    kmer_vectorizer,
    one_hot_window,
    residue_sample,
    sequence_baselines,
)
from protembed.finetuning.comparison import Predictions
from protembed.finetuning.probes import ProbeData, fit_linear, loss
from protembed.finetuning.targets import TaskTable
from protembed.inference.embedding import Embedder
from protembed.inference.engine import Engine

LABELS = {
    "classification": lambda sequence: "many" if sequence.count("L") > 0.1 * len(sequence) else "few",
    "multilabel": lambda sequence: ";".join(name for name in "WCH" if name in sequence),
    "regression": lambda sequence: str(sequence.count("L") / len(sequence)),
    "residue-classification": lambda sequence: "".join("h" if letter in "ILVFM" else "-" for letter in sequence),
    "residue-regression": lambda sequence: ";".join(
        str(1.0 * "ACDEFGHIKLMNPQRSTVWYXB".index(letter)) for letter in sequence
    ),
}


# Features


def test_composition_is_the_fraction_of_each_amino_acid_among_all_residues():
    fractions = composition(["AAACX", "WYB"])

    expected = np.zeros((2, 20))
    expected[0, [AMINO_ACIDS.index("A"), AMINO_ACIDS.index("C")]] = [3 / 5, 1 / 5]
    expected[1, [AMINO_ACIDS.index("W"), AMINO_ACIDS.index("Y")]] = 1 / 3
    assert fractions == pytest.approx(expected)
    assert fractions.dtype == np.float32


def test_composition_of_unknown_residues_is_zero():
    assert composition(["XXX"]).tolist() == [[0.0] * 20]


def test_kmers_of_one_to_three_residues_are_counted_and_rare_ones_have_higher_weights():
    vectorizer = kmer_vectorizer(["MKMK", "MA"])
    columns = vectorizer.vocabulary_

    counts = vectorizer.transform(["MKMK"]).toarray()[0]

    assert set(columns) == {"M", "K", "A", "MK", "KM", "MA", "MKM", "KMK"}
    # scikit-learn adds a sequence with all k-mers: two of three have a rare one, all have a usual one. Two occurrences
    # count 1 + log 2.
    rare, usual = np.log(3 / 2) + 1, np.log(3 / 3) + 1
    expected = {
        **{"M": usual * (1 + np.log(2)), "K": rare * (1 + np.log(2)), "MK": rare * (1 + np.log(2))},
        **{"KM": rare, "MKM": rare, "KMK": rare, "A": 0.0, "MA": 0.0},
    }
    length = np.linalg.norm(list(expected.values()))
    assert {name: counts[column] for name, column in columns.items()} == pytest.approx(
        {name: value / length for name, value in expected.items()}
    )


def test_kmers_that_occur_in_no_training_sequence_are_not_counted():
    assert kmer_vectorizer(["MKMK"]).transform(["WWW", "WMW"]).toarray().sum(1).tolist() == [0.0, 1.0]


def window_by_hand(sequence, index):
    ones = np.zeros((15, 22))
    for position in range(15):
        neighbour = index - 7 + position
        if not 0 <= neighbour < len(sequence):
            ones[position, 21] = 1
        elif sequence[neighbour] in AMINO_ACIDS:
            ones[position, AMINO_ACIDS.index(sequence[neighbour])] = 1
        else:
            ones[position, 20] = 1
    return ones.ravel()


@pytest.mark.parametrize("sequence", ["M", "MKXWB", "ACDEFGHIKLMNPQRSTVWYU"])
def test_a_window_holds_a_residue_and_seven_on_each_side(sequence):
    indices = np.arange(len(sequence))[::-1]

    windows = one_hot_window(sequence, indices)

    assert windows.shape == (len(sequence), 15 * 22)
    assert windows.toarray().tolist() == [window_by_hand(sequence, index).tolist() for index in indices]


def test_no_residues_have_no_windows(proteins):
    assert one_hot_window(proteins[0], np.array([], np.int64)).shape == (0, 15 * 22)


# Baselines without a model


@pytest.fixture(scope="module")
def labelled(make_table):
    """Make the table of a task, whose labels depend on the sequences."""

    def make(task):
        return TaskTable.from_table(make_table(LABELS[task]), TASKS[task])

    return make


def measured(table, baseline):
    predictions = Predictions(task=table.task, truth=table.targets["test"], predicted=baseline.predictions)
    return {name: metric.value for name, metric in predictions.measure().items()}


def test_the_majority_baseline_predicts_the_training_frequencies_of_classes(labelled):
    table = labelled("classification")

    baseline = constant_baseline(table, table)

    frequency = table.known_targets("train").mean()
    assert baseline.name == "majority"
    assert np.stack(baseline.predictions) == pytest.approx(np.tile([1 - frequency, frequency], (8, 1)))


def test_the_majority_baseline_predicts_the_training_frequencies_of_labels(labelled):
    table = labelled("multilabel")

    assert np.stack(constant_baseline(table, table).predictions) == pytest.approx(
        np.tile(table.known_targets("train").mean(0), (8, 1))
    )


def test_the_mean_baseline_predicts_the_mean_of_the_training_values(labelled):
    table = labelled("regression")

    baseline = constant_baseline(table, table)

    assert baseline.name == "mean"
    assert np.stack(baseline.predictions) == pytest.approx(np.full(8, table.known_targets("train").mean()))


@pytest.mark.parametrize("task", ["residue-classification", "residue-regression"])
def test_constant_baselines_predict_the_same_for_all_residues(labelled, task):
    table = labelled(task)
    known = table.known_targets("train")

    baseline = constant_baseline(table, table)

    expected = [1 - known.mean(), known.mean()] if task == "residue-classification" else known.mean()
    assert [len(prediction) for prediction in baseline.predictions] == [
        len(protein.sequence) for protein in table.splits["test"]
    ]
    flat = np.concatenate(baseline.predictions)
    assert flat == pytest.approx(np.broadcast_to(expected, flat.shape))
    assert measured(table, baseline).keys() == measured(table, next(sequence_baselines(table, 0))).keys()


def test_sequence_baselines_beat_the_mean_if_values_depend_on_composition(labelled):
    table = labelled("regression")

    mean, composition, kmers = constant_baseline(table, table), *sequence_baselines(table, seed=0)

    errors = [measured(table, baseline)["mse"] for baseline in (mean, composition, kmers)]
    assert (composition.name, kmers.name) == ("composition", "k-mers")
    assert errors[1] < 0.2 * errors[0]
    assert errors[2] < 0.9 * errors[0]


def test_sequence_baselines_beat_the_majority_if_classes_depend_on_composition(make_table):
    rng = np.random.default_rng(0)
    table = make_table(LABELS["regression"])
    for proteins in table.splits.values():
        for row, protein in enumerate(proteins):
            label = ("acid", "base")[row % 2]
            letters = rng.choice([*"DELAGST", *"KRLAGST"][7 * (row % 2) :][:7], size=60)
            proteins[row] = replace(protein, sequence="".join(letters), label=label)
    table = TaskTable.from_table(table, TASKS["classification"])

    majority, *others = constant_baseline(table, table), *sequence_baselines(table, seed=0)

    assert measured(table, majority)["accuracy"] == 0.5
    assert [measured(table, baseline)["accuracy"] for baseline in others] == [1, 1]


def test_sequence_baselines_predict_a_probability_of_each_label(labelled):
    table = labelled("multilabel")

    predictions = [np.stack(baseline.predictions) for baseline in sequence_baselines(table, seed=0)]

    assert [probabilities.shape for probabilities in predictions] == [(8, 3), (8, 3)]
    assert all(((values > 0) & (values < 1)).all() for values in predictions)


@pytest.mark.parametrize(("task", "metric"), [("residue-classification", "mcc"), ("residue-regression", "r2")])
def test_the_window_baseline_learns_labels_that_depend_on_the_residue(labelled, task, metric):
    table = labelled(task)

    (baseline,) = sequence_baselines(table, seed=0)

    assert baseline.name == "15 letters"
    assert [len(prediction) for prediction in baseline.predictions] == [
        len(protein.sequence) for protein in table.splits["test"]
    ]
    assert measured(table, baseline)[metric] > 0.9


# The sample of residues


def test_all_residues_with_a_target_are_chosen_if_they_are_few(make_table):
    table = make_table(LABELS["residue-classification"])
    table = TaskTable.from_table(table, TASKS["residue-classification"])
    table.targets["train"][0][3:] = -1

    chosen = residue_sample(table, "train", seed=0)

    assert chosen[0].tolist() == [0, 1, 2]
    assert [len(indices) for indices in chosen[1:]] == [len(protein.sequence) for protein in table.splits["train"][1:]]


def test_the_sample_of_residues_is_bounded_and_a_function_of_the_seed(labelled):
    table = labelled("residue-classification")
    total = sum(map(len, table.targets["train"]))

    first, same, different = (residue_sample(table, "train", seed, max_residues=500) for seed in (0, 0, 1))

    assert total > 2_000
    assert sum(map(len, first)) == pytest.approx(500, abs=100)
    assert np.concatenate(first).tolist() == np.concatenate(same).tolist() != np.concatenate(different).tolist()
    assert all(len(indices) > 0 for indices in first)


def test_the_window_baseline_learns_from_a_sample_of_residues(labelled):
    table = labelled("residue-classification")

    (baseline,) = sequence_baselines(table, seed=0, max_residues=800)

    assert measured(table, baseline)["mcc"] > 0.9
    assert [len(prediction) for prediction in baseline.predictions] == [
        len(protein.sequence) for protein in table.splits["test"]
    ]


# A frozen encoder


@pytest.fixture
def fit_head(tiny_encoder, pool, labelled):
    """Fit a head to the tiny encoder's vectors; return it, its loss, the table, and train and valid data."""

    def fit(task, *, max_residues=MAX_RESIDUES, **options):
        table = labelled(task)
        embedder = Embedder(encoder=tiny_encoder, layers=(2,), poolings=("mean",), layer_dim=32, window_residues=None)
        engine, lengths = Engine(pool=pool), []
        frozen = FrozenEncoder(embedder=embedder, engine=engine, on_protein=lengths.append)
        fitted = frozen.fit_head(table, FinetuneConfig(**options), max_residues=max_residues)
        assert lengths == [len(protein.sequence) for split in ("train", "valid") for protein in table.splits[split]]
        job = embedder.residues() if table.task.per_residue else embedder.proteins()
        samples = []
        for split in ("train", "valid"):
            values = [embedding.values for _, embedding in engine.run(job, table.splits[split])]
            vectors = np.concatenate(values) if table.task.per_residue else np.stack(values)
            samples.append(ProbeData(vectors=vectors, targets=table.known_targets(split)))
        return *fitted, table, *samples

    return fit


@torch.no_grad()
def predict(head, vectors):
    return head.predict(torch.from_numpy(vectors)).numpy()


@pytest.mark.parametrize("task", TASKS)
def test_a_frozen_head_is_the_linear_probe_of_the_encoders_vectors(fit_head, task):
    head, valid_loss, table, train, valid = fit_head(task)

    probe = fit_linear(table.task, table.num_classes, train, valid)
    expected = probe.predict(valid.vectors)
    assert (head.task, head.classes, head.hidden) == (table.task, table.classes, None)
    assert predict(head, valid.vectors) == pytest.approx(expected, rel=1e-2, abs=1e-2)
    assert valid_loss == pytest.approx(loss(probe, valid), rel=1e-2)


def test_the_threshold_of_a_frozen_head_is_chosen_on_the_validation_split(fit_head):
    head, _, _, _, valid = fit_head("multilabel")

    best = best_threshold(valid.targets, predict(head, valid.vectors))

    assert head.threshold.item() == pytest.approx(best, abs=0.011)


@pytest.mark.parametrize("task", ["classification", "regression", "residue-classification"])
def test_a_frozen_head_may_have_a_hidden_layer(fit_head, task):
    head, valid_loss, _, _, valid = fit_head(task, head="mlp", seed=4)

    assert head.hidden is not None
    predictions = predict(head, valid.vectors)
    if task == "regression":
        expected = ((predictions - valid.targets) ** 2).mean() / 2 / head.scale.item() ** 2
    else:
        expected = -np.log(predictions[range(len(predictions)), valid.targets]).mean()
    assert valid_loss == pytest.approx(expected, rel=1e-3)


def test_a_frozen_head_is_fitted_to_a_bounded_sample_of_residues(fit_head, monkeypatch):
    sizes = []

    def measure_and_fit(task, num_classes, train, valid, **options):
        sizes.extend([len(train), len(valid)])
        return fit_linear(task, num_classes, train, valid, **options)

    monkeypatch.setattr(baselines, "fit_linear", measure_and_fit)

    fit_head("residue-classification", max_residues=300)

    assert sizes == pytest.approx([300, 300], abs=80)
