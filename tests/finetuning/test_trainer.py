import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.utils import parametrize

from protembed.callbacks import MEASURED
from protembed.config.common import TASKS, OptimizerConfig
from protembed.config.finetune import FinetuneConfig
from protembed.config.model_sizes import ESM2Shape
from protembed.data.alphabet import encode
from protembed.errors import DamagedRunError
from protembed.finetuning.labels import LabelledProtein, SplitTable
from protembed.finetuning.probes import ProbeData, fit_linear, loss
from protembed.finetuning.targets import TaskTable
from protembed.finetuning.trainer import EncoderTrainer, FinetuneSpec, default_learning_rates
from protembed.io.reading import sha256_of_file
from protembed.model.checkpoint import load_checkpoint, new_checkpoint, save_checkpoint
from protembed.model.heads import TaskHead
from protembed.training.checkpoints import TrainingProgress
from protembed.training.distributed import Executor
from protembed.training.run_directory import RunDirectory

ADAMW = OptimizerConfig(optimizer="adamw", learning_rate=0.003)
TINY = ESM2Shape(num_layers=2, dim=32, num_heads=4)
# So short that a step holds four proteins.
NUM_RESIDUES = 25


@pytest.fixture(scope="module")
def charged(make_table):
    """Make a table whose values are the fraction of charged residues."""
    table = make_table(lambda sequence: str(sum(map(sequence.count, "DEKR")) / NUM_RESIDUES), NUM_RESIDUES)
    return TaskTable.from_table(table, TASKS["regression"])


@torch.no_grad()
def fit_head(encoder, table):
    """Fit a head to the mean vectors of a frozen encoder; return it and its validation loss."""
    samples = []
    for split in ("train", "valid"):
        residues = [torch.from_numpy(encode(protein.sequence)).long() for protein in table.splits[split]]
        tokens = [torch.cat([torch.tensor([0]), sequence, torch.tensor([2])]) for sequence in residues]
        hidden = [encoder(sequence, encoder.layout(torch.tensor([0, len(sequence)]))) for sequence in tokens]
        vectors = np.stack([states[1:-1].mean(0).numpy() for states in hidden])
        samples.append(ProbeData(vectors=vectors, targets=table.known_targets(split)))
    probe = fit_linear(table.task, table.num_classes, *samples)
    return probe.to_head(table.classes), loss(probe, samples[1])


@pytest.fixture
def fitted(tiny_encoder, charged):
    """Fit a head to the frozen tiny encoder; return it and its validation loss."""
    return fit_head(tiny_encoder, charged)


@pytest.fixture
def constant_head(charged):
    """Make a head that always predicts the mean of the training values."""
    known, head = charged.known_targets("train"), TaskHead(32, TASKS["regression"], None)
    torch.nn.init.zeros_(head.linear.weight)
    torch.nn.init.zeros_(head.linear.bias)
    head.offset.fill_(known.mean())
    head.scale.fill_(known.std())
    return head


@pytest.fixture
def begin(tmp_path, tiny_model, charged, pool):
    """Start or resume a training of the tiny model with several steps per epoch."""

    def make(
        name="run",
        *,
        head=None,
        method="full",
        optimizer=ADAMW,
        table=charged,
        pooling="mean",
        model=None,
        **options,
    ):
        checkpoint = load_checkpoint(model or tiny_model)
        checkpoint.metadata = replace(checkpoint.metadata, pooling=pooling)
        spec = FinetuneSpec(
            method=method,
            config=FinetuneConfig(**{"epochs": 3, "batch_tokens": 128, "lora_rank": 2, **options}),
            optimizer=optimizer,
            executor=Executor(pool=pool),
            seed=5,
            head=head,
        )
        run_directory = RunDirectory(tmp_path / name)
        run_directory.open({}, lambda directory: None, force=False)
        return EncoderTrainer(table, checkpoint, spec, run_directory), checkpoint, run_directory

    return make


def never():
    return False


def finish(trainer):
    reports = []
    assert trainer.run(reports.append, never)
    return reports


def all_weights(checkpoint, weights_of):
    return weights_of(checkpoint.encoder) | weights_of(checkpoint.task_head)


# The initial head


def test_a_training_starts_from_the_head_that_was_fitted_to_the_frozen_encoder(begin, fitted):
    head, valid_loss = fitted

    trainer, checkpoint, _ = begin(head=head, optimizer=replace(ADAMW, learning_rate=0.0))
    finish(trainer)

    assert trainer.valid_loss == pytest.approx(valid_loss, rel=1e-4)
    assert all(torch.equal(value, checkpoint.task_head.state_dict()[name]) for name, value in head.state_dict().items())


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_training_that_never_improves_keeps_the_initial_model(
    begin, fitted, tiny_model, copy_weights, have_same_bits, method
):
    head, valid_loss = fitted
    too_high = OptimizerConfig(optimizer="adamw", learning_rate=0.3)

    trainer, checkpoint, _ = begin(head=head, method=method, optimizer=too_high)
    reports = finish(trainer)

    assert min(report.validation["valid_loss"] for report in reports if report.validation) > valid_loss
    assert (trainer.checkpoints.progress.best_step, trainer.valid_loss) == (0, pytest.approx(valid_loss, rel=1e-4))
    assert have_same_bits(copy_weights(checkpoint.task_head), copy_weights(head))
    assert have_same_bits(copy_weights(checkpoint.encoder), copy_weights(load_checkpoint(tiny_model).encoder))


def test_a_training_that_improves_lowers_the_validation_loss(begin, constant_head):
    trainer, _, _ = begin(head=constant_head, epochs=6)
    initial_loss = trainer._validate()["valid_loss"]

    reports = finish(trainer)

    measured = [report.validation["valid_loss"] for report in reports if report.validation]
    assert trainer.valid_loss == min(measured) < 0.7 * initial_loss
    assert trainer.checkpoints.progress.best_step > 0


def test_a_new_head_starts_in_the_units_of_the_training_labels(begin, charged):
    _, checkpoint, _ = begin()

    known = charged.known_targets("train")
    head = checkpoint.task_head
    assert (head.offset.item(), head.scale.item()) == pytest.approx((known.mean(), known.std()))


def test_attention_pooling_starts_as_the_mean_that_the_head_was_fitted_to(begin, fitted):
    head, valid_loss = fitted

    trainer, checkpoint, _ = begin(head=head, pooling="attention", optimizer=replace(ADAMW, learning_rate=0.0))
    finish(trainer)

    assert checkpoint.task_head.query.tolist() == [0.0] * 32
    assert trainer.valid_loss == pytest.approx(valid_loss, rel=1e-4)


# A steep head


@pytest.fixture(scope="module")
def similar_vectors(tmp_path_factory):
    """Make a tiny model with similar vectors: most of each token's embedding is common to all tokens."""
    checkpoint = new_checkpoint(TINY, "gaussian", seed=0)
    with torch.no_grad():
        checkpoint.encoder.embedding.weight.add_(0.2 * torch.randn(32, generator=torch.Generator().manual_seed(3)))
    directory = tmp_path_factory.mktemp("models") / "similar"
    save_checkpoint(checkpoint, directory, "# similar\n")
    return directory


@pytest.fixture(scope="module")
def both_residues():
    """Make random proteins, positive if they have at least two alanines and two leucines."""
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
    return TaskTable.from_table(table, TASKS["classification"])


def test_a_steep_head_does_not_make_the_training_diverge(begin, similar_vectors, both_residues):
    head, frozen_loss = fit_head(load_checkpoint(similar_vectors).encoder, both_residues)
    assert head.steepness > 200

    trainer, _, _ = begin(
        head=head,
        model=similar_vectors,
        table=both_residues,
        optimizer=OptimizerConfig(),
        epochs=20,
        batch_tokens=600,
    )
    losses = [report.validation["valid_loss"] for report in finish(trainer) if report.validation]

    # Predicting the class frequencies costs 0.69; without softening the fitted head, the first epochs cost up to 5.
    assert max(losses[:3]) < 1.4
    assert min(losses) < 0.6
    assert trainer.divergence() is None
    assert trainer.valid_loss <= frozen_loss + 1e-4


@pytest.mark.parametrize(("dim", "factor"), [(32, 1.0), (160, 1.0), (320, 0.5), (1280, 0.125)])
def test_default_learning_rates_fall_with_the_width_and_end_at_those_of_width_160(dim, factor):
    full, lora = (default_learning_rates(method, dim) for method in ("full", "lora"))

    assert full == pytest.approx({"adamw": 0.001 * factor, "muon": 0.001 * factor, "sgd": 0.01 * factor})
    assert lora == pytest.approx({"adamw": 0.003 * factor, "muon": 0.003 * factor, "sgd": 0.1 * factor})


@pytest.mark.parametrize(("learning_rate", "factor"), [(None, 1.0), (0.01, 0.1), (0.0001, 10.0)])
def test_initial_steepness_is_inverse_to_the_learning_rate(
    begin, similar_vectors, both_residues, learning_rate, factor
):
    head, _ = fit_head(load_checkpoint(similar_vectors).encoder, both_residues)
    optimizer = OptimizerConfig(learning_rate=learning_rate)
    trainer, checkpoint, _ = begin(head=head, model=similar_vectors, table=both_residues, optimizer=optimizer)

    trainer._start_from_fitted_head()

    assert checkpoint.task_head.steepness == pytest.approx(10.0 * factor)
    # The fitted head is kept until an epoch is better.
    assert trainer.checkpoints.progress.best_step == 0


def test_a_training_that_diverged_describes_its_worst_epoch(begin, fitted):
    trainer, _, _ = begin(head=fitted[0], optimizer=OptimizerConfig(learning_rate=3.0))
    reports = finish(trainer)

    losses = [report.validation["valid_loss"] for report in reports if report.validation]
    divergence = trainer.divergence()
    assert (divergence.valid_loss, divergence.uninformed_loss) == (max(losses), 0.5)
    assert divergence.epoch == losses.index(max(losses)) + 1
    assert str(divergence).endswith("choose a --learning-rate below 3")


def test_a_rising_validation_loss_is_no_divergence_if_the_training_loss_is_low(begin, fitted):
    trainer, _, run = begin(head=fitted[0])
    finish(trainer)
    run.log({"step": 90, "train_loss": 0.1, "valid_loss": 50.0})

    assert trainer.divergence() is None


@pytest.mark.parametrize(("is_weighted", "expected"), [(False, 0.5623), (True, 0.6931)])
def test_an_uninformed_classifier_predicts_the_class_frequencies(begin, make_table, is_weighted, expected):
    numbers = iter(range(40))
    table = make_table(lambda sequence: "rare" if next(numbers) % 4 == 0 else "common", NUM_RESIDUES)

    trainer, _, _ = begin(table=TaskTable.from_table(table, TASKS["classification"]), balance_classes=is_weighted)

    # -(1/4) ln(1/4) - (3/4) ln(3/4), or ln 2 where both classes have the same weight.
    assert trainer._uninformed_loss == pytest.approx(expected, abs=1e-4)


# The trained weights


def test_the_best_weights_are_kept_if_later_epochs_are_worse(begin, copy_weights, have_same_bits):
    trainer, checkpoint, _ = begin(epochs=4, optimizer=replace(ADAMW, learning_rate=0.05), patience=9)
    validated = {}

    def remember(report):
        if report.validation:
            validated[report.step] = (report.validation["valid_loss"], all_weights(checkpoint, copy_weights))

    assert trainer.run(remember, never)

    best = min(validated, key=lambda step: validated[step][0])
    assert trainer.checkpoints.progress.best_step == best < max(validated)
    assert have_same_bits(all_weights(checkpoint, copy_weights), validated[best][1])


def test_adapters_are_merged_into_a_plain_encoder_with_the_same_validation_loss(begin, constant_head, tiny_model):
    trainer, checkpoint, _ = begin(head=constant_head, method="lora", optimizer=replace(ADAMW, learning_rate=0.01))
    before = load_checkpoint(tiny_model).encoder.state_dict()

    finish(trainer)

    after = checkpoint.encoder.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert after.keys() == before.keys()
    assert len(changed) == 2 * 4
    assert all(name.endswith("weight") and before[name].ndim == 2 for name in changed)
    assert not any(parametrize.is_parametrized(module) for module in checkpoint.encoder.modules())
    assert trainer._validate()["valid_loss"] == pytest.approx(trainer.valid_loss, abs=1e-6)


def test_the_head_learns_faster_than_the_encoder(begin):
    trainer, checkpoint, _ = begin(head_lr_multiplier=7.0, optimizer=replace(ADAMW, warmup_steps=0, weight_decay=0.0))
    before = [checkpoint.task_head.linear.bias.item(), checkpoint.encoder.final_norm.bias.detach().clone()]

    assert not trainer.run(lambda report: None, lambda: True)

    # AdamW's first step is the learning rate itself.
    assert abs(checkpoint.task_head.linear.bias.item() - before[0]) == pytest.approx(7 * 0.003, rel=1e-3)
    moved = (checkpoint.encoder.final_norm.bias - before[1]).abs()
    assert moved.max().item() == pytest.approx(0.003, rel=1e-3)


# Interruptions and early stopping


@pytest.mark.promise(2)
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_stopped_training_resumes_bit_for_bit(begin, constant_head, copy_weights, have_same_bits, method):
    options = {"head": constant_head, "method": method, "patience": 9}
    whole, whole_checkpoint, whole_run = begin("whole", **options)
    finish(whole)

    for stop_after in (2, whole.schedule.num_steps // 2):
        trainer, _, _ = begin("stopped", **options)
        assert not trainer.run(
            lambda report: None, lambda step=stop_after, trainer=trainer: trainer.checkpoints.progress.step == step
        )
    trainer, checkpoint, run = begin("stopped", **options)
    assert trainer.checkpoints.progress.step == whole.schedule.num_steps // 2
    finish(trainer)

    def log_of(run_directory):
        lines = run_directory.read_log()
        return [{name: value for name, value in line.items() if name not in MEASURED} for line in lines]

    assert have_same_bits(all_weights(checkpoint, copy_weights), all_weights(whole_checkpoint, copy_weights))
    assert trainer.valid_loss == whole.valid_loss
    assert log_of(run) == log_of(whole_run)


def test_a_finished_training_loads_the_same_model_again(begin, fitted, copy_weights, have_same_bits):
    first, checkpoint, _ = begin(head=fitted[0])
    finish(first)

    again, same_checkpoint, _ = begin(head=fitted[0])

    assert finish(again) == []
    assert have_same_bits(all_weights(same_checkpoint, copy_weights), all_weights(checkpoint, copy_weights))


def test_best_weights_with_former_names_of_modules_are_loaded(begin, fitted, tmp_path, copy_weights, have_same_bits):
    trainer, checkpoint, run_directory = begin(head=fitted[0])
    finish(trainer)
    path = tmp_path / "run/best.safetensors"
    former = {name.replace("attention.qkv", "attention.project"): tensor for name, tensor in load_file(path).items()}
    save_file(former, path)
    run_directory.store(path.name, sha256_of_file(path))

    again, same_checkpoint, _ = begin(head=fitted[0])

    assert finish(again) == []
    assert any("attention.project" in name for name in former)
    assert have_same_bits(all_weights(same_checkpoint, copy_weights), all_weights(checkpoint, copy_weights))


def flip(path):
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)


DAMAGES = {"deleted": Path.unlink, "flipped": flip, "longer": lambda path: path.write_bytes(path.read_bytes() + b"x")}


@pytest.mark.promise(4)
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_best_weights_are_an_error_that_names_them(begin, fitted, tmp_path, damage):
    finish(begin(head=fitted[0])[0])
    damage(tmp_path / "run/best.safetensors")

    with pytest.raises(DamagedRunError, match=r"best\.safetensors: the best weights of this training are missing or"):
        finish(begin(head=fitted[0])[0])


@pytest.mark.promise(4)
def test_a_damaged_checkpoint_is_reported_and_the_training_resumes_from_the_one_before(begin, fitted, tmp_path):
    trainer, _, _ = begin(head=fitted[0])
    finish(trainer)
    newest = max((tmp_path / "run/checkpoints").iterdir())
    flip(newest / "weights.safetensors")

    again, _, _ = begin(head=fitted[0])

    assert [f"{newest.name}/weights.safetensors is damaged" in warning for warning in again.warnings] == [True]
    assert 0 < again.checkpoints.progress.step < trainer.schedule.num_steps
    finish(again)


@pytest.mark.parametrize("patience", [1, 2])
def test_patience_ends_a_training_that_no_longer_improves(begin, fitted, patience):
    # With a rate of zero nothing changes: no epoch is better than the first.
    trainer, _, _ = begin(head=fitted[0], epochs=9, patience=patience, optimizer=replace(ADAMW, learning_rate=0.0))

    reports = finish(trainer)

    steps_per_epoch = trainer.schedule.num_steps // 9
    assert steps_per_epoch > 1
    assert len(reports) == (1 + patience) * steps_per_epoch


def test_patience_counts_epochs_without_a_lower_loss_of_the_training_itself():
    progress = TrainingProgress()
    progress.record_validation(0.20)

    for step, valid_loss in enumerate([0.9, 0.8, 0.7, 0.6], start=1):
        progress.step = step
        progress.record_validation(valid_loss)
        assert not progress.is_finished(num_steps=9, patience=1)

    progress.step = 5
    progress.record_validation(0.65)
    assert progress.is_finished(num_steps=9, patience=1)
    assert (progress.best_loss, progress.best_step) == (0.20, 0)


# Class weights and thresholds


def test_class_weights_balance_the_classes_and_have_a_mean_of_one(begin, make_table):
    names = ("none", "some", "many")
    table = make_table(lambda sequence: names[min(2, (sequence.count("A") + 1) // 2)], NUM_RESIDUES)
    table = TaskTable.from_table(table, TASKS["classification"])
    known = table.known_targets("train")

    trainer, _, _ = begin(table=table, balance_classes=True)

    weights = trainer._objective.class_weights.numpy()
    assert weights[known].mean() == pytest.approx(1)
    assert weights * np.bincount(known) == pytest.approx([8, 8, 8])
    assert len(set(np.bincount(known))) > 1


def test_class_weights_balance_positives_and_negatives_of_each_label(begin, make_table):
    table = make_table(lambda sequence: ";".join(["all", *(name for name in "WC" if name in sequence)]), NUM_RESIDUES)
    table = TaskTable.from_table(table, TASKS["multilabel"])
    positives = table.known_targets("train").sum(0)

    trainer, _, _ = begin(table=table, balance_classes=True)

    weights = trainer._objective.class_weights.numpy()
    assert table.classes == ("C", "W", "all")
    assert (weights * positives)[:2] == pytest.approx((24 - positives)[:2])
    assert 0 < weights[2] < 1


def test_classes_are_not_weighted_by_default(begin, make_table):
    table = make_table(lambda sequence: "yes" if "A" in sequence else "no", NUM_RESIDUES)

    trainer, _, _ = begin(table=TaskTable.from_table(table, TASKS["classification"]))

    assert trainer._objective.class_weights is None
