"""Text that a terminal, a page or a spreadsheet displays but does not interpret."""

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence

_NUMBER = re.compile(r"[+-]?(\d+[.,]?\d*|[.,]\d+)(e[+-]?\d+)?|[+-]?(inf|nan)", re.IGNORECASE)
# Without these characters a formula can neither call a function nor start a program, nor can a quotation mark merge
# cells.
_ACTIVE = re.compile(r"[()|!\"']")
_QUOTED_IN_CSV = re.compile('[,"]')
# Spreadsheets read the first four as a formula; a quotation mark merges all cells up to the next one.
_DANGEROUS_STARTS = ("=", "+", "-", "@", '"')


class LabelText(str):
    """Names of classes, or a letter per residue: text that is compared with another table.

    It is escaped only if it could act as a formula: at worst `+`, `-like` and `=x` display an error in a spreadsheet.
    Labels and predictions both use this type, so that they agree.
    """


def format_number(value: float) -> str:
    """Format a number with three decimals, or with three significant digits if it is very small or large.

    >>> format_number(0.8135), format_number(-0.25), format_number(1.5e-9), format_number(3.21e30), format_number(0.0)
    ('0.814', '-0.250', '1.5e-09', '3.21e+30', '0.000')
    """
    return f"{value:.3f}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.3g}"


def choose_decimals(numbers: Iterable[float], digits: int) -> int:
    """Choose the decimals with which the largest of several numbers has so many significant digits.

    Numbers below 1 have as many decimals as digits, so that fractions are aligned with 1.

    >>> choose_decimals([0.81349, 0.02], 3), choose_decimals([12.5, 0.1], 3), choose_decimals([1234.5], 3)
    (3, 1, 0)
    """
    largest = max(map(abs, numbers), default=0.0)
    return digits if largest <= 1 else max(0, digits - 1 - math.floor(math.log10(largest)))


def format_decimals(number: float, decimals: int) -> str:
    """Format a number with fixed decimals, or with two significant digits where these would show a false zero.

    >>> format_decimals(0.8135, 3), format_decimals(-1e-5, 3), format_decimals(0.0, 3), format_decimals(12345.6, 0)
    ('0.814', '-1e-05', '0.000', '12,346')
    """
    text = f"{number:,.{decimals}f}"
    return text if number == 0 or text.strip("-0.") else f"{number:.2g}"


def format_bytes(num_bytes: int) -> str:
    """Format a number of bytes.

    >>> format_bytes(45_000), format_bytes(2_700_000), format_bytes(11_400_000_000)
    ('45 kB', '3 MB', '11.4 GB')
    """
    if num_bytes < 1e6:
        return f"{num_bytes / 1e3:,.0f} kB"
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.0f} MB"


def pluralize(number: int, noun: str) -> str:
    """Format a count with its noun, in the plural where necessary.

    >>> pluralize(1, "protein"), pluralize(0, "protein"), pluralize(1500, "residue")
    ('1 protein', '0 proteins', '1,500 residues')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def without_invisible(text: str) -> str:
    """Remove characters that have no width, such as soft hyphens and byte-order marks, which web pages leave.

    >>> without_invisible("MKT\u200bAY\u00ad")
    'MKTAY'
    """
    return text if text.isascii() else "".join(filter(_has_width, text))


def _has_width(letter: str) -> bool:
    return unicodedata.category(letter) != "Cf"


def name_foreign_letters(text: str) -> str:
    """Name, in parentheses, the first letter that may look like one of ASCII and is not; empty if there is none.

    >>> name_foreign_letters("A42\u0410"), name_foreign_letters("A42G")
    (' (CYRILLIC CAPITAL LETTER A)', '')
    """
    foreign = next((letter for letter in text if letter.isalpha() and not letter.isascii()), None)
    return f" ({unicodedata.name(foreign, repr(foreign))})" if foreign else ""


def _escape(letter: str) -> str:
    code = ord(letter)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def printable(text: str) -> str:
    r"""Escape control and direction-changing characters as `\xNN` or `\uNNNN`.

    >>> printable("evil\x1b[2J")
    'evil\\x1b[2J'
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter == " " else _escape(letter) for letter in text)


def _cell(value: object) -> str:
    if not isinstance(value, str):
        return str(value)
    text = printable(value)
    if isinstance(value, LabelText) and not _ACTIVE.search(text):
        return text
    is_number = all(_NUMBER.fullmatch(part) for part in text.split(";"))  # alone, or in a list
    return f"'{text}" if text.startswith(_DANGEROUS_STARTS) and not is_number else text


def unescape(cell: str) -> str:
    """Read a cell of a TSV without the apostrophe that `format_row` writes before what a spreadsheet would interpret.

    `format_row` makes the same cell of the text again.

    >>> unescape("'=cmd()"), unescape("'quoted'"), unescape("'-1"), unescape("P1")
    ('=cmd()', "'quoted'", "'-1", 'P1')
    """
    return cell[1:] if cell.startswith("'") and _cell(cell[1:]) == cell else cell


def format_row(cells: Sequence[object], separator: str = "\t") -> bytes:
    r"""Format one line of a TSV or CSV in UTF-8; escape what a terminal or a spreadsheet would interpret.

    >>> format_row(["+ve", LabelText("+ve"), LabelText("=cmd()")])
    b"'+ve\t+ve\t'=cmd()\n"

    >>> format_row(["=cmd()", "tab\there", -1.5, "-0,5"])
    b"'=cmd()\ttab\\x09here\t-1.5\t-0,5\n"

    >>> format_row(["one, two", 'a "b" c', 0.5], ",")
    b'"one, two","a ""b"" c",0.5\n'
    """
    texts = [_cell(cell) for cell in cells]
    if separator == ",":
        texts = ['"{}"'.format(text.replace('"', '""')) if _QUOTED_IN_CSV.search(text) else text for text in texts]
    return (separator.join(texts) + "\n").encode()
