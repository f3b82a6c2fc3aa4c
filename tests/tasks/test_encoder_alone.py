"""Commands that need the encoder alone, with a directory of transformers that holds nothing else."""

import json

import pytest

from protembed.config.finetune import FinetuneConfig
from protembed.config.inspect_attention import AttentionConfig
from protembed.config.shared import ModelConfig
from protembed.model.checkpoint import load_checkpoint
from protembed.tasks.finetune import FinetuneOptions, finetune_model
from protembed.tasks.inspect_attention import inspect_attention


@pytest.fixture
def encoder_alone(tiny_esm, tmp_path):
    """A directory saved from EsmModel."""
    tiny_esm.esm.save_pretrained(tmp_path / "encoder")
    return ModelConfig(model=tmp_path / "encoder")


def test_finetune_works_with_a_directory_saved_from_esm_model(encoder_alone, proteins, tmp_path):
    rows = [f"{protein[:60]},{'ab'[number % 2]}" for number, protein in enumerate(proteins)]
    (tmp_path / "labels.csv").write_text("\n".join(["sequence,label", *rows, ""]))
    config = FinetuneConfig(output=tmp_path / "model", method="full", epochs=1)

    finetune_model(tmp_path / "labels.csv", FinetuneOptions(finetune=config, model=encoder_alone))

    loaded = load_checkpoint(tmp_path / "model")
    assert loaded.lm_head is None
    assert loaded.task_head is not None
    notes = json.loads((tmp_path / "model" / "metrics.json").read_text())["notes"]
    assert any("no protembed.json" in note for note in notes)


def test_inspect_attention_works_with_a_directory_saved_from_esm_model(encoder_alone, proteins_fasta, tmp_path):
    inspect_attention([proteins_fasta], encoder_alone, AttentionConfig(output=tmp_path / "attention", num_maps=1))

    assert (tmp_path / "attention" / "heads.tsv").read_text().count("\n") == 1 + 2 * 4
