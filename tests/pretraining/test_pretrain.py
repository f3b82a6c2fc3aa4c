import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from protembed.callbacks import Callbacks
from protembed.cli.app import app
from protembed.config.common import DeviceConfig, OptimizerConfig
from protembed.config.model_sizes import ESM2Shape
from protembed.config.pretrain import BatchConfig, PretrainConfig, PretrainOptions
from protembed.data.alphabet import AMINO_ACIDS
from protembed.errors import (
    ConfigError,
    DamagedRunError,
    DivergedError,
    IllegalResidueError,
    InputNotFoundError,
    ModelFormatError,
    NotEnoughMemoryError,
    OutputExistsError,
    RunInUseError,
    RunMismatchError,
    TooFewProteinsError,
)
from protembed.io.result import RUN, Result
from protembed.model.checkpoint import load_checkpoint
from protembed.pretraining import run as run_module, validation
from protembed.pretraining.amino_acids import AminoAcidPredictions
from protembed.pretraining.pretrain import plan_pretraining, pretrain_model

SMALL = BatchConfig(batch_tokens=256, micro_batch_tokens=128, crop_residues=48)


def options(output, **changes):
    settings = {"size": "t4_1M", "steps": 6, "save_every": 2, "validate_every": 3, "precision": "float32"} | changes
    return PretrainOptions(
        pretrain=PretrainConfig(output=output, **settings), batches=SMALL, compute=DeviceConfig(threads=1)
    )


def losses(run):
    return [json.loads(line)["train_loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def page_without_speed(run):
    """The page of a run without the figure of its speed, which varies."""
    return re.sub("<h3>Speed</h3>.*?</figure>", "", (run / "report.html").read_text(), flags=re.DOTALL)


def final_weights(run):
    return load_file(run / "checkpoints" / "step-000006" / "weights.safetensors")


def equal(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, proteins_fasta):
    run = tmp_path_factory.mktemp("runs") / "undisturbed.run"
    return run, pretrain_model([proteins_fasta], options(run))


@pytest.fixture(scope="module")
def in_bfloat16(tmp_path_factory, proteins_fasta):
    run = tmp_path_factory.mktemp("runs") / "bfloat16.run"
    return run, pretrain_model([proteins_fasta], options(run, precision="bfloat16"))


UNDISTURBED = {"float32": "undisturbed", "bfloat16": "in_bfloat16"}


def test_a_finished_run_contains_all_promised_files(undisturbed):
    run, summary = undisturbed

    assert {path.name for path in run.iterdir()} == {
        *("run.json", "metrics.jsonl", "checkpoints", "corpus", "model", "training.png", "amino_acids.tsv"),
        *("confusions.tsv", "report.html"),
    }
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[0].keys() == {
        *("step", "residues", "time", "train_loss", "mask_token_loss", "learning_rate", "grad_norm"),
        *("residues_per_second", "peak_memory_bytes"),
    }
    times = [datetime.fromisoformat(line["time"]) for line in lines]
    assert times == sorted(times)
    assert times[0].tzinfo is UTC
    assert {"valid_loss", "valid_perplexity", "unigram_perplexity"} <= lines[5].keys()
    assert summary.is_finished
    assert summary.valid_loss == min(line["valid_loss"] for line in lines if "valid_loss" in line)
    assert summary.valid_perplexity == pytest.approx(np.exp(summary.valid_loss))


def test_micro_batches_of_one_shape_train_the_same_model_and_the_plan_warns_of_layers_that_are_not_compiled(
    undisturbed, proteins_fasta, tmp_path, monkeypatch
):
    undisturbed_run, expected = undisturbed
    warning, plans = "the layers are not compiled", []
    monkeypatch.setattr(
        run_module, "compile_training", lambda objective, batches, *_: (batches.fixed_micro_batches, [warning])
    )

    summary = pretrain_model([proteins_fasta], options(tmp_path / "a.run"), Callbacks(on_plan=plans.append))

    assert warning in plans[0].warnings
    assert losses(tmp_path / "a.run") == pytest.approx(losses(undisturbed_run), rel=1e-4)
    assert summary.num_residues == expected.num_residues


def test_a_run_may_be_resumed_without_the_compiler(undisturbed, proteins_fasta):
    run, expected = undisturbed

    summary = pretrain_model([proteins_fasta], options(run, compile="never"))

    assert summary.was_done
    assert summary.num_residues == expected.num_residues


def test_the_exported_model_is_the_best_and_records_its_window(undisturbed):
    run, summary = undisturbed
    metadata = load_checkpoint(run / "model").metadata

    assert metadata.window_residues == SMALL.crop_residues
    assert metadata.metrics["step"] == summary.best_step
    assert metadata.metrics["valid_loss"] == summary.valid_loss
    assert f"perplexity {summary.valid_perplexity:.2f}" in (run / "model" / "README.md").read_text()


def test_a_finished_run_records_its_gain_over_each_reference_with_an_interval(undisturbed):
    run, summary = undisturbed
    metadata = load_checkpoint(run / "model").metadata

    assert summary.gains.keys() == {"unigram", "bigram"} == metadata.metrics["gains"].keys()
    for name, gain in summary.gains.items():
        assert gain.value == pytest.approx(summary.references[name] - summary.valid_loss, abs=1e-5)
        assert gain.low < gain.value < gain.high
        assert metadata.metrics["gains"][name] == vars(gain)
    unigram = summary.gains["unigram"]
    assert (
        f"{unigram.value:.4f} ({unigram.low:.4f} to {unigram.high:.4f}) over"
        in (run / "model" / "README.md").read_text()
    )


@pytest.mark.promise(2)
def test_a_stopped_run_is_resumed_bit_for_bit(undisturbed, tmp_path, proteins_fasta):
    run, seen = tmp_path / "stopped.run", []
    stopped = pretrain_model(
        [proteins_fasta], options(run), Callbacks(on_step=seen.append, stop=lambda: len(seen) == 3)
    )
    assert not stopped.is_finished
    assert stopped.gains == {}
    assert "After 3 of 6 steps, the model" in (run / "report.html").read_text()

    first_steps = []
    resumed = pretrain_model(
        [proteins_fasta], options(run), Callbacks(on_plan=lambda plan: first_steps.append(plan.first_step))
    )

    assert first_steps == [3]
    assert resumed.is_finished
    assert losses(run) == losses(undisturbed[0])
    assert equal(final_weights(run), final_weights(undisturbed[0]))
    assert (run / "model" / "model.safetensors").read_bytes() == (
        undisturbed[0] / "model" / "model.safetensors"
    ).read_bytes()
    assert page_without_speed(run) == page_without_speed(undisturbed[0])


@pytest.mark.parametrize("precision", UNDISTURBED)
def test_the_number_of_threads_changes_no_bit(request, tmp_path, proteins_fasta, precision):
    run, (expected, _) = tmp_path / "threads.run", request.getfixturevalue(UNDISTURBED[precision])
    three_threads = replace(options(run, precision=precision), compute=DeviceConfig(threads=3))

    pretrain_model([proteins_fasta], three_threads)

    assert losses(run) == losses(expected)
    assert equal(final_weights(run), final_weights(expected))


KILLED_AT_STEP = """
import os, runpy, signal, sys
from protembed.training.checkpoints import TrainingProgress

step, record = int(sys.argv.pop(1)), TrainingProgress.record_step

def record_and_die(progress, *arguments, **more):
    record(progress, *arguments, **more)
    if progress.step == step:
        os.kill(os.getpid(), signal.SIGKILL)

TrainingProgress.record_step = record_and_die
runpy.run_module("protembed", run_name="__main__")
"""


@pytest.mark.promise(1, 2)
@pytest.mark.slow
@pytest.mark.parametrize(("precision", "seed"), [("float32", 0), ("float32", 1), ("bfloat16", 1)])
def test_a_killed_run_is_resumed_bit_for_bit(request, tmp_path, proteins_fasta, precision, seed):
    run, (expected, _) = tmp_path / "killed.run", request.getfixturevalue(UNDISTURBED[precision])
    command = ["pretrain", str(proteins_fasta), "-o", str(run), "--size", "t4_1M"]
    command += ["--steps", "6", "--save-every", "2", "--validate-every", "3", "--threads", "1"]
    command += ["--batch-tokens", "256", "--micro-batch-tokens", "128", "--crop-residues", "48"]
    command += ["--precision", precision]
    killed = [sys.executable, "-c", KILLED_AT_STEP, str(1 + 2 * seed), *command]
    assert subprocess.run(killed, stderr=subprocess.DEVNULL).returncode == -signal.SIGKILL

    assert CliRunner().invoke(app, command).exit_code == 0

    assert losses(run) == losses(expected)
    assert equal(final_weights(run), final_weights(expected))
    assert [path.name for path in run.rglob(".*")] == []


def forget_the_end(run):
    """Remove what `run.json` says about a finished run, as in a run of an earlier version."""
    facts = json.loads((run / "run.json").read_text())
    del facts["finished"]
    (run / "run.json").write_text(json.dumps(facts))


@pytest.mark.promise(4)
def test_resuming_after_a_damaged_checkpoint_gives_a_warning(undisturbed, tmp_path, proteins_fasta):
    run, plans = Path(shutil.copytree(undisturbed[0], tmp_path / "a.run")), []
    (run / "checkpoints/step-000006/progress.json").write_text("{}")
    forget_the_end(run)

    pretrain_model([proteins_fasta], options(run), Callbacks(on_plan=plans.append))

    warning = "step-000006/progress.json is damaged; skipping this checkpoint and resuming from step-000004"
    assert sum(text.endswith(warning) for text in plans[0].warnings) == 1
    assert losses(run) == losses(undisturbed[0])
    assert equal(final_weights(run), final_weights(undisturbed[0]))


def test_a_finished_run_is_not_trained_again(undisturbed, proteins_fasta):
    run, summary = undisturbed
    steps = []

    again = pretrain_model([proteins_fasta], options(run), Callbacks(on_step=steps.append))

    assert (steps, again) == ([], replace(summary, was_done=True))


def test_a_finished_run_of_an_earlier_version_or_without_its_model_is_evaluated_again(
    undisturbed, tmp_path, proteins_fasta
):
    run = Path(shutil.copytree(undisturbed[0], tmp_path / "a.run"))
    again = replace(undisturbed[1], output=run, model=run / "model")

    forget_the_end(run)
    assert pretrain_model([proteins_fasta], options(run)) == again

    (run / "model/model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ModelFormatError):
        pretrain_model([proteins_fasta], options(run))


def test_a_run_is_resumed_with_other_intervals_between_checkpoints(undisturbed, proteins_fasta):
    run, summary = undisturbed

    assert pretrain_model([proteins_fasta], options(run, save_every_minutes=3.0, keep_checkpoints=5)) == replace(
        summary, was_done=True
    )


@pytest.mark.promise(8)
def test_a_run_with_other_settings_or_data_is_refused_and_the_change_is_named(undisturbed, proteins_fasta, tmp_path):
    run, _ = undisturbed
    other_data = tmp_path / "other.fasta"
    other_data.write_text(proteins_fasta.read_text() + ">one_more\nMKTAYIAK\n")

    with pytest.raises(RunMismatchError, match="`seed` was 0, not 1"):
        pretrain_model([proteins_fasta], options(run, seed=1))
    with pytest.raises(RunMismatchError, match="the input differs"):
        pretrain_model([other_data], options(run))


@pytest.mark.promise(1)
def test_leftovers_of_a_killed_start_are_removed(tmp_path, proteins_fasta):
    (tmp_path / ".a.run.123.tmp").mkdir()
    (tmp_path / ".a.run.mine").mkdir()

    pretrain_model([proteins_fasta], options(tmp_path / "a.run", steps=1))

    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.run.mine", "a.run"]


@pytest.mark.promise(7)
def test_a_run_directory_has_the_same_lock_through_a_link(tmp_path, proteins_fasta):
    run = tmp_path / "a.run"
    pretrain_model([proteins_fasta], options(run, steps=1))
    forget_the_end(run)
    (tmp_path / "link.run").symlink_to(run)

    with Result(run, [], force=True, run=RUN).claim({}), pytest.raises(RunInUseError, match="in use by process"):
        pretrain_model([proteins_fasta], options(tmp_path / "link.run", steps=1))


@pytest.mark.parametrize("force", [False, True])
def test_another_directory_is_refused_and_left_unchanged(tmp_path, proteins_fasta, force):
    (tmp_path / "thesis.txt").write_text("precious")

    with pytest.raises(OutputExistsError, match="has no run.json"):
        pretrain_model([proteins_fasta], options(tmp_path, force=force))

    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("text", "error"), [(">a\nMKT1\n", IllegalResidueError), (">a\nMKTAYIAKQR\n", TooFewProteinsError)]
)
def test_bad_input_leaves_nothing_behind(tmp_path, text, error):
    fasta = tmp_path / "bad.fasta"
    fasta.write_text(text)

    with pytest.raises(error):
        pretrain_model([fasta], options(tmp_path / "bad.run"))

    assert [path.name for path in tmp_path.iterdir()] == ["bad.fasta"]


def test_a_missing_validation_set_is_reported_before_the_run_begins(tmp_path, proteins_fasta):
    with pytest.raises(InputNotFoundError):
        pretrain_model([proteins_fasta], options(tmp_path / "a.run", valid=[Path("missing.fasta")]))

    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_validated_in_bfloat16_ends_with_the_loss_in_float32(tmp_path, proteins_fasta, monkeypatch):
    for module in (run_module, validation):  # as on a GPU
        monkeypatch.setattr(
            module, "validates_in_bfloat16", lambda device, executor: executor.precision != torch.float32
        )
    run = tmp_path / "half.run"

    summary = pretrain_model([proteins_fasta], options(run, precision="bfloat16"))

    logged = [json.loads(line).get("valid_loss") for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert summary.valid_loss not in logged
    assert summary.valid_loss == pytest.approx(logged[summary.best_step - 1], abs=0.003)
    assert load_checkpoint(run / "model").metadata.metrics["valid_loss"] == summary.valid_loss
    assert json.loads((run / RUN).read_text())["exact_metrics"]["valid_loss"] == summary.valid_loss


def test_every_validation_set_is_evaluated(tmp_path, proteins_fasta):
    run = tmp_path / "two.run"

    pretrain_model([proteins_fasta], options(run, valid=[proteins_fasta, proteins_fasta], steps=2, validate_every=1))

    for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()):
        assert line["proteins-2/valid_loss"] == line["valid_loss"]


def test_pretraining_starts_from_another_model(tmp_path, proteins_fasta, tiny_model):
    run = tmp_path / "adapted.run"

    pretrain_model([proteins_fasta], options(run, size=None, init_from=tiny_model, steps=1))
    adapted, base = load_checkpoint(run / "model"), load_checkpoint(tiny_model)

    assert adapted.encoder.shape == base.encoder.shape
    assert adapted.metadata.window_residues == base.metadata.window_residues
    moved = (adapted.encoder.embedding.weight - base.encoder.embedding.weight).abs().max()
    assert 0 < moved < 0.01
    assert adapted.metadata.configuration["from_model"] == tiny_model.name
    assert f"| started from | {tiny_model.name} |" in (run / "model" / "README.md").read_text()


def test_a_run_with_a_shape_of_its_own_is_recorded_resumed_and_started_from(tmp_path, proteins_fasta):
    run, stopped = tmp_path / "own.run", Callbacks(stop=lambda: True)
    shaped = options(run, size=None, layers=3, dim=24, heads=2, steps=2)
    assert not pretrain_model([proteins_fasta], shaped, stopped).is_finished

    with pytest.raises(RunMismatchError, match=r"the shape \(layers, width, heads\) was 3,24,2, not 3,24,3"):
        pretrain_model([proteins_fasta], options(run, size=None, layers=3, dim=24, heads=3, steps=2))
    with pytest.raises(RunMismatchError, match=r"the shape \(layers, width, heads\) was 3,24,2, not none"):
        pretrain_model([proteins_fasta], options(run, steps=2))
    assert pretrain_model([proteins_fasta], shaped).is_finished
    adapted = tmp_path / "adapted.run"
    pretrain_model([proteins_fasta], options(adapted, size=None, init_from=run, steps=1))

    for made in (run, adapted):
        shape = load_checkpoint(made / "model").encoder.shape
        assert shape == ESM2Shape(num_layers=3, dim=24, num_heads=2)
    assert json.loads((run / "run.json").read_text())["identity"]["shape"] == [3, 24, 2]
    assert load_checkpoint(run / "model").metadata.configuration["shape"] == [3, 24, 2]


def test_a_run_of_a_named_size_records_what_it_did_before_shapes_could_be_chosen(undisturbed):
    identity = json.loads((undisturbed[0] / "run.json").read_text())["identity"]

    assert identity.keys().isdisjoint({"shape", "layers", "dim", "heads"})


@pytest.mark.parametrize("former", [{}, {"from": "init_from", "compare": "compare_model"}], ids=["now", "formerly"])
def test_a_run_that_starts_from_a_model_is_resumed_under_both_names_of_the_option(
    tmp_path, proteins_fasta, tiny_model, former
):
    run, steps = tmp_path / "adapted.run", []
    adapting = options(run, size=None, init_from=tiny_model, compare_model=tiny_model, steps=1)
    summary = pretrain_model([proteins_fasta], adapting)
    facts = json.loads((run / "run.json").read_text())
    for name, current in former.items():
        facts["identity"][name] = facts["identity"].pop(current)
    (run / "run.json").write_text(json.dumps(facts))

    again = pretrain_model([proteins_fasta], adapting, Callbacks(on_step=steps.append))

    assert again == replace(summary, was_done=True)
    assert steps == []


def test_max_minutes_is_converted_to_steps_that_the_run_stores(tmp_path, proteins_fasta):
    run, plans = tmp_path / "minutes.run", []
    timed = options(run, steps=None, max_minutes=2.0, validate_every=None)

    pretrain_model([proteins_fasta], timed, Callbacks(on_plan=plans.append, stop=lambda: True))
    pretrain_model([proteins_fasta], timed, Callbacks(on_plan=plans.append, stop=lambda: True))

    assert plans[0].num_steps == plans[1].num_steps > 1
    assert [plan.first_step for plan in plans] == [0, 1]


def test_without_a_number_of_steps_about_ten_passes_are_planned(tmp_path, proteins_fasta):
    plans = []

    pretrain_model(
        [proteins_fasta], options(tmp_path / "a.run", steps=None), Callbacks(on_plan=plans.append, stop=lambda: True)
    )

    assert plans[0].num_steps == max(200, 10 * plans[0].steps_per_pass)


def test_pretraining_with_sgd_beats_the_uniform_baseline(tmp_path, proteins_fasta):
    run = tmp_path / "sgd.run"
    with_sgd = PretrainOptions(
        pretrain=PretrainConfig(output=run, size="t4_1M", steps=40, valid=[proteins_fasta]),
        batches=SMALL,
        optimizer=OptimizerConfig(optimizer="sgd"),
    )

    summary = pretrain_model([proteins_fasta], with_sgd)

    assert summary.valid_loss < np.log(20)


def test_resuming_with_damaged_stored_proteins_fails_with_the_reason(tmp_path, proteins_fasta):
    run = tmp_path / "damaged.run"
    pretrain_model([proteins_fasta], options(run, steps=1))
    (run / "corpus" / "train" / "offsets.npy").write_bytes(b"")
    forget_the_end(run)

    with pytest.raises(DamagedRunError, match="the stored proteins cannot be read"):
        pretrain_model([proteins_fasta], options(run, steps=1))


@pytest.mark.parametrize("dry_run", [False, True])
def test_planning_times_steps_and_leaves_nothing(tmp_path, proteins_fasta, dry_run):
    run = tmp_path / "dry.run"

    plan = plan_pretraining([proteins_fasta], options(run, dry_run=dry_run))

    assert list(tmp_path.iterdir()) == []
    assert (plan.output, plan.num_steps, plan.first_step) == (run, 6, 0)
    assert plan.seconds > 0
    assert plan.memory_bytes > 1e7
    weights = 4 * plan.num_parameters
    assert weights * 3 < plan.disk_bytes < weights * 8
    assert 0 < plan.cropped_fraction <= 1


def test_a_dry_run_is_planned_and_never_trained(tmp_path, proteins_fasta):
    with pytest.raises(ConfigError, match="plan_pretraining makes the plan of a run without training"):
        pretrain_model([proteins_fasta], options(tmp_path / "dry.run", dry_run=True))

    assert list(tmp_path.iterdir()) == []


def test_a_compared_model_is_evaluated_on_the_same_residues(tmp_path, proteins_fasta, tiny_model):
    run = tmp_path / "compared.run"

    summary = pretrain_model([proteins_fasta], options(run, steps=1, compare_model=tiny_model))

    line = json.loads((run / "metrics.jsonl").read_text())
    assert line["compared_perplexity"] == pytest.approx(np.exp(summary.references["compared"]))
    assert f"compared model {line['compared_perplexity']:.2f}" in (run / "model" / "README.md").read_text()


def test_clusters_are_drawn_before_their_members(tmp_path, proteins_fasta):
    ids = [line[1:].split()[0] for line in proteins_fasta.read_text().splitlines() if line.startswith(">")]
    table, plans = tmp_path / "clusters.tsv", []
    table.write_text("accession\tfamily\n" + "".join(f"{name}\t{number // 8}\n" for number, name in enumerate(ids)))
    clustered = {"clusters": table, "cluster_column": "family", "valid": [proteins_fasta], "steps": 1}

    pretrain_model([proteins_fasta], options(tmp_path / "a.run", **clustered), Callbacks(on_plan=plans.append))

    assert plans[0].num_clusters == 5
    table.write_text(table.read_text() + "one_more\t9\n")
    with pytest.raises(RunMismatchError, match="`clusters` differs"):
        pretrain_model([proteins_fasta], options(tmp_path / "a.run", **clustered))


def test_patience_ends_a_run_as_finished(tmp_path, proteins_fasta):
    run, steps = tmp_path / "patient.run", []
    # With a learning rate of zero no validation is better than the first.
    unchanging = PretrainOptions(
        pretrain=PretrainConfig(output=run, size="t4_1M", steps=50, validate_every=1, patience=2),
        batches=SMALL,
        optimizer=OptimizerConfig(learning_rate=0.0),
    )

    summary = pretrain_model([proteins_fasta], unchanging, Callbacks(on_step=steps.append))

    assert (len(steps), summary.best_step, summary.is_finished) == (3, 1, True)
    assert summary.amino_acids
    assert pretrain_model([proteins_fasta], unchanging) == replace(summary, was_done=True)


@pytest.mark.parametrize(("num_checkpoints", "names"), [(1, ["06"]), (3, ["02", "04", "06"])])
def test_keep_checkpoints_limits_the_number_of_checkpoints(tmp_path, proteins_fasta, num_checkpoints, names):
    run = tmp_path / "some.run"

    pretrain_model([proteins_fasta], options(run, keep_checkpoints=num_checkpoints))

    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [f"step-0000{name}" for name in names]


def test_a_model_too_large_for_the_memory_is_refused_before_the_run_begins(tmp_path, proteins_fasta):
    with pytest.raises(NotEnoughMemoryError, match="choose a smaller `size`"):
        pretrain_model([proteins_fasta], options(tmp_path / "a.run", size="t48_15B"))
    with pytest.raises(
        NotEnoughMemoryError, match="400 layers of width 12800 .* choose fewer `layers` or a smaller `dim`"
    ):
        own_shape = {"size": None, "layers": 400, "dim": 12800, "heads": 40}
        pretrain_model([proteins_fasta], options(tmp_path / "a.run", **own_shape))

    assert list(tmp_path.iterdir()) == []


def test_a_run_in_bfloat16_learns_like_one_in_float32(undisturbed, in_bfloat16):
    expected, found = losses(undisturbed[0]), losses(in_bfloat16[0])

    assert found == pytest.approx(expected, rel=0.01)
    assert found != expected


@pytest.mark.promise(2)
@pytest.mark.parametrize(("begun_with_amx", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_a_run_is_resumed_in_its_precision_on_a_machine_that_would_choose_another(
    request, tmp_path, proteins_fasta, monkeypatch, begun_with_amx, precision
):
    run, (expected, _) = tmp_path / "moved.run", request.getfixturevalue(UNDISTURBED[precision])
    plans, seen = [], []
    monkeypatch.setattr("protembed.device.has_amx", lambda: begun_with_amx)
    stopping = Callbacks(on_plan=plans.append, on_step=seen.append, stop=lambda: len(seen) == 3)
    pretrain_model([proteins_fasta], options(run, precision="auto"), stopping)
    monkeypatch.setattr("protembed.device.has_amx", lambda: not begun_with_amx)

    pretrain_model([proteins_fasta], options(run, precision="auto"), Callbacks(on_plan=plans.append))

    assert [plan.precision for plan in plans] == [precision, precision]
    assert json.loads((run / "run.json").read_text())["precision"] == precision
    assert load_checkpoint(run / "model").metadata.configuration["precision"] == precision
    assert losses(run) == losses(expected)
    assert equal(final_weights(run), final_weights(expected))


def test_a_run_that_an_earlier_version_began_is_resumed_in_float32(undisturbed, tmp_path, proteins_fasta, monkeypatch):
    run, seen = tmp_path / "earlier.run", []
    monkeypatch.setattr("protembed.device.has_amx", lambda: False)
    pretrain_model(
        [proteins_fasta],
        options(run, precision="auto"),
        Callbacks(on_step=seen.append, stop=lambda: len(seen) == 3),
    )
    facts = json.loads((run / "run.json").read_text())
    del facts["precision"]
    (run / "run.json").write_text(json.dumps(facts))
    monkeypatch.setattr("protembed.device.has_amx", lambda: True)

    pretrain_model([proteins_fasta], options(run, precision="auto"))

    assert losses(run) == losses(undisturbed[0])


def test_the_table_of_amino_acids_has_one_row_per_amino_acid(undisturbed):
    lines = (undisturbed[0] / "amino_acids.tsv").read_text().splitlines()

    assert lines[0].split("\t") == ["amino_acid", "masked", "loss", "accuracy", "top_confusion"]
    assert [line[0] for line in lines[1:]] == list(AMINO_ACIDS)


def test_the_table_of_confusions_has_a_row_per_pair_and_adds_up_to_that_of_the_amino_acids(undisturbed):
    run, summary = undisturbed
    header, *lines = [line.split("\t") for line in (run / "confusions.tsv").read_text().splitlines()]

    assert header == ["amino_acid", "predicted", "count", "mean_probability"]
    assert [(row, column) for row, column, *_ in lines] == [
        (row, column) for row in AMINO_ACIDS for column in AMINO_ACIDS
    ]
    for metrics in summary.amino_acids:
        rows = [row for row in lines if row[0] == metrics.name]
        assert sum(int(count) for *_, count, _ in rows) == metrics.count
        assert sum(float(mean or "nan") for *_, mean in rows) == pytest.approx(
            1 if metrics.count else np.nan, nan_ok=True
        )


def test_a_run_stores_how_its_best_model_predicts_each_amino_acid_at_a_validation_and_at_its_end(
    tmp_path, proteins_fasta
):
    run, seen = tmp_path / "stopped.run", []
    pretrain_model([proteins_fasta], options(run), Callbacks(on_step=seen.append, stop=lambda: len(seen) == 3))
    validated = json.loads((run / "run.json").read_text())["amino_acids"]
    tables = {name: (run / name).read_text() for name in ("amino_acids.tsv", "confusions.tsv")}
    summary = pretrain_model([proteins_fasta], options(run))

    finished = AminoAcidPredictions.from_plain(json.loads((run / "run.json").read_text())["amino_acids"])
    assert AminoAcidPredictions.from_plain(validated).accuracy == pytest.approx(seen[2].validation["valid_accuracy"])
    assert finished.metrics() == summary.amino_acids
    assert {text.count("\n") for text in tables.values()} == {21, 401}


def test_the_page_is_refreshed_at_each_validation(tmp_path, proteins_fasta, monkeypatch):
    run, pages = tmp_path / "a.run", []
    monkeypatch.setattr("protembed.pretraining.run_report._SECONDS_BEFORE_FIRST", 0.0)
    monkeypatch.setattr("protembed.pretraining.run_report._MAX_TIME_FRACTION", 1e9)

    def read(report):
        if report.step in (2, 4):
            pages.append((run / "report.html").read_text())

    pretrain_model([proteins_fasta], options(run, steps=4, validate_every=2), Callbacks(on_step=read))

    assert "not finished: 2 of 4 steps" in pages[0]
    assert "finished, 4 steps" in pages[1]


def test_proteins_from_a_pipe_are_read_once(proteins_fasta, tmp_path, undisturbed):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(proteins_fasta.read_bytes()))
    writer.start()
    pretrain_model([pipe], options(tmp_path / "p.run", steps=1))
    writer.join()

    corpus = Path("corpus") / "train" / "tokens.npy"
    assert json.loads((tmp_path / "p.run" / "run.json").read_text())["identity"]["fasta"] is None
    assert (tmp_path / "p.run" / corpus).read_bytes() == (undisturbed[0] / corpus).read_bytes()


def test_a_run_that_diverged_has_a_report_of_its_course(tmp_path, proteins_fasta):
    diverging = options(tmp_path / "x.run", steps=40, validate_every=40)
    diverging = replace(diverging, optimizer=OptimizerConfig(learning_rate=1e30))

    with pytest.raises(DivergedError):
        pretrain_model([proteins_fasta], diverging)

    assert "diverged: the loss was not finite" in (tmp_path / "x.run" / "report.html").read_text(encoding="utf-8")
    assert (tmp_path / "x.run" / "training.png").exists()
