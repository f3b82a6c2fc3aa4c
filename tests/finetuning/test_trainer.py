import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.utils import parametrize

from protembed.config.common import TASKS, OptimizerConfig
from protembed.config.finetune import FinetuneConfig
from protembed.config.model_sizes import EncoderShape
from protembed.data.alphabet import encode
from protembed.errors import DamagedRunError
from protembed.finetuning.labels import LabelledProtein, SplitTable
from protembed.finetuning.probes import ProbeData, fit_linear, loss
from protembed.finetuning.targets import Targets
from protembed.finetuning.trainer import EncoderTrainer, FinetuneSpec, choose_threshold
from protembed.model.checkpoint import load_checkpoint, new_checkpoint, save_checkpoint
from protembed.model.heads import TaskHead
from protembed.training.checkpoints import TrainingProgress
from protembed.training.distributed import Executor
from protembed.training.run_directory import RunDirectory

ADAMW = OptimizerConfig(optimizer="adamw", learning_rate=0.003)


TINY = EncoderShape(num_layers=2, dim=32, num_heads=4)

# Of each protein: a step holds four of them.
NUM_RESIDUES = 25


@pytest.fixture(scope="module")
def charged(make_table):
    """The share of residues that carry a charge: a value, and its table."""
    table = make_table(lambda sequence: str(sum(map(sequence.count, "DEKR")) / NUM_RESIDUES), NUM_RESIDUES)
    return table, Targets.from_table(table, TASKS["regression"])


@torch.no_grad()
def fit_head(encoder, table, targets):
    """Fit a head to the means of a frozen encoder's vectors; return it, and its loss on the validation part."""
    samples = []
    for split in ("train", "valid"):
        residues = [torch.from_numpy(encode(protein.sequence)).long() for protein in table.splits[split]]
        tokens = [torch.cat([torch.tensor([0]), one, torch.tensor([2])]) for one in residues]
        hidden = [encoder(one, encoder.layout(torch.tensor([0, len(one)]))) for one in tokens]
        vectors = np.stack([one[1:-1].mean(0).numpy() for one in hidden])
        samples.append(ProbeData(vectors=vectors, answers=targets.known_targets(split)))
    fitted = fit_linear(targets.task, len(targets.classes or ()), *samples)
    return fitted.head(targets.classes), loss(fitted, samples[1])


@pytest.fixture
def fitted(tiny_encoder, charged):
    """A head fitted to the frozen tiny encoder, and its loss on the validation part."""
    return fit_head(tiny_encoder, *charged)


@pytest.fixture
def ignorant(charged):
    """A head that says the mean of the training labels whatever it sees."""
    known, head = charged[1].known_targets("train"), TaskHead(32, TASKS["regression"], None)
    torch.nn.init.zeros_(head.linear.weight)
    torch.nn.init.zeros_(head.linear.bias)
    head.offset.fill_(known.mean())
    head.scale.fill_(known.std())
    return head


@pytest.fixture
def begin(tmp_path, tiny_model, charged, pool):
    """Begin or take up a training of the tiny model; several steps make an epoch."""

    def make(
        name="run",
        *,
        head=None,
        method="full",
        optimizer=ADAMW,
        labelled=charged,
        pooling="mean",
        model=None,
        **options,
    ):
        table, targets = labelled
        checkpoint = load_checkpoint(model or tiny_model)
        checkpoint.metadata = replace(checkpoint.metadata, pooling=pooling)
        course = FinetuneSpec(
            method=method,
            config=FinetuneConfig(**{"epochs": 3, "tokens_per_batch": 128, "lora_rank": 2, **options}),
            optimizer=optimizer,
            compute=Executor(pool=pool),
            seed=5,
            head=head,
        )
        run = RunDirectory(tmp_path / name)
        run.open({}, lambda directory: None, force=False)
        return EncoderTrainer(table, targets, checkpoint, course, run), checkpoint, run

    return make


def never():
    return False


def finish(training):
    reports = []
    assert training.run(reports.append, never)
    return reports


def all_weights(checkpoint, weights_of):
    return weights_of(checkpoint.encoder) | weights_of(checkpoint.task_head)


# The start


def test_a_training_starts_from_the_head_that_was_fitted_to_the_frozen_encoder(begin, fitted):
    head, valid_loss = fitted

    training, checkpoint, _ = begin(head=head, optimizer=replace(ADAMW, learning_rate=0.0))
    finish(training)

    assert training.valid_loss == pytest.approx(valid_loss, rel=1e-4)
    assert all(torch.equal(value, checkpoint.task_head.state_dict()[name]) for name, value in head.state_dict().items())


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_training_that_only_makes_it_worse_ends_as_it_began(begin, fitted, tiny_model, weights_of, same_bits, method):
    head, valid_loss = fitted
    ruinous = OptimizerConfig(optimizer="adamw", learning_rate=0.3)

    training, checkpoint, _ = begin(head=head, method=method, optimizer=ruinous)
    reports = finish(training)

    assert min(report.validation["valid_loss"] for report in reports if report.validation) > valid_loss
    assert (training.state.progress.best_step, training.valid_loss) == (0, pytest.approx(valid_loss, rel=1e-4))
    assert same_bits(weights_of(checkpoint.task_head), weights_of(head))
    assert same_bits(weights_of(checkpoint.encoder), weights_of(load_checkpoint(tiny_model).encoder))


def test_a_training_that_helps_ends_better_than_it_began(begin, ignorant):
    training, _, _ = begin(head=ignorant, epochs=6)
    began = training._validate()["valid_loss"]

    reports = finish(training)

    measured = [report.validation["valid_loss"] for report in reports if report.validation]
    assert training.valid_loss == min(measured) < 0.7 * began
    assert training.state.progress.best_step > 0


def test_a_head_of_its_own_begins_in_the_units_of_the_training_labels(begin, charged):
    _, checkpoint, _ = begin()

    known = charged[1].known_targets("train")
    head = checkpoint.task_head
    assert (head.offset.item(), head.scale.item()) == pytest.approx((known.mean(), known.std()))


def test_attention_starts_as_the_mean_that_the_head_was_fitted_to(begin, fitted):
    head, valid_loss = fitted

    training, checkpoint, _ = begin(head=head, pooling="attention", optimizer=replace(ADAMW, learning_rate=0.0))
    finish(training)

    assert checkpoint.task_head.query.tolist() == [0.0] * 32
    assert training.valid_loss == pytest.approx(valid_loss, rel=1e-4)


# A steep head


@pytest.fixture(scope="module")
def alike(tmp_path_factory):
    """A tiny model whose vectors are nearly alike: most of each token's embedding is common to all tokens."""
    checkpoint = new_checkpoint(TINY, "gaussian", seed=0)
    with torch.no_grad():
        checkpoint.encoder.embedding.weight.add_(0.2 * torch.randn(32, generator=torch.Generator().manual_seed(3)))
    directory = tmp_path_factory.mktemp("models") / "alike"
    save_checkpoint(checkpoint, directory, "# alike\n")
    return directory


@pytest.fixture(scope="module")
def with_both():
    """Random proteins, of which those with two alanines and two leucines at least are positive."""
    draw = random.Random(0)
    splits = ["train"] * 160 + ["valid"] * 40
    parts = {"train": [], "valid": [], "test": []}
    for line, split in enumerate(splits, start=2):
        num_alanines, num_leucines = draw.randint(0, 6), draw.randint(0, 6)
        residues = [*"A" * num_alanines, *"L" * num_leucines]
        residues += [draw.choice("CDEFGHIKMNPQRSTVWY") for _ in range(20 - len(residues))]
        draw.shuffle(residues)
        label = "yes" if num_alanines >= 2 and num_leucines >= 2 else "no"
        protein = LabelledProtein(id=f"p{line}", sequence="".join(residues), label=label, split=split, line=line)
        parts[split].append(protein)
    table = SplitTable(path="labels.csv", target="label", splits=parts)
    return table, Targets.from_table(table, TASKS["classification"])


def test_a_steep_head_does_not_make_the_training_diverge(begin, alike, with_both):
    head, frozen_loss = fit_head(load_checkpoint(alike).encoder, *with_both)
    assert head.steepness > 200

    training, _, _ = begin(
        head=head, model=alike, labelled=with_both, optimizer=OptimizerConfig(), epochs=20, batch_tokens=600
    )
    losses = [report.validation["valid_loss"] for report in finish(training) if report.validation]

    # Predicting the class frequencies costs 0.69; with the head as it was fitted, the first epochs cost up to 5.
    assert max(losses[:3]) < 1.4
    assert min(losses) < 0.6
    assert training.divergence() is None
    assert training.valid_loss <= frozen_loss + 1e-4


@pytest.mark.parametrize(("learning_rate", "share"), [(None, 1.0), (0.05, 0.1), (0.0005, 10.0)])
def test_the_head_starts_the_flatter_the_higher_the_learning_rate(begin, alike, with_both, learning_rate, share):
    head, _ = fit_head(load_checkpoint(alike).encoder, *with_both)
    optimizer = OptimizerConfig(learning_rate=learning_rate)
    training, checkpoint, _ = begin(head=head, model=alike, labelled=with_both, optimizer=optimizer)

    training._begin()

    assert checkpoint.task_head.steepness == pytest.approx(10.0 * share)
    # The fitted head is what is kept until an epoch is better.
    assert training.state.progress.best_step == 0


def test_a_training_that_diverged_describes_its_worst_epoch(begin, fitted):
    training, _, _ = begin(head=fitted[0], optimizer=OptimizerConfig(learning_rate=3.0))
    reports = finish(training)

    losses = [report.validation["valid_loss"] for report in reports if report.validation]
    divergence = training.divergence()
    assert (divergence.valid_loss, divergence.uninformed_loss) == (max(losses), 0.5)
    assert divergence.epoch == losses.index(max(losses)) + 1
    assert str(divergence).endswith("choose a --learning-rate below 3")


def test_a_validation_loss_that_rises_alone_is_overfitting_and_no_divergence(begin, fitted):
    training, _, run = begin(head=fitted[0])
    finish(training)
    run.log({"step": 90, "train_loss": 0.1, "valid_loss": 50.0})

    assert training.divergence() is None


@pytest.mark.parametrize(("is_weighted", "expected"), [(False, 0.5623), (True, 0.6931)])
def test_an_uninformed_classifier_predicts_the_class_frequencies(begin, make_table, is_weighted, expected):
    numbers = iter(range(40))
    table = make_table(lambda sequence: "rare" if next(numbers) % 4 == 0 else "common", NUM_RESIDUES)

    training, _, _ = begin(
        labelled=(table, Targets.from_table(table, TASKS["classification"])), balance_classes=is_weighted
    )

    # -(1/4) ln(1/4) - (3/4) ln(3/4), or ln 2 where both classes weigh alike.
    assert training._uninformed_loss == pytest.approx(expected, abs=1e-4)


# What is trained


def test_the_best_weights_are_kept_whatever_came_after_them(begin, weights_of, same_bits):
    training, checkpoint, _ = begin(epochs=4, optimizer=replace(ADAMW, learning_rate=0.05), patience=9)
    seen = {}

    def remember(report):
        if report.validation:
            seen[report.step] = (report.validation["valid_loss"], all_weights(checkpoint, weights_of))

    assert training.run(remember, never)

    best = min(seen, key=lambda step: seen[step][0])
    assert training.state.progress.best_step == best < max(seen)
    assert same_bits(all_weights(checkpoint, weights_of), seen[best][1])


def test_adapters_are_merged_into_a_plain_encoder_that_is_as_good_as_they_were(begin, ignorant, tiny_model):
    training, checkpoint, _ = begin(head=ignorant, method="lora", optimizer=replace(ADAMW, learning_rate=0.01))
    before = load_checkpoint(tiny_model).encoder.state_dict()

    finish(training)

    after = checkpoint.encoder.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert after.keys() == before.keys()
    assert len(changed) == 2 * 4
    assert all(name.endswith("weight") and before[name].ndim == 2 for name in changed)
    assert not any(parametrize.is_parametrized(module) for module in checkpoint.encoder.modules())
    assert training._validate()["valid_loss"] == pytest.approx(training.valid_loss, abs=1e-6)


def test_the_head_learns_faster_than_the_encoder(begin):
    training, checkpoint, _ = begin(head_lr_multiplier=7.0, optimizer=replace(ADAMW, warmup_steps=0, weight_decay=0.0))
    before = [checkpoint.task_head.linear.bias.item(), checkpoint.encoder.final_norm.bias.detach().clone()]

    assert not training.run(lambda report: None, lambda: True)

    # AdamW's first step is the learning rate itself.
    assert abs(checkpoint.task_head.linear.bias.item() - before[0]) == pytest.approx(7 * 0.003, rel=1e-3)
    moved = (checkpoint.encoder.final_norm.bias - before[1]).abs()
    assert moved.max().item() == pytest.approx(0.003, rel=1e-3)


# Interruptions and the end


@pytest.mark.promise(2)
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_stopped_training_goes_on_bit_for_bit_as_if_undisturbed(begin, ignorant, weights_of, same_bits, method):
    options = {"head": ignorant, "method": method, "patience": 9}
    whole, whole_checkpoint, whole_run = begin("whole", **options)
    finish(whole)

    for stop_after in (2, whole.plan.num_steps // 2):
        training, _, _ = begin("stopped", **options)
        assert not training.run(lambda report: None, lambda at=stop_after, now=training: now.state.progress.step == at)
    training, checkpoint, run = begin("stopped", **options)
    assert training.state.progress.step == whole.plan.num_steps // 2
    finish(training)

    def course(of):
        return [{name: value for name, value in line.items() if "per_second" not in name} for line in of.read_log()]

    assert same_bits(all_weights(checkpoint, weights_of), all_weights(whole_checkpoint, weights_of))
    assert training.valid_loss == whole.valid_loss
    assert course(run) == course(whole_run)


def test_a_finished_training_gives_the_same_model_again(begin, fitted, weights_of, same_bits):
    first, checkpoint, _ = begin(head=fitted[0])
    finish(first)

    again, same_checkpoint, _ = begin(head=fitted[0])

    assert finish(again) == []
    assert same_bits(all_weights(same_checkpoint, weights_of), all_weights(checkpoint, weights_of))


def flip(path):
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)


DAMAGES = {"deleted": Path.unlink, "flipped": flip, "longer": lambda path: path.write_bytes(path.read_bytes() + b"x")}


@pytest.mark.promise(4)
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_best_weights_are_never_loaded_and_are_named(begin, fitted, tmp_path, damage):
    finish(begin(head=fitted[0])[0])
    damage(tmp_path / "run/best.safetensors")

    with pytest.raises(DamagedRunError, match=r"best\.safetensors: the best weights of this training are missing or"):
        finish(begin(head=fitted[0])[0])


@pytest.mark.promise(4)
def test_a_damaged_checkpoint_is_told_and_the_training_goes_on_from_the_one_before(begin, fitted, tmp_path):
    training, _, _ = begin(head=fitted[0])
    finish(training)
    newest = max((tmp_path / "run/checkpoints").iterdir())
    flip(newest / "weights.safetensors")

    again, _, _ = begin(head=fitted[0])

    assert [f"{newest.name}/weights.safetensors is damaged" in warning for warning in again.warnings] == [True]
    assert 0 < again.state.progress.step < training.plan.num_steps
    finish(again)


@pytest.mark.parametrize("patience", [1, 2])
def test_patience_ends_a_training_that_no_longer_improves(begin, fitted, patience):
    # With this rate nothing changes: no epoch is better than the first.
    training, _, _ = begin(head=fitted[0], epochs=9, patience=patience, optimizer=replace(ADAMW, learning_rate=0.0))

    reports = finish(training)

    steps_per_epoch = training.plan.num_steps // 9
    assert steps_per_epoch > 1
    assert len(reports) == (1 + patience) * steps_per_epoch


def test_patience_waits_for_a_training_that_improves_but_is_not_yet_better_than_the_frozen_encoder():
    progress = TrainingProgress()
    assert progress.record_validation(0.20)

    for step, valid_loss in enumerate([0.9, 0.8, 0.7, 0.6], start=1):
        progress.step = step
        assert not progress.record_validation(valid_loss)
        assert not progress.is_finished(num_steps=9, patience=1)

    progress.step = 5
    assert not progress.record_validation(0.65)
    assert progress.is_finished(num_steps=9, patience=1)
    assert (progress.best_loss, progress.best_step) == (0.20, 0)


# Class weights and thresholds


def test_class_weights_let_all_classes_count_alike_and_a_target_one_on_average(begin, make_table):
    names = ("none", "some", "many")
    table = make_table(lambda sequence: names[min(2, (sequence.count("A") + 1) // 2)], NUM_RESIDUES)
    targets = Targets.from_table(table, TASKS["classification"])
    known = targets.known_targets("train")

    training, _, _ = begin(labelled=(table, targets), balance_classes=True)

    weights = training._objective.class_weights.numpy()
    assert weights[known].mean() == pytest.approx(1)
    assert weights * np.bincount(known) == pytest.approx([8, 8, 8])
    assert len(set(np.bincount(known))) > 1


def test_the_positives_of_a_label_weigh_as_much_as_its_negatives(begin, make_table):
    table = make_table(lambda sequence: ";".join(["all", *(name for name in "WC" if name in sequence)]), NUM_RESIDUES)
    targets = Targets.from_table(table, TASKS["multilabel"])
    positives = targets.known_targets("train").sum(0)

    training, _, _ = begin(labelled=(table, targets), balance_classes=True)

    weights = training._objective.class_weights.numpy()
    assert targets.classes == ("C", "W", "all")
    assert (weights * positives)[:2] == pytest.approx((24 - positives)[:2])
    assert 0 < weights[2] < 1


def test_without_being_asked_all_classes_weigh_as_they_come(begin, make_table):
    table = make_table(lambda sequence: "yes" if "A" in sequence else "no", NUM_RESIDUES)

    training, _, _ = begin(labelled=(table, Targets.from_table(table, TASKS["classification"])))

    assert training._objective.class_weights is None


def test_the_threshold_of_labels_is_the_best_on_the_validation_part():
    head = TaskHead(4, TASKS["multilabel"], ("a", "b"))
    truth = np.array([[1, 0], [1, 1], [0, 0]])

    choose_threshold(head, truth, np.array([[0.3, 0.15], [0.4, 0.2], [0.1, 0.05]]))

    # From 0.16 to 0.2 everything is right.
    assert head.threshold.item() == pytest.approx(0.16)
