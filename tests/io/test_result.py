import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from protembed.errors import ConfigError, OutputError, OutputExistsError, RunInUseError
from protembed.io.reading import STANDARD_STREAM, path_exists
from protembed.io.result import (
    check_absent,
    check_is_path,
    check_not_an_input,
    check_table_suffix,
    check_utf8_path,
    is_vacant,
    result_lock,
)
from protembed.io.writing import check_is_ours_or_absent


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# Checks


def test_a_directory_cannot_be_written_to_stdout():
    check_is_path(Path("model"))

    with pytest.raises(ConfigError, match="output is '-', but a directory is expected"):
        check_is_path(STANDARD_STREAM)


@pytest.mark.parametrize("name", ["scores.csv", "scores.NPY", "scores.tsv.gz"])
def test_a_table_named_like_another_format_is_a_usage_error(name):
    check_table_suffix(Path("scores.tsv"))
    check_table_suffix(Path("scores"))
    check_table_suffix(STANDARD_STREAM)

    with pytest.raises(ConfigError, match=f"output is '{name}', but the table is tab-separated text: name it .tsv"):
        check_table_suffix(Path(name))


def test_a_table_cannot_replace_a_directory(tmp_path):
    with pytest.raises(ConfigError, match=r"this is a directory: name a file, such as .*table\.tsv"):
        check_table_suffix(tmp_path)


def test_an_existing_file_is_replaced_only_with_force(tmp_path):
    (tmp_path / "old").write_text("old")
    check_absent(tmp_path / "new", force=False)
    check_absent(tmp_path / "old", force=True)
    check_absent(STANDARD_STREAM, force=False)

    with pytest.raises(OutputExistsError, match="exists; choose another `output`, or pass `force`"):
        check_absent(tmp_path / "old", force=False)


def test_a_directory_that_is_not_a_result_of_protembed_is_never_replaced(tmp_path):
    for name in ("result", "empty", "thesis"):
        (tmp_path / name).mkdir()
    (tmp_path / "result" / "metrics.json").touch()
    (tmp_path / "thesis" / "chapter").touch()
    for name in ("result", "empty", "missing"):
        check_is_ours_or_absent(tmp_path / name, "metrics.json")

    for name in ("thesis", "thesis/chapter"):
        with pytest.raises(OutputExistsError, match="not a result of protembed; .*`force` does not replace it"):
            check_is_ours_or_absent(tmp_path / name, "metrics.json")


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


def test_a_pipe_or_a_device_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")

    for path in (tmp_path / "pipe", Path(os.devnull)):
        with pytest.raises(OutputExistsError, match="exists and is not a file"):
            check_absent(path, force=True)


def test_a_model_path_that_is_not_utf8_is_a_usage_error(tmp_path):
    check_utf8_path(tmp_path / "häm")

    with pytest.raises(ConfigError, match="the path of a model must be valid UTF-8"):
        check_utf8_path(tmp_path / os.fsdecode(b"\xfd.run"))


@pytest.mark.promise(14)
def test_a_path_that_cannot_be_examined_passes_all_checks(tmp_path):
    too_long = tmp_path / ("x" * 300)

    assert not path_exists(too_long)
    check_absent(too_long, force=False)
    check_is_ours_or_absent(too_long, "marker")
    check_not_an_input(tmp_path / "out", [too_long])


def test_an_empty_file_may_be_replaced_without_force(tmp_path):
    (tmp_path / "dataset_1.dat").touch()

    assert is_vacant(tmp_path / "dataset_1.dat")
    assert not is_vacant(tmp_path)
    check_absent(tmp_path / "dataset_1.dat", force=False)


# Locks


@pytest.mark.promise(7)
def test_a_result_is_locked_until_the_process_that_writes_it_dies(tmp_path):
    hold = (
        "import sys, pathlib; from protembed.io.result import result_lock\n"
        "with result_lock(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", hold, str(tmp_path / "emb.npy")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(RunInUseError, match=rf"emb\.npy is in use by process {holder.pid} "):
            with result_lock(tmp_path / "emb.npy"):
                pass
        with result_lock(tmp_path / "emb.h5"):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()

    with result_lock(tmp_path / "emb.npy"):
        (tmp_path / "emb.npy").write_bytes(b"vectors")
    assert names(tmp_path) == ["emb.npy"]


@pytest.mark.promise(1)
def test_a_lock_removes_the_temporary_files_that_a_killed_process_left(tmp_path):
    for name in (".p.tsv.123.tmp.tsv", ".other.tsv.123.tmp.tsv"):
        (tmp_path / name).write_text("half")
    (tmp_path / ".p.tsv.456.tmp").mkdir()

    with result_lock(tmp_path / "p.tsv"):
        assert names(tmp_path) == [".other.tsv.123.tmp.tsv", ".p.tsv.lock"]


def test_stdout_has_no_lock(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    with result_lock(STANDARD_STREAM), result_lock(STANDARD_STREAM):
        assert names(tmp_path) == []


def test_a_lock_in_an_unwritable_directory_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(OutputError), result_lock(tmp_path / "file" / "emb.npy"):
        pass


def test_a_lock_on_a_full_disk_is_an_output_error_and_leaves_nothing(tmp_path, monkeypatch):
    def fill_up(*_):
        raise OSError(28, "disk full")

    monkeypatch.setattr("os.write", fill_up)

    with pytest.raises(OutputError, match=r"cannot write .*\.emb\.npy\.lock \(disk full\)"):
        with result_lock(tmp_path / "emb.npy"):
            pass

    assert names(tmp_path) == []
