import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from protembed.errors import DamagedRunError, OutputExistsError, RunInUseError, RunMismatchError, TooFewProteinsError
from protembed.io.result import RUN, Result
from protembed.training.run_directory import RunDirectory

FINGERPRINT = {"seed": 0, "size": "t6_8M", "init_from": None, "mask_rate": 0.15}


def fill(directory):
    (directory / "corpus").mkdir()


def never(directory):
    raise AssertionError("the run exists already")


@pytest.fixture
def run(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.open(FINGERPRINT, fill, force=False)
    return run


def claim(path, fingerprint=FINGERPRINT, *, force=False):
    return Result(path, [], run=RUN, force=force).claim(fingerprint)


def names(directory):
    return sorted(path.name for path in directory.iterdir())


# Beginning and resuming


def test_a_new_run_contains_its_initial_files(run, tmp_path):
    assert names(tmp_path / "run") == ["corpus", "run.json"]
    assert run.path("corpus").exists()
    assert not run.path("model").exists()


def test_the_same_command_opens_the_existing_run(run, tmp_path):
    RunDirectory(tmp_path / "run").open(dict(reversed(FINGERPRINT.items())), never, force=False)


@pytest.mark.promise(8)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "`seed` was 0, not 1"),
        ({"init_from": "abc"}, "`init_from` was none, not abc"),
        ({"new": True}, "`new` was none, not on"),
        ({"seed": 1, "mask_rate": 0.3}, "`seed` was 0, not 1; `mask_rate` was 0.15, not 0.3"),
    ],
)
def test_a_changed_command_is_refused_and_its_changes_are_named(run, tmp_path, change, message):
    with pytest.raises(RunMismatchError) as caught, claim(tmp_path / "run", FINGERPRINT | change):
        pass

    assert f"({message})" in str(caught.value)
    assert "`force`" in str(caught.value)
    assert run.path("corpus").exists()


def test_a_missing_setting_counts_as_a_change(run, tmp_path):
    with pytest.raises(RunMismatchError, match="`seed` was 0, not none"):
        with claim(tmp_path / "run", {"size": "t6_8M", "mask_rate": 0.15}):
            pass


@pytest.mark.parametrize("force", [False, True])
def test_a_directory_that_is_no_run_is_refused_and_left_unchanged(tmp_path, force):
    (tmp_path / "thesis.tex").write_text("years of work")

    with pytest.raises(OutputExistsError, match="has no run.json.*`force` does not replace it either"):
        claim(tmp_path, force=force)

    assert names(tmp_path) == ["thesis.tex"]


def test_a_run_can_begin_in_an_empty_directory(tmp_path):
    RunDirectory(tmp_path).open(FINGERPRINT, fill, force=False)

    assert names(tmp_path) == ["corpus", "run.json"]


def test_a_run_whose_initial_files_fail_leaves_nothing(tmp_path):
    def fail(directory):
        fill(directory)
        raise TooFewProteinsError(1)

    with pytest.raises(TooFewProteinsError):
        RunDirectory(tmp_path / "run").open(FINGERPRINT, fail, force=False)

    assert names(tmp_path) == []


def test_force_replaces_the_run(run, tmp_path):
    run.log({"step": 1})

    RunDirectory(tmp_path / "run").open(FINGERPRINT | {"seed": 1}, fill, force=True)

    assert names(tmp_path) == ["run"]
    assert names(tmp_path / "run") == ["corpus", "run.json"]
    RunDirectory(tmp_path / "run").open(FINGERPRINT | {"seed": 1}, never, force=False)


def test_a_failing_force_leaves_the_existing_run(run, tmp_path):
    with pytest.raises(AssertionError):
        RunDirectory(tmp_path / "run").open(FINGERPRINT | {"seed": 1}, never, force=True)

    RunDirectory(tmp_path / "run").open(FINGERPRINT, never, force=False)


# Stored values


def test_a_value_is_computed_once_per_run(run, tmp_path):
    assert run.load_or_compute("num_steps", lambda: 200) == 200
    assert run.load_or_compute("num_steps", lambda: 300) == 200

    again = RunDirectory(tmp_path / "run")
    again.open(FINGERPRINT, never, force=False)

    assert again.load_or_compute("num_steps", lambda: 300) == 200
    assert again.load_or_compute("nothing", lambda: None) is None


# The log


def test_log_lines_are_read_in_order(run):
    assert run.read_log() == []

    for step in (1, 2):
        run.log({"step": step, "train_loss": None})

    assert run.read_log() == [{"step": 1, "train_loss": None}, {"step": 2, "train_loss": None}]


def test_an_incomplete_last_line_is_ignored(run):
    run.log({"step": 1})
    with run.path("metrics.jsonl").open("a") as stream:
        stream.write('{"step": 2, "train')

    assert run.read_log() == [{"step": 1}]


@pytest.mark.parametrize(("step", "remaining"), [(0, []), (2, [1, 2]), (9, [1, 2, 3])])
def test_the_log_is_truncated_to_a_step_and_continued(run, step, remaining):
    for number in (1, 2, 3):
        run.log({"step": number})
    with run.path("metrics.jsonl").open("a") as stream:
        stream.write('{"step": 4, "train')

    run.truncate_log(step)
    run.log({"step": 10})

    assert [line["step"] for line in run.read_log()] == [*remaining, 10]


@pytest.mark.parametrize("content", ["{", "[]", '{"identity": 5}'])
def test_a_run_without_readable_settings_is_damaged(run, tmp_path, content):
    (tmp_path / "run" / "run.json").write_text(content)

    with pytest.raises(DamagedRunError, match="run.json: .*; pass `force`"), claim(tmp_path / "run"):
        pass


@pytest.mark.parametrize("content", ["", "{", "3"])
def test_a_run_whose_facts_cannot_be_read_is_damaged(run, tmp_path, content):
    (tmp_path / "run" / "run.json").write_text(content)

    with pytest.raises(DamagedRunError, match="run.json: .*; pass `force`"):
        RunDirectory(tmp_path / "run").open(FINGERPRINT, never)


def test_a_log_that_is_not_json_is_damaged(run, tmp_path):
    (tmp_path / "run" / "metrics.jsonl").write_text("not a line\n")

    with pytest.raises(DamagedRunError, match="metrics.jsonl"):
        run.truncate_log(1)


# Several processes


@pytest.mark.promise(7)
def test_a_second_run_cannot_lock_the_directory(run, tmp_path):
    with claim(tmp_path / "run"), pytest.raises(RunInUseError, match=f"in use by process {os.getpid()} on"):
        with claim(tmp_path / "run"):
            pass

    assert names(tmp_path) == ["run"]
    with claim(tmp_path / "run") as again:
        assert again.is_resumed


@pytest.mark.promise(7)
@pytest.mark.slow
def test_the_lock_of_a_killed_process_is_released(tmp_path):
    code = (
        "import os, pathlib, protembed.io.result as r\n"
        f"with r.Result(pathlib.Path({str(tmp_path / 'run')!r}), [], run=r.RUN).claim({{}}): os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code])
    assert (tmp_path / ".run.lock").exists()

    with claim(tmp_path / "run"):
        pass

    assert names(tmp_path) == []


def test_only_the_first_process_writes(run, tmp_path):
    received = [{"identity": FINGERPRINT}, 3]
    second = SimpleNamespace(is_first=False, broadcast_object=lambda value: received.pop(0))
    other = RunDirectory(tmp_path / "run", second)
    run.load_or_compute("plan", lambda: 3)
    before = (tmp_path / "run/run.json").read_text()

    other.open(FINGERPRINT, never, force=True)
    assert other.load_or_compute("plan", lambda: 4) == 3
    other.log({"step": 1})

    assert (tmp_path / "run/run.json").read_text() == before
    assert names(tmp_path / "run") == ["corpus", "run.json"]


def test_a_stored_value_replaces_an_earlier_one(run, tmp_path):
    assert run.load_or_compute("plan", lambda: 3) == 3

    run.store("plan", 5)

    assert run.facts["plan"] == 5
    again = RunDirectory(tmp_path / "run")
    again.open(FINGERPRINT, never, force=False)
    assert again.load_or_compute("plan", lambda: 7) == 5
