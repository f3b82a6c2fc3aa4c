"""How ESM-C is stored in Hugging Face layout: `config.json`, the tokenizer, the weight names."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from protembed.config.model_sizes import ESMC_NUM_ROWS, LAYER_NORM_EPS, ROTARY_BASE, ESMCShape
from protembed.data.alphabet import CLS, EOS, MASK, NUM_SPECIAL_TOKENS, PAD, TOKENS
from protembed.model.hf_format import (
    SPECIAL_TOKENS,
    ModelFormat,
    check_fields,
    check_widths,
    is_plain_rotation,
    whole_number,
)

# ESM-C has a chain break where ESM-2 has a token without meaning.
_CHAIN_BREAK = "|"
_VOCABULARY = tuple(_CHAIN_BREAK if token == "<null_1>" else token for token in TOKENS)
_SPECIAL_IDS = (*range(4), _VOCABULARY.index(_CHAIN_BREAK), MASK)

# The fields that make a model an ESM-C, and the test that each value must pass. Absent fields are not tested.
_FIELDS: dict[str, Callable[[Any], bool]] = {
    "attention_bias": lambda value: not value,
    "mlp_bias": lambda value: not value,
    "hidden_act": lambda value: value == "silu",
    "layer_norm_eps": lambda value: value == LAYER_NORM_EPS,
    "rope_theta": lambda value: value == ROTARY_BASE,
    "rope_scaling": is_plain_rotation,
    "rope_parameters": is_plain_rotation,
    "vocab_size": lambda value: value == ESMC_NUM_ROWS,
    "tie_word_embeddings": lambda value: value is False,
    "mask_token_id": lambda value: value in (MASK, None),
    "pad_token_id": lambda value: value in (PAD, None),
    "bos_token_id": lambda value: value in (CLS, None),
    "eos_token_id": lambda value: value in (EOS, [EOS], None),
    "is_decoder": lambda value: not value,
    "is_encoder_decoder": lambda value: not value,
    "add_cross_attention": lambda value: not value,
    "pruned_heads": lambda value: not value,
}


def _config_json(shape: ESMCShape, *, has_lm_head: bool = True) -> dict[str, Any]:
    """Make the content of `config.json`, with every field that matters to transformers written out."""
    return {
        "architectures": ["EsmcForMaskedLM" if has_lm_head else "EsmcModel"],
        "model_type": "esmc",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": CLS,
        "classifier_dropout": 0.1,
        "dtype": "float32",
        "eos_token_id": EOS,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "hidden_size": shape.dim,
        "initializer_range": 0.02,
        "intermediate_size": shape.feed_forward_dim,
        "mask_token_id": MASK,
        "max_position_embeddings": shape.trained_window_residues + NUM_SPECIAL_TOKENS,
        "mlp_bias": False,
        "num_attention_heads": shape.num_heads,
        "num_hidden_layers": shape.num_layers,
        "num_key_value_heads": shape.num_heads,
        "pad_token_id": PAD,
        "rope_parameters": {"rope_theta": ROTARY_BASE, "rope_type": "default"},
        "tie_word_embeddings": False,
        "vocab_size": ESMC_NUM_ROWS,
    }


def _read_shape(directory: Path, config: Mapping[str, Any]) -> ESMCShape:
    check_fields(directory, config, _FIELDS, "ESM-C")
    shape = ESMCShape(
        num_layers=whole_number(directory, config, "num_hidden_layers"),
        dim=whole_number(directory, config, "hidden_size"),
        num_heads=whole_number(directory, config, "num_attention_heads"),
    )
    check_fields(directory, config, {"num_key_value_heads": lambda value: value in (shape.num_heads, None)}, "ESM-C")
    check_widths(directory, config, shape, "ESM-C")
    return shape


def _tokenizer_files() -> dict[str, str | dict[str, Any]]:
    """Make the files that transformers' tokenizer writes: one token a letter, `<cls>` before and `<eos>` after."""
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    cls, eos = ({"SpecialToken": {"id": token, "type_id": 0}} for token in ("<cls>", "<eos>"))
    first, second = ({"Sequence": {"id": name, "type_id": number}} for number, name in enumerate("AB"))
    tokenizer: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": number, "content": _VOCABULARY[number], **special} for number in _SPECIAL_IDS],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [cls, first, eos],
            "pair": [first, second],
            "special_tokens": {
                token: {"id": token, "ids": [_VOCABULARY.index(token)], "tokens": [token]}
                for token in ("<cls>", "<eos>")
            },
        },
        "decoder": None,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: number for number, token in enumerate(_VOCABULARY)},
            "merges": [],
        },
    }
    config = {
        **SPECIAL_TOKENS,
        "backend": "tokenizers",
        "bos_token": "<cls>",
        "chain_break_token": _CHAIN_BREAK,
        "tokenizer_class": "EsmcTokenizer",
    }
    return {"tokenizer.json": tokenizer, "tokenizer_config.json": config}


def _weight_names(shape: ESMCShape) -> dict[str, tuple[str, ...]]:
    names: dict[str, tuple[str, ...]] = {
        "encoder.embedding.weight": (_EMBEDDING,),
        "encoder.final_norm.weight": ("esmc.norm.weight",),
        "lm_head.decoder.weight": ("lm_head.decoder.weight",),
        "lm_head.bias": ("lm_head.decoder.bias",),
    }
    for module in ("lm_head.dense", "lm_head.layer_norm"):
        names |= {f"{module}.{kind}": (f"{module}.{kind}",) for kind in ("weight", "bias")}
    for index in range(shape.num_layers):
        layer, stored = f"encoder.layers.{index}", f"{_LAYERS}{index}"
        for norm, stored_norm in {
            "attention_norm": "input_layernorm",
            "feed_forward_norm": "post_attention_layernorm",
        }.items():
            names |= {f"{layer}.{norm}.{kind}": (f"{stored}.{stored_norm}.{kind}",) for kind in ("weight", "bias")}
        names |= {
            f"{layer}.attention.qkv.weight": tuple(f"{stored}.self_attn.{part}_proj.weight" for part in "qkv"),
            f"{layer}.attention.query_norm.weight": (f"{stored}.self_attn.q_norm.weight",),
            f"{layer}.attention.key_norm.weight": (f"{stored}.self_attn.k_norm.weight",),
            f"{layer}.attention.out.weight": (f"{stored}.self_attn.o_proj.weight",),
            f"{layer}.feed_forward.gate.weight": (f"{stored}.mlp.gate_proj.weight",),
            f"{layer}.feed_forward.up.weight": (f"{stored}.mlp.up_proj.weight",),
            f"{layer}.feed_forward.down.weight": (f"{stored}.mlp.down_proj.weight",),
        }
    return names


_EMBEDDING, _LAYERS = "esmc.embed_tokens.weight", "esmc.layers."
ESMC_FORMAT = ModelFormat(
    name="ESM-C",
    name_of=lambda shape: "ESM-C",
    model_type="esmc",
    class_name="EsmcForMaskedLM",
    shape_type=ESMCShape,
    tokens=_VOCABULARY,
    prefix="esmc.",
    layer_prefix=_LAYERS,
    embedding=_EMBEDDING,
    decoder=None,
    read_shape=_read_shape,
    config_json=_config_json,
    tokenizer_files=_tokenizer_files,
    weight_names=_weight_names,
)
