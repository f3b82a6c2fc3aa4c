import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from protembed.config.common import DEFAULT_MODEL, DeviceConfig, ModelConfig
from protembed.config.embed import EmbedConfig, EmbedOptions
from protembed.data.alphabet import AMINO_ACID_IDS, CLS, EOS, encode
from protembed.embedding.embed import embed_fasta
from protembed.model.catalog import bundled_models, locate_model
from protembed.model.checkpoint import load_checkpoint, new_checkpoint
from protembed.pretraining.batches import validation_batches
from protembed.pretraining.ngrams import NgramModel
from protembed.training.distributed import Executor
from protembed.training.objective import MaskedLM, evaluate

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture(params=bundled_models(), ids=lambda directory: directory.name)
def directory(request):
    return request.param


def test_the_default_is_bundled_and_documented():
    assert locate_model().directory in bundled_models()
    assert f"`{DEFAULT_MODEL}`" in README.read_text()


def test_bundled_models_are_small_and_in_half_precision_except_frequencies(directory):
    assert sum(path.stat().st_size for path in directory.iterdir()) < 20e6
    with safe_open(directory / "model.safetensors", framework="pt") as file:
        dtypes = {name: file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118

    assert {dtype for name, dtype in dtypes.items() if name.endswith("inv_freq")} == {torch.float32}
    assert {dtype for name, dtype in dtypes.items() if not name.endswith("inv_freq")} == {torch.float16}


def test_the_card_describes_data_licence_recipe_results_and_limits(directory):
    card = (directory / "README.md").read_text()

    for heading in ("Training", "Results", "Data and licence", "Limits", "Loading"):
        assert f"\n## {heading}\n" in card
    for row in ("residues seen", "recipe", "compute", "random initialisation", "3-mers", "layer 1"):
        assert f"\n| {row} | " in card
    for row in ("unigram", "bigram", "random initialisation", "the model"):
        assert re.search(rf"\n\| valid_strict \([\d,]+\) \| {row} \|", card)
    assert "[CC BY 4.0](https://creativecommons.org/licenses/by/4.0/)" in card
    assert "It is small. For better vectors use an ESM-2 model" in card
    for picture in re.findall(r"!\[[^]]+\]\(([^)]+)\)", card):
        assert (directory / picture).exists()
    assert f"{load_checkpoint(directory).metadata.metrics['residues_seen']:,} in " in card


def test_the_layer_for_embedding_is_recorded_and_used(directory, proteins_fasta, tmp_path):
    layer = json.loads((directory / "protembed.json").read_text())["layer"]
    for name, chosen in (("auto", "auto"), ("recorded", str(layer)), ("other", str(layer - 1))):
        config = EmbedConfig(output=tmp_path / f"{name}.npy", layer=chosen)
        embed_fasta(
            [proteins_fasta],
            EmbedOptions(model=ModelConfig(model=directory), embedding=config, compute=DeviceConfig(threads=1)),
        )

    assert isinstance(layer, int)
    np.testing.assert_array_equal(np.load(tmp_path / "auto.npy"), np.load(tmp_path / "recorded.npy"))
    assert not np.allclose(np.load(tmp_path / "auto.npy"), np.load(tmp_path / "other.npy"))


@pytest.mark.promise(11)
def test_transformers_loads_bundled_models_without_warnings_and_agrees(directory, proteins, capfd, caplog):
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()
    theirs, report = transformers.EsmForMaskedLM.from_pretrained(directory, output_loading_info=True)

    assert {name: list(found) for name, found in report.items() if found} == {}
    assert theirs.dtype == torch.float32
    assert (*capfd.readouterr(), caplog.text) == ("", "", "")

    checkpoint = load_checkpoint(directory)
    for sequence in proteins[:5]:
        tokens = torch.tensor([CLS, *encode(sequence).tolist(), EOS])
        with torch.no_grad():
            expected = theirs.eval()(tokens[None], torch.ones_like(tokens)[None], output_hidden_states=True)
            states = list(
                checkpoint.encoder.hidden_states(tokens, checkpoint.encoder.layout(torch.tensor([0, len(tokens)])))
            )
            logits = checkpoint.lm_head(states[-1], checkpoint.encoder.embedding.weight, AMINO_ACID_IDS)
        amino_acids = expected.logits[0, :, AMINO_ACID_IDS]
        for value, other in zip(
            [*states, logits], [*(state[0] for state in expected.hidden_states), amino_acids], strict=True
        ):
            # Some coordinates of a trained model grow to hundreds, where float32 itself is no finer than 1e-5: from
            # the same model in float64, transformers is as far away as we are.
            torch.testing.assert_close(value, other, rtol=1e-5, atol=1e-5 * max(1.0, other.abs().max().item()))


def test_bundled_models_beat_the_unigram_model(directory, corpus, pool):
    micro_batches = validation_batches(corpus, load_checkpoint(directory).metadata.window_residues, 1024)
    losses = {}
    for name, checkpoint in (
        ("bundled", load_checkpoint(directory)),
        ("random", new_checkpoint(load_checkpoint(directory).encoder.shape, "gaussian", seed=0)),
    ):
        objective = MaskedLM(checkpoint.encoder, checkpoint.lm_head)
        losses[name] = evaluate(objective, micro_batches, Executor(pool=pool)).mean().item()

    # The composition of the measured proteins themselves is a harder bar than that of the training proteins.
    assert losses["bundled"] < NgramModel(corpus).losses(micro_batches)["unigram"] < losses["random"]
