"""CSV and TSV with a header, row by row: what every table of the user's has in common."""

import csv
import io
import re
import string
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import BinaryIO

from protembed.errors import TableError
from protembed.io.sniffing import foreign_format

# In lower case: what spreadsheets, pandas, R and people write where they know nothing.
_STAND_INS = frozenset(
    "na n/a n.a. n.d. nan null none nil <na> missing undefined unknown unk - -- ? . _ -100 "
    "#n/a #value! #ref! #div/0! #name? #num! #null!".split()
)


# The longest protein known has 45,000 residues; csv's own limit of 131,072 characters is closer than it should be.
_LONGEST_CELL = 10_000_000
# How a line begins that says something about a table and is no part of it.
COMMENT = "# "
# What `surrogateescape` makes of bytes that are no UTF-8.
_NO_UTF8 = re.compile("[\udc80-\udcff]")
# Byte-order marks that stand elsewhere, and spaces without width.
_INVISIBLE = "\ufeff\u200b"
_BETWEEN_WORDS = re.compile(r"[\s_.-]+")
# Excel's first line, which says what divides the columns of those that follow.
_DIVIDER_OF_EXCEL = re.compile(r'"?sep=.?"?[\r\n]*')
# How a file begins that is no table, though it may have commas.
_NO_TABLES = {"{": "JSON", "[{": "JSON", "<": "HTML or XML", ">": "FASTA, or clusters as CD-HIT writes them"}
# What divides the columns of tables that are neither CSV nor TSV, as it stands between the names of two columns.
_FOREIGN_DIVIDERS = {";": "semicolons", "|": "vertical bars", '" "': "spaces"}
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
    """Read a table; it is TSV where its header has a tab, else CSV.

    Lines before the header may begin with `# `, and one may be Excel's `sep=,`.

    Args:
        stream: of bytes, in UTF-8, with a byte-order mark or without; one that can peek.
        path: its name, for messages.

    Raises:
        TableError: it has no header, or while rows are read: one has too few cells or too many, is no CSV, repeats the
            header, or holds a byte that is NUL or no UTF-8.
    """
    if foreign := foreign_format(stream):
        raise TableError(path, f"this is {foreign}", "save the table as CSV or TSV, in UTF-8")
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    lines = _utf8_lines(text, path)
    try:
        header_line, num_comments = next(lines, ""), 0
        while header_line.startswith(COMMENT) or _DIVIDER_OF_EXCEL.fullmatch(header_line):
            header_line, num_comments = next(lines, ""), num_comments + 1
        if not header_line.strip():
            advice = "give a CSV or TSV table with a header"
            raise TableError(path, "the first line is empty", advice, line=num_comments + 1)
        delimiter = "\t" if "\t" in header_line else ","
        header, num_lines = _read_header(header_line, lines, delimiter, path, num_comments + 1)
        _check_header(header, header_line, path, num_comments + 1)
        rows = _read_rows(lines, delimiter, path, list(header), num_comments + num_lines)
        if header[-2:] == ["", ""]:  # Excel's, of columns that were emptied
            while len(header) > 1 and not header[-1]:
                header.pop()
            rows = _without_nameless(rows, path, len(header))
        yield Table(header=header, rows=rows)
    finally:
        text.detach()


def _read_header(first_line: str, lines: Iterator[str], delimiter: str, path: str, line: int) -> tuple[list[str], int]:
    """Read the names of the columns, and count the lines that they take: a name in quotes may have several in CSV."""
    reader = csv.reader([first_line] if delimiter == "\t" else chain([first_line], lines), delimiter=delimiter)
    try:
        return [_visible(name) for name in next(reader)], reader.line_num
    except csv.Error as error:
        advice = "look for a quotation mark that is not closed"
        raise TableError(path, f"this is no readable header ({error})", advice, line=line) from error


def _visible(name: str) -> str:
    """Take spaces and invisible characters, such as a second byte-order mark, from both ends of a name."""
    return name.strip(string.whitespace + _INVISIBLE).strip()


def _check_header(header: Sequence[str], header_line: str, path: str, line: int) -> None:
    """Refuse what is no table, or none whose columns are divided by commas or tabs."""
    for start, name in _NO_TABLES.items():
        if header_line.startswith(start):
            raise TableError(path, f"this seems to be {name}", "give a CSV or TSV table with a header", line=line)
    for divider, name in _FOREIGN_DIVIDERS.items():
        if len(header) == 1 and divider in header_line:
            found = f"its columns seem to be divided by {name}"
            raise TableError(path, found, "divide them by commas or tabs", line=line)


def _utf8_lines(text: io.TextIOWrapper, path: str) -> Iterator[str]:
    """Yield lines, and refuse one that was written in another encoding or overwritten with zeros."""
    for number, line in enumerate(text, start=1):
        if not line.isascii() and (strange := _NO_UTF8.search(line)):
            byte, where = ord(strange[0]) - 0xDC00, strange.start() + 1
            found = f"character {where} of this line is no UTF-8 (its byte is 0x{byte:02X})"
            raise TableError(path, found, "save the table as UTF-8; in Excel: CSV UTF-8", line=number)
        if "\0" in line:
            found = f"character {line.index(chr(0)) + 1} of this line is NUL, which is in no text"
            raise TableError(path, found, "the file is damaged: write or fetch it again", line=number)
        yield line


def _without_nameless(rows: Iterator[Row], path: str, num_columns: int) -> Iterator[Row]:
    """Leave out the columns at the end that have no name, and refuse a cell in them."""
    for row in rows:
        if nameless := [cell for cell in row.cells[num_columns:] if cell]:
            found = f"the cell {nameless[0][:_MOST_LETTERS]!r} stands in a column without a name"
            raise TableError(path, found, "name the column, or remove the cell", line=row.line)
        yield Row(number=row.number, line=row.line, cells=row.cells[:num_columns])


def normalize_name(name: str) -> str:
    """Bring the name of a column into the form in which names are compared.

    >>> normalize_name("Protein ID") == normalize_name("protein_id") == normalize_name("protein-id")
    True
    """
    return _BETWEEN_WORDS.sub("", name).casefold()


def find_column(
    header: Sequence[str],
    path: str,
    meaning: str,
    usual_names: Sequence[str],
    named: str | None = None,
    taken: Collection[str] = (),
) -> int | None:
    """Find a column: the one that the user named, else the first of the usual names.

    Case, spaces, dashes and underscores do not count among the usual names.

    Args:
        header: the names of the columns.
        path: of the table, for messages.
        meaning: what the column holds, for messages.
        usual_names: in lower case.
        named: by the user.
        taken: columns that the user named for something else.

    Returns:
        Its place; None if it has none of the usual names.

    Raises:
        TableError: there is no column of the name that the user gave, or several have the same usual name.

    >>> find_column(["Protein ID", "Label"], "labels.csv", "id", ["id", "protein_id"])
    0
    """
    if named is not None:
        if named not in header:
            found = f"no column {named!r} among {column_names(header)}"
            raise TableError(path, found, f"name the {meaning} column", line=1)
        return header.index(named)
    for plain in (str.lower, normalize_name):
        names = [None if name in taken else plain(name) for name in header]
        for usual in map(plain, usual_names):
            if names.count(usual) > 1:
                same = column_names([name for name, one in zip(header, names, strict=True) if one == usual])
                raise TableError(path, f"{same} may each be the {meaning} column", "rename all but one", line=1)
            if usual in names:
                return names.index(usual)
    return None


def column_names(header: Sequence[str]) -> str:
    """List the columns of a table for a message, which stays a sentence however long they are."""
    shown = [name if len(name) <= _MOST_LETTERS else f"{name[:_MOST_LETTERS]}..." for name in header[:_MOST_NAMES]]
    return ", ".join(map(repr, shown)) + (" ..." if len(header) > _MOST_NAMES else "")


def check_unique_columns(header: Sequence[str], path: str) -> None:
    """Refuse a table with two columns of one name; columns without one, such as pandas' of an index, are no matter.

    Raises:
        TableError: there are such.
    """
    for name, count in Counter(header).items():
        if name and count > 1:
            raise TableError(path, f"the header has {count} columns named {name!r}", "rename them", line=1)


def _read_rows(
    lines: Iterator[str], delimiter: str, path: str, header: Sequence[str], header_line: int
) -> Iterator[Row]:
    csv.field_size_limit(_LONGEST_CELL)
    reader, line = csv.reader(lines, delimiter=delimiter, strict=True), header_line
    try:
        for number, cells in enumerate(reader, start=1):
            first_line, line = line + 1, reader.line_num + header_line
            if delimiter == "\t" and line > first_line:
                found = f"a quotation mark that opens in line {first_line} closes here"
                raise TableError(path, found, "take both out, or the line breaks between them", line=line)
            row = Row(number=number, line=line, cells=[cell.strip() for cell in cells])
            if any(row.cells):
                _check_fits(row, header, path)
                yield row
    except csv.Error as error:
        advice = "look for a quotation mark that is not closed in this line"
        raise TableError(path, f"this is no readable table ({error})", advice, line=line + 1) from error


def _check_fits(row: Row, header: Sequence[str], path: str) -> None:
    """Refuse a row that has more or fewer cells than the header, or is the header of a table appended to this one."""
    if len(row.cells) != len(header):
        found, advice = f"this row has {len(row.cells)} cells, the header {len(header)}", "correct the row"
        if row.number == 1 and len(row.cells) == len(header) + 1:
            advice += ", or name all columns in the header; R leaves row names out by row.names = FALSE"
        raise TableError(path, found, advice, line=row.line)
    if _visible(row.cells[0]) == header[0] and row.cells[1:] == header[1:]:
        raise TableError(path, "this row repeats the header", "remove it", line=row.line)


def is_stand_in(text: str) -> bool:
    """Tell whether a label or an entry is what people and programs write where they know nothing.

    >>> is_stand_in("#N/A"), is_stand_in("X"), is_stand_in("x"), is_stand_in("nucleus")
    (True, True, False, False)
    """
    return text.lower() in _STAND_INS or text == "X"
