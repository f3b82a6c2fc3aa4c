"""`config.json` and the tokenizer files: the description of an ESM-2 model that transformers reads and writes."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from protembed.config.model_sizes import LAYER_NORM_EPS, ROTARY_BASE, EncoderShape
from protembed.data.alphabet import CLS, EOS, MASK, PAD, TOKENS
from protembed.errors import ModelFormatError
from protembed.model.untrusted import check_regular_file, read_model_json

CONFIG_FILE = "config.json"
# The longest crop that ESM-2 was trained on, in residues, without <cls> and <eos>.
ESM2_WINDOW_RESIDUES = 1022

_ESM2_ONLY = "protembed reads ESM-2 models in Hugging Face layout"

VOCABULARY_FILE = "vocab.txt"
SPECIAL_TOKENS = {f"{name}_token": f"<{name}>" for name in ("cls", "eos", "mask", "pad", "unk")}
# The longest line that is read of a vocabulary; the longest token of ESM-2 has nine letters.
_MAX_LETTERS = 80
_OTHER_VOCABULARY = "this vocabulary does not belong to an ESM-2 model"
_IDS = {token: number for number, token in enumerate(TOKENS)}


def _check_id(path: Path, token: Any, number: Any) -> None:
    """Check that a token of ESM-2 has its id, and that an id of ESM-2 has its token."""
    expected = TOKENS[number] if type(number) is int and 0 <= number < len(TOKENS) else None
    if expected is not None and token != expected:
        raise ModelFormatError(path, f"token {number} is {token!r:.80}, in ESM-2 {expected!r}", _OTHER_VOCABULARY)
    if isinstance(token, str) and _IDS.get(token, number) != number:
        raise ModelFormatError(
            path, f"token {token!r} is number {number!r:.80}, in ESM-2 {_IDS[token]}", _OTHER_VOCABULARY
        )


def _check_special_tokens(path: Path, content: dict[str, Any]) -> None:
    for name, expected in SPECIAL_TOKENS.items():
        value = content.get(name)
        token = value.get("content") if isinstance(value, dict) else value
        if token not in (None, expected):
            raise ModelFormatError(path, f"{name} is {token!r:.80}, in ESM-2 {expected!r}", _OTHER_VOCABULARY)


def _pairs_of_tokenizer(content: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    model = content.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, dict):
        yield from vocabulary.items()
    added = content.get("added_tokens")
    for token in added if isinstance(added, list) else []:
        if isinstance(token, dict):
            yield token.get("content"), token.get("id")


def _pairs_of_config(content: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    added = content.get("added_tokens_decoder")
    for number, token in added.items() if isinstance(added, dict) else ():
        if isinstance(token, dict) and number.isdecimal() and number.isascii():
            yield token.get("content"), int(number[:_MAX_LETTERS])


# The files that give tokens their ids, and how to read the pairs of tokens and ids from each.
_PAIRS: dict[str, Callable[[dict[str, Any]], Iterator[tuple[Any, Any]]]] = {
    "tokenizer.json": _pairs_of_tokenizer,
    "tokenizer_config.json": _pairs_of_config,
    "added_tokens.json": lambda content: iter(content.items()),
    "special_tokens_map.json": lambda content: iter(()),
}
TOKENIZER_FILES = (VOCABULARY_FILE, *_PAIRS)


def check_vocabulary(directory: Path) -> None:
    """Check that a model's tokenizer has the ids of ESM-2, as far as it has files.

    Additional tokens after those of ESM-2 are ignored.

    Raises:
        ModelFormatError: A file of the tokenizer has another token at an id of ESM-2, or another special token.
    """
    path = check_regular_file(directory / VOCABULARY_FILE)
    if path.exists():
        with path.open(errors="replace") as stream:
            for number in range(len(TOKENS)):
                _check_id(path, stream.readline(_MAX_LETTERS).strip(), number)
    for name, pairs in _PAIRS.items():
        path = directory / name
        if path.exists():
            content = read_model_json(path)
            _check_special_tokens(path, content)
            for token, number in pairs(content):
                _check_id(path, token, number)


def _is_plain_rotation(value: Any) -> bool:
    """Check whether a description of rotary positions is that of ESM-2, without scaling."""
    plain = {"rope_type": "default", "type": "default", "rope_theta": ROTARY_BASE, "partial_rotary_factor": 1}
    return value is None or (
        isinstance(value, dict) and all(name in plain and part == plain[name] for name, part in value.items())
    )


# The fields that make an ESM model an ESM-2, and the test that each value must pass. Absent fields are not tested.
_FIELDS: dict[str, Callable[[Any], bool]] = {
    "position_embedding_type": lambda value: value == "rotary",
    "token_dropout": lambda value: value is True,
    "emb_layer_norm_before": lambda value: not value,
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
    "rope_scaling": _is_plain_rotation,
    "rope_parameters": _is_plain_rotation,
    "pad_token_id": lambda value: value in (PAD, None),
    "bos_token_id": lambda value: value in (CLS, None),
    "eos_token_id": lambda value: value in (EOS, [EOS], None),
    "vocab_list": lambda value: value is None or value == list(TOKENS),
}


def config_json(shape: EncoderShape, *, has_lm_head: bool = True) -> dict[str, Any]:
    """Make the content of `config.json`, with every field that matters to transformers written out."""
    return {
        "architectures": ["EsmForMaskedLM" if has_lm_head else "EsmModel"],
        "model_type": "esm",
        "attention_probs_dropout_prob": 0.0,
        "bos_token_id": CLS,
        "classifier_dropout": None,
        "dtype": "float32",
        "emb_layer_norm_before": False,
        "eos_token_id": EOS,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "hidden_size": shape.dim,
        "initializer_range": 0.02,
        "intermediate_size": 4 * shape.dim,
        "is_folding_model": False,
        "layer_norm_eps": LAYER_NORM_EPS,
        "mask_token_id": MASK,
        "max_position_embeddings": ESM2_WINDOW_RESIDUES + 4,
        "num_attention_heads": shape.num_heads,
        "num_hidden_layers": shape.num_layers,
        "pad_token_id": PAD,
        "position_embedding_type": "rotary",
        "rope_theta": ROTARY_BASE,
        "tie_word_embeddings": True,
        "token_dropout": True,
        "use_cache": True,
        "vocab_size": len(TOKENS),
    }


def _whole_number(directory: Path, config: Mapping[str, Any], name: str) -> int:
    value = config.get(name)
    if type(value) is not int or not 0 < value < 1_000_000:
        raise ModelFormatError(
            directory, f"config.json has {name} {value!r:.80}", "a positive whole number is expected"
        )
    return value


def read_shape(directory: Path) -> EncoderShape:
    """Read the shape of a model, and check that it is an ESM-2.

    Raises:
        ModelFormatError: The config describes another model, is damaged, or missing.
    """
    config = read_model_json(directory / CONFIG_FILE)
    if config.get("model_type") != "esm":
        raise ModelFormatError(directory, f"this is a model of type {config.get('model_type')!r:.80}", _ESM2_ONLY)
    # transformers' defaults for these are not ESM-2's.
    for name in ("position_embedding_type", "token_dropout", "layer_norm_eps"):
        if name not in config:
            raise ModelFormatError(directory, f"config.json has no {name}", _ESM2_ONLY)
    for name, is_esm2 in _FIELDS.items():
        if name in config and not is_esm2(config[name]):
            raise ModelFormatError(
                directory, f"config.json has {name} {config[name]!r:.80}", f"{_ESM2_ONLY}, this is another"
            )
    shape = EncoderShape(
        num_layers=_whole_number(directory, config, "num_hidden_layers"),
        dim=_whole_number(directory, config, "hidden_size"),
        num_heads=_whole_number(directory, config, "num_attention_heads"),
    )
    if shape.dim % (2 * shape.num_heads):
        found = f"hidden_size {shape.dim} does not divide into {shape.num_heads} heads of even size"
        raise ModelFormatError(directory, found, _ESM2_ONLY)
    for name, expected in {"intermediate_size": 4 * shape.dim, "head_dim": shape.dim // shape.num_heads}.items():
        if config.get(name) not in (expected, None):
            found = f"config.json has {name} {config[name]!r:.80}, where ESM-2 of this shape has {expected}"
            raise ModelFormatError(directory, found, f"{_ESM2_ONLY}, this is another")
    return shape
