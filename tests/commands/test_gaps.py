"""Commands read an alignment like the proteins without their gaps."""

import json
from dataclasses import replace

import pytest
from safetensors.torch import load_file

from protembed.attention.inspect_attention import inspect_attention
from protembed.config.common import InputConfig
from protembed.config.embed import CheckOptions, EmbedOptions
from protembed.config.finetune import PredictOptions
from protembed.config.inspect_attention import AttentionOptions
from protembed.config.pretrain import PretrainOptions
from protembed.config.score import ScoreOptions
from protembed.embedding.check import check_embeddings
from protembed.embedding.embed import embed_fasta
from protembed.embedding.metadata import IDS
from protembed.errors import OutputExistsError
from protembed.finetuning.finetune import finetune_model
from protembed.finetuning.predict import predict_fasta
from protembed.io.result import META, sidecar
from protembed.pretraining.corpus import build_corpora, open_corpora
from protembed.pretraining.request import run_fingerprint
from protembed.scoring.score_variants import score_variants

GAPS = "10 gaps of an alignment removed from 2 records"


def with_gaps(sequence):
    return f"--{sequence[:7].lower()}-{sequence[7:]}.-"


@pytest.fixture(scope="module")
def fastas(proteins, tmp_path_factory):
    """Write some proteins, and the same ones with gaps in the first two."""
    folder = tmp_path_factory.mktemp("inputs")
    chosen = [protein[:60].replace("X", "A").replace("B", "D") for protein in proteins[:24]]
    for name, sequences in {"proteins": chosen, "aligned": [*map(with_gaps, chosen[:2]), *chosen[2:]]}.items():
        (folder / f"{name}.fasta").write_text("".join(f">p{row}\n{seq}\n" for row, seq in enumerate(sequences)))
    return folder / "proteins.fasta", folder / "aligned.fasta"


def settings_of(options, output, model=None, gaps="drop", **values):
    values |= {} if model is None else {"model": model}
    return options.from_values(output=output, gaps=gaps, threads=1, **values)


def test_embed_gives_the_vectors_of_the_proteins_and_check_verifies_them(fastas, tiny_model, tmp_path):
    plain, aligned = tmp_path / "plain.npy", tmp_path / "aligned.npy"
    embed_fasta(fastas[0], settings_of(EmbedOptions, plain, tiny_model, gaps="error"))
    summary = embed_fasta(fastas[1], settings_of(EmbedOptions, aligned, tiny_model))

    assert GAPS in summary.warnings
    assert aligned.read_bytes() == plain.read_bytes()
    assert sidecar(aligned, IDS).read_bytes() == sidecar(plain, IDS).read_bytes()
    meta = [json.loads(sidecar(path, META).read_text()) for path in (plain, aligned)]
    assert ["gaps" in content for content in meta] == [False, True]
    assert check_embeddings([aligned, fastas[1]], CheckOptions.from_values(model=tiny_model)).num_proteins == 24


def test_dropping_gaps_makes_another_result_of_the_same_file(fastas, tiny_model, tmp_path):
    embed_fasta(fastas[0], settings_of(EmbedOptions, tmp_path / "emb.npy", tiny_model, gaps="error"))

    with pytest.raises(OutputExistsError, match="`gaps` was error, not drop"):
        embed_fasta(fastas[0], settings_of(EmbedOptions, tmp_path / "emb.npy", tiny_model))


def test_finetune_and_predict_read_sequences_without_gaps(
    labelled_tables, fastas, finetune_options, read_rows, tiny_model, tmp_path
):
    rows = read_rows(labelled_tables / "classification.csv", ",")
    (tmp_path / "aligned.csv").write_text(
        "id,sequence,label,split\n"
        + "".join(f"{row['id']},{with_gaps(row['sequence'])},{row['label']},{row['split']}\n" for row in rows)
    )
    options = finetune_options(tmp_path / "plain.model", tiny_model, method="frozen")
    finetune_model(labelled_tables / "classification.csv", options)
    options = finetune_options(tmp_path / "aligned.model", tiny_model, method="frozen")
    finetune_model(tmp_path / "aligned.csv", replace(options, reader=InputConfig(gaps="drop")))
    heads = [load_file(tmp_path / f"{name}.model" / "head.safetensors") for name in ("plain", "aligned")]
    assert all((heads[0][name] == heads[1][name]).all() for name in heads[0])

    model = tmp_path / "plain.model"
    predict_fasta(fastas[0], settings_of(PredictOptions, tmp_path / "plain.tsv", model, gaps="error"))
    summary = predict_fasta(fastas[1], settings_of(PredictOptions, tmp_path / "aligned.tsv", model))
    assert GAPS in summary.warnings
    assert (tmp_path / "aligned.tsv").read_bytes() == (tmp_path / "plain.tsv").read_bytes()


@pytest.mark.parametrize("in_table", [True, False], ids=["table", "FASTA"])
def test_score_counts_positions_without_gaps(fastas, tiny_model, tmp_path, in_table):
    sequence = fastas[0].read_text().split()[1]
    mutation = f"{sequence[9]}10{'A' if sequence[9] != 'A' else 'G'}"
    (tmp_path / "wild.fasta").write_text(f">w\n{with_gaps(sequence)}\n")
    tables = {"plain": f"mutant,sequence\n{mutation},{sequence}\n"}
    tables["aligned"] = f"mutant,sequence\n{mutation},{with_gaps(sequence)}\n" if in_table else f"mutant\n{mutation}\n"
    for name, content in tables.items():
        (tmp_path / f"{name}.csv").write_text(content)

    score_variants(tmp_path / "plain.csv", settings_of(ScoreOptions, tmp_path / "plain.tsv", tiny_model, gaps="error"))
    wild_type = {} if in_table else {"wild_type": tmp_path / "wild.fasta"}
    options = settings_of(ScoreOptions, tmp_path / "aligned.tsv", tiny_model, **wild_type)
    summary = score_variants(tmp_path / "aligned.csv", options)

    assert "5 gaps of an alignment removed from 1 record" in summary.warnings
    scores = [(tmp_path / f"{name}.tsv").read_text().split()[-2:] for name in ("plain", "aligned")]
    assert scores[0] == scores[1]


def test_pretrain_stores_the_proteins_without_gaps(fastas, tmp_path):
    build_corpora(tmp_path / "plain", [fastas[0]], [fastas[0]])
    build_corpora(tmp_path / "aligned", [fastas[1]], [fastas[1]], reader=InputConfig(gaps="drop"))
    plain, aligned = (open_corpora(tmp_path / name) for name in ("plain", "aligned"))

    assert aligned.train.fingerprint == plain.train.fingerprint
    assert aligned.valid[0].fingerprint == plain.valid[0].fingerprint


def test_pretraining_records_only_dropped_gaps(fastas):
    options = [PretrainOptions.from_values(gaps=gaps) for gaps in ("error", "drop")]

    assert [run_fingerprint([fastas[0]], option).get("gaps") for option in options] == [None, "drop"]


def test_inspect_attention_counts_the_residues_without_gaps(fastas, read_rows, tiny_model, tmp_path):
    output = tmp_path / "attention"
    summary = inspect_attention(fastas[1], settings_of(AttentionOptions, output, tiny_model, save_maps=0))

    assert GAPS in summary.warnings
    assert [row["residues"] for row in read_rows(output / "proteins.tsv")[:2]] == ["60", "60"]
