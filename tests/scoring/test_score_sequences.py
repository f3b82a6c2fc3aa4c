"""Likelihoods of the sequences of a FASTA file."""

import csv
import json
import math
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from typer.testing import CliRunner

from protembed.callbacks import Callbacks
from protembed.cli.app import app
from protembed.config.score import ScoreOptions
from protembed.data.alphabet import AMINO_ACIDS
from protembed.errors import ConfigError, FormatError, NoAminoAcidError, NotFiniteError
from protembed.io.reading import read_json
from protembed.scoring.score import score
from protembed.scoring.score_sequences import score_sequences

SEQUENCES = {"one": "M", "long": "MKTAYIAKQRQISFVKSHFSRQLEERLGLI", "unusual": "MXKUBLA", "again": "M"}


def write_fasta(path, sequences):
    items = sequences.items() if isinstance(sequences, dict) else enumerate(sequences)
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in items))
    return path


def read_table(path):
    with path.open() as stream:
        formula = next(stream)
        return formula, list(csv.DictReader(stream, delimiter="," if path.suffix == ".csv" else "\t"))


@pytest.fixture
def run(tmp_path):
    """Score sequences, and read the table."""

    def run(sequences, **options):
        path = write_fasta(tmp_path / "designs.fasta", sequences)
        summary = score(
            path, ScoreOptions.from_values(output=tmp_path / "scores.tsv", force=True, threads=1, **options)
        )
        return summary, read_table(tmp_path / "scores.tsv")[1]

    return run


@pytest.mark.parametrize("window", [None, 16])
@pytest.mark.parametrize(
    ("method", "column"),
    [("masked-marginals", "pseudo_log_likelihood"), ("wildtype-marginals", "unmasked_log_likelihood")],
)
def test_likelihoods_equal_a_plain_computation_with_transformers(run, plain_model, method, column, window):
    summary, table = run(SEQUENCES, model=plain_model.directory, method=method, window_residues=window)

    for row, sequence in zip(table, SEQUENCES.values(), strict=True):
        standard = [position for position, letter in enumerate(sequence) if letter in AMINO_ACIDS]
        options = {"is_masked": method == "masked-marginals", "window_residues": window or 1000}
        expected = sum(
            float(plain_model.log_probs(sequence, position, **options)[AMINO_ACIDS.index(sequence[position])])
            for position in standard
        )
        assert float(row[column]) == pytest.approx(expected, abs=1e-4)
        assert float(row["per_residue"]) == pytest.approx(expected / len(standard), abs=1e-5)
        perplexity = float(row[column.removesuffix("log_likelihood") + "perplexity"])
        assert perplexity == pytest.approx(math.exp(-expected / len(standard)), rel=1e-4)
        assert (int(row["residues"]), int(row["nonstandard"])) == (len(sequence), len(sequence) - len(standard))
    assert summary.num_windowed == (0 if window is None else 1)


def test_the_table_begins_with_the_formula_and_its_columns_are_named(run, tiny_model, tmp_path):
    summary, table = run({"a": "MKT"}, model=tiny_model)

    formula, _ = read_table(tmp_path / "scores.tsv")
    assert formula.startswith("# pseudo_log_likelihood: sum over the standard residues i of log p(residue i), p from")
    assert summary.formula in formula
    assert list(table[0]) == [
        *("id", "residues", "pseudo_log_likelihood", "per_residue", "pseudo_perplexity", "nonstandard")
    ]
    assert summary.score_column == "pseudo_log_likelihood"


def test_csv_has_commas(tiny_model, tmp_path):
    fasta = write_fasta(tmp_path / "a.fasta", {"a,b": "MKT"})

    score(fasta, ScoreOptions.from_values(model=tiny_model, output=tmp_path / "a.csv"))

    assert [row["id"] for row in read_table(tmp_path / "a.csv")[1]] == ["a,b"]


def test_identical_sequences_are_computed_once(tiny_model, tmp_path, monkeypatch):
    fasta, computed = write_fasta(tmp_path / "a.fasta", ["MKT", "MKTA", "MKT", "MKTA", "MKT"]), []
    # Groups of a single protein: repeats are found over the whole file.
    monkeypatch.setattr("protembed.scoring.protein_job._CHUNKS_PER_GROUP", 0)

    options = ScoreOptions.from_values(model=tiny_model, output=tmp_path / "a.tsv")
    summary = score_sequences(fasta, options, Callbacks(on_computed=computed.append))

    rows = read_table(tmp_path / "a.tsv")[1]
    assert sum(computed) == 3 * 5 + 4 * 6
    assert (summary.num_proteins, summary.num_distinct) == (5, 2)
    assert [row["pseudo_log_likelihood"] == rows[0]["pseudo_log_likelihood"] for row in rows] == [1, 0, 1, 0, 1]


def test_the_amount_of_work_that_is_announced_is_done(windowed_model, proteins_fasta, tmp_path):
    expected, computed, saved = [], [], []
    options = ScoreOptions.from_values(model=windowed_model, output=tmp_path / "a.tsv", method="wildtype-marginals")

    score_sequences(
        proteins_fasta,
        options,
        Callbacks(on_start=expected.append, on_computed=computed.append, on_progress=saved.append),
    )

    assert expected == [sum(computed)] == [sum(saved)]
    assert len(saved) == 40


def test_stdin_is_scored_into_a_file_named_after_stdin(tiny_model, tmp_path, monkeypatch, give_stdin):
    monkeypatch.chdir(tmp_path)
    give_stdin(b">a\nMKT\n")

    summary = score("-", ScoreOptions.from_values(model=tiny_model))

    assert str(summary.output) == "stdin.scores.tsv"
    assert [row["id"] for row in read_table(tmp_path / "stdin.scores.tsv")[1]] == ["a"]


def test_identifiers_are_escaped(run, tiny_model):
    _, table = run({"=cmd()": "MKT"}, model=tiny_model)

    assert table[0]["id"] == "'=cmd()"


@pytest.mark.parametrize("method", ["masked-marginals", "wildtype-marginals"])
def test_a_model_computed_layer_by_layer_gives_the_same_scores(run, tiny_model, proteins, method):
    sequences = [protein[:40] for protein in proteins[:6]]

    tables = [run(sequences, model=tiny_model, method=method, offload=offload)[1] for offload in ("never", "always")]

    assert tables[0] == tables[1]


# Bad input


@pytest.mark.parametrize("sequence", ["X", "XXXX", "BZUO"])
def test_a_protein_without_standard_residues_is_an_error_that_names_it(sequence, run, tiny_model):
    with pytest.raises(NoAminoAcidError) as error:
        run({"a": "MKT", "b": sequence}, model=tiny_model)

    assert str(error.value).endswith(
        "designs.fasta, line 3: record 'b' has no likelihood: none of its residues is one of the 20 amino acids; "
        "remove the record, or pass `on_illegal` skip (leave it out)"
    )


def test_proteins_without_standard_residues_are_left_out_on_request(run, tiny_model, tmp_path):
    summary, table = run({"a": "XX", "b": "MKT", "c": "X"}, model=tiny_model, on_illegal="skip")

    assert [row["id"] for row in table] == ["b"]
    assert (summary.num_proteins, summary.num_residues, summary.num_refused) == (1, 3, 2)
    assert [record["id"] for record in read_json(tmp_path / "scores.tsv.meta.json")["left_out"]] == ["a", "c"]


def test_an_input_of_which_nothing_is_left_is_an_error(run, tiny_model):
    with pytest.raises(FormatError, match="every record was left out, the first, 'a', in line 1: none of its residues"):
        run({"a": "XX"}, model=tiny_model, on_illegal="skip")


@pytest.mark.promise(6)
def test_infinite_likelihoods_are_errors(run, tiny_model, monkeypatch):
    monkeypatch.setattr(
        "protembed.inference.marginals.Marginals._log_probabilities",
        lambda self, states: np.full((len(states), 20), -np.inf, np.float32),
    )

    with pytest.raises(NotFiniteError, match="the log probabilities of 'a' are not finite"):
        run({"a": "MKT"}, model=tiny_model)


def test_pseudo_perplexity_is_a_method_for_variants_only(run, tiny_model):
    with pytest.raises(ConfigError, match="sequences in FASTA are scored by masked-marginals or wildtype-marginals"):
        run({"a": "MKT"}, model=tiny_model, method="pseudo-perplexity")


# Resuming


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.promise(2)
@pytest.mark.parametrize("num_saved", [1, 7, 33])
def test_an_interrupted_run_is_resumed_and_gives_the_same_bytes(
    windowed_model, proteins, tmp_path, num_saved, monkeypatch
):
    monkeypatch.setattr("protembed.scoring.protein_job._CHUNKS_PER_GROUP", 1 / 40)
    fasta = write_fasta(tmp_path / "a.fasta", [*proteins, *proteins[:5]])

    def run(name, **callbacks):
        options = ScoreOptions.from_values(
            model=windowed_model, output=tmp_path / name / "a.tsv", method="wildtype-marginals"
        )
        return score_sequences(fasta, options, Callbacks(**callbacks))

    saved, resumed = [], []

    def interrupt(num_tokens):
        saved.append(num_tokens)
        if len(saved) == num_saved:
            raise KeyboardInterrupt

    run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("interrupted", on_progress=interrupt)
    summary = run("interrupted", on_progress=resumed.append)

    assert num_saved <= summary.num_resumed < 45
    assert len(resumed) == 45 - summary.num_resumed
    assert contents(tmp_path / "interrupted") == contents(tmp_path / "whole")


def progress_of(output):
    try:
        return json.loads((output.with_name(f"{output.name}.partial") / "progress.json").read_text())["num_proteins"]
    except FileNotFoundError:
        return None


@pytest.mark.promise(1)
@pytest.mark.slow
def test_a_killed_run_gives_the_same_bytes(windowed_model, proteins, tmp_path):
    fasta = write_fasta(tmp_path / "a.fasta", [protein[:120] for protein in proteins * 5])
    words = ["score", str(fasta), "-m", str(windowed_model), "--threads", "1", "-o"]
    (tmp_path / "whole").mkdir()
    assert CliRunner().invoke(app, [*words, str(tmp_path / "whole" / "a.tsv")]).exit_code == 0
    killed = tmp_path / "killed" / "a.tsv"

    process = subprocess.Popen([sys.executable, "-m", "protembed", *words, killed], stderr=subprocess.DEVNULL)
    while process.poll() is None and progress_of(killed) is None:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    last = CliRunner().invoke(app, [*words, str(killed)])

    assert last.exit_code == 0, last.output
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_a_finished_table_is_not_computed_again(tiny_model, tmp_path):
    fasta, options = write_fasta(tmp_path / "a.fasta", ["MKT"]), {"model": tiny_model, "output": tmp_path / "a.tsv"}
    first = score_sequences(fasta, ScoreOptions.from_values(**options))

    again = score_sequences(fasta, ScoreOptions.from_values(**options))

    assert again.was_done
    assert (again.num_proteins, again.score_column) == (first.num_proteins, first.score_column)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tiny_model, tmp_path):
    code = (
        "import resource, sys; from protembed import ScoreOptions, score; "
        "score(sys.argv[1], ScoreOptions.from_values(model=sys.argv[2], output='-', method='wildtype-marginals', "
        "threads=1)); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    rng = np.random.default_rng(0)

    def peak(num_proteins):
        sequences = ["".join(rng.choice(list(AMINO_ACIDS), 30)) for _ in range(num_proteins)]
        fasta = write_fasta(tmp_path / f"{num_proteins}.fasta", sequences)
        run = subprocess.run(
            [sys.executable, "-c", code, fasta, tiny_model], capture_output=True, text=True, check=True, cwd=tmp_path
        )
        return int(run.stderr.splitlines()[-1]) * (1 if sys.platform == "darwin" else 1024)

    assert peak(20_000) - peak(2_000) < 18_000 * 500
