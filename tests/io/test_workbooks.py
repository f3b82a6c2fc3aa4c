import datetime
import importlib.util
import io
import zipfile

import openpyxl
import pytest

from protembed.errors import TableError
from protembed.io.tables import reading_table


def workbook(*sheets, invisible=()):
    """Make a workbook from sheets, each a title and rows."""
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in sheets:
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
        if title in invisible:
            sheet.sheet_state = "veryHidden"
    content = io.BytesIO()
    book.save(content)
    return content.getvalue()


def read(content, **options):
    with reading_table(io.BufferedReader(io.BytesIO(content)), "t.xlsx", **options) as table:
        return list(table.header), [(row.line, list(row.cells)) for row in table.rows], list(table.traits)


SMALL = [["id", "Tm"], ["p1", 0.5], ["p2", 3]]


def test_cells_of_a_workbook_are_read_as_text():
    rows = [
        ["id", "value", "flag", "date"],
        [" p1 ", 0.5, True, datetime.date(2001, 3, 1)],
        [1, 2.0, False, "#N/A"],
        [],
        ["001", 1e-7, None, datetime.datetime(2001, 3, 1, 12, 30)],
    ]

    assert read(workbook(("Sheet1", rows))) == (
        rows[0],
        [
            (2, ["p1", "0.5", "TRUE", "2001-03-01"]),
            (3, ["1", "2", "FALSE", "#N/A"]),
            (5, ["001", "1e-07", "", "2001-03-01 12:30:00"]),
        ],
        [],
    )


def laid_out(rows, merged=(), hidden=()):
    """Make a workbook with merged cells and hidden rows."""
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    for area in merged:
        book.active.merge_cells(area)
    for line in hidden:
        book.active.row_dimensions[line].hidden = True
    content = io.BytesIO()
    book.save(content)
    return content.getvalue()


def test_merged_cells_are_repeated_in_each_row():
    rows = [["Table S1", None], ["id", "x"], ["p1", 1], [None, 2], ["p2", 3], [None, None]]

    assert read(laid_out(rows, merged=["A1:B1", "A3:A4", "A5:A6"])) == (
        ["id", "x"],
        [(3, ["p1", "1"]), (4, ["p1", "2"]), (5, ["p2", "3"])],
        ["its header in line 2", "merged cells (their content in each row)"],
    )


def test_the_second_row_of_a_header_has_names_that_are_merged_with_the_first():
    rows = [["id", "Stability", None], [None, "Tm", "SD"], ["p1", 50, 1]]

    header, cells, _ = read(laid_out(rows, merged=["A1:A2", "B1:C1"]), known=["id", "Tm"])

    assert (header, cells) == (["id", "Tm", "SD"], [(3, ["p1", "50", "1"])])


def test_a_table_in_a_hidden_sheet_alone_is_an_error_that_names_it():
    content = workbook(("Readme", [["what this is"]]), ("Data", SMALL), invisible=["Data"])

    with pytest.raises(TableError, match="t.xlsx: the table is in the hidden sheet 'Data'; unhide it, and save"):
        read(content, known=["Tm"])


def test_hidden_rows_are_read_and_counted():
    header, rows, traits = read(laid_out([*SMALL, ["p3", 4]], hidden=[2, 4]))

    assert (header, len(rows), traits) == (["id", "Tm"], 3, ["2 hidden rows"])


def test_titles_above_the_header_of_a_workbook_are_skipped():
    assert read(workbook(("Sheet1", [["Table S1: melting points"], [], *SMALL]))) == (
        ["id", "Tm"],
        [(4, ["p1", "0.5"]), (5, ["p2", "3"])],
        ["its header in line 3"],
    )


def test_the_first_visible_sheet_with_an_expected_column_is_read_and_the_others_are_named():
    content = workbook(
        ("Readme", [["what this is"], ["by us"]]),
        ("Old", [["id", "x"], ["p1", "y"]]),
        ("Data", SMALL),
        invisible=["Old"],
    )

    assert read(content, known=["id"]) == (
        ["id", "Tm"],
        [(2, ["p1", "0.5"]), (3, ["p2", "3"])],
        ["the sheet 'Data' (not 'Readme')"],
    )
    assert read(workbook(("Empty", []), ("Data", SMALL)))[2] == ["the sheet 'Data' (not 'Empty')"]


def test_a_formula_without_a_saved_value_is_rejected_with_its_cell():
    with pytest.raises(TableError, match="line 2: the cell B2 is a formula without a saved value; open the workbook"):
        read(workbook(("Sheet1", [["id", "Tm"], ["p1", "=1+2"]])))


def test_the_saved_values_of_formulas_are_read():
    content = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(workbook(("Sheet1", [["id", "Tm"], ["p1", "=1+2"]])))) as source:
        with zipfile.ZipFile(content, "w") as target:
            for name in source.namelist():
                # As Excel writes it.
                target.writestr(
                    name,
                    source.read(name)
                    .replace(b"<f>1+2</f><v></v>", b"<f>1+2</f><v>3</v>")
                    .replace(b"<f>1+2</f><v />", b"<f>1+2</f><v>3</v>"),
                )

    assert read(content.getvalue())[1] == [(2, ["p1", "3"])]


def test_a_sheet_with_a_wrong_size_is_read_to_its_end():
    content = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(workbook(("Sheet1", SMALL)))) as source:
        with zipfile.ZipFile(content, "w") as target:
            for name in source.namelist():
                target.writestr(name, source.read(name).replace(b'<dimension ref="A1:B3"', b'<dimension ref="A1:A1"'))

    assert len(read(content.getvalue())[1]) == 2


def test_a_damaged_workbook_is_rejected():
    content = workbook(("Sheet1", SMALL))

    for damaged in (content[: len(content) // 2], content[:300] + bytes(200) + content[500:]):
        with pytest.raises(TableError, match="the Excel workbook cannot be read .*save it again, or save it as CSV"):
            read(damaged)


def test_a_workbook_without_cells_is_rejected():
    with pytest.raises(TableError, match="the workbook has no sheet with cells"):
        read(workbook(("Sheet1", [])))


def test_other_formats_of_spreadsheets_are_rejected_by_name():
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")

    with pytest.raises(TableError, match="this is an OpenDocument spreadsheet; save it as CSV UTF-8 or as .xlsx"):
        read(archive.getvalue())
    with pytest.raises(TableError, match=r"an Excel workbook in the former format \(.xls\), or one with a password"):
        read(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500))


def test_without_openpyxl_a_workbook_is_rejected_with_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(TableError, match="openpyxl, .* is not installed; .*CSV UTF-8, or run `pip install openpyxl`"):
        read(workbook(("Sheet1", SMALL)))
