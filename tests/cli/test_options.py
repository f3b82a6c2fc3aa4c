import json
import shlex

import pytest


def error_of(result):
    return json.loads(result.stdout)["error"]


def test_missing_file_is_an_error_as_json_too(invoke):
    result = invoke("embed", "missing.fasta", "--json")

    assert result.exit_code == 66
    assert json.loads(result.stdout)["command"] == "embed"
    error = error_of(result)
    assert (error["status"], error["type"], error["path"]) == (66, "InputNotFoundError", "missing.fasta")
    assert result.stderr == f"protembed: {error['message']}\n"


def test_line_of_an_invalid_record_is_in_the_json(invoke, tmp_path):
    path = tmp_path / "a.fasta"
    path.write_text(">a\nMK1A\n")

    error = error_of(invoke("embed", path, "-o", tmp_path / "a.npy", "--json"))

    assert (error["status"], error["path"], error["line"]) == (65, str(path), 2)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["a.fasta", "--oops"], "No such option"),
        (["a.fasta", "--threads", "many"], "--threads"),
        (["a.fasta", "--threads", "0"], "a value of at least 1 is expected"),
        ([], "FASTA"),
    ],
)
def test_wrong_usage_is_an_error_as_json_too(invoke, arguments, part):
    result = invoke("embed", *arguments, "--json")

    assert result.exit_code == 2
    assert error_of(result)["status"] == 2 and part in error_of(result)["message"]
    assert part in result.stderr


def test_summary_as_json_names_command_model_device_seconds_and_files(invoke, small_fasta, tiny_model, tmp_path):
    arguments = ["embed", small_fasta, "-m", tiny_model, "-o", tmp_path / "e.npy", "--threads", 1, "--json", "-q"]

    computed, found = (json.loads(invoke(*arguments).stdout) for _ in range(2))

    assert (computed["command"], computed["model"], computed["device"]) == ("embed", "tiny", "cpu")
    assert computed["seconds"] > 0 and computed["version"]
    assert computed["files"] == [str(tmp_path / name) for name in ("e.npy", "e.ids.tsv", "e.meta.json")]
    assert found["device"] is None and found["files"] == computed["files"]


def test_next_step_of_embed_is_a_command_that_works(invoke, small_fasta, tiny_model, tmp_path):
    result = invoke("embed", small_fasta, "-m", tiny_model, "-o", tmp_path / "a b.npy", "--threads", 1)

    command = result.stderr.rpartition("next: `protembed ")[2].partition("`")[0]
    assert invoke(*shlex.split(command)).exit_code == 0


@pytest.mark.parametrize("name", ["p.fasta", "e.npy"])
def test_log_file_must_be_neither_an_input_nor_the_output(invoke, small_fasta, tmp_path, name):
    fasta = tmp_path / "p.fasta"
    fasta.write_bytes(small_fasta.read_bytes())

    result = invoke("embed", fasta, "-o", tmp_path / "e.npy", "--log-file", tmp_path / name)

    assert result.exit_code == 2 and "--log-file is" in result.stderr
    assert fasta.read_bytes() == small_fasta.read_bytes()


def test_log_file_that_cannot_be_written_is_an_error_before_the_work(invoke, small_fasta, tmp_path):
    result = invoke("embed", small_fasta, "-o", tmp_path / "e.npy", "--log-file", tmp_path / "a" / "b" / "run.log")

    assert result.exit_code == 1 and "run.log" in result.stderr
    assert not (tmp_path / "e.npy").exists()


def test_log_file_on_stdout_is_an_error(invoke, small_fasta):
    result = invoke("embed", small_fasta, "--log-file", "-")

    assert result.exit_code == 2 and "--log-file is '-', but the lines are on stderr" in result.stderr


def test_directory_of_the_log_file_is_created(invoke, tmp_path):
    invoke("embed", tmp_path / "missing.fasta", "--log-file", tmp_path / "logs" / "run.log")

    assert "missing.fasta" in (tmp_path / "logs" / "run.log").read_text()


@pytest.mark.parametrize("option", ["-o", "--model", "--config", "--log-file"])
def test_empty_path_is_an_error_and_not_the_current_directory(invoke, small_fasta, option):
    result = invoke("embed", small_fasta, option, "", "--json")

    assert result.exit_code == 2 and "a variable of your script unset?" in json.loads(result.stdout)["error"]["message"]


def test_empty_input_is_an_error_and_not_the_current_directory(invoke):
    result = invoke("embed", "", "--json")

    assert result.exit_code == 2 and "the path is empty" in json.loads(result.stdout)["error"]["message"]


def test_removed_current_directory_is_an_error(invoke, small_fasta, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()

    result = invoke("embed", small_fasta, "-o", tmp_path / "e.npy")

    assert result.exit_code == 66
    assert result.stderr == "protembed: .: the current directory was removed; change to one that exists\n"


def test_log_file_ends_with_the_error(invoke, tmp_path):
    invoke("embed", tmp_path / "missing.fasta", "--log-file", tmp_path / "run.log")

    assert "protembed: " in (tmp_path / "run.log").read_text().splitlines()[-1]


def test_config_repeats_a_command_and_the_command_line_wins(invoke, small_fasta, tiny_model, tmp_path):
    first, second, third = (tmp_path / f"{name}.npy" for name in ("first", "second", "third"))
    base = ["embed", small_fasta, "-m", tiny_model, "--threads", 1]
    invoke(*base, "-o", first, "--pooling", "mean,max")
    record = tmp_path / "first.meta.json"

    repeated = invoke(*base, "--config", record, "-o", second)
    changed = invoke(*base, "--config", record, "-o", third, "--pooling", "max")

    assert (repeated.exit_code, changed.exit_code) == (0, 0), repeated.stderr + changed.stderr
    assert second.read_bytes() == first.read_bytes()
    assert third.read_bytes() != first.read_bytes()
    assert json.loads((tmp_path / "third.meta.json").read_text())["pooling"] == ["max"]


def test_config_with_an_unknown_option_names_it(invoke, small_fasta, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text('{"poolin": "max"}')

    result = invoke("embed", small_fasta, "--config", path)

    sentence = "'poolin' is not an option of `protembed embed`; did you mean 'pooling'?"
    assert (result.exit_code, result.stderr) == (65, f"protembed: {path}: {sentence}\n")


def test_option_without_effect_is_warned_of_with_its_flag(invoke, small_fasta, tiny_model, tmp_path):
    arguments = ["embed", small_fasta, "-m", tiny_model, "-o", tmp_path / "e.npy", "--threads", 1, "-q"]

    result = invoke(*arguments, "--h5-names", "hash")

    assert result.exit_code == 0
    assert "warning: --h5-names has no effect: it needs an output in .h5\n" in result.stderr


@pytest.mark.parametrize("command", ["embed", "predict", "score", "finetune", "inspect-attention", "pretrain"])
def test_folder_as_input_is_an_error_that_names_it(invoke, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)

    result = invoke(command, ".", *(["-m", "protembed_t6_8M"] if command == "predict" else []))

    assert (result.exit_code, result.stderr) == (66, "protembed: .: Is a directory; name a file in it\n")


def test_summary_of_a_dry_run_names_no_files_and_no_device(invoke, small_fasta, tiny_model, tmp_path):
    arguments = ["embed", small_fasta, "-m", tiny_model, "-o", tmp_path / "e.npy", "--threads", 1, "-q"]
    invoke(*arguments)

    plan = json.loads(invoke(*arguments, "--dry-run", "--json").stdout)

    assert (plan["files"], plan["device"], plan["model"]) == ([], None, "tiny")


@pytest.mark.parametrize(("option", "value", "words"), [("--steps", 7, "; 7 steps"), ("--max-minutes", 1, "; about ")])
def test_number_of_steps_within_a_time_is_planned_as_approximate(
    invoke, proteins_fasta, tmp_path, option, value, words
):
    arguments = ["pretrain", proteins_fasta, "-o", tmp_path / "a.run", "--size", "t4_1M", "--dry-run", "--threads", 1]

    assert words in invoke(*arguments, option, value).stderr
