import pytest
from hypothesis import given, strategies as st

from protembed.text import LabelText, format_row, printable


@pytest.mark.promise(17)
@pytest.mark.parametrize(
    ("cell", "escaped"),
    [
        ("sp|P12345|NAME", "sp|P12345|NAME"),
        ("=cmd()", "'=cmd()"),
        ("+1+cmd()", "'+1+cmd()"),
        ("-1+cmd()", "'-1+cmd()"),
        ("-1.5e-3", "-1.5e-3"),
        ("@SUM", "'@SUM"),
        ("tab\there", r"tab\x09here"),
        ("line\r\nbreak", r"line\x0d\x0abreak"),
        ("clear\x1b[2J", r"clear\x1b[2J"),
        ("evil\u202egnp", r"evil\u202egnp"),
        ("\U000e0001", r"\U000e0001"),
        ("Ångström β", "Ångström β"),
        (-1.5, "-1.5"),
        (7, "7"),
        ("", ""),
    ],
)
def test_cells_cannot_act_on_a_terminal_or_a_spreadsheet(cell, escaped):
    assert format_row([cell, "next"]) == f"{escaped}\tnext\n".encode()


@pytest.mark.promise(17)
@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "=HYPERLINK(1)", "@SUM(1)", '"a', "+1+cmd|x", "-WEBSERVICE(2)"])
def test_a_class_name_that_could_act_as_a_formula_is_escaped(name):
    assert format_row([LabelText(name)]) == f"'{name}\n".encode()


@pytest.mark.parametrize("name", ["+", "-", "+ve", "-like", "=x", "@x", "-;+", "H-+E"])
def test_a_class_name_that_could_not_act_as_a_formula_stays_unchanged(name):
    assert format_row([LabelText(name), name]).decode().split("\t")[0] == name


@pytest.mark.promise(17)
@given(st.lists(st.text(), min_size=1, max_size=5))
def test_a_formatted_row_is_one_line_with_one_cell_per_value(cells):
    line = format_row(cells).decode()

    assert line.endswith("\n")
    assert len(line.splitlines()) == 1
    assert line.count("\t") == len(cells) - 1


@pytest.mark.promise(17)
@given(st.text())
def test_printable_text_stays_unchanged_when_escaped_again(text):
    assert printable(text).isprintable()
    assert printable(printable(text)) == printable(text)
