"""The package of a finished pretraining: weights, metadata, and a card."""

import json
import sys

import pytest
import torch
from safetensors import safe_open

import bundle_model
from protembed import PretrainOptions, pretrain_model
from protembed.model.checkpoint import load_checkpoint, save_checkpoint
from protembed.model.metadata import read_metadata

PRECISIONS = [
    {"predictor": "top heads", "range": "long", "pairs": "L", "precision": 0.2, "random": 0.026, "proteins": 24},
    {"predictor": "regression", "range": "long", "pairs": "L/5", "precision": 0.3, "random": 0.026, "proteins": 24},
    {"predictor": "regression", "range": "long", "pairs": "L", "precision": 0.0791, "random": 0.026, "proteins": 24},
]


@pytest.fixture(scope="module")
def run(proteins_fasta, tmp_path_factory):
    """A short pretraining of a tiny encoder."""
    output = tmp_path_factory.mktemp("runs") / "tiny.run"
    shape = {"layers": 2, "dim": 32, "heads": 4}
    pretrain_model([proteins_fasta], PretrainOptions.from_values(output=output, steps=2, threads=1, **shape))
    return output


@pytest.fixture(scope="module")
def inspected(run, tmp_path_factory):
    """What `inspect-attention --structures` writes of that model."""
    result = tmp_path_factory.mktemp("inspected")
    checkpoint = load_checkpoint(run)
    checkpoint.contact_head.weight[0, 3] = 1.5
    save_checkpoint(checkpoint, result / "model")
    (result / "meta.json").write_text(json.dumps({"summary": {"precisions": PRECISIONS}}))
    return result


@pytest.fixture
def bundle(run, tmp_path, monkeypatch):
    """Package the run with some options, and return the directory."""

    def make(*options):
        output = tmp_path / "protembed_tiny"
        words = ["bundle_model.py", str(run), str(output), "--hardware", "one core", *map(str, options)]
        monkeypatch.setattr(sys, "argv", words)
        bundle_model.main()
        return output

    return make


def test_a_package_is_a_model_in_half_precision_that_says_how_it_was_made(bundle, run):
    package = bundle()
    card = (package / "README.md").read_text()

    for text in ("2 layers of width 32, 4 heads", "one core", "The contact head is not fitted.", "EsmForMaskedLM"):
        assert text in card
    with safe_open(package / "model.safetensors", framework="pt") as file:
        assert file.get_tensor("esm.embeddings.word_embeddings.weight").dtype == torch.float16
    tokens = load_checkpoint(package).encoder.embedding.weight
    torch.testing.assert_close(tokens, load_checkpoint(run).encoder.embedding.weight, atol=1e-4, rtol=1e-3)


def test_a_package_holds_the_contact_head_that_was_fitted_and_its_precision_on_other_structures(bundle, inspected):
    package = bundle("--contacts", inspected)

    assert load_checkpoint(package).contact_head.weight[0].tolist() == [0, 0, 0, 1.5, 0, 0, 0, 0]
    expected = {"precision": 0.079, "random": 0.026, "num_structures": 24}
    assert read_metadata(package).metrics["contacts"] == expected
    card = (package / "README.md").read_text()
    assert "gave weights to 1 of 8 heads, fitted to 24 structures. Fitted to others, it found 7.9 % true" in card
