"""Labelled proteins: read from tables, or from the headers of FASTA."""

import codecs
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import BinaryIO, Literal

from protembed.data.fasta import (
    OnIllegal,
    ReadStatistics,
    Record,
    accept_sequence,
    clean_sequence,
    open_records,
    read_fasta_stream,
)
from protembed.errors import ConfigError, IllegalResidueError, TableError
from protembed.io.reading import display_name
from protembed.io.sniffing import ONE_LETTER_ADVICE, detect_notation
from protembed.io.tables import Row, check_unique_columns, column_names, find_column, is_stand_in, reading_table

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


Split = Literal["train", "valid", "test"]

_USUAL_NAMES: Mapping[str, Sequence[str]] = {
    "id": (
        *("id", "identifier", "accession", "protein_id", "entry", "entry_name", "uniprot_id", "uniprot"),
        *("name", "protein", "protein_name", "seq_id", "sequence_id", "sequence_name"),
    ),
    "sequence": ("sequence",),
    "target": ("target", "label"),
    "split": ("split", "set"),
    "validation": ("validation",),  # FLIP's
    "mask": ("mask",),
}
_SPLITS: Mapping[str, Split] = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "dev": "valid",
    "test": "test",
    "testing": "test",
}
# Read as the split where all their cells name a part; `stage` may be a larva's.
_SPLIT_NAMES_IF_ALL_FIT = ("stage", "partition", "subset")
_PEEK = 256
# Peptides may be spelled NA or NAN, longer proteins are not.
_PEPTIDE_RESIDUES = 10
_TRUE, _FALSE = ("true", "t", "1", "1.0", "yes", "y"), ("false", "f", "0", "0.0", "no", "n", "nan", "")


@dataclass(frozen=True, kw_only=True)
class LabelledProtein:
    """One row of a labelled table.

    Attributes:
        id: of the row; its number where the table has none.
        sequence: residues of the alphabet.
        label: As it stands in the table; where its task is known, in the spelling of `label_inference`.
        split: which part it belongs to; None where the table has no splits.
        line: in the file, from 1.
        mask: as it stands in the table; None where there is none.
    """

    id: str
    sequence: str
    label: str
    split: Split | None
    line: int
    mask: str | None = None


@dataclass(frozen=True, kw_only=True)
class LabelledTable:
    """A labelled table as it was read.

    Attributes:
        path: its name, for messages.
        target: the name of the label.
        proteins: in the table's order.
        notes: What was decided for the user in reading, in sentences.
        warnings: What may have been misunderstood in reading, in sentences.
    """

    path: str
    target: str
    proteins: Sequence[LabelledProtein]
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()

    @property
    def has_splits(self) -> bool:
        """Whether the table says where its proteins stand."""
        return any(protein.split is not None for protein in self.proteins)


@dataclass(frozen=True, kw_only=True)
class SplitTable:
    """A labelled table, divided into train, valid and test.

    Attributes:
        path: its name, for messages.
        target: the name of the label.
        splits: the proteins of each split, in the table's order.
    """

    path: str
    target: str
    splits: Mapping[Split, Sequence[LabelledProtein]]

    @property
    def proteins(self) -> list[LabelledProtein]:
        """All proteins: train, valid, test."""
        return [protein for part in self.splits.values() for protein in part]


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns that the user named; None leaves it to the usual names."""

    target: str | None = None
    sequence: str | None = None
    split: str | None = None
    id: str | None = None


def read_labels(
    path: Path, columns: Columns, *, on_illegal: OnIllegal = "error", statistics: ReadStatistics | None = None
) -> LabelledTable:
    """Read a labelled table, plain or compressed.

    Args:
        path: CSV or TSV with a header, or FASTA with `SET=` and `TARGET=` in each header; `-` is stdin.
        columns: the columns that the user named.
        on_illegal: what to do about a letter that is no residue.
        statistics: counts what was met.

    Raises:
        TableError: a column or a value is missing or makes no sense.
        IllegalResidueError: a character is no amino acid.
        ConfigError: a column is named, and the file has none.
    """
    statistics = ReadStatistics() if statistics is None else statistics
    name = display_name(path)
    with open_records(path, statistics) as stream:
        head: bytes = stream.peek(_PEEK)[:_PEEK]  # type: ignore[attr-defined]  # every stream of open_input can peek
        is_fasta = head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b">")
        read = _read_headers if is_fasta else _read_table
        labels = read(stream, name, columns, on_illegal, statistics)
    if not labels.proteins:
        raise TableError(name, "the table has no rows", "give at least one protein each for training and test")
    _check_splits_complete(name, labels.proteins)
    _check_sequences(name, labels.proteins)
    return labels


def _check_splits_complete(path: str, proteins: Sequence[LabelledProtein]) -> None:
    if any(protein.split is not None for protein in proteins):
        for protein in proteins:
            if protein.split is None:
                found = f"{protein.id!r} does not say which part it belongs to, and others do"
                raise TableError(path, found, "add its SET=", line=protein.line)


def _check_sequences(path: str, proteins: Sequence[LabelledProtein]) -> None:
    """Refuse `nan`, `NA` and the like, whose letters are amino acids, unless most proteins are short peptides."""
    missing = next((protein for protein in proteins if is_stand_in(protein.sequence)), None)
    if missing is not None and median(len(protein.sequence) for protein in proteins) >= _PEPTIDE_RESIDUES:
        found = f"row {missing.id!r} has the sequence {missing.sequence!r}, which seems to stand for a missing one"
        raise TableError(path, found, "complete or remove it", line=missing.line)


# CSV and TSV


def _read_table(
    stream: BinaryIO, name: str, columns: Columns, on_illegal: OnIllegal, statistics: ReadStatistics
) -> LabelledTable:
    with reading_table(stream, name) as table:
        header = _Header(name, table.header, columns)
        found = (_read_row(header.name_cells(row), name, row.line, on_illegal, statistics) for row in table.rows)
        proteins = [protein for protein in found if protein is not None]
    notes = [] if header.has_ids else ["no identifier column: rows are numbered from 1; --id names the column"]
    if header.other_target is not None:
        other = f"the column {header.other_target!r} is not read, because there is {header.target!r}"
        notes.append(f"{other}; --target names the one to learn")
    if header.possible_split is not None and any(protein.split is None for protein in proteins):
        proteins = [replace(protein, split=None) for protein in proteins]
        column = f"the column {header.possible_split!r} holds more than train, valid and test"
        notes.append(f"{column} and is not read as the split; --split-column names the column")
    return LabelledTable(path=name, target=header.target, proteins=proteins, notes=notes)


def _read_row(
    row: Mapping[str, str], path: str, line: int, on_illegal: OnIllegal, statistics: ReadStatistics
) -> LabelledProtein | None:
    row_id = row["id"]
    if not row_id:
        raise TableError(path, "a row has no identifier", "give it one, or name another column by --id", line=line)
    raw = clean_sequence(row["sequence"])
    if not raw:
        raise TableError(path, f"row {row_id!r} has no sequence", "complete or remove it", line=line)
    if notation := detect_notation(row["sequence"]):
        raise TableError(path, f"the sequence of row {row_id!r} is {notation}", ONE_LETTER_ADVICE, line=line)
    sequence = accept_sequence(raw, on_illegal, statistics, partial(_illegal_residue, path, line, row_id, raw))
    if sequence is None:
        return None
    statistics.num_records += 1
    statistics.num_residues += len(sequence)
    split = _split_name(path, row, line)
    return LabelledProtein(
        id=row_id, sequence=sequence, label=row["target"], split=split, line=line, mask=row.get("mask")
    )


class _Header:
    """The columns of a table by what they mean, as the user named them or by their usual names.

    Attributes:
        target: The name of the label's column.
        has_ids: Whether there is a column of identifiers.
        other_target: The name of another column that may be meant as the label; None if there is none.
        possible_split: The name of a column that is the split if all its cells name a part; None if there is none.
    """

    def __init__(self, path: str, names: Sequence[str], columns: Columns) -> None:
        check_unique_columns(names, path)
        named = {
            "id": columns.id,
            "sequence": columns.sequence,
            "target": columns.target,
            "split": columns.split,
        }
        taken = [name for name in named.values() if name is not None]
        places = {
            meaning: find_column(names, path, meaning, usual, named.get(meaning), taken)
            for meaning, usual in _USUAL_NAMES.items()
        }
        for meaning in ("sequence", "target"):
            if places[meaning] is None:
                found = f"no {meaning} column among {column_names(names)}"
                advice = f"name it {_USUAL_NAMES[meaning][0]}, or pass --{meaning}"
                raise TableError(path, found, advice, line=1)
        self.possible_split: str | None = None
        if places["split"] is None:
            place = find_column(names, path, "split", _SPLIT_NAMES_IF_ALL_FIT, taken=taken)
            places["possible_split"] = place
            self.possible_split = None if place is None else names[place]
        self._places = {meaning: place for meaning, place in places.items() if place is not None}
        self.target, self.has_ids = names[self._places["target"]], "id" in self._places
        others = (
            name for name in names if name.lower() in _USUAL_NAMES["target"] and name not in [self.target, *taken]
        )
        self.other_target = next(others, None) if columns.target is None else None

    def name_cells(self, row: Row) -> Mapping[str, str]:
        """Give the cells of a row their meanings; without an id column a row is named by its number, from 1."""
        return {"id": str(row.number)} | {meaning: row.cells[place] for meaning, place in self._places.items()}


def _split_name(path: str, row: Mapping[str, str], line: int) -> Split | None:
    """Read a row's split; FLIP's tables mark validation proteins in a column of their own."""
    if "split" not in row:
        return _SPLITS.get(row.get("possible_split", "").lower())
    split = _SPLITS.get(row["split"].lower())
    if split is None:
        raise TableError(path, f"the split {row['split']!r} is unknown", "train, valid or test is expected", line=line)
    validation = row.get("validation", "").lower()
    if validation not in _TRUE + _FALSE:
        advice = "true or false is expected in the column validation"
        raise TableError(path, f"{row['validation']!r} is neither true nor false", advice, line=line)
    return "valid" if split == "train" and validation in _TRUE else split


def _illegal_residue(path: str, line: int, row_id: str, sequence: str, residue: int) -> IllegalResidueError:
    return IllegalResidueError(path, line, row_id, residue + 1, sequence[residue])


# FASTA


def _read_headers(
    stream: BinaryIO, name: str, columns: Columns, on_illegal: OnIllegal, statistics: ReadStatistics
) -> LabelledTable:
    for option in ("target", "sequence", "split", "id"):
        column = getattr(columns, option)
        if column is not None:
            flag = "--split-column" if option == "split" else f"--{option}"
            raise ConfigError(flag, column, "a FASTA file has no columns")
    with closing(read_fasta_stream(stream, name, on_illegal, statistics)) as records:
        found = [(record, header_fields(record)) for record in records]
    proteins = [_label_in_header(record, fields) for record, fields in found]
    return LabelledTable(path=name, target="TARGET", proteins=proteins, warnings=header_warnings(found))


def _label_in_header(record: Record, fields: Mapping[str, str]) -> LabelledProtein:
    if "target" not in fields:
        keys = ", ".join(f"{key.upper()}=" for key in fields)
        found = f"the header of {record.id!r} has no TARGET=" + (f" beside {keys}" if keys else "")
        raise TableError(record.path, found, "write its label there", line=record.line)
    row = {"split": fields["set"], **fields} if "set" in fields else fields
    return LabelledProtein(
        id=record.id,
        sequence=record.sequence,
        label=fields["target"],
        split=_split_name(record.path, row, record.line),
        line=record.line,
        mask=fields.get("mask"),
    )
