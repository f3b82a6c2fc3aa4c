"""Labelled proteins, read from tables or from the headers of FASTA."""

import codecs
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import product
from os.path import commonprefix
from pathlib import Path
from statistics import median
from typing import BinaryIO, Literal

from protembed.config.finetune import LabelTableConfig
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
from protembed.io.tables import Table, check_unique_columns, column_names, find_columns, is_stand_in, reading_table
from protembed.text import pluralize

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
_NAMES_OF_SPLITS: Mapping[Split, Sequence[str]] = {
    "train": ("train", "training"),
    "valid": ("valid", "validation", "val", "dev"),
    "test": ("test", "testing"),
}
_SPLITS = {name: split for split, names in _NAMES_OF_SPLITS.items() for name in names}
# Columns that are the split only if all their cells name one, because `stage` may be that of a larva.
_POSSIBLE_SPLIT_NAMES = ("stage", "partition", "subset")
_PEEK = 256
# The sequence of a peptide may be NA or NAN, that of a longer protein is not.
_MIN_PROTEIN_RESIDUES = 10
_TRUE, _FALSE = ("true", "t", "1", "1.0", "yes", "y"), ("false", "f", "0", "0.0", "no", "n", "nan", "")
# Keys of fields in FASTA headers.
_KEYS = ("set", "target", "validation", "mask")
# A value ends at the next key of any name, or at the end of the header.
_FIELD = re.compile(r"(?<!\S)(?P<key>[A-Za-z][\w.-]*)=(?P<value>.*?)(?=\s[A-Za-z][\w.-]*=|$)", re.DOTALL)
# A key that does not follow a space, as in `|SET=`, or is followed by one.
_MISPLACED = re.compile(rf"(?<=[^\s\w.-])({'|'.join(_KEYS)})=|(?<!\S)({'|'.join(_KEYS)})\s+=", re.IGNORECASE)
# Escaped bytes that are not UTF-8, and the replacement character that another program may have written for them.
_UNDECODABLE = re.compile(r"\\x[89a-f][0-9a-f]|\ufffd")


@dataclass(frozen=True, kw_only=True)
class LabelledProtein:
    """One row of a labelled table.

    Attributes:
        id: Identifier of the row; its number if the table has no identifiers.
        label: Label as written in the table; once the task is known, normalized by `label_inference`.
        split: None if the table has no splits.
        line: Line of the file, from 1.
        mask: Mask of the residues as written in the table; None if there is none.
    """

    id: str
    sequence: str
    label: str
    split: Split | None
    line: int
    mask: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Table:
    """What all tables of labelled proteins have: their name, for messages, and that of the label."""

    path: str
    target: str

    def row_error(self, protein: LabelledProtein, found: str, advice: str) -> TableError:
        """Make an error about a row of the table."""
        return TableError(self.path, f"row {protein.id!r} {found}", advice, line=protein.line)


@dataclass(frozen=True, kw_only=True)
class LabelledTable(_Table):
    """A labelled table as it was read.

    Attributes:
        proteins: The rows, in the order of the table.
        notes: Decisions that reading made for the user, in sentences.
        warnings: Possible misunderstandings in reading, in sentences.
    """

    proteins: Sequence[LabelledProtein]
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()

    @property
    def has_splits(self) -> bool:
        """Whether the table assigns its proteins to splits."""
        return any(protein.split is not None for protein in self.proteins)


@dataclass(frozen=True, kw_only=True)
class SplitTable(_Table):
    """A labelled table, split into train, valid and test; each split has the order of the table."""

    splits: Mapping[Split, Sequence[LabelledProtein]]

    @property
    def proteins(self) -> list[LabelledProtein]:
        """All proteins, split by split."""
        return [protein for proteins in self.splits.values() for protein in proteins]

    @property
    def split_sizes(self) -> dict[Split, int]:
        """Number of proteins of each split."""
        return {split: len(proteins) for split, proteins in self.splits.items()}

    def sequences(self, split: Split) -> list[str]:
        """Return the sequences of a split."""
        return [protein.sequence for protein in self.splits[split]]


def _split_name(path: str, row: Mapping[str, str], line: int) -> Split | None:
    """Read the split of a row; tables of FLIP mark validation proteins in a separate column."""
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


def _labelled_protein(path: str, row_id: str, sequence: str, row: Mapping[str, str], line: int) -> LabelledProtein:
    split = _split_name(path, row, line)
    return LabelledProtein(
        id=row_id, sequence=sequence, label=row["target"], split=split, line=line, mask=row.get("mask")
    )


# CSV and TSV


def _expected_names(config: LabelTableConfig) -> list[str | None]:
    """List the names by which the header is recognised: those that the user gave, and usual ones."""
    return [config.sequence, config.target, *_USUAL_NAMES["sequence"], *_USUAL_NAMES["target"]]


def _find_columns(table: Table, path: str, config: LabelTableConfig) -> dict[str, int]:
    """Find the columns by their meanings, as the user named them or by their usual names."""
    header, line = table.header, table.line
    check_unique_columns(header, path, line)
    named = {"id": config.id, "sequence": config.sequence, "target": config.target, "split": config.split_column}
    columns = find_columns(header, path, _USUAL_NAMES, named, line)
    for meaning in ("sequence", "target"):
        if meaning not in columns:
            found = f"no {meaning} column among {column_names(header)}"
            advice = f"name it {_USUAL_NAMES[meaning][0]}, or pass --{meaning}"
            raise TableError(path, found, advice, line=line)
    if "split" not in columns:
        possible = find_columns(header, path, {"split": _POSSIBLE_SPLIT_NAMES}, named, line)
        columns |= {"possible_split": possible["split"]} if possible else {}
    return columns


def _column_notes(header: Sequence[str], columns: Mapping[str, int], config: LabelTableConfig) -> Iterator[str]:
    """Describe a missing column of identifiers, and a second column of labels."""
    if "id" not in columns:
        yield "no identifier column: rows are numbered from 1; --id names the column"
    target = header[columns["target"]]
    taken = [target, config.id, config.sequence, config.split_column]
    others = [name for name in header if name.lower() in _USUAL_NAMES["target"] and name not in taken]
    if others and config.target is None:
        other = f"the column {others[0]!r} is not read, because there is {target!r}"
        yield f"{other}; --target names the one to learn"


def _read_row(
    row: Mapping[str, str], path: str, line: int, on_illegal: OnIllegal, statistics: ReadStatistics
) -> LabelledProtein | None:
    row_id, raw = row["id"], clean_sequence(row["sequence"])
    if not row_id:
        raise TableError(path, "a row has no identifier", "give it one, or name another column with `id`", line=line)
    if not raw:
        raise TableError(path, f"row {row_id!r} has no sequence", "complete or remove it", line=line)
    if notation := detect_notation(row["sequence"]):
        raise TableError(path, f"the sequence of row {row_id!r} is {notation}", ONE_LETTER_ADVICE, line=line)
    sequence = accept_sequence(
        raw, on_illegal, statistics, lambda index: IllegalResidueError(path, line, row_id, index + 1, raw[index])
    )
    if sequence is None:
        return None
    statistics.num_records += 1
    statistics.num_residues += len(sequence)
    return _labelled_protein(path, row_id, sequence, row, line)


def _read_table(
    stream: BinaryIO, name: str, config: LabelTableConfig, on_illegal: OnIllegal, statistics: ReadStatistics
) -> LabelledTable:
    with reading_table(stream, name, known=_expected_names(config)) as table:
        header, columns = table.header, _find_columns(table, name, config)
        proteins = []
        for row in table.rows:
            # Without a column of identifiers, a row is named by its number.
            cells = {"id": str(row.number)} | {meaning: row.cells[index] for meaning, index in columns.items()}
            protein = _read_row(cells, name, row.line, on_illegal, statistics)
            if protein is not None:
                proteins.append(protein)
    notes = list(_column_notes(header, columns, config))
    if "possible_split" in columns and any(protein.split is None for protein in proteins):
        proteins = [replace(protein, split=None) for protein in proteins]
        column = f"the column {header[columns['possible_split']]!r} has other values than train, valid and test"
        notes.append(f"{column}, so it is not read as the split; --split-column names the column")
    return LabelledTable(path=name, target=header[columns["target"]], proteins=proteins, notes=notes)


# FASTA


def _error(record: Record, found: str, advice: str) -> TableError:
    return TableError(record.path, f"the header of {record.id!r} {found}", advice, line=record.line)


def _header_fields(record: Record) -> Mapping[str, str]:
    """Read the fields of a record's header, by their keys in lower case."""
    if _UNDECODABLE.search(record.description):
        raise _error(record, "has characters that are not UTF-8", "save the file as UTF-8")
    if misplaced := _MISPLACED.search(record.description):
        found = f"has {misplaced[0]!r} without a space before it, or with one before '='"
        raise _error(record, found, "separate fields by spaces, and write KEY=value")
    fields: dict[str, str] = {}
    for field in _FIELD.finditer(record.description):
        key = field["key"].lower()
        if key in fields and key in _KEYS:
            raise _error(record, f"has {key.upper()}= twice", "remove one of them")
        fields.setdefault(key, field["value"].strip())
    return fields


def is_one_edit_away(word: str, other: str) -> bool:
    """Return whether two words differ by one letter that is added, missing, replaced, or swapped with its neighbour.

    >>> is_one_edit_away("tagret", "target"), is_one_edit_away("sets", "set"), is_one_edit_away("offset", "set")
    (True, True, False)
    """
    start = len(commonprefix([word, other]))
    rest, other_rest = word[start:], other[start:]
    swapped = rest[1:2] + rest[:1] + rest[2:]
    return word != other and (other_rest in (swapped, rest[1:]) or other_rest[1:] in (rest, rest[1:]))


def _header_warnings(headers: Sequence[tuple[Record, Mapping[str, str]]]) -> list[str]:
    """Describe likely misspellings of keys, in headers that lack the right key."""
    counts, first = Counter[tuple[str, str]](), dict[tuple[str, str], str]()
    for record, fields in headers:
        unknown = [key for key in fields if key not in _KEYS]
        missing = [key for key in _KEYS if key not in fields]
        for pair in product(unknown, missing):
            if is_one_edit_away(*pair):
                counts[pair] += 1
                first.setdefault(pair, record.id)
    return [
        f"{key.upper()}= is ignored in {pluralize(count, 'header')}, such as that of {first[key, right_key]!r}: "
        f"write {right_key.upper()}= if that is meant"
        for (key, right_key), count in counts.items()
    ]


def _labelled_record(record: Record, fields: Mapping[str, str]) -> LabelledProtein:
    if "target" not in fields:
        keys = ", ".join(f"{key.upper()}=" for key in fields)
        raise _error(record, "has no TARGET=" + (f" beside {keys}" if keys else ""), "add its label")
    row = {"split": fields["set"], **fields} if "set" in fields else fields
    return _labelled_protein(record.path, record.id, record.sequence, row, record.line)


def _read_headers(
    stream: BinaryIO, name: str, config: LabelTableConfig, on_illegal: OnIllegal, statistics: ReadStatistics
) -> LabelledTable:
    for option in ("target", "sequence", "split_column", "id"):
        if (column := getattr(config, option)) is not None:
            raise ConfigError(option, column, "a FASTA file has no columns")
    with closing(read_fasta_stream(stream, name, on_illegal, statistics)) as records:
        headers = [(record, _header_fields(record)) for record in records]
    proteins = [_labelled_record(record, fields) for record, fields in headers]
    return LabelledTable(path=name, target="TARGET", proteins=proteins, warnings=_header_warnings(headers))


# Both


def _check_splits_complete(path: str, proteins: Sequence[LabelledProtein]) -> None:
    without = [protein for protein in proteins if protein.split is None]
    if without and len(without) < len(proteins):
        found = f"{without[0].id!r} has no split, and others have one"
        raise TableError(path, found, "add its SET=", line=without[0].line)


def _check_sequences(labels: LabelledTable) -> None:
    """Check for stand-ins such as `NA`, whose letters are amino acids, unless most proteins are short peptides."""
    missing = next((protein for protein in labels.proteins if is_stand_in(protein.sequence)), None)
    if missing is not None and median(len(protein.sequence) for protein in labels.proteins) >= _MIN_PROTEIN_RESIDUES:
        found = f"has the sequence {missing.sequence!r}, which seems to stand for a missing one"
        raise labels.row_error(missing, found, "complete or remove it")


def read_labels(
    path: Path, config: LabelTableConfig, *, on_illegal: OnIllegal = "error", statistics: ReadStatistics | None = None
) -> LabelledTable:
    """Read a labelled table, plain or compressed.

    Args:
        path: CSV or TSV file with a header, or FASTA with `TARGET=` and optionally `SET=` in each header; `-` is stdin.
        config: Options of the table, such as the columns that the user named.
        on_illegal: Policy for a character that is not a residue.
        statistics: Counts to which this reading is added; None if the caller does not need them.

    Raises:
        TableError: A column or a value is missing or invalid.
        IllegalResidueError: A character is no amino acid.
        ConfigError: A column is named, but the file is FASTA and has none.
    """
    statistics = ReadStatistics() if statistics is None else statistics
    name = display_name(path)
    with open_records(path, statistics) as stream:
        head: bytes = stream.peek(_PEEK)[:_PEEK]  # type: ignore[attr-defined]  # every stream of open_input can peek
        is_fasta = head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b">")
        read = _read_headers if is_fasta else _read_table
        labels = read(stream, name, config, on_illegal, statistics)
    if not labels.proteins:
        raise TableError(name, "the table has no rows", "give at least one protein each for training and test")
    _check_splits_complete(name, labels.proteins)
    _check_sequences(labels)
    return labels
