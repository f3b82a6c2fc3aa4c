"""Scans from FASTA to files, compared with `score` of the same variants and with transformers."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from protembed.callbacks import Callbacks
from protembed.config.score import ScoreOptions
from protembed.data.alphabet import AMINO_ACIDS
from protembed.data.structures import read_chains
from protembed.errors import (
    ConfigError,
    FormatError,
    MismatchedResidueError,
    NoAminoAcidError,
    NoProteinError,
    OutputExistsError,
    StructureError,
    TableError,
    TooShortError,
)
from protembed.scoring.scan import scan_proteins
from protembed.scoring.score_variants import score_variants

STRUCTURES = Path(__file__).parents[1] / "data" / "fixtures" / "structures"
SEQUENCES = {"P1": "MKTAYIAKQR", "P2": "MKXAYWAKQRQISFVKSHFS"}
OPTIONS = {"scan": True, "threads": 1}


@pytest.fixture
def write_fasta(tmp_path):
    """Return a function that writes proteins by their names."""

    def write(proteins=SEQUENCES, name="proteins.fasta"):
        path = tmp_path / name
        path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in proteins.items()))
        return path

    return write


@pytest.fixture
def scan(tiny_model, write_fasta, tmp_path):
    """Return a function that scans proteins with the tiny model, and returns the summary."""

    def run(proteins=SEQUENCES, **values):
        values = {"model": tiny_model, "output": tmp_path / "result.scan", **OPTIONS, **values}
        return scan_proteins(write_fasta(proteins), ScoreOptions.from_values(**values))

    return run


def table_of(directory):
    with (directory / "scan.tsv").open() as stream:
        assert next(stream).startswith("# score: ")
        return list(csv.DictReader(stream, delimiter="\t"))


def write_table(path, rows, header):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_scan_has_every_substitution_of_every_amino_acid(scan):
    summary = scan()

    rows = table_of(summary.output)
    expected = [
        (name, f"{letter}{position}{mutant}")
        for name, sequence in SEQUENCES.items()
        for position, letter in enumerate(sequence, start=1)
        for mutant in AMINO_ACIDS
        if letter in AMINO_ACIDS and mutant != letter
    ]
    assert [(row["id"], row["mutant"]) for row in rows] == expected
    assert (summary.num_proteins, summary.num_positions, summary.num_mutants) == (2, 29, 29 * 19)


@pytest.mark.parametrize("method", ["masked-marginals", "wildtype-marginals"])
@pytest.mark.parametrize("window", [None, 16])
def test_scores_are_those_of_score_for_the_same_variants_to_the_bit(scan, tmp_path, tiny_model, method, window):
    proteins = {"P1": "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ"}
    rows = table_of(scan(proteins, method=method, window_residues=window).output)
    chosen = [row for number, row in enumerate(rows) if number % 37 == 0]
    variants = write_table(tmp_path / "variants.csv", [row["mutant"] for row in chosen], "mutant")

    values = {"model": tiny_model, "wild_type": tmp_path / "proteins.fasta", "threads": 1, "method": method}
    output = tmp_path / "scores.tsv"
    score_variants(variants, ScoreOptions.from_values(**values, window_residues=window, output=output))

    with output.open() as stream:
        next(stream)
        scores = [row["score"] for row in csv.DictReader(stream, delimiter="\t")]
    assert scores == [row["score"] for row in chosen]


def test_table_of_a_scan_is_an_input_of_score(scan, tmp_path, tiny_model):
    summary = scan()
    options = ScoreOptions.from_values(
        model=tiny_model, wild_type=tmp_path / "proteins.fasta", output=tmp_path / "again.tsv", threads=1
    )

    score_variants(summary.output / "scan.tsv", options)

    with (tmp_path / "again.tsv").open() as stream:
        next(stream)
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert [row["protembed_score"] for row in rows] == [row["score"] for row in table_of(summary.output)]


@pytest.mark.promise(11)
@pytest.mark.parametrize("window", [1022, 16])
def test_scores_equal_those_of_transformers_with_each_position_masked(scan, plain_model, window):
    sequence = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ"

    summary = scan({"P1": sequence}, model=plain_model.directory, window_residues=window)

    scores = np.load(summary.output / "scan.npz")["scores"]
    for position, letter in enumerate(sequence):
        log_probs = plain_model.log_probs(sequence, position, window_residues=window)
        expected = log_probs - log_probs[AMINO_ACIDS.index(letter)]
        np.testing.assert_allclose(scores[position], expected, rtol=0, atol=1e-4)


def test_archive_has_the_scores_of_the_table_with_positions_and_offsets(scan):
    summary = scan()

    archive = np.load(summary.output / "scan.npz")
    rows = table_of(summary.output)
    scores = {(row["id"], row["mutant"]): float(row["score"]) for row in rows}
    assert archive["scores"].dtype == np.float32
    assert archive["offsets"].tolist() == [0, 10, 29]
    assert archive["positions"][10:14].tolist() == [1, 2, 4, 5]  # the third is an X
    assert "".join(archive["wild_types"]) == "MKTAYIAKQR" + "MKAYWAKQRQISFVKSHFS"
    for protein, (name, start, stop) in enumerate([("P1", 0, 10), ("P2", 10, 29)]):
        assert archive["offsets"][protein : protein + 2].tolist() == [start, stop]
        for row in range(start, stop):
            wild_type, position = archive["wild_types"][row], archive["positions"][row]
            for mutant, score in zip(archive["amino_acids"], archive["scores"][row], strict=True):
                expected = scores.get((name, f"{wild_type}{position}{mutant}"), 0.0)
                assert score == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_scanning_a_region_gives_the_scores_of_the_whole_protein(scan, tmp_path):
    protein = {"P1": SEQUENCES["P1"]}
    whole = {row["mutant"]: row["score"] for row in table_of(scan(protein, output=tmp_path / "whole").output)}

    rows = table_of(scan(protein, region="3-4", output=tmp_path / "part").output)

    assert {row["mutant"][:-1] for row in rows} == {"T3", "A4"}
    part = {row["mutant"]: float(row["score"]) for row in rows}
    assert part == pytest.approx({name: float(whole[name]) for name in part}, abs=1e-5)


def test_proteins_are_listed_with_their_best_mutant(scan, read_rows):
    summary = scan()

    first, second = read_rows(summary.output / "proteins.tsv")
    rows = [row for row in table_of(summary.output) if row["id"] == "P1"]
    best = max(rows, key=lambda row: float(row["score"]))
    assert (first["row"], first["id"], first["residues"], first["positions"]) == ("1", "P1", "10", "10")
    assert (second["residues"], second["positions"]) == ("20", "19")
    assert (first["best"], float(first["best_score"])) == (best["mutant"], pytest.approx(float(best["score"])))
    assert float(first["mean_score"]) == pytest.approx(np.mean([float(row["score"]) for row in rows]), rel=1e-5)
    assert summary.best[0][2] == max(score for _, _, score in summary.best)


def test_same_command_computes_nothing_again_and_another_one_is_refused(scan):
    first = scan()

    assert scan() == first.__class__(**{**vars(first), "was_done": True})
    with pytest.raises(OutputExistsError, match="`region` was none, not 2-5"):
        scan(region="2-5")
    assert scan(region="2-5", force=True).num_positions == 3 + 4


def test_same_command_gives_the_same_bytes(scan, tmp_path):
    directories = [scan(output=tmp_path / name / "x.scan").output for name in "ab"]

    files = [sorted(path.relative_to(directory) for path in directory.rglob("*.*")) for directory in directories]
    assert files[0] == files[1]
    for name in files[0]:
        assert len({(directory / name).read_bytes() for directory in directories}) == 1


def test_proteins_beyond_the_page_are_in_the_table(scan, read_rows):
    proteins = {f"P{number}": "MKT" for number in range(23)}

    summary = scan(proteins, method="wildtype-marginals")

    assert (summary.num_proteins, summary.num_displayed) == (23, 20)
    assert len(read_rows(summary.output / "proteins.tsv")) == 23
    assert len(list((summary.output / "figures").iterdir())) == 20
    assert "the first 20 of 23 proteins" in (summary.output / "report.html").read_text()


def test_work_is_reported_in_tokens(tiny_model, write_fasta, tmp_path):
    expected, computed = [], []
    options = ScoreOptions.from_values(model=tiny_model, output=tmp_path / "x.scan", **OPTIONS)

    scan_proteins(write_fasta(), options, Callbacks(on_start=expected.append, on_computed=computed.append))

    assert expected == [10 * 12 + 19 * 22] == [sum(computed)]


def test_identical_sequences_are_computed_once(scan, tiny_model, write_fasta, tmp_path):
    computed = []
    path = write_fasta({**SEQUENCES, "P3": SEQUENCES["P1"]})
    options = ScoreOptions.from_values(model=tiny_model, output=tmp_path / "x.scan", region="2-5", **OPTIONS)

    summary = scan_proteins(path, options, Callbacks(on_computed=computed.append))

    assert (summary.num_proteins, summary.num_distinct) == (3, 2)
    assert sum(computed) == 4 * 12 + 3 * 22
    rows = table_of(summary.output)
    first, last = ([row for row in rows if row["id"] == name] for name in ("P1", "P3"))
    assert [row | {"id": "P3"} for row in first] == last
    scores = np.load(summary.output / "scan.npz")["scores"]
    np.testing.assert_array_equal(scores[:4], scores[7:])


@pytest.mark.promise(2)
def test_an_interrupted_scan_is_resumed_and_gives_the_same_bytes(scan, tmp_path, monkeypatch, tiny_model, write_fasta):
    monkeypatch.setattr("protembed.scoring.protein_job._CHUNKS_PER_GROUP", 1 / 10_000)
    path = write_fasta({**SEQUENCES, "P3": SEQUENCES["P1"], "P4": "MKTWY"})

    def run(name, **callbacks):
        output = tmp_path / name / "x.scan"
        return scan_proteins(
            path, ScoreOptions.from_values(model=tiny_model, output=output, **OPTIONS), Callbacks(**callbacks)
        )

    def interrupt_after(number):
        saved = []

        def interrupt(num_tokens):
            saved.append(num_tokens)
            if len(saved) == number:
                raise KeyboardInterrupt

        return interrupt

    run("whole")
    for number in (2, 1):
        with pytest.raises(KeyboardInterrupt):
            run("interrupted", on_progress=interrupt_after(number))
    summary = run("interrupted")

    assert summary.num_resumed == 3
    whole = tmp_path / "whole"
    files = sorted(file.relative_to(whole) for file in whole.rglob("*"))
    assert files == sorted(file.relative_to(tmp_path / "interrupted") for file in (tmp_path / "interrupted").rglob("*"))
    for name in files:
        assert (whole / name).is_dir() or (whole / name).read_bytes() == (tmp_path / "interrupted" / name).read_bytes()


@pytest.mark.parametrize("name", ["rows.npy", "x.rows", "progress.json"])
def test_a_scan_may_have_the_name_of_a_file_of_unfinished_work(name, scan, tmp_path):
    assert (scan(output=tmp_path / name).output / "scan.tsv").is_file()


# Bad input


def test_protein_of_one_residue_is_scanned(scan):
    assert scan({"one": "M"}).num_mutants == 19


@pytest.mark.parametrize(
    ("proteins", "values", "error", "message"),
    [
        ({"a": "MKT", "x": "XXXX"}, {}, NoAminoAcidError, "record 'x' has no likelihood: none of its residues"),
        ({"a": "MKXXT"}, {"region": "3-4"}, NoProteinError, "has none of the 20 amino acids in `region` 3-4"),
        ({"a": "MKT"}, {"region": "9-12"}, TooShortError, "'a' has 3 residues, and `region` begins at residue 9"),
    ],
)
def test_protein_that_cannot_be_scanned_is_an_error_with_its_line(scan, proteins, values, error, message):
    with pytest.raises(error) as caught:
        scan(proteins, **values)

    assert message in str(caught.value)
    assert "proteins.fasta, line " in str(caught.value)


def test_proteins_that_cannot_be_scanned_are_left_out_on_request(scan, read_rows):
    summary = scan({"x": "XX", "a": "MKT"}, on_illegal="skip")

    assert (summary.num_proteins, summary.num_refused) == (1, 1)
    assert [row["row"] for row in read_rows(summary.output / "proteins.tsv")] == ["1"]
    record = json.loads((summary.output / "meta.json").read_text())
    assert [left["id"] for left in record["left_out"]] == ["x"]


def test_leaving_out_every_protein_is_an_error(scan):
    with pytest.raises(FormatError, match="every record was left out"):
        scan({"x": "XX"}, on_illegal="skip")


def test_pseudo_perplexity_is_refused(scan):
    with pytest.raises(ConfigError, match="a scan needs masked-marginals or wildtype-marginals"):
        scan(method="pseudo-perplexity")


@pytest.mark.parametrize("values", [{"region": "1-5"}, {"measurements": "a.csv"}, {"structure": "a.pdb"}])
def test_options_of_a_scan_need_scan(values):
    with pytest.raises(ConfigError, match="it is an option of a scan: add `scan`"):
        ScoreOptions.from_values(**values)


def test_table_is_no_input_of_a_scan():
    with pytest.raises(ConfigError, match=r"a\.csv is not FASTA"):
        ScoreOptions.from_values(scan=True).choose_mode("a.csv", is_fasta=False)


# Measurements


@pytest.fixture
def measured(tmp_path):
    """Return a function that writes measured mutants of P1."""

    def write(rows, header="mutant,DMS_score"):
        return write_table(tmp_path / "dms.csv", rows, header)

    return write


def test_measured_values_stand_beside_the_scores(scan, measured):
    path = measured(["K2R,0.5", "K2R,1.5", "T3S,", "M1A:K2R,7", "M1*,8", "_wt,0.25", "Y5F,-2"])

    summary = scan({"P1": SEQUENCES["P1"]}, measurements=path)

    values = {row["mutant"]: row["measured"] for row in table_of(summary.output) if row["measured"]}
    assert values == {"K2R": "1", "Y5F": "-2"}
    assert summary.notes[0] == (
        "2 measured single mutants in the column 'DMS_score'; left out: 1 row with several mutations, or inserted or "
        "deleted residues, 1 row with no value, 1 row with no substitution that can be scored"
    )


def test_spearman_is_that_of_scipy(scan, measured):
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    names = [
        row["mutant"] for row in table_of(scan(output=measured([]).with_name("first")).output) if row["id"] == "P1"
    ]
    path = measured([f"{name},{rng.normal():.6f}" for name in names])

    summary = scan({"P1": SEQUENCES["P1"]}, measurements=path)

    rows = table_of(summary.output)
    expected = spearmanr(*zip(*[(float(row["score"]), float(row["measured"])) for row in rows], strict=True)).statistic
    (line,) = [note for note in summary.notes if "Spearman with 'DMS_score'" in note]
    assert f"model {expected:.3f} [" in line
    assert "BLOSUM62" in line


@pytest.mark.parametrize(
    ("rows", "header", "error", "message"),
    [
        (["A1R,0.5"], "mutant,DMS_score", MismatchedResidueError, "residue 1 of the wild type is 'M'"),
        (["M1R,0.5"], "mutant,other", TableError, "no column of measured values among"),
        (["M1R,high"], "mutant,DMS_score", TableError, "'high', the value of M1R in the column 'DMS_score'"),
        (["M1R,"], "mutant,DMS_score", TableError, "no row has a single mutation and a value"),
    ],
)
def test_measurements_that_do_not_fit_are_an_error(scan, measured, rows, header, error, message):
    with pytest.raises(error) as caught:
        scan({"P1": SEQUENCES["P1"]}, measurements=measured(rows, header))

    assert message in str(caught.value)
    assert "dms.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_id_column_says_which_protein_was_measured(scan, measured):
    path = measured(["P2,K2R,0.5", "P1,K2R,-1"], "which,mutant,DMS_score")

    with pytest.raises(TableError) as caught:
        scan(measurements=path)
    summary = scan(measurements=path, id="which")

    assert str(caught.value).endswith(
        "no id column among 'which', 'mutant', 'DMS_score', and the scanned FASTA file has 2 records; name the column "
        "of their identifiers with `id`"
    )
    values = {(row["id"], row["mutant"]): row["measured"] for row in table_of(summary.output) if row["measured"]}
    assert values == {("P1", "K2R"): "-1", ("P2", "K2R"): "0.5"}


def test_measurements_of_a_protein_that_is_not_scanned_are_an_error(scan, measured):
    with pytest.raises(TableError, match="the scanned FASTA file has 2 records, and none of them is 'P9'; give"):
        scan(measurements=measured(["P9,K2R,0.5"], "id,mutant,DMS_score"))


def test_measurements_with_shifted_positions_are_read_with_an_offset(scan, measured):
    path, protein = measured(["M25R,1", "K26R,2", "T27R,3", "A28R,4"], "name,DMS_score"), {"P1": SEQUENCES["P1"]}

    with pytest.raises(MismatchedResidueError, match="would all fit with `position_offset` -24"):
        scan(protein, measurements=path, mutations="name")
    rows = table_of(scan(protein, measurements=path, mutations="name", position_offset=-24).output)

    assert {row["mutant"]: row["measured"] for row in rows if row["measured"]} == {
        **{"M1R": "1", "K2R": "2", "T3R": "3", "A4R": "4"}
    }


def test_the_column_of_measured_values_is_named_as_for_a_table_of_variants(scan, measured):
    path, protein = measured(["K2R,0.5,7"], "mutant,score,mine"), {"P1": SEQUENCES["P1"]}

    assert "in the column 'mine'" in scan(protein, measurements=path, measured_column="mine").notes[0]
    with pytest.raises(OutputExistsError, match="`measured_column` was mine, not none"):
        scan(protein, measurements=path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"measured_column": "x"},
            "measured_column is 'x', but it describes the table of `measurements`, which is not",
        ),
        ({"position_offset": 3}, "position_offset is 3, but it describes the table of `measurements`, which is not"),
        (
            {"measurements": "a.csv", "wild_type": "b.fasta"},
            "wild_type is 'b.fasta', but the proteins of the FASTA file are the wild types of a scan",
        ),
    ],
)
def test_options_of_a_table_need_measurements_beside_a_scan(values, message):
    with pytest.raises(ConfigError) as caught:
        ScoreOptions.from_values(scan=True, **values)

    assert str(caught.value).startswith(message)


# Structures


def b_factors(path):
    """Read the B factor of each C-alpha of the first chain."""
    from Bio.PDB import MMCIFParser, PDBParser

    parser = MMCIFParser(QUIET=True) if path.suffix == ".cif" else PDBParser(QUIET=True)
    chain = next(iter(parser.get_structure("x", path)[0]))
    return [residue["CA"].get_bfactor() for residue in chain if "CA" in residue and residue.id[0] == " "]


@pytest.mark.parametrize("file", sorted(path.name for path in STRUCTURES.glob("*.gz")))
def test_b_factors_are_the_means_of_the_positions(scan, file):
    (chain, *_) = read_chains(STRUCTURES / file)
    sequence = f"MK{chain.sequence}"  # two residues that were not observed

    summary = scan({"chain": sequence}, structure=STRUCTURES / file, method="wildtype-marginals")

    archive = np.load(summary.output / "scan.npz")
    means = dict(zip(archive["positions"].tolist(), archive["scores"].sum(1) / 19, strict=True))
    (written,) = (summary.output / "structures").iterdir()
    expected = [means.get(position, 0.0) for position in range(3, len(sequence) + 1)]
    standard = [value for value, letter in zip(expected, chain.sequence, strict=True) if letter != "X"]
    np.testing.assert_allclose(b_factors(written)[: len(standard)], standard, atol=0.006)
    assert summary.num_structures == 1
    assert [one.sequence for one in read_chains(written)] == [one.sequence for one in read_chains(STRUCTURES / file)]


def test_structure_of_another_protein_is_an_error(scan):
    file = sorted(STRUCTURES.glob("*.gz"))[0]

    with pytest.raises(StructureError, match="none of its chains matches a protein of the input"):
        scan(structure=file)
