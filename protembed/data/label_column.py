"""A column of labels, and what the rules of `label_inference` ask of it."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from protembed.data.label_cells import divide_names, looks_like_number, read_list, residue_entries
from protembed.data.labels import LabelledProtein, Labels
from protembed.errors import TableError
from protembed.io.tables import is_stand_in

# How several labels are divided from here on, and in predictions.
SEVERAL = ";"
# Where so many of the labels are alike, as long as their sequences or numbers, the others are mistakes.
SHARE_ALIKE = 0.9
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

    def __init__(self, labels: Labels) -> None:
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
    return bool(labels) and sum(map(looks_like_number, labels)) >= SHARE_ALIKE * len(labels)


# Labels of residues


def are_per_residue(column: Column) -> bool:
    """Tell whether nearly all labels have an entry for each residue, and are not names or numbers of that length."""
    long_enough = [protein for protein in column.proteins if len(protein.sequence) >= MIN_RESIDUES]
    alike = [protein for protein in long_enough if len(column.entries(protein.label)) == len(protein.sequence)]
    if not long_enough or len(alike) < SHARE_ALIKE * len(long_enough):
        return False
    letters = [protein for protein in alike if _is_letters(protein)]
    if len(letters) < SHARE_ALIKE * len(alike):
        return True
    are_names = _are_peptides(letters) and _recur(letters)
    return not are_names and not _are_long_numbers([protein.label for protein in letters], _are_peptides(letters))


def lettered_peptides(column: Column) -> int | None:
    """Return the length of peptides of one length whose labels are as long as they are; None for other tables."""
    proteins = [protein for protein in column.proteins if len(protein.sequence) >= MIN_RESIDUES]
    letters = [protein for protein in proteins if _is_letters(protein)]
    if not letters or len(letters) < SHARE_ALIKE * len(proteins) or not _are_peptides(letters):
        return None
    if any(_POINT_OR_EXPONENT.search(label) and looks_like_number(label) for label in column.labels):
        return None
    return len(letters[0].sequence)


def _is_letters(protein: LabelledProtein) -> bool:
    return len(protein.label) == len(protein.sequence) and residue_entries(protein.label) == list(protein.label)


def _are_peptides(proteins: Sequence[LabelledProtein]) -> bool:
    """Tell whether nearly all sequences are short and of one length."""
    ((length, number),) = Counter(len(protein.sequence) for protein in proteins).most_common(1)
    return length <= _MAX_PEPTIDE_RESIDUES and number >= SHARE_ALIKE * len(proteins)


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
