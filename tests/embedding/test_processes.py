from pathlib import Path

import pytest

from protembed.config.common import ModelConfig
from protembed.config.embed import EmbedConfig, EmbedOptions
from protembed.embedding.request import EmbeddingRequest


@pytest.mark.parametrize(
    ("given", "expected"),
    [(None, "proteins.2-of-4.npy"), ("emb.npy", "emb.2-of-4.npy"), ("-", None)],
)
def test_each_process_of_torchrun_embeds_its_shard(monkeypatch, tmp_path, tiny_model, given, expected):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    options = EmbedOptions(
        model=ModelConfig(tiny_model), embedding=EmbedConfig(output=None if given is None else Path(given))
    )

    request = EmbeddingRequest.make([Path("proteins.fasta")], options)

    assert str(request.selection.shard) == "2/4"
    assert (None if request.result.output is None else request.result.output.name) == expected
