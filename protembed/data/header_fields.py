"""The fields of a labelled FASTA header: `SET=train TARGET=Cell membrane MASK=1 0 1`, keys in any case."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from protembed.data.fasta import Record
from protembed.errors import TableError

_KEYS = ("set", "target", "validation", "mask")
# A value goes on to the next key of whatever name, or to the end.
_FIELD = re.compile(r"(?<!\S)(?P<key>[A-Za-z][\w.-]*)=(?P<value>.*?)(?=\s[A-Za-z][\w.-]*=|$)", re.DOTALL)
# One of our keys behind something else than a space, such as `|SET=`, or before a space.
_MISPLACED = re.compile(rf"(?<=[^\s\w.-])({'|'.join(_KEYS)})=|(?<!\S)({'|'.join(_KEYS)})\s+=", re.IGNORECASE)
# What the reader makes of bytes that are no UTF-8, and what a program before it may have made of them.
_UNREADABLE = re.compile(r"\\x[89a-f][0-9a-f]|\ufffd")


def header_fields(record: Record) -> Mapping[str, str]:
    """Read the fields of a record's header by their keys in lower case.

    Raises:
        TableError: A key stands there twice or cannot be told from a value, or the header is no UTF-8.
    """
    if _UNREADABLE.search(record.description):
        raise _error(record, "has characters that are no UTF-8", "save the file as UTF-8")
    if misplaced := _MISPLACED.search(record.description):
        found = f"has {misplaced[0]!r} behind something else than a space, or before one"
        raise _error(record, found, "divide fields by spaces, and write KEY=value")
    fields: dict[str, str] = {}
    for field in _FIELD.finditer(record.description):
        key = field["key"].lower()
        if key in fields and key in _KEYS:
            raise _error(record, f"has {key.upper()}= twice", "take one of them out")
        fields.setdefault(key, field["value"].strip())
    return fields


def header_warnings(found: Sequence[tuple[Record, Mapping[str, str]]]) -> list[str]:
    """Name the keys that are nearly one of protembed's, in headers that do not have that one.

    Args:
        found: The records with the fields of their headers.
    """
    near, first = Counter[tuple[str, str]](), dict[tuple[str, str], str]()
    for record, fields in found:
        for key in fields:
            for ours in _KEYS:
                if ours not in fields and key not in _KEYS and is_one_edit_away(key, ours):
                    near[key, ours] += 1
                    first.setdefault((key, ours), record.id)
    return [
        f"{key.upper()}= is not read, in {number:,} headers such as that of {first[key, ours]!r}: "
        f"write {ours.upper()}= if that is meant"
        for (key, ours), number in near.items()
    ]


def is_one_edit_away(word: str, other: str) -> bool:
    """Tell whether one letter added, left out, replaced, or swapped with its neighbour makes a word of another.

    >>> is_one_edit_away("tagret", "target"), is_one_edit_away("sets", "set"), is_one_edit_away("offset", "set")
    (True, True, False)
    """
    if word == other or abs(len(word) - len(other)) > 1:
        return False
    start = next((place for place, (one, two) in enumerate(zip(word, other, strict=False)) if one != two), None)
    if start is None:
        return True
    rest, other_rest = word[start:], other[start:]
    swapped = rest[1:2] + rest[:1] + rest[2:]
    return other_rest in (swapped, rest[1:]) or rest == other_rest[1:] or rest[1:] == other_rest[1:]


def _error(record: Record, found: str, advice: str) -> TableError:
    return TableError(record.path, f"the header of {record.id!r} {found}", advice, line=record.line)
