"""Proteins from FASTA, or from tables with a column of sequences, whose other columns are kept."""

import codecs
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from protembed.data.fasta import (
    OnIllegal,
    ReadStatistics,
    Record,
    accept_sequence,
    clean_sequence,
    open_records,
    read_fasta_stream,
    read_records,
)
from protembed.errors import ConfigError, IllegalResidueError, TableError
from protembed.io.reading import display_name, is_stream
from protembed.io.sniffing import ONE_LETTER_ADVICE, detect_notation, detect_text_format
from protembed.io.tables import (
    Row,
    check_unique_columns,
    column_names,
    find_columns,
    is_stand_in,
    normalize_name,
    reading_table,
)

_USUAL_NAMES = {
    "sequence": ("sequence", "protein_sequence", "aa_sequence", "amino_acid_sequence", "seq", "aa_seq", "sequences"),
    "id": (
        *("id", "identifier", "accession", "protein_id", "entry", "entry_name", "uniprot_id", "uniprot"),
        *("name", "protein", "protein_name", "seq_id", "sequence_id", "sequence_name"),
    ),
}
_PEEK = 4096
_SEPARATORS = frozenset(",\t;")
_COMMENTS = ("# ", "sep=", '"sep=')


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
        sequence: Index of the column of sequences.
        id: Index of the column of identifiers; None if there is none.
    """

    header: Sequence[str]
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


def _is_table(stream: BinaryIO) -> bool:
    """Return whether a stream is a table, rather than FASTA or something that the reader of FASTA names."""
    head: bytes = stream.peek(_PEEK)[:_PEEK]  # type: ignore[attr-defined]  # every stream of open_input can peek
    text = head.removeprefix(codecs.BOM_UTF8).decode(errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    first = next((line for line in lines if not line.lower().startswith(_COMMENTS)), "")
    if first.startswith(">") or "\0" in first or any(map(detect_text_format, lines[:1])):
        return False
    return not _SEPARATORS.isdisjoint(first) or normalize_name(first) in map(normalize_name, _USUAL_NAMES["sequence"])


class ProteinFiles:
    """Proteins of FASTA files, or of tables that have the same columns.

    Args:
        paths: FASTA files or tables; `-` is stdin.
        sequence: Name of the column of sequences; None for a usual one.
        id: Name of the column of identifiers; None for a usual one.
        on_illegal: Policy for a character that is not a residue.

    Attributes:
        columns: Columns of the tables; None for FASTA, and for a pipe until `read` has begun.
        name: Name of the first file, for messages.

    Raises:
        TableError: A table has no column of sequences, or other columns than the first one.
        InputNotFoundError: A file cannot be opened.
    """

    def __init__(self, paths: Sequence[Path], *, sequence: str | None, id: str | None, on_illegal: OnIllegal) -> None:
        self.columns: ProteinColumns | None = None
        self._paths, self._named, self._on_illegal = paths, {"sequence": sequence, "id": id}, on_illegal
        self.name, self._num_checked = display_name(paths[0]), 0
        for path in paths:
            if not is_stream(path):
                with open_records(path, ReadStatistics()) as stream:
                    self._read_header(stream, display_name(path))

    def read(self, statistics: ReadStatistics) -> Iterator[Record]:
        """Read proteins one by one, in order; those of tables are `TableRecord`.

        Raises:
            ProtembedError: A file is neither FASTA nor a table, or a record is invalid; see `read_fasta`.
            TableError: A row has no sequence, or a table has no rows.
        """
        return read_records(self._paths, statistics, partial(self._read_stream, statistics=statistics))

    def _read_header(self, stream: BinaryIO, name: str) -> None:
        if _is_table(stream):
            with reading_table(stream, name) as table:
                self._check_columns(self._find_columns(table.header, name), name)
        else:
            self._check_columns(None, name)

    def _find_columns(self, header: Sequence[str], name: str) -> ProteinColumns:
        check_unique_columns(header, name)
        indices = find_columns(header, name, _USUAL_NAMES, self._named)
        if "sequence" not in indices:
            found = f"no sequence column among {column_names(header)}"
            raise TableError(name, found, "name the column sequence, or pass `sequence`", line=1)
        return ProteinColumns(header=header, sequence=indices["sequence"], id=indices.get("id"))

    def _check_columns(self, columns: ProteinColumns | None, name: str) -> None:
        """Check that a file has the columns of the first one."""
        for option, column in self._named.items():
            if columns is None and column is not None:
                raise ConfigError(option, column, f"{name} is not a table and has no columns")
        self._num_checked += 1
        if self._num_checked == 1:
            self.columns = columns
        elif columns != self.columns:
            kinds = ["FASTA" if file is None else "a table" for file in (columns, self.columns)]
            found = f"this is {kinds[0]}, and {self.name} is {kinds[1]}"
            if columns and self.columns:
                found = f"its columns are not those of {self.name}"
            raise TableError(name, found, "give FASTA files, or tables with the same columns")

    def _read_stream(self, stream: BinaryIO, name: str, statistics: ReadStatistics) -> Generator[Record]:
        if not _is_table(stream):
            self._check_columns(None, name)
            yield from read_fasta_stream(stream, name, self._on_illegal, statistics)
            return
        num_before = statistics.num_read
        with reading_table(stream, name) as table:
            columns = self._find_columns(table.header, name)
            self._check_columns(columns, name)
            for row in table.rows:
                record = self._record(row, name, columns, statistics)
                if record is not None:
                    yield record
        if statistics.num_read == num_before:
            raise TableError(name, "the table has no rows", "give at least one protein")

    def _record(self, row: Row, name: str, columns: ProteinColumns, statistics: ReadStatistics) -> TableRecord | None:
        """Read the protein of a row; None if it is skipped."""
        cell = row.cells[columns.sequence]
        row_id = (None if columns.id is None else row.cells[columns.id]) or str(row.number)
        raw = clean_sequence(cell)
        if not raw or is_stand_in(raw):
            raise TableError(name, f"row {row_id!r} has no sequence", "complete or remove it", line=row.line)
        if notation := detect_notation(cell):
            raise TableError(name, f"the sequence of row {row_id!r} is {notation}", ONE_LETTER_ADVICE, line=row.line)
        sequence = accept_sequence(
            raw,
            self._on_illegal,
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
