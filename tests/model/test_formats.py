import json
import shutil

import pytest
import torch

from protembed.data.alphabet import CLS, EOS, TOKENS, encode
from protembed.errors import ModelFormatError
from protembed.model.checkpoint import load_checkpoint
from protembed.model.esm2_format import _FIELDS

HONOURED = {"num_hidden_layers", "hidden_size", "num_attention_heads", "model_type"}
OF_THE_SHAPE = {"intermediate_size", "head_dim"}
# Fields for training, return values, other heads, absolute positions, folding models and generation.
WITHOUT_EFFECT = frozenset(
    ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "initializer_range")
    + ("output_hidden_states", "output_attentions", "return_dict", "use_cache", "chunk_size_feed_forward")
    + ("id2label", "label2id", "num_labels", "problem_type", "max_position_embeddings", "esmfold_config")
    + ("architectures", "_name_or_path", "dtype", "torch_dtype", "transformers_version")
)
# A value of each field that is not ESM-2's.
ANOTHER = {
    "position_embedding_type": "relative_key",
    "token_dropout": "yes",
    "emb_layer_norm_before": "yes",
    "is_folding_model": "yes",
    "layer_norm_eps": 1e-12,
    "rope_theta": 500.0,
    "vocab_size": 34,
    "mask_token_id": 31,
    "tie_word_embeddings": False,
    "hidden_act": "relu",
    "is_decoder": True,
    "is_encoder_decoder": True,
    "add_cross_attention": True,
    "pruned_heads": {"0": [1]},
    "rope_scaling": {"type": "linear", "factor": 2.0},
    "rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10_000.0},
    "pad_token_id": 5,
    "bos_token_id": 2,
    "eos_token_id": 0,
    "vocab_list": [*TOKENS[:5], TOKENS[6], TOKENS[5], *TOKENS[7:]],
    "intermediate_size": 64,
    "head_dim": 16,
}
HARMLESS = {
    "hidden_act": ["gelu", None],
    "is_decoder": [False, None],
    "rope_scaling": [None, {"type": "default"}],
    "rope_parameters": [None, {"rope_type": "default", "rope_theta": 10_000.0}],
    "pad_token_id": [1, None],
    "bos_token_id": [0, None],
    "eos_token_id": [2, None, [2]],
    "vocab_list": [None, list(TOKENS)],
    "intermediate_size": [128],
    "head_dim": [8, None],
}
PASSED_OVER = {
    "hidden_dropout_prob": 0.3,
    "attention_probs_dropout_prob": 0.3,
    "classifier_dropout": 0.3,
    "initializer_range": 1.0,
    "max_position_embeddings": 514,
    "use_cache": False,
    "chunk_size_feed_forward": 4,
    "esmfold_config": {"esm_type": "esm2_3B"},
    "problem_type": "regression",
    "num_labels": 7,
    "architectures": ["EsmForTokenClassification"],
    "return_dict": False,
    "dtype": "bfloat16",
    "transformers_version": "4.20.0",
}


@pytest.fixture
def copy(tiny_model, tmp_path):
    """A copy of the tiny model for changes."""
    return shutil.copytree(tiny_model, tmp_path / "copy")


def rewrite(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# config.json


def test_every_config_field_of_transformers_is_checked_or_ignored():
    transformers = pytest.importorskip("transformers")

    known = set(transformers.EsmConfig().to_dict())

    assert known - HONOURED - OF_THE_SHAPE - set(_FIELDS) - WITHOUT_EFFECT == set()
    assert not set(_FIELDS) & WITHOUT_EFFECT


@pytest.mark.parametrize("field", [*_FIELDS, *sorted(OF_THE_SHAPE)])
def test_a_field_with_a_value_other_than_esm2s_is_an_error_that_names_it(copy, field):
    rewrite(copy / "config.json", **{field: ANOTHER[field]})

    with pytest.raises(ModelFormatError, match=f"config.json has {field} "):
        load_checkpoint(copy)


@pytest.mark.parametrize(("field", "value"), [(field, value) for field in HARMLESS for value in HARMLESS[field]])
def test_a_field_with_any_form_of_the_value_of_esm2_is_accepted(copy, field, value):
    rewrite(copy / "config.json", **{field: value})

    assert load_checkpoint(copy).encoder.shape.dim == 32


@pytest.mark.parametrize("field", PASSED_OVER)
def test_ignored_fields_change_no_hidden_state_of_transformers(copy, tiny_model, field):
    transformers = pytest.importorskip("transformers")
    assert field in WITHOUT_EFFECT
    tokens = torch.tensor([[CLS, *encode("MKTAYIAKQRQISFVK"), EOS]])

    def states(directory):
        model = transformers.EsmForMaskedLM.from_pretrained(directory, dtype=torch.float32).eval()
        with torch.no_grad():
            return model.esm(tokens)[0]

    rewrite(copy / "config.json", **{field: PASSED_OVER[field]})

    assert torch.equal(states(copy), states(tiny_model))
    assert load_checkpoint(copy).encoder.shape.dim == 32


# The tokenizer's files

SWAPPED = {"L": 4, "A": 6, "G": 5}


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("tokenizer.json", {"model": {"vocab": SWAPPED}}, "token 6 is 'A', in ESM-2 'G'"),
        ("tokenizer.json", {"model": {"vocab": {"A": 40}}}, "token 'A' is number 40, in ESM-2 5"),
        ("tokenizer.json", {"model": {"vocab": [["<s>", 0.0]]}}, "token 0 is '<s>', in ESM-2 '<cls>'"),
        ("tokenizer.json", {"added_tokens": [{"id": 0, "content": "<s>"}]}, "token 0 is '<s>', in ESM-2 '<cls>'"),
        ("added_tokens.json", {"<mask>": 33}, "token '<mask>' is number 33, in ESM-2 32"),
        ("added_tokens.json", {"#": 31}, "token 31 is '#', in ESM-2 '<null_1>'"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"1": {"content": "[PAD]"}}}, "token 1 is '.PAD.'"),
        ("tokenizer_config.json", {"mask_token": "[MASK]"}, "mask_token is '.MASK.', in ESM-2 '<mask>'"),
        ("special_tokens_map.json", {"cls_token": {"content": "<s>"}}, "cls_token is '<s>', in ESM-2 '<cls>'"),
    ],
)
def test_a_tokenizer_with_other_ids_is_an_error_that_names_its_file(copy, name, content, found):
    (copy / name).write_text(json.dumps(content))

    with pytest.raises(ModelFormatError, match=f"{name}: {found}"):
        load_checkpoint(copy)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", {"model": {"vocab": dict(zip(TOKENS, range(33), strict=True))}, "added_tokens": None}),
        ("tokenizer.json", {"model": {"vocab": []}, "added_tokens": [{"id": 33, "content": "<extra>"}, 7]}),
        ("added_tokens.json", {"<extra>": 33}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"0": {"content": "<cls>"}, "x": 1}, "mask_token": None}),
        ("special_tokens_map.json", {"mask_token": {"content": "<mask>"}, "bos_token": "<cls>"}),
    ],
)
def test_a_tokenizer_with_additional_tokens_is_accepted(copy, name, content):
    (copy / name).write_text(json.dumps(content))

    assert load_checkpoint(copy).encoder.shape.dim == 32


def test_tokenizer_files_written_by_transformers_are_accepted(copy):
    transformers = pytest.importorskip("transformers")

    transformers.EsmTokenizer.from_pretrained(copy).save_pretrained(copy)

    assert "added_tokens_decoder" in (copy / "tokenizer_config.json").read_text()
    assert load_checkpoint(copy).encoder.shape.dim == 32
