"""Labelled proteins, read from tables or from the headers of FASTA."""

import codecs
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from itertools import product
from os.path import commonprefix
from pathlib import Path
from statistics import median
from typing import BinaryIO

from protembed.config.common import InputConfig
from protembed.config.finetune import LabelTableConfig
from protembed.data.fasta import (
    ReadStatistics,
    Record,
    accept_sequence,
    clean_sequence,
    open_records,
    read_fasta_stream,
)
from protembed.errors import ConfigError, DataError, IllegalResidueError, MissingCellError, TableError
from protembed.finetuning.split_names import Split, choose_test_set, is_unlabelled, parse_split
from protembed.io.faults import Faults
from protembed.io.reading import display_name
from protembed.io.sniffing import ONE_LETTER_ADVICE, detect_notation
from protembed.io.tables import (
    LABEL_COLUMNS,
    PROTEIN_COLUMNS,
    Table,
    find_columns,
    is_missing,
    is_stand_in,
    missing_column,
    reading_table,
)
from protembed.text import pluralize

_USUAL_NAMES: Mapping[str, Sequence[str]] = {
    **PROTEIN_COLUMNS,
    "target": LABEL_COLUMNS,
    "split": ("split", "set"),
    "validation": ("validation",),  # FLIP's
    "mask": ("mask",),
}
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
        split_name: Name of the split as written in the table; None if the table has no splits.
    """

    id: str
    sequence: str
    label: str
    split: Split | None
    line: int
    mask: str | None = None
    split_name: str | None = None


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
        traits: What is unusual about the table, in a few words each, such as `semicolons`.
        has_decimal_commas: Whether the program that wrote the table may have written numbers with decimal commas.
    """

    proteins: Sequence[LabelledProtein]
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()
    traits: Sequence[str] = ()
    has_decimal_commas: bool = False

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


# Rows


@dataclass(frozen=True, kw_only=True)
class _Reader:
    """Reads the rows of a file, and collects what is wrong with them.

    Attributes:
        name: Name of the file, for messages.
        policies: Policies for characters that are not residues.
        statistics: Counts to which the reading is added.
        faults: Collection of the errors about single rows.
    """

    name: str
    config: LabelTableConfig
    policies: InputConfig
    statistics: ReadStatistics
    faults: Faults

    def row(self, row: Mapping[str, str], line: int) -> LabelledProtein | None:
        """Read a row, by the meanings of its cells; None if it is left out, or its error was collected."""
        row_id, raw = row["id"], clean_sequence(row["sequence"])
        if not raw:  # also a row of units below the header, or one of sums at the end
            self.leave_out(MissingCellError(self.name, line, row_id, "sequence"))
            return None
        if not row_id:
            advice = "give it one, or name another column with `id`"
            raise TableError(self.name, "a row has no identifier", advice, line=line)
        if notation := detect_notation(row["sequence"]):
            raise TableError(self.name, f"the sequence of row {row_id!r} is {notation}", ONE_LETTER_ADVICE, line=line)
        sequence = accept_sequence(
            raw,
            self.policies,
            self.statistics,
            lambda index: IllegalResidueError(self.name, line, row_id, index + 1, raw[index]),
        )
        return None if sequence is None else self.protein(row_id, sequence, row, line)

    def protein(self, row_id: str, sequence: str, row: Mapping[str, str], line: int) -> LabelledProtein | None:
        """Make the protein of a row whose sequence was read; None if it has no split, and is left out."""
        name = row.get("split", row.get("possible_split"))
        if name == "" and "split" in row:
            self.leave_out(MissingCellError(self.name, line, row_id, "split"))
            return None
        return LabelledProtein(
            id=row_id,
            sequence=sequence,
            label=row["target"],
            split=self._split(row, line),
            line=line,
            mask=row.get("mask"),
            split_name=name,
        )

    def leave_out(self, error: MissingCellError) -> None:
        """List a row that has no sequence, label or split as left out, or raise the error about it."""
        self.statistics.skip_or_raise(error.row_id, error, self.config.on_missing)

    def _split(self, row: Mapping[str, str], line: int) -> Split | None:
        """Read the split of a row; tables of FLIP mark validation proteins in a separate column."""
        split = parse_split(row.get("split", row.get("possible_split", "")))
        if "split" not in row:
            return split
        if split is None and not is_unlabelled(row["split"]):
            found = f"the split {row['split']!r} is unknown"
            raise TableError(self.name, found, "train, valid or test is expected", line=line)
        validation = row.get("validation", "").lower()
        if validation not in _TRUE + _FALSE:
            advice = "true or false is expected in the column validation"
            raise TableError(self.name, f"{row['validation']!r} is neither true nor false", advice, line=line)
        return "valid" if split == "train" and validation in _TRUE else split


# CSV and TSV


def _expected_names(config: LabelTableConfig) -> list[str | None]:
    """List the names by which the header is recognised: those that the user gave, and usual ones."""
    return [config.sequence, config.target, *_USUAL_NAMES["sequence"], *_USUAL_NAMES["target"]]


def _find_columns(table: Table, path: str, config: LabelTableConfig) -> dict[str, int]:
    """Find the columns by their meanings, as the user named them or by their usual names."""
    header, line = table.header, table.line
    named = {"id": config.id, "sequence": config.sequence, "target": config.target, "split": config.split_column}
    columns = find_columns(header, path, _USUAL_NAMES, named, line)
    for meaning in ("sequence", "target"):
        if meaning not in columns:
            advice = f"name it {_USUAL_NAMES[meaning][0]}, or pass --{meaning}"
            raise missing_column(header, path, meaning, advice, line)
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


def _read_table(stream: BinaryIO, reader: _Reader) -> LabelledTable:
    name, config, proteins = reader.name, reader.config, list[LabelledProtein]()
    with reading_table(stream, name, known=_expected_names(config), faults=reader.faults) as table:
        header, columns = table.header, _find_columns(table, name, config)
        for row in table.rows:
            # Without a column of identifiers, a row is named by its number.
            cells = {"id": str(row.number)} | {meaning: row.cells[index] for meaning, index in columns.items()}
            try:
                protein = reader.row(cells, row.line)
            except DataError as error:  # a context manager in this place would cost a fifth of the time
                reader.faults.add(error)
                continue
            if protein is not None:
                reader.statistics.num_records += 1
                reader.statistics.num_residues += len(protein.sequence)
                proteins.append(protein)
    notes = list(_column_notes(header, columns, config))
    if "possible_split" in columns and not all(map(_has_split, proteins)):
        proteins = [replace(protein, split=None, split_name=None) for protein in proteins]
        column = f"the column {header[columns['possible_split']]!r} has other values than train, valid and test"
        notes.append(f"{column}, so it is not read as the split; --split-column names the column")
    return LabelledTable(
        path=name,
        target=header[columns["target"]],
        proteins=proteins,
        notes=notes,
        traits=table.traits,
        has_decimal_commas=table.has_decimal_commas,
    )


def _has_split(protein: LabelledProtein) -> bool:
    return protein.split is not None or is_unlabelled(protein.split_name or "")


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


def _labelled_record(record: Record, fields: Mapping[str, str], reader: _Reader) -> LabelledProtein | None:
    row = {"split": fields["set"], **fields} if "set" in fields else dict(fields)
    if is_unlabelled(fields.get("set", "")):
        row.setdefault("target", "")
    if "target" not in row:
        keys = ", ".join(f"{key.upper()}=" for key in fields)
        advice = "add the label, as in `>P1 TARGET=membrane SET=train`, or give a table with a column of labels"
        raise _error(record, "has no TARGET=" + (f" beside {keys}" if keys else ""), advice)
    return reader.protein(record.id, record.sequence, row, record.line)


def _read_headers(stream: BinaryIO, reader: _Reader) -> LabelledTable:
    for option in ("target", "sequence", "split_column", "id"):
        if (column := getattr(reader.config, option)) is not None:
            raise ConfigError(option, column, "a FASTA file has no columns")
    headers, proteins = list[tuple[Record, Mapping[str, str]]](), list[LabelledProtein]()
    with closing(read_fasta_stream(stream, reader.name, reader.policies, reader.statistics)) as records:
        for record in records:
            with reader.faults.collecting():
                headers.append((record, _header_fields(record)))
    for record, fields in headers:
        with reader.faults.collecting():
            if protein := _labelled_record(record, fields, reader):
                proteins.append(protein)
    return LabelledTable(path=reader.name, target="TARGET", proteins=proteins, warnings=_header_warnings(headers))


# Both


def _check_splits_complete(labels: LabelledTable, faults: Faults) -> None:
    without = [protein for protein in labels.proteins if protein.split_name is None]
    if len(without) < len(labels.proteins):
        for protein in without:
            found = f"{protein.id!r} has no split, and others have one"
            faults.add(TableError(labels.path, found, "add its SET=", line=protein.line))


def _without_stand_ins(labels: LabelledTable, reader: _Reader) -> LabelledTable:
    """Leave out stand-ins such as `NA`, whose letters are amino acids, unless most proteins are short peptides."""
    missing = [protein for protein in labels.proteins if is_stand_in(protein.sequence)]
    if not missing or median(len(protein.sequence) for protein in labels.proteins) < _MIN_PROTEIN_RESIDUES:
        return labels
    for protein in missing:
        with reader.faults.collecting():
            reader.leave_out(MissingCellError(labels.path, protein.line, protein.id, "sequence", protein.sequence))
    return replace(labels, proteins=[protein for protein in labels.proteins if not is_stand_in(protein.sequence)])


def _without_unlabelled(labels: LabelledTable) -> LabelledTable:
    """Leave out the proteins of a split that is only to be predicted."""
    unlabelled = [protein for protein in labels.proteins if is_unlabelled(protein.split_name or "")]
    if not unlabelled:
        return labels
    number, name = pluralize(len(unlabelled), "protein"), unlabelled[0].split_name
    note = f"{number} of the split {name!r} left out, because labels are unknown there; `protembed predict` needs none"
    chosen = [protein for protein in labels.proteins if not is_unlabelled(protein.split_name or "")]
    return replace(labels, proteins=chosen, notes=[*labels.notes, note])


def _with_one_test_set(labels: LabelledTable, test_set: str | None) -> LabelledTable:
    """Leave out all test sets but one."""
    names = [protein.split_name or "" for protein in labels.proteins if protein.split == "test"]
    chosen, counts = choose_test_set(names, test_set)
    if test_set is not None and chosen is None:
        found = f"no test set is named {test_set!r}, among {', '.join(map(repr, counts))}"
        raise TableError(labels.path, found, "name one of them with `test_set`")
    others = [name for name in counts if name != chosen]
    if not others:
        return labels
    left_out = ", ".join(f"{name!r} ({pluralize(counts[name], 'protein')})" for name in others)
    note = f"the test set {chosen!r} is evaluated, and {left_out} left out; --test-set names another one"
    proteins = [protein for protein in labels.proteins if (protein.split_name or "").lower() not in others]
    return replace(labels, proteins=proteins, notes=[*labels.notes, note])


def leave_out_unlabelled(
    labels: LabelledTable, config: LabelTableConfig, statistics: ReadStatistics, *, can_be_empty: bool
) -> LabelledTable:
    """Leave out the rows whose label is missing, if `on_missing` is `skip`, and list them in `statistics`.

    Args:
        labels: Labelled table.
        config: Options of the table.
        statistics: Counts, with the list of skipped rows.
        can_be_empty: Whether an empty cell is a label: that of a protein without any of several labels.

    Raises:
        TableError: No row is left.
    """
    if config.on_missing != "skip":
        return labels
    proteins = list[LabelledProtein]()
    for protein in labels.proteins:
        if is_missing(protein.label) and not (can_be_empty and not protein.label):
            error = MissingCellError(labels.path, protein.line, protein.id, "label", protein.label)
            statistics.skip_or_raise(protein.id, error, config.on_missing)
        else:
            proteins.append(protein)
    if not proteins:
        raise TableError(labels.path, "no row has a label", "name another column with `target`")
    return replace(labels, proteins=proteins)


def read_labels(
    path: Path,
    config: LabelTableConfig,
    *,
    reader: InputConfig | None = None,
    statistics: ReadStatistics | None = None,
    faults: Faults | None = None,
) -> LabelledTable:
    """Read a labelled table, plain or compressed.

    Args:
        path: Table with a header, or FASTA with `TARGET=` and optionally `SET=` in each header; `-` is stdin.
        config: Options of the table, such as the columns that the user named.
        reader: Policies for characters that are not residues; the defaults if None.
        statistics: Counts to which this reading is added; None if the caller does not need them.
        faults: Collection of the errors about single rows; None to raise them together at the end.

    Raises:
        TableError: A column or a value is missing or invalid.
        IllegalResidueError: A character is no amino acid.
        ConfigError: A column is named, but the file is FASTA and has none.
    """
    statistics = ReadStatistics() if statistics is None else statistics
    name = display_name(path)
    with Faults() if faults is None else nullcontext(faults) as collected:
        policies = reader or InputConfig()
        rows = _Reader(name=name, config=config, policies=policies, statistics=statistics, faults=collected)
        with open_records(path, statistics) as stream:
            head: bytes = stream.peek(_PEEK)[:_PEEK]  # type: ignore[attr-defined]  # every stream of open_input can peek
            is_utf16 = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
            is_fasta = head.decode("utf-16" if is_utf16 else "utf-8-sig", errors="replace").lstrip().startswith(">")
            labels = (_read_headers if is_fasta else _read_table)(stream, rows)
        if not labels.proteins:
            collected.check()
            found = "every row was left out" if statistics.skipped else "the table has no rows"
            raise TableError(name, found, "give at least one protein each for training and test")
        _check_splits_complete(labels, collected)
        labels = _without_unlabelled(_without_stand_ins(labels, rows))
        return _with_one_test_set(labels, config.test_set) if config.split is None else labels
