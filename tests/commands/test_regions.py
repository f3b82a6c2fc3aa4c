import json
import random
from dataclasses import replace

import numpy as np
import pytest

from protembed.config.common import ModelConfig
from protembed.config.embed import CheckConfig, EmbedConfig
from protembed.config.finetune import LabelTableConfig, PredictConfig
from protembed.embedding.check import check_embeddings
from protembed.embedding.embed import embed_fasta
from protembed.embedding.metadata import IDS, META, sidecar
from protembed.errors import OutputExistsError, TooShortError
from protembed.finetuning.finetune import finetune_model
from protembed.finetuning.predict import predict_fasta
from protembed.model.checkpoint import load_checkpoint, save_checkpoint

PARITY = {"rtol": 1e-5, "atol": 1e-5}


def standard(sequence):
    """Replace residues that readers would warn of."""
    return sequence.replace("X", "A").replace("B", "D")


@pytest.fixture(scope="module")
def pieces(proteins):
    """The first 70 residues of those of the forty proteins that are as long."""
    return [standard(protein[:70]) for protein in proteins if len(protein) >= 70]


@pytest.fixture(scope="module")
def fasta_of_pieces(pieces, tmp_path_factory):
    path = tmp_path_factory.mktemp("inputs") / "pieces.fasta"
    path.write_text("".join(f">p{row}\n{piece}\n" for row, piece in enumerate(pieces)))
    return path


@pytest.fixture(scope="module")
def fasta_of_longer(pieces, proteins, tmp_path_factory):
    """The same pieces, with 200 residues of other proteins appended to each."""
    rng, letters = random.Random(0), standard("".join(proteins))
    path = tmp_path_factory.mktemp("inputs") / "longer.fasta"
    starts = [rng.randrange(len(letters) - 200) for _ in pieces]
    records = [f">p{row}\n{piece}{letters[starts[row] :][:200]}\n" for row, piece in enumerate(pieces)]
    path.write_text("".join(records))
    return path


@pytest.fixture(scope="module")
def models(tables, tiny_model, options, tmp_path_factory):
    """Of each of two tasks a model of the residues 1 to 70 of each protein."""
    folder, made = tmp_path_factory.mktemp("models"), {}
    for task in ("classification", "residue-classification"):
        made[task] = folder / f"{task}.model"
        settings = options(made[task], tiny_model, method="frozen", labels={"region": "1-70"})
        finetune_model(tables / f"{task}.csv", settings)
    return made


@pytest.fixture
def predict(rows_of, tmp_path):
    """Predict into a table; return its rows and the summary."""

    def run(fasta, model, **settings):
        output = tmp_path / f"{len(list(tmp_path.iterdir()))}.tsv"
        summary = predict_fasta([fasta], ModelConfig(model=model), PredictConfig(output=output, **settings))
        return rows_of(output), summary

    return run


def probabilities(rows):
    return np.array([[float(value) for name, value in row.items() if name.startswith("p_")] for row in rows])


def test_the_region_of_the_training_is_recorded_and_used_by_predict(models, fasta_of_pieces, fasta_of_longer, predict):
    record = load_checkpoint(models["classification"]).metadata
    of_pieces, _ = predict(fasta_of_pieces, models["classification"], region="all")
    of_longer, summary = predict(fasta_of_longer, models["classification"])

    assert (record.region, record.training_data.longest) == ("1-70", 70)
    assert (summary.region, summary.warnings) == ("1-70", [])
    assert [(row["first_residue"], row["last_residue"]) for row in of_longer] == [("1", "70")] * len(of_pieces)
    assert [row["prediction"] for row in of_longer] == [row["prediction"] for row in of_pieces]
    np.testing.assert_allclose(probabilities(of_longer), probabilities(of_pieces), **PARITY)


def test_whole_proteins_have_other_predictions_and_a_warning_that_counts_them(models, fasta_of_longer, predict):
    cut, _ = predict(fasta_of_longer, models["classification"])
    whole, summary = predict(fasta_of_longer, models["classification"], region="all")

    assert summary.region is None
    assert "first_residue" not in whole[0]
    assert np.abs(probabilities(whole) - probabilities(cut)).max() > 1e-3
    region, longer = summary.warnings
    assert "trained on residues 1-70 of each protein, and is applied to whole proteins" in region
    assert longer.startswith(f"{len(whole)} of {len(whole)} proteins are longer than the longest")


def test_labels_of_residues_are_learned_and_predicted_in_the_region(models, fasta_of_longer, predict):
    rows, summary = predict(fasta_of_longer, models["residue-classification"], region="5-60")

    assert summary.region == "5-60"
    assert {len(row["prediction"]) for row in rows} == {56}
    assert (
        sum(load_checkpoint(models["residue-classification"]).metadata.training_data.class_counts.values()) <= 24 * 70
    )


def test_a_model_of_pieces_without_a_region_tells_which_region_to_use(
    tables, tiny_model, options, tmp_path, rows_of, fasta_of_longer, predict
):
    lines = [
        f"{row['id']},M{row['sequence'][1:50]},{row['label']},{row['split']}"
        for row in rows_of(tables / "classification.csv", ",")
        if len(row["sequence"]) >= 50
    ]
    (tmp_path / "pieces.csv").write_text("\n".join(["id,sequence,label,split", *lines]) + "\n")
    finetune_model(tmp_path / "pieces.csv", options(tmp_path / "x.model", tiny_model, method="frozen"))

    _, summary = predict(fasta_of_longer, tmp_path / "x.model")
    _, with_region = predict(fasta_of_longer, tmp_path / "x.model", region="1-50")

    assert any(
        sentence.endswith("(50 residues); it was never tested on such proteins: use --region 1-50")
        for sentence in summary.warnings
    )
    assert not any("longer" in sentence for sentence in with_region.warnings)


def test_no_model_warns_of_its_own_test_proteins(tables, tiny_model, options, tmp_path, rows_of, predict):
    for task in ("multilabel", "regression"):
        test = [row for row in rows_of(tables / f"{task}.csv", ",") if row["split"] == "test"]
        (tmp_path / "test.fasta").write_text("".join(f">{row['id']}\n{row['sequence']}\n" for row in test))
        finetune_model(tables / f"{task}.csv", options(tmp_path / f"{task}.model", tiny_model, method="frozen"))

        _, summary = predict(tmp_path / "test.fasta", tmp_path / f"{task}.model")

        assert [sentence for sentence in summary.warnings if not sentence.startswith("non-standard")] == []


def test_a_model_of_an_older_protembed_still_predicts_and_its_training_is_said_to_be_unknown(
    models, fasta_of_pieces, predict, tmp_path
):
    older = load_checkpoint(models["classification"])
    older.metadata, older.training_kmers = replace(older.metadata, region=None, training_data=None), None
    save_checkpoint(older, tmp_path / "older.model", "# older\n")

    rows, summary = predict(fasta_of_pieces, tmp_path / "older.model")
    same, _ = predict(fasta_of_pieces, models["classification"])

    assert json.loads((tmp_path / "older.model/protembed.json").read_text())["format_version"] == 1
    assert [row["prediction"] for row in rows] == [row["prediction"] for row in same]
    (sentence,) = summary.warnings
    assert "does not record its training proteins" in sentence


def test_predict_stops_at_a_protein_that_ends_before_the_region_and_leaves_no_table(models, proteins_fasta, tmp_path):
    config = PredictConfig(output=tmp_path / "p.tsv", region="400-")

    with pytest.raises(TooShortError, match="--region begins at residue 400"):
        predict_fasta([proteins_fasta], ModelConfig(model=models["classification"]), config)

    assert list(tmp_path.iterdir()) == []


def test_a_table_cut_to_a_region_has_its_labels_cut(models):
    settings = json.loads((models["classification"] / "protembed.json").read_text())

    assert (settings["format_version"], settings["region"]) == (2, "1-70")
    assert settings["configuration"]["region"] == "1-70"
    assert LabelTableConfig().region == "all"


# Embed


@pytest.fixture
def embed(tmp_path):
    def run(fasta, model, name, **settings):
        output = tmp_path / name
        return output, embed_fasta([fasta], ModelConfig(model=model), EmbedConfig(output=output, **settings))

    return run


@pytest.mark.parametrize("per_residue", [False, True])
def test_embedding_a_region_is_embedding_the_pieces(tiny_model, fasta_of_pieces, fasta_of_longer, embed, per_residue):
    suffix = "npz" if per_residue else "npy"
    pieces, _ = embed(fasta_of_pieces, tiny_model, f"pieces.{suffix}", per_residue=per_residue)
    region, summary = embed(fasta_of_longer, tiny_model, f"region.{suffix}", per_residue=per_residue, region="-70")

    one, other = (np.load(path) for path in (pieces, region))
    if per_residue:
        np.testing.assert_array_equal(one["offsets"], other["offsets"])
        one, other = one["embeddings"], other["embeddings"]
    np.testing.assert_allclose(one, other, **PARITY)
    assert (summary.region, summary.warnings) == ("1-70", [])
    assert sidecar(region, IDS).read_text() == sidecar(pieces, IDS).read_text()


def test_a_result_of_a_region_says_so_and_is_verified_against_the_whole_proteins(tiny_model, fasta_of_longer, embed):
    output, summary = embed(fasta_of_longer, tiny_model, "region.npy", region="11-70")

    checked = check_embeddings([output, fasta_of_longer], ModelConfig(model=tiny_model), CheckConfig())

    assert json.loads(sidecar(output, META).read_text())["region"] == "11-70"
    assert checked.num_residues == summary.num_residues == 60 * summary.num_proteins


def test_results_of_different_regions_are_not_taken_for_one_another(tiny_model, fasta_of_longer, embed):
    embed(fasta_of_longer, tiny_model, "region.npy", region="1-70")
    embed(fasta_of_longer, tiny_model, "whole.npy")

    assert embed(fasta_of_longer, tiny_model, "region.npy", region="-70")[1].was_done
    for name, settings in (("region.npy", {}), ("region.npy", {"region": "1-71"}), ("whole.npy", {"region": "1-70"})):
        with pytest.raises(OutputExistsError, match="was made with a different region"):
            embed(fasta_of_longer, tiny_model, name, **settings)


def test_without_a_region_a_meta_file_has_none(tiny_model, fasta_of_pieces, embed):
    output, summary = embed(fasta_of_pieces, tiny_model, "whole.npy")

    assert "region" not in json.loads(sidecar(output, META).read_text())
    assert summary.region is None


def test_embed_uses_the_region_of_a_fine_tuned_model_unless_told_otherwise(models, fasta_of_longer, embed, pieces):
    _, by_default = embed(fasta_of_longer, models["classification"], "auto.npy")
    _, whole = embed(fasta_of_longer, models["classification"], "all.npy", region="all")

    assert (by_default.num_residues, by_default.warnings) == (70 * len(pieces), [])
    assert whole.num_residues == 270 * len(pieces)
    assert "is applied to whole proteins" in whole.warnings[0]
