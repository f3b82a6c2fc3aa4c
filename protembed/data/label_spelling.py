"""One spelling for the labels of a table, that of predictions, and sentences that show how cells were read."""

import re
from collections.abc import Sequence
from itertools import islice

from protembed.config.common import Task
from protembed.data.label_cells import (
    class_order,
    divide_names,
    join_entries,
    read_flags,
    read_number,
    residue_entries,
    whole_number_names,
)
from protembed.data.label_column import RECOGNISED, SEVERAL, Column, are_positions, find_divider
from protembed.data.labels import LabelledProtein
from protembed.io.text import count

_CLEAN_MASK = re.compile("[01; ]*")
_NUM_EXAMPLES, _MAX_SHOWN_LETTERS, _MAX_ENTRIES = 3, 20, 5


def spell_labels(column: Column, task: Task, separator: str | None, *, is_chosen: bool) -> list[str]:
    """Bring the labels into the spelling of predictions; those that have it already stay as they are.

    Args:
        column: The labels.
        task: The task that they pose.
        separator: The text that divides several labels; None if the user named none.
        is_chosen: Whether the user named the task.

    Returns:
        A label for each row.

    Raises:
        TableError: The name of a class or label would be taken for a list.
    """
    if task.per_residue:
        return _spell_residues(column, task)
    if task.answer == "labels":
        return _spell_several(column, separator, is_chosen=is_chosen)
    if task.answer == "class":
        return _spell_classes(column)
    return [column.sole_entry(protein.label) for protein in column.proteins]


def spell_mask(mask: str | None) -> str | None:
    """Write a mask as zeros and ones; one that holds anything else stays as it is, to be refused."""
    if not mask or _CLEAN_MASK.fullmatch(mask):
        return mask
    flags = read_flags(mask)
    return "".join(flags) if set(flags) <= {"0", "1"} else mask


def _spell_classes(column: Column) -> list[str]:
    for label in column.labels:
        name = column.sole_entry(label)
        if name.startswith("[") or name.endswith(",") or label in column.lists and name == label:
            found = f"has the class {label[:40]!r}, which is a list or part of one"
            advice = "write one name without brackets or a comma at its end, or pass --task multilabel"
            raise column.error(label, found, advice)
    names = whole_number_names(set(map(column.sole_entry, column.labels)))
    return [names.get(name, name) for name in (column.sole_entry(protein.label) for protein in column.proteins)]


def _spell_several(column: Column, separator: str | None, *, is_chosen: bool) -> list[str]:
    if separator is None and are_positions(column):
        return [_spell_positions(column, protein.label) for protein in column.proteins]
    if separator is None:
        separator = _separator(column, is_chosen=is_chosen)
    names = {label: divide_names(label, separator) for label in column.labels}
    _refuse_undividable(column, names)
    spelled = whole_number_names({name for row in names.values() for name in row})

    def spell(label: str) -> str:
        renamed = [spelled.get(name, name) for name in names[label]]
        if SEVERAL.join(renamed) == label:
            return label
        return SEVERAL.join(sorted(set(renamed), key=class_order))

    return [spell(protein.label) if protein.label else "" for protein in column.proteins]


def _separator(column: Column, *, is_chosen: bool) -> str:
    """Find what divides several labels; lists in brackets need nothing."""
    labels = [label for label in column.labels if label not in column.lists]
    if any(SEVERAL in label for label in labels):
        return SEVERAL
    found = find_divider(labels)
    if found is None and (is_chosen or column.lists):
        # Where proteins have several labels a cell with a divider holds several.
        found = next((divider for divider in RECOGNISED if any(divider in label for label in labels)), None)
    return found or SEVERAL


def _refuse_undividable(column: Column, names: dict[str, list[str]]) -> None:
    for label, row in names.items():
        for name in row:
            if SEVERAL in name or name.startswith("[") or name.endswith(","):
                found = f"has the label {name[:40]!r}, which holds ';', begins with '[' or ends with ','"
                raise column.error(label, found, "rename it, or divide labels by ';' as predictions do")


def _spell_positions(column: Column, label: str) -> str:
    flags = column.entries(label) if label else []
    return SEVERAL.join(str(position) for position, flag in enumerate(flags) if flag == "1")


def _spell_residues(column: Column, task: Task) -> list[str]:
    different = {entry for label in column.labels for entry in column.entries(label)}
    names = whole_number_names(different) if task.answer == "class" else {}
    as_letters = all(len(names.get(entry, entry)) == 1 for entry in different)

    def spell(label: str) -> str:
        entries = column.entries(label)
        renamed = [names.get(entry, entry) for entry in entries]
        is_spelled = renamed == entries and label not in column.lists and not re.search("[,|]", label)
        return label if is_spelled else join_entries(renamed, as_letters=as_letters)

    spelled = {label: spell(label) for label in column.labels}
    return [spelled.get(protein.label, "") for protein in column.proteins]


# How cells were read


def describe_reading(proteins: Sequence[LabelledProtein], spelled: Sequence[str], task: Task) -> str:
    """Show how three different cells were read.

    Args:
        proteins: The rows, with their labels as they stand in the table.
        spelled: The same labels in one spelling.
        task: The task that they pose.
    """
    shown = dict[str, str]()
    for protein, label in zip(proteins, spelled, strict=True):
        if len(shown) < _NUM_EXAMPLES and protein.label not in shown:
            shown[protein.label] = _describe(label, task)
    return "read " + ", ".join(f"{_shorten(cell)!r} as {meaning}" for cell, meaning in shown.items())


def _describe(label: str, task: Task) -> str:
    if task.per_residue:
        entries = residue_entries(label)
        noun = "value" if task.answer == "value" else "class"
        plural = "" if len(entries) == 1 else "s" if noun == "value" else "es"
        return f"{len(entries):,} residue {noun}{plural} {_shorten_list(entries, ' ')}"
    if task.answer == "labels":
        names = divide_names(label, SEVERAL)
        return f"{count(len(names), 'label')} {_shorten_list(names, '; ')}" if names else "no label"
    if task.answer == "class":
        return f"class {_shorten(label)}"
    value = read_number(label)
    return "no number" if value is None else f"value {value:g}"


def _shorten_list(entries: Sequence[str], divider: str) -> str:
    more = f"{divider}…" if len(entries) > _MAX_ENTRIES else ""
    return divider.join(_shorten(entry or "nan") for entry in islice(entries, _MAX_ENTRIES)) + more


def _shorten(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN_LETTERS else f"{text[:_MAX_SHOWN_LETTERS]}…"
