"""Cells of a column of labels: numbers, names and lists, and what the cells of a column have in common."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

from protembed.errors import TableError
from protembed.finetuning.labels import LabelledProtein, LabelledTable
from protembed.io.tables import LABEL_SEPARATOR, is_stand_in, read_number

# Other separators that are recognised, and those that only cause a warning.
RECOGNISED_SEPARATORS, _SUSPECTED_SEPARATORS = ("|", ","), ("/", "&", "+", "\n")
# Entries of residues without a label, in lower case.
UNLABELLED_ENTRIES = ("", "nan", "na")
# If this fraction of the labels are numbers, or as long as their sequences, the others are regarded as mistakes.
MIN_FRACTION_ALIKE = 0.9
# Lists whose length misses the number of residues by at most this are labels of residues with a mistake.
MAX_MISFIT = 2
# Shorter proteins do not count in the comparison of lengths, because `1.5` is as long as MKT.
MIN_RESIDUES = 5

_INTEGER = re.compile(r"[+-]?[0-9]+")
_ZERO_PADDED = re.compile(r"[+-]?0[0-9]+")
# Numbers in notations that most programs do not read as numbers.
_UNUSUAL_NUMBERS: Mapping[str, re.Pattern[str]] = {
    "thousands separators": re.compile(
        r"[+-]?[1-9][0-9]{0,2}((,[0-9]{3})+(\.[0-9]+)?|(\.[0-9]{3})+,[0-9]+|([\s'\u2019][0-9]{3})+([.,][0-9]+)?)"
    ),
    "a decimal comma": re.compile(r"[+-]?[0-9]*,[0-9]+(e[+-]?[0-9]+)?", re.IGNORECASE),
    "a percent sign": re.compile(r"[+-]?[0-9]*[.,]?[0-9]+\s?%"),
    "a non-ASCII minus sign": re.compile(r"[\u2212\u2012\u2013\ufe63\uff0d]\s?[0-9]*[.,]?[0-9]+(e[+-]?[0-9]+)?"),
}
# Cells that people read as numbers, and programs as names.
_PLAIN = r"[+-]?[0-9]+([.,][0-9]+)?(e[+-]?[0-9]+)?"
_UNIT = r"[^\W\d_]{1,6}([/.^*-]?[^\W_]{1,4}){0,2}(-?[0-9])?"
_ANNOTATED_NUMBERS: Mapping[str, re.Pattern[str]] = {
    "a number with a unit": re.compile(rf"{_PLAIN}\s+{_UNIT}|[+-]?[0-9]+[.,][0-9]+{_UNIT}", re.IGNORECASE),
    "a limit, not a number": re.compile(rf"[<>~\u2264\u2265\u2248]=?\s*{_PLAIN}(\s*{_UNIT})?", re.IGNORECASE),
    "a number with its error": re.compile(rf"{_PLAIN}\s*((\u00b1|\+/?-)\s*{_PLAIN}|\({_PLAIN}\))", re.IGNORECASE),
    "a range, not a number": re.compile(rf"{_PLAIN}\s*(-|\u2013|\.\.|to)\s*{_PLAIN}", re.IGNORECASE),
    "a number after an apostrophe": re.compile(rf"['\u2019]{_PLAIN}", re.IGNORECASE),
    "a date": re.compile(r"[0-9]{4}([-/.])[0-9]{1,2}\1[0-9]{1,2}|[0-9]{1,2}([-/.])[0-9]{1,2}\2[0-9]{4}"),
}
_CLEAN_MASK = re.compile("[01; ]*")
# Secondary structure as DSSP writes it, with blanks for residues without any.
_DSSP_WITH_BLANKS = re.compile(r"(?=.*\s)[HBEGITSPC\s]+")
# How a mask says that a residue takes part, or that it does not.
_FLAGS = {"1": "1", "1.0": "1", "1.": "1", "true": "1", "0": "0", "0.0": "0", "0.": "0", "false": "0"}

_WRAPPED = re.compile(r"(?:\w+\.)?(?:array|tensor)\((\[.*\])(?:,\s*dtype=[\w.]+)?\)", re.DOTALL)
# How NumPy 2 prints a number in a Python list.
_NUMPY_SCALAR = re.compile(r"\bnp\.\w+\(([^()]*)\)")
_TOKEN = re.compile(
    r"""(?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<separator>[,;])|(?P<bare>[^\s,;'"\[\](){}]+)|\s+"""
)
_BRACKETS = {"[": "]", "(": ")", "{": "}"}
_ENTRY_SEPARATORS = (";", ",", "|")

# Longer sequences are proteins, and no name is as long as a protein.
_MAX_PEPTIDE_RESIDUES = 50
# Letters of a label in messages.
_MAX_LETTERS = 40
# A float represents every whole number of this many digits exactly.
_MAX_DIGITS = 15
_POINT_OR_EXPONENT = re.compile("[.eE]")


# Single cells


def looks_like_number(text: str) -> bool:
    """Return whether a label is a number, and not a code such as `01`.

    >>> looks_like_number("10"), looks_like_number("0.1"), looks_like_number("01")
    (True, True, False)
    """
    return read_number(text) is not None and not _ZERO_PADDED.fullmatch(text)


def unusual_number(text: str) -> str | None:
    """Return why a number is not read as one, for instance its decimal comma; None for any other text.

    >>> unusual_number("0,5"), unusual_number("1,142"), unusual_number("45%"), unusual_number("0.5")
    ('a decimal comma', 'thousands separators', 'a percent sign', None)
    """
    return next((name for name, pattern in _UNUSUAL_NUMBERS.items() if pattern.fullmatch(text)), None)


def annotated_number(text: str) -> str | None:
    """Describe a label that holds a number and something else, such as a unit; None for any other label.

    >>> annotated_number("5.2 nM"), annotated_number(">100"), annotated_number("1.1.1.1"), annotated_number("1AKI")
    ('a number with a unit', 'a limit, not a number', None, None)
    """
    return next((name for name, pattern in _ANNOTATED_NUMBERS.items() if pattern.fullmatch(text)), None)


def is_blank_coil(text: str) -> bool:
    """Return whether a label is a secondary structure of DSSP with blanks for residues without any.

    >>> is_blank_coil("HHH  EE"), is_blank_coil("HHHCCEE")
    (True, False)
    """
    return _DSSP_WITH_BLANKS.fullmatch(text) is not None


def _unquoted(text: str) -> str:
    if text.startswith('"'):
        try:
            return str(json.loads(text)).strip()
        except ValueError:
            pass
    return re.sub(r"\\(.)", r"\1", text[1:-1]).strip()


def _bare(text: str) -> str:
    return "nan" if text in ("null", "None") else text


def read_list(cell: str) -> list[str] | None:
    """Read a list in brackets as JSON, Python or NumPy write it; None if the cell is not such a list.

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
        if token["separator"]:
            groups.append([])
        elif token["quoted"] or token["bare"]:
            groups[-1].append(_unquoted(token["quoted"]) if token["quoted"] else _bare(token["bare"]))
    if len(groups) == 1:
        return groups[0]
    return [" ".join(words) for words in (groups if groups[-1] else groups[:-1])]


def residue_entries(cell: str) -> list[str]:
    """Split a label into its entries for residues: a list, text separated by `;` `,` `|` or spaces, or letters.

    >>> residue_entries("[0, 1, 1]"), residue_entries("0,1,1"), residue_entries("0 1 1"), residue_entries("HHE")
    (['0', '1', '1'], ['0', '1', '1'], ['0', '1', '1'], ['H', 'H', 'E'])
    """
    listed = read_list(cell)
    if listed is not None:
        return listed
    for separator in _ENTRY_SEPARATORS:
        if separator in cell:
            entries = [entry.strip() for entry in cell.removesuffix(separator).split(separator)]
            # In text with spaces a comma may be a decimal comma: `0,5 0,7`.
            if separator == ";" or not any(re.search(r"\s", entry) for entry in entries):
                return entries
    return cell.split() if re.search(r"\s", cell) else list(cell)


def split_names(cell: str, separator: str) -> list[str]:
    """Split a cell into the names of several labels, without empty ones.

    >>> split_names("a, b,", ","), split_names("['a', 'b']", ";")
    (['a', 'b'], ['a', 'b'])
    """
    names = read_list(cell)
    names = [name.strip() for name in cell.split(separator)] if names is None else names
    return [name for name in names if name]


def join_entries(entries: Sequence[str], *, as_letters: bool) -> str:
    """Join entries of residues as predictions are written: as letters, or separated by `;`.

    >>> join_entries(["0", "1"], as_letters=True), join_entries(["a", ""], as_letters=False)
    ('01', 'a;;')
    """
    if as_letters:
        return "".join(entries)
    return LABEL_SEPARATOR.join(entries) + (LABEL_SEPARATOR if entries and not entries[-1] else "")


def normalize_mask(mask: str) -> str:
    """Write a mask as zeros and ones; an invalid one is returned unchanged, and `TaskTable` rejects it.

    >>> normalize_mask("[True, False]"), normalize_mask("1.0 0.0"), normalize_mask("10x")
    ('10', '10', '10x')
    """
    flags = [_FLAGS.get(entry.lower(), "") for entry in residue_entries(mask)]
    return "".join(flags) if all(flags) and not _CLEAN_MASK.fullmatch(mask) else mask


def canonical_integers(names: set[str]) -> dict[str, str]:
    """Map whole numbers among the names of classes to one name for each value, if all numbers are whole.

    An integer that is written in only one way keeps its name; codes such as `01` are no numbers.

    >>> sorted(canonical_integers({"0.0", "1.0", "1", "x"}).items())
    [('0.0', '0'), ('1', '1'), ('1.0', '1')]
    >>> canonical_integers({"+1", "-1"}), canonical_integers({"1.0", "1.5"})
    ({'+1': '+1', '-1': '-1'}, {})
    """
    numbers = {name: float(name) for name in names if looks_like_number(name)}
    if not all(value.is_integer() for value in numbers.values()):
        return {}
    names_of: dict[float, list[str]] = {}
    for name, value in sorted(numbers.items()):
        names_of.setdefault(value, []).append(name)
    canonical: dict[str, str] = {}
    for value, same in names_of.items():
        are_integers = all(_INTEGER.fullmatch(name) for name in same)
        # Integers that are equal as floats, because they have too many digits, are different names.
        are_distinct = are_integers and len({int(name) for name in same}) == len(same)
        canonical |= {name: name if are_distinct else f"{int(value)}" for name in same}
    return canonical


def class_sort_key(name: str) -> tuple[bool, float, str]:
    """Return the key by which classes are sorted: numbers by size, then names alphabetically.

    >>> sorted(["b", "10", "9", "C"], key=class_sort_key)
    ['9', '10', 'C', 'b']
    """
    value = read_number(name)
    return value is None, value or 0.0, name


def quoted(label: str) -> str:
    """Quote a label in a message, shortened if it is long."""
    return repr(label[:_MAX_LETTERS])


# Columns


class Column:
    """A column of labels.

    Attributes:
        table: Table that the labels are from.
        path: Name of the table, for messages.
        proteins: All rows of the table.
        labels: Different cells that are not empty, sorted.
        lists: Entries of the labels that are lists in brackets.
        entries: Function that splits a label into its entries for residues, once, because rows share labels.
        known_labels: Labels without stand-ins for missing ones; of lists with one entry, the entries.
    """

    def __init__(self, labels: LabelledTable) -> None:
        self.table, self.path, self.proteins = labels, labels.path, labels.proteins
        self.labels = sorted({protein.label for protein in labels.proteins if protein.label})
        self.lists = {label: entries for label in self.labels if (entries := read_list(label)) is not None}
        self.known_labels = [label for label in map(self.sole_entry, self.labels) if not is_stand_in(label)]
        self.entries = cache(residue_entries)

    def sole_entry(self, label: str) -> str:
        """Return the entry of a list with one entry; any other label is returned unchanged."""
        entries = self.lists.get(label, ())
        return entries[0] if len(entries) == 1 else label

    def known_entries(self) -> list[str]:
        """List the different entries of all residues, without stand-ins for missing ones."""
        different = {entry for label in self.labels for entry in self.entries(label)}
        return sorted(entry for entry in different if entry and not is_stand_in(entry))

    def error(self, label: str, found: str, advice: str) -> TableError:
        """Make the error about the first row that has this label."""
        row = next(protein for protein in self.proteins if protein.label == label)
        return self.table.row_error(row, found, advice)


def are_numbers(labels: Sequence[str]) -> bool:
    """Return whether nearly all labels are numbers."""
    return bool(labels) and sum(map(looks_like_number, labels)) >= MIN_FRACTION_ALIKE * len(labels)


# Columns of residue labels


def _is_letters(protein: LabelledProtein) -> bool:
    return len(protein.label) == len(protein.sequence) and residue_entries(protein.label) == list(protein.label)


def _are_peptides(proteins: Sequence[LabelledProtein]) -> bool:
    """Return whether nearly all sequences are short and of one length."""
    ((length, number),) = Counter(len(protein.sequence) for protein in proteins).most_common(1)
    return length <= _MAX_PEPTIDE_RESIDUES and number >= MIN_FRACTION_ALIKE * len(proteins)


def _recur(proteins: Sequence[LabelledProtein]) -> bool:
    """Return whether there are at most half as many labels as different proteins."""
    pairs = {(protein.sequence, protein.label) for protein in proteins}
    return len({label for _, label in pairs}) <= len(pairs) / 2


def _are_long_numbers(labels: Sequence[str], are_peptides: bool) -> bool:
    """Return whether labels as long as their sequences are numbers, and not one digit per residue."""
    if not are_numbers(labels):
        return False
    if any(_POINT_OR_EXPONENT.search(label) for label in labels):
        return True
    are_exact = max(map(len, labels)) <= _MAX_DIGITS
    return are_peptides and are_exact and not set("".join(labels)) <= set("01")


def are_per_residue(column: Column) -> bool:
    """Return whether nearly all labels have one entry per residue, and are not names or numbers of that length."""
    long_enough = [protein for protein in column.proteins if len(protein.sequence) >= MIN_RESIDUES]
    alike = [protein for protein in long_enough if len(column.entries(protein.label)) == len(protein.sequence)]
    if not long_enough or len(alike) < MIN_FRACTION_ALIKE * len(long_enough):
        return False
    letters = [protein for protein in alike if _is_letters(protein)]
    if len(letters) < MIN_FRACTION_ALIKE * len(alike):
        return True
    are_names = _are_peptides(letters) and _recur(letters)
    return not are_names and not _are_long_numbers([protein.label for protein in letters], _are_peptides(letters))


def ambiguous_peptide_length(column: Column) -> int | None:
    """Return the length of peptides that all have one length and labels of as many letters; None for other tables."""
    proteins = [protein for protein in column.proteins if len(protein.sequence) >= MIN_RESIDUES]
    letters = [protein for protein in proteins if _is_letters(protein)]
    if not letters or len(letters) < MIN_FRACTION_ALIKE * len(proteins) or not _are_peptides(letters):
        return None
    if any(_POINT_OR_EXPONENT.search(label) and looks_like_number(label) for label in column.labels):
        return None
    return len(letters[0].sequence)


# Columns of several labels


def find_separator(labels: Iterable[str], candidates: Iterable[str] = RECOGNISED_SEPARATORS) -> str | None:
    """Find the separator of several labels: at least half of the names after it are also the first of a cell.

    >>> find_separator(["nucleus", "cytosol", "nucleus, cytosol"])
    ','
    >>> find_separator(["Kinase, serine", "Kinase, tyrosine"])
    """
    for separator in candidates:
        rows = [split_names(label, separator) for label in labels]
        first = {names[0] for names in rows if names}
        later = {name for names in rows for name in names[1:]}
        if later and len(later & first) >= len(later) / 2:
            return separator
    return None


def suspect_separator(labels: Sequence[str]) -> str | None:
    """Find a possible separator: the names around it recur in other cells, but may be parts of longer names."""
    for separator in RECOGNISED_SEPARATORS:
        rows = [set(split_names(label, separator)) for label in labels]
        occurrences = Counter(name for names in rows for name in names)
        if any(occurrences[name] > 1 for names in rows if len(names) > 1 for name in names):
            return separator
    return find_separator(labels, _SUSPECTED_SEPARATORS)


def are_multi_hot(column: Column) -> bool:
    """Return whether the cells are lists of zeros and ones of one length, with a one for each label of the protein.

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
