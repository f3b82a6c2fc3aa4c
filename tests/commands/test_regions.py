import json
import random
from dataclasses import replace

import numpy as np
import pytest

from protembed.config.common import ModelConfig
from protembed.config.embed import CheckOptions, EmbedOptions
from protembed.config.finetune import LabelTableConfig, PredictConfig, PredictOptions
from protembed.embedding.check import check_embeddings
from protembed.embedding.embed import embed_fasta
from protembed.embedding.metadata import IDS
from protembed.errors import OutputExistsError, TooShortError
from protembed.finetuning.finetune import finetune_model
from protembed.finetuning.predict import predict_fasta
from protembed.io.result import META, sidecar
from protembed.model.checkpoint import load_checkpoint, save_checkpoint

PARITY = {"rtol": 1e-5, "atol": 1e-5}


def standard(sequence):
    """Replace non-standard residues, which cause a warning."""
    return sequence.replace("X", "A").replace("B", "D")


@pytest.fixture(scope="module")
def pieces(proteins):
    """Cut the proteins of at least 70 residues to their first 70."""
    return [standard(protein[:70]) for protein in proteins if len(protein) >= 70]


@pytest.fixture(scope="module")
def fasta_of_pieces(pieces, tmp_path_factory):
    path = tmp_path_factory.mktemp("inputs") / "pieces.fasta"
    path.write_text("".join(f">p{row}\n{piece}\n" for row, piece in enumerate(pieces)))
    return path


@pytest.fixture(scope="module")
def fasta_of_longer(pieces, proteins, tmp_path_factory):
    """Write the same pieces, each with 200 residues of other proteins appended."""
    rng, letters = random.Random(0), standard("".join(proteins))
    path = tmp_path_factory.mktemp("inputs") / "longer.fasta"
    starts = [rng.randrange(len(letters) - 200) for _ in pieces]
    records = [f">p{row}\n{piece}{letters[starts[row] :][:200]}\n" for row, piece in enumerate(pieces)]
    path.write_text("".join(records))
    return path


@pytest.fixture(scope="module")
def models(labelled_tables, tiny_model, finetune_options, tmp_path_factory):
    """Train a model on residues 1 to 70 for each of two tasks."""
    folder, paths = tmp_path_factory.mktemp("models"), {}
    for task in ("classification", "residue-classification"):
        paths[task] = folder / f"{task}.model"
        settings = finetune_options(paths[task], tiny_model, method="frozen", labels={"region": "1-70"})
        finetune_model(labelled_tables / f"{task}.csv", settings)
    return paths


@pytest.fixture
def predict(read_rows, tmp_path):
    """Predict into a table; return its rows and the summary."""

    def run(fasta, model, **settings):
        output = tmp_path / f"{len(list(tmp_path.iterdir()))}.tsv"
        summary = predict_fasta([fasta], PredictOptions.from_values(model=model, output=output, **settings))
        return read_rows(output), summary

    return run


def probabilities(rows):
    return np.array([[float(value) for name, value in row.items() if name.startswith("p_")] for row in rows])


def test_predict_uses_the_region_recorded_in_training(models, fasta_of_pieces, fasta_of_longer, predict):
    metadata = load_checkpoint(models["classification"]).metadata
    from_pieces, _ = predict(fasta_of_pieces, models["classification"], region="all")
    from_longer, summary = predict(fasta_of_longer, models["classification"])

    assert (metadata.region, metadata.training_data.longest) == ("1-70", 70)
    assert (summary.region, summary.warnings) == ("1-70", [])
    assert [(row["first_residue"], row["last_residue"]) for row in from_longer] == [("1", "70")] * len(from_pieces)
    assert [row["prediction"] for row in from_longer] == [row["prediction"] for row in from_pieces]
    np.testing.assert_allclose(probabilities(from_longer), probabilities(from_pieces), **PARITY)


def test_predict_warns_when_a_model_of_a_region_is_applied_to_whole_proteins(models, fasta_of_longer, predict):
    cut, _ = predict(fasta_of_longer, models["classification"])
    whole, summary = predict(fasta_of_longer, models["classification"], region="all")

    assert summary.region is None
    assert "first_residue" not in whole[0]
    assert np.abs(probabilities(whole) - probabilities(cut)).max() > 1e-3
    region, longer = summary.warnings
    assert "trained on residues 1-70 of each protein, but is applied to whole proteins" in region
    assert longer.startswith(f"{len(whole)} of {len(whole)} proteins are longer than the longest")


def test_residue_labels_are_trained_and_predicted_in_the_region(models, fasta_of_longer, predict):
    rows, summary = predict(fasta_of_longer, models["residue-classification"], region="5-60")

    assert summary.region == "5-60"
    assert {len(row["prediction"]) for row in rows} == {56}
    assert (
        sum(load_checkpoint(models["residue-classification"]).metadata.training_data.class_counts.values()) <= 24 * 70
    )


def test_predict_suggests_a_region_for_a_model_trained_on_short_proteins(
    labelled_tables, tiny_model, finetune_options, tmp_path, read_rows, fasta_of_longer, predict
):
    lines = [
        f"{row['id']},M{row['sequence'][1:50]},{row['label']},{row['split']}"
        for row in read_rows(labelled_tables / "classification.csv", ",")
        if len(row["sequence"]) >= 50
    ]
    (tmp_path / "pieces.csv").write_text("\n".join(["id,sequence,label,split", *lines]) + "\n")
    finetune_model(tmp_path / "pieces.csv", finetune_options(tmp_path / "x.model", tiny_model, method="frozen"))

    _, summary = predict(fasta_of_longer, tmp_path / "x.model")
    _, with_region = predict(fasta_of_longer, tmp_path / "x.model", region="1-50")

    assert any(
        sentence.endswith("(50 residues); it was never tested on such proteins: use --region 1-50")
        for sentence in summary.warnings
    )
    assert not any("longer" in sentence for sentence in with_region.warnings)


def test_predict_does_not_warn_about_the_test_proteins_of_its_model(
    labelled_tables, tiny_model, finetune_options, tmp_path, read_rows, predict
):
    for task in ("multilabel", "regression"):
        test = [row for row in read_rows(labelled_tables / f"{task}.csv", ",") if row["split"] == "test"]
        (tmp_path / "test.fasta").write_text("".join(f">{row['id']}\n{row['sequence']}\n" for row in test))
        finetune_model(
            labelled_tables / f"{task}.csv", finetune_options(tmp_path / f"{task}.model", tiny_model, method="frozen")
        )

        _, summary = predict(tmp_path / "test.fasta", tmp_path / f"{task}.model")

        assert [sentence for sentence in summary.warnings if not sentence.startswith("non-standard")] == []


def test_a_model_of_an_earlier_version_predicts_with_a_warning_about_its_unknown_training_data(
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


def test_predict_leaves_no_table_if_a_protein_ends_before_the_region(models, proteins_fasta, tmp_path):
    config = PredictConfig(output=tmp_path / "p.tsv", region="400-")

    with pytest.raises(TooShortError, match="`region` begins at residue 400"):
        predict_fasta(
            [proteins_fasta], PredictOptions(model=ModelConfig(model=models["classification"]), prediction=config)
        )

    assert list(tmp_path.iterdir()) == []


def test_a_fine_tuned_model_records_its_region_in_format_version_2(models):
    settings = json.loads((models["classification"] / "protembed.json").read_text())

    assert (settings["format_version"], settings["region"]) == (3, "1-70")
    assert settings["configuration"]["region"] == "1-70"
    assert LabelTableConfig().region == "all"


# Embed


@pytest.fixture
def embed(tmp_path):
    def run(fasta, model, name, **settings):
        output = tmp_path / name
        return output, embed_fasta([fasta], EmbedOptions.from_values(model=model, output=output, **settings))

    return run


@pytest.mark.parametrize("per_residue", [False, True])
def test_embedding_a_region_equals_embedding_the_cut_proteins(
    tiny_model, fasta_of_pieces, fasta_of_longer, embed, per_residue
):
    suffix = "npz" if per_residue else "npy"
    pieces, _ = embed(fasta_of_pieces, tiny_model, f"pieces.{suffix}", per_residue=per_residue)
    region, summary = embed(fasta_of_longer, tiny_model, f"region.{suffix}", per_residue=per_residue, region="-70")

    expected, vectors = (np.load(path) for path in (pieces, region))
    if per_residue:
        np.testing.assert_array_equal(expected["offsets"], vectors["offsets"])
        expected, vectors = expected["embeddings"], vectors["embeddings"]
    np.testing.assert_allclose(vectors, expected, **PARITY)
    assert (summary.region, summary.warnings) == ("1-70", [])
    assert sidecar(region, IDS).read_text() == sidecar(pieces, IDS).read_text()


def test_a_result_of_a_region_records_it_and_is_verified_against_whole_proteins(tiny_model, fasta_of_longer, embed):
    output, summary = embed(fasta_of_longer, tiny_model, "region.npy", region="11-70")

    checked = check_embeddings([output, fasta_of_longer], CheckOptions.from_values(model=tiny_model))

    assert json.loads(sidecar(output, META).read_text())["region"] == "11-70"
    assert checked.num_residues == summary.num_residues == 60 * summary.num_proteins


def test_the_result_of_a_different_region_is_an_error(tiny_model, fasta_of_longer, embed):
    embed(fasta_of_longer, tiny_model, "region.npy", region="1-70")
    embed(fasta_of_longer, tiny_model, "whole.npy")

    assert embed(fasta_of_longer, tiny_model, "region.npy", region="-70")[1].was_done
    for name, settings in (("region.npy", {}), ("region.npy", {"region": "1-71"}), ("whole.npy", {"region": "1-70"})):
        with pytest.raises(OutputExistsError, match="was made with other settings .`region` was"):
            embed(fasta_of_longer, tiny_model, name, **settings)


def test_a_meta_file_contains_a_region_only_if_one_was_used(tiny_model, fasta_of_pieces, embed):
    output, summary = embed(fasta_of_pieces, tiny_model, "whole.npy")

    assert "region" not in json.loads(sidecar(output, META).read_text())
    assert summary.region is None


def test_embed_uses_the_region_of_a_fine_tuned_model_by_default(models, fasta_of_longer, embed, pieces):
    _, by_default = embed(fasta_of_longer, models["classification"], "auto.npy")
    _, whole = embed(fasta_of_longer, models["classification"], "all.npy", region="all")

    assert (by_default.num_residues, by_default.warnings) == (70 * len(pieces), [])
    assert whole.num_residues == 270 * len(pieces)
    assert "is applied to whole proteins" in whole.warnings[0]
