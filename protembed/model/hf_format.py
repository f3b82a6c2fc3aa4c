"""What the Hugging Face layouts of all architectures share: `config.json`, the vocabulary, the table of weight names.

An architecture's own layout is a `ModelFormat`: see `esm2_format` and `esmc_format`. No torch.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protembed.config.model_sizes import ROTARY_BASE, EncoderShape
from protembed.errors import ModelFormatError
from protembed.model.untrusted import check_regular_file, read_model_json

CONFIG_FILE = "config.json"
VOCABULARY_FILE = "vocab.txt"
SPECIAL_TOKENS = {f"{name}_token": f"<{name}>" for name in ("cls", "eos", "mask", "pad", "unk")}
# The longest line that is read of a vocabulary; the longest token has nine letters.
_MAX_LETTERS = 80
_OTHER_VOCABULARY = "this vocabulary does not belong to an {} model"


@dataclass(frozen=True, kw_only=True)
class ModelFormat:
    """How an architecture's models are stored in Hugging Face layout.

    Attributes:
        name: The name of the models in messages, such as `ESM-2`.
        name_of: Names the member of the family that a shape belongs to, such as `ESM-1b`.
        model_type: What `config.json` names as `model_type`.
        class_name: The class of transformers that holds the model with its masked-LM head.
        encoder_options: What loading the encoder without its masked-LM head needs beside the directory, as Python.
        shape_type: The type of the architecture's shapes.
        tokens: The vocabulary, in the order of the ids.
        prefix: What the names of the encoder's weights begin with, such as `esm.`.
        layer_prefix: What the names of a layer's weights begin with, before its number.
        embedding: The stored name of the embedding's weights.
        decoder: The stored name of a decoder that is the same as the embedding (tied); None where it has its own.
        read_shape: Reads the shape from the content of `config.json`, and checks that all else is as it must be.
        config_json: Makes the content of `config.json` from a shape.
        tokenizer_files: Makes the content of the tokenizer's files, text or JSON, by the file's name.
        weight_names: Maps each of protembed's weights to the stored weights whose rows it consists of.
        rotary_name: Names a layer's copy of the rotary frequencies; None where they are not stored.
    """

    name: str
    name_of: Callable[[Any], str]
    model_type: str
    class_name: str
    shape_type: type[EncoderShape]
    tokens: tuple[str, ...]
    prefix: str
    layer_prefix: str
    embedding: str
    decoder: str | None
    read_shape: Callable[[Path, Mapping[str, Any]], EncoderShape]
    config_json: Callable[..., dict[str, Any]]
    tokenizer_files: Callable[[], dict[str, str | dict[str, Any]]]
    weight_names: Callable[[Any], dict[str, tuple[str, ...]]]
    rotary_name: Callable[[int], str] | None = None
    encoder_options: str = ""


def check_fields(
    directory: Path, config: Mapping[str, Any], fields: Mapping[str, Callable[[Any], bool]], name: str
) -> None:
    """Check the fields of a `config.json` that make a model one of an architecture; absent ones are not checked.

    Raises:
        ModelFormatError: A field has another value.
    """
    for field, is_valid in fields.items():
        if field in config and not is_valid(config[field]):
            found = f"config.json has {field} {config[field]!r:.80}"
            raise ModelFormatError(directory, found, f"an {name} model has another value there: this is another model")


def check_widths(directory: Path, config: Mapping[str, Any], shape: EncoderShape, name: str) -> None:
    """Check the widths of a `config.json` that follow from the shape.

    Raises:
        ModelFormatError: A width is another, or the heads have no even size.
    """
    if shape.dim % (2 * shape.num_heads):
        found = f"hidden_size {shape.dim} does not divide into {shape.num_heads} heads of even size"
        raise ModelFormatError(directory, found, f"an {name} model has such heads")
    for field, expected in {"intermediate_size": shape.feed_forward_dim, "head_dim": shape.head_dim}.items():
        if config.get(field) not in (expected, None):
            found = f"config.json has {field} {config[field]!r:.80}, where {name} of this shape has {expected}"
            raise ModelFormatError(directory, found, "this is another model")


def whole_number(directory: Path, config: Mapping[str, Any], name: str) -> int:
    """Read a positive whole number of `config.json`.

    Raises:
        ModelFormatError: It is missing or another value.
    """
    value = config.get(name)
    if type(value) is not int or not 0 < value < 1_000_000:
        raise ModelFormatError(
            directory, f"config.json has {name} {value!r:.80}", "a positive whole number is expected"
        )
    return value


def is_plain_rotation(value: Any) -> bool:
    """Check whether a description of rotary positions is that of ESM-2 and ESM-C, without scaling."""
    plain = {"rope_type": "default", "type": "default", "rope_theta": ROTARY_BASE, "partial_rotary_factor": 1}
    return value is None or (
        isinstance(value, dict) and all(name in plain and part == plain[name] for name, part in value.items())
    )


def _check_id(path: Path, token: Any, number: Any, expected_format: ModelFormat) -> None:
    """Check that a token of the architecture has its id, and that an id has its token."""
    tokens, name = expected_format.tokens, expected_format.name
    advice = _OTHER_VOCABULARY.format(name)
    expected = tokens[number] if type(number) is int and 0 <= number < len(tokens) else None
    if expected is not None and token != expected:
        raise ModelFormatError(path, f"token {number} is {token!r:.80}, in {name} {expected!r}", advice)
    if isinstance(token, str) and token in tokens and tokens.index(token) != number:
        found = f"token {token!r} is number {number!r:.80}, in {name} {tokens.index(token)}"
        raise ModelFormatError(path, found, advice)


def _check_special_tokens(path: Path, content: dict[str, Any], name_of_model: str) -> None:
    for name, expected in SPECIAL_TOKENS.items():
        value = content.get(name)
        token = value.get("content") if isinstance(value, dict) else value
        if token not in (None, expected):
            found = f"{name} is {token!r:.80}, in {name_of_model} {expected!r}"
            raise ModelFormatError(path, found, _OTHER_VOCABULARY.format(name_of_model))


def _pairs_of_tokenizer(content: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    model = content.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, dict):
        yield from vocabulary.items()
    for number, piece in enumerate(vocabulary if isinstance(vocabulary, list) else []):  # of SentencePiece, with scores
        if isinstance(piece, list) and piece:
            yield piece[0], number
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


def check_vocabulary(directory: Path, expected: ModelFormat) -> None:
    """Check that a model's tokenizer has the ids of its architecture, as far as it has files.

    Additional tokens after those of the architecture are ignored.

    Raises:
        ModelFormatError: A file of the tokenizer has another token at an id, or another special token.
    """
    path = check_regular_file(directory / VOCABULARY_FILE)
    if path.exists():
        with path.open(errors="replace") as stream:
            for number in range(len(expected.tokens)):
                _check_id(path, stream.readline(_MAX_LETTERS).strip(), number, expected)
    for name, pairs in _PAIRS.items():
        path = directory / name
        if path.exists():
            content = read_model_json(path)
            _check_special_tokens(path, content, expected.name)
            for token, number in pairs(content):
                _check_id(path, token, number, expected)
