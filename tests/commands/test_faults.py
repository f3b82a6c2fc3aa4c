"""Failures of the disk: the old result stays, the status is 1, the message one sentence, no stray file is left."""

import errno
import json
import os
import re
import resource
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from protembed.callbacks import MEASURED
from protembed.cli.app import app
from protembed.config.model_sizes import ESM2Shape
from protembed.io.writing import exclusive_lock
from protembed.model.checkpoint import new_checkpoint, save_checkpoint

# Testing every fault of every command takes some minutes; by default only a few faults of each are tested.
LONG = os.environ.get("PROTEMBED_LONG_TESTS") == "1"


def invoke(arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def contents(folder):
    return {path.relative_to(folder).as_posix(): comparable(path) for path in folder.rglob("*") if path.is_file()}


def comparable(path):
    """Read the bytes of a file, without the time, speed and memory of a training, which differ between runs."""
    if path.parts[-2:] == ("new.run", "report.html"):
        return re.sub("<h3>Speed</h3>.*?</figure>", "", path.read_text(), flags=re.DOTALL)
    if path.name != "metrics.jsonl":
        return path.read_bytes()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in MEASURED} for line in lines]


class Fault:
    """Makes the n-th disk operation fail: a write, flush, sync, rename or creation of a directory."""

    def __init__(self, number, error=errno.ENOSPC):
        self.number, self.error, self.count = number, error, 0

    def strike(self):
        self.count += 1
        if self.count == self.number:
            raise OSError(self.error, os.strerror(self.error))

    def before(self, function):
        def call(*arguments, **options):
            self.strike()
            return function(*arguments, **options)

        return call

    def open(self, opened):
        def call(path, mode="r", *arguments, **options):
            stream = opened(path, mode, *arguments, **options)
            return stream if set(mode) <= set("rbt") else Stream(stream, self)

        return call


class Stream:
    """A file whose writing and flushing may fail."""

    def __init__(self, stream, fault):
        self._stream = stream
        self.write, self.flush = fault.before(stream.write), fault.before(stream.flush)

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._stream.close()


def under(fault, arguments):
    """Run a command with a fault; return its result and the number of disk operations."""
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(
            os, "fsync", fault.before(lambda descriptor: None)
        )  # skip the sync: the tests do not cut the power
        for name in ("replace", "rename", "mkdir", "write"):
            patches.setattr(os, name, fault.before(getattr(os, name)))
        patches.setattr(Path, "open", fault.open(Path.open))
        result = invoke(arguments)
    return result, fault.count


@pytest.fixture(scope="module")
def inputs(proteins, tmp_path_factory):
    """Write a very small model, a fine-tuned one, proteins, labels and variants."""
    folder = tmp_path_factory.mktemp("inputs")
    checkpoint = new_checkpoint(ESM2Shape(num_layers=1, dim=16, num_heads=2), "gaussian", seed=0)
    save_checkpoint(checkpoint, folder / "tiny", "# tiny\n")
    cut = [protein[:40] for protein in proteins[:12]]
    for name, number in (("three", 3), ("twelve", 12)):
        records = (f">p{row}\n{sequence}\n" for row, sequence in enumerate(cut[:number]))
        (folder / f"{name}.fasta").write_text("".join(records))
    splits = ["train"] * 6 + ["valid"] * 3 + ["test"] * 3
    rows = (f"p{row},{cut[row]},{row**2 % 7}.5,{split}\n" for row, split in enumerate(splits))
    (folder / "labels.csv").write_text("id,sequence,label,split\n" + "".join(rows))
    variants = (f"{cut[0]},{cut[0][index]}{index + 1}A\n" for index in (2, 5))
    (folder / "variants.csv").write_text("sequence,mutation\n" + "".join(variants))
    finetune = [
        "finetune",
        folder / "labels.csv",
        "-m",
        folder / "tiny",
        "-o",
        folder / "tuned",
        "--skip-random-baseline",
    ]
    assert invoke([*finetune, "--method", "frozen"]).exit_code == 0
    return folder


# By result: the command, the options of an older result in its place, and how many of its faults are tested.
COMMANDS = {
    "emb.npy": ("embed {i}/three.fasta -m {i}/tiny -o {o}", "--pooling max", 12),
    "emb.h5": ("embed {i}/three.fasta -m {i}/tiny -o {o} --per-residue", "--layer 0", 6),
    "p.tsv": ("predict {i}/three.fasta -m {i}/tuned -o {o}", "", 5),
    "s.tsv": ("score {i}/variants.csv -m {i}/tiny -o {o}", "--method wildtype-marginals", 4),
    "a.attention": ("inspect-attention {i}/three.fasta -m {i}/tiny -o {o} --save-maps 1", "--layers 1", 3),
    "f.model": (
        "finetune {i}/labels.csv -m {i}/tiny -o {o} --skip-random-baseline --method full --epochs 1",
        "--seed 1",
        2,
    ),
    "new.run": (
        "pretrain {i}/twelve.fasta --valid {i}/three.fasta --init-from {i}/tiny -o {o} --steps 2 --save-every 1 "
        "--validate-every 1 --batch-tokens 64 --crop-residues 20",
        None,
        4,
    ),
}
every_command = pytest.mark.parametrize("name", COMMANDS)


def command(name, inputs, folder):
    """Return the arguments of the command that makes a result of this name in a directory."""
    return [*COMMANDS[name][0].format(i=inputs, o=folder / name).split(), "--quiet"]


def make_older_result(name, inputs, folder):
    """Make a directory with a result of another command; none for pretraining, because `--force` starts over."""
    folder.mkdir()
    options = COMMANDS[name][1]
    if options is not None:
        assert invoke([*command(name, inputs, folder), *options.split()]).exit_code == 0
    return contents(folder)


def assert_clean_failure(result, folder, before):
    """Assert that a command printed one sentence, and left only the older files and what it can resume."""
    messages = [line for line in result.stderr.splitlines() if not line.startswith("warning: ")]
    after = contents(folder)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert [line.startswith("protembed: ") for line in messages] == [True], messages
    assert "cannot write" in messages[0]
    assert {path: after.get(path) for path in before} == before
    new = {path.split("/")[0] for path in after} - {path.split("/")[0] for path in before}
    assert all(path.endswith(".partial") or path == "new.run" for path in new), new
    assert [path.name for path in folder.rglob(".*")] == []


def forced(name):
    """Return the option that replaces an older result; none for a run, which is resumed."""
    return [] if name == "new.run" else ["--force"]


def reference(name, inputs, tmp_path, within):
    """Make an older result and, in a copy, the new one; choose the disk operations to test."""
    before = make_older_result(name, inputs, tmp_path / "old")
    whole = shutil.copytree(tmp_path / "old", tmp_path / "whole")
    result, num_all = under(Fault(0), [*command(name, inputs, whole), *forced(name)])
    assert result.exit_code == 0
    num_tried = num_all if LONG else min(num_all, COMMANDS[name][2])
    numbers = np.ceil((np.arange(num_tried) + within) * num_all / num_tried).astype(int).tolist()
    return before, forced(name), contents(whole), numbers


@pytest.mark.promise(5)
@every_command
def test_after_any_failed_disk_operation_the_old_result_stays(name, inputs, tmp_path):
    before, arguments, expected, numbers = reference(name, inputs, tmp_path, within=0.5)
    num_failed = 0

    for number in numbers:
        folder = shutil.copytree(tmp_path / "old", tmp_path / f"fault-{number}")
        result, count = under(Fault(number), [*command(name, inputs, folder), *arguments])
        assert count >= number, result.stderr
        if result.exit_code == 0:  # the directory already existed, or its entries could not be flushed
            assert contents(folder) == expected
            continue
        num_failed += 1
        assert_clean_failure(result, folder, before)
        assert invoke([*command(name, inputs, folder), *arguments]).exit_code == 0
        assert contents(folder) == expected
        shutil.rmtree(folder)
    assert num_failed


@pytest.mark.promise(5)
@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("emb.npy", 0),
        ("emb.npy", 700),
        ("emb.h5", 9_000),
        ("emb.h5", 12_000),
        ("p.tsv", 10),
        ("s.tsv", 60),
        ("a.attention", 2_000),
    ]
    + [("f.model", 20_000), ("new.run", 700), ("new.run", 8_000)],
)
def test_on_a_full_disk_the_old_result_stays(name, limit, inputs, tmp_path):
    """No file may grow larger than the limit, even if a library writes it."""
    folder = tmp_path / "full"
    before = make_older_result(name, inputs, folder)
    arguments = [*command(name, inputs, folder), *forced(name)]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
    try:
        result = invoke(arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert_clean_failure(result, folder, before)


# Killed


class Snapshots(Fault):
    """Copies a directory before some disk operations: the files that a kill at that moment would leave."""

    def __init__(self, folder, copies, numbers):
        super().__init__(0)
        self._folder, self._copies, self._numbers = folder, copies, set(numbers)

    def strike(self):
        self.count += 1
        if self.count in self._numbers:
            shutil.copytree(self._folder, self._copies / f"kill-{self.count}")


def assert_nothing_is_half_written(folder, before, expected):
    """Assert that files with final names are complete, and that a run lost one save interval at most."""
    for path, content in contents(folder).items():
        is_temporary = any(part.startswith(".") for part in Path(path).parts)
        if not is_temporary and not path.startswith("new.run/") and ".partial/" not in path:
            assert content in (before.get(path), expected.get(path)), path
    for checkpoint in folder.rglob("step-*"):
        assert checkpoint.name.startswith(".") or (checkpoint / "MANIFEST.json").exists()
    if (folder / "new.run/metrics.jsonl").exists():
        steps = [int(path.name[5:]) for path in (folder / "new.run/checkpoints").glob("step-*")]
        assert len(comparable(folder / "new.run/metrics.jsonl")) - max(steps, default=0) <= 1


@pytest.mark.promise(1)
@every_command
def test_after_a_kill_at_any_disk_operation_the_next_run_gives_the_same_files(name, inputs, tmp_path):
    before, arguments, expected, numbers = reference(name, inputs, tmp_path, within=0.7)
    running = shutil.copytree(tmp_path / "old", tmp_path / "running")

    result, _ = under(Snapshots(running, tmp_path, numbers), [*command(name, inputs, running), *arguments])

    assert result.exit_code == 0
    assert contents(running) == expected
    for number in numbers:
        folder = tmp_path / f"kill-{number}"
        assert_nothing_is_half_written(folder, before, expected)
        assert invoke([*command(name, inputs, folder), *arguments]).exit_code == 0
        assert contents(folder) == expected, number
        shutil.rmtree(folder)


@pytest.mark.promise(7)
@every_command
def test_a_result_that_another_process_is_writing_is_an_error(name, inputs, tmp_path):
    with exclusive_lock(tmp_path / f".{name}.lock", RuntimeError):
        result = invoke(command(name, inputs, tmp_path))

    assert result.exit_code == 1
    assert f"{name}" in result.stderr and f"is in use by process {os.getpid()} on" in result.stderr
    assert list(tmp_path.iterdir()) == []


# Read-only directories


@pytest.fixture
def read_only(inputs):
    """Make a directory that no user can write, with the inputs beside it; root becomes another user meanwhile."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(shutil.copytree(inputs, Path(name) / "inputs")).parent
        (folder / "out").mkdir()
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        before = os.geteuid()
        if before == 0:
            os.seteuid(65534)
        yield folder
        os.seteuid(before)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755)


@pytest.mark.promise(5)
@every_command
def test_a_read_only_directory_is_an_error_in_one_sentence(name, read_only):
    result = invoke(command(name, read_only / "inputs", read_only / "out"))

    assert_clean_failure(result, read_only / "out", {})
    assert "Permission denied" in result.stderr
    assert list((read_only / "out").iterdir()) == []
