import csv
import json

import pytest
from two_processes import run_processes
from typer.testing import CliRunner

from protembed.callbacks import Callbacks
from protembed.cli.app import app
from protembed.config.finetune import FinetuneOptions
from protembed.finetuning.finetune import finetune_model
from protembed.io.reading import read_json

SETTINGS = "--epochs 2 --batch-tokens 512 --precision float32 --learning-rate 0.00003 --skip-random-baseline".split()
# Trains until it is stopped: in the second process alone, after the third step.
STOPPED_SCRIPT = """
import json, os, sys
from pathlib import Path
from protembed.callbacks import Callbacks
from protembed.config.finetune import FinetuneOptions
from protembed.finetuning.finetune import finetune_model

reports, (table, model, output) = [], map(Path, sys.argv[1:4])
options = FinetuneOptions.from_values(model=model, output=output, **json.loads(sys.argv[4]))
stop = lambda: os.environ["RANK"] == "1" and len(reports) == 3
summary = finetune_model(table, options, Callbacks(on_step=reports.append, stop=stop))
assert not summary.is_finished
"""

pytestmark = pytest.mark.slow


def finetune_command(table, model, output, *settings):
    return ["-m", "protembed", "finetune", table, "-m", model, "-o", output, "--threads", "1", *SETTINGS, *settings]


def finetune_alone(command):
    """Run a command of `finetune_command` in this process."""
    result = CliRunner().invoke(app, list(map(str, command[2:])))
    assert result.exit_code == 0, result.output


def log_of(model):
    return [json.loads(line) for line in (model / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def without_splits(labelled_tables, read_rows, tmp_path):
    """The table of values without its split column."""
    rows = read_rows(labelled_tables / "regression.csv", ",")
    with (tmp_path / "all.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("sequence", "label"), *((row["sequence"], row["label"]) for row in rows)])
    return tmp_path / "all.csv"


def assert_same_training(model, expected):
    """Compare the files, the losses and the predictions of two models."""
    assert {path.name for path in model.iterdir()} == {path.name for path in expected.iterdir()}
    for key in ("step", "residues", "train_loss", "valid_loss"):
        values, others = ([line.get(key) or 0 for line in log_of(path)] for path in (model, expected))
        assert values == pytest.approx(others, rel=1e-5, abs=1e-5), key


@pytest.mark.promise(2)
@pytest.mark.parametrize("method", ["full", "lora"])
def test_two_processes_train_as_one_does_and_the_first_alone_prints(
    labelled_tables, tiny_model, tmp_path, read_rows, method
):
    one, two, table = tmp_path / "one.model", tmp_path / "two.model", labelled_tables / "multilabel.csv"
    settings = ["--method", method]
    finetune_alone(finetune_command(table, tiny_model, one, *settings))

    statuses, (first, second) = run_processes(*2 * [finetune_command(table, tiny_model, two, *settings)])

    assert statuses == [0, 0], (first, second)
    assert first.count("two.model: the model, its metrics and report.html") == 1
    assert second == ""
    assert_same_training(two, one)
    records = [read_json(path / "metrics.json") for path in (one, two)]
    assert records[0]["training"]["kept_step"] == records[1]["training"]["kept_step"]
    assert list(records[0]["comparison"]["predictors"]) == list(records[1]["comparison"]["predictors"])
    labels = [[row["prediction"] for row in read_rows(path / "test_predictions.tsv")] for path in (one, two)]
    assert labels[0] == labels[1]
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.promise(2)
@pytest.mark.parametrize("task", ["regression", "residue-classification"])
def test_two_processes_fit_the_head_that_one_does(labelled_tables, tiny_model, tmp_path, read_rows, task):
    one, two, table = tmp_path / "one.model", tmp_path / "two.model", labelled_tables / f"{task}.csv"
    arguments = ["--method", "frozen", "--head", "mlp"]
    finetune_alone(finetune_command(table, tiny_model, one, *arguments))

    assert run_processes(*2 * [finetune_command(table, tiny_model, two, *arguments)])[0] == [0, 0]

    for row, other in zip(
        read_rows(one / "test_predictions.tsv"), read_rows(two / "test_predictions.tsv"), strict=True
    ):
        if task == "regression":
            assert float(row["prediction"]) == pytest.approx(float(other["prediction"]), rel=1e-4)
        else:
            assert row["prediction"] == other["prediction"]


def test_two_processes_cross_validate_as_one_does(without_splits, tiny_model, tmp_path):
    one, two = tmp_path / "one.model", tmp_path / "two.model"
    finetune_alone(finetune_command(without_splits, tiny_model, one, "--split", "kfold", "--epochs", "1"))

    statuses, _ = run_processes(
        *2 * [finetune_command(without_splits, tiny_model, two, "--split", "kfold", "--epochs", "1")]
    )

    assert statuses == [0, 0]
    assert_same_training(two, one)
    (measured, expected) = (read_json(path / "metrics.json")["comparison"]["predictors"] for path in (two, one))
    for name, metrics in expected.items():
        defined = [metric for metric in metrics if metrics[metric]["value"] is not None]
        values = [[each[metric]["value"] for metric in defined] for each in (measured[name], metrics)]
        assert values[0] == pytest.approx(values[1], rel=1e-4), name


@pytest.mark.promise(2)
def test_a_training_that_one_of_two_processes_stops_is_resumed_by_a_single_one(labelled_tables, tiny_model, tmp_path):
    table, stopped, whole = labelled_tables / "regression.csv", tmp_path / "stopped.model", tmp_path / "whole.model"
    values = {"epochs": 2, "batch_tokens": 512, "skip_random_baseline": True, "threads": 1, "precision": "float32"}
    values |= {"learning_rate": 0.00003}
    finetune_model(table, FinetuneOptions.from_values(model=tiny_model, output=whole, **values))

    script = ["-c", STOPPED_SCRIPT, table, tiny_model, stopped, json.dumps(values)]
    statuses, errors = run_processes(script, script)
    assert statuses == [0, 0], errors

    reports = []
    options = FinetuneOptions.from_values(model=tiny_model, output=stopped, **values)
    finetune_model(table, options, Callbacks(on_step=reports.append))
    assert reports[0].step == 4
    assert_same_training(stopped, whole)


def test_an_error_of_all_processes_is_printed_once(labelled_tables, tiny_model, tmp_path):
    command = finetune_command(labelled_tables / "regression.csv", tiny_model, tmp_path / "x.model", "--target", "mass")

    statuses, (first, second) = run_processes(command, command)

    assert statuses == [65, 1]
    assert first.count("protembed: ") == 1
    assert "mass" in first
    assert second == ""
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_one_process_is_printed_by_it_and_ends_the_others(labelled_tables, tiny_model, tmp_path):
    tables = [labelled_tables / "regression.csv", tmp_path / "missing.csv"]

    statuses, (first, second) = run_processes(
        *(finetune_command(table, tiny_model, tmp_path / "x.model") for table in tables)
    )

    assert statuses == [1, 66]
    assert first.rstrip().endswith("protembed: another process of this run has ended; see its error message")
    assert "missing.csv" in second
    assert list(tmp_path.iterdir()) == []


def test_several_processes_reject_a_pipe(tiny_model, tmp_path):
    command = finetune_command("-", tiny_model, tmp_path / "x.model")

    statuses, (first, second) = run_processes(command, command)

    assert statuses == [2, 1]
    assert "several processes cannot read the same pipe: name a file" in first
    assert second == ""
