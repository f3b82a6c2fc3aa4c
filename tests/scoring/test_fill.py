"""Filling in the masked positions of FASTA files: the table, the sequences, and what is rejected."""

import csv

import numpy as np
import pytest

import protembed
from protembed.callbacks import Callbacks
from protembed.config.fill import FillConfig
from protembed.config.score import ScoreOptions
from protembed.data.fasta import read_fasta
from protembed.errors import (
    ConfigError,
    FormatError,
    IllegalResidueError,
    InputNotFoundError,
    ModelFormatError,
    NoProteinError,
    OutputExistsError,
)
from protembed.io.reading import read_json
from protembed.model.checkpoint import save_checkpoint
from protembed.scoring.fill import fill_fasta
from protembed.scoring.score import score


@pytest.fixture(scope="module")
def masked(proteins):
    """Three proteins, one of them longer than a window of 64 residues, with masked positions."""
    longest = proteins[1]
    return {
        "P1": f"MK?{proteins[3][3:40]}??",
        "long": f"{longest[:70]}?{longest[71:200]}<mask>{longest[201:]}",
        "X1": "MXKT<MASK>AYBX",
    }


@pytest.fixture
def fasta(tmp_path):
    def write(records, name="masked.fasta"):
        path = tmp_path / name
        path.write_text("".join(f">{name} a protein\n{sequence}\n" for name, sequence in records))
        return path

    return write


@pytest.fixture
def fill(windowed_model, tmp_path):
    """Fill in a FASTA file, in a directory of its own unless an output is given."""

    def run(path, callbacks=None, **options):
        output = options.pop("output", None) or tmp_path / ("f.fasta" if "samples" in options else "f.tsv")
        values = {"model": windowed_model, "fill": True, "output": output, "force": True, "threads": 1, **options}
        return fill_fasta(path, ScoreOptions.from_values(**values), callbacks)

    return run


def rows_of(path):
    with path.open() as stream:
        assert next(stream).startswith("# probability: p(residue at the position | ")
        return list(csv.DictReader(stream, delimiter="," if path.suffix == ".csv" else "\t"))


# The table


@pytest.mark.parametrize("name", ["f.tsv", "f.csv"])
def test_the_table_has_the_most_probable_residues_that_the_model_gives_in_python(
    name, fill, fasta, masked, windowed_model, tmp_path
):
    summary = fill(fasta(masked.items()), top=3, output=tmp_path / name)

    model, expected = protembed.load_model(windowed_model, threads=1), []
    for name, sequence in masked.items():
        filled = model.fill(sequence.replace("<MASK>", "?"), top=3)
        expected += [(name, *row) for row in zip(*filled.values(), strict=True)]
    found = rows_of(summary.output)
    assert list(found[0]) == ["id", "position", "rank", "residue", "probability"]
    for row, (record_id, position, rank, residue, probability) in zip(found, expected, strict=True):
        assert list(row.values())[:4] == [record_id, str(position), str(rank), residue]
        np.testing.assert_allclose(float(row["probability"]), probability, rtol=1e-5)
    assert (summary.num_proteins, summary.num_positions, summary.num_samples) == (3, 6, None)


def test_all_twenty_probabilities_add_up_to_one(fill, fasta):
    rows = rows_of(fill(fasta([("a", "MK?Y")]), top=20).output)

    assert {row["residue"] for row in rows} == set(protembed.AMINO_ACIDS)
    assert sum(float(row["probability"]) for row in rows) == pytest.approx(1, abs=1e-6)
    assert [row["rank"] for row in rows] == [str(rank) for rank in range(1, 21)]


def test_five_residues_are_listed_by_default_and_progress_adds_up(fill, fasta, masked):
    total, crops = [], []

    summary = fill(fasta(masked.items()), Callbacks(on_start=total.append, on_computed=crops.append))

    assert len(rows_of(summary.output)) == 6 * 5
    assert sum(crops) == total[0]


# Sequences


def test_samples_are_whole_sequences_in_fasta_and_those_of_python(fill, fasta, masked, windowed_model):
    total, crops = [], []
    callbacks = Callbacks(on_start=total.append, on_computed=crops.append)

    summary = fill(fasta(masked.items()), callbacks, samples=2, temperature=0.7, seed=3)

    records = list(read_fasta(summary.output))
    model = protembed.load_model(windowed_model, threads=1)
    assert [record.id for record in records] == [f"{name}_sample{number}" for name in masked for number in (1, 2)]
    for name, sequence in masked.items():
        drawn = [record.sequence for record in records if record.id.startswith(f"{name}_")]
        assert drawn == model.sample(sequence.replace("<MASK>", "?"), 2, temperature=0.7, seed=3)
        for sample in drawn:
            pattern = sequence.replace("<mask>", "?").replace("<MASK>", "?")
            assert all(old in ("?", new) for old, new in zip(pattern, sample, strict=True))
    assert all(float(record.description.split("log_probability=")[1]) < 0 for record in records)
    assert max(map(len, summary.output.read_text().splitlines())) == 60
    assert sum(crops) == total[0]


def test_a_sample_does_not_depend_on_the_other_records_their_number_or_the_threads(fill, fasta, masked, tmp_path):
    every = fill(fasta(masked.items()), samples=3, output=tmp_path / "every.fasta", threads=2)
    last = fill(fasta([("X1", masked["X1"])]), samples=2, output=tmp_path / "last.fasta")

    assert every.output.read_text().endswith(
        last.output.read_text() + every.output.read_text().split(">X1_sample3")[1].join([">X1_sample3", ""])
    )


def test_samples_of_records_with_the_same_identifier_have_different_names(fill, fasta):
    summary = fill(fasta([("a", "MK?"), ("a", "M?T"), ("a_sample1", "?KT")]), samples=1)

    names = [record.id for record in read_fasta(summary.output)]
    assert names == ["a_sample1", "a_sample1_2", "a_sample1_sample1"]
    assert any("identifier used before" in sentence for sentence in summary.warnings)


def test_terminal_codes_in_an_identifier_are_escaped(fill, fasta):
    path = fasta([("evil\x1b[2J", "MK?")])

    for options in ({}, {"samples": 1}):
        assert b"\x1b" not in fill(path, **options).output.read_bytes()


# The life of the result


def test_the_same_command_computes_nothing_again_and_another_needs_force(fill, fasta):
    path = fasta([("a", "MK?Y")])

    first = fill(path, samples=2)
    assert not first.was_done
    assert fill(path, samples=2, temperature=1.0, seed=0, force=False).was_done
    with pytest.raises(OutputExistsError, match="`seed` was 0, not 1"):
        fill(path, samples=2, seed=1, force=False)
    record = read_json(first.output.with_name("f.fasta.meta.json"))
    assert (record["samples"], record["temperature"], record["seed"]) == (2, 1.0, 0)


def test_the_default_names_follow_the_input(fasta, tiny_model, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    path = fasta([("a", "MK?Y")])

    names = [
        score(path, ScoreOptions.from_values(model=tiny_model, fill=True, **options)).output.name
        for options in ({}, {"samples": 1})
    ]

    assert names == ["masked.filled.tsv", "masked.filled.fasta"]


def test_stdin_is_filled_in(fasta, tiny_model, give_stdin, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    give_stdin(b">a\nMK?Y\n")

    summary = score("-", ScoreOptions.from_values(model=tiny_model, fill=True, top=1))

    assert [row["id"] for row in rows_of(summary.output)] == ["a"]


@pytest.mark.promise(2)
@pytest.mark.parametrize("options", [{"top": 3}, {"samples": 3}])
def test_an_interrupted_run_is_resumed_and_gives_the_same_bytes(options, fill, fasta, masked, tmp_path, monkeypatch):
    monkeypatch.setattr("protembed.scoring.protein_job._CHUNKS_PER_GROUP", 1 / 10_000)
    monkeypatch.setattr("protembed.scoring.filling._DRAFTS_PER_ROUND", 2)
    path = fasta([*masked.items(), *masked.items()])  # each identifier twice

    def run(name, **callbacks):
        output = tmp_path / name / ("f.fasta" if "samples" in options else "f.tsv")
        return fill(path, Callbacks(**callbacks), **options, output=output, force=False)

    saved, expected, computed = [], [], []

    def interrupt(num_tokens):
        saved.append(num_tokens)
        if len(saved) == 4:
            raise KeyboardInterrupt

    run("whole", on_start=expected.append)
    with pytest.raises(KeyboardInterrupt):
        run("interrupted", on_progress=interrupt)
    assert [path.name for path in (tmp_path / "interrupted").iterdir()] == [f"{run('whole').output.name}.partial"]
    summary = run("interrupted", on_start=expected.append, on_computed=computed.append)

    assert sum(computed) <= expected[1] == expected[0] - sum(saved)
    for file in (tmp_path / "whole").iterdir():
        assert file.read_bytes() == (tmp_path / "interrupted" / file.name).read_bytes()
    assert (summary.num_proteins, len(list((tmp_path / "interrupted").iterdir()))) == (6, 2)


def test_a_repeated_sequence_is_computed_once_for_the_table(fill, fasta):
    computed = []

    summary = fill(fasta([("a", "MK?Y"), ("b", "MKT?"), ("c", "MK?Y")]), Callbacks(on_computed=computed.append))

    rows = rows_of(summary.output)
    assert sum(computed) == 2 * 6
    assert [list(row.values())[1:] for row in rows[:5]] == [list(row.values())[1:] for row in rows[10:]]


# What is rejected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"top": 3}, "top is 3, but it needs `fill`"),
        ({"samples": 3}, "samples is 3, but it needs `fill`"),
        ({"fill": True, "seed": 1}, "seed is 1, but it needs `samples`"),
        ({"fill": True, "temperature": 1.0}, "temperature is 1.0, but it needs `samples`"),
        ({"fill": True, "samples": 2, "top": 3}, "top is 3, but `samples` writes whole sequences"),
        ({"fill": True, "samples": 2, "temperature": -1.0}, "temperature is -1.0, but a value from 0 to 100"),
    ],
)
def test_options_that_do_not_fit_one_another_are_errors(values, message):
    with pytest.raises(ConfigError) as error:
        FillConfig(**values)

    assert str(error.value).startswith(message)


def test_a_table_cannot_be_filled_in_and_options_of_variants_do_not_fit(fasta, tmp_path):
    table = tmp_path / "variants.csv"
    table.write_text("mutant,sequence\nM1A,MKT\n")

    with pytest.raises(ConfigError, match=r"fill is True, but .*variants.csv is not FASTA"):
        score(table, ScoreOptions.from_values(fill=True))
    with pytest.raises(ConfigError, match="method is 'wildtype-marginals', but masked positions in FASTA"):
        score(fasta([("a", "M?")]), ScoreOptions.from_values(fill=True, method="wildtype-marginals"))
    with pytest.raises(ConfigError, match="mutations is 'm', but it is an option for a table of variants"):
        score(fasta([("a", "M?")]), ScoreOptions.from_values(fill=True, mutations="m"))


@pytest.mark.parametrize(
    ("options", "name", "message"),
    [
        ({}, "f.fasta", "without `samples` a table is written: name it .tsv or .csv"),
        ({}, "f.npz", "the table is text"),
        ({"samples": 1}, "f.tsv", "`samples` writes sequences: name it .fasta"),
    ],
)
def test_the_name_of_the_output_does_not_promise_another_format(options, name, message, fill, fasta, tmp_path):
    with pytest.raises(ConfigError, match=message):
        fill(fasta([("a", "MK?")]), output=tmp_path / name, **options)


def test_a_record_without_a_masked_position_is_an_error_or_is_listed(fill, fasta):
    path = fasta([("a", "MK?"), ("b", "MKT"), ("c", "?")])

    with pytest.raises(NoProteinError, match=r"line 3: record 'b' has no masked position, \? or <mask>"):
        fill(path)
    summary = fill(path, on_illegal="skip")
    assert [row["id"] for row in rows_of(summary.output)] == ["a"] * 5 + ["c"] * 5
    assert summary.num_refused == 1
    assert read_json(summary.output.with_name("f.tsv.meta.json"))["left_out"][0]["id"] == "b"


def test_a_file_in_which_no_record_has_a_masked_position_is_an_error_even_if_they_are_skipped(fill, fasta):
    with pytest.raises(FormatError, match=r"every record was left out.*write \? or <mask>"):
        fill(fasta([("a", "MKT"), ("b", "MKX")]), on_illegal="skip")


def test_an_illegal_character_a_missing_file_and_a_model_without_lm_head_are_errors(
    fill, fasta, tmp_path, tiny_checkpoint
):
    with pytest.raises(IllegalResidueError, match="line 2: '1' in column 4"):
        fill(fasta([("a", "MK?1")]))
    with pytest.raises(InputNotFoundError):
        fill(tmp_path / "missing.fasta")
    tiny_checkpoint.lm_head = None
    save_checkpoint(tiny_checkpoint, tmp_path / "headless", "# tiny\n")
    with pytest.raises(ModelFormatError):
        fill(fasta([("a", "MK?")]), model=tmp_path / "headless")


def test_proteins_with_many_masked_positions_are_warned_of(fill, fasta):
    warnings = fill(fasta([("a", "MK????AY"), ("b", "MKTAYIAKQ?")])).warnings

    assert [sentence for sentence in warnings if "masked in 1 protein" in sentence] != []


def test_offloaded_layers_give_the_same_bytes(fill, fasta, masked, tmp_path):
    path = fasta(masked.items())
    for options in ({}, {"samples": 2}):
        suffix = "fasta" if options else "tsv"
        first = fill(path, **options, output=tmp_path / f"a.{suffix}", offload="never")
        second = fill(path, **options, output=tmp_path / f"b.{suffix}", offload="always")
        assert first.output.read_bytes() == second.output.read_bytes()
