"""Delimited text: its encoding, the separator of its columns, and its rows of cells."""

import codecs
import csv
import io
import re
import string
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import BinaryIO

from protembed.errors import TableError
from protembed.io.headers import NUM_FIRST_ROWS, find_header
from protembed.io.sniffing import detect_binary_format, detect_text_format

# Lines before the header that begin with this are comments about the table.
COMMENT = "# "

# The longest known protein has 45,000 residues; csv's default limit of 131,072 characters is too close to that.
_MAX_CELL_LETTERS = 10_000_000
# In which word processors and some programs put the names of columns.
_OTHER_QUOTATION_MARKS = re.compile(
    "[\u201c\u201d\u201e\u2018\u2019\u201a\u00ab\u00bb'].*[\u201c\u201d\u2018\u2019\u00ab\u00bb']"
)
# Surrogates, which `surrogateescape` decodes invalid bytes to.
_NO_UTF8 = re.compile("[\udc80-\udcff]")
# Further byte-order marks, and spaces without width.
_INVISIBLE = "\ufeff\u200b"
# Excel's optional first line, which declares the separator of the columns.
_EXCEL_SEPARATOR = re.compile(r'"?sep=([^\w"\r\n])?"?[\r\n]*', re.IGNORECASE)
# Separators of columns by their names, the likeliest first.
_SEPARATORS = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "vertical bars"}
# How files begin that are not tables, though they may have commas.
_NO_TABLES = {
    **{"{": "JSON", "[{": "JSON", "<": "HTML or XML", ">": "FASTA, or clusters as CD-HIT writes them"},
    **{"HEADER    ": "a PDB file", "ATOM  ": "a PDB file", "LOCUS   ": "GenBank", "ID   ": "EMBL or UniProt flat text"},
}
_SEPARATOR = re.compile("[\t,;|]")
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_UTF32_MARKS = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
# Physical lines among which the header is looked for; a cell in quotes may hold several.
_NUM_FIRST_LINES = 2 * NUM_FIRST_ROWS


@dataclass(frozen=True, kw_only=True)
class RawTable:
    """A table whose header was found, and whose rows are as they were written.

    Attributes:
        header: Names of the columns, without the spaces around them.
        line: Line of the file in which the header begins, from 1.
        rows: Line in which each row ends, from 1, and its stripped cells; blank rows are included.
        traits: What is unusual about the table, in a few words each, such as `semicolons`.
        has_decimal_commas: Whether the program that wrote the table may have written numbers with decimal commas.
    """

    header: list[str]
    line: int
    rows: Iterator[tuple[int, list[str]]]
    traits: Sequence[str] = ()
    has_decimal_commas: bool = False


def visible(text: str) -> str:
    """Strip spaces and invisible characters, such as a second byte-order mark, from both ends of a cell."""
    return text.strip(string.whitespace + _INVISIBLE).strip()


# Lines


def _encoding(stream: BinaryIO) -> str:
    """Return the encoding that the byte-order mark of a buffered stream declares; UTF-8 without one."""
    head: bytes = stream.peek(4)[:4]  # type: ignore[attr-defined]  # every stream of open_input can peek
    return "utf-16" if head.startswith(_UTF16_MARKS) and not head.startswith(_UTF32_MARKS) else "utf-8-sig"


def _checked_lines(text: io.TextIOWrapper, path: str) -> Iterator[str]:
    """Yield lines, and check that none is in another encoding or overwritten with zeros."""
    number = 0
    try:
        for number, line in enumerate(text, start=1):
            if not line.isascii() and (invalid := _NO_UTF8.search(line)):
                byte, column = ord(invalid[0]) - 0xDC00, invalid.start() + 1
                found = f"character {column} of this line is not UTF-8 (byte 0x{byte:02X})"
                raise TableError(path, found, "save the table as UTF-8; in Excel: CSV UTF-8", line=number)
            if "\0" in line:
                found = f"character {line.index(chr(0)) + 1} of this line is NUL, which no text contains"
                raise TableError(path, found, "the file is damaged: export or download it again", line=number)
            yield line
    except UnicodeDecodeError as error:
        found = f"a character after line {number} is not UTF-16 ({error.reason})"
        raise TableError(path, found, "the file is damaged: export or download it again", line=number or 1) from error


# Separators and the header


def _check_is_table(lines: Sequence[str], path: str, line: int) -> None:
    """Check by its first lines, of which the first has this number, that a file is a table."""
    index, first_line = next(((index, line) for index, line in enumerate(lines) if line.strip()), (0, ""))
    advice = "give a CSV or TSV table with a header"
    if not first_line:
        raise TableError(path, "the first line is empty", advice, line=line)
    for start, name in _NO_TABLES.items():
        if first_line.startswith(start):
            raise TableError(path, f"this seems to be {name}", advice, line=line + index)
    if not _SEPARATOR.search(first_line) and (foreign := detect_text_format(first_line)):
        raise TableError(path, f"this seems to be {foreign}", advice, line=line + index)


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """How the first lines of a table read with one separator.

    Attributes:
        start: Index of the header's first line.
        cells: Cells of the header.
        is_known: Whether the caller expects a column of one of these names.
        fit: Fraction of the rows below that have as many cells as the header.
    """

    separator: str
    start: int
    cells: Sequence[str]
    is_known: bool
    fit: float

    @property
    def rank(self) -> tuple[bool, float, int, int]:
        """Key by which the likeliest reading is the largest."""
        return self.is_known, self.fit, -self.start, len(self.cells)


def _parse(lines: Sequence[str], separator: str) -> list[tuple[int, list[str]]]:
    """Parse the first lines of a table: the index of each row's first line, and its stripped cells."""
    reader, rows, start = csv.reader(lines, delimiter=separator), list[tuple[int, list[str]]](), 0
    try:
        for cells in reader:
            rows.append((start, list(map(visible, cells))))
            start = reader.line_num
    except csv.Error:
        pass  # the rows are read again, and that reports it
    return rows[:NUM_FIRST_ROWS]


def _read_first_lines(lines: Sequence[str], separator: str, is_known: Callable[[str], bool]) -> _Reading:
    rows = _parse(lines, separator)
    index = find_header([cells for _, cells in rows], is_known)
    start, header = rows[index] if rows else (0, [])
    below = [cells for _, cells in rows[index + 1 :] if any(cells)]
    num_fitting = sum(len(cells) == len(header) for cells in below)
    return _Reading(
        separator=separator,
        start=start,
        cells=header,
        is_known=any(map(is_known, header)),
        fit=num_fitting / len(below) if below else 1.0,
    )


def _choose_reading(lines: Sequence[str], declared: str, is_known: Callable[[str], bool]) -> _Reading:
    """Find the separator of the columns, and the header.

    A header with tabs is that of a TSV, and the separator that Excel's first line declares is the right one, unless
    they leave a single column.
    """
    separators = dict.fromkeys([*declared, *_SEPARATORS])
    readings = [_read_first_lines(lines, separator, is_known) for separator in separators]
    for reading in readings:
        is_tsv = reading.separator == "\t" and reading.start == min(reading.start for reading in readings)
        if len(reading.cells) > 1 and (is_tsv or reading.separator == declared):
            return reading
    best = max(readings, key=lambda reading: (len(reading.cells) > 1, *reading.rank))
    return best if len(best.cells) > 1 else next(reading for reading in readings if reading.separator == ",")


def _read_header(first_line: str, lines: Iterator[str], separator: str, path: str, line: int) -> tuple[list[str], int]:
    """Read the names of the columns, and count their lines: in CSV, a name in quotes may span several."""
    reader = csv.reader([first_line] if separator == "\t" else chain([first_line], lines), delimiter=separator)
    try:
        return [visible(name) for name in next(reader)], reader.line_num
    except csv.Error as error:
        advice = "look for a quotation mark that is not closed"
        raise TableError(path, f"the header cannot be read ({error})", advice, line=line) from error


def _read_rows(lines: Iterator[str], separator: str, path: str, num_before: int) -> Iterator[tuple[int, list[str]]]:
    reader, line = csv.reader(lines, delimiter=separator, strict=True), num_before
    try:
        for cells in reader:
            first_line, line = line + 1, reader.line_num + num_before
            if separator == "\t" and line > first_line:
                found = f"a quotation mark that opens in line {first_line} closes here"
                raise TableError(path, found, "remove both, or the line breaks between them", line=line)
            yield line, [cell.strip() for cell in cells]
    except csv.Error as error:
        advice = "look for a quotation mark that is not closed in this line"
        raise TableError(path, f"the table cannot be read ({error})", advice, line=line + 1) from error


def _skip_comments(lines: Iterator[str]) -> tuple[int, str, Iterator[str]]:
    """Skip the comments before a table: their number, the separator that one of them declares or "", and the rest."""
    num_comments, declared = 0, ""
    for line in lines:
        if separator := _EXCEL_SEPARATOR.fullmatch(line):
            declared = separator[1] or ""
        elif not line.startswith(COMMENT):
            return num_comments, declared, chain([line], lines)
        num_comments += 1
    return num_comments, declared, lines


def _traits(reading: _Reading, encoding: str, num_comments: int, lines: Sequence[str]) -> Iterator[str]:
    if reading.separator not in (",", "\t"):
        yield _SEPARATORS.get(reading.separator, f"{reading.separator!r} between columns")
    if encoding == "utf-16":
        yield "UTF-16 text"
    if any(line.strip() for line in lines[: reading.start]):
        yield f"its header in line {num_comments + reading.start + 1}"


def _check_names_of_columns(
    header: Sequence[str], header_line: str, below: Sequence[str], path: str, line: int
) -> None:
    """Check that columns have names, in several cells, and within no quotation marks but straight double ones.

    Args:
        header: Names of the columns.
        header_line: The header as it was written.
        below: The next lines of the file.
        path: Name of the table, for messages.
        line: Line of the header, for messages.
    """
    names = list(filter(None, header))
    if not names:
        raise TableError(path, "this line names no column", "give a CSV or TSV table with a header", line=line)
    if len(header) == 1 and re.search("[,;\t]", header[0]):
        found = "each row seems to be within one pair of quotation marks"
        raise TableError(path, found, "remove them, or export the table again", line=line)
    num_words, next_line = len(header_line.split()), next(filter(str.strip, below), "")
    if len(header) == 1 and ('" "' in header_line or 1 < num_words == len(next_line.split())):
        found = "its columns seem to be separated by spaces"
        raise TableError(path, found, "separate them by commas or tabs", line=line)
    if all(map(_OTHER_QUOTATION_MARKS.fullmatch, names)):
        found = f"the names of its columns are within other quotation marks, as in {names[0][:20]}"
        raise TableError(path, found, "remove them, or replace them by straight double ones", line=line)


@contextmanager
def reading_text(stream: BinaryIO, path: str, is_known: Callable[[str], bool]) -> Iterator[RawTable]:
    """Read delimited text from a buffered stream, in UTF-8, or in UTF-16 if it has a byte-order mark.

    Args:
        stream: Stream that can peek; it stays open.
        path: Name of the table, for messages.
        is_known: Function that returns whether a cell is the name of a column that the caller expects.

    Raises:
        TableError: The file is not text or has no header; or, while rows are read, one is no valid CSV, or holds a NUL
            or a byte that is not UTF-8.
    """
    csv.field_size_limit(_MAX_CELL_LETTERS)
    encoding = _encoding(stream)
    if encoding != "utf-16" and (foreign := detect_binary_format(stream)):
        is_archive = "archive" in foreign
        advice = "unpack it, and give the table" if is_archive else "save the table as CSV or TSV, in UTF-8"
        raise TableError(path, f"this is {foreign}", advice)
    errors = "strict" if encoding == "utf-16" else "surrogateescape"
    text = io.TextIOWrapper(stream, encoding=encoding, errors=errors, newline="")
    lines = _checked_lines(text, path)
    try:
        num_comments, declared, lines = _skip_comments(lines)
        first = list(islice(lines, _NUM_FIRST_LINES))
        _check_is_table(first, path, num_comments + 1)
        reading = _choose_reading(first, declared, is_known)
        line, rest = num_comments + reading.start + 1, chain(first[reading.start + 1 :], lines)
        header_line, separator = first[reading.start], reading.separator
        header, num_lines = _read_header(header_line, rest, separator, path, line)
        _check_names_of_columns(header, header_line, first[reading.start + 1 :], path, line)
        yield RawTable(
            header=header,
            line=line,
            rows=_read_rows(rest, separator, path, line + num_lines - 1),
            traits=list(_traits(reading, encoding, num_comments, first)),
            has_decimal_commas=separator == ";" or encoding == "utf-16",
        )
    finally:
        text.detach()
