"""The probability of each amino acid at each position of the proteins of a FASTA file."""

import csv

import h5py
import numpy as np
import pytest

from protembed.callbacks import Callbacks
from protembed.config.score import ScoreOptions
from protembed.data.alphabet import AMINO_ACIDS
from protembed.errors import ConfigError
from protembed.scoring.per_position import score_positions
from protembed.scoring.score import score

SEQUENCES = {"one": "M", "long": "MKTAYIAKQRQISFVKSHFSRQLEERLGLI", "unusual": "MXKUBLA", "again": "M"}


@pytest.fixture
def fasta(tmp_path):
    path = tmp_path / "a.fasta"
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in SEQUENCES.items()))
    return path


def read_lines(path):
    with path.open() as stream:
        formula = next(stream)
        return formula, list(csv.DictReader(stream, delimiter="," if path.suffix == ".csv" else "\t"))


@pytest.mark.parametrize("window", [None, 16])
@pytest.mark.parametrize("method", ["masked-marginals", "wildtype-marginals"])
def test_log_probabilities_equal_a_plain_computation_with_transformers(plain_model, fasta, tmp_path, method, window):
    options = {"is_masked": method == "masked-marginals", "window_residues": window or 1000}
    expected = [
        plain_model.log_probs(sequence, position, **options)
        for sequence in SEQUENCES.values()
        for position in range(len(sequence))
    ]

    summary = score(
        fasta,
        ScoreOptions.from_values(
            model=plain_model.directory, positions=tmp_path / "p.npz", method=method, window_residues=window
        ),
    )

    with np.load(tmp_path / "p.npz") as stored:
        np.testing.assert_allclose(stored["log_probs"], expected, atol=1e-4)
        assert stored["log_probs"].dtype == np.float32
        assert stored["offsets"].tolist() == [0, 1, 31, 38, 39]
        assert stored["ids"].tolist() == list(SEQUENCES)
        assert "".join(stored["amino_acids"]) == AMINO_ACIDS
    assert (summary.num_proteins, summary.num_residues, summary.num_distinct) == (4, 39, 3)


def test_every_format_holds_the_same_numbers(tiny_model, fasta, tmp_path):
    for suffix in ("npz", "h5", "tsv", "csv"):
        score(fasta, ScoreOptions.from_values(model=tiny_model, positions=tmp_path / f"p.{suffix}"))

    with np.load(tmp_path / "p.npz") as stored:
        log_probs = stored["log_probs"]
    with h5py.File(tmp_path / "p.h5") as file:
        assert list(file) == list(SEQUENCES)
        assert file.attrs["amino_acids"] == AMINO_ACIDS
        np.testing.assert_array_equal(np.concatenate([file[name] for name in SEQUENCES]), log_probs)
    (formula, rows), (_, rows_of_csv) = read_lines(tmp_path / "p.tsv"), read_lines(tmp_path / "p.csv")
    assert formula.startswith("# log_probability: log p(amino acid at position i), p from the sequence with position i")
    assert rows == rows_of_csv
    letters = "".join(SEQUENCES.values())
    assert [row["residue"] for row in rows] == list(letters)
    for row, letter, numbers in zip(rows, letters, log_probs, strict=True):
        order = [AMINO_ACIDS[column] for column in np.argsort(-numbers)]
        assert float(row["entropy"]) == pytest.approx(-(np.exp(numbers) * numbers).sum(), rel=1e-5)
        if letter in AMINO_ACIDS:
            assert float(row["log_probability"]) == pytest.approx(numbers[AMINO_ACIDS.index(letter)], rel=1e-6)
            assert int(row["rank"]) == 1 + order.index(letter)
            order.remove(letter)
        else:
            assert (row["log_probability"], row["rank"]) == ("", "")
        assert row["best_other"] == order[0]
        assert float(row["best_other_log_probability"]) == pytest.approx(numbers[AMINO_ACIDS.index(order[0])], rel=1e-6)


def test_positions_of_each_protein_are_numbered_from_one(tiny_model, fasta, tmp_path):
    score(fasta, ScoreOptions.from_values(model=tiny_model, positions=tmp_path / "p.tsv"))

    rows = read_lines(tmp_path / "p.tsv")[1]
    assert [int(row["position"]) for row in rows if row["id"] == "unusual"] == [1, 2, 3, 4, 5, 6, 7]


def test_a_repeated_sequence_is_computed_once(tiny_model, fasta, tmp_path):
    computed = []
    options = ScoreOptions.from_values(model=tiny_model, positions=tmp_path / "p.npz")

    score_positions(fasta, options, Callbacks(on_computed=computed.append))

    assert sum(computed) == 1 * 3 + 30 * 32 + 7 * 9
    with np.load(tmp_path / "p.npz") as stored:
        np.testing.assert_array_equal(stored["log_probs"][0], stored["log_probs"][-1])


@pytest.mark.promise(2)
@pytest.mark.parametrize("suffix", ["npz", "h5", "tsv"])
def test_an_interrupted_run_is_resumed_and_gives_the_same_bytes(
    suffix, windowed_model, proteins, tmp_path, monkeypatch
):
    monkeypatch.setattr("protembed.scoring.protein_job._CHUNKS_PER_GROUP", 1 / 40)
    fasta = tmp_path / "a.fasta"
    fasta.write_text("".join(f">{row}\n{sequence}\n" for row, sequence in enumerate([*proteins, *proteins[:5]])))

    def run(name, **callbacks):
        output = tmp_path / name / f"p.{suffix}"
        options = ScoreOptions.from_values(model=windowed_model, positions=output, method="wildtype-marginals")
        return score_positions(fasta, options, Callbacks(**callbacks))

    def contents(name):
        return {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}

    saved = []

    def interrupt(num_tokens):
        saved.append(num_tokens)
        if len(saved) == 20:
            raise KeyboardInterrupt

    run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("interrupted", on_progress=interrupt)
    summary = run("interrupted")

    assert 20 <= summary.num_resumed < 45
    assert contents("interrupted") == contents("whole")
    assert run("whole").was_done


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"positions": "p.npy"},
            "positions is 'p.npy', but probabilities are written as npz, h5, tsv or csv: name",
        ),
        ({"positions": "p.npz", "output": "s.tsv"}, "output is 's.tsv', but the probabilities are written to p.npz in"),
    ],
)
def test_options_that_do_not_fit_are_errors_before_any_work(values, message, tiny_model, fasta):
    with pytest.raises(ConfigError) as error:
        score(fasta, ScoreOptions.from_values(model=tiny_model, **values))

    assert str(error.value).startswith(message)


def test_positions_of_a_table_are_an_error(tiny_model, tmp_path):
    (tmp_path / "variants.csv").write_text("mutant,sequence\nM1A,MKT\n")

    with pytest.raises(ConfigError) as error:
        score(tmp_path / "variants.csv", ScoreOptions.from_values(model=tiny_model, positions="p.npz"))

    assert str(error.value).endswith("variants.csv is not FASTA, from which proteins are read")
