"""CSV and TSV with a header, row by row: what every table of the user's has in common."""

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from protembed.data.foreign_formats import foreign_format
from protembed.errors import TableError

# The longest protein known has 45,000 residues; csv's own limit of 131,072 characters is closer than it should be.
_LONGEST_CELL = 10_000_000
# How a line begins that says something about a table and is no part of it.
COMMENT = "# "
# Of the columns that a message names, and of the letters of each.
_MOST_NAMES, _MOST_LETTERS = 20, 40


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
    """Read a table; it is TSV where its header has a tab, else CSV. Lines before the header may begin with `# `.

    Args:
        stream: of bytes, in UTF-8, with a byte-order mark or without; one that can peek.
        path: its name, for messages.

    Raises:
        TableError: it has no header, or while rows are read: one has too few cells or too many, or is no CSV.
    """
    if foreign := foreign_format(stream):
        raise TableError(path, f"this is {foreign}", "save the table as CSV or TSV, in UTF-8")
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="")
    try:
        header_line, num_comments = text.readline(), 0
        while header_line.startswith(COMMENT):
            header_line, num_comments = text.readline(), num_comments + 1
        if not header_line.strip():
            advice = "give a CSV or TSV table with a header"
            raise TableError(path, "the first line is empty", advice, line=num_comments + 1)
        delimiter = "\t" if "\t" in header_line else ","
        header = [name.strip() for name in next(csv.reader([header_line], delimiter=delimiter))]
        if len(header) == 1 and ";" in header_line:
            found = "its columns seem to be divided by semicolons"
            raise TableError(path, found, "divide them by commas or tabs", line=num_comments + 1)
        yield Table(header=header, rows=_read_rows(text, delimiter, path, len(header), num_comments + 1))
    finally:
        text.detach()


def find_column(
    header: Sequence[str], path: str, meaning: str, usual_names: Sequence[str], named: str | None = None
) -> int | None:
    """Find a column: the one that the user named, else the first of the usual names, in capitals or not.

    Args:
        header: the names of the columns.
        path: of the table, for messages.
        meaning: what the column holds, for messages.
        usual_names: in lower case.
        named: by the user.

    Returns:
        Its place; None if it has none of the usual names.

    Raises:
        TableError: there is no column of the name that the user gave.

    >>> find_column(["ID", "Label"], "labels.csv", "target", ["target", "label"])
    1
    """
    if named is not None:
        if named not in header:
            found = f"no column {named!r} among {column_names(header)}"
            raise TableError(path, found, f"name the {meaning} column", line=1)
        return header.index(named)
    lower = [name.lower() for name in header]
    return next((lower.index(name) for name in usual_names if name in lower), None)


def column_names(header: Sequence[str]) -> str:
    """List the columns of a table for a message, which stays a sentence however long they are."""
    shown = [name if len(name) <= _MOST_LETTERS else f"{name[:_MOST_LETTERS]}..." for name in header[:_MOST_NAMES]]
    return ", ".join(map(repr, shown)) + (" ..." if len(header) > _MOST_NAMES else "")


def refuse_repeated_columns(header: Sequence[str], path: str) -> None:
    """Refuse a table with two columns of one name.

    Raises:
        TableError: there are such.
    """
    for name, count in Counter(header).items():
        if count > 1:
            raise TableError(path, f"the header has {count} columns named {name!r}", "rename them", line=1)


def _read_rows(text: io.TextIOWrapper, delimiter: str, path: str, num_columns: int, header_line: int) -> Iterator[Row]:
    csv.field_size_limit(_LONGEST_CELL)
    reader, line = csv.reader(text, delimiter=delimiter, strict=True), header_line
    try:
        for number, cells in enumerate(reader, start=1):
            first_line, line = line + 1, reader.line_num + header_line
            if delimiter == "\t" and line > first_line:
                found = f"a quotation mark that opens in line {first_line} closes here"
                raise TableError(path, found, "take both out, or the line breaks between them", line=line)
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != num_columns:
                found = f"this row has {len(cells)} cells, the header {num_columns}"
                raise TableError(path, found, "correct the row", line=line)
            yield Row(number=number, line=line, cells=[cell.strip() for cell in cells])
    except csv.Error as error:
        advice = "look for a quotation mark that is not closed in this line"
        raise TableError(path, f"this is no readable table ({error})", advice, line=line + 1) from error
