import signal
import subprocess
import sys

import pytest

from protembed.errors import OutputError, RunInUseError
from protembed.io.reading import STANDARD_STREAM
from protembed.io.result import result_lock


def names(folder):
    return sorted(path.name for path in folder.iterdir())


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
