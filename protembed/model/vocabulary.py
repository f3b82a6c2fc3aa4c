"""The files of a tokenizer beside a model: with other ids than ESM-2's, every residue would be another."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from protembed.data.alphabet import TOKENS
from protembed.errors import ModelFormatError
from protembed.model.own_files import own_file, read_model_json

VOCABULARY_FILE = "vocab.txt"
SPECIAL_TOKENS = {
    "cls_token": "<cls>",
    "eos_token": "<eos>",
    "mask_token": "<mask>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
}
# Of a line of a vocabulary; the longest token of ESM-2 has nine.
_MOST_LETTERS = 80
_ANOTHER = "this vocabulary does not belong to an ESM-2 model"
_IDS = {token: number for number, token in enumerate(TOKENS)}


def expect_esm2_vocabulary(directory: Path) -> None:
    """Refuse a model whose tokenizer has other ids than ESM-2's; further tokens behind ESM-2's are ignored.

    Args:
        directory: of the model; a file of the tokenizer that is not there says nothing.

    Raises:
        ModelFormatError: a file of the tokenizer has another token at an id of ESM-2's, or a special token is another.
    """
    path = own_file(directory / VOCABULARY_FILE)
    if path.exists():
        _expect_lines(path)
    for name, pairs in _PAIRS.items():
        path = directory / name
        if path.exists():
            content = read_model_json(path)
            _expect_special_tokens(path, content)
            for token, number in pairs(content):
                _expect_id(path, token, number)


def _expect_lines(path: Path) -> None:
    with path.open(errors="replace") as stream:
        for number in range(len(TOKENS)):
            _expect_id(path, stream.readline(_MOST_LETTERS).strip(), number)


def _expect_id(path: Path, token: Any, number: Any) -> None:
    """Refuse one of ESM-2's tokens under another id, and another token under one of ESM-2's ids."""
    expected = TOKENS[number] if type(number) is int and 0 <= number < len(TOKENS) else None
    if expected is not None and token != expected:
        raise ModelFormatError(path, f"token {number} is {token!r:.80}, in ESM-2 {expected!r}", _ANOTHER)
    if isinstance(token, str) and _IDS.get(token, number) != number:
        raise ModelFormatError(path, f"token {token!r} is number {number!r:.80}, in ESM-2 {_IDS[token]}", _ANOTHER)


def _expect_special_tokens(path: Path, content: dict[str, Any]) -> None:
    for name, expected in SPECIAL_TOKENS.items():
        value = content.get(name)
        token = value.get("content") if isinstance(value, dict) else value
        if token not in (None, expected):
            raise ModelFormatError(path, f"{name} is {token!r:.80}, in ESM-2 {expected!r}", _ANOTHER)


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
            yield token.get("content"), int(number[:_MOST_LETTERS])


# The files that give tokens their ids, and what they say: tokens with ids.
_PAIRS: dict[str, Callable[[dict[str, Any]], Iterator[tuple[Any, Any]]]] = {
    "tokenizer.json": _pairs_of_tokenizer,
    "tokenizer_config.json": _pairs_of_config,
    "added_tokens.json": lambda content: iter(content.items()),
    "special_tokens_map.json": lambda content: iter(()),
}
TOKENIZER_FILES = (VOCABULARY_FILE, *_PAIRS)
