import csv
import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from protembed.callbacks import Callbacks
from protembed.cli.app import app
from protembed.config.common import OptimizerConfig
from protembed.errors import DamagedRunError, OutputExistsError, RunInUseError, RunMismatchError
from protembed.finetuning.finetune import finetune_model
from protembed.io.reading import STANDARD_STREAM, read_json
from protembed.io.writing import exclusive_lock
from protembed.model.checkpoint import load_checkpoint


@pytest.mark.promise(2)
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("num_steps", [2, 6, 9])
def test_a_stopped_training_is_resumed_bit_for_bit(
    labelled_tables, tiny_model, tmp_path, method, num_steps, finetune_options
):
    """The last stop falls into the second of two repeats."""
    table, reports = labelled_tables / "classification.csv", []
    settings = {"method": method, "repeats": 2, "skip_random_baseline": False}
    finetune_model(table, finetune_options(tmp_path / "whole.model", tiny_model, **settings))
    callbacks = Callbacks(on_step=reports.append, stop=lambda: len(reports) == num_steps)
    stopped = finetune_model(table, finetune_options(tmp_path / "stopped.model", tiny_model, **settings), callbacks)
    assert (stopped.is_finished, stopped.output, stopped.comparison) == (False, None, None)
    assert not (tmp_path / "stopped.model").exists()

    finetune_model(table, finetune_options(tmp_path / "stopped.model", tiny_model, **settings))

    for path in (tmp_path / "whole.model").iterdir():
        assert (tmp_path / "stopped.model" / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.slow
@pytest.mark.promise(1)
def test_a_killed_training_is_resumed_bit_for_bit_and_leaves_nothing_stray(labelled_tables, tiny_model, tmp_path):
    def command(name):
        settings = "--method full --epochs 4 --batch-tokens 1024 --skip-random-baseline --threads 1 --quiet".split()
        return [
            "finetune",
            str(labelled_tables / "regression.csv"),
            "-m",
            str(tiny_model),
            "-o",
            str(tmp_path / name),
            *settings,
        ]

    assert CliRunner().invoke(app, command("whole.model")).exit_code == 0
    with subprocess.Popen([sys.executable, "-m", "protembed", *command("killed.model")]) as process:
        while process.poll() is None and not any(tmp_path.rglob("killed.model.partial/*/checkpoints/step-*")):
            time.sleep(0.002)
        process.kill()
    assert process.returncode == -signal.SIGKILL

    assert CliRunner().invoke(app, command("killed.model")).exit_code == 0

    for path in (tmp_path / "whole.model").iterdir():
        assert (tmp_path / "killed.model" / path.name).read_bytes() == path.read_bytes(), path.name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed.model", "whole.model"]


@pytest.mark.promise(2)
@pytest.mark.parametrize(("begun_with_amx", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_a_training_is_resumed_in_its_precision_on_a_machine_that_would_choose_another(
    labelled_tables, tiny_model, tmp_path, finetune_options, monkeypatch, begun_with_amx, precision
):
    table, reports = labelled_tables / "regression.csv", []
    whole, moved = (tmp_path / f"{name}.model" for name in ("whole", "moved"))
    monkeypatch.setattr("protembed.device.has_amx", lambda: begun_with_amx)
    finetune_model(table, finetune_options(whole, tiny_model, method="full"))
    stop = Callbacks(on_step=reports.append, stop=lambda: len(reports) == 2)
    finetune_model(table, finetune_options(moved, tiny_model, method="full"), stop)
    monkeypatch.setattr("protembed.device.has_amx", lambda: not begun_with_amx)

    summary = finetune_model(table, finetune_options(moved, tiny_model, method="full"))

    assert load_checkpoint(moved).metadata.configuration["precision"] == precision
    assert ("training multiplied in bfloat16; --precision float32 is slower and rounds less" in summary.notes) == (
        precision == "bfloat16"
    )
    for path in whole.iterdir():
        assert (moved / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_requested_precision_trains_alike_with_and_without_amx(
    labelled_tables, tiny_model, tmp_path, finetune_options, monkeypatch
):
    table, weights = labelled_tables / "regression.csv", []
    for has_amx in (True, False):
        monkeypatch.setattr("protembed.device.has_amx", lambda has_amx=has_amx: has_amx)
        model = tmp_path / f"{has_amx}.model"
        finetune_model(table, finetune_options(model, tiny_model, method="full", precision="float32"))
        weights.append((model / "model.safetensors").read_bytes())

    assert weights[0] == weights[1]


def test_a_frozen_encoder_records_no_precision_of_training(
    labelled_tables, tiny_model, tmp_path, finetune_options, monkeypatch
):
    monkeypatch.setattr("protembed.device.has_amx", lambda: True)
    model = tmp_path / "frozen.model"

    finetune_model(labelled_tables / "regression.csv", finetune_options(model, tiny_model, method="frozen"))

    assert "precision" not in load_checkpoint(model).metadata.configuration


@pytest.mark.promise(7)
def test_two_trainings_cannot_share_a_directory(labelled_tables, tiny_model, tmp_path, finetune_options):
    with exclusive_lock(tmp_path / ".x.model.lock", lambda holder: RuntimeError(holder)):
        with pytest.raises(RunInUseError):
            finetune_model(labelled_tables / "classification.csv", finetune_options(tmp_path / "x.model", tiny_model))


def test_repeating_an_interrupted_replacement_resumes_it(labelled_tables, tiny_model, tmp_path, finetune_options):
    table, output, reports = labelled_tables / "regression.csv", tmp_path / "x.model", []
    finetune_model(table, finetune_options(output, tiny_model, method="frozen"))
    callbacks = Callbacks(on_step=reports.append, stop=lambda: len(reports) == 2)
    finetune_model(table, finetune_options(output, tiny_model, force=True), callbacks)

    resumed = []
    finetune_model(table, finetune_options(output, tiny_model, force=True), Callbacks(on_step=resumed.append))

    assert [reports[0].step, reports[1].step, resumed[0].step] == [1, 2, 3]
    assert load_checkpoint(output).metadata.configuration["method"] is None


@pytest.mark.promise(8)
def test_a_training_on_a_table_from_stdin_is_resumed(
    labelled_tables, tiny_model, tmp_path, finetune_options, give_stdin
):
    output, reports = tmp_path / "x.model", []
    callbacks = Callbacks(on_step=reports.append, stop=lambda: len(reports) == 2)
    give_stdin((labelled_tables / "regression.csv").read_bytes())
    finetune_model(STANDARD_STREAM, finetune_options(output, tiny_model), callbacks)

    give_stdin((labelled_tables / "classification.csv").read_bytes())
    with pytest.raises(RunMismatchError, match="the table of labels differs"):
        finetune_model(STANDARD_STREAM, finetune_options(output, tiny_model))

    resumed = []
    give_stdin((labelled_tables / "regression.csv").read_bytes())
    finetune_model(STANDARD_STREAM, finetune_options(output, tiny_model), Callbacks(on_step=resumed.append))
    assert resumed[0].step == 3


@pytest.mark.promise(8)
@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 3}, "`seed` was 0, not 3"),
        ({"epochs": 5}, "`epochs` was 2, not 5"),
        ({"pooling": "max"}, "`pooling` was auto, not max"),
    ],
)
def test_a_training_with_other_settings_is_not_resumed(
    labelled_tables, tiny_model, tmp_path, finetune_options, changes, named
):
    table, output = labelled_tables / "regression.csv", tmp_path / "x.model"
    finetune_model(table, finetune_options(output, tiny_model), Callbacks(stop=lambda: True))

    with pytest.raises(RunMismatchError, match=named):
        finetune_model(table, finetune_options(output, tiny_model, **changes))


@pytest.mark.promise(4)
def test_a_damaged_training_is_restarted_with_force(labelled_tables, tiny_model, tmp_path, finetune_options):
    table, output = labelled_tables / "regression.csv", tmp_path / "x.model"
    finetune_model(table, finetune_options(output, tiny_model), Callbacks(stop=lambda: True))
    for path in output.with_name("x.model.partial").rglob("step-*/weights.safetensors"):
        path.write_bytes(b"damaged")

    with pytest.raises(DamagedRunError, match=r"weights\.safetensors: this is damaged.*pass `force` to start over"):
        finetune_model(table, finetune_options(output, tiny_model))

    reports = []
    finetune_model(table, finetune_options(output, tiny_model, force=True), Callbacks(on_step=reports.append))
    assert reports[0].step == 1


@pytest.mark.promise(4)
def test_resuming_after_a_damaged_checkpoint_warns(labelled_tables, tiny_model, tmp_path, finetune_options):
    table, output, steps, warnings = labelled_tables / "regression.csv", tmp_path / "x.model", [], []
    settings = {"epochs": 9, "patience": 9}
    callbacks = Callbacks(on_step=steps.append, stop=lambda: bool(steps) and steps[-1].step == steps[-1].num_steps // 2)
    finetune_model(table, finetune_options(output, tiny_model, **settings), callbacks)
    newest = max(output.with_name("x.model.partial").rglob("step-*"))
    (newest / "optimizer.safetensors").unlink()

    finetune_model(table, finetune_options(output, tiny_model, **settings), Callbacks(on_warning=warnings.append))

    assert [f"{newest.name}/optimizer.safetensors is damaged" in sentence for sentence in warnings] == [True]


def test_the_frozen_encoder_is_kept_and_noted_if_no_epoch_is_better(
    labelled_tables, tiny_model, tmp_path, finetune_options
):
    settings = {"method": "full", "head_lr_multiplier": 1000.0}

    summary = finetune_model(
        labelled_tables / "regression.csv", finetune_options(tmp_path / "x.model", tiny_model, **settings)
    )

    assert summary.comparison.differences["frozen"].value == pytest.approx(0, abs=1e-6)
    note = "fine-tuning did not improve the validation loss; keeping the frozen encoder with its linear head"
    assert note in summary.notes


@pytest.mark.parametrize("repeats", [1, 2])
def test_a_training_that_diverged_is_noted_in_the_summary_the_metrics_and_the_page(
    labelled_tables, tiny_model, tmp_path, finetune_options, repeats
):
    settings = finetune_options(tmp_path / "x.model", tiny_model, method="full", repeats=repeats)
    settings = replace(settings, optimizer=OptimizerConfig(learning_rate=3.0))

    summary = finetune_model(labelled_tables / "regression.csv", settings)

    beginning = "the training of 'fine-tuned' diverged: " if repeats == 1 else "2 of 2 trainings of 'fine-tuned' "
    (note,) = (note for note in summary.notes if note.startswith(beginning))
    rise = r"the validation loss rose to [\d.]+ in epoch [12], where predicting the same for every protein costs 0\.50"
    assert re.search(rf"{rise}; choose a --learning-rate below 3$", note)
    assert note in json.loads((tmp_path / "x.model/metrics.json").read_text())["notes"]
    assert "choose a --learning-rate below 3" in (tmp_path / "x.model/report.html").read_text()


# Splits and repeats


@pytest.fixture
def without_splits(labelled_tables, read_rows, tmp_path):
    """Write the table of a task without its split column."""

    def write(task):
        with (tmp_path / "all.csv").open("w", newline="") as stream:
            rows = read_rows(labelled_tables / f"{task}.csv", ",")
            labelled = ((row["id"], row["sequence"], row["label"]) for row in rows)
            csv.writer(stream).writerows([("id", "sequence", "label"), *labelled])
        return tmp_path / "all.csv"

    return write


def test_kfold_predicts_every_protein_once_by_a_model_that_did_not_see_it(
    without_splits, tiny_model, tmp_path, read_rows, finetune_options
):
    table = without_splits("regression")
    kfold = finetune_options(tmp_path / "folds.model", tiny_model, method="frozen", labels={"split": "kfold"})

    finetune_model(table, kfold)

    predicted = read_rows(tmp_path / "folds.model" / "test_predictions.tsv")
    assert sorted(row["id"] for row in predicted) == sorted(row["id"] for row in read_rows(table, ","))
    similar = {
        row["id"]: float(row["similarity"]) for row in read_rows(tmp_path / "folds.model" / "test_similarity.tsv")
    }
    assert similar.keys() == {row["id"] for row in predicted}
    assert max(similar.values()) < 1


def test_kfold_embeds_each_training_protein_once(without_splits, tiny_model, tmp_path, read_rows, finetune_options):
    table, embedded = without_splits("classification"), []
    kfold = finetune_options(tmp_path / "folds.model", tiny_model, method="frozen", labels={"split": "kfold"})

    finetune_model(table, kfold, Callbacks(on_progress=embedded.append))

    assert sorted(embedded) == sorted(map(len, {row["sequence"] for row in read_rows(table, ",")}))


def test_the_majority_baseline_has_no_skill_in_kfold(without_splits, tiny_model, tmp_path, finetune_options):
    kfold = finetune_options(tmp_path / "folds.model", tiny_model, method="frozen", labels={"split": "kfold"})

    summary = finetune_model(without_splits("classification"), kfold)

    assert summary.comparison.predictors["majority"]["mcc"].value == 0
    assert summary.comparison.predictors["majority"]["auroc"].value == pytest.approx(0.5)


def test_a_split_by_clusters_of_mmseqs2_is_redone_if_the_clusters_change(
    without_splits, tiny_model, tmp_path, read_rows, finetune_options
):
    table, clusters = without_splits("regression"), tmp_path / "all_cluster.tsv"
    clusters.write_text("".join(f"p{row - row % 5}\tp{row}\n" for row in range(40)))
    options = finetune_options(tmp_path / "a.model", tiny_model, method="frozen", labels={"clusters": clusters})

    summary = finetune_model(table, options)

    tested = {int(row["id"][1:]) // 5 for row in read_rows(tmp_path / "a.model" / "test_predictions.tsv")}
    assert len(tested) == 1
    assert f"by cluster (8 clusters of {clusters})" in summary.notes[0]
    assert "clusters" not in load_checkpoint(tmp_path / "a.model").metadata.configuration
    assert finetune_model(table, options).was_done
    clusters.write_text("".join(f"p{row - row % 4}\tp{row}\n" for row in range(40)))
    with pytest.raises(OutputExistsError, match=r"was made with other settings \(`clusters` differs\)"):
        finetune_model(table, options)


def test_kfold_trains_the_encoder_in_each_fold(without_splits, tiny_model, tmp_path, finetune_options):
    table = without_splits("classification")
    kfold = finetune_options(tmp_path / "folds.model", tiny_model, method="full", epochs=1, labels={"split": "kfold"})

    summary = finetune_model(table, kfold)

    assert list(summary.comparison.predictors) == ["majority", "composition", "k-mers", "frozen", "fine-tuned"]
    assert load_checkpoint(tmp_path / "folds.model").task_head.classes == ("poor", "rich")


def test_the_repeat_with_the_lowest_validation_loss_is_kept(labelled_tables, tiny_model, tmp_path, finetune_options):
    """Compare two repeats with two single trainings that have the seeds of the repeats."""
    table, losses = labelled_tables / "regression.csv", {}
    settings = {"method": "full", "epochs": 3, "head_lr_multiplier": 100.0}
    summary = finetune_model(table, finetune_options(tmp_path / "two.model", tiny_model, repeats=2, **settings))
    for seed in (0, 1):
        reports = []
        output = tmp_path / f"{seed}.model"
        callbacks = Callbacks(on_step=reports.append)
        finetune_model(table, finetune_options(output, tiny_model, seed=seed, **settings), callbacks)
        losses[seed] = min(report.validation["valid_loss"] for report in reports if report.validation)

    best = min(losses, key=losses.get)
    assert losses[0] != losses[1]
    assert summary.comparison.num_repeats == 2
    repeated = load_checkpoint(tmp_path / "two.model").encoder.state_dict()
    alone = load_checkpoint(tmp_path / f"{best}.model").encoder.state_dict()
    assert all(torch.equal(repeated[name], alone[name]) for name in repeated)


def test_drop_leaked_leaves_out_test_proteins_of_train(
    labelled_tables, tiny_model, proteins, tmp_path, read_rows, finetune_options
):
    table = tmp_path / "leaked.csv"
    table.write_text((labelled_tables / "regression.csv").read_text() + f"again,{proteins[0]},5.0,test\n")

    dropped = finetune_options(tmp_path / "d.model", tiny_model, method="frozen", labels={"drop_leaked": True})
    plans = []
    finetune_model(table, dropped, Callbacks(on_plan=plans.append))
    finetune_model(
        table, finetune_options(tmp_path / "k.model", tiny_model, method="frozen"), Callbacks(on_plan=plans.append)
    )

    assert [plan.num_proteins["test"] for plan in plans] == [10, 11]
    sentence = "1 of 11 test sequences are also in train or valid (such as 'again')"
    assert plans[0].warnings[0] == f"{sentence}; they are left out"
    assert plans[1].warnings[0] == f"{sentence}; --drop-leaked leaves them out"
    assert any(warning.startswith("only 10 test proteins: ") for warning in plans[0].warnings)
    assert any(
        note.startswith("only 10 test proteins: ") for note in read_json(tmp_path / "d.model/metrics.json")["notes"]
    )
    similar = {row["id"]: row for row in read_rows(tmp_path / "k.model" / "test_similarity.tsv")}
    assert (similar["again"]["similarity"], similar["again"]["nearest_training_protein"]) == ("1.000", "p0")
