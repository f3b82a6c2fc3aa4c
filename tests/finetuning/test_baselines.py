from dataclasses import replace

import numpy as np
import pytest
import torch

from protembed.config.common import TASKS
from protembed.config.finetune import FinetuneConfig
from protembed.evaluation.metrics import best_threshold, label_curves
from protembed.finetuning import baselines
from protembed.finetuning.baselines import constant_baseline, frozen_head, residue_sample, sequence_baselines
from protembed.finetuning.evaluation import measure
from protembed.finetuning.probes import ProbeData, fit_linear, loss
from protembed.finetuning.targets import Targets
from protembed.inference.embedding import Embedder
from protembed.inference.engine import Engine

LABELS = {
    "classification": lambda sequence: "many" if sequence.count("L") > 0.1 * len(sequence) else "few",
    "multilabel": lambda sequence: ";".join(name for name in "WCH" if name in sequence),
    "regression": lambda sequence: str(sequence.count("L") / len(sequence)),
    "residue-classification": lambda sequence: "".join("h" if one in "ILVFM" else "-" for one in sequence),
    "residue-regression": lambda sequence: ";".join(str(1.0 * "ACDEFGHIKLMNPQRSTVWYXB".index(one)) for one in sequence),
}


@pytest.fixture(scope="module")
def labelled(make_table):
    """A table of a task, and its targets; labels that can be counted in the sequences."""

    def make(task):
        table = make_table(LABELS[task])
        return table, Targets.from_table(table, TASKS[task])

    return make


def measured(targets, rung):
    return measure(targets.task, targets.by_split["test"], rung.outputs)


# Without any model


def test_the_majority_predicts_the_training_shares_of_the_classes(labelled):
    table, targets = labelled("classification")

    rung = constant_baseline(table, targets)

    share = targets.known_targets("train").mean()
    assert rung.name == "majority"
    assert np.stack(rung.outputs) == pytest.approx(np.tile([1 - share, share], (8, 1)))


def test_the_majority_predicts_each_label_as_often_as_training_proteins_have_it(labelled):
    table, targets = labelled("multilabel")

    assert np.stack(constant_baseline(table, targets).outputs) == pytest.approx(
        np.tile(targets.known_targets("train").mean(0), (8, 1))
    )


def test_the_mean_of_the_training_values_is_predicted_for_all(labelled):
    table, targets = labelled("regression")

    rung = constant_baseline(table, targets)

    assert rung.name == "mean"
    assert np.stack(rung.outputs) == pytest.approx(np.full(8, targets.known_targets("train").mean()))


@pytest.mark.parametrize("task", ["residue-classification", "residue-regression"])
def test_all_residues_are_predicted_alike(labelled, task):
    table, targets = labelled(task)
    known = targets.known_targets("train")

    rung = constant_baseline(table, targets)

    expected = [1 - known.mean(), known.mean()] if task == "residue-classification" else known.mean()
    assert [len(output) for output in rung.outputs] == [len(protein.sequence) for protein in table.splits["test"]]
    joined = np.concatenate(rung.outputs)
    assert joined == pytest.approx(np.broadcast_to(expected, joined.shape))
    assert measured(targets, rung).keys() == measured(targets, next(sequence_baselines(table, targets, 0))).keys()


def test_counting_beats_the_mean_where_the_value_is_the_composition(labelled):
    table, targets = labelled("regression")

    mean, composition, kmers = constant_baseline(table, targets), *sequence_baselines(table, targets, seed=0)

    errors = [measured(targets, rung)["mse"] for rung in (mean, composition, kmers)]
    assert (composition.name, kmers.name) == ("composition", "k-mers")
    assert errors[1] < 0.2 * errors[0]
    assert errors[2] < 0.9 * errors[0]


def test_counting_beats_the_majority_where_the_class_is_the_composition(make_table):
    rng = np.random.default_rng(0)
    table = make_table(LABELS["regression"])
    for part in table.splits.values():
        for place, protein in enumerate(part):
            label = ("acid", "base")[place % 2]
            letters = rng.choice([*"DELAGST", *"KRLAGST"][7 * (place % 2) :][:7], size=60)
            part[place] = replace(protein, sequence="".join(letters), label=label)
    targets = Targets.from_table(table, TASKS["classification"])

    majority, *counting = constant_baseline(table, targets), *sequence_baselines(table, targets, seed=0)

    assert measured(targets, majority)["accuracy"] == 0.5
    assert [measured(targets, rung)["accuracy"] for rung in counting] == [1, 1]


def test_labels_are_counted_out_too(labelled):
    table, targets = labelled("multilabel")

    outputs = [np.stack(rung.outputs) for rung in sequence_baselines(table, targets, seed=0)]

    assert [one.shape for one in outputs] == [(8, 3), (8, 3)]
    assert all(((one > 0) & (one < 1)).all() for one in outputs)


@pytest.mark.parametrize(("task", "metric"), [("residue-classification", "mcc"), ("residue-regression", "r2")])
def test_the_letters_around_a_residue_tell_what_its_own_letter_says(labelled, task, metric):
    table, targets = labelled(task)

    (rung,) = sequence_baselines(table, targets, seed=0)

    assert rung.name == "15 letters"
    assert [len(output) for output in rung.outputs] == [len(protein.sequence) for protein in table.splits["test"]]
    assert measured(targets, rung)[metric] > 0.9


# Which residues are fitted


def test_all_residues_with_an_answer_are_fitted_where_they_are_few(make_table):
    table = make_table(LABELS["residue-classification"])
    targets = Targets.from_table(table, TASKS["residue-classification"])
    targets.by_split["train"][0][3:] = -1

    chosen = residue_sample(targets, "train", seed=0)

    assert chosen[0].tolist() == [0, 1, 2]
    assert [len(places) for places in chosen[1:]] == [len(one.sequence) for one in table.splits["train"][1:]]


def test_what_is_fitted_is_bounded_and_a_function_of_the_seed(labelled, monkeypatch):
    _, targets = labelled("residue-classification")
    monkeypatch.setattr(baselines, "MOST_RESIDUES", 500)
    total = sum(map(len, targets.by_split["train"]))

    one, same, other = (np.concatenate(residue_sample(targets, "train", seed)) for seed in (0, 0, 1))

    assert total > 2_000
    assert len(one) == pytest.approx(500, abs=100)
    assert one.tolist() == same.tolist() != other.tolist()
    assert {len(places) > 0 for places in residue_sample(targets, "train", 0)} == {True}


def test_fewer_residues_say_nearly_the_same(labelled, monkeypatch):
    table, targets = labelled("residue-classification")
    monkeypatch.setattr(baselines, "MOST_RESIDUES", 800)

    (rung,) = sequence_baselines(table, targets, seed=0)

    assert measured(targets, rung)["mcc"] > 0.9
    assert [len(output) for output in rung.outputs] == [len(protein.sequence) for protein in table.splits["test"]]


# A frozen encoder


@pytest.fixture
def fit_head(tiny_encoder, pool, labelled):
    """Fit a head to the tiny encoder's vectors; returns it, its loss, and the vectors and answers of both parts."""

    def fit(task, **options):
        table, targets = labelled(task)
        representation = Embedder(encoder=tiny_encoder, layers=(2,), poolings=("mean",), window_residues=None)
        engine, told = Engine(pool=pool), []
        fitted = frozen_head(table, targets, representation, engine, FinetuneConfig(**options), told.append)
        assert told == [len(protein.sequence) for split in ("train", "valid") for protein in table.splits[split]]
        computation = representation.residues() if targets.task.per_residue else representation.proteins()
        samples = []
        for split in ("train", "valid"):
            values = [embedding.values for _, embedding in engine.run(computation, table.splits[split])]
            vectors = np.concatenate(values) if targets.task.per_residue else np.stack(values)
            samples.append(ProbeData(vectors=vectors, answers=targets.known_targets(split)))
        return *fitted, targets, *samples

    return fit


@torch.no_grad()
def said_by(head, vectors):
    return head.predict(torch.from_numpy(vectors)).numpy()


@pytest.mark.parametrize("task", TASKS)
def test_a_frozen_head_is_the_linear_map_of_the_encoders_vectors(fit_head, task):
    head, valid_loss, targets, train, valid = fit_head(task)

    fitted = fit_linear(targets.task, len(targets.classes or ()), train, valid)
    expected = fitted.outputs(valid.vectors)
    assert (head.task, head.classes, head.hidden) == (targets.task, targets.classes, None)
    assert said_by(head, valid.vectors) == pytest.approx(expected, rel=1e-2, abs=1e-2)
    assert valid_loss == pytest.approx(loss(fitted, valid), rel=1e-2)


def test_the_threshold_of_labels_is_chosen_on_the_validation_part(fit_head):
    head, _, _, _, valid = fit_head("multilabel")

    best, _ = best_threshold(*label_curves(valid.answers, said_by(head, valid.vectors)))

    assert head.threshold.item() == pytest.approx(best, abs=0.011)


@pytest.mark.parametrize("task", ["classification", "regression", "residue-classification"])
def test_a_frozen_head_may_have_a_hidden_layer(fit_head, task):
    head, valid_loss, _, _, valid = fit_head(task, head="mlp", seed=4)

    assert head.hidden is not None
    outputs = said_by(head, valid.vectors)
    if task == "regression":
        expected = ((outputs - valid.answers) ** 2).mean() / 2 / head.scale.item() ** 2
    else:
        expected = -np.log(outputs[range(len(outputs)), valid.answers]).mean()
    assert valid_loss == pytest.approx(expected, rel=1e-3)


def test_a_frozen_head_of_residues_is_fitted_to_as_many_as_can_be(fit_head, monkeypatch):
    sizes = []

    def measure_and_fit(task, num_classes, train, valid, **options):
        sizes.extend([len(train), len(valid)])
        return fit_linear(task, num_classes, train, valid, **options)

    monkeypatch.setattr(baselines, "MOST_RESIDUES", 300)
    monkeypatch.setattr(baselines, "fit_linear", measure_and_fit)

    fit_head("residue-classification")

    assert sizes == pytest.approx([300, 300], abs=80)
