"""Proteins from FASTA, or from tables with a column of sequences, whose other columns are kept."""

import codecs
import re
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import BinaryIO, Literal

from protembed.config.common import Gaps, InputConfig, OnIllegal
from protembed.data.fasta import (
    ReadStatistics,
    Record,
    accept_sequence,
    clean_sequence,
    open_records,
    read_fasta_stream,
    read_records,
)
from protembed.errors import ConfigError, DataError, FormatError, IllegalResidueError, MissingCellError, TableError
from protembed.io.faults import Faults, RaisedFaults
from protembed.io.reading import display_name, is_stream, open_input
from protembed.io.sniffing import ONE_LETTER_ADVICE, detect_notation, detect_text_format
from protembed.io.tables import (
    PROTEIN_COLUMNS,
    SEQUENCE_COLUMNS,
    Row,
    Table,
    describe_traits,
    find_columns,
    is_stand_in,
    missing_column,
    normalize_name,
    reading_table,
)
from protembed.io.workbooks import is_workbook

_PEEK = 4096
# Of columns, though a vertical bar may also be in an identifier.
_SEPARATORS, _ALL_SEPARATORS = frozenset(",\t;"), re.compile("[,\t;|]")
# Comments of tables and of alignments in A3M, and the line with which Excel declares a separator.
_BEFORE_HEADERS = ("#", "sep=", '"sep=')


@dataclass(frozen=True, kw_only=True)
class TableRecord(Record):
    """One protein of a table; its identifier is the number of its row if the table has none.

    Attributes:
        cells: Texts of all columns, as they were read.
    """

    cells: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class ProteinColumns:
    """The columns of a table of proteins.

    Attributes:
        header: Names of all columns.
        line: Line of the header in the first table.
        sequence: Index of the column of sequences.
        id: Index of the column of identifiers; None if there is none.
    """

    header: Sequence[str]
    line: int = field(compare=False)
    sequence: int
    id: int | None

    @property
    def sequence_name(self) -> str:
        """Name of the column of sequences."""
        return self.header[self.sequence]

    @property
    def id_name(self) -> str | None:
        """Name of the column of identifiers."""
        return None if self.id is None else self.header[self.id]


@dataclass(frozen=True, kw_only=True)
class TableReading:
    """How tables of proteins are read.

    Attributes:
        sequence: Name of the column of sequences; None for a usual one.
        id: Name of the column of identifiers; None for a usual one.
        on_illegal: Policy for a character that is not a residue.
        gaps: Policy for the gaps of an alignment.
        on_missing: Policy for a row without a sequence.
    """

    sequence: str | None = None
    id: str | None = None
    on_illegal: OnIllegal = "error"
    gaps: Gaps = "error"
    on_missing: Literal["error", "skip"] = "error"

    @property
    def named(self) -> dict[str, str | None]:
        """Names of columns that the user gave, by their meanings."""
        return {"sequence": self.sequence, "id": self.id}

    @cached_property
    def reader(self) -> InputConfig:
        """Policies for what is not a residue."""
        return InputConfig(on_illegal=self.on_illegal, gaps=self.gaps)


def _first_bytes(stream: BinaryIO) -> bytes:
    head: bytes = stream.peek(_PEEK)[:_PEEK]  # type: ignore[attr-defined]  # every stream of open_input can peek
    return head


def _first_lines(stream: BinaryIO) -> list[str]:
    """Return the lines with which a text begins, without blank ones and without reading from the stream."""
    head = _first_bytes(stream)
    is_utf16 = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = head.decode("utf-16" if is_utf16 else "utf-8-sig", errors="replace")
    return [line for line in text.splitlines() if line.strip()]


def _first_after_comments(lines: Sequence[str]) -> str:
    return next((line for line in lines if not line.lower().startswith(_BEFORE_HEADERS)), "")


def begins_as_fasta(path: Path) -> bool:
    """Return whether the first line of a file, after blank lines and comments, is a header of FASTA.

    Raises:
        FormatError: The file is empty, so that it is neither FASTA nor a table.
        InputNotFoundError: The file cannot be opened.
    """
    with open_input(path) as stream:
        if not _first_bytes(stream):
            raise FormatError(display_name(path), "the file is empty", "give FASTA, or a table")
        return _first_after_comments(_first_lines(stream)).lstrip().startswith(">")


def _is_table(stream: BinaryIO, named: str | None) -> bool:
    """Return whether a stream is a table, rather than FASTA or something that the reader of FASTA names."""
    if is_workbook(stream):
        return True
    lines = _first_lines(stream)
    first = _first_after_comments(lines)
    if first.startswith(">") or "\0" in first or any(map(detect_text_format, lines[:1])):
        return False
    names = {normalize_name(name) for name in (*SEQUENCE_COLUMNS, *filter(None, [named]))}
    has_name = any(normalize_name(cell.strip(' "')) in names for line in lines for cell in _ALL_SEPARATORS.split(line))
    return has_name or not _SEPARATORS.isdisjoint(first)


class ProteinFiles:
    """Proteins of FASTA files, or of tables that have the same columns.

    All rows of tables are checked at once, except for those of pipes. Proteins in FASTA are checked as they are read.

    Args:
        paths: FASTA files or tables; `-` is stdin.
        reading: How tables are read.

    Attributes:
        columns: Columns of the tables; None for FASTA, and for a pipe until `read` has begun.
        name: Name of the first file, for messages.
        notes: Sentences about what is unusual in the tables.

    Raises:
        TableError: A table has no column of sequences, or other columns than the first one, or a row has no sequence.
        IllegalResidueError: A character in a table is not an amino acid.
        InputNotFoundError: A file cannot be opened.
    """

    def __init__(self, paths: Sequence[Path], reading: TableReading) -> None:
        self.columns: ProteinColumns | None = None
        self.name, self.notes = display_name(paths[0]), list[str]()
        self._paths, self._reading, self._num_checked = paths, reading, 0
        for path in paths:
            if not is_stream(path):
                with open_records(path, ReadStatistics()) as stream:
                    self._check(stream, display_name(path))

    def read(self, statistics: ReadStatistics) -> Iterator[Record]:
        """Read proteins one by one, in order; those of tables are `TableRecord`.

        Raises:
            ProtembedError: A file is neither FASTA nor a table, or a record is invalid; see `read_fasta`.
        """
        return read_records(self._paths, statistics, partial(self._read_stream, statistics=statistics))

    def _check(self, stream: BinaryIO, name: str) -> None:
        if not self._is_table(stream, name):
            return
        with Faults() as faults:
            for _ in self._read_table(stream, name, ReadStatistics(), faults):
                pass

    def _read_stream(self, stream: BinaryIO, name: str, statistics: ReadStatistics) -> Generator[Record]:
        if self._is_table(stream, name):
            yield from self._read_table(stream, name, statistics, RaisedFaults())
        else:
            yield from read_fasta_stream(stream, name, self._reading.reader, statistics)

    def _is_table(self, stream: BinaryIO, name: str) -> bool:
        if _is_table(stream, self._reading.sequence):
            return True
        for option, column in self._reading.named.items():
            if column is not None:
                raise ConfigError(option, column, f"{name} is not a table and has no columns")
        self._check_columns(None, name)
        return False

    def _read_table(
        self, stream: BinaryIO, name: str, statistics: ReadStatistics, faults: Faults
    ) -> Generator[TableRecord]:
        num_before = statistics.num_read
        known = (self._reading.sequence, *SEQUENCE_COLUMNS)
        with reading_table(stream, name, known=known, faults=faults) as table:
            columns = self._find_columns(table, name)
            self._check_columns(columns, name)
            self.notes = describe_traits(table.traits)
            for row in table.rows:
                try:
                    record = self._record(row, name, columns, statistics)
                except DataError as error:
                    faults.add(error)
                    continue
                if record is not None:
                    yield record
        if statistics.num_read == num_before and not faults.num_errors:
            raise TableError(name, "the table has no rows", "give at least one protein")

    def _find_columns(self, table: Table, name: str) -> ProteinColumns:
        indices = find_columns(table.header, name, PROTEIN_COLUMNS, self._reading.named, table.line)
        if "sequence" not in indices:
            advice = "name the column sequence, or pass `sequence`"
            raise missing_column(table.header, name, "sequence", advice, table.line)
        return ProteinColumns(header=table.header, line=table.line, sequence=indices["sequence"], id=indices.get("id"))

    def _check_columns(self, columns: ProteinColumns | None, name: str) -> None:
        """Check that a file has the columns of the first one."""
        self._num_checked += 1
        if self._num_checked == 1:
            self.columns = columns
        elif columns != self.columns:
            kinds = ["FASTA" if file is None else "a table" for file in (columns, self.columns)]
            found = f"this is {kinds[0]}, and {self.name} is {kinds[1]}"
            if columns and self.columns:
                found = f"its columns are not those of {self.name}"
            raise TableError(name, found, "give FASTA files, or tables with the same columns")

    def _record(self, row: Row, name: str, columns: ProteinColumns, statistics: ReadStatistics) -> TableRecord | None:
        """Read the protein of a row; None if it is skipped."""
        cell, reading = row.cells[columns.sequence], self._reading
        row_id = (None if columns.id is None else row.cells[columns.id]) or str(row.number)
        raw = clean_sequence(cell)
        if not raw or is_stand_in(raw):
            error = MissingCellError(name, row.line, row_id, "sequence", cell)
            statistics.skip_or_raise(row_id, error, reading.on_missing)
            return None
        if notation := detect_notation(cell):
            raise TableError(name, f"the sequence of row {row_id!r} is {notation}", ONE_LETTER_ADVICE, line=row.line)
        sequence = accept_sequence(
            raw,
            reading.reader,
            statistics,
            lambda index: IllegalResidueError(name, row.line, row_id, index + 1, raw[index]),
        )
        if sequence is None:
            return None
        statistics.num_records += 1
        statistics.num_residues += len(sequence)
        return TableRecord(
            row=statistics.num_records - 1,
            id=row_id,
            description=row_id,
            sequence=sequence,
            path=name,
            line=row.line,
            cells=row.cells,
        )
