"""Labelled proteins: CSV or TSV with a sequence and a target column, or FASTA with `SET=` and `TARGET=`."""

import codecs
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from protembed.data.fasta import (
    OnIllegal,
    ReadReport,
    Record,
    accept_sequence,
    clean_sequence,
    open_records,
    read_fasta_stream,
)
from protembed.data.tables import Row, column_names, find_column, reading_table, refuse_repeated_columns
from protembed.errors import ConfigError, IllegalResidueError, TableError
from protembed.inputs import display_name
from protembed.text import count

Split = Literal["train", "valid", "test"]

_USUAL_NAMES: Mapping[str, Sequence[str]] = {
    "id": ("id",),
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
_PEEK = 256
_TRUE = ("true", "1", "yes")
_MISSING = ("na", "n/a", "nan", "null")


@dataclass(frozen=True, kw_only=True)
class LabelledProtein:
    """One row of a labelled table.

    Attributes:
        id: of the row; its number where the table has none.
        sequence: residues of the alphabet.
        label: as it stands in the table.
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
class Labels:
    """A labelled table as it was read.

    Attributes:
        path: its name, for messages.
        target: the name of the label.
        proteins: in the table's order.
    """

    path: str
    target: str
    proteins: Sequence[LabelledProtein]

    @property
    def has_splits(self) -> bool:
        """Whether the table says where its proteins stand."""
        return any(protein.split is not None for protein in self.proteins)


@dataclass(frozen=True, kw_only=True)
class LabelTable:
    """A labelled table, divided into train, valid and test.

    Attributes:
        path: its name, for messages.
        target: the name of the label.
        parts: the proteins of each split, in the table's order.
    """

    path: str
    target: str
    parts: Mapping[Split, Sequence[LabelledProtein]]

    @property
    def proteins(self) -> list[LabelledProtein]:
        """All proteins: train, valid, test."""
        return [protein for part in self.parts.values() for protein in part]


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns that the user named; None leaves it to the usual names."""

    target: str | None = None
    sequence: str | None = None
    split: str | None = None


def read_labels(
    path: Path, columns: Columns, *, on_illegal: OnIllegal = "error", report: ReadReport | None = None
) -> Labels:
    """Read a labelled table, plain or compressed.

    Args:
        path: CSV or TSV with a header, or FASTA with `SET=` and `TARGET=` in each header; `-` is stdin.
        columns: the columns that the user named.
        on_illegal: what to do about a letter that is no residue.
        report: counts what was met.

    Raises:
        TableError: a column or a value is missing or makes no sense.
        IllegalResidueError: a character is no amino acid.
        ConfigError: a column is named, and the file has none.
    """
    report = ReadReport() if report is None else report
    name = display_name(path)
    with open_records(path, report) as stream:
        head: bytes = stream.peek(_PEEK)[:_PEEK]  # type: ignore[attr-defined]  # every stream of open_input can peek
        if head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b">"):
            for option, column in (("--target", columns.target), ("--sequence", columns.sequence)):
                if column is not None:
                    raise ConfigError(option, column, "a FASTA file has no columns")
            with closing(read_fasta_stream(stream, name, on_illegal, report)) as records:
                target, proteins = "TARGET", [_label_in_header(record) for record in records]
        else:
            with reading_table(stream, name) as table:
                header = _Header(name, table.header, columns)
                found = (_read_row(header.name_cells(row), name, row.line, on_illegal, report) for row in table.rows)
                target, proteins = header.target, [protein for protein in found if protein is not None]
    if not proteins:
        raise TableError(name, "the table has no rows", "give at least one protein each for training and test")
    _refuse_partial_splits(name, proteins)
    return Labels(path=name, target=target, proteins=proteins)


def _refuse_partial_splits(path: str, proteins: Sequence[LabelledProtein]) -> None:
    if any(protein.split is not None for protein in proteins):
        for protein in proteins:
            if protein.split is None:
                found = f"{protein.id!r} does not say which part it belongs to, and others do"
                raise TableError(path, found, "add its SET=", line=protein.line)


def label_warnings(proteins: Sequence[LabelledProtein], classes: Sequence[str]) -> list[str]:
    """Put into sentences what looks like a mistake in a table that can be read.

    Args:
        proteins: of the table.
        classes: their names; none where labels are values.
    """
    found = [f"a class is named {name!r}: is that a missing label?" for name in classes if name.lower() in _MISSING]
    counts = Counter(protein.id for protein in proteins)
    repeated = [identifier for identifier, number in counts.items() if number > 1]
    if repeated:
        found.append(f"{count(len(repeated), 'identifier')} of several rows, such as {repeated[0]!r}")
    first: dict[str, str] = {}
    differing = [one for one in proteins if first.setdefault(one.sequence, one.label) != one.label]
    if differing:
        number = len({protein.sequence for protein in differing})
        found.append(
            f"{count(number, 'sequence')} with labels that differ from row to row, such as {differing[0].id!r}"
        )
    return found


# CSV and TSV


def _read_row(
    row: Mapping[str, str], path: str, line: int, on_illegal: OnIllegal, report: ReadReport
) -> LabelledProtein | None:
    row_id = row["id"]
    if not row_id:
        raise TableError(path, "a row has no identifier", "give it one, or rename the column id", line=line)
    raw = clean_sequence(row["sequence"])
    if not raw:
        raise TableError(path, f"row {row_id!r} has no sequence", "complete or remove it", line=line)
    sequence = accept_sequence(raw, on_illegal, report, partial(_illegal_residue, path, line, row_id, raw))
    if sequence is None:
        return None
    report.num_records += 1
    report.num_residues += len(sequence)
    split = _split_name(path, row, line)
    return LabelledProtein(
        id=row_id, sequence=sequence, label=row["target"], split=split, line=line, mask=row.get("mask")
    )


class _Header:
    """The columns of a table by what they mean, as the user named them or by their usual names."""

    def __init__(self, path: str, names: Sequence[str], columns: Columns) -> None:
        refuse_repeated_columns(names, path)
        wanted = {"sequence": columns.sequence, "target": columns.target, "split": columns.split}
        places = {
            meaning: find_column(names, path, meaning, usual, wanted.get(meaning))
            for meaning, usual in _USUAL_NAMES.items()
        }
        for meaning in ("sequence", "target"):
            if places[meaning] is None:
                found = f"no {meaning} column among {column_names(names)}"
                advice = f"name it {_USUAL_NAMES[meaning][0]}, or pass --{meaning}"
                raise TableError(path, found, advice, line=1)
        self._places = {meaning: place for meaning, place in places.items() if place is not None}
        self.target = names[self._places["target"]]

    def name_cells(self, row: Row) -> Mapping[str, str]:
        """Give the cells of a row their meanings; without an id column a row is named by its number, from 1."""
        return {"id": str(row.number)} | {meaning: row.cells[place] for meaning, place in self._places.items()}


def _split_name(path: str, row: Mapping[str, str], line: int) -> Split | None:
    """Read a row's split; FLIP's tables mark validation proteins in a column of their own."""
    if "split" not in row:
        return None
    split = _SPLITS.get(row["split"].lower())
    if split is None:
        raise TableError(path, f"the split {row['split']!r} is unknown", "train, valid or test is expected", line=line)
    return "valid" if split == "train" and row.get("validation", "").lower() in _TRUE else split


def _illegal_residue(path: str, line: int, row_id: str, sequence: str, residue: int) -> IllegalResidueError:
    return IllegalResidueError(path, line, row_id, residue + 1, sequence[residue])


# FASTA


def _label_in_header(record: Record) -> LabelledProtein:
    written = re.findall(r"(?<!\S)(SET|TARGET|VALIDATION|MASK)=(\S+)", record.description)
    fields = {name.lower(): value for name, value in written}
    if "target" not in fields:
        found = f"the header of {record.id!r} has no TARGET="
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
