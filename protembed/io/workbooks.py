"""Tables in Excel workbooks, read through openpyxl."""

import importlib.util
import io
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, time
from typing import Any, BinaryIO

from protembed.errors import ProtembedError, TableError
from protembed.io.delimited import RawTable, visible
from protembed.io.headers import NUM_FIRST_ROWS, find_header
from protembed.text import pluralize

_PEEK = 128
_ZIP, _OLE = b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
# An archive's first file has its name at this offset.
_NAME_OFFSET = 30
# How the name of a workbook's first file begins, as several programs write it.
_FIRST_FILES = (b"[Content_Types].xml", b"_rels/", b"docProps/", b"xl/", b"customXml/")
_OPEN_DOCUMENT = b"mimetypeapplication/vnd.oasis.opendocument.spreadsheet"
_SAVE_AS_CSV = "save it as CSV UTF-8"
# How formulas begin in the XML of a sheet.
_FORMULAS = (b"<f>", b"<f ")
# How merged cells and hidden rows are written there.
_LAYOUT = (b"<mergeCell ", b' hidden="1"', b' hidden="true"')
# The largest whole number up to which floats represent all of them.
_MAX_WHOLE = 1 << 53

# The cells of a sheet, row by row: as openpyxl reads them, and as stripped texts.
_Cells = list[Sequence[Any]]
_Rows = list[list[str]]


def is_workbook(stream: BinaryIO) -> bool:
    """Return whether a buffered stream begins as a workbook of any kind does, without reading from it."""
    head = _head(stream)
    is_excel = head.startswith(_ZIP) and head.startswith(_FIRST_FILES, _NAME_OFFSET)
    return is_excel or head.startswith(_OLE) or head.startswith(_OPEN_DOCUMENT, _NAME_OFFSET)


def _head(stream: BinaryIO) -> bytes:
    return bytes(stream.peek(_PEEK)[:_PEEK])  # type: ignore[attr-defined]  # every stream of open_input can peek


def _format_cell(value: Any) -> str:
    """Format a value as Excel writes it to a CSV file, with dates as in ISO 8601."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float) and value.is_integer() and abs(value) < _MAX_WHOLE:
        return str(int(value))
    if isinstance(value, datetime) and value.time() == time():
        return value.date().isoformat()
    return visible(str(value))


class _Workbook:
    """The sheets of an `.xlsx` file; messages name the file by `path`."""

    def __init__(self, content: bytes, path: str) -> None:
        self.path, self._content = path, content
        self._values = self._load(data_only=True)
        self._formulas = self._load(data_only=False) if self._contains(_FORMULAS) else None
        self._layout = self._load(data_only=True, read_only=False) if self._contains(_LAYOUT) else None
        sheets = [(sheet.title, sheet.sheet_state == "visible") for sheet in self._values.worksheets]
        self.names = [name for name, is_visible in sheets if is_visible]
        self.hidden_names = [name for name, is_visible in sheets if not is_visible]

    def read(self, name: str) -> _Rows:
        """Read the rows of a sheet, blank ones included."""
        rows = _cells(self._values[name])
        if self._formulas is not None:
            self._check_formulas(rows, _cells(self._formulas[name]))
        texts = [[_format_cell(cell.value) for cell in row] for row in rows]
        if self._layout is not None:
            _repeat_merged(texts, self._layout[name].merged_cells.ranges)
        return texts

    def layout_traits(self, name: str, start: int) -> Iterator[str]:
        """Describe merged cells and hidden rows below the header of a sheet, whose index is `start`."""
        if self._layout is None:
            return
        sheet = self._layout[name]
        if any(area.max_row > max(area.min_row, start + 1) for area in sheet.merged_cells.ranges):
            yield "merged cells (their content in each row)"
        hidden = [
            line for line, row in sheet.row_dimensions.items() if row.hidden and start + 1 < line <= sheet.max_row
        ]
        if hidden:
            yield pluralize(len(hidden), "hidden row")

    def _load(self, *, data_only: bool, read_only: bool = True) -> Any:
        import openpyxl

        return openpyxl.load_workbook(io.BytesIO(self._content), read_only=read_only, data_only=data_only)

    def _contains(self, marks: Sequence[bytes]) -> bool:
        """Return whether the XML of any sheet contains one of these marks."""
        with zipfile.ZipFile(io.BytesIO(self._content)) as archive:
            sheets = [archive.read(name) for name in archive.namelist() if name.startswith("xl/worksheets/")]
        return any(mark in sheet for sheet in sheets for mark in marks)

    def _check_formulas(self, rows: _Cells, formulas: _Cells) -> None:
        """Check that the value of each formula was saved: programs that do not compute leave it out."""
        for line, (row, row_of_formulas) in enumerate(zip(rows, formulas, strict=True), start=1):
            for cell, formula in zip(row, row_of_formulas, strict=True):
                if cell.value is None and formula.value is not None:
                    found = f"the cell {formula.coordinate} is a formula without a saved value"
                    advice = "open the workbook in a spreadsheet program and save it"
                    raise TableError(self.path, found, advice, line=line)


def _cells(sheet: Any) -> _Cells:
    sheet.reset_dimensions()  # some programs write a wrong size, and openpyxl would read no further
    return list(sheet.iter_rows())


def _repeat_merged(rows: _Rows, areas: Iterable[Any]) -> None:
    """Repeat the text of cells that are merged downwards in each of their rows that holds anything else."""
    for area in areas:
        column = area.min_col - 1
        top, *below = rows[area.min_row - 1 : area.max_row] or [[]]
        for row in filter(any, below):
            row.extend([""] * (area.min_col - len(row)))
            row[column] = top[column] if column < len(top) else ""


def _check_format(stream: BinaryIO, path: str) -> None:
    """Check that a workbook is one that openpyxl reads, and that openpyxl is installed."""
    head = _head(stream)
    if head.startswith(_OLE):
        found = "this is an Excel workbook in the former format (.xls), or one with a password"
        raise TableError(path, found, f"{_SAVE_AS_CSV}, or as .xlsx without a password")
    if head.startswith(_OPEN_DOCUMENT, _NAME_OFFSET):
        raise TableError(path, "this is an OpenDocument spreadsheet", f"{_SAVE_AS_CSV} or as .xlsx")
    if importlib.util.find_spec("openpyxl") is None:
        found = "this is an Excel workbook, and openpyxl, which reads it, is not installed"
        raise TableError(path, found, f"{_SAVE_AS_CSV}, or run `pip install openpyxl`")


def _has_known_column(rows: _Rows, is_known: Callable[[str], bool]) -> bool:
    first = rows[:NUM_FIRST_ROWS]
    return bool(first) and any(map(is_known, first[find_header(first, is_known)]))


def _choose_sheet(workbook: _Workbook, is_known: Callable[[str], bool]) -> tuple[str, _Rows]:
    """Choose the first sheet with a column that the caller expects, else the first that is not empty."""
    chosen = None
    for name in workbook.names:
        rows = workbook.read(name)
        if _has_known_column(rows, is_known):
            return name, rows
        if chosen is None and any(map(any, rows)):
            chosen = name, rows
    for name in workbook.hidden_names:
        if _has_known_column(workbook.read(name), is_known):
            raise TableError(workbook.path, f"the table is in the hidden sheet {name!r}", "unhide it, and save")
    if chosen is None:
        raise TableError(workbook.path, "the workbook has no sheet with cells", "give a table with a header")
    return chosen


def _traits(name: str, names: Sequence[str], header_line: int, is_titled: bool) -> Iterator[str]:
    if len(names) > 1:
        others = ", ".join(repr(other) for other in names if other != name)
        yield f"the sheet {name!r} (not {others})"
    if is_titled:
        yield f"its header in line {header_line}"


def _numbered(rows: _Rows, num_before: int, num_columns: int) -> Iterator[tuple[int, list[str]]]:
    """Number rows by their lines, and fill those that end before the last column with empty cells."""
    for line, row in enumerate(rows, start=num_before + 1):
        yield line, row + [""] * (num_columns - len(row))


def read_workbook(stream: BinaryIO, path: str, is_known: Callable[[str], bool]) -> RawTable:
    """Read the table in an Excel workbook.

    It is in the first visible sheet with a column that the caller expects, or, if there is none, in the first that is
    not empty.

    Args:
        stream: Workbook; it is read to its end.
        path: Name of the workbook, for messages.
        is_known: Function that returns whether a cell is the name of a column that the caller expects.

    Raises:
        TableError: The workbook is damaged or empty, or is one that openpyxl does not read, or openpyxl is missing.
    """
    _check_format(stream, path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about styles and drawings, which openpyxl leaves out
            workbook = _Workbook(stream.read(), path)
            name, rows = _choose_sheet(workbook, is_known)
    except ProtembedError:
        raise
    except Exception as error:  # openpyxl passes on whatever its parsers raise
        found = f"the Excel workbook cannot be read ({type(error).__name__})"
        raise TableError(path, found, f"save it again, or {_SAVE_AS_CSV}") from error
    start = find_header(rows[:NUM_FIRST_ROWS], is_known)
    is_titled = any(map(any, rows[:start]))
    return RawTable(
        header=rows[start],
        line=start + 1,
        rows=_numbered(rows[start + 1 :], start + 1, len(rows[start])),
        traits=[*_traits(name, workbook.names, start + 1, is_titled), *workbook.layout_traits(name, start)],
    )
