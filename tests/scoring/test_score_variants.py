import csv
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import spearmanr

from protembed.callbacks import Callbacks
from protembed.cli.score_messages import score_summary_lines
from protembed.config.common import ModelsConfig
from protembed.config.model_sizes import ESM2Shape, ESMCShape
from protembed.config.score import FORMULAS, ScoreConfig, ScoreOptions, VariantTableConfig
from protembed.data.alphabet import AMINO_ACIDS as CLASSES
from protembed.errors import (
    ConfigError,
    FaultyRowsError,
    InputNotFoundError,
    MismatchedResidueError,
    ModelFormatError,
    NotFiniteError,
    OutputExistsError,
    TableError,
)
from protembed.finetuning.finetune import finetune_model
from protembed.inference.engine import Engine
from protembed.io.reading import read_json, sha256_of_file
from protembed.model.catalog import locate_model
from protembed.model.checkpoint import load_checkpoint, new_checkpoint, save_checkpoint
from protembed.scoring.baselines import blosum62
from protembed.scoring.score import score as score_file
from protembed.scoring.score_variants import score_variants

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
METHODS = tuple(FORMULAS)
WINDOW = 64  # of `windowed_model`


@pytest.fixture(scope="module")
def wild_type(proteins):
    return proteins[3]


@pytest.fixture(scope="module")
def mutants(wild_type):
    """Two variants of a real protein with one mutation, one with three, and the wild type."""
    single = [f"{wild_type[position]}{position + 1}{letter}" for position, letter in ((0, "W"), (9, "C"), (55, "Y"))]
    return [single[0], single[2], ":".join(single), "WT"]


@pytest.fixture
def score(tmp_path, tiny_model, read_rows):
    """Write a table of variants, score it, and read the scores."""

    def run(content, *, model=tiny_model, table=None, **options):
        path, output = tmp_path / "variants.csv", tmp_path / "scores.tsv"
        path.write_text(content)
        summary = score_variants(
            path,
            ScoreOptions.from_values(model=model, output=output, force=True, threads=1, **table or {}, **options),
        )
        assert output.read_text().startswith(f"# {summary.score_column}: {summary.formula}\n")
        with output.open() as stream:
            next(stream)
            return summary, list(csv.DictReader(stream, delimiter="\t"))

    return run


def rows(wild_type, mutants):
    return "mutant,fitness,sequence\n" + "".join(f"{mutant},{len(mutant) / 8},{wild_type}\n" for mutant in mutants)


def scores_of(table):
    return [float(row["score"]) for row in table]


@pytest.mark.parametrize("method", METHODS)
def test_scores_equal_a_plain_computation_with_transformers(method, score, tiny_esm, wild_type, mutants, tmp_path):
    tiny_esm.save_pretrained(tmp_path / "esm")
    transformers = pytest.importorskip("transformers")
    (tmp_path / "vocab.txt").write_text(
        (Path(__file__).parents[2] / "protembed/bundled/protembed_t6_8M/vocab.txt").read_text()
    )
    tokenizer = transformers.EsmTokenizer(str(tmp_path / "vocab.txt"))
    classes = tokenizer.convert_tokens_to_ids(list(AMINO_ACIDS))

    def log_p(sequence, masked, position):
        letters = tokenizer(sequence, return_tensors="pt")["input_ids"]
        if masked:
            letters[0, position + 1] = tokenizer.mask_token_id
        with torch.no_grad():
            logits = tiny_esm(letters).logits[0, position + 1]
        return dict(zip(AMINO_ACIDS, logits[classes].log_softmax(0).tolist(), strict=True))

    def expected(mutant):
        mutations = [] if mutant == "WT" else [(name[0], int(name[1:-1]) - 1, name[-1]) for name in mutant.split(":")]
        mutated = list(wild_type)
        for _, position, letter in mutations:
            mutated[position] = letter
        if method == "pseudo-perplexity":
            sequences = ("".join(mutated), wild_type)
            after, before = (
                sum(log_p(sequence, True, position)[residue] for position, residue in enumerate(sequence))
                for sequence in sequences
            )
            return after - before
        is_masked = method == "masked-marginals"
        found = [(log_p(wild_type, is_masked, position), old, new) for old, position, new in mutations]
        return sum(values[new] - values[old] for values, old, new in found)

    _, table = score(rows(wild_type, mutants), model=tmp_path / "esm", method=method)

    scores = [expected(mutant) for mutant in mutants]
    # A pseudo-log-likelihood is a sum of 112 terms, each accurate to 1e-6.
    np.testing.assert_allclose(scores_of(table), scores, atol=1e-4 if method == "pseudo-perplexity" else 1e-5)
    assert np.ptp(scores) > 2e-3


@pytest.mark.parametrize("method", METHODS)
def test_rows_keep_their_order_and_columns_and_get_two_more(method, score, wild_type, mutants):
    summary, table = score(rows(wild_type, mutants), method=method)

    assert list(table[0]) == ["mutant", "fitness", "sequence", "num_mutations", "score"]
    assert [row["mutant"] for row in table] == mutants
    assert [row["fitness"] for row in table] == [str(len(mutant) / 8) for mutant in mutants]
    assert [row["num_mutations"] for row in table] == ["1", "1", "3", "0"]
    assert table[-1]["score"] == "0"
    assert (summary.num_variants, summary.num_wild_types, summary.num_positions) == (4, 1, 3)
    assert summary.method == method and FORMULAS[method] in summary.formula


def test_every_way_to_give_the_wild_type_gives_the_same_score(score, wild_type, mutants, tmp_path):
    fasta = tmp_path / "wild.fasta"
    fasta.write_text(f">wild\n{wild_type}\n")
    mutated = wild_type[:9] + "C" + wild_type[10:]
    mutant = f"{wild_type[9]}10C"
    tables = [
        (f"mutant\n{mutant}\n", {"wild_type": fasta}),
        (f"mutated_sequence\n{mutated}\n", {"wild_type": fasta}),
        (f"mutant,mutated_sequence\n{mutant},{mutated}\n", None),
        (f"sequence,mutated_sequence\n{wild_type},{mutated}\n", None),
    ]

    scores = [scores_of(score(content, table=table)[1]) for content, table in tables]

    assert scores[0] != [0.0]
    assert scores == [scores[0]] * 4


def test_variants_of_several_wild_types_can_be_in_one_table(score, proteins, tmp_path):
    fasta = tmp_path / "wild.fasta"
    fasta.write_text(f">a\n{proteins[3]}\n>b\n{proteins[4]}\n")
    ids = "id,mutant\n" + "".join(
        f"{name},{protein[1]}2W\n" for name, protein in zip("abab", proteins[3:5] * 2, strict=True)
    )

    summary, table = score(ids, table={"wild_type": fasta})

    alone = [scores_of(score(rows(protein, [f"{protein[1]}2W"]))[1])[0] for protein in proteins[3:5]]
    np.testing.assert_allclose(scores_of(table), alone * 2, rtol=1e-5)
    assert summary.num_wild_types == 2


def test_a_wild_type_of_nucleotides_is_scored_with_a_warning(score, tmp_path):
    gene, fasta = "ATGAAAACCGCGTATATTGCG", tmp_path / "gene.fasta"
    fasta.write_text(f">gene\n{gene}\n")

    in_a_file, _ = score("mutant\nT2A\nA4C\n", table={"wild_type": fasta})
    in_a_column, _ = score(f"mutant,sequence\nT2A,{gene}\nA4C,{gene}\n")

    for summary in (in_a_file, in_a_column):
        assert summary.warnings == ["sequences like nucleotides in 1 record; protembed reads them as proteins"]


def test_an_input_column_named_score_is_kept_and_the_new_one_gets_a_prefix(score, wild_type):
    summary, table = score(f"mutant,score,sequence\n{wild_type[1]}2W,0.5,{wild_type}\n")

    assert summary.score_column == "protembed_score"
    assert table[0]["score"] == "0.5" and float(table[0]["protembed_score"]) != 0
    assert summary.warnings == ["the table already has a column 'score': the new one is 'protembed_score'"]
    with pytest.raises(TableError, match="the table already has a column 'protembed_score'"):
        score(f"mutant,score,protembed_score,sequence\nWT,1,1,{wild_type}\n")


def test_scores_are_a_csv_if_the_name_of_the_output_says_so(tiny_model, wild_type, mutants, tmp_path):
    path, options = tmp_path / "variants.csv", {"model": tiny_model, "threads": 1}
    path.write_text(f'mutant,note,sequence\n{mutants[0]},"a, ""b""",{wild_type}\n')

    for name in ("scores.tsv", "scores.csv"):
        score_variants(path, ScoreOptions.from_values(output=tmp_path / name, **options))

    as_tsv, as_csv = (
        list(csv.reader((tmp_path / name).read_text().splitlines()[1:], delimiter=delimiter, quoting=quoting))
        for name, delimiter, quoting in (("scores.tsv", "\t", csv.QUOTE_NONE), ("scores.csv", ",", csv.QUOTE_MINIMAL))
    )
    assert as_csv == as_tsv
    assert as_csv[1][:2] == [mutants[0], 'a, "b"']


def test_a_table_of_scores_can_be_scored_again(score, wild_type, mutants, tmp_path):
    _, first = score(rows(wild_type, mutants))

    _, second = score((tmp_path / "scores.tsv").read_text(), method="wildtype-marginals")

    assert [row["score"] for row in second] == [row["score"] for row in first]
    assert [row["protembed_score"] for row in second] != [row["score"] for row in first]


def test_cells_that_a_spreadsheet_would_execute_are_escaped(score, wild_type):
    _, table = score(f"mutant,note,sequence\nWT,=cmd(),{wild_type}\n")

    assert table[0]["note"] == "'=cmd()"


def test_long_proteins_are_scored_in_windows_of_the_model(score, windowed_model, tiny_model, proteins):
    protein = proteins[1]
    content = rows(protein, [f"{protein[position]}{position + 1}W" for position in (2, 30, 200, len(protein) - 2)])

    windowed, chosen, whole = (
        scores_of(score(content, model=model, window_residues=window_residues)[1])
        for model, window_residues in ((windowed_model, None), (tiny_model, WINDOW), (windowed_model, len(protein)))
    )

    assert windowed == chosen
    assert whole == scores_of(score(content)[1])
    assert all(score != of_whole for score, of_whole in zip(windowed, whole, strict=True))


def test_the_number_of_threads_does_not_change_the_table(tiny_model, wild_type, mutants, tmp_path):
    (tmp_path / "variants.csv").write_text(rows(wild_type, mutants * 5))
    written = []
    for threads in (1, 3):
        output = tmp_path / f"{threads}.tsv"
        score_variants(
            tmp_path / "variants.csv",
            ScoreOptions.from_values(model=tiny_model, output=output, threads=threads),
        )
        written.append(output.read_bytes())

    assert written[0] == written[1]


def test_variants_from_stdin_can_be_read_twice(give_stdin, tiny_model, wild_type, mutants, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    give_stdin(rows(wild_type, mutants).encode())

    summary = score_variants(Path("-"), ScoreOptions.from_values(model=tiny_model))

    assert summary.output == Path("stdin.scores.tsv")
    assert Path("stdin.scores.tsv").read_text().count("\n") == len(mutants) + 2


def test_all_faults_of_a_table_are_reported_at_once(score, wild_type, tmp_path):
    other = "A" if wild_type[1] != "A" else "C"
    content = rows(wild_type, [f"{other}2W", "WT", "A2del", ""]).replace("A2del,0.625", "A2del") + "WT,1,MK?\n"

    with pytest.raises(FaultyRowsError) as caught:
        score(content)

    assert caught.value.num_errors == 4
    assert [error.line for error in caught.value.errors] == [2, 4, 5, 6]
    assert re.search(f"4 faults: line 2: {other}2W does not fit, .*; line 4: this row has 2 cells", str(caught.value))
    assert [path.name for path in tmp_path.iterdir()] == ["variants.csv"]


def test_a_table_of_excel_is_scored_with_a_note(score, wild_type, mutants):
    usual, of_commas = score(rows(wild_type, mutants))
    noted, of_semicolons = score("Variants of the first round\n\n" + rows(wild_type, mutants).replace(",", ";"))

    assert of_semicolons == of_commas
    assert (usual.notes, noted.notes) == ((), ["read the table with semicolons, its header in line 3"])


def test_an_invalid_row_leaves_no_partial_file_and_keeps_the_existing_table(score, wild_type, tmp_path):
    (tmp_path / "scores.tsv").write_text("precious")

    with pytest.raises(MismatchedResidueError, match=r"variants.csv, line 3: "):
        score(rows(wild_type, ["WT", f"{'A' if wild_type[1] != 'A' else 'C'}2W"]))

    assert (tmp_path / "scores.tsv").read_text() == "precious"
    assert {path.name for path in tmp_path.iterdir()} == {"variants.csv", "scores.tsv"}


def test_rows_that_cannot_be_scored_are_skipped_on_request_with_a_warning(score, wild_type):
    summary, table = score(rows(wild_type, ["WT", "A2fs"]), on_illegal="skip")

    assert [row["mutant"] for row in table] == ["WT"]
    assert (summary.num_variants, summary.num_refused) == (1, 1)
    assert (
        "1 record left out, the first: '2' ('A2fs' is a frameshift, whose new residues are unknown)" in summary.warnings
    )


def test_rows_that_were_left_out_on_request_are_listed_in_the_record(tiny_model, wild_type, tmp_path):
    (tmp_path / "variants.csv").write_text(rows(wild_type, ["WT", "A2fs"]))
    output = tmp_path / "scores.tsv"

    options = ScoreOptions.from_values(model=tiny_model, output=output, on_illegal="skip")
    score_variants(tmp_path / "variants.csv", options)

    (left_out,) = read_json(tmp_path / "scores.tsv.meta.json")["left_out"]
    reason = "'A2fs' is a frameshift, whose new residues are unknown"
    assert left_out == {"id": "2", "file": "variants.csv", "line": 3, "reason": reason}


def test_an_existing_table_needs_force_and_an_input_is_never_overwritten(tiny_model, wild_type, tmp_path):
    path, output = tmp_path / "variants.csv", tmp_path / "scores.tsv"
    path.write_text(rows(wild_type, ["WT"]))
    output.write_text("precious")

    for config in (ScoreConfig(output=output), ScoreConfig(output=path, force=True)):
        with pytest.raises(OutputExistsError):
            score_variants(path, ScoreOptions(model=ModelsConfig(model=tiny_model), scoring=config))

    assert output.read_text() == "precious"
    assert path.read_text() == rows(wild_type, ["WT"])


def test_the_same_scores_are_done_and_not_computed_again(tiny_model, wild_type, mutants, tmp_path, monkeypatch):
    path, table = tmp_path / "variants.csv", tmp_path / "scores.tsv"
    path.write_text(rows(wild_type, mutants))
    options = ScoreOptions.from_values(model=tiny_model, output=table)
    first = score_variants(path, options)
    made = (table.read_bytes(), table.stat().st_mtime_ns)
    monkeypatch.setattr(Engine, "run", lambda *_: pytest.fail("it was computed"))

    again = score_variants(path, options)

    assert (first.was_done, again.was_done) == (False, True)
    assert replace(again, was_done=False) == first
    assert (table.read_bytes(), table.stat().st_mtime_ns) == made


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"method": "wildtype-marginals"}, "`method` was masked-marginals, not wildtype-marginals"),
        ({"window_residues": 50}, "`window_residues` was 1022, not 50"),
        ({"position_offset": 1}, "`position_offset` was 0, not 1"),
    ],
)
def test_scores_with_other_settings_say_so_and_are_made_with_force(tiny_model, wild_type, tmp_path, changed, found):
    path, values = tmp_path / "variants.csv", {"model": tiny_model, "output": tmp_path / "scores.tsv"}
    path.write_text(rows(wild_type, ["WT"]))
    score_variants(path, ScoreOptions.from_values(**values))

    with pytest.raises(OutputExistsError, match=rf"was made with other settings \({found}\)"):
        score_variants(path, ScoreOptions.from_values(**values, **changed))

    assert not score_variants(path, ScoreOptions.from_values(**values, **changed, force=True)).was_done


def test_scores_of_another_table_are_not_overwritten(tiny_model, wild_type, tmp_path):
    path, options = tmp_path / "variants.csv", ScoreOptions.from_values(model=tiny_model, output=tmp_path / "s.tsv")
    path.write_text(rows(wild_type, ["WT"]))
    score_variants(path, options)
    path.write_text(rows(wild_type, ["WT", "WT"]))

    with pytest.raises(OutputExistsError, match=r"was made with other settings \(the input differs\)"):
        score_variants(path, options)


def test_scores_record_their_model_their_input_and_their_settings(tiny_model, wild_type, tmp_path):
    (tmp_path / "variants.csv").write_text(rows(wild_type, ["WT"]))
    output = tmp_path / "scores.tsv"
    score_variants(tmp_path / "variants.csv", ScoreOptions.from_values(model=tiny_model, output=output))

    recorded = read_json(tmp_path / "scores.tsv.meta.json")

    assert recorded["model_sha256"] == locate_model(tiny_model).sha256()
    assert recorded["sha256"] == sha256_of_file(output)
    assert {"protembed_version", "input_sha256", "method", "on_illegal", "num_variants"} <= recorded.keys()
    assert str(tmp_path) not in (tmp_path / "scores.tsv.meta.json").read_text()


def test_missing_files_are_reported_by_name(tiny_model, tmp_path):
    model, output = ModelsConfig(model=tiny_model), ScoreConfig(output=tmp_path / "scores.tsv")
    (tmp_path / "variants.csv").write_text("mutant\nWT\n")

    with pytest.raises(InputNotFoundError, match="missing.csv"):
        score_variants(tmp_path / "missing.csv", ScoreOptions(model=model, scoring=output))
    with pytest.raises(InputNotFoundError, match=r"missing\.fasta"):
        table = VariantTableConfig(wild_type=tmp_path / "missing.fasta")
        score_variants(tmp_path / "variants.csv", ScoreOptions(model=model, table=table, scoring=output))


def test_a_fine_tuned_model_scores_with_a_warning(
    score, labelled_tables, tiny_model, finetune_options, wild_type, mutants, tmp_path
):
    finetune_model(
        labelled_tables / "regression.csv",
        finetune_options(tmp_path / "full.model", tiny_model, method="full", epochs=1),
    )
    finetune_model(
        labelled_tables / "regression.csv", finetune_options(tmp_path / "frozen.model", tiny_model, method="frozen")
    )

    finetune_model(
        labelled_tables / "regression.csv",
        finetune_options(tmp_path / "refrozen.model", tmp_path / "full.model", method="frozen"),
    )

    full, _ = score(rows(wild_type, mutants), model=tmp_path / "full.model")
    refrozen, _ = score(rows(wild_type, mutants), model=tmp_path / "refrozen.model")
    frozen, table = score(rows(wild_type, mutants), model=tmp_path / "frozen.model")

    for summary in (full, refrozen):
        assert "fine-tuned without its masked-LM head; use the original model" in summary.warnings[0]
    assert frozen.warnings == []
    assert table == score(rows(wild_type, mutants))[1]


def test_a_model_without_a_masked_lm_head_is_rejected(score, tiny_model, wild_type, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "headless")
    weights = load_file(tiny_model / "model.safetensors")
    headless = {name: value for name, value in weights.items() if not name.startswith("lm_head")}
    save_file(headless, tmp_path / "headless" / "model.safetensors")

    with pytest.raises(ModelFormatError, match="the weights have no lm_head"):
        score(rows(wild_type, ["WT"]), model=tmp_path / "headless")


def test_scores_that_are_not_finite_are_not_written(score, tiny_model, wild_type, mutants, tmp_path):
    checkpoint = load_checkpoint(tiny_model)
    with torch.no_grad():
        checkpoint.lm_head.dense.weight.fill_(3e38)  # finite, but products with it overflow
    save_checkpoint(checkpoint, tmp_path / "broken", "# broken\n")

    with pytest.raises(NotFiniteError, match=f"the score of '{mutants[0]}' is not finite .*the model itself is"):
        score(rows(wild_type, mutants), model=tmp_path / "broken")
    assert not (tmp_path / "scores.tsv").exists()


# Insertions and deletions


def test_a_deletion_and_its_mutated_sequence_have_the_score_of_whole_sequences(score, wild_type):
    deleted = wild_type[:9] + wild_type[12:]
    name = f"{wild_type[9]}10_{wild_type[11]}12del"
    substitution = f"{wild_type[1]}2W"

    named, by_name = score(rows(wild_type, [substitution, name]))
    _, alike = score(rows(wild_type, [substitution, name]), method="pseudo-perplexity")
    sequences = f"sequence,mutated_sequence\n{wild_type},{deleted}\n"
    _, by_sequence = score(sequences)

    assert list(by_name[0])[-3:] == ["num_mutations", "score", "score_per_residue"]
    assert float(by_name[1]["score"]) == pytest.approx(float(by_sequence[0]["score"]), abs=1e-4)
    assert float(by_name[1]["score_per_residue"]) == pytest.approx(float(by_sequence[0]["score_per_residue"]), abs=1e-6)
    assert (by_name[0]["score_per_residue"], by_sequence[0]["num_mutations"]) == ("", "")
    assert alike[1]["score"] == by_name[1]["score"] and alike[0]["score_per_residue"]
    assert named.num_with_indels == 1
    assert "every residue adds its log probability" in named.warnings[0]
    assert "rank the two apart, or score all variants alike by the method pseudo-perplexity" in named.warnings[1]


def test_an_insertion_equals_a_plain_computation_with_transformers(plain_model, score, wild_type):
    inserted = wild_type[:20] + "RSW" + wild_type[20:]

    _, (row,) = score(rows(wild_type, [f"p.{wild_type[19]}20_{wild_type[20]}21insRSW"]), model=plain_model.directory)

    after, before = (
        sum(plain_model.log_probs(sequence, index)[CLASSES.index(letter)] for index, letter in enumerate(sequence))
        for sequence in (inserted, wild_type)
    )
    assert float(row["score"]) == pytest.approx(after - before, abs=1e-4)
    expected = after / len(inserted) - before / len(wild_type)
    assert float(row["score_per_residue"]) == pytest.approx(expected, abs=1e-5)


def test_a_table_without_indels_has_no_column_per_residue(score, wild_type, mutants):
    summary, table = score(rows(wild_type, mutants), method="pseudo-perplexity")

    assert "score_per_residue" not in table[0] and summary.num_with_indels == 0
    assert "insertions" not in summary.formula


def test_stop_codons_and_frameshifts_are_listed_as_left_out(score, wild_type, tmp_path):
    names = [f"{wild_type[1]}2del", f"{wild_type[2]}3fs", f"{wild_type[3]}4*"]

    summary, table = score(rows(wild_type, names), on_illegal="skip")

    assert (len(table), summary.num_refused) == (1, 2)
    reasons = [row["reason"] for row in read_json(tmp_path / "scores.tsv.meta.json")["left_out"]]
    assert ["frameshift" in reasons[0], "stop codon" in reasons[1]] == [True, True]


# Several models


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Three models of different architectures and windows, on disk; two have the same folder name."""
    shapes = {
        "a/one": ESM2Shape(num_layers=2, dim=32, num_heads=4),
        "b/one": ESM2Shape(num_layers=1, dim=32, num_heads=4, num_positions=34),
        "c": ESMCShape(num_layers=2, dim=64, num_heads=4),
    }
    top = tmp_path_factory.mktemp("models")
    for seed, (name, shape) in enumerate(shapes.items()):
        save_checkpoint(new_checkpoint(shape, "uniform", seed), top / name, "# card\n")
    return [top / name for name in shapes]


def test_several_models_have_a_column_each_and_their_mean(score, models, wild_type, mutants):
    content = rows(wild_type, [*mutants, f"{wild_type[4]}5del"])
    alone = [score(content, model=model)[1] for model in models]

    summary, table = score(content, model=models)

    columns = ["score_one", "score_one_2", "score_c"]
    assert list(table[0])[-6:] == ["num_mutations", "score", "score_per_residue", *columns]
    for column, rows_of_one in zip(columns, alone, strict=True):
        assert [row[column] for row in table] == [row["score"] for row in rows_of_one]
    for column in ("score", "score_per_residue"):
        means = [
            float(np.mean([float(row[column] or "nan") for row in of_each])) for of_each in zip(*alone, strict=True)
        ]
        np.testing.assert_allclose([float(row[column] or "nan") for row in table], means, rtol=1e-5)
    assert list(summary.models) == ["one", "one", "c"]
    assert summary.formula.startswith("mean over 3 models of masked-marginals, ")


def test_the_same_command_with_several_models_is_done_and_another_model_is_refused(
    models, wild_type, mutants, tmp_path
):
    path, output = tmp_path / "variants.csv", tmp_path / "scores.tsv"
    path.write_text(rows(wild_type, mutants))

    def run(*named):
        return score_variants(path, ScoreOptions.from_values(model=list(named), output=output, threads=1))

    assert not run(*models[:2]).was_done
    assert run(*models[:2]).was_done and run(*models[:2]).formula.startswith("mean over 2")
    for named in (models[:1], models, [models[0], models[2]], models[1::-1]):
        with pytest.raises(OutputExistsError, match="the model differs|the model was"):
            run(*named)


def test_progress_with_several_models_counts_the_tokens_of_all(models, wild_type, mutants, tmp_path):
    path, expected, computed = tmp_path / "variants.csv", [], []
    path.write_text(rows(wild_type, mutants))

    options = ScoreOptions.from_values(model=models, output=tmp_path / "scores.tsv", threads=1)
    score_variants(path, options, Callbacks(on_start=expected.append, on_progress=computed.append))

    assert expected == [sum(computed)]


def test_the_same_model_twice_or_another_vocabulary_is_an_error_before_any_work(models, wild_type, tmp_path):
    path = tmp_path / "variants.csv"
    path.write_text(rows(wild_type, ["WT"]))
    other = tmp_path / "other"
    shutil.copytree(models[2], other)
    (other / "vocab.txt").write_text("<cls>\n<pad>\n<eos>\n<unk>\nA\n")

    def run(*named):
        score_variants(path, ScoreOptions.from_values(model=list(named), output=tmp_path / "scores.tsv"))

    with pytest.raises(ConfigError, match="the same model is given twice"):
        run(models[0], models[1], models[0])
    with pytest.raises(ModelFormatError, match="token 4 is 'A', in ESM-C 'L'"):
        run(models[0], other)
    assert not (tmp_path / "scores.tsv").exists()


def test_several_models_are_for_tables_of_variants_only(models, tmp_path):
    (tmp_path / "one.fasta").write_text(">a\nMKTAYI\n")

    with pytest.raises(ConfigError, match="several models score tables of variants only: give one"):
        score_file(tmp_path / "one.fasta", ScoreOptions.from_values(model=models))


# Measurements


@pytest.fixture(scope="module")
def scan(wild_type):
    """Names of five substitutions at each of 20 positions, and a measured value of each."""
    names = [
        f"{wild_type[position]}{position + 1}{letter}"
        for position in range(20)
        for letter in "GAVLW"
        if wild_type[position] != letter
    ]
    return dict(zip(names, np.random.default_rng(0).normal(size=len(names)).tolist(), strict=True))


def measured_rows(wild_type, values, column="DMS_score"):
    return f"mutant,{column},sequence\n" + "".join(f"{name},{value},{wild_type}\n" for name, value in values.items())


def test_measured_values_are_compared_with_the_scores_and_baselines(score, wild_type, scan, tmp_path):
    summary, table = score(measured_rows(wild_type, scan))

    (comparison,) = summary.comparisons
    assert (comparison.column, comparison.num_variants, comparison.num_groups) == ("DMS_score", len(scan), 20)
    assert list(comparison.spearman) == ["score", "BLOSUM62", "position-independent"]
    expected = spearmanr(list(scan.values()), scores_of(table)).statistic
    assert comparison.spearman["score"].value == pytest.approx(expected, abs=1e-3)
    assert comparison.spearman["score"].low < expected < comparison.spearman["score"].high
    assert read_json(tmp_path / "scores.tsv.meta.json")["comparisons"] == [comparison.as_record()]


@pytest.mark.parametrize("method", METHODS)
def test_scores_as_measurements_are_found_and_beat_blosum62(method, score, wild_type, scan):
    _, table = score(measured_rows(wild_type, scan), method=method)
    values = dict(zip(scan, scores_of(table), strict=True))

    summary, _ = score(measured_rows(wild_type, values, "mine"), table={"measured_column": "mine"}, method=method)

    (comparison,) = summary.comparisons
    assert comparison.spearman["score"].value == pytest.approx(1, abs=1e-3)
    lines = list(score_summary_lines(summary))
    assert "Spearman with 'mine' (" in lines[1] and "score 1.000, BLOSUM62" in lines[1]
    assert lines[2].startswith("the model ranks these variants better than BLOSUM62: Spearman +")


def test_blosum62_as_measurement_is_said_to_be_better_than_the_model(score, wild_type, scan):
    matrix = blosum62()
    values = {name: matrix[CLASSES.index(name[0]), CLASSES.index(name[-1])] for name in scan}

    summary, _ = score(measured_rows(wild_type, values))

    assert "the model is no better than BLOSUM62 here" in "\n".join(score_summary_lines(summary))


def test_position_independent_scores_are_the_means_of_a_scan(score, wild_type):
    scan = [f"{old}{position}{new}" for position, old in enumerate(wild_type, 1) for new in CLASSES if new != old]
    _, table = score(rows(wild_type, scan))
    of_pair = dict[str, list[float]]()
    for name, value in zip(scan, scores_of(table), strict=True):
        of_pair.setdefault(name[0] + name[-1], []).append(value)
    values = {name: np.mean(of_pair[name[0] + name[-1]]) for name in scan}

    summary, _ = score(measured_rows(wild_type, values))

    assert summary.comparisons[0].spearman["position-independent"].value == pytest.approx(1, abs=1e-4)


def test_several_models_are_each_compared(score, models, wild_type, scan):
    summary, _ = score(measured_rows(wild_type, scan), model=models[:2])

    names = ["score", "score_one", "score_one_2", "BLOSUM62", "position-independent"]
    assert list(summary.comparisons[0].spearman) == names


def test_insertions_and_deletions_are_compared_by_themselves(score, wild_type, scan):
    deletions = {f"{wild_type[position]}{position + 1}del": position / 7 for position in range(0, 30, 2)}

    summary, table = score(measured_rows(wild_type, {**scan, **deletions}))

    substitutions, indels = summary.comparisons
    assert (substitutions.kind, indels.kind) == ("substitutions", "insertions and deletions")
    assert list(indels.spearman) == ["score", "score_per_residue"] and not indels.differences
    found = [float(row["score_per_residue"]) for row in table[len(scan) :]]
    expected = spearmanr(list(deletions.values()), found).statistic
    assert indels.spearman["score_per_residue"].value == pytest.approx(expected, abs=1e-3)


def test_missing_and_unreadable_measurements_are_left_out_with_a_warning(score, wild_type, scan):
    names = list(scan)
    values = {**scan, names[0]: "", names[1]: "NA", names[2]: "inf", names[3]: "high"}

    summary, _ = score(measured_rows(wild_type, values))

    assert summary.comparisons[0].num_variants == len(scan) - 4
    assert any("1 value of 'DMS_score' cannot be read as a number" in warning for warning in summary.warnings)


def test_measurements_that_are_no_numbers_are_an_error_if_the_user_named_them(score, wild_type, scan):
    content = measured_rows(wild_type, dict.fromkeys(scan, "high"))

    with pytest.raises(TableError, match="the column 'DMS_score' has no number; name a column of measured values"):
        score(content, table={"measured_column": "DMS_score"})
    with pytest.raises(TableError, match="'fitness'"):
        score(content, table={"measured_column": "fitness"})
    assert not score(content)[0].comparisons


def test_a_table_without_measurements_has_no_comparison(score, wild_type, mutants):
    assert not score(rows(wild_type, mutants))[0].comparisons


def test_measurements_of_several_wild_types_are_compared_with_a_warning(score, proteins):
    content = "mutant,DMS_score,sequence\n" + "".join(
        f"{protein[position]}{position + 1}{'W' if protein[position] != 'W' else 'A'},{position},{protein}\n"
        for protein in proteins[3:5]
        for position in range(12)
    )

    summary, _ = score(content)

    assert summary.comparisons[0].num_groups == 24
    assert any("the measurements of 2 wild types are compared together" in warning for warning in summary.warnings)
