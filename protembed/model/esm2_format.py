"""How ESM-2, ESM-1b and ESM-1v are stored in Hugging Face layout: `config.json`, the tokenizer, the weight names."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from protembed.config.model_sizes import (
    ESM2_WINDOW_RESIDUES,
    LAYER_NORM_EPS,
    NUM_UNUSED_POSITIONS,
    ROTARY_BASE,
    ESM2Shape,
)
from protembed.data.alphabet import CLS, EOS, MASK, NUM_SPECIAL_TOKENS, PAD, TOKENS
from protembed.errors import ModelFormatError
from protembed.model.hf_format import (
    SPECIAL_TOKENS,
    VOCABULARY_FILE,
    ModelFormat,
    check_fields,
    check_widths,
    is_plain_rotation,
    whole_number,
)

_TOKENIZER_CONFIG = {**SPECIAL_TOKENS, "tokenizer_class": "EsmTokenizer", "do_lower_case": False}

# The fields that make a model an ESM-2, ESM-1b or ESM-1v, and the test that each value must pass; absent ones need not.
_FIELDS: dict[str, Callable[[Any], bool]] = {
    "position_embedding_type": lambda value: value in ("rotary", "absolute"),
    "token_dropout": lambda value: type(value) is bool,
    "emb_layer_norm_before": lambda value: value is None or type(value) is bool,
    "is_folding_model": lambda value: not value,
    "layer_norm_eps": lambda value: value == LAYER_NORM_EPS,
    "rope_theta": lambda value: value == ROTARY_BASE,
    "vocab_size": lambda value: value == len(TOKENS),
    "mask_token_id": lambda value: value == MASK,
    "tie_word_embeddings": lambda value: value is True,
    "hidden_act": lambda value: value in ("gelu", None),
    "is_decoder": lambda value: not value,
    "is_encoder_decoder": lambda value: not value,
    "add_cross_attention": lambda value: not value,
    "pruned_heads": lambda value: not value,
    "rope_scaling": is_plain_rotation,
    "rope_parameters": is_plain_rotation,
    "pad_token_id": lambda value: value in (PAD, None),
    "bos_token_id": lambda value: value in (CLS, None),
    "eos_token_id": lambda value: value in (EOS, [EOS], None),
    "vocab_list": lambda value: value is None or value == list(TOKENS),
}


def _config_json(shape: ESM2Shape, *, has_lm_head: bool = True) -> dict[str, Any]:
    """Make the content of `config.json`, with every field that matters to transformers written out."""
    return {
        "architectures": ["EsmForMaskedLM" if has_lm_head else "EsmModel"],
        "model_type": "esm",
        "attention_probs_dropout_prob": 0.0,
        "bos_token_id": CLS,
        "classifier_dropout": None,
        "dtype": "float32",
        "emb_layer_norm_before": shape.has_embedding_norm,
        "eos_token_id": EOS,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "hidden_size": shape.dim,
        "initializer_range": 0.02,
        "intermediate_size": shape.feed_forward_dim,
        "is_folding_model": False,
        "layer_norm_eps": LAYER_NORM_EPS,
        "mask_token_id": MASK,
        "max_position_embeddings": (shape.num_positions or ESM2_WINDOW_RESIDUES + NUM_SPECIAL_TOKENS)
        + NUM_UNUSED_POSITIONS,
        "num_attention_heads": shape.num_heads,
        "num_hidden_layers": shape.num_layers,
        "pad_token_id": PAD,
        "position_embedding_type": "rotary" if shape.num_positions is None else "absolute",
        "rope_theta": ROTARY_BASE,
        "tie_word_embeddings": True,
        "token_dropout": shape.has_token_dropout,
        "use_cache": True,
        "vocab_size": len(TOKENS),
    }


def _name_of(num_positions: int | None, *, has_embedding_norm: bool) -> str:
    if num_positions is None:
        return "ESM-2"
    return "ESM-1b" if has_embedding_norm else "ESM-1v"


def _read_shape(directory: Path, config: Mapping[str, Any]) -> ESM2Shape:
    # transformers' defaults for these are not ESM-2's.
    for name in ("position_embedding_type", "token_dropout", "layer_norm_eps"):
        if name not in config:
            raise ModelFormatError(
                directory, f"config.json has no {name}", "an ESM-2 model in Hugging Face layout does"
            )
    num_positions, has_embedding_norm = None, bool(config.get("emb_layer_norm_before"))
    if config["position_embedding_type"] == "absolute":
        num_positions = whole_number(directory, config, "max_position_embeddings") - NUM_UNUSED_POSITIONS
        if num_positions <= NUM_SPECIAL_TOKENS:
            found = f"config.json has max_position_embeddings {config['max_position_embeddings']}"
            raise ModelFormatError(directory, found, "learned positions for at least one residue are expected")
    name = _name_of(num_positions, has_embedding_norm=has_embedding_norm)
    check_fields(directory, config, _FIELDS, name)
    shape = ESM2Shape(
        num_layers=whole_number(directory, config, "num_hidden_layers"),
        dim=whole_number(directory, config, "hidden_size"),
        num_heads=whole_number(directory, config, "num_attention_heads"),
        num_positions=num_positions,
        has_embedding_norm=has_embedding_norm,
        has_token_dropout=config["token_dropout"],
    )
    check_widths(directory, config, shape, name)
    return shape


def _tokenizer_files() -> dict[str, str | dict[str, Any]]:
    return {
        VOCABULARY_FILE: "\n".join(TOKENS),
        "tokenizer_config.json": _TOKENIZER_CONFIG,
        "special_tokens_map.json": dict(SPECIAL_TOKENS),
    }


def _rotary_name(layer: int) -> str:
    """Name a layer's copy of the rotary frequencies; transformers warns where it is missing."""
    return f"esm.encoder.layer.{layer}.attention.self.rotary_embeddings.inv_freq"


def _weight_names(shape: ESM2Shape) -> dict[str, tuple[str, ...]]:
    modules: dict[str, tuple[str, ...]] = {
        "encoder.final_norm": ("esm.encoder.emb_layer_norm_after",),
        "lm_head.dense": ("lm_head.dense",),
        "lm_head.layer_norm": ("lm_head.layer_norm",),
        "contact_head": ("esm.contact_head.regression",),
    }
    if shape.has_embedding_norm:
        modules["encoder.embedding_norm"] = ("esm.embeddings.layer_norm",)
    for index in range(shape.num_layers):
        layer, stored_layer = f"encoder.layers.{index}", f"esm.encoder.layer.{index}"
        projections = (f"{stored_layer}.attention.self.{name}" for name in ("query", "key", "value"))
        modules |= {
            f"{layer}.attention_norm": (f"{stored_layer}.attention.LayerNorm",),
            f"{layer}.attention.qkv": tuple(projections),
            f"{layer}.attention.out": (f"{stored_layer}.attention.output.dense",),
            f"{layer}.feed_forward_norm": (f"{stored_layer}.LayerNorm",),
            f"{layer}.feed_forward.up": (f"{stored_layer}.intermediate.dense",),
            f"{layer}.feed_forward.down": (f"{stored_layer}.output.dense",),
        }
    names: dict[str, tuple[str, ...]] = {"encoder.embedding.weight": (_EMBEDDING,), "lm_head.bias": ("lm_head.bias",)}
    if shape.num_positions is not None:
        names["encoder.positions.weight"] = ("esm.embeddings.position_embeddings.weight",)
    for module, stored_modules in modules.items():
        for kind in ("weight", "bias"):
            names[f"{module}.{kind}"] = tuple(f"{stored}.{kind}" for stored in stored_modules)
    return names


_EMBEDDING = "esm.embeddings.word_embeddings.weight"
ESM2_FORMAT = ModelFormat(
    name="ESM-2",
    name_of=lambda shape: _name_of(shape.num_positions, has_embedding_norm=shape.has_embedding_norm),
    model_type="esm",
    class_name="EsmForMaskedLM",
    encoder_options=", add_pooling_layer=False",  # its weights would be random
    shape_type=ESM2Shape,
    tokens=TOKENS,
    prefix="esm.",
    layer_prefix="esm.encoder.layer.",
    embedding=_EMBEDDING,
    decoder="lm_head.decoder.weight",
    read_shape=_read_shape,
    config_json=_config_json,
    tokenizer_files=_tokenizer_files,
    weight_names=_weight_names,
    rotary_name=_rotary_name,
)
