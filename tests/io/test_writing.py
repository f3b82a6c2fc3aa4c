import errno
import io
import json
import os
import platform
import stat
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from protembed.errors import OutputError
from protembed.io import writing
from protembed.io.reading import display_name, read_json, sha256_of_inputs
from protembed.io.writing import (
    append_json_line,
    atomic_directory,
    atomic_file,
    atomic_path,
    copy_to_stdout,
    flush_to_disk,
    move_into_place,
    open_append,
    output_errors,
    remove,
    remove_unfinished,
    remove_unfinished_beside,
    seekable_inputs,
    write_json,
    write_text,
)


class FailedError(Exception):
    pass


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# Atomic files and directories


def test_a_file_appears_under_its_name_only_when_it_is_complete(tmp_path):
    path = tmp_path / "deep" / "result.npy"

    with atomic_file(path) as stream:
        stream.write(b"whole")
        assert not path.exists()

    assert path.read_bytes() == b"whole"
    assert names(path.parent) == ["result.npy"]


@pytest.mark.promise(5)
@pytest.mark.parametrize(
    "error",
    [FailedError, KeyboardInterrupt, OSError(errno.ENOSPC, "disk full"), OSError(errno.EDQUOT, "quota exceeded")],
)
def test_a_failed_atomic_file_leaves_nothing_and_keeps_the_old_content(tmp_path, error):
    path = tmp_path / "result.tsv"
    path.write_bytes(b"old")

    with pytest.raises((FailedError, KeyboardInterrupt, OutputError)), atomic_file(path) as stream:
        stream.write(b"half")
        raise error

    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["result.tsv"]


def test_a_full_disk_is_an_output_error_with_the_final_name(tmp_path):
    with pytest.raises(OutputError, match=r"cannot write .*result\.tsv \(disk full\)") as caught:
        with atomic_file(tmp_path / "result.tsv"):
            raise OSError(errno.ENOSPC, "disk full")

    assert caught.value.exit_status == 1


def test_an_atomic_path_is_beside_the_final_path_and_has_its_suffix(tmp_path):
    with atomic_path(tmp_path / "maps.h5") as temporary:
        assert temporary.suffix == ".h5"
        assert temporary.parent == tmp_path
        temporary.write_bytes(b"maps")

    assert (tmp_path / "maps.h5").read_bytes() == b"maps"
    assert names(tmp_path) == ["maps.h5"]


def test_an_atomic_path_without_a_file_is_an_output_error(tmp_path):
    with pytest.raises(OutputError), atomic_path(tmp_path / "maps.h5"):
        pass


@pytest.mark.parametrize("opener", [atomic_path, atomic_file, atomic_directory])
def test_a_file_in_place_of_a_directory_is_an_output_error(tmp_path, opener):
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(OutputError), opener(tmp_path / "file" / "result"):
        pass


def test_a_directory_appears_under_its_name_only_when_it_is_complete(tmp_path):
    path = tmp_path / "deep" / "model"

    with atomic_directory(path) as temporary:
        (temporary / "part").mkdir()
        (temporary / "part" / "weights").write_bytes(b"w")
        assert not path.exists()

    assert (path / "part" / "weights").read_bytes() == b"w"
    assert names(path.parent) == ["model"]


@pytest.mark.promise(5)
@pytest.mark.parametrize(
    "error",
    [FailedError, KeyboardInterrupt, OSError(errno.ENOSPC, "disk full"), OSError(errno.EDQUOT, "quota exceeded")],
)
def test_a_failed_atomic_directory_leaves_nothing_and_keeps_the_old_one(tmp_path, error):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").write_bytes(b"old")

    with (
        pytest.raises((FailedError, KeyboardInterrupt, OutputError)),
        atomic_directory(tmp_path / "model") as temporary,
    ):
        (temporary / "half").write_bytes(b"half")
        raise error

    assert names(tmp_path) == ["model"]
    assert names(tmp_path / "model") == ["old"]


@pytest.mark.parametrize("kind", ["directory", "file", "link", "dangling link"])
def test_an_atomic_directory_replaces_a_file_a_directory_or_a_link(tmp_path, kind):
    path = tmp_path / "model"
    if kind == "directory":
        path.mkdir()
        (path / "old").write_bytes(b"old")
    elif kind == "file":
        path.write_bytes(b"old")
    else:
        path.symlink_to(tmp_path / "elsewhere")
    if kind == "link":
        (tmp_path / "elsewhere").mkdir()

    with atomic_directory(path) as temporary:
        (temporary / "new").write_bytes(b"new")

    assert names(path) == ["new"]
    assert names(tmp_path) == (["elsewhere", "model"] if kind == "link" else ["model"])


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_files_of_an_atomic_directory_have_the_permissions_of_the_umask(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        with atomic_directory(tmp_path / "model") as temporary:
            (temporary / "weights").write_bytes(b"w")
            (temporary / "weights").chmod(0o600)  # as safetensors leaves them
    finally:
        os.umask(before)

    assert (tmp_path / "model" / "weights").stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EIO])
def test_a_directory_is_written_on_file_systems_that_cannot_flush_directories(tmp_path, monkeypatch, number):
    fsync, flushed = os.fsync, []

    def fail_on_directories(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        flushed.append(descriptor)
        fsync(descriptor)

    monkeypatch.setattr("os.fsync", fail_on_directories)
    with atomic_directory(tmp_path / "run") as temporary:
        (temporary / "model").mkdir()
        (temporary / "model" / "weights").write_bytes(b"w")

    assert (tmp_path / "run" / "model" / "weights").read_bytes() == b"w"
    assert len(flushed) == 1


def test_a_file_that_cannot_be_flushed_is_an_output_error(tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OutputError, match="Input/output error"), atomic_directory(tmp_path / "run") as temporary:
        (temporary / "weights").write_bytes(b"w")

    assert names(tmp_path) == []


def test_a_directory_is_written_where_access_control_lists_forbid_chmod(tmp_path, monkeypatch):
    def fail(path, mode):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    with atomic_directory(tmp_path / "model") as temporary:
        (temporary / "weights").write_bytes(b"w")
        (temporary / "weights").chmod(0o600)
        monkeypatch.setattr("pathlib.Path.chmod", fail)

    assert (tmp_path / "model" / "weights").read_bytes() == b"w"


def test_the_old_directory_is_restored_when_the_new_one_cannot_be_renamed(tmp_path, monkeypatch):
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").write_bytes(b"old")
    replace = Path.replace

    def fail_for_the_new_directory(source, target):
        if source.suffix == ".tmp":
            raise OSError(errno.EIO, "broken disk")
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", fail_for_the_new_directory)
    with pytest.raises(OutputError), atomic_directory(path):
        pass

    assert names(tmp_path) == ["model"]
    assert names(path) == ["old"]


# Standard output


def test_a_file_is_copied_to_stdout(capfdbinary):
    copy_to_stdout(io.BytesIO(b"\x93NUMPY\n"))

    assert capfdbinary.readouterr().out == b"\x93NUMPY\n"


@pytest.mark.parametrize(
    ("error", "raised"),
    [(BrokenPipeError(errno.EPIPE, "pipe"), BrokenPipeError), (OSError(errno.EIO, "io"), OutputError)],
)
def test_a_copy_to_stdout_distinguishes_a_closed_pipe_from_a_write_error(monkeypatch, error, raised):
    def fail(_):
        raise error

    monkeypatch.setattr("sys.stdout", SimpleNamespace(buffer=SimpleNamespace(write=fail)))
    with pytest.raises(raised):
        copy_to_stdout(io.BytesIO(b"data"))


# Standard input


@pytest.fixture
def stdin(monkeypatch):
    """FASTA on stdin, which can be read only once."""
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b">a\nMKT\n")))


@pytest.mark.usefixtures("stdin")
def test_seekable_inputs_copy_stdin_so_that_it_can_be_read_twice(tmp_path):
    (tmp_path / "same").write_bytes(b">a\nMKT\n")

    with seekable_inputs([tmp_path / "file", Path("-")]) as (file, spool):
        assert file == tmp_path / "file"
        assert spool.read_bytes() == spool.read_bytes() == b">a\nMKT\n"
        assert display_name(spool) == "<stdin>"
        assert sha256_of_inputs([spool]) == sha256_of_inputs([tmp_path / "same"])

    assert not spool.parent.exists()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux opens a nameless file by a path")
@pytest.mark.usefixtures("stdin")
def test_the_copy_of_stdin_has_no_name_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    with seekable_inputs([Path("-")]) as (spool,):
        files = [path for path in tmp_path.rglob("*") if not path.is_dir()]
        assert [path.is_symlink() for path in files] == [True]
        assert spool.read_bytes() == b">a\nMKT\n"


@pytest.mark.usefixtures("stdin")
def test_stdin_given_twice_is_read_twice():
    with seekable_inputs([Path("-"), Path("-")]) as paths:
        assert b"".join(path.read_bytes() for path in paths) == b">a\nMKT\n" * 2


@pytest.mark.usefixtures("stdin")
def test_stdin_that_is_read_once_is_not_copied():
    with seekable_inputs([Path("-")], needed=False) as paths:
        assert paths == [Path("-")]
        assert sys.stdin.buffer.tell() == 0


def test_seekable_inputs_leave_files_unchanged(tmp_path):
    with seekable_inputs((tmp_path / "a", tmp_path / "b")) as paths:
        assert paths == [tmp_path / "a", tmp_path / "b"]


def test_a_full_tmpdir_is_an_output_error_and_leaves_no_copy(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b">a\nMKT\n")))
    monkeypatch.setattr("shutil.copyfileobj", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    with pytest.raises(OutputError, match="disk full"), seekable_inputs([Path("-")]):
        pass
    assert names(tmp_path) == []


# Growing files


def test_a_growing_file_continues_after_its_last_flushed_byte(tmp_path):
    path = tmp_path / "rows"
    with open_append(path) as stream:
        stream.write(b"safe")
        size = flush_to_disk(stream)
        assert path.read_bytes() == b"safe"
        stream.write(b"lost")

    with open_append(path, size) as stream:
        assert path.read_bytes() == b"safe"
        stream.write(b"r")
        assert flush_to_disk(stream) == size + 1

    assert path.read_bytes() == b"safer"


def test_a_growing_file_of_size_zero_is_emptied(tmp_path):
    (tmp_path / "rows").write_bytes(b"old")

    with open_append(tmp_path / "rows") as stream:
        assert flush_to_disk(stream) == 0

    assert (tmp_path / "rows").read_bytes() == b""


def test_a_growing_file_shorter_than_its_size_is_an_error_and_stays_unchanged(tmp_path):
    (tmp_path / "rows").write_bytes(b"abc")

    with pytest.raises(OutputError, match=r"rows .*shorter than the 4 bytes"):
        open_append(tmp_path / "rows", 4)
    with pytest.raises(OutputError):
        open_append(tmp_path / "missing", 4)

    assert (tmp_path / "rows").read_bytes() == b"abc"


def test_moving_a_file_into_place_replaces_an_older_one(tmp_path):
    (tmp_path / "partial").mkdir()
    (tmp_path / "partial" / "rows").write_bytes(b"new")
    (tmp_path / "rows").write_bytes(b"old")

    move_into_place(tmp_path / "partial" / "rows", tmp_path / "rows")

    assert (tmp_path / "rows").read_bytes() == b"new"
    assert names(tmp_path / "partial") == []


def test_a_file_that_cannot_be_moved_is_an_output_error_with_its_final_name(tmp_path):
    (tmp_path / "rows").write_bytes(b"new")

    for source, target in (("missing", "result"), ("rows", "missing/result")):
        with pytest.raises(OutputError, match=target):
            move_into_place(tmp_path / source, tmp_path / target)


@pytest.mark.parametrize(("path", "name"), [("folder/x.npy", "folder/x.npy"), ("-", "<stdout>")])
def test_an_output_error_names_the_output(path, name):
    with pytest.raises(OutputError, match=f"^cannot write {name} .disk full") as caught:
        with output_errors(Path(path)):
            raise OSError(errno.ENOSPC, "disk full")

    assert caught.value.path == name


@pytest.mark.parametrize("error", [BrokenPipeError(errno.EPIPE, "pipe"), FailedError()])
def test_a_closed_pipe_and_other_errors_pass_through_output_errors(error):
    with pytest.raises(type(error)), output_errors(Path("-")):
        raise error


# Small files


def test_json_is_read_back_with_its_keys_in_order(tmp_path):
    value = {"step": 3, "ärger": [1.5, None], "a": True}

    write_json(tmp_path / "facts.json", value)

    assert list(read_json(tmp_path / "facts.json").items()) == list(value.items())


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_writing_nan_or_infinity_to_json_is_a_value_error(tmp_path, number):
    with pytest.raises(ValueError):
        write_json(tmp_path / "facts.json", {"loss": number})
    with pytest.raises(ValueError):
        append_json_line(tmp_path / "lines.jsonl", {"loss": number})

    assert not (tmp_path / "facts.json").exists()
    assert not (tmp_path / "lines.jsonl").exists() or (tmp_path / "lines.jsonl").read_bytes() == b""


def test_json_lines_are_appended(tmp_path):
    for step in range(3):
        append_json_line(tmp_path / "metrics.jsonl", {"step": step})

    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 1, 2]


def test_text_is_written_in_utf_8(tmp_path):
    write_text(tmp_path / "card.md", "Å\n")

    assert (tmp_path / "card.md").read_bytes() == b"\xc3\x85\n"


def test_a_line_that_cannot_be_appended_is_an_output_error(tmp_path):
    with pytest.raises(OutputError):
        append_json_line(tmp_path / "missing" / "metrics.jsonl", {})


def test_removing_a_link_keeps_its_target(tmp_path):
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "target").mkdir()
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "target")

    for name in ("folder", "file", "link", "missing"):
        remove(tmp_path / name)

    assert names(tmp_path) == ["target"]


@pytest.mark.promise(1)
def test_remove_unfinished_removes_temporary_files_at_any_depth(tmp_path):
    expected = [".dotfile", "result.1.tmp", "deep"]
    for name in (*expected[:2], ".result.npy.123.tmp.npy", "deep/.step.7.tmp/weights", "deep/.step.7.old/weights"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")

    remove_unfinished(tmp_path)

    assert names(tmp_path) == sorted(expected)
    assert names(tmp_path / "deep") == []


def test_remove_unfinished_beside_removes_only_temporary_files_of_that_result(tmp_path):
    expected = ["result.npy", ".result.npy.lock", ".other.npy.7.tmp.npy"]
    for name in (*expected, ".result.npy.7.tmp.npy"):
        (tmp_path / name).write_bytes(b"")

    remove_unfinished_beside(tmp_path / "result.npy")

    assert names(tmp_path) == sorted(expected)


# Locks and scratch


def test_atomic_writes_leave_no_file_open(tmp_path):
    before = len(os.listdir("/dev/fd"))

    with atomic_directory(tmp_path / "model") as temporary, atomic_file(temporary / "weights") as stream:
        stream.write(b"w")

    assert len(os.listdir("/dev/fd")) == before


def test_a_lock_is_exclusive_until_its_holder_releases_it(tmp_path):
    lock = tmp_path / ".lock"
    with writing.exclusive_lock(lock, KeyError), pytest.raises(KeyError, match="process"):
        with writing.exclusive_lock(lock, KeyError):
            pass

    assert names(tmp_path) == []
    with writing.exclusive_lock(lock, KeyError):
        assert lock.exists()


def test_a_lock_in_an_unwritable_directory_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(OutputError), writing.exclusive_lock(tmp_path / "file" / ".lock", KeyError):
        pass


def test_a_scratch_directory_is_removed_at_the_end():
    with writing.scratch_directory() as scratch:
        (scratch / "file").write_text("x")

    assert not scratch.exists()


def test_scratch_directories_of_killed_processes_are_removed_and_no_others(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    prefix = f"protembed-{platform.node()}"
    names_and_ages = {f"{prefix}-killed": 7200, f"{prefix}-begun": 60, "protembed-other-host": 7200, "thesis": 7200}
    for name, age in names_and_ages.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows").touch()
        os.utime(tmp_path / name, times=(time.time() - age,) * 2)
    (tmp_path / f"{prefix}-link").symlink_to(tmp_path / "thesis")

    with writing.scratch_directory() as running:
        os.utime(running, times=(0, 0))
        with writing.scratch_directory():
            assert running.exists()

    assert names(tmp_path) == sorted([f"{prefix}-begun", f"{prefix}-link", "protembed-other-host", "thesis"])
    assert (tmp_path / "thesis" / "rows").exists()


def test_a_table_has_one_line_per_row_and_an_empty_cell_for_none(tmp_path):
    writing.write_table(tmp_path / "t.tsv", ["a", "b"], [(1, None), ("=x", 2.5)])

    assert (tmp_path / "t.tsv").read_text() == "a\tb\n1\t\n'=x\t2.5\n"
