"""Models of each architecture whose files do not fit their architecture, or one another."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from protembed.errors import ModelFormatError
from protembed.model.checkpoint import load_checkpoint
from protembed.model.formats import format_of

WEIGHTS = "model.safetensors"


@pytest.fixture
def changed(family_model, tmp_path):
    """A copy of a tiny model of each architecture, for changes."""
    return shutil.copytree(family_model, tmp_path / "changed")


@pytest.fixture
def model_format(family_shape):
    """How the models of `changed` are stored."""
    return format_of(family_shape)


def rewrite_config(directory, **changes):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def error_of(directory):
    with pytest.raises(ModelFormatError) as caught:
        load_checkpoint(directory)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.promise(18)
def test_a_vocabulary_in_another_order_is_an_error(changed, model_format):
    tokens = list(model_format.tokens)
    tokens[5], tokens[6] = tokens[6], tokens[5]
    (changed / "vocab.txt").write_text("\n".join(tokens))

    assert f"vocab.txt: token 5 is 'G', in {model_format.name} 'A'" in error_of(changed)


@pytest.mark.promise(18)
def test_a_tokenizer_with_other_ids_is_an_error(changed, model_format):
    ids = {token: number for number, token in enumerate(model_format.tokens)} | {"A": 6, "G": 5}
    (changed / "tokenizer.json").write_text(json.dumps({"model": {"vocab": ids}}))

    assert f"tokenizer.json: token 6 is 'A', in {model_format.name} 'G'" in error_of(changed)


@pytest.mark.promise(18)
def test_every_missing_tensor_is_an_error_that_names_it(changed, model_format):
    tensors = load_file(changed / WEIGHTS)
    needed = [name for name in tensors if "inv_freq" not in name]
    assert len(needed) > 20

    for missing in needed:
        save_file({name: value for name, value in tensors.items() if name != missing}, changed / WEIGHTS)

        assert missing in error_of(changed)


@pytest.mark.promise(18)
def test_layers_that_are_missing_are_an_error_with_both_numbers(changed, model_format):
    tensors = load_file(changed / WEIGHTS)
    last = f"{model_format.layer_prefix}1."
    kept = {name: value for name, value in tensors.items() if not name.startswith(last)}
    save_file(kept, changed / WEIGHTS)

    assert "config.json names 2 layers, the weights have 1" in error_of(changed)


def test_an_encoder_inside_another_model_is_an_error_that_names_the_classes_to_save(changed, model_format):
    tensors = load_file(changed / WEIGHTS)
    save_file({f"plm.{name}": value for name, value in tensors.items()}, changed / WEIGHTS)

    message = error_of(changed)

    assert f"the names of the encoder's weights begin with 'plm.{model_format.prefix}'" in message
    model = model_format.class_name.removesuffix("ForMaskedLM")
    assert f"by `save_pretrained` of its {model}Model or {model}ForMaskedLM" in message


@pytest.mark.promise(18)
@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"model_type": "esm4"}, "this is a model of type 'esm4'"),
        ({"layer_norm_eps": 1e-12}, "config.json has layer_norm_eps 1e-12"),
        ({"hidden_act": "relu"}, "config.json has hidden_act 'relu'"),
        ({"vocab_size": 34}, "config.json has vocab_size 34"),
        ({"mask_token_id": 31}, "config.json has mask_token_id 31"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "config.json has rope_parameters"),
        ({"intermediate_size": 96}, "config.json has intermediate_size 96, where"),
        ({"head_dim": 16}, "config.json has head_dim 16, where"),
        ({"hidden_size": 64, "intermediate_size": 256, "head_dim": 16}, "has shape"),
        ({"num_attention_heads": 5, "num_key_value_heads": 5}, "does not divide into 5 heads of even size"),
    ],
    ids=str,
)
def test_a_config_of_another_or_newer_kind_is_an_error_that_names_the_field(changed, changes, found):
    rewrite_config(changed, **changes)

    assert found in error_of(changed)


@pytest.mark.promise(18)
@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"attention_bias": True}, "attention_bias True"),
        ({"mlp_bias": True}, "mlp_bias True"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings True"),
        ({"num_key_value_heads": 2}, "num_key_value_heads 2"),
        ({"rope_theta": 500.0}, "rope_theta 500.0"),
    ],
    ids=str,
)
@pytest.mark.parametrize("family_shape", ["ESM-C"], indirect=True)
def test_an_esmc_with_other_parts_is_an_error(changed, changes, found):
    rewrite_config(changed, **changes)

    assert f"config.json has {found}" in error_of(changed)


@pytest.mark.promise(18)
@pytest.mark.parametrize(
    ("tensors", "found"),
    [
        ({}, "it has no weight; the files"),
        ({"weight": torch.zeros(1, 8)}, "it has no bias; the files"),
        ({"weight": torch.zeros(1, 7), "bias": torch.zeros(1)}, "weight has shape (1, 7), not (1, 8); the files"),
        ({"weight": torch.zeros(1, 8), "bias": torch.zeros(1), "a": torch.zeros(1)}, "it has 'a', which is not part"),
        ({"weight": torch.zeros(1, 8).long(), "bias": torch.zeros(1)}, "weight is of type I64"),
        ({"weight": torch.full((1, 8), torch.nan), "bias": torch.zeros(1)}, "weight holds values that are not finite"),
        ({f"a{number}": torch.zeros(1) for number in range(9_000)}, "it has no weight; the files"),
    ],
    ids=["empty", "one missing", "another width", "one too many", "whole numbers", "not finite", "many names"],
)
@pytest.mark.parametrize("family_shape", ["ESM-C"], indirect=True)
def test_a_damaged_contact_head_beside_the_weights_is_an_error(changed, tensors, found):
    save_file(tensors, changed / "contact_head.safetensors")

    assert f"contact_head.safetensors: {found}" in error_of(changed)


@pytest.mark.promise(18)
def test_tensors_of_several_precisions_are_read_as_the_values_that_they_are(changed, tmp_path):
    precisions = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
    stored = sorted(load_file(changed / WEIGHTS).items(), key=lambda item: item[0])
    mixed = {
        name: value if "inv_freq" in name else value.to(precisions[number % 4])
        for number, (name, value) in enumerate(stored)
    }
    rounded = shutil.copytree(changed, tmp_path / "rounded")
    save_file(mixed, changed / WEIGHTS)
    save_file({name: value.float() for name, value in mixed.items()}, rounded / WEIGHTS)

    checkpoint, expected = load_checkpoint(changed), load_checkpoint(rounded)

    for part in ("encoder", "lm_head"):
        state = getattr(checkpoint, part).state_dict()
        assert {value.dtype for value in state.values()} == {torch.float32}
        assert all(torch.equal(state[name], value) for name, value in getattr(expected, part).state_dict().items())
