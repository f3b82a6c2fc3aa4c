"""Commands that need only the encoder, with a directory of transformers that contains nothing else."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from protembed.attention.inspect_attention import inspect_attention
from protembed.config.common import ModelConfig
from protembed.config.finetune import FinetuneConfig, FinetuneOptions
from protembed.config.inspect_attention import AttentionConfig, AttentionOptions
from protembed.finetuning.finetune import finetune_model
from protembed.model.checkpoint import load_checkpoint


@pytest.fixture
def bare_encoder(tiny_esm, tmp_path):
    """Save a directory from EsmModel, with rotary frequencies that were rounded in training."""
    tiny_esm.esm.save_pretrained(tmp_path / "encoder")
    path = tmp_path / "encoder" / "model.safetensors"
    rounded = {name: value.half().float() if "inv_freq" in name else value for name, value in load_file(path).items()}
    save_file(rounded, path, metadata={"format": "pt"})
    return ModelConfig(model=tmp_path / "encoder")


@pytest.mark.parametrize("method", ["full", "lora"])
def test_finetune_accepts_a_directory_saved_from_esm_model(bare_encoder, proteins, tmp_path, method):
    rows = [f"{protein[:60]},{'ab'[number % 2]}" for number, protein in enumerate(proteins)]
    (tmp_path / "labels.csv").write_text("\n".join(["sequence,label", *rows, ""]))
    config = FinetuneConfig(output=tmp_path / "model", method=method, epochs=1)

    finetune_model(tmp_path / "labels.csv", FinetuneOptions(finetune=config, model=bare_encoder))

    loaded = load_checkpoint(tmp_path / "model")
    assert loaded.lm_head is None
    frequencies = load_checkpoint(bare_encoder.model).encoder.inverse_frequencies
    assert torch.equal(frequencies, frequencies.half().float())
    assert torch.equal(loaded.encoder.inverse_frequencies, frequencies)
    assert loaded.task_head is not None
    notes = json.loads((tmp_path / "model" / "metrics.json").read_text())["notes"]
    assert any("no protembed.json" in note for note in notes)


def test_inspect_attention_accepts_a_directory_saved_from_esm_model(bare_encoder, proteins_fasta, tmp_path):
    inspect_attention(
        [proteins_fasta],
        AttentionOptions(model=bare_encoder, attention=AttentionConfig(output=tmp_path / "attention", save_maps=1)),
    )

    assert (tmp_path / "attention" / "heads.tsv").read_text().count("\n") == 1 + 2 * 4
