import errno
import fcntl
import os
import platform
import stat
import subprocess
from pathlib import Path

import pytest

from protembed.errors import OutputError
from protembed.io.limitations import Limitation, report_limitations
from protembed.io.writing import (
    atomic_directory,
    atomic_file,
    exclusive_lock,
    flush_to_disk,
    move_into_place,
    open_append,
)


def refuse(number):
    """Make a function that fails as a system call does."""

    def fail(*arguments, **options):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.fixture
def reported():
    """Collect what is reported during the test."""
    sentences = []
    with report_limitations(Path("emb.npy"), sentences.append):
        yield sentences


def write(path, content):
    with atomic_file(path) as stream:
        stream.write(content)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# Flushing


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_is_written_and_reported_once_where_files_cannot_be_flushed(tmp_path, monkeypatch, reported, number):
    monkeypatch.setattr("os.fsync", refuse(number))

    write(tmp_path / "x.tsv", b"x")
    with atomic_directory(tmp_path / "model") as temporary:
        (temporary / "weights").write_bytes(b"w")
    with open_append(tmp_path / "rows") as stream:
        stream.write(b"rows")
        assert flush_to_disk(stream) == 4

    assert names(tmp_path) == ["model", "rows", "x.tsv"]
    assert reported == [f"emb.npy: {Limitation.FLUSHING}"]


def test_a_directory_that_cannot_be_flushed_is_not_worth_a_word(tmp_path, monkeypatch, reported):
    fsync = os.fsync

    def fail_on_directories(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            refuse(errno.EINVAL)()
        fsync(descriptor)

    monkeypatch.setattr("os.fsync", fail_on_directories)
    with atomic_directory(tmp_path / "model") as temporary:
        (temporary / "weights").write_bytes(b"w")

    assert reported == []


# Permissions


def test_a_file_whose_permissions_cannot_be_changed_is_reported(tmp_path, monkeypatch, reported):
    monkeypatch.setattr("pathlib.Path.chmod", refuse(errno.EPERM))
    before = os.umask(0o022)
    try:
        with atomic_directory(tmp_path / "model") as temporary:
            os.close(os.open(temporary / "weights", os.O_CREAT | os.O_WRONLY, 0o600))
    finally:
        os.umask(before)

    assert len(reported) == 1
    assert reported[0].endswith(Limitation.PERMISSIONS)


# Renaming


@pytest.fixture(params=[errno.EEXIST, errno.EBUSY, errno.EXDEV, errno.ENOSYS, errno.ENOTSUP])
def without_renaming(request, monkeypatch):
    monkeypatch.setattr("os.replace", refuse(request.param))
    monkeypatch.setattr("os.rename", refuse(request.param))


@pytest.mark.usefixtures("without_renaming")
def test_a_file_replaces_another_by_copying_where_files_cannot_be_renamed(tmp_path, reported):
    for content in (b"first", b"second"):
        write(tmp_path / "x.tsv", content)
        (tmp_path / "source").write_bytes(content)
        move_into_place(tmp_path / "source", tmp_path / "y.tsv")

    assert (tmp_path / "x.tsv").read_bytes() == (tmp_path / "y.tsv").read_bytes() == b"second"
    assert names(tmp_path) == ["x.tsv", "y.tsv"]
    assert reported == [f"emb.npy: {Limitation.RENAMING}"]


@pytest.mark.usefixtures("without_renaming")
def test_a_directory_replaces_another_by_copying_where_directories_cannot_be_renamed(tmp_path, reported):
    for content in ("first", "second"):
        with atomic_directory(tmp_path / "model") as temporary:
            (temporary / content).mkdir()
            (temporary / content / "weights").write_text(content)

    assert names(tmp_path) == ["model"]
    assert names(tmp_path / "model") == ["second"]
    assert (tmp_path / "model" / "second" / "weights").read_text() == "second"
    assert reported == [f"emb.npy: {Limitation.RENAMING}"]


@pytest.mark.usefixtures("without_renaming")
def test_a_file_or_directory_that_cannot_even_be_copied_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.copyfileobj", refuse(errno.ENOSPC))
    monkeypatch.setattr("shutil._fastcopy_sendfile", refuse(errno.ENOSPC), raising=False)

    with pytest.raises(OutputError, match="No space left"):
        write(tmp_path / "x.tsv", b"x")
    with pytest.raises(OutputError, match="No space left"), atomic_directory(tmp_path / "model") as temporary:
        (temporary / "weights").write_bytes(b"w")

    assert names(tmp_path) == []


def test_a_directory_is_never_copied_over_another(tmp_path, monkeypatch):
    for name in ("source", "target"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    monkeypatch.setattr("os.replace", refuse(errno.EEXIST))

    with pytest.raises(OutputError, match="File exists"):
        move_into_place(tmp_path / "source", tmp_path / "target")

    assert names(tmp_path / "target") == ["target"]


# Locks


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP])
def test_a_lock_is_reported_where_there_are_none(tmp_path, monkeypatch, reported, number):
    monkeypatch.setattr(fcntl, "flock", refuse(number))

    with exclusive_lock(tmp_path / ".lock", KeyError):
        pass

    assert names(tmp_path) == []
    assert reported == [f"emb.npy: {Limitation.LOCKS}"]


@pytest.fixture
def ended_process():
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_without_locks_a_process_of_this_machine_that_still_runs_is_noticed(tmp_path, monkeypatch, ended_process):
    monkeypatch.setattr(fcntl, "flock", refuse(errno.ENOLCK))
    lock, host = tmp_path / ".lock", platform.node()

    lock.write_text(f"process {os.getppid()} on {host}\n")
    with pytest.raises(KeyError, match=f"process {os.getppid()} on"), exclusive_lock(lock, KeyError):
        pass

    for holder in (f"process {ended_process} on {host}", f"process {os.getppid()} on another-{host}", "damaged", ""):
        lock.write_text(holder)
        with exclusive_lock(lock, KeyError):
            assert lock.read_text() == f"process {os.getpid()} on {host}\n"


def test_a_lock_is_held_where_each_look_at_a_file_shows_another_inode(tmp_path, monkeypatch):
    monkeypatch.setattr("os.path.samestat", lambda *_: False)

    with exclusive_lock(tmp_path / ".lock", KeyError), pytest.raises(KeyError):
        with exclusive_lock(tmp_path / ".lock", KeyError):
            pass


def test_a_lock_that_another_process_has_replaced_is_not_held_and_stays(tmp_path, monkeypatch):
    lock = tmp_path / ".lock"

    def be_late(*_):
        lock.unlink()
        lock.write_text("process 1 on another host\n")

    monkeypatch.setattr(fcntl, "flock", be_late)
    with pytest.raises(KeyError, match="another process"), exclusive_lock(lock, KeyError):
        pass

    assert lock.read_text() == "process 1 on another host\n"


# Reporting


def test_limitations_are_reported_once_for_each_block(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", refuse(errno.ENOLCK))
    sentences = []

    for _ in range(2):
        with report_limitations(Path("emb.npy"), sentences.append):
            for name in ("a", "b"):
                with exclusive_lock(Path(tmp_path, name), KeyError):
                    pass

    assert len(sentences) == 2
