"""CSV and TSV with a header, row by row: what every table of the user's has in common."""

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from protembed.errors import TableError

# The longest protein known has 45,000 residues; csv's own limit of 131,072 characters is closer than it should be.
_LONGEST_CELL = 10_000_000


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row that is not blank.

    Attributes:
        number: from 1; blank ones count.
        line: where it ends in the file, from 1; the header is line 1.
        cells: as many as the header has, without the spaces around them.
    """

    number: int
    line: int
    cells: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table that is being read.

    Attributes:
        header: the names of its columns, without the spaces around them.
        rows: read as they are needed.
    """

    header: Sequence[str]
    rows: Iterator[Row]


@contextmanager
def reading_table(stream: BinaryIO, path: str) -> Iterator[Table]:
    """Read a table; it is TSV where its first line has a tab, else CSV.

    Args:
        stream: of bytes, in UTF-8, with a byte-order mark or without.
        path: its name, for messages.

    Raises:
        TableError: it has no header, or while rows are read: one has too few cells or too many, or is no CSV.
    """
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="")
    try:
        header_line = text.readline()
        if not header_line.strip():
            raise TableError(path, "the first line is empty", "give a CSV or TSV table with a header", line=1)
        delimiter = "\t" if "\t" in header_line else ","
        header = [name.strip() for name in next(csv.reader([header_line], delimiter=delimiter))]
        yield Table(header=header, rows=_read_rows(text, delimiter, path, len(header)))
    finally:
        text.detach()


def _read_rows(text: io.TextIOWrapper, delimiter: str, path: str, num_columns: int) -> Iterator[Row]:
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.reader(text, delimiter=delimiter)
    try:
        for number, cells in enumerate(reader, start=1):
            line = reader.line_num + 1  # the header is line 1
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != num_columns:
                found = f"this row has {len(cells)} cells, the header {num_columns}"
                raise TableError(path, found, "correct the row", line=line)
            yield Row(number=number, line=line, cells=[cell.strip() for cell in cells])
    except csv.Error as error:
        advice = "look for a quotation mark that is never closed"
        raise TableError(path, f"this is no readable table ({error})", advice, line=reader.line_num + 1) from error
