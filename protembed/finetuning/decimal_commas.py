"""Decimal commas in a column of labels, as spreadsheets write them in most of Europe."""

import re
from collections.abc import Iterable
from dataclasses import replace

from protembed.config.finetune import TaskChoice
from protembed.finetuning.label_cells import MIN_FRACTION_ALIKE, looks_like_number, residue_entries
from protembed.finetuning.labels import LabelledTable
from protembed.io.tables import is_stand_in

# A number without a point.
_NUMBER = re.compile(r"[+-]?([0-9]+(,[0-9]+)?|,[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)
# A number that may as well have a thousands separator.
_MAYBE_THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")
# What may stand between the numbers of several residues; a comma may be decimal.
_BETWEEN_NUMBERS = re.compile(r"[;\s]")
_VALUES = ("regression", "residue-regression")


def _entries(label: str) -> list[str]:
    """Return the number in a cell, or its numbers for residues, without stand-ins for missing ones."""
    entries = residue_entries(label) if _BETWEEN_NUMBERS.search(label) else [label]
    return [entry for entry in entries if entry and not is_stand_in(entry)]


def _numbers_with_commas(labels: Iterable[str]) -> set[str]:
    """Find the labels that are numbers with decimal commas; none of them if the commas may be something else."""
    known = {label: entries for label in set(labels) if (entries := _entries(label))}
    numbers = {label for label, entries in known.items() if all(map(_NUMBER.fullmatch, entries))}
    if len(numbers) < MIN_FRACTION_ALIKE * len(known):
        return set()
    commas = [entry for label in numbers for entry in known[label] if "," in entry]
    have_points = any("." in entry and looks_like_number(entry) for entries in known.values() for entry in entries)
    if have_points or all(map(_MAYBE_THOUSANDS.fullmatch, commas)):
        return set()
    return {label for label in numbers if any("," in entry for entry in known[label])}


def read_decimal_commas(labels: LabelledTable, choice: TaskChoice, separator: str | None) -> LabelledTable:
    """Replace decimal commas by points, if nearly all labels are numbers, and commas cannot be anything else.

    They can be decimal in tables whose columns are separated by semicolons, in Excel's UTF-16 text, and in any table
    of which the user says that the labels are values. They are left if all may be thousands separators, as in `1,142`,
    or if other numbers have points.

    Args:
        labels: Table as it was read.
        choice: Task that the user named, or `auto`.
        separator: Separator of several labels of a protein; None if the user named none.
    """
    if choice not in _VALUES and (choice != "auto" or separator is not None or not labels.has_decimal_commas):
        return labels
    numbers = _numbers_with_commas(protein.label for protein in labels.proteins)
    if not numbers:
        return labels
    proteins = [
        replace(protein, label=protein.label.replace(",", ".")) if protein.label in numbers else protein
        for protein in labels.proteins
    ]
    return replace(labels, proteins=proteins, traits=[*labels.traits, "decimal commas"])
