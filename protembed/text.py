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
# Larger numbers are easier to read in scientific notation.
_LARGEST_IN_FULL = 1e6


class LabelText(str):
    """Names of classes, or a letter per residue: text that is compared with another table.

    It is escaped only if it could act as a formula: at worst `+`, `-like` and `=x` display an error in a spreadsheet.
    Labels and predictions both use this type, so that they agree.
    """


def choose_decimals(numbers: Iterable[float], digits: int = 3) -> int:
    """Choose the decimals with which the largest of several numbers has so many significant digits.

    Numbers below 1 have as many decimals as digits, so that fractions are aligned with 1.

    >>> choose_decimals([0.81349, 0.02], 3), choose_decimals([12.5, 0.1], 3), choose_decimals([1234.5], 3)
    (3, 1, 0)
    """
    largest = max((abs(number) for number in numbers if math.isfinite(number)), default=0.0)
    return digits if largest <= 1 else max(0, digits - 1 - math.floor(math.log10(largest)))


def format_decimals(number: float, decimals: int, *, signed: bool = False) -> str:
    """Format a number with fixed decimals, or with two or three significant digits where these would mislead.

    >>> format_decimals(0.8135, 3), format_decimals(-1e-5, 3), format_decimals(0.0, 3), format_decimals(12345.6, 0)
    ('0.814', '-1e-05', '0.000', '12,346')
    >>> format_decimals(0.13, 3, signed=True), format_decimals(3.21e30, 0)
    ('+0.130', '3.21e+30')
    """
    sign = "+" if signed else ""
    if abs(number) >= _LARGEST_IN_FULL:
        return f"{number:{sign}.3g}"
    text = f"{number:{sign},.{decimals}f}"
    return text if number == 0 or text.strip("+-0.") else f"{number:{sign}.2g}"


def format_difference(value: float) -> str:
    """Format a difference of metrics with its sign; a small one does not look like none.

    >>> format_difference(0.516), format_difference(-0.00004), format_difference(0.0)
    ('+0.516', '-4e-05', '+0.000')
    """
    return format_decimals(value, 3, signed=True)


def format_number(value: float | None) -> str:
    """Format a number with three significant digits; fractions have three decimals. None and NaN are undefined.

    >>> format_number(0.8135), format_number(-0.25), format_number(12.345), format_number(0.0), format_number(1.5e-9)
    ('0.814', '-0.250', '12.3', '0.000', '1.5e-09')
    >>> format_number(None)
    'undefined'
    """
    if value is None or math.isnan(value):
        return "undefined"
    return format_decimals(value, choose_decimals([value]))


def format_with_interval(
    value: float | None, low: float | None, high: float | None, decimals: int | None = None, *, signed: bool = False
) -> str:
    """Format a value with its 95 % interval, if it has one, all with the same decimals.

    Args:
        value: The value; None or NaN where it is not defined.
        low: The lower end of the interval; None if there is no interval.
        high: The upper end of the interval; None if there is no interval.
        decimals: Number of decimals; None chooses it for the value.
        signed: Whether positive numbers have a sign, as differences have.

    >>> format_with_interval(0.9467, 0.913, 0.968), format_with_interval(0.1, None, None)
    ('0.947 [0.913, 0.968]', '0.100')
    >>> format_with_interval(9.87, 8.76, 10.2), format_with_interval(0.13, 0.046, 0.2114, signed=True)
    ('9.87 [8.76, 10.20]', '+0.130 [+0.046, +0.211]')
    """
    if value is None or math.isnan(value):
        return "undefined"
    numbers = [value] if low is None or high is None else [value, low, high]
    decimals = choose_decimals([value]) if decimals is None else decimals
    text, *ends = (format_decimals(number, decimals, signed=signed) for number in numbers)
    return f"{text} [{', '.join(ends)}]" if ends else text


def format_in_sentence(value: float | None, low: float | None, high: float | None) -> str:
    """Format a value with its 95 % interval, if it has one, within a sentence.

    >>> format_in_sentence(0.9467, 0.913, 0.968), format_in_sentence(0.1, None, None)
    ('0.947 (95 % interval 0.913 to 0.968)', '0.100')
    """
    if value is None or low is None or high is None:
        return format_number(value)
    decimals = choose_decimals([value])
    low_text, high_text = (format_decimals(end, decimals) for end in (low, high))
    return f"{format_decimals(value, decimals)} (95 % interval {low_text} to {high_text})"


def as_sentence(message: str) -> str:
    """Turn a line of the terminal into a sentence; a first word that may be a name stays as it is.

    >>> as_sentence("fine-tuning was worth it: MCC is 0.8"), as_sentence("sp_1 is left out.")
    ('Fine-tuning was worth it: MCC is 0.8.', 'sp_1 is left out.')
    """
    first = message.split(maxsplit=1)[0].rstrip(",:;") if message.strip() else ""
    is_word = first.isascii() and first.replace("-", "").isalpha() and first.islower()
    text = message[:1].upper() + message[1:] if is_word else message
    return text if text.endswith((".", "!", "?")) else f"{text}."


def format_loss(nats: float | None) -> str:
    """Format a loss in nats, or a difference of losses without its sign.

    >>> format_loss(2.88034)
    '2.880'
    """
    return "undefined" if nats is None else format_decimals(nats, 3)


def format_perplexity(perplexity: float | None) -> str:
    """Format a perplexity.

    >>> format_perplexity(17.8134)
    '17.81'
    """
    return "undefined" if perplexity is None else format_decimals(perplexity, 2)


def format_percent(fraction: float) -> str:
    """Format a fraction; only all is 100 %, and only nothing is 0 %.

    >>> format_percent(0.4), format_percent(0.9999), format_percent(0.001), format_percent(1.0)
    ('40 %', '> 99 %', '< 1 %', '100 %')
    """
    percent = f"{100 * fraction:.0f} %"
    if percent == "100 %" and fraction < 1:
        return "> 99 %"
    return "< 1 %" if percent == "0 %" and fraction > 0 else percent


def format_share(fraction: float) -> str:
    """Format a fraction that may be small, with two significant digits.

    >>> format_share(0.314), format_share(0.0125), format_share(0.0043), format_share(1.0)
    ('31 %', '1.2 %', '0.43 %', '100 %')
    """
    return f"{100 * fraction:.2g} %" if fraction < 0.0995 else f"{100 * fraction:.0f} %"


def format_duration(seconds: float) -> str:
    """Format a duration.

    >>> format_duration(3725), format_duration(61)
    ('1 h 02 min', '1 min 01 s')
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {rest:02d} s"


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


def format_cell(value: object) -> str:
    """Format a cell of a table without what a terminal or a spreadsheet would interpret."""
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
    return cell[1:] if cell.startswith("'") and format_cell(cell[1:]) == cell else cell


def format_row(cells: Sequence[object], separator: str = "\t") -> bytes:
    r"""Format one line of a TSV or CSV in UTF-8; escape what a terminal or a spreadsheet would interpret.

    >>> format_row(["+ve", LabelText("+ve"), LabelText("=cmd()")])
    b"'+ve\t+ve\t'=cmd()\n"

    >>> format_row(["=cmd()", "tab\there", -1.5, "-0,5"])
    b"'=cmd()\ttab\\x09here\t-1.5\t-0,5\n"

    >>> format_row(["one, two", 'a "b" c', 0.5], ",")
    b'"one, two","a ""b"" c",0.5\n'
    """
    return join_cells([format_cell(cell) for cell in cells], separator)


def join_cells(texts: Sequence[str], separator: str = "\t") -> bytes:
    r"""Format one line of a TSV or CSV of cells that are escaped already, as numbers and cells of other tables are.

    >>> join_cells(["'=cmd()", "one, two", "0.5"], ",")
    b'\'=cmd(),"one, two",0.5\n'
    """
    if separator == ",":
        texts = ['"{}"'.format(text.replace('"', '""')) if _QUOTED_IN_CSV.search(text) else text for text in texts]
    return (separator.join(texts) + "\n").encode()


def reason_of(error: Exception) -> str:
    """Return the reason that an error of Python or a library gives, without the number and path of an OSError.

    >>> reason_of(FileNotFoundError(2, "No such file or directory", "x.csv"))
    'No such file or directory'
    """
    return getattr(error, "strerror", None) or str(error)
