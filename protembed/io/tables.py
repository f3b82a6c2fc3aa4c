"""Tables with a header, read row by row: what all of the user's tables have in common."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from protembed.errors import TableError
from protembed.io.delimited import RawTable, reading_text, visible
from protembed.io.faults import Faults, RaisedFaults
from protembed.io.workbooks import is_workbook, read_workbook

# Usual names of columns, the likeliest first; case, spaces, dots, dashes and underscores do not matter.
SEQUENCE_COLUMNS = (
    *("sequence", "protein_sequence", "protein_seq", "aa_sequence", "amino_acid_sequence", "seq", "aa_seq"),
    "sequences",
    # In other languages of Europe.
    *("sequenz", "proteinsequenz", "aminosäuresequenz", "séquence", "séquence_protéique", "secuencia", "sequenza"),
    *("sequência", "sequentie", "sekvens", "sekwencja", "sekvence", "szekvencia"),
)
IDENTIFIER_COLUMNS = (
    *("id", "identifier", "accession", "protein_id", "entry", "entry_name", "uniprot_id", "uniprot"),
    *("name", "protein", "protein_name", "seq_id", "sequence_id", "sequence_name"),
)
PROTEIN_COLUMNS: Mapping[str, Sequence[str]] = {"id": IDENTIFIER_COLUMNS, "sequence": SEQUENCE_COLUMNS}
LABEL_COLUMNS = ("target", "label")
# In lower case: what pandas, R and people write for a missing value.
_STAND_INS = frozenset("na n/a n.a. n.d. nan null none nil <na> missing undefined unknown unk - -- ? . _ -100".split())
# Those that only programs write. A class may be named `none` or `unknown`.
_MISSING = frozenset("na n/a nan <na> null".split())
# The errors of spreadsheets, in lower case and in all languages: `#N/A` is `#NV` in German and `#N/D` in French, and
# `#VALUE!` is `#WERT!` and `#VALEUR!`. A narrow column is exported as `###`.
_SPREADSHEET_ERROR = re.compile(r"#[^\s#]{1,20}[!?]|#n/[a-z]|#i/t|#nv|err:[0-9]{3}|#{3,}")
# The separator of several labels once cells are normalized, and in predictions.
LABEL_SEPARATOR = ";"
# The largest absolute value: float32 can hold its square in a sum.
_MAX_VALUE = 1e18
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)
_BETWEEN_WORDS = re.compile(r"[\s_.-]+")
_RULE = re.compile(":?-{2,}:?")
# What a name of a column never is.
_PROTEIN = re.compile("[ACDEFGHIKLMNPQRSTVWYX]{25,}")
# Limits of a message: the number of columns that it names, and of letters in each name.
_MAX_NAMES, _MAX_LETTERS = 20, 40


def is_stand_in(text: str) -> bool:
    """Return whether a label or an entry is what people and programs write for a missing value.

    >>> is_stand_in("#N/A"), is_stand_in("X"), is_stand_in("x"), is_stand_in("nucleus")
    (True, True, False, False)
    """
    return text.lower() in _STAND_INS or text == "X" or is_spreadsheet_error(text)


def is_spreadsheet_error(text: str) -> bool:
    """Return whether a cell is an error of a spreadsheet in any language.

    >>> is_spreadsheet_error("#DIV/0!"), is_spreadsheet_error("#NV"), is_spreadsheet_error("#1")
    (True, True, False)
    """
    return _SPREADSHEET_ERROR.fullmatch(text.lower()) is not None


def is_missing(text: str) -> bool:
    """Return whether a cell is empty, or holds what programs write into it then.

    >>> is_missing(""), is_missing("#N/A"), is_missing("#WERT!"), is_missing("unknown")
    (True, True, True, False)
    """
    return not text or text.lower() in _MISSING or is_spreadsheet_error(text)


def read_number(text: str) -> float | None:
    """Read a number of digits with an optional point and exponent; None for any other text.

    Python's `float` also accepts `1_1`, `nan`, `inf` and the digits of other scripts.

    >>> read_number("+1.50"), read_number("1e0"), read_number("1_1"), read_number("0,5"), read_number("nan")
    (1.5, 1.0, None, None, None)
    """
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text)
    return value if abs(value) <= _MAX_VALUE else None


def normalize_name(name: str) -> str:
    """Normalize the name of a column, so that case, spaces, dots, dashes and underscores do not matter.

    Nor does it matter whether accents are characters of their own.

    >>> normalize_name("Protein ID") == normalize_name("protein_id") == normalize_name("protein-id")
    True
    """
    composed = name if name.isascii() else unicodedata.normalize("NFC", name)
    return _BETWEEN_WORDS.sub("", composed).casefold()


def find_column(
    header: Sequence[str],
    path: str,
    meaning: str,
    usual_names: Sequence[str],
    named: str | None = None,
    taken: Collection[str] = (),
    line: int = 1,
) -> int | None:
    """Find a column: the one that the user named, else the first that has one of the usual names.

    Case, spaces, line breaks, dots, dashes and underscores do not matter, unless the header has the very name.

    Args:
        header: Names of the columns.
        path: Name of the table, for messages.
        meaning: What the column holds, for messages.
        usual_names: Usual names of the column, in lower case, the likeliest first.
        named: Name that the user gave; None if the user gave none.
        taken: Names of columns that the user gave other meanings.
        line: Line of the header, for messages.

    Returns:
        The column's index; None if no column has a usual name.

    Raises:
        TableError: No column has the name that the user gave, or several may have it, or have the same usual name.

    >>> find_column(["Protein ID", "Label"], "labels.csv", "id", ["id", "protein_id"])
    0
    """
    if named is not None:
        return _find_named_column(header, path, meaning, named, line)
    for normalize in (str.lower, normalize_name):
        names = [None if name in taken else normalize(name) for name in header]
        for usual in map(normalize, usual_names):
            if names.count(usual) > 1:
                same = column_names([name for name, normal in zip(header, names, strict=True) if normal == usual])
                raise TableError(path, f"{same} may each be the {meaning} column", "rename all but one", line=line)
            if usual in names:
                return names.index(usual)
    return None


def _find_named_column(header: Sequence[str], path: str, meaning: str, named: str, line: int) -> int:
    if named in header:
        return header.index(named)
    alike = [index for index, name in enumerate(header) if normalize_name(name) == normalize_name(named)]
    if len(alike) > 1:
        names = column_names([header[index] for index in alike])
        raise TableError(path, f"{names} may each be {named!r}", f"name the {meaning} column", line=line)
    if not alike:
        found = f"no column {named!r} among {column_names(header)}"
        raise TableError(path, found, f"name the {meaning} column", line=line)
    return alike[0]


def find_columns(
    header: Sequence[str],
    path: str,
    usual_names: Mapping[str, Sequence[str]],
    named: Mapping[str, str | None] | None = None,
    line: int = 1,
) -> dict[str, int]:
    """Find the columns of a table by their meanings, each as `find_column` does.

    A column that the user named has no second meaning.

    Returns:
        The index of each column that was found, by its meaning.

    Raises:
        TableError: No column has a name that the user gave, or several have such a name or the same usual name.

    >>> find_columns(["Label", "name"], "labels.csv", {"id": ["id", "name"], "target": ["label"]}, {"id": "Label"})
    {'id': 0}
    """
    named = named or {}
    check_unique_columns(header, path, [*named.values(), *usual_names.values()], line)
    taken = [
        header[_find_named_column(header, path, meaning, name, line)]
        for meaning, name in named.items()
        if name is not None
    ]
    indices = {
        meaning: find_column(header, path, meaning, names, named.get(meaning), taken, line)
        for meaning, names in usual_names.items()
    }
    return {meaning: index for meaning, index in indices.items() if index is not None}


def column_names(header: Sequence[str]) -> str:
    """List the columns of a table for a message, shortened if they are many or their names long."""
    names = [name if len(name) <= _MAX_LETTERS else f"{name[:_MAX_LETTERS]}..." for name in header[:_MAX_NAMES]]
    return ", ".join(map(repr, names)) + (" ..." if len(header) > _MAX_NAMES else "")


def missing_column(header: Sequence[str], path: str, meaning: str, advice: str, line: int = 1) -> TableError:
    """Make the error about a table without a column that is needed."""
    return TableError(path, f"no {meaning} column among {column_names(header)}", advice, line=line)


def check_unique_columns(
    header: Sequence[str], path: str, expected: Iterable[Sequence[str] | str | None], line: int = 1
) -> None:
    """Check that no two columns have the same name, if it is one that the caller expects.

    Other columns may share a name, such as `Mean` and `SD` of several measurements.

    Args:
        header: Names of the columns.
        path: Name of the table, for messages.
        expected: Names that the user gave, and lists of usual names.
        line: Line of the header, for messages.

    Raises:
        TableError: Two columns have the same name.

    >>> check_unique_columns(["id", "Mean", "SD", "Mean", "SD"], "labels.csv", [["id", "name"], None])
    """
    groups = [[names] if isinstance(names, str) else names for names in expected if names is not None]
    may_be_meant = _name_matcher(name for names in groups for name in names)
    for name, count in Counter(header).items():
        if name and count > 1 and may_be_meant(name):
            raise TableError(path, f"the header has {count} columns named {name!r}", "rename them", line=line)


def separator_of(output: Path) -> str:
    r"""Return what separates the columns of a table that is written: a comma if its name ends in .csv, else a tab.

    >>> separator_of(Path("scores.CSV")), separator_of(Path("scores.tsv")), separator_of(Path("-"))
    (',', '\t', '\t')
    """
    return "," if output.suffix.lower() == ".csv" else "\t"


def name_new_columns(
    header: Sequence[str], names: Sequence[str], path: str, line: int = 1
) -> tuple[list[str], list[str]]:
    """Name the columns that are added to a table, with a prefix if the table already has one of that name.

    Returns:
        The names, and a sentence about those that got the prefix, if there are any.

    Raises:
        TableError: The table has a column of the name with the prefix, too.

    >>> name_new_columns(["id", "score"], ["score"], "variants.csv")
    (['protembed_score'], ["the table already has a column 'score': the new one is 'protembed_score'"])
    >>> name_new_columns(["prediction", "p_a"], ["prediction", "p_a", "p_b"], "proteins.csv")[1]
    ["the table already has columns 'prediction', 'p_a': the new ones begin with 'protembed_'"]
    """
    columns = [f"protembed_{name}" if name in header else name for name in names]
    for name in columns:
        if name in header:
            raise TableError(path, f"the table already has a column {name!r}", "rename or remove it", line=line)
    renamed = [(name, column) for name, column in zip(names, columns, strict=True) if name != column]
    if len(renamed) > 1:
        taken = column_names([name for name, _ in renamed])
        return columns, [f"the table already has columns {taken}: the new ones begin with 'protembed_'"]
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
        line: Line of the file in which the header begins, from 1.
        rows: Rows, read from the stream one at a time.
        traits: What is unusual about the table, in a few words each, such as `semicolons`.
        has_decimal_commas: Whether the program that wrote the table may have written numbers with decimal commas.
    """

    header: Sequence[str]
    line: int
    rows: Iterator[Row]
    traits: Sequence[str]
    has_decimal_commas: bool


def describe_traits(traits: Sequence[str]) -> list[str]:
    """Describe in a sentence what is unusual about a table, for the user; none if there is nothing.

    >>> describe_traits(["semicolons", "decimal commas"])
    ['read the table with semicolons, decimal commas']
    """
    return [f"read the table with {', '.join(traits)}"] if traits else []


def _fault(raw: RawTable, path: str, row: Row) -> TableError | None:
    """Return what is wrong with a row: its number of cells, or that it is the header of an appended table."""
    num_cells, num_columns = len(row.cells), len(raw.header)
    if num_cells != num_columns:
        found, advice = f"this row has {num_cells} cells, the header {num_columns}", "correct the row"
        if row.number == 1 and num_cells == num_columns + 1:
            advice += ", or name all columns in the header; R leaves row names out by row.names = FALSE"
        return TableError(path, found, advice, line=row.line)
    if visible(row.cells[0]) == raw.header[0] and row.cells[1:] == raw.header[1:]:
        return TableError(path, "this row repeats the header", "remove it", line=row.line)
    return None


def _is_rule(cells: Sequence[str]) -> bool:
    """Return whether a row is the rule that Markdown draws below a header; pandas' `to_markdown` writes it."""
    return cells[-1] == "" and cells[0] == "" and all(map(_RULE.fullmatch, cells[1:-1])) and len(cells) > 2


def _check_rows(raw: RawTable, path: str, faults: Faults) -> Iterator[Row]:
    """Check and number the rows, and drop blank ones, rules, and the empty cells to the right of the header."""
    num_columns = len(raw.header)
    for number, (line, cells) in enumerate(raw.rows, start=1):
        if any(cells) and not _is_rule(cells):
            if not any(cells[num_columns:]):
                del cells[num_columns:]
            row = Row(number=number, line=line, cells=cells)
            if fault := _fault(raw, path, row):
                faults.add(fault)
            else:
                yield row


def _without_nameless(rows: Iterator[Row], path: str, num_columns: int, faults: Faults) -> Iterator[Row]:
    """Drop the columns without a name at the end, and check that they are empty."""
    for row in rows:
        if nameless := [cell for cell in row.cells[num_columns:] if cell]:
            found = f"the cell {nameless[0][:_MAX_LETTERS]!r} is in a column without a name"
            faults.add(TableError(path, found, "name the column, or remove the cell", line=row.line))
        else:
            yield Row(number=row.number, line=row.line, cells=row.cells[:num_columns])


def _check_table(raw: RawTable, path: str, faults: Faults) -> Table:
    if any(map(_PROTEIN.fullmatch, raw.header)):
        found = "the first row holds a sequence, so the table seems to have no header"
        raise TableError(path, found, "write the names of the columns above it", line=raw.line)
    header, rows = list(raw.header), _check_rows(raw, path, faults)
    if header[-2:] == ["", ""]:  # Excel writes columns that were emptied
        while len(header) > 1 and not header[-1]:
            header.pop()
        rows = _without_nameless(rows, path, len(header), faults)
    return Table(header=header, line=raw.line, rows=rows, traits=raw.traits, has_decimal_commas=raw.has_decimal_commas)


def _name_matcher(known: Iterable[str | None]) -> Callable[[str], bool]:
    """Make the function that recognises the name of a column that the caller expects."""
    names = {normalize_name(name) for name in known if name is not None}
    return lambda cell: len(cell) <= _MAX_LETTERS and normalize_name(cell) in names


@contextmanager
def reading_table(
    stream: BinaryIO, path: str, *, known: Iterable[str | None] = (), faults: Faults | None = None
) -> Iterator[Table]:
    """Read a table from a buffered stream: CSV or TSV with any of several separators, or an Excel workbook.

    Text is UTF-8, or UTF-16 with a byte-order mark. Its separator is a tab, a comma, a semicolon or a vertical bar,
    whichever makes a table of it. Above the header there may be titles, blank rows, lines that begin with `# `, and
    Excel's `sep=,`.

    Args:
        stream: Stream that can peek; it stays open.
        path: Name of the table, for messages.
        known: Names of columns one of which the header has, usual names and those that the user gave.
        faults: Collection of the errors about single rows; without it, the first one is raised.

    Raises:
        TableError: The table has no header; or, while rows are read, a row has too few or too many cells, is no valid
            CSV, repeats the header, or holds a NUL or a byte that is not UTF-8.
    """
    is_known, faults = _name_matcher(known), RaisedFaults() if faults is None else faults
    if is_workbook(stream):
        yield _check_table(read_workbook(stream, path, is_known), path, faults)
    else:
        with reading_text(stream, path, is_known) as raw:
            yield _check_table(raw, path, faults)
