"""CSV and TSV tables with a header, read row by row: what all of the user's tables have in common."""

import csv
import io
import re
import string
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from protembed.errors import TableError
from protembed.io.sniffing import detect_binary_format

# Lines before the header that begin with this are comments about the table.
COMMENT = "# "

# In lower case: what spreadsheets, pandas, R and people write for a missing value.
_STAND_INS = frozenset(
    "na n/a n.a. n.d. nan null none nil <na> missing undefined unknown unk - -- ? . _ -100 "
    "#n/a #value! #ref! #div/0! #name? #num! #null!".split()
)
# The longest known protein has 45,000 residues; csv's default limit of 131,072 characters is too close to that.
_MAX_CELL_LETTERS = 10_000_000
# Surrogates, which `surrogateescape` decodes invalid bytes to.
_NO_UTF8 = re.compile("[\udc80-\udcff]")
# Further byte-order marks, and spaces without width.
_INVISIBLE = "\ufeff\u200b"
_BETWEEN_WORDS = re.compile(r"[\s_.-]+")
# Excel's optional first line, which declares the separator of the columns.
_EXCEL_SEPARATOR = re.compile(r'"?sep=.?"?[\r\n]*')
# How files begin that are no tables, though they may have commas.
_NO_TABLES = {"{": "JSON", "[{": "JSON", "<": "HTML or XML", ">": "FASTA, or clusters as CD-HIT writes them"}
# Separators of tables that are neither CSV nor TSV, as they appear between the names of two columns.
_UNSUPPORTED_SEPARATORS = {";": "semicolons", "|": "vertical bars", '" "': "spaces"}
# Limits of a message: the number of columns that it names, and of letters in each name.
_MAX_NAMES, _MAX_LETTERS = 20, 40


def is_stand_in(text: str) -> bool:
    """Return whether a label or an entry is what people and programs write for a missing value.

    >>> is_stand_in("#N/A"), is_stand_in("X"), is_stand_in("x"), is_stand_in("nucleus")
    (True, True, False, False)
    """
    return text.lower() in _STAND_INS or text == "X"


def normalize_name(name: str) -> str:
    """Normalize the name of a column, so that case, spaces, dots, dashes and underscores do not matter.

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
    """Find a column: the one that the user named, else the first that has one of the usual names.

    Case, spaces, dots, dashes and underscores do not matter in the usual names.

    Args:
        header: Names of the columns.
        path: Name of the table, for messages.
        meaning: What the column holds, for messages.
        usual_names: Usual names of the column, in lower case, the likeliest first.
        named: Name that the user gave; None if the user gave none.
        taken: Names of columns that the user gave other meanings.

    Returns:
        The column's index; None if no column has a usual name.

    Raises:
        TableError: No column has the name that the user gave, or several have the same usual name.

    >>> find_column(["Protein ID", "Label"], "labels.csv", "id", ["id", "protein_id"])
    0
    """
    if named is not None:
        if named not in header:
            found = f"no column {named!r} among {column_names(header)}"
            raise TableError(path, found, f"name the {meaning} column", line=1)
        return header.index(named)
    for normalize in (str.lower, normalize_name):
        names = [None if name in taken else normalize(name) for name in header]
        for usual in map(normalize, usual_names):
            if names.count(usual) > 1:
                same = column_names([name for name, normal in zip(header, names, strict=True) if normal == usual])
                raise TableError(path, f"{same} may each be the {meaning} column", "rename all but one", line=1)
            if usual in names:
                return names.index(usual)
    return None


def find_columns(
    header: Sequence[str],
    path: str,
    usual_names: Mapping[str, Sequence[str]],
    named: Mapping[str, str | None] | None = None,
) -> dict[str, int]:
    """Find the columns of a table by their meanings, each as `find_column` does.

    A column that the user named has no second meaning.

    Returns:
        The index of each column that was found, by its meaning.

    Raises:
        TableError: No column has a name that the user gave, or several have the same usual name.

    >>> find_columns(["Label", "name"], "labels.csv", {"id": ["id", "name"], "target": ["label"]}, {"id": "Label"})
    {'id': 0}
    """
    named = named or {}
    taken = [name for name in named.values() if name is not None]
    indices = {
        meaning: find_column(header, path, meaning, names, named.get(meaning), taken)
        for meaning, names in usual_names.items()
    }
    return {meaning: index for meaning, index in indices.items() if index is not None}


def column_names(header: Sequence[str]) -> str:
    """List the columns of a table for a message, shortened if they are many or their names long."""
    names = [name if len(name) <= _MAX_LETTERS else f"{name[:_MAX_LETTERS]}..." for name in header[:_MAX_NAMES]]
    return ", ".join(map(repr, names)) + (" ..." if len(header) > _MAX_NAMES else "")


def check_unique_columns(header: Sequence[str], path: str) -> None:
    """Check that no two columns have the same name; columns without a name, such as pandas' index, are ignored.

    Raises:
        TableError: Two columns have the same name.
    """
    for name, count in Counter(header).items():
        if name and count > 1:
            raise TableError(path, f"the header has {count} columns named {name!r}", "rename them", line=1)


def separator_of(output: Path) -> str:
    r"""Return what separates the columns of a table that is written: a comma if its name ends in .csv, else a tab.

    >>> separator_of(Path("scores.CSV")), separator_of(Path("scores.tsv")), separator_of(Path("-"))
    (',', '\t', '\t')
    """
    return "," if output.suffix.lower() == ".csv" else "\t"


def name_new_columns(header: Sequence[str], names: Sequence[str], path: str) -> tuple[list[str], list[str]]:
    """Name the columns that are added to a table, with a prefix if the table already has one of that name.

    Returns:
        The names, and a sentence about each that got the prefix.

    Raises:
        TableError: The table has a column of the name with the prefix, too.

    >>> name_new_columns(["id", "score"], ["score"], "variants.csv")
    (['protembed_score'], ["the table already has a column 'score': the new one is 'protembed_score'"])
    """
    columns = [f"protembed_{name}" if name in header else name for name in names]
    for name in columns:
        if name in header:
            raise TableError(path, f"the table already has a column {name!r}", "rename or remove it", line=1)
    renamed = [(name, column) for name, column in zip(names, columns, strict=True) if name != column]
    return columns, [f"the table already has a column {name!r}: the new one is {column!r}" for name, column in renamed]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row that is not blank.

    Attributes:
        number: Number of the row, from 1; blank rows are counted.
        line: Line of the file in which the row ends, from 1; the header is line 1.
        cells: Texts without the spaces around them, as many as the header has columns.
    """

    number: int
    line: int
    cells: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table that is being read.

    Attributes:
        header: Names of the columns, without the spaces around them.
        rows: Rows, read from the stream one at a time.
    """

    header: Sequence[str]
    rows: Iterator[Row]


def _visible(name: str) -> str:
    """Strip spaces and invisible characters, such as a second byte-order mark, from both ends of a name."""
    return name.strip(string.whitespace + _INVISIBLE).strip()


def _utf8_lines(text: io.TextIOWrapper, path: str) -> Iterator[str]:
    """Yield lines, and check that none is in another encoding or overwritten with zeros."""
    for number, line in enumerate(text, start=1):
        if not line.isascii() and (invalid := _NO_UTF8.search(line)):
            byte, column = ord(invalid[0]) - 0xDC00, invalid.start() + 1
            found = f"character {column} of this line is not UTF-8 (byte 0x{byte:02X})"
            raise TableError(path, found, "save the table as UTF-8; in Excel: CSV UTF-8", line=number)
        if "\0" in line:
            found = f"character {line.index(chr(0)) + 1} of this line is NUL, which no text contains"
            raise TableError(path, found, "the file is damaged: export or download it again", line=number)
        yield line


def _read_header(first_line: str, lines: Iterator[str], delimiter: str, path: str, line: int) -> tuple[list[str], int]:
    """Read the names of the columns, and count their lines: in CSV, a name in quotes may span several."""
    reader = csv.reader([first_line] if delimiter == "\t" else chain([first_line], lines), delimiter=delimiter)
    try:
        return [_visible(name) for name in next(reader)], reader.line_num
    except csv.Error as error:
        advice = "look for a quotation mark that is not closed"
        raise TableError(path, f"the header cannot be read ({error})", advice, line=line) from error


def _check_header(header: Sequence[str], header_line: str, path: str, line: int) -> None:
    """Check that the file is a table whose columns are separated by commas or tabs."""
    for start, name in _NO_TABLES.items():
        if header_line.startswith(start):
            raise TableError(path, f"this seems to be {name}", "give a CSV or TSV table with a header", line=line)
    for separator, name in _UNSUPPORTED_SEPARATORS.items():
        if len(header) == 1 and separator in header_line:
            found = f"its columns seem to be separated by {name}"
            raise TableError(path, found, "separate them by commas or tabs", line=line)


def _check_fits(row: Row, header: Sequence[str], path: str) -> None:
    """Check that a row has as many cells as the header, and is not the header of a table appended to this one."""
    if len(row.cells) != len(header):
        found, advice = f"this row has {len(row.cells)} cells, the header {len(header)}", "correct the row"
        if row.number == 1 and len(row.cells) == len(header) + 1:
            advice += ", or name all columns in the header; R leaves row names out by row.names = FALSE"
        raise TableError(path, found, advice, line=row.line)
    if _visible(row.cells[0]) == header[0] and row.cells[1:] == header[1:]:
        raise TableError(path, "this row repeats the header", "remove it", line=row.line)


def _read_rows(
    lines: Iterator[str], delimiter: str, path: str, header: Sequence[str], header_line: int
) -> Iterator[Row]:
    csv.field_size_limit(_MAX_CELL_LETTERS)
    reader, line = csv.reader(lines, delimiter=delimiter, strict=True), header_line
    try:
        for number, cells in enumerate(reader, start=1):
            first_line, line = line + 1, reader.line_num + header_line
            if delimiter == "\t" and line > first_line:
                found = f"a quotation mark that opens in line {first_line} closes here"
                raise TableError(path, found, "remove both, or the line breaks between them", line=line)
            row = Row(number=number, line=line, cells=[cell.strip() for cell in cells])
            if any(row.cells):
                _check_fits(row, header, path)
                yield row
    except csv.Error as error:
        advice = "look for a quotation mark that is not closed in this line"
        raise TableError(path, f"the table cannot be read ({error})", advice, line=line + 1) from error


def _without_nameless(rows: Iterator[Row], path: str, num_columns: int) -> Iterator[Row]:
    """Drop the columns without a name at the end, and check that they are empty."""
    for row in rows:
        if nameless := [cell for cell in row.cells[num_columns:] if cell]:
            found = f"the cell {nameless[0][:_MAX_LETTERS]!r} is in a column without a name"
            raise TableError(path, found, "name the column, or remove the cell", line=row.line)
        yield Row(number=row.number, line=row.line, cells=row.cells[:num_columns])


@contextmanager
def reading_table(stream: BinaryIO, path: str) -> Iterator[Table]:
    """Read a table from a buffered stream in UTF-8: TSV if its header has a tab, else CSV.

    Lines before the header may begin with `# `, and one may be Excel's `sep=,`. Messages name the table by `path`.

    Raises:
        TableError: The table has no header; or, while rows are read, a row has too few or too many cells, is no valid
            CSV, repeats the header, or holds a NUL or a byte that is not UTF-8.
    """
    if foreign := detect_binary_format(stream):
        raise TableError(path, f"this is {foreign}", "save the table as CSV or TSV, in UTF-8")
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    lines = _utf8_lines(text, path)
    try:
        header_line, num_comments = next(lines, ""), 0
        while header_line.startswith(COMMENT) or _EXCEL_SEPARATOR.fullmatch(header_line):
            header_line, num_comments = next(lines, ""), num_comments + 1
        if not header_line.strip():
            advice = "give a CSV or TSV table with a header"
            raise TableError(path, "the first line is empty", advice, line=num_comments + 1)
        delimiter = "\t" if "\t" in header_line else ","
        header, num_lines = _read_header(header_line, lines, delimiter, path, num_comments + 1)
        _check_header(header, header_line, path, num_comments + 1)
        rows = _read_rows(lines, delimiter, path, list(header), num_comments + num_lines)
        if header[-2:] == ["", ""]:  # Excel writes columns that were emptied
            while len(header) > 1 and not header[-1]:
                header.pop()
            rows = _without_nameless(rows, path, len(header))
        yield Table(header=header, rows=rows)
    finally:
        text.detach()
