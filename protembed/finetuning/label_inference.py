"""The one place that decides what a column of labels is, and brings its cells into one spelling.

The rules, in order; the first that holds decides. "Nearly all" is nine of ten. White space around cells, quotation
marks and the order of the rows change nothing.

     the cells                                                          the task
 1   `--task` or `--label-separator` was given                          that task; several labels
 2   a cell begins with `[` and is no list, or a list holds `...`       refused: the list is not whole
 3   nearly all proteins of 5 residues and more have an entry for each  residue-regression if the entries are values by
     residue, in brackets (JSON, Python, NumPy), divided by `;`, `,`,   rule 7 (and refused by rule 6), else
     `|` or white space, or letter by letter                            residue-classification
 4   lists of 0 and 1 alone, all of one length                          several labels, the positions of the ones
 5   lists in brackets, or cells divided by `;`                         several labels; refused where most repeat an
                                                                        entry, or hold numbers with a fraction
 6   nearly all are numbers, some with a decimal comma, thousands       refused: more than one reading is possible
     separators, a per cent sign or a minus sign that is none of ASCII
 7   nearly all are numbers; some have a fraction, or over 20 differ    regression; with a warning where they recur
                                                                        (refused: ones and zeros, no more of them than
                                                                        residues)
 8   nearly all are numbers                                             classification
 9   cells divided by `|` or `,`, and half of the parts that stand      several labels
     behind a divider also begin a cell
10   all others                                                         classification; with a warning where names look
                                                                        like several labels

A cell that stands for a missing label, such as `nan` or `#N/A`, does not count in rules 6 to 9.

Letter by letter (rule 3) is only one reading where nearly all sequences are peptides, of at most 50 residues, and of
one length. Labels that recur, at most half as many as proteins, are names or numbers then, and all others are residue
labels; both with a warning. Numbers with a point or an exponent are numbers, and so are, of such peptides, whole
numbers of up to 15 digits, unless they consist of ones and zeros.

A number consists of ASCII digits, a point or none, and perhaps an exponent: `1`, `1.0`, `+1` and `1e0` are the same
number, `1_1` is a name, and so are codes that begin with a zero, such as `01`. Where all numbers among the classes are
whole, they are named as whole numbers: `0.0` and `0` are the class `0`.

From here on labels are spelled as predictions are: several labels and entries of residues divided by `;`, entries that
are all letters side by side. What was spelled like that already stays as it is.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from protembed.config.common import TASKS, Task
from protembed.config.finetune import TaskChoice
from protembed.errors import TableError
from protembed.finetuning.label_cells import (
    FRACTION_ALIKE,
    RECOGNISED,
    SEVERAL,
    Column,
    are_numbers,
    are_per_residue,
    are_positions,
    class_order,
    divide_names,
    find_divider,
    join_entries,
    lettered_peptides,
    looks_like_number,
    read_flags,
    read_number,
    residue_entries,
    suspect_divider,
    unusual_number,
    whole_number_names,
)
from protembed.finetuning.labels import LabelledProtein, LabelledTable
from protembed.io.text import pluralize

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
    if task.label_kind == "labels":
        return _spell_several(column, separator, is_chosen=is_chosen)
    if task.label_kind == "class":
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
    _check_divisible(column, names)
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


def _check_divisible(column: Column, names: dict[str, list[str]]) -> None:
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
    names = whole_number_names(different) if task.label_kind == "class" else {}
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
        noun = "value" if task.label_kind == "value" else "class"
        plural = "" if len(entries) == 1 else "s" if noun == "value" else "es"
        return f"{len(entries):,} residue {noun}{plural} {_shorten_list(entries, ' ')}"
    if task.label_kind == "labels":
        names = divide_names(label, SEVERAL)
        return f"{pluralize(len(names), 'label')} {_shorten_list(names, '; ')}" if names else "no label"
    if task.label_kind == "class":
        return f"class {_shorten(label)}"
    value = read_number(label)
    return "no number" if value is None else f"value {value:g}"


def _shorten_list(entries: Sequence[str], divider: str) -> str:
    more = f"{divider}…" if len(entries) > _MAX_ENTRIES else ""
    return divider.join(_shorten(entry or "nan") for entry in islice(entries, _MAX_ENTRIES)) + more


def _shorten(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN_LETTERS else f"{text[:_MAX_SHOWN_LETTERS]}…"


# Whole numbers are read as classes as long as there are no more of them than this.
_MAX_NUMBERED_CLASSES = 20
_MAX_LETTERS = 40


@dataclass(frozen=True, kw_only=True)
class InferredLabels:
    """A column of labels whose meaning is known.

    Attributes:
        labels: The table, all its labels and masks in one spelling.
        task: The task that the labels pose.
        reading: A sentence that shows how three cells were read.
        warnings: Doubts about the inference, in sentences that name the option.
    """

    labels: LabelledTable
    task: Task
    reading: str
    warnings: Sequence[str]


def infer_labels(labels: LabelledTable, choice: TaskChoice = "auto", separator: str | None = None) -> InferredLabels:
    """Decide what the labels of a table are, and bring them into one spelling.

    Args:
        labels: The table as it was read.
        choice: The task that the user named, or `auto`.
        separator: The text that divides several labels of a protein; None if the user named none.

    Raises:
        TableError: The labels can be read in several ways or in none.
    """
    column = Column(labels)
    task = _choose(column, choice, separator)
    is_chosen = choice != "auto" or separator is not None
    spelled = spell_labels(column, task, separator, is_chosen=is_chosen)
    proteins = [
        replace(protein, label=label, mask=spell_mask(protein.mask))
        for protein, label in zip(column.proteins, spelled, strict=True)
    ]
    return InferredLabels(
        labels=replace(labels, proteins=proteins),
        task=task,
        reading=describe_reading(column.proteins, spelled, task),
        warnings=[] if is_chosen else list(_doubts(column, task, spelled)),
    )


def _choose(column: Column, choice: TaskChoice, separator: str | None) -> Task:
    """Apply the rules, in their order."""
    _check_lists_are_whole(column)
    if choice != "auto":
        return TASKS[choice]
    if separator is not None:
        return TASKS["multilabel"]
    if are_per_residue(column):
        are_values = _are_values(column, column.known_entries())
        return TASKS["residue-regression" if are_values else "residue-classification"]
    if _are_lists(column):
        _check_lists_are_plain(column, SEVERAL)
        return TASKS["multilabel"]
    if _are_values(column, column.known):
        _check_leading_zeros(column)
        return TASKS["regression"]
    divider = None if are_numbers(column.known) else find_divider(column.known)
    if divider is not None:
        _check_lists_are_plain(column, divider)
        return TASKS["multilabel"]
    return TASKS["classification"]


def _check_lists_are_whole(column: Column) -> None:
    for label in column.labels:
        if label.startswith("[") and label not in column.lists:
            found = f"has the label {label[:_MAX_LETTERS]!r}, which begins with '[' and is no whole list"
            raise column.error(label, found, "write the list to its end, or the name without brackets")
        if "..." in column.lists.get(label, ()):
            found = f"has the list {label[:_MAX_LETTERS]!r}, of which '...' leaves a part out"
            raise column.error(label, found, "write the list in full, in NumPy by .tolist()")


def _are_lists(column: Column) -> bool:
    return any(len(entries) != 1 for entries in column.lists.values()) or any(
        SEVERAL in label for label in column.labels
    )


def _check_lists_are_plain(column: Column, divider: str) -> None:
    """Refuse lists that are no sets of labels: values, or residue labels whose number does not fit."""
    rows = {label: divide_names(label, divider) for label in column.labels}
    several = {label: names for label, names in rows.items() if len(names) > 1}
    if not several or are_positions(column):
        return
    names = sorted({name for row in several.values() for name in row})
    numbers = [value for name in names if (value := read_number(name)) is not None]
    if are_numbers(names) and not all(value.is_integer() for value in numbers):
        found = f"has the label {min(several)[:_MAX_LETTERS]!r}, which is several values"
        advice = "give a column with one value for each protein, or with one for each residue"
        raise column.error(min(several), found, advice)
    repeating = [label for label, row in several.items() if len(set(row)) < len(row)]
    if len(repeating) > len(several) / 2:
        label = min(repeating)
        num_residues = next(len(row.sequence) for row in column.proteins if row.label == label)
        found = f"has {len(column.entries(label))} labels for {num_residues} residues, some of them several times"
        advice = "give each residue one label, or pass --task multilabel if they are labels of the protein"
        raise column.error(label, found, advice)


def _are_values(column: Column, labels: Sequence[str]) -> bool:
    """Tell whether labels or entries are values rather than classes.

    Raises:
        TableError: They are numbers in another spelling.
    """
    unusual = {label: kind for label in labels if (kind := unusual_number(label))}
    numbers = {value for label in labels if (value := read_number(label)) is not None}
    if unusual:
        num_numbers = sum(label in unusual or looks_like_number(label) for label in labels)
        if num_numbers >= FRACTION_ALIKE * len(labels):
            _check_plain_numbers(column, unusual)
    if not are_numbers(labels):
        return False
    return len(numbers) > _MAX_NUMBERED_CLASSES or not all(value.is_integer() for value in numbers)


def _check_leading_zeros(column: Column) -> None:
    """Refuse labels of residues, ones and zeros, that a spreadsheet or pandas read as numbers."""
    are_flags = all(set(label) <= set("01") for label in column.labels)
    if not are_flags or any(len(protein.label) > len(protein.sequence) for protein in column.proteins):
        return
    for protein in column.proteins:
        if 0 < len(protein.label) < len(protein.sequence):
            found = f"has the label {protein.label[:_MAX_LETTERS]!r} for {len(protein.sequence)} residues: the zeros at"
            found += " its beginning seem to be lost, as in all labels of ones and zeros that were read as numbers"
            raise column.error(
                protein.label, found, "export them as text, or pass --task regression if they are values"
            )


def _check_plain_numbers(column: Column, unusual: dict[str, str]) -> None:
    kinds = Counter(unusual.values())
    # 1,142 may be either; 0,5 is no thousand.
    kind = "a decimal comma" if kinds["a decimal comma"] else kinds.most_common(1)[0][0]
    example = min(label for label, other in unusual.items() if other == kind)
    found = f"labels such as {example!r} look like numbers with {kind}"
    advice = "write plain numbers such as 0.5 or 1142, or pass --task classification if they are names"
    if "," in example:
        advice += ", or --task multilabel if they are several labels"
    row = next(row for row in column.proteins if example in (column.sole_entry(row.label), *column.entries(row.label)))
    raise TableError(column.path, found, advice, line=row.line)


# Where another task was possible


def _doubts(column: Column, task: Task, spelled: Sequence[str]) -> Iterator[str]:
    """Put into sentences where another task was possible."""
    if length := lettered_peptides(column):
        found = f"the labels have as many letters as the sequences have residues, {length}, and were read as"
        if task.per_residue:
            yield f"{found} a letter for each residue: if they are names or numbers, pass --task classification"
        else:
            yield f"{found} names or numbers: if each letter labels a residue, pass --task residue-classification"
    if task.label_kind == "value":
        yield from _doubts_about_values(column, task)
    is_named = task.name == "classification" and not are_numbers(column.known)
    if is_named and (divider := suspect_divider(column.known)):
        label = next(label for label in column.known if len(divide_names(label, divider)) > 1)
        found = f"labels such as {label[:_MAX_LETTERS]!r} look like several labels divided by {divider!r}"
        yield f"{found}: if they are, pass --label-separator {divider!r}"
    if task.label_kind == "labels":
        yield from _doubts_about_dividers(spelled)
    if task.label_kind == "labels" and column.lists and all(label and SEVERAL not in label for label in spelled):
        yield "each protein has exactly one label: if these are classes, write the name of its class in each row"


def _doubts_about_dividers(spelled: Sequence[str]) -> Iterator[str]:
    """Name a second divider, of which the parts are labels of their own elsewhere."""
    names = sorted({name for label in spelled for name in divide_names(label, SEVERAL)})
    if divider := find_divider(names):
        name = next(name for name in names if len(divide_names(name, divider)) > 1)
        found = f"labels such as {name[:_MAX_LETTERS]!r} look like several labels divided by {divider!r}"
        yield f"{found}, and others are divided otherwise: if they are, divide all by ';'"


def _doubts_about_values(column: Column, task: Task) -> Iterator[str]:
    """Name the other task where numbers recur as classes do."""
    labels = column.known_entries() if task.per_residue else column.known
    values = {value for label in labels if (value := read_number(label)) is not None}
    num_labelled = sum(len(protein.sequence) if task.per_residue else 1 for protein in column.proteins)
    are_whole = all(value.is_integer() for value in values)
    if len(values) > num_labelled / 2 or (len(values) > _MAX_NUMBERED_CLASSES and not are_whole):
        return
    other = "residue-classification" if task.per_residue else "classification"
    numbers = "whole numbers" if are_whole else "numbers"
    yield f"the labels are {len(values)} different {numbers}, read as values: if they are classes, pass --task {other}"
