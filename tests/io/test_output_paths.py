import os
from pathlib import Path

import pytest

from protembed.callbacks import Callbacks
from protembed.errors import ConfigError, OutputError, OutputExistsError
from protembed.io.output_paths import check_not_an_input, check_utf8_path
from protembed.io.reading import STANDARD_STREAM, default_path
from protembed.io.result import Result


def test_an_input_is_never_overwritten_under_any_name(tmp_path):
    (tmp_path / "seqs.fasta").touch()
    (tmp_path / "model").mkdir()
    (tmp_path / "link.fasta").symlink_to(tmp_path / "seqs.fasta")
    inputs = [STANDARD_STREAM, tmp_path / "seqs.fasta", tmp_path / "model"]
    check_not_an_input(tmp_path / "preds.tsv", inputs)
    check_not_an_input(STANDARD_STREAM, inputs)

    for name in ("seqs.fasta", "model/../seqs.fasta", "link.fasta", "model", "model/head.safetensors"):
        with pytest.raises(OutputExistsError, match="is read by this command"):
            check_not_an_input(tmp_path / name, inputs)


def test_a_directory_that_contains_an_input_is_not_replaced(tmp_path):
    (tmp_path / "a.run" / "model").mkdir(parents=True)
    (tmp_path / "a.run" / "seqs.fasta").touch()

    for name in ("model", "seqs.fasta"):
        with pytest.raises(OutputExistsError, match=f"contains .*{name}, which is read by this command"):
            check_not_an_input(tmp_path / "a.run", [tmp_path / "a.run" / name])


def test_a_model_path_that_is_not_utf8_is_a_usage_error(tmp_path):
    check_utf8_path(tmp_path / "häm")

    with pytest.raises(ConfigError, match="the path of a model must be valid UTF-8"):
        check_utf8_path(tmp_path / os.fsdecode(b"\xfd.run"))


@pytest.mark.parametrize("name", [".", "/", "..", "results/.."])
@pytest.mark.parametrize("record", [None, "meta.json"], ids=["file", "directory"])
def test_a_result_without_a_name_is_a_usage_error_that_says_what_to_name(name, record):
    with pytest.raises(ConfigError, match="cannot be replaced by a result: name a file or directory in it"):
        Result(Path(name), [], record=record)


def test_a_name_that_is_too_long_is_reported_as_the_output_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = Result.table(default_path(Path("x" * 300), ".tsv"), [])

    with pytest.raises(OutputError, match="^cannot write x+.tsv .File name too long"), result.claim({}, Callbacks()):
        pass
