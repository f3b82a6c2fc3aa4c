import errno
import itertools
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import protembed
from protembed.callbacks import Callbacks
from protembed.config.embed import EmbedOptions
from protembed.errors import (
    ConfigError,
    DamagedRunError,
    OutputError,
    OutputExistsError,
    RunInUseError,
    RunMismatchError,
    TooFewProteinsError,
)
from protembed.io import result
from protembed.io.fingerprint import make_fingerprint
from protembed.io.reading import STANDARD_STREAM, read_json, sha256_of_file
from protembed.io.result import RUN, Result
from protembed.io.writing import (
    atomic_directory,
    atomic_file,
    write_json,
    write_table,
    write_text,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# Results

MODEL = SimpleNamespace(name="tiny", revision=None, sha256=lambda: "a" * 64)
FINGERPRINT = make_fingerprint(EmbedOptions(), {"seed": 0, "region": None}, MODEL, None)


class FailedError(Exception):
    pass


def make_table(output, *, fingerprint=FINGERPRINT, force=False, content=b"id\n", error=None):
    with Result.table(output, [], force=force).claim(fingerprint) as claim:
        if claim.recorded is not None:
            return "done", claim.recorded
        with atomic_file(claim.path) as stream:
            stream.write(content)
        if error is not None:
            raise error
        return "new", claim.publish({**fingerprint, "num_proteins": 1})


def make_directory(output, *, fingerprint=FINGERPRINT, force=False, content="new", error=None):
    with Result(output, [], force=force, record="meta.json").claim(fingerprint) as claim:
        if claim.recorded is not None:
            return "done", claim.recorded
        write_text(claim.create_directory() / "maps", content)
        if error is not None:
            raise error
        return "new", claim.publish(fingerprint)


COMPANIONS = {".ids.tsv": ("row", "id"), ".failed.tsv": ("id", "reason")}


def make_array(output, *, fingerprint=FINGERPRINT, force=False, content=b"rows", error=None):
    """Make a file with a table beside it and, only for the older of two results, an optional second one."""
    with Result(output, [], force=force, companions=COMPANIONS).claim(fingerprint) as claim:
        if claim.recorded is not None:
            return "done", claim.recorded
        with atomic_file(claim.path) as stream:
            stream.write(content)
        write_table(claim.companion(".ids.tsv"), COMPANIONS[".ids.tsv"], [(1, fingerprint["seed"])])
        if fingerprint["seed"]:
            write_table(claim.companion(".failed.tsv"), COMPANIONS[".failed.tsv"], [])
        if error is not None:
            raise error
        return "new", claim.publish({**fingerprint, "ids_sha256": sha256_of_file(claim.companion(".ids.tsv"))})


KINDS = {"x.tsv": make_table, "x.npy": make_array, "x.attention": make_directory}
every_kind = pytest.mark.parametrize(("name", "make"), KINDS.items(), ids=KINDS)


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def expected(tmp_path_factory):
    """Return the contents of the files that a kind of result should have."""

    def make_it(name, make):
        folder = tmp_path_factory.mktemp("expected")
        make(folder / name)
        return contents(folder)

    return make_it


@every_kind
def test_a_result_is_done_when_the_same_command_has_made_it(tmp_path, name, make):
    first, recorded = make(tmp_path / "new folder" / name)
    before = contents(tmp_path)

    assert (first, *make(tmp_path / "new folder" / name)) == ("new", "done", recorded)
    assert contents(tmp_path) == before
    assert len(before) == (3 if make is make_array else 2)


def test_the_record_of_a_table_holds_the_fingerprint_and_the_hash(tmp_path):
    make_table(tmp_path / "x.tsv")

    assert names(tmp_path) == ["x.tsv", "x.tsv.meta.json"]
    assert read_json(tmp_path / "x.tsv.meta.json") == {
        **EmbedOptions().as_given(),
        "protembed_version": protembed.__version__,
        "model_name": "tiny",
        "model_revision": None,
        "model_sha256": "a" * 64,
        "input_sha256": None,
        "seed": 0,
        "num_proteins": 1,
        "sha256": sha256_of_file(tmp_path / "x.tsv"),
    }


@every_kind
@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"seed": 1}, r"`seed` was 0, not 1\)"),
        ({"model_sha256": "b" * 64}, r"the model differs\)"),
        ({"region": "1-70"}, r"`region` was none, not 1-70\)"),
        ({"model_name": "x", "model_sha256": "b" * 64, "dim": 5}, r"the model was tiny, not x\)"),
    ],
)
def test_the_result_of_another_command_is_replaced_only_with_force(tmp_path, name, make, changes, found):
    make(tmp_path / name)
    before, fingerprint = contents(tmp_path), FINGERPRINT | changes

    with pytest.raises(OutputExistsError, match=rf"{name} exists and was made with other settings \({found};.*`force`"):
        make(tmp_path / name, fingerprint=fingerprint)
    assert contents(tmp_path) == before

    assert make(tmp_path / name, fingerprint=fingerprint, force=True)[0] == "new"
    assert make(tmp_path / name, fingerprint=fingerprint)[0] == "done"


def test_a_table_without_a_record_is_replaced_only_with_force(tmp_path):
    (tmp_path / "x.tsv").write_text("an older version wrote no record")

    with pytest.raises(OutputExistsError, match="has no valid meta file beside it; .*`force`"):
        make_table(tmp_path / "x.tsv")
    assert make_table(tmp_path / "x.tsv", force=True)[0] == "new"


def test_a_table_that_was_changed_is_replaced_only_with_force(tmp_path):
    make_table(tmp_path / "x.tsv")
    (tmp_path / "x.tsv").write_text("edited")

    with pytest.raises(OutputExistsError, match="x.tsv is missing or does not match the meta file"):
        make_table(tmp_path / "x.tsv")


def test_an_unknown_file_with_the_name_of_a_record_is_never_replaced(tmp_path):
    (tmp_path / "x.tsv.meta.json").write_text("{}")

    with pytest.raises(OutputExistsError, match="x.tsv.meta.json exists and was not written by protembed.*does not"):
        make_table(tmp_path / "x.tsv", force=True)


def test_a_path_that_protembed_did_not_write_is_never_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").touch()
    os.mkfifo(tmp_path / "pipe")

    for path in (tmp_path / "thesis", tmp_path / "thesis" / "chapter"):
        with pytest.raises(
            OutputExistsError, match="has no meta.json, so it is not a result of this command; .*does not"
        ):
            make_directory(path, force=True)
    for path in (tmp_path / "pipe", Path(os.devnull)):
        with pytest.raises(ConfigError, match="a result does not replace a pipe or a device; - is stdout"):
            make_table(path, force=True)


@pytest.fixture
def closed_directory(tmp_path, monkeypatch):
    """A directory that looks read-only, also to root."""
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and access(path, mode))
    open_ = os.open

    def refuse(path, flags, *rest, **options):
        if str(path).endswith(".lock"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return open_(path, flags, *rest, **options)

    def close():
        monkeypatch.setattr(os, "open", refuse)

    return close


def test_finished_result_in_a_read_only_directory_is_up_to_date(tmp_path, closed_directory):
    make_table(tmp_path / "x.tsv")
    closed_directory()

    with Result.table(tmp_path / "x.tsv", []).claim(FINGERPRINT) as claim:
        assert claim.recorded is not None


def test_directory_that_cannot_be_written_is_reported_with_the_name_of_the_result(tmp_path, closed_directory):
    closed_directory()

    with pytest.raises(OutputError, match=r"cannot write .*/x\.tsv \(Permission denied\)"):
        make_table(tmp_path / "x.tsv")


def test_lock_that_another_user_left_is_named(tmp_path, closed_directory):
    (tmp_path / ".x.tsv.lock").touch()
    closed_directory()

    with pytest.raises(OutputError, match=r"cannot write .*/\.x\.tsv\.lock \(Permission denied\)"):
        make_table(tmp_path / "x.tsv")


def test_a_directory_with_a_file_of_the_user_is_never_replaced(tmp_path):
    def make(**options):
        with Result(
            tmp_path / "x", [], record="meta.json", contents=("meta.json", "maps/protein-*.npz"), **options
        ).claim(FINGERPRINT) as claim:
            directory = claim.create_directory()
            write_text(directory / "maps" / "protein-1.npz", "map")
            claim.publish(FINGERPRINT)

    make()
    for litter in (".DS_Store", "maps/._protein-1.npz", ".meta.json.7.tmp"):
        (tmp_path / "x" / litter).touch()
    make(force=True)
    assert sorted(contents(tmp_path)) == ["x/maps/protein-1.npz", "x/meta.json"]

    (tmp_path / "x" / "maps" / "mine.png").touch()
    with pytest.raises(
        OutputExistsError, match=r"x exists and contains maps/mine\.png, which protembed did not write; .*does not"
    ):
        make(force=True)
    (tmp_path / "x" / "notes").symlink_to(tmp_path)
    with pytest.raises(OutputExistsError, match=r"contains maps/mine\.png and 1 other file, which"):
        make(force=True)

    assert sorted(contents(tmp_path)) == ["x/maps/mine.png", "x/maps/protein-1.npz", "x/meta.json"]


def test_an_empty_file_and_an_empty_directory_are_replaced(tmp_path):
    (tmp_path / "dataset_1.dat").touch()
    (tmp_path / "dataset_2").mkdir()

    assert make_table(tmp_path / "dataset_1.dat")[0] == make_directory(tmp_path / "dataset_2")[0] == "new"


def test_a_result_that_would_replace_an_input_or_its_directory_is_an_error(tmp_path):
    make_directory(tmp_path / "x")
    (tmp_path / "x.tsv").touch()
    (tmp_path / "hard.tsv").hardlink_to(tmp_path / "x.tsv")

    for output in ("x.tsv", "hard.tsv"):
        with pytest.raises(OutputExistsError, match="is read by this command; .*does not"):
            Result.table(tmp_path / output, [tmp_path / "x.tsv"], force=True)
    with pytest.raises(OutputExistsError, match="contains .*maps, which is read by this command"):
        Result(tmp_path / "x", [tmp_path / "x" / "maps"], record="meta.json", force=True)


@pytest.mark.parametrize("name", ["scores.xlsx", "scores.NPY", "scores.tsv.gz"])
def test_a_table_with_the_name_of_another_format_is_a_usage_error(name):
    for legal in (Path("scores.tsv"), Path("scores.csv"), Path("scores"), STANDARD_STREAM):
        Result.table(legal, [])

    with pytest.raises(ConfigError, match=f"output is '{name}', but the table is text: name it .tsv or .csv"):
        Result.table(Path(name), [])


def test_a_table_cannot_have_the_name_of_a_directory_even_with_force(tmp_path):
    with pytest.raises(OutputExistsError, match="is not a file"):
        Result.table(tmp_path, [])
    with pytest.raises(ConfigError, match=r"this is a directory: name a file, such as .*table\.tsv"):
        Result.table(tmp_path, [], force=True)


@pytest.mark.promise(14)
def test_an_input_that_cannot_be_examined_passes_the_check(tmp_path):
    Result.table(tmp_path / "x.tsv", [tmp_path / ("x" * 300)])


def test_a_directory_above_the_result_is_created_with_a_note(tmp_path):
    notes = []
    result = Result.table(tmp_path / "new" / "x.tsv", [])

    with result.claim(FINGERPRINT, Callbacks(on_note=notes.append)) as claim, atomic_file(claim.path) as stream:
        stream.write(b"id")

    assert notes == [f"created the directory {tmp_path / 'new'}"]


@every_kind
@pytest.mark.parametrize("error", [FailedError, KeyboardInterrupt, TooFewProteinsError(1)])
def test_a_directory_that_was_created_for_a_result_that_failed_is_removed(tmp_path, name, make, error):
    with pytest.raises((FailedError, KeyboardInterrupt, TooFewProteinsError)):
        make(tmp_path / "new" / name, error=error)
    assert names(tmp_path) == []

    (tmp_path / "old").mkdir()
    with pytest.raises((FailedError, KeyboardInterrupt, TooFewProteinsError)):
        make(tmp_path / "old" / name, error=error)
    assert names(tmp_path) == ["old"]


@every_kind
def test_two_missing_directories_above_a_result_are_a_usage_error(tmp_path, name, make):
    with pytest.raises(ConfigError, match=r"the directory .*/typo does not exist: .* create .*/typo/new first"):
        make(tmp_path / "typo" / "new" / name)

    assert names(tmp_path) == []


# Publishing


@pytest.mark.promise(5)
@every_kind
@pytest.mark.parametrize("error", [FailedError, KeyboardInterrupt, TooFewProteinsError(1)])
def test_after_an_error_the_old_result_stays_and_nothing_else(tmp_path, name, make, error):
    with pytest.raises((FailedError, KeyboardInterrupt, TooFewProteinsError)):
        make(tmp_path / name, error=error)
    assert names(tmp_path) == []
    make(tmp_path / name, fingerprint=FINGERPRINT | {"seed": 1})
    before = contents(tmp_path)

    with pytest.raises((FailedError, KeyboardInterrupt, TooFewProteinsError)):
        make(tmp_path / name, force=True, error=error)

    assert contents(tmp_path) == before


@pytest.fixture
def without_fsync(monkeypatch):
    """Skip fsync: the tests kill processes, not machines, so that written bytes are visible without it."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


def stop_at(step, patches, before, functions=("move_into_place", "write_json", "discard")):
    """Call a function before the n-th file of a result is moved, written or removed."""
    steps = itertools.count()

    def stoppable(function):
        def call(*arguments):
            if next(steps) == step:
                before()
            return function(*arguments)

        return call

    for function in functions:
        patches.setattr(result, function, stoppable(getattr(result, function)))


@pytest.mark.promise(1)
@pytest.mark.usefixtures("without_fsync")
@every_kind
def test_a_result_that_is_killed_at_any_step_is_completed_by_the_same_command(
    tmp_path, name, make, expected, monkeypatch
):
    def kill():
        shutil.copytree(tmp_path / "running", tmp_path / "killed")
        raise KeyboardInterrupt

    for step in itertools.count():
        make(
            tmp_path / "running" / name, fingerprint=FINGERPRINT | {"seed": 1}, content="old" if "att" in name else b"o"
        )
        with monkeypatch.context() as patches:
            stop_at(step, patches, kill)
            try:
                make(tmp_path / "running" / name, force=True)
            except KeyboardInterrupt:
                pass
            else:
                break
        for folder in ("running", "killed"):
            make(tmp_path / folder / name, force=True)
            assert contents(tmp_path / folder) == expected(name, make), (step, folder)
            shutil.rmtree(tmp_path / folder)
    assert step > 4


@every_kind
def test_unresumable_work_of_a_killed_command_does_not_prevent_another_command(tmp_path, name, make, monkeypatch):
    with monkeypatch.context() as patches, pytest.raises(KeyboardInterrupt):
        patches.setattr(result, "discard", lambda directory: None)
        make(tmp_path / name, error=KeyboardInterrupt)
    assert names(tmp_path) == [f"{name}.partial"]

    assert make(tmp_path / name, fingerprint=FINGERPRINT | {"seed": 1})[0] == "new"
    assert f"{name}.partial" not in names(tmp_path)


@pytest.mark.promise(5)
@pytest.mark.usefixtures("without_fsync")
@every_kind
def test_when_a_file_cannot_be_moved_the_older_result_is_restored(tmp_path, name, make, expected, monkeypatch):
    def fail():
        raise OutputError(name, "the disk is broken")

    for step in itertools.count():
        folder = tmp_path / str(step)
        make(folder / name, fingerprint=FINGERPRINT | {"seed": 1})
        before = contents(folder)
        with monkeypatch.context() as patches:
            stop_at(step, patches, fail, ("move_into_place",))
            try:
                make(folder / name, force=True)
            except OutputError:
                assert {path: content for path, content in contents(folder).items() if path in before} == before
                assert {path.split("/")[0] for path in set(contents(folder)) - set(before)} == {f"{name}.partial"}
                make(folder / name, force=True)
            else:
                break
        assert contents(folder) == expected(name, make)
    assert step > 1


def test_the_record_of_an_older_result_is_moved_away_first_and_the_new_one_last(tmp_path, monkeypatch):
    make_array(tmp_path / "x.npy", fingerprint=FINGERPRINT | {"seed": 1})
    moved, move = [], result.move_into_place

    def record_move(source, target):
        assert not (tmp_path / "x.meta.json").exists() or not moved
        moved.append(source.name if source.parent == tmp_path else target.name)
        move(source, target)

    monkeypatch.setattr(result, "move_into_place", record_move)
    make_array(tmp_path / "x.npy", force=True)

    older, newer = moved[:4], moved[4:]
    assert older == ["x.meta.json", "x.ids.tsv", "x.failed.tsv", "x.npy"]
    assert newer == ["x.ids.tsv", "x.npy", "x.meta.json"]


def test_a_table_for_stdout_is_copied_there_and_leaves_no_file(tmp_path, monkeypatch, capfdbinary):
    monkeypatch.chdir(tmp_path)

    assert make_table(STANDARD_STREAM)[0] == "new"

    assert capfdbinary.readouterr().out == b"id\n"
    assert names(tmp_path) == []


def test_a_failed_table_for_stdout_leaves_it_empty(capfdbinary):
    with pytest.raises(FailedError):
        make_table(STANDARD_STREAM, error=FailedError)

    assert capfdbinary.readouterr().out == b""


def test_a_directory_cannot_be_a_result_on_stdout():
    with pytest.raises(ConfigError, match="output is '-', but a directory is expected"):
        Result(STANDARD_STREAM, [], record="meta.json")


# Claims


@pytest.mark.promise(7)
def test_a_result_is_locked_until_the_process_that_writes_it_dies(tmp_path):
    hold = (
        "import sys, pathlib; from protembed.io.result import Result\n"
        "with Result.table(pathlib.Path(sys.argv[1]), []).claim({}): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", hold, str(tmp_path / "x.tsv")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(RunInUseError, match=rf"x\.tsv is in use by process {holder.pid} "):
            make_table(tmp_path / "x.tsv")
        assert make_table(tmp_path / "y.tsv")[0] == "new"
        holder.send_signal(signal.SIGKILL)
        holder.wait()

    assert make_table(tmp_path / "x.tsv")[0] == "new"
    assert names(tmp_path) == ["x.tsv", "x.tsv.meta.json", "y.tsv", "y.tsv.meta.json"]


def test_stdout_has_no_lock(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    with Result.table(STANDARD_STREAM, []).claim({}), Result.table(STANDARD_STREAM, []).claim({}):
        assert names(tmp_path) == []


def test_a_lock_on_a_full_disk_is_an_output_error_and_leaves_nothing(tmp_path, monkeypatch):
    def fill_up(*_):
        raise OSError(28, "disk full")

    monkeypatch.setattr("os.ftruncate", fill_up)

    with pytest.raises(OutputError, match=r"cannot write .*/x\.tsv \(disk full\)"):
        make_table(tmp_path / "x.tsv")

    assert names(tmp_path) == []


@pytest.mark.promise(7)
def test_a_result_is_claimed_by_one_process_through_whatever_link(tmp_path):
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "x.tsv").symlink_to(tmp_path / "x.tsv")
    (tmp_path / "folder").symlink_to(tmp_path)

    with Result.table(tmp_path / "x.tsv", []).claim(FINGERPRINT):
        for path in ("x.tsv", "links/x.tsv", "folder/x.tsv"):
            with pytest.raises(RunInUseError, match=rf"x\.tsv is in use by process {os.getpid()}"):
                make_table(tmp_path / path)
        assert make_table(tmp_path / "y.tsv")[0] == "new"


@pytest.mark.promise(1)
def test_a_claim_removes_the_temporary_files_that_a_killed_process_left(tmp_path):
    for name in (".x.tsv.123.tmp.tsv", ".other.tsv.123.tmp.tsv"):
        (tmp_path / name).write_text("half")
    (tmp_path / ".x.tsv.partial.456.tmp").mkdir()

    with Result.table(tmp_path / "x.tsv", []).claim(FINGERPRINT):
        assert names(tmp_path) == [".other.tsv.123.tmp.tsv", ".x.tsv.lock", "x.tsv.partial"]


def test_a_claim_in_an_unwritable_directory_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(OutputError):
        make_table(tmp_path / "file" / "x.tsv")


def test_a_directory_that_protembed_did_not_write_is_never_removed(tmp_path):
    thesis = tmp_path / "x.tsv.partial" / "thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("years of work")

    with pytest.raises(
        OutputExistsError, match=r"x\.tsv\.partial exists and has no fingerprint\.json, so it is not .*`force` does not"
    ):
        make_table(tmp_path / "x.tsv", force=True)
    assert thesis.read_text() == "years of work"


# Trainings


def begin_run(directory, identity):
    with atomic_directory(directory) as temporary:
        write_json(temporary / RUN, {"identity": identity})


def claim_run(output, identity, *, force=False):
    with Result(output, [], run=RUN, force=force).claim(identity) as claim:
        if not claim.is_resumed:
            begin_run(claim.directory, identity)
        return claim.is_resumed


def test_a_training_is_resumed_in_its_directory_by_the_same_command(tmp_path):
    assert not claim_run(tmp_path / "x.run", {"seed": 0})
    assert claim_run(tmp_path / "x.run", {"seed": 0})
    with pytest.raises(RunMismatchError, match=r"x\.run was begun with other settings \(`seed` was 0, not 1\)"):
        claim_run(tmp_path / "x.run", {"seed": 1})
    assert not claim_run(tmp_path / "x.run", {"seed": 1}, force=True)
    assert not claim_run(tmp_path / "x.run", {"seed": 1}, force=True)
    assert names(tmp_path) == ["x.run"]


@pytest.mark.promise(1)
def test_resuming_a_training_removes_the_temporary_files_in_its_directory(tmp_path):
    claim_run(tmp_path / "x.run", {"seed": 0})
    (tmp_path / "x.run" / "checkpoints" / ".step-000002.123.tmp").mkdir(parents=True)

    claim_run(tmp_path / "x.run", {"seed": 0})

    assert names(tmp_path / "x.run" / "checkpoints") == []


def test_a_training_that_recorded_former_names_is_resumed(tmp_path):
    begin_run(tmp_path / "x.run", {"tokens_per_batch": 64})

    assert claim_run(tmp_path / "x.run", {"batch_tokens": 64})


@pytest.mark.parametrize("content", ["", "{}", '{"identity": 3}'])
def test_a_training_without_its_settings_is_replaced_only_with_force(tmp_path, content):
    (tmp_path / "x.run").mkdir()
    (tmp_path / "x.run" / RUN).write_text(content)

    with pytest.raises(DamagedRunError, match=r"run\.json: the settings of the run cannot be read; pass `force`"):
        claim_run(tmp_path / "x.run", {"seed": 0})
    assert not claim_run(tmp_path / "x.run", {"seed": 0}, force=True)


def finetune(output, identity, *, force=False, is_stopped=False):
    with Result(output, [], record="metrics.json", run=RUN, force=force).claim(identity) as claim:
        if claim.recorded is not None:
            return "done"
        if not claim.is_resumed:
            begin_run(claim.directory, identity)
        if is_stopped:
            claim.create_directory()
            raise KeyboardInterrupt
        write_text(claim.create_directory() / "model", "weights")
        claim.publish({"identity": identity})
        return "resumed" if claim.is_resumed else "new"


def test_a_directory_after_a_training_is_resumed_and_then_done(tmp_path):
    output = tmp_path / "x.model"
    with pytest.raises(KeyboardInterrupt):
        finetune(output, {"seed": 0}, is_stopped=True)
    assert names(tmp_path) == ["x.model.partial"]
    with pytest.raises(RunMismatchError, match=r"x\.model\.partial was begun with other settings"):
        finetune(output, {"seed": 1})

    assert [finetune(output, {"seed": 0}) for _ in range(2)] == ["resumed", "done"]

    assert finetune(output, {"seed": 0}, force=True) == "new"
    with pytest.raises(KeyboardInterrupt):
        finetune(output, {"seed": 1}, force=True, is_stopped=True)
    assert finetune(output, {"seed": 0}) == "done"
    assert finetune(output, {"seed": 1}, force=True) == "resumed"
    assert sorted(contents(tmp_path)) == ["x.model/metrics.json", "x.model/model"]
