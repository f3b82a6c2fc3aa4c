"""Every command with every member of the family: ESM-2, ESM-1b with learned positions, and ESM-C."""

import csv
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import protembed
from protembed.attention.contact_predictors import ContactPredictor
from protembed.callbacks import Callbacks
from protembed.cli.app import app
from protembed.config.embed import EmbedOptions
from protembed.config.model_sizes import ESM2Shape, ESMCShape
from protembed.data.alphabet import CLS, EOS, encode
from protembed.data.structures import read_chains
from protembed.embedding.embed import embed_fasta
from protembed.model.checkpoint import load_checkpoint, new_checkpoint, save_checkpoint
from protembed.model.metadata import ModelMetadata

SIZE = {"num_layers": 2, "dim": 32, "num_heads": 2}
MEMBERS = {
    "ESM-2": ESM2Shape(**SIZE),
    "ESM-1b": ESM2Shape(**SIZE, num_positions=66, has_embedding_norm=True),
    "ESM-C": ESMCShape(**SIZE),
}
STRUCTURES = sorted((Path(__file__).parents[1] / "data" / "fixtures" / "structures").glob("*.gz"))
NUM_PLANTED = {"train": 400, "valid": 100, "test": 200}
OTHERS = "ADEFGHIKLMNP"
SMALL = ("--steps", "2", "--batch-tokens", "256", "--crop-residues", "48")


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in (*arguments, "--quiet")])


def succeed(*arguments):
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    """Directories of models of every member, by name; each is computed in windows of 64 residues."""
    root = tmp_path_factory.mktemp("members")
    for name, shape in MEMBERS.items():
        checkpoint = new_checkpoint(shape, "gaussian", 0)
        checkpoint.metadata = ModelMetadata(window_residues=64)
        save_checkpoint(checkpoint, root / name)
    return {name: root / name for name in MEMBERS}


@pytest.fixture(params=MEMBERS)
def member(request, members):
    return members[request.param]


@pytest.fixture
def short_fasta(tmp_path):
    """Two proteins that fit into a window, and one that needs three."""
    path = tmp_path / "short.fasta"
    path.write_text(">a\nMKTAYIAKQRQISFVKSHFSRQ\n>b\nGSHMLEDPVAG\n>long\n" + "ACDEFGHIKLMNPQRSTVWY" * 8 + "\n")
    return path


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--pooling", "mean,max,cls", "--layer", "0,1,2"),
        ("--per-residue",),
        ("--window-residues", "40"),
        ("--precision", "bfloat16"),
    ],
    ids=" ".join,
)
def test_embeddings_of_each_member_repeat_byte_for_byte_and_pass_the_check(member, short_fasta, tmp_path, options):
    first, again = tmp_path / "first.h5", tmp_path / "again.h5"
    for output in (first, again):
        succeed("embed", short_fasta, "-m", member, "-o", output, *options)

    assert first.read_bytes() == again.read_bytes()
    succeed("check", first, short_fasta, "-m", member)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("suffix", ["npy", "h5"])
def test_an_interrupted_embedding_with_each_member_is_resumed_to_the_same_bytes(
    member, proteins_fasta, tmp_path, small_chunks, suffix
):
    def embed(folder, **callbacks):
        output = tmp_path / folder / f"emb.{suffix}"
        options = EmbedOptions.from_values(model=member, output=output, per_residue=suffix == "h5")
        return embed_fasta(proteins_fasta, options, Callbacks(**callbacks))

    def interrupt(num_residues):
        seen.append(num_residues)
        if len(seen) == 25:
            raise KeyboardInterrupt

    seen = []
    embed("whole")
    with pytest.raises(KeyboardInterrupt):
        embed("interrupted", on_progress=interrupt)

    assert 0 < embed("interrupted").num_resumed < 40
    assert contents(tmp_path / "interrupted") == contents(tmp_path / "whole")


def test_joined_shards_of_each_member_are_the_whole_result(member, proteins_fasta, tmp_path):
    (tmp_path / "joined").mkdir()
    (tmp_path / "whole").mkdir()
    shards = [tmp_path / f"emb.{number}-of-3.npy" for number in (1, 2, 3)]
    for number, shard in enumerate(shards, start=1):
        succeed("embed", proteins_fasta, "-m", member, "-o", shard, "--shard", f"{number}/3")

    succeed("join", *shards, "-o", tmp_path / "joined" / "emb.npy")

    succeed("embed", proteins_fasta, "-m", member, "-o", tmp_path / "whole" / "emb.npy")
    assert contents(tmp_path / "joined") == contents(tmp_path / "whole")


def test_a_loaded_model_of_each_member_gives_the_vectors_of_embed(member, short_fasta, tmp_path):
    succeed("embed", short_fasta, "-m", member, "-o", tmp_path / "emb.npy")
    succeed("embed", short_fasta, "-m", member, "-o", tmp_path / "residues.npz", "--per-residue")

    model, records = protembed.load_model(member), list(protembed.read_fasta(short_fasta))
    np.testing.assert_array_equal(model.embed(records), np.load(tmp_path / "emb.npy"))
    stored = protembed.load_embeddings(tmp_path / "residues.npz").vectors
    for one, other in zip(model.embed_residues(records), stored, strict=True):
        np.testing.assert_array_equal(one, other)
    assert model.log_probs(records[2]).shape == (160, 20)
    assert model.attention(records[1]).shape == (2, 2, 11, 11)


@pytest.mark.parametrize("method", ["masked-marginals", "wildtype-marginals"])
def test_each_member_scores_variants(member, tmp_path, method):
    variants = tmp_path / "variants.csv"
    variants.write_text("wild_type,mutant\nMKTAYIAKQR,K2A\nMKTAYIAKQR,K2A:Y5W\n")

    succeed("score", variants, "-m", member, "-o", tmp_path / "scores.tsv", "--method", method)

    assert len((tmp_path / "scores.tsv").read_text().splitlines()) == 4


def test_pretraining_from_each_member_keeps_its_architecture(member, proteins_fasta, tmp_path):
    succeed("pretrain", proteins_fasta, "--from", member, "-o", tmp_path / "run", *SMALL)

    model = tmp_path / "run" / "model"
    before, after = (json.loads((path / "config.json").read_text()) for path in (member, model))
    assert before == after
    assert f"An {member.name} encoder" in (model / "README.md").read_text()
    assert f"import {before['architectures'][0]}" in (model / "README.md").read_text()


@pytest.mark.parametrize(
    ("command", "option"),
    [("embed", "window"), ("score", "window"), ("pretrain", "crop")],
)
def test_more_residues_than_learned_positions_are_refused_before_any_work(
    members, short_fasta, tmp_path, command, option
):
    given, output = tmp_path / "input", tmp_path / "output.tsv"
    given.write_text("wild_type,mutant\nMKTAY,K2A\n" if command == "score" else short_fasta.read_text())
    model = "--from" if command == "pretrain" else "-m"

    result = invoke(command, given, model, members["ESM-1b"], "-o", output, f"--{option}-residues", "65")

    assert result.exit_code == 2
    assert f"{option}-residues is 65, but the model has learned positions for 64 residues" in result.stderr
    assert not output.exists()


def test_attention_of_a_protein_beyond_the_learned_positions_is_refused_by_name(members, short_fasta, tmp_path):
    result = invoke("inspect-attention", short_fasta, "-m", members["ESM-1b"], "-o", tmp_path / "attention")

    assert result.exit_code == 65
    assert "'long' has 160 residues, and the model has learned positions for 64; omit it" in result.stderr
    assert not (tmp_path / "attention").exists()


def test_attention_of_each_member_is_inspected(member, tmp_path):
    fasta = tmp_path / "short.fasta"
    fasta.write_text(">a\nMKTAYIAKQRQISFVKSHFSRQ\n>b\nGSHMLEDPVAG\n")

    succeed("inspect-attention", fasta, "-m", member, "-o", tmp_path / "attention")

    assert len((tmp_path / "attention" / "heads.tsv").read_text().splitlines()) > 4


@pytest.fixture
def structure_fasta(tmp_path):
    """The proteins of the structures."""
    chains = [read_chains(path)[0] for path in STRUCTURES]
    path = tmp_path / "matched.fasta"
    path.write_text("".join(f">{chain.structure}\n{chain.sequence}\n" for chain in chains))
    return path


@pytest.fixture
def found_contacts(monkeypatch):
    """Fit a contact head that selects heads, although the maps of a tiny model follow no contacts."""

    def fit(features, proteins):
        return ContactPredictor(weight=np.random.default_rng(0).normal(0, 100, len(features[0])), bias=-2.0)

    monkeypatch.setattr("protembed.attention.contact_predictors.fit_contact_head", fit)


def encode_both(tokenizer, sequence):
    """Encode a protein with a tokenizer of transformers, and check that protembed gives the same tokens."""
    tokens = tokenizer(sequence, return_tensors="pt")["input_ids"]
    assert tokens[0].tolist() == [CLS, *encode(sequence).tolist(), EOS]
    return tokens


def test_a_contact_head_of_each_member_is_fitted_stored_and_used(
    family_model, structure_fasta, found_contacts, tmp_path
):
    transformers = pytest.importorskip("transformers")
    options = ("--num-permutations", "100", "--save-maps", "1")
    for offload in ("never", "always"):
        structures = [argument for path in STRUCTURES for argument in ("--structures", path)]
        output = ("-o", tmp_path / offload, "--offload", offload)
        succeed("inspect-attention", structure_fasta, "-m", family_model, *structures, *options, *output)
    fitted, used = tmp_path / "never" / "model", tmp_path / "used"
    assert contents(fitted) == contents(tmp_path / "always" / "model")

    succeed("inspect-attention", structure_fasta, "-m", fitted, "-o", used, *options)
    name = "protein-000001.tsv"
    assert (used / "contacts" / name).read_bytes() == (tmp_path / "never" / "contacts" / name).read_bytes()

    record = next(protembed.read_fasta(structure_fasta))
    maps = np.load(used / "maps" / "protein-000001.npz")
    model = protembed.load_model(fitted)
    np.testing.assert_array_equal(model.contacts(record), maps["contacts"])

    class_name = json.loads((fitted / "config.json").read_text())["architectures"][0]
    loaded, report = getattr(transformers, class_name).from_pretrained(fitted, output_loading_info=True)
    assert not any(report.values())
    tokens = encode_both(transformers.AutoTokenizer.from_pretrained(fitted), record.sequence)
    with torch.no_grad():
        expected = loaded.eval().base_model(tokens)[0][0, 1:-1].numpy()
    np.testing.assert_allclose(model.embed_residues(record), expected, rtol=1e-5, atol=1e-5)


def test_a_frozen_encoder_of_each_member_learns_a_planted_task(member, labelled_tables, tmp_path):
    tuned = tmp_path / "tuned"

    succeed("finetune", labelled_tables / "regression.csv", "-m", member, "-o", tuned, "--method", "frozen")

    predictors = json.loads((tuned / "metrics.json").read_text())["comparison"]["predictors"]
    assert predictors["frozen"]["spearman"]["value"] > 0.8


def planted_proteins(is_adjacent):
    """Draw proteins of the same residues, whose label is the order of W and C: adjacent ones, or one in each half."""
    draw = random.Random(0)
    for split in (split for split, count in NUM_PLANTED.items() for _ in range(count)):
        order, others = draw.choice(("WC", "CW")), "".join(draw.sample(OTHERS, len(OTHERS)))
        first, second = [draw.randint(0, 12)] * 2 if is_adjacent else (draw.randint(0, 6), draw.randint(6, 12))
        yield others[:first] + order[0] + others[first:second] + order[1] + others[second:], order, split


@pytest.mark.parametrize(("method", "predictor"), [("full", "fine-tuned"), ("lora", "LoRA")])
def test_training_each_member_learns_an_order_that_its_frozen_encoder_does_not_show(
    member, tmp_path, method, predictor
):
    table, tuned = tmp_path / "planted.csv", tmp_path / "tuned"
    # Learned positions are random here: those of neighbours are not alike.
    rows = planted_proteins(is_adjacent=MEMBERS[member.name].max_residues is None)
    with table.open("w", newline="") as stream:
        csv.writer(stream).writerows([("sequence", "label", "split"), *rows])
    options = f"--method {method} --batch-tokens 512 --epochs 15 --patience 15 --skip-random-baseline".split()

    succeed("finetune", table, "-m", member, "-o", tuned, *options)

    predictors = json.loads((tuned / "metrics.json").read_text())["comparison"]["predictors"]
    assert predictors["composition"]["accuracy"]["value"] < 0.6
    assert predictors["frozen"]["accuracy"]["value"] < 0.75
    assert predictors[predictor]["accuracy"]["value"] > 0.9


@pytest.mark.parametrize("method", ["full", "lora"])
def test_each_member_is_finetuned_and_predicts(member, labelled_tables, short_fasta, tmp_path, method):
    tuned, predictions = tmp_path / "tuned", tmp_path / "predictions.tsv"
    options = ("--epochs", "2", "--learning-rate", "3e-4", "--skip-random-baseline")

    succeed("finetune", labelled_tables / "regression.csv", "-m", member, "-o", tuned, "--method", method, *options)
    succeed("predict", short_fasta, "-m", tuned, "-o", predictions)

    assert load_checkpoint(tuned).encoder.shape == MEMBERS[member.name]
    assert f"An {member.name} encoder" in (tuned / "README.md").read_text()
    assert len(predictions.read_text().splitlines()) == 4
