import os
from pathlib import Path

import pytest

from protembed.errors import ConfigError, OutputExistsError
from protembed.io.reading import STANDARD_STREAM, path_exists
from protembed.io.result import (
    check_absent,
    check_is_path,
    check_not_an_input,
    check_table_suffix,
    check_utf8_path,
    is_vacant,
)
from protembed.io.writing import check_is_ours_or_absent


def test_a_directory_does_not_go_to_stdout():
    check_is_path(Path("model"))

    with pytest.raises(ConfigError, match="--output is '-', but a directory is expected"):
        check_is_path(STANDARD_STREAM)


@pytest.mark.parametrize("name", ["scores.csv", "scores.NPY", "scores.tsv.gz"])
def test_a_table_is_not_named_what_it_is_not(name):
    check_table_suffix(Path("scores.tsv"))
    check_table_suffix(Path("scores"))
    check_table_suffix(STANDARD_STREAM)

    with pytest.raises(ConfigError, match=f"--output is '{name}', but the table is tab-separated text: name it .tsv"):
        check_table_suffix(Path(name))


def test_a_table_does_not_go_where_a_folder_stands(tmp_path):
    with pytest.raises(ConfigError, match=r"--output is .*, but this is a folder: name a file, such as .*table\.tsv"):
        check_table_suffix(tmp_path)


def test_what_stands_there_is_replaced_only_if_that_is_wanted(tmp_path):
    (tmp_path / "old").write_text("old")
    check_absent(tmp_path / "new", force=False)
    check_absent(tmp_path / "old", force=True)
    check_absent(STANDARD_STREAM, force=False)

    with pytest.raises(OutputExistsError, match="exists; choose another --output, or pass --force"):
        check_absent(tmp_path / "old", force=False)


def test_only_our_own_results_and_empty_directories_make_room(tmp_path):
    for name in ("ours", "empty", "thesis"):
        (tmp_path / name).mkdir()
    (tmp_path / "ours" / "metrics.json").touch()
    (tmp_path / "thesis" / "chapter").touch()
    for name in ("ours", "empty", "nothing"):
        check_is_ours_or_absent(tmp_path / name, "metrics.json")

    for name in ("thesis", "thesis/chapter"):
        with pytest.raises(OutputExistsError, match="it is something else.*--force does not replace it either"):
            check_is_ours_or_absent(tmp_path / name, "metrics.json")


def test_what_is_read_is_not_written_by_whatever_name(tmp_path):
    (tmp_path / "seqs.fasta").touch()
    (tmp_path / "model").mkdir()
    (tmp_path / "link.fasta").symlink_to(tmp_path / "seqs.fasta")
    inputs = [STANDARD_STREAM, tmp_path / "seqs.fasta", tmp_path / "model"]
    check_not_an_input(tmp_path / "preds.tsv", inputs)
    check_not_an_input(STANDARD_STREAM, inputs)

    for name in ("seqs.fasta", "model/../seqs.fasta", "link.fasta", "model", "model/head.safetensors"):
        with pytest.raises(OutputExistsError, match="is read by this command"):
            check_not_an_input(tmp_path / name, inputs)


def test_a_directory_that_holds_what_is_read_is_not_replaced(tmp_path):
    (tmp_path / "a.run" / "model").mkdir(parents=True)
    (tmp_path / "a.run" / "seqs.fasta").touch()

    for name in ("model", "seqs.fasta"):
        with pytest.raises(OutputExistsError, match=f"holds .*{name}, which is read by this command"):
            check_not_an_input(tmp_path / "a.run", [tmp_path / "a.run" / name])


def test_a_pipe_or_a_device_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")

    for path in (tmp_path / "pipe", Path(os.devnull)):
        with pytest.raises(OutputExistsError, match="exists and is no file"):
            check_absent(path, force=True)


def test_a_model_is_not_trained_for_a_name_that_safetensors_cannot_open(tmp_path):
    check_utf8_path(tmp_path / "häm")

    with pytest.raises(ConfigError, match="a model's path is to be UTF-8"):
        check_utf8_path(tmp_path / os.fsdecode(b"\xfd.run"))


@pytest.mark.promise(14)
def test_what_cannot_be_looked_at_is_left_to_whoever_opens_it(tmp_path):
    unknowable = tmp_path / ("x" * 300)

    assert not path_exists(unknowable)
    check_absent(unknowable, force=False)
    check_is_ours_or_absent(unknowable, "marker")
    check_not_an_input(tmp_path / "out", [unknowable])


def test_an_empty_file_makes_room_for_a_result(tmp_path):
    (tmp_path / "dataset_1.dat").touch()

    assert is_vacant(tmp_path / "dataset_1.dat")
    assert not is_vacant(tmp_path)
    check_absent(tmp_path / "dataset_1.dat", force=False)
