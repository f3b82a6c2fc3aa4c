"""Inputs that are not what they should be, given to every command that reads proteins."""

import bz2
import gzip
import lzma
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from protembed.cli.app import app
from protembed.config.common import TASKS
from protembed.config.model_sizes import ESM2Shape
from protembed.model.checkpoint import new_checkpoint, save_checkpoint
from protembed.model.heads import TaskHead
from protembed.model.metadata import ModelMetadata

TINY = ESM2Shape(num_layers=2, dim=32, num_heads=4)

FASTA = b">a\nMKTAYIAKQR\n>b\nGSHMLEDPV\n"
INSTEAD_OF_FASTA = {
    "empty": (b"", "empty"),
    "blank": (b"\n \n\n", "empty"),
    "FASTQ": (b"@read1\nACGT\n+\nIIII\n", "FASTQ"),
    "GenBank": (b"LOCUS       SCU49845     5028 bp    DNA\nORIGIN\n        1 gatcctccat\n//\n", "GenBank"),
    "HTML": (b"<!DOCTYPE html>\n<html><body>504 Gateway Timeout</body></html>\n", "HTML"),
    "binary": (bytes(range(256)) * 8, "binary"),
    "an executable": (b"\x7fELF\x02\x01\x01" + bytes(60), "binary"),
    "a spreadsheet": (b"PK\x03\x04\x14\x00\x06\x00", "zip"),
    "UTF-16": (FASTA.decode().encode("utf-16"), "UTF-16"),
    "JSON": (b'{"error": "not found"}\n', "JSON"),
    "a table": (b"id,sequence\na,MKT\n", "not a '>' header"),
}
READERS = ["embed", "pretrain", "inspect-attention", "predict", "check"]


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def with_head(tmp_path_factory):
    """A model with a head of random weights, so that there is something to predict with."""
    checkpoint = new_checkpoint(TINY, "gaussian", seed=0)
    checkpoint.task_head = TaskHead(TINY.dim, TASKS["regression"], None)
    checkpoint.metadata = ModelMetadata(target="target", task="regression", pooling="mean")
    directory = tmp_path_factory.mktemp("models") / "with_head"
    save_checkpoint(checkpoint, directory, "# with a head\n")
    return directory


@pytest.fixture(scope="module")
def embedded(tmp_path_factory, tiny_model):
    """A result to check."""
    folder = tmp_path_factory.mktemp("embedded")
    (folder / "a.fasta").write_bytes(FASTA)
    assert invoke("embed", folder / "a.fasta", "-m", tiny_model, "-o", folder / "emb.npy").exit_code == 0
    return folder / "emb.npy"


@pytest.fixture
def give(tmp_path, tiny_model, with_head, embedded):
    """Give a command an input; it has to leave nothing behind."""

    def run(command, path, *options):
        model = {"pretrain": ["--size", "t4_1M", "--steps", 1], "predict": ["-m", with_head], "check": []}
        before = sorted(tmp_path.rglob("*"))
        arguments = [
            *([embedded] if command == "check" else []),
            path,
            *model.get(command, ["-m", tiny_model]),
            *options,
        ]
        output = [] if command == "check" else ["-o", tmp_path / ("out.npy" if command == "embed" else "out")]
        result = invoke(command, *arguments, *output)
        assert sorted(tmp_path.rglob("*")) == before
        return result

    return run


def assert_one_line(result, status):
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == status
    assert result.stdout == ""
    assert result.stderr.startswith("protembed: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.promise(14)
@pytest.mark.parametrize("command", READERS)
def test_other_formats_than_fasta_are_named_in_one_line_and_exit_65(give, tmp_path, command):
    path = tmp_path / "proteins.fasta"
    # All commands have the one reader; of the others a few are enough.
    for content, name in list(INSTEAD_OF_FASTA.values())[:: 1 if command == "embed" else 4]:
        path.write_bytes(content)

        result = give(command, path)

        assert_one_line(result, 65)
        assert "proteins.fasta" in result.stderr
        assert name in result.stderr


@pytest.mark.promise(14)
@pytest.mark.parametrize("command", ["finetune", "score"])
def test_other_formats_than_tables_are_one_line_and_exit_65(give, tmp_path, command):
    path = tmp_path / "table.csv"
    for content, _ in INSTEAD_OF_FASTA.values():
        path.write_bytes(content)

        assert_one_line(give(command, path), 65)


@pytest.mark.promise(14)
@pytest.mark.parametrize("command", [*READERS, "finetune", "score"])
def test_unreadable_input_is_one_line_and_exits_66(give, tmp_path, monkeypatch, command):
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "secret").write_bytes(FASTA)
    (tmp_path / "secret").chmod(0)
    # A superuser can read every file.
    if os.access(tmp_path / "secret", os.R_OK):
        open_as_superuser = Path.open

        def open_as_user(path, *arguments, **options):
            if path.name == "secret":
                raise PermissionError(13, "Permission denied", str(path))
            return open_as_superuser(path, *arguments, **options)

        monkeypatch.setattr("os.access", lambda path, *_, **__: Path(os.fsdecode(path)).name != "secret")
        monkeypatch.setattr(Path, "open", open_as_user)

    for name, found in [
        ("missing", "No such file"),
        ("folder", "Is a directory"),
        ("secret", "Permission denied"),
        ("secret/below", "Not a directory"),
        ("loop", "symbolic links"),
        ("x" * 300, "File name too long"),
    ]:
        result = give(command, tmp_path / name)

        assert_one_line(result, 66)
        assert name in result.stderr and found in result.stderr


@pytest.mark.promise(14)
def test_unwritable_output_is_one_line_and_exits_1(tmp_path, tiny_model, proteins_fasta):
    for command, options in [
        ("embed", ["-m", tiny_model]),
        ("pretrain", ["--size", "t4_1M"]),
        ("inspect-attention", []),
    ]:
        result = invoke(command, proteins_fasta, *options, "-o", tmp_path / ("x" * 300 + ".npy"))

        assert_one_line(result, 1)
        assert "File name too long" in result.stderr


@pytest.mark.promise(12)
@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress], ids=["gz", "bz2", "xz"])
def test_damaged_archive_exits_65_names_the_records_and_leaves_no_file(give, tmp_path, command, compress):
    path = tmp_path / "proteins.fasta.gz"
    path.write_bytes(compress(FASTA)[:-4])

    result = give(command, path)

    assert_one_line(result, 65)
    assert "proteins.fasta.gz: the archive is truncated or damaged" in result.stderr
    assert "whole records before that: 1" in result.stderr


@pytest.mark.promise(12)
@pytest.mark.parametrize(
    ("command", "header", "row"),
    [("finetune", "sequence,target", "MKTAY,1.5"), ("score", "sequence,mutant", "MKTAY,M1A")],
)
def test_damaged_table_exits_65_names_the_rows_and_leaves_no_file(give, tmp_path, command, header, row):
    path = tmp_path / "table.csv"
    path.write_bytes(gzip.compress("\n".join([header, *[row] * 3000, ""]).encode())[:-4])

    result = give(command, path)

    assert_one_line(result, 65)
    assert "whole records before that: 3,000" in result.stderr


@pytest.mark.promise(14)
def test_nucleotide_sequences_are_warned_of(tmp_path, tiny_model):
    path = tmp_path / "dna.fasta"
    path.write_text("".join(f">read{row}\n{'ACGTTGCA' * (4 + row)}\n" for row in range(3)))

    result = invoke("embed", path, "-m", tiny_model, "-o", tmp_path / "dna.npy")

    assert result.exit_code == 0
    assert "warning: most sequences look like nucleotides" in result.stderr
