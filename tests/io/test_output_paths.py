import os

import pytest

from protembed.errors import ConfigError, OutputExistsError
from protembed.io.output_paths import check_not_an_input, check_utf8_path
from protembed.io.reading import STANDARD_STREAM


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
