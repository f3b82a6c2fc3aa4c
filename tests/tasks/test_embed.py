import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from protembed.config.embed import EmbedConfig
from protembed.config.shared import DEFAULT_MODEL, ModelConfig, ReaderConfig
from protembed.data.alphabet import CLS, EOS, encode
from protembed.data.fasta import read_fasta
from protembed.errors import IllegalResidueError, OutputExistsError
from protembed.model.checkpoint import load_checkpoint
from protembed.tasks.embed import embed_fasta

PARITY = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture
def embed(tmp_path, tiny_model, proteins_fasta):
    """Embed with a tiny model into `tmp_path / name`, and return that path."""

    def run(name, fasta=proteins_fasta, model=tiny_model, on_illegal="error", **settings):
        output = tmp_path / name
        config = EmbedConfig(output=output, **settings)
        embed_fasta([fasta], ModelConfig(model=model), config, reader=ReaderConfig(on_illegal=on_illegal))
        return output

    return run


@pytest.fixture(scope="module")
def oracle(tiny_esm, proteins):
    """The last hidden states of transformers, (residues, dim) for each protein."""
    states = []
    for sequence in proteins:
        tokens = torch.tensor([[CLS, *encode(sequence).tolist(), EOS]])
        with torch.no_grad():
            states.append(tiny_esm.esm(tokens, torch.ones_like(tokens)).last_hidden_state[0, 1:-1].numpy())
    return states


@pytest.fixture(scope="module")
def esm_directory(tiny_esm, tmp_path_factory):
    directory = tmp_path_factory.mktemp("oracles") / "tiny_esm"
    tiny_esm.save_pretrained(directory)
    return directory


def test_rows_are_the_means_over_residues_in_input_order(embed, esm_directory, oracle):
    rows = np.load(embed("emb.npy", model=esm_directory))

    np.testing.assert_allclose(rows, np.stack([states.mean(0) for states in oracle]), **PARITY)


@pytest.mark.parametrize(("pooling", "rule"), [("max", np.max), ("std", np.std)])
def test_other_poolings_are_over_residues_too(embed, esm_directory, oracle, pooling, rule):
    rows = np.load(embed("emb.npy", model=esm_directory, pooling=pooling))

    np.testing.assert_allclose(rows, np.stack([rule(states, axis=0) for states in oracle]), **PARITY)


def test_every_residue_of_every_protein_has_its_vector(embed, esm_directory, oracle):
    with np.load(embed("emb.npz", model=esm_directory, per_residue=True)) as packed:
        offsets = packed["offsets"]
        for row, states in enumerate(oracle):
            np.testing.assert_allclose(packed["embeddings"][offsets[row] : offsets[row + 1]], states, **PARITY)
    with h5py.File(embed("emb.h5", model=esm_directory, per_residue=True)) as file:
        assert len(file) == len(oracle)
        for row, states in enumerate(oracle):
            np.testing.assert_allclose(file[str(row)][:], states, **PARITY)


def test_a_layer_can_be_named_and_the_last_is_the_default(embed):
    default, last, second, embedding = (
        np.load(embed(f"{layer}.npy", layer=layer)) for layer in ("auto", "last", "2", "0")
    )

    np.testing.assert_array_equal(default, last)
    np.testing.assert_array_equal(default, second)
    assert not np.allclose(default, embedding)


def test_half_precision_is_the_rounded_result(embed):
    np.testing.assert_array_equal(
        np.load(embed("half.npy", dtype="float16")), np.load(embed("full.npy")).astype(np.float16)
    )


def test_the_files_beside_a_result_say_what_it_is(embed, tiny_model, proteins_fasta):
    output = embed("emb.npy")
    header, *lines = (output.parent / "emb.ids.tsv").read_text().splitlines()
    meta = json.loads((output.parent / "emb.meta.json").read_text())

    records = list(read_fasta([proteins_fasta]))
    assert header.split("\t")[:3] == ["row", "id", "residues"]
    assert [line.split("\t")[:3] for line in lines] == [[str(r.row), r.id, str(len(r.sequence))] for r in records]
    assert meta["model_sha256"] == load_checkpoint(tiny_model).sha256()
    assert (meta["layer"], meta["pooling"], meta["num_proteins"]) == (2, "mean", len(records))


def test_the_same_command_gives_the_same_bytes(embed):
    first = embed("emb.npy")
    contents = [path.read_bytes() for path in sorted(first.parent.iterdir())]
    embed("emb.npy", force=True)

    assert [path.read_bytes() for path in sorted(first.parent.iterdir())] == contents


def test_the_same_command_again_finds_its_work_done(tmp_path, tiny_model, proteins_fasta):
    config, model = EmbedConfig(output=tmp_path / "emb.npy"), ModelConfig(model=tiny_model)
    embed_fasta([proteins_fasta], model, config)
    computed = []

    summary = embed_fasta([proteins_fasta], model, config, on_protein=computed.append)

    assert summary.was_done
    assert computed == []


def test_another_result_is_refused_and_kept(embed):
    output = embed("emb.npy")
    before = output.read_bytes()

    with pytest.raises(OutputExistsError, match="pooling"):
        embed("emb.npy", pooling="max")

    assert output.read_bytes() == before


def test_bad_input_leaves_no_output(embed, tmp_path):
    fasta = tmp_path / "bad.fasta"
    fasta.write_text(">good\nMKTAYIAK\n>bad\nMK1\n")

    with pytest.raises(IllegalResidueError):
        embed("emb.npy", fasta=fasta)

    assert [path.name for path in tmp_path.iterdir()] == ["bad.fasta"]


def test_records_left_out_on_request_are_listed(embed, tmp_path):
    fasta = tmp_path / "mixed.fasta"
    fasta.write_text(">a\nMKTAYIAK\n>b\nMK1\n>c\nMKV\n")

    rows = np.load(embed("emb.npy", fasta=fasta, on_illegal="skip"))

    assert len(rows) == 2
    assert (tmp_path / "emb.failed.tsv").read_text().splitlines()[1].startswith("mixed.fasta\t4\tb\t")


def test_without_a_model_it_takes_the_one_in_the_box(proteins_fasta, tmp_path):
    for name, model in (("none.npy", None), ("named.npy", Path(DEFAULT_MODEL))):
        embed_fasta([proteins_fasta], ModelConfig(model=model), EmbedConfig(output=tmp_path / name))

    np.testing.assert_array_equal(np.load(tmp_path / "none.npy"), np.load(tmp_path / "named.npy"))


def test_five_hundred_windows_keep_the_input_order(embed, tmp_path, proteins, esm_directory, oracle):
    order = np.random.default_rng(0).integers(len(proteins), size=500)
    fasta = tmp_path / "many.fasta"
    fasta.write_text("".join(f">p{row}\n{proteins[index]}\n" for row, index in enumerate(order)))

    rows = np.load(embed("emb.npy", fasta=fasta, model=esm_directory))

    np.testing.assert_allclose(rows, np.stack([oracle[index].mean(0) for index in order]), **PARITY)
