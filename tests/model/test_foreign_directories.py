import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from protembed.config.common import ModelConfig
from protembed.config.embed import EmbedConfig, EmbedOptions
from protembed.config.model_sizes import ESM2Shape, ESMCShape
from protembed.config.pretrain import PretrainConfig, PretrainOptions
from protembed.config.score import ScoreConfig, ScoreOptions
from protembed.data.alphabet import CLS, EOS, encode
from protembed.embedding.embed import embed_fasta
from protembed.errors import ModelFormatError
from protembed.model.checkpoint import load_checkpoint, new_checkpoint, save_checkpoint
from protembed.model.metadata import ModelMetadata
from protembed.pretraining.pretrain import pretrain_model
from protembed.scoring.score_variants import score_variants

TINY = ESM2Shape(num_layers=2, dim=32, num_heads=4)
TOKENS = torch.tensor([CLS, *encode("MKTAYIAKQRQISFVKSHFSRQ"), EOS])


def last_states(directory):
    encoder = load_checkpoint(directory).encoder
    with torch.inference_mode():
        return encoder(TOKENS, encoder.layout(torch.tensor([0, len(TOKENS)])))


def rewrite_weights(directory, rewrite):
    path = directory / "model.safetensors"
    save_file(rewrite(load_file(path)), path, metadata={"format": "pt"})


def renamed(rename):
    return lambda tensors: {rename(name): value for name, value in tensors.items()}


@pytest.fixture
def whole(tiny_esm, tmp_path):
    """A directory saved from EsmForMaskedLM."""
    tiny_esm.save_pretrained(tmp_path / "whole")
    return tmp_path / "whole"


@pytest.fixture
def embed_rows(tmp_path, proteins_fasta):
    """Embed proteins with a model; return the rows and the warnings about the model."""

    def run(model, **options):
        output = tmp_path / "rows.npy"
        config = EmbedConfig(output=output, force=True, **options)
        summary = embed_fasta([proteins_fasta], EmbedOptions(model=ModelConfig(model=model), embedding=config))
        return np.load(output), [warning for warning in summary.warnings if "protembed.json" in warning]

    return run


# Other heads


@pytest.mark.promise(11)
@pytest.mark.parametrize("kind", ["EsmModel", "EsmForSequenceClassification", "EsmForTokenClassification"])
def test_the_encoder_is_read_from_directories_saved_from_other_classes(whole, tmp_path, kind):
    transformers = pytest.importorskip("transformers")
    model = getattr(transformers, kind).from_pretrained(whole)

    model.save_pretrained(tmp_path / kind)

    loaded = load_checkpoint(tmp_path / kind)
    assert torch.equal(last_states(tmp_path / kind), last_states(whole))
    assert loaded.contact_head.is_fitted
    assert loaded.lm_head is None
    with pytest.raises(ModelFormatError, match="the weights have no lm_head.*saved from EsmForMaskedLM"):
        loaded.require_lm_head()


def test_a_directory_without_a_contact_head_has_one_of_zeros(whole):
    expected = last_states(whole)
    rewrite_weights(whole, lambda tensors: {name: tensors[name] for name in tensors if "contact_head" not in name})

    loaded = load_checkpoint(whole)

    assert not loaded.contact_head.is_fitted
    assert loaded.contact_head.weight.shape == (1, 8)
    assert loaded.lm_head is not None
    assert torch.equal(last_states(whole), expected)


@pytest.mark.parametrize("missing", ["lm_head.bias", "lm_head.dense.weight", "esm.contact_head.regression.bias"])
def test_an_incomplete_head_is_an_error_that_names_the_missing_weight(whole, missing):
    rewrite_weights(whole, lambda tensors: {name: tensors[name] for name in tensors if name != missing})

    with pytest.raises(ModelFormatError, match=f"the weights have no {missing}"):
        load_checkpoint(whole)


def test_a_model_without_a_masked_lm_head_is_saved_without_one_for_transformers(whole, tmp_path):
    transformers = pytest.importorskip("transformers")
    rewrite_weights(whole, lambda tensors: {name: tensors[name] for name in tensors if "lm_head" not in name})

    save_checkpoint(load_checkpoint(whole), tmp_path / "back", "# card\n")

    assert json.loads((tmp_path / "back" / "config.json").read_text())["architectures"] == ["EsmModel"]
    assert torch.equal(last_states(tmp_path / "back"), last_states(whole))
    model, facts = transformers.EsmModel.from_pretrained(
        tmp_path / "back", add_pooling_layer=False, output_loading_info=True
    )
    assert not any(facts.values())
    with torch.no_grad():
        torch.testing.assert_close(model(TOKENS[None]).last_hidden_state[0], last_states(whole), rtol=1e-5, atol=1e-5)


# What a model was wrapped in


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod.", "base_model.model.", "model."]
)
@pytest.mark.parametrize("kind", ["EsmForMaskedLM", "EsmModel"])
def test_prefixes_of_modules_that_wrapped_a_model_are_removed(whole, prefix, kind):
    expected = last_states(whole)
    rewrite_weights(
        whole, renamed(lambda name: prefix + (name if kind == "EsmForMaskedLM" else name.removeprefix("esm.")))
    )

    assert torch.equal(last_states(whole), expected)
    assert load_checkpoint(whole).lm_head is not None


def test_an_encoder_within_an_unknown_model_is_an_error_that_names_the_prefix(whole):
    rewrite_weights(whole, renamed("plm_encoder.".__add__))

    with pytest.raises(ModelFormatError, match=r"begin with 'plm_encoder\.esm\.'; save the encoder alone"):
        load_checkpoint(whole)


def test_two_encoders_in_one_directory_are_an_error_that_names_the_prefixes(whole):
    rewrite_weights(
        whole, lambda tensors: tensors | {f"module.{name}": value.clone() for name, value in tensors.items()}
    )

    with pytest.raises(ModelFormatError, match=r"several encoders, named 'esm\.' and 'module\.esm\.'"):
        load_checkpoint(whole)


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.esm.encoder.layer.0.attention.self.query.lora_A.default.weight",
        "base_model.model.esm.encoder.layer.0.attention.self.query.base_layer.weight",
        "esm.encoder.layer.0.attention.self.query.lora_A.weight",
        "esm.encoder.layer.0.output.adapters.task.adapter_down.0.weight",
    ],
)
def test_an_unmerged_adapter_is_an_error(whole, name):
    rewrite_weights(whole, lambda tensors: tensors | {name: torch.ones(4, 32)})

    with pytest.raises(ModelFormatError, match="the weights hold an adapter.*merge it into the model"):
        load_checkpoint(whole)


def test_a_weight_under_two_names_is_an_error_unless_both_are_equal(whole):
    name = "esm.encoder.layer.0.LayerNorm"
    expected = last_states(whole)
    rewrite_weights(whole, lambda tensors: tensors | {f"{name}.weight": tensors[f"{name}.gamma"].clone()})
    assert torch.equal(last_states(whole), expected)

    rewrite_weights(whole, lambda tensors: tensors | {f"{name}.weight": tensors[f"{name}.gamma"] + 1})
    with pytest.raises(ModelFormatError, match=f"the weights have {name}.weight twice"):
        load_checkpoint(whole)


# The decoder


def test_a_stored_decoder_that_equals_the_embedding_is_accepted(whole):
    expected = last_states(whole)
    rewrite_weights(
        whole,
        lambda tensors: tensors | {"lm_head.decoder.weight": tensors["esm.embeddings.word_embeddings.weight"].clone()},
    )

    assert torch.equal(last_states(whole), expected)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_stored_decoder_that_differs_from_the_embedding_is_an_error(whole, prefix):
    decoder = torch.randn(33, 32, generator=torch.Generator().manual_seed(1))
    rewrite_weights(whole, lambda tensors: tensors | {"lm_head.decoder.weight": decoder})
    rewrite_weights(whole, renamed(prefix.__add__))

    with pytest.raises(ModelFormatError, match=r"lm_head\.decoder\.weight differs from the embedding"):
        load_checkpoint(whole)


# Directories without metadata


def test_a_round_trip_through_transformers_loses_the_window_with_a_warning(tiny_checkpoint, tmp_path, embed_rows):
    transformers = pytest.importorskip("transformers")
    tiny_checkpoint.metadata = ModelMetadata(window_residues=20, layer=1)
    save_checkpoint(tiny_checkpoint, tmp_path / "original", "# card\n")
    transformers.EsmForMaskedLM.from_pretrained(tmp_path / "original").save_pretrained(tmp_path / "back")

    original, warnings_of_original = embed_rows(tmp_path / "original")
    back, warnings_of_back = embed_rows(tmp_path / "back")
    named, warnings_of_named = embed_rows(tmp_path / "back", window_residues=20, layer="1")

    assert not np.array_equal(original, back)
    assert np.array_equal(original, named)
    assert warnings_of_original == warnings_of_named == []
    (warning,) = warnings_of_back
    assert "no protembed.json: a window of 1,022 residues, the last layer and the mean are assumed" in warning


def test_a_model_in_the_hubs_cache_counts_as_published_without_a_warning(whole, tmp_path):
    snapshot = tmp_path / "models--lab--tiny" / "snapshots" / "c0ffee"
    snapshot.parent.mkdir(parents=True)
    assert len(load_checkpoint(whole).warnings) == 1

    whole.rename(snapshot)

    assert load_checkpoint(snapshot).warnings == []


@pytest.mark.parametrize("task", ["score", "pretrain --init-from", "pretrain --compare-model"])
def test_tasks_that_need_a_masked_lm_head_reject_a_model_without_one(tiny_model, whole, tmp_path, proteins_fasta, task):
    rewrite_weights(whole, lambda tensors: {name: tensors[name] for name in tensors if "lm_head" not in name})
    (tmp_path / "variants.csv").write_text("sequence,mutant\nMKTAYIAKQR,K2A\n")
    output = tmp_path / "out"

    def run():
        if task == "score":
            scoring = ScoreConfig(output=output, method="masked-marginals")
            score_variants(tmp_path / "variants.csv", ScoreOptions(model=ModelConfig(model=whole), scoring=scoring))
        else:
            models = {"init_from": whole} if "init" in task else {"compare_model": whole, "size": "t4_1M"}
            config = PretrainConfig(output=output, steps=1, **models)
            pretrain_model([proteins_fasta], PretrainOptions(pretrain=config))

    with pytest.raises(ModelFormatError, match="the weights have no lm_head"):
        run()
    assert not output.exists()


# Other members of the family

SIZE = {"num_layers": 2, "dim": 32, "num_heads": 4}
ASSUMED = {
    "ESM-2": (ESM2Shape(**SIZE), 1022),
    "ESM-1b": (ESM2Shape(**SIZE, num_positions=1024, has_embedding_norm=True), 1022),
    "ESM-1v": (ESM2Shape(**SIZE, num_positions=66), 64),
    "ESM-C": (ESMCShape(**SIZE), 2046),
}


@pytest.fixture(params=ASSUMED)
def assumed(request, tmp_path):
    """The name of a member, its window, and the directory of a model of it."""
    shape, window = ASSUMED[request.param]
    save_checkpoint(new_checkpoint(shape, "gaussian", 0), tmp_path / "member", "# card\n")
    return request.param, window, tmp_path / "member"


def test_the_window_of_the_member_is_assumed_with_a_warning_that_names_it(assumed):
    name, window, directory = assumed
    (directory / "protembed.json").unlink()

    checkpoint = load_checkpoint(directory)

    assert checkpoint.metadata.window_residues == window
    (warning,) = checkpoint.warnings
    assert f"a window of {window:,} residues, the last layer and the mean are assumed" in warning
    assert f"right for published {name} models" in warning


def test_metadata_without_a_window_are_those_of_a_model_with_the_window_of_the_member(assumed):
    _, window, directory = assumed
    (directory / "protembed.json").write_text(json.dumps({"format_version": 1}))

    assert load_checkpoint(directory).metadata.window_residues == window


def test_an_error_of_a_config_names_the_member(assumed):
    name, _, directory = assumed
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 1e-12}))

    with pytest.raises(ModelFormatError, match=f"an {name} model has another value there"):
        load_checkpoint(directory)
