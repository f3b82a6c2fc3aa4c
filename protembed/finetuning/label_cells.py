"""The cells of a column of labels: numbers, names, lists, and what they have in common."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from protembed.errors import TableError
from protembed.finetuning.labels import LabelledProtein, LabelledTable
from protembed.io.tables import is_stand_in

# What float32 can hold, with room for sums of squares.
LARGEST_VALUE = 1e18
# An entry that labels no residue.
UNLABELLED_ENTRIES = ("", "nan", "na")

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)
_INTEGER = re.compile(r"[+-]?[0-9]+")
_ZERO_PADDED = re.compile(r"[+-]?0[0-9]+")
# A number to its writer, and to none of the programs that read the table next.
_UNUSUAL_NUMBERS: Mapping[str, re.Pattern[str]] = {
    "thousands separators": re.compile(
        r"[+-]?[1-9][0-9]{0,2}((,[0-9]{3})+(\.[0-9]+)?|(\.[0-9]{3})+,[0-9]+|([\s'\u2019][0-9]{3})+([.,][0-9]+)?)"
    ),
    "a decimal comma": re.compile(r"[+-]?[0-9]*,[0-9]+(e[+-]?[0-9]+)?", re.IGNORECASE),
    "a per cent sign": re.compile(r"[+-]?[0-9]*[.,]?[0-9]+\s?%"),
    "a minus sign that is none of ASCII": re.compile(
        "[\u2212\u2012\u2013\ufe63\uff0d][0-9]*[.,]?[0-9]+(e[+-]?[0-9]+)?"
    ),
}
# Readers take them for numbers, programs for classes.
_PLAIN = r"[+-]?[0-9]+([.,][0-9]+)?(e[+-]?[0-9]+)?"
_UNIT = r"[^\W\d_]{1,6}([/.^*-]?[^\W_]{1,4}){0,2}(-?[0-9])?"
_NUMBERS_AND_MORE: Mapping[str, re.Pattern[str]] = {
    "a number with a unit": re.compile(rf"{_PLAIN}\s+{_UNIT}|[+-]?[0-9]+[.,][0-9]+{_UNIT}", re.IGNORECASE),
    "a limit and no number": re.compile(rf"[<>~\u2264\u2265\u2248]=?\s*{_PLAIN}(\s*{_UNIT})?", re.IGNORECASE),
    "a number with its error": re.compile(rf"{_PLAIN}\s*((\u00b1|\+/?-)\s*{_PLAIN}|\({_PLAIN}\))", re.IGNORECASE),
    "a range and no number": re.compile(rf"{_PLAIN}\s*(-|\u2013|\.\.|to)\s*{_PLAIN}", re.IGNORECASE),
    "a number behind an apostrophe": re.compile(rf"['\u2019]{_PLAIN}", re.IGNORECASE),
    "a date": re.compile(r"[0-9]{4}([-/.])[0-9]{1,2}\1[0-9]{1,2}|[0-9]{1,2}([-/.])[0-9]{1,2}\2[0-9]{4}"),
}
# Secondary structure as DSSP writes it, with blanks for what has none.
_DSSP_WITH_BLANKS = re.compile(r"(?=.*\s)[HBEGITSPC\s]+")
_TRUE_FLAGS, _FALSE_FLAGS = ("1", "1.0", "1.", "true"), ("0", "0.0", "0.", "false")

_WRAPPED = re.compile(r"(?:\w+\.)?(?:array|tensor)\((\[.*\])(?:,\s*dtype=[\w.]+)?\)", re.DOTALL)
# How NumPy 2 shows a number in a Python list.
_NUMPY_SCALAR = re.compile(r"\bnp\.\w+\(([^()]*)\)")
_TOKEN = re.compile(
    r"""(?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<divider>[,;])|(?P<bare>[^\s,;'"\[\](){}]+)|\s+"""
)
_BRACKETS = {"[": "]", "(": ")", "{": "}"}
_DIVIDERS = (";", ",", "|")


def read_number(text: str) -> float | None:
    """Read a number of digits, with one point or none and perhaps an exponent; None for everything else.

    Python's own `float` also accepts `1_1`, `nan`, `inf` and the digits of other scripts.

    >>> read_number("+1.50"), read_number("1e0"), read_number("1_1"), read_number("0,5"), read_number("nan")
    (1.5, 1.0, None, None, None)
    """
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text)
    return value if abs(value) <= LARGEST_VALUE else None


def looks_like_number(text: str) -> bool:
    """Tell whether a label is a number and no code such as `01`.

    >>> looks_like_number("10"), looks_like_number("0.1"), looks_like_number("01")
    (True, True, False)
    """
    return read_number(text) is not None and not _ZERO_PADDED.fullmatch(text)


def unusual_number(text: str) -> str | None:
    """Name what keeps a number from being read as one; None where the text is no such number.

    >>> unusual_number("0,5"), unusual_number("1,142"), unusual_number("45%"), unusual_number("0.5")
    ('a decimal comma', 'thousands separators', 'a per cent sign', None)
    """
    return next((name for name, pattern in _UNUSUAL_NUMBERS.items() if pattern.fullmatch(text)), None)


def number_and_more(text: str) -> str | None:
    """Name what a label is that holds a number and more; None for other labels.

    >>> number_and_more("5.2 nM"), number_and_more(">100"), number_and_more("1.1.1.1"), number_and_more("1AKI")
    ('a number with a unit', 'a limit and no number', None, None)
    """
    return next((name for name, pattern in _NUMBERS_AND_MORE.items() if pattern.fullmatch(text)), None)


def is_blank_coil(text: str) -> bool:
    """Tell whether a label is a secondary structure of DSSP in which blanks stand for residues without any.

    >>> is_blank_coil("HHH  EE"), is_blank_coil("HHHCCEE")
    (True, False)
    """
    return _DSSP_WITH_BLANKS.fullmatch(text) is not None


def read_list(cell: str) -> list[str] | None:
    """Read a list in brackets, as JSON, Python or NumPy write it; None where a cell is no such list.

    A `null` or `None` without quotes becomes `nan`. A cell in parentheses or braces is a list if it holds a comma.

    >>> read_list("[0, 1, 1]"), read_list("['C', 'H']"), read_list("[0 1 1]"), read_list("(+)")
    (['0', '1', '1'], ['C', 'H'], ['0', '1', '1'], None)
    """
    if cell[-1:] not in _BRACKETS.values():
        return None
    wrapped = _WRAPPED.fullmatch(cell)
    text = _NUMPY_SCALAR.sub(r"\1", wrapped[1] if wrapped else cell)
    if len(text) < 2 or _BRACKETS.get(text[0]) != text[-1] or (text[0] != "[" and "," not in text):
        return None
    groups, position, inner = [list[str]()], 0, text[1:-1]
    while position < len(inner):
        token = _TOKEN.match(inner, position)
        if token is None:
            return None
        position = token.end()
        if token["divider"]:
            groups.append([])
        elif token["quoted"] or token["bare"]:
            groups[-1].append(_unquoted(token["quoted"]) if token["quoted"] else _bare(token["bare"]))
    if len(groups) == 1:
        return groups[0]
    return [" ".join(words) for words in (groups if groups[-1] else groups[:-1])]


def _unquoted(text: str) -> str:
    if text.startswith('"'):
        try:
            return str(json.loads(text)).strip()
        except ValueError:
            pass
    return re.sub(r"\\(.)", r"\1", text[1:-1]).strip()


def _bare(text: str) -> str:
    return "nan" if text in ("null", "None") else text


def residue_entries(cell: str) -> list[str]:
    """Divide a label into one entry for each residue: a list, divided by `;` `,` `|` or white space, or letters.

    >>> residue_entries("[0, 1, 1]"), residue_entries("0,1,1"), residue_entries("0 1 1"), residue_entries("HHE")
    (['0', '1', '1'], ['0', '1', '1'], ['0', '1', '1'], ['H', 'H', 'E'])
    """
    listed = read_list(cell)
    if listed is not None:
        return listed
    for divider in _DIVIDERS:
        if divider in cell:
            entries = [entry.strip() for entry in cell.removesuffix(divider).split(divider)]
            # Between spaces a comma may be a decimal one: `0,5 0,7`.
            if divider == ";" or not any(re.search(r"\s", entry) for entry in entries):
                return entries
    return cell.split() if re.search(r"\s", cell) else list(cell)


def divide_names(cell: str, separator: str) -> list[str]:
    """Divide a cell into the names of several labels, without empty ones.

    >>> divide_names("a, b,", ","), divide_names("['a', 'b']", ";")
    (['a', 'b'], ['a', 'b'])
    """
    names = read_list(cell)
    names = [name.strip() for name in cell.split(separator)] if names is None else names
    return [name for name in names if name]


def join_entries(entries: Sequence[str], *, as_letters: bool) -> str:
    """Write entries as predictions are written: as letters, or divided by `;`.

    >>> join_entries(["0", "1"], as_letters=True), join_entries(["a", ""], as_letters=False)
    ('01', 'a;;')
    """
    if as_letters:
        return "".join(entries)
    return ";".join(entries) + (";" if entries and not entries[-1] else "")


def read_flags(mask: str) -> list[str]:
    """Divide a mask into `1` and `0`; whatever is neither, in any spelling, stays as it is.

    >>> read_flags("[True, False]"), read_flags("1.0 0.0"), read_flags("10x")
    (['1', '0'], ['1', '0'], ['1', '0', 'x'])
    """
    entries = [(entry, entry.lower()) for entry in residue_entries(mask)]
    return ["1" if flag in _TRUE_FLAGS else "0" if flag in _FALSE_FLAGS else entry for entry, flag in entries]


def whole_number_names(names: set[str]) -> dict[str, str]:
    """Find one spelling for each whole number among the names of classes, where all their numbers are whole.

    An integer whose value is spelled in one way only stays as it is; so do codes such as `01`.

    >>> sorted(whole_number_names({"0.0", "1.0", "1", "x"}).items())
    [('0.0', '0'), ('1', '1'), ('1.0', '1')]
    >>> whole_number_names({"+1", "-1"}), whole_number_names({"1.0", "1.5"})
    ({'+1': '+1', '-1': '-1'}, {})
    """
    values = {name: read_number(name) for name in names if looks_like_number(name)}
    numbers = {name: value for name, value in values.items() if value is not None}
    if not all(value.is_integer() for value in numbers.values()):
        return {}
    spellings: dict[float, list[str]] = {}
    for name, value in sorted(numbers.items()):
        spellings.setdefault(value, []).append(name)
    renamed: dict[str, str] = {}
    for value, same in spellings.items():
        is_plain = all(_INTEGER.fullmatch(name) for name in same)
        # Integers that differ only beyond the digits of a float are different names.
        distinct = {int(name) for name in same} if is_plain else set()
        keeps = is_plain and len(distinct) == len(same)
        renamed |= {name: name if keeps else f"{int(value)}" for name in same}
    return renamed


def class_order(name: str) -> tuple[bool, float, str]:
    """Make the key by which classes are sorted: numbers by size, then names by letter.

    >>> sorted(["b", "10", "9", "C"], key=class_order)
    ['9', '10', 'C', 'b']
    """
    value = read_number(name)
    return value is None, value or 0.0, name


# How several labels are divided from here on, and in predictions.
SEVERAL = ";"
# Where so many of the labels are alike, as long as their sequences or numbers, the others are mistakes.
FRACTION_ALIKE = 0.9
# Lists that miss the number of residues by so little are labels of residues with a mistake.
MAX_MISFIT = 2
# Shorter proteins say nothing: `1.5` is as long as MKT.
MIN_RESIDUES = 5

# Names are as long as peptides, not as long as proteins.
_MAX_PEPTIDE_RESIDUES = 50
# A float holds every whole number of so many digits.
_MAX_DIGITS = 15
_POINT_OR_EXPONENT = re.compile("[.eE]")
# Dividers that are recognised, and those that are only warned of.
RECOGNISED, _SUSPECTED = ("|", ","), ("/", "&", "+", "\n")


class Column:
    """A column of labels.

    Attributes:
        path: The table's name, for messages.
        proteins: All rows.
        labels: The different cells that are not empty, sorted.
        lists: The entries of those that are lists in brackets.
        known: The different labels that do not stand for a missing one; of lists of one entry, the entries.
    """

    def __init__(self, labels: LabelledTable) -> None:
        self.path, self.proteins = labels.path, labels.proteins
        self.labels = sorted({protein.label for protein in labels.proteins if protein.label})
        self.lists = {label: entries for label in self.labels if (entries := read_list(label)) is not None}
        self.known = [label for label in map(self.sole_entry, self.labels) if not is_stand_in(label)]
        self._entries: dict[str, list[str]] = {}

    def sole_entry(self, label: str) -> str:
        """Return the entry of a list of one entry, and any other label as it is."""
        entries = self.lists.get(label, ())
        return entries[0] if len(entries) == 1 else label

    def entries(self, label: str) -> list[str]:
        """Divide a label into entries of residues, once however many rows have it."""
        if label not in self._entries:
            self._entries[label] = residue_entries(label)
        return self._entries[label]

    def known_entries(self) -> list[str]:
        """List the different entries of residues, without those that stand for a missing one."""
        different = {entry for label in self.labels for entry in self.entries(label)}
        return sorted(entry for entry in different if entry and not is_stand_in(entry))

    def error(self, label: str, found: str, advice: str) -> TableError:
        """Make the error about the first row that has a label."""
        row = next(protein for protein in self.proteins if protein.label == label)
        return TableError(self.path, f"row {row.id!r} {found}", advice, line=row.line)


def are_numbers(labels: Sequence[str]) -> bool:
    """Tell whether nearly all labels are numbers."""
    return bool(labels) and sum(map(looks_like_number, labels)) >= FRACTION_ALIKE * len(labels)


# Labels of residues


def are_per_residue(column: Column) -> bool:
    """Tell whether nearly all labels have an entry for each residue, and are not names or numbers of that length."""
    long_enough = [protein for protein in column.proteins if len(protein.sequence) >= MIN_RESIDUES]
    alike = [protein for protein in long_enough if len(column.entries(protein.label)) == len(protein.sequence)]
    if not long_enough or len(alike) < FRACTION_ALIKE * len(long_enough):
        return False
    letters = [protein for protein in alike if _is_letters(protein)]
    if len(letters) < FRACTION_ALIKE * len(alike):
        return True
    are_names = _are_peptides(letters) and _recur(letters)
    return not are_names and not _are_long_numbers([protein.label for protein in letters], _are_peptides(letters))


def lettered_peptides(column: Column) -> int | None:
    """Return the length of peptides of one length whose labels are as long as they are; None for other tables."""
    proteins = [protein for protein in column.proteins if len(protein.sequence) >= MIN_RESIDUES]
    letters = [protein for protein in proteins if _is_letters(protein)]
    if not letters or len(letters) < FRACTION_ALIKE * len(proteins) or not _are_peptides(letters):
        return None
    if any(_POINT_OR_EXPONENT.search(label) and looks_like_number(label) for label in column.labels):
        return None
    return len(letters[0].sequence)


def _is_letters(protein: LabelledProtein) -> bool:
    return len(protein.label) == len(protein.sequence) and residue_entries(protein.label) == list(protein.label)


def _are_peptides(proteins: Sequence[LabelledProtein]) -> bool:
    """Tell whether nearly all sequences are short and of one length."""
    ((length, number),) = Counter(len(protein.sequence) for protein in proteins).most_common(1)
    return length <= _MAX_PEPTIDE_RESIDUES and number >= FRACTION_ALIKE * len(proteins)


def _recur(proteins: Sequence[LabelledProtein]) -> bool:
    """Tell whether there are at most half as many labels as different proteins."""
    pairs = {(protein.sequence, protein.label) for protein in proteins}
    return len({label for _, label in pairs}) <= len(pairs) / 2


def _are_long_numbers(labels: Sequence[str], are_peptides: bool) -> bool:
    """Tell whether labels as long as their sequences are numbers rather than digits of residues."""
    if not are_numbers(labels):
        return False
    if any(_POINT_OR_EXPONENT.search(label) for label in labels):
        return True
    are_exact = max(map(len, labels)) <= _MAX_DIGITS
    return are_peptides and are_exact and not set("".join(labels)) <= set("01")


# Several labels


def find_divider(labels: Iterable[str], candidates: Iterable[str] = RECOGNISED) -> str | None:
    """Find the text that divides cells into labels: half of the parts behind it also begin a cell.

    >>> find_divider(["nucleus", "cytosol", "nucleus, cytosol"]), find_divider(["Kinase, serine", "Kinase, tyrosine"])
    (',', None)
    """
    for divider in candidates:
        parts = [divide_names(label, divider) for label in labels]
        first = {names[0] for names in parts if names}
        later = {name for names in parts for name in names[1:]}
        if later and len(later & first) >= len(later) / 2:
            return divider
    return None


def suspect_divider(labels: Sequence[str]) -> str | None:
    """Find a divider whose parts recur in other cells, though they may as well belong to names."""
    for divider in RECOGNISED:
        parts = [set(divide_names(label, divider)) for label in labels]
        occurrences = Counter(name for names in parts for name in names)
        if any(occurrences[name] > 1 for names in parts if len(names) > 1 for name in names):
            return divider
    return find_divider(labels, _SUSPECTED)


def are_positions(column: Column) -> bool:
    """Tell whether the cells are lists of zeros and ones that say at which positions there is a label.

    Raises:
        TableError: They may as well be the names of two labels.
    """
    rows = [column.entries(label) for label in column.labels]
    lengths = {len(row) for row in rows}
    if len(lengths) != 1 or lengths <= {0, 1} or not {entry for row in rows for entry in row} <= {"0", "1"}:
        return False
    if not all(label in column.lists or re.search("[;,|]", label) for label in column.labels):
        return False
    num_residues = {len(protein.sequence) for protein in column.proteins}
    if len(num_residues) == 1 and abs(num_residues.pop() - lengths.pop()) <= MAX_MISFIT:
        return False
    if all(len(set(row)) == len(row) for row in rows):
        found = f"has the label {column.labels[0]!r}, which may be the labels 0 and 1, or one of two positions"
        raise column.error(column.labels[0], found, "write the names of the labels")
    return True
