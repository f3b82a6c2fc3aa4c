import csv

import pytest
from typer.testing import CliRunner

from protembed.cli.app import app
from protembed.data.fasta import read_fasta


@pytest.fixture(scope="session")
def invoke():
    """Run a command as the shell would, in this process."""

    def run(*arguments):
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run


@pytest.fixture(scope="session")
def small_fasta(proteins_fasta, tmp_path_factory):
    """Twelve real proteins of at most forty residues each."""
    path = tmp_path_factory.mktemp("inputs") / "small.fasta"
    records = list(read_fasta([proteins_fasta]))[:12]
    path.write_text("".join(f">{record.id}\n{record.sequence[:40]}\n" for record in records))
    return path


@pytest.fixture(scope="session")
def write_labels():
    """Write a table of twelve labelled proteins; the first column names them."""

    def write(path, fasta, ids=None, target="label", labels=("rich", "poor")):
        records = list(read_fasta([fasta]))
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["id", "sequence", target, "split"])
            for record in records:
                split = "test" if record.row % 3 == 0 else "train"
                name = record.id if ids is None else ids[record.row % len(ids)]
                writer.writerow([name, record.sequence, labels[record.row % 2], split])
        return path

    return write


@pytest.fixture(scope="session")
def small_table(small_fasta, write_labels):
    return write_labels(small_fasta.with_name("small.csv"), small_fasta)


@pytest.fixture(scope="session")
def small_variants(small_fasta):
    """Mutations of the first protein, with its sequence in a column."""
    first = next(iter(read_fasta([small_fasta]))).sequence
    rows = [f"v{place},{first},{first[place - 1]}{place}W" for place in (2, 9)]
    path = small_fasta.with_name("variants.csv")
    path.write_text("\n".join(["id,sequence,mutant", *rows]) + "\n")
    return path


@pytest.fixture(scope="session")
def predictor(invoke, small_table, tiny_model, tmp_path_factory):
    """The directory of a model that classifies proteins as rich or poor."""
    output = tmp_path_factory.mktemp("models") / "predictor"
    result = invoke("finetune", small_table, "-m", tiny_model, "-o", output, "--method", "frozen", "--threads", 1)
    assert result.exit_code == 0, result.output
    return output
