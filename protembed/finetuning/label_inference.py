"""Inference of the task from a column of labels, and normalization of the cells.

The rules, in order; the first that applies decides. "Nearly all" is nine out of ten. White space around cells,
quotation marks and the order of the rows do not matter.

     the cells                                                          the task
 1   `--task` or `--label-separator` was given                          that task; several labels
 2   a cell begins with `[` and is no list, or a list holds `...`       an error: the list is incomplete
 3   nearly all proteins of 5 residues and more have one entry per      residue-regression if the entries are values by
     residue, in brackets (JSON, Python, NumPy), separated by `;`,      rule 7 (and an error by rule 6), else
     `,`, `|` or white space, or as letters                             residue-classification
 4   lists of only 0 and 1, all of one length (multi-hot)               several labels, the positions of the ones
 5   lists in brackets, or cells separated by `;`                       several labels; an error if most repeat an
                                                                        entry, or hold numbers with a fraction
 6   nearly all are numbers, some with a decimal comma, thousands       an error: more than one reading is possible
     separators, a percent sign or a non-ASCII minus sign
 7   nearly all are numbers; some have a fraction, or over 20 differ    regression; with a warning if they recur
                                                                        (an error for ones and zeros, if there are no
                                                                        more of them than residues)
 8   nearly all are numbers                                             classification
 9   cells separated by `|` or `,`, and half of the names after a       several labels
     separator are also the first of a cell
10   nearly all are numbers, over 20 differ, and some have a unit,      an error: more than one reading is possible
     an error or a limit, as in `5.2 nM` and `>100`
11   all others                                                         classification; with a warning if names look
                                                                        like several labels

A cell that stands for a missing label, such as `nan` or `#N/A`, does not count in rules 6 to 9.

Reading letters as one per residue (rule 3) is uncertain if nearly all sequences are peptides of at most 50 residues and
of one length. Then labels that recur, at most half as many as proteins, are names or numbers, and all others are labels
of residues, both with a warning. Numbers with a point or an exponent are numbers, and so are, for such peptides, whole
numbers of up to 15 digits, unless they consist of ones and zeros.

Decimal commas are read as points before the rules apply, where `decimal_commas` is sure of them: in tables whose
columns are separated by semicolons, and with `--task regression` or `residue-regression` in all others.

A number consists of ASCII digits, an optional point and an optional exponent: `1`, `1.0`, `+1` and `1e0` are the same
number; `1_1` is a name, and so are codes that begin with a zero, such as `01`. If all numbers among the classes are
whole, they are named as whole numbers: `0.0` and `0` are the class `0`.

Normalized labels are written as predictions are: several labels, and entries of residues, are separated by `;`; entries
that are all single letters are joined. Labels that are written like that already do not change.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from protembed.config.common import TASKS, Task
from protembed.config.finetune import TaskChoice
from protembed.errors import TableError
from protembed.finetuning.decimal_commas import read_decimal_commas
from protembed.finetuning.label_cells import (
    MIN_FRACTION_ALIKE,
    RECOGNISED_SEPARATORS,
    Column,
    ambiguous_peptide_length,
    annotated_number,
    are_multi_hot,
    are_numbers,
    are_per_residue,
    canonical_integers,
    class_sort_key,
    find_separator,
    join_entries,
    looks_like_number,
    normalize_mask,
    quoted,
    residue_entries,
    split_names,
    suspect_separator,
    unusual_number,
)
from protembed.finetuning.labels import LabelledProtein, LabelledTable
from protembed.io.tables import LABEL_SEPARATOR, read_number
from protembed.text import pluralize

_MAYBE_THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2}\.[0-9]{3}")
# More different whole numbers than this are values, not classes.
_MAX_NUMBERED_CLASSES = 20
# Cells in the sentence about how labels were read, letters of each, and entries of each.
_NUM_EXAMPLES, _MAX_EXAMPLE_LETTERS, _MAX_EXAMPLE_ENTRIES = 3, 20, 5


# The task


def _check_lists_complete(column: Column) -> None:
    for label in column.labels:
        if label.startswith("[") and label not in column.lists:
            found = f"has the label {quoted(label)}, which begins with '[' but is not a complete list"
            raise column.error(label, found, "complete the list, or write the name without brackets")
        if "..." in column.lists.get(label, ()):
            found = f"has the list {quoted(label)}, which is abbreviated by '...'"
            raise column.error(label, found, "write the list in full, for example with NumPy's .tolist()")


def _are_lists(column: Column) -> bool:
    return any(len(entries) != 1 for entries in column.lists.values()) or any(
        LABEL_SEPARATOR in label for label in column.labels
    )


def _check_label_sets(column: Column, separator: str) -> None:
    """Check that lists are sets of labels: neither several values, nor labels of residues whose number does not fit."""
    rows = {label: split_names(label, separator) for label in column.labels}
    several = {label: names for label, names in rows.items() if len(names) > 1}
    if not several or are_multi_hot(column):
        return
    names = sorted({name for row in several.values() for name in row})
    numbers = [value for name in names if (value := read_number(name)) is not None]
    if are_numbers(names) and not all(value.is_integer() for value in numbers):
        found = f"has the label {quoted(min(several))}, which holds several values"
        advice = "give a column with one value per protein, or one value per residue"
        raise column.error(min(several), found, advice)
    repeating = [label for label, row in several.items() if len(set(row)) < len(row)]
    if len(repeating) > len(several) / 2:
        label = min(repeating)
        num_residues = next(len(row.sequence) for row in column.proteins if row.label == label)
        found = f"has {len(column.entries(label))} labels for {num_residues} residues, some of them repeated"
        advice = "give each residue one label, or pass `task` multilabel if they are labels of the protein"
        raise column.error(label, found, advice)


def _unusual_numbers_error(column: Column, unusual: dict[str, str]) -> TableError:
    kinds = Counter(unusual.values())
    # 1,142 may have a thousands separator or a decimal comma; 0,5 can only have a decimal comma.
    kind = "a decimal comma" if kinds["a decimal comma"] else kinds.most_common(1)[0][0]
    example = min(label for label, kind_of_label in unusual.items() if kind_of_label == kind)
    found = f"labels such as {example!r} look like numbers with {kind}"
    advice = "write plain numbers such as 0.5 or 1142, or pass `task` classification if they are names"
    if "," in example:
        advice += ", multilabel if they are several labels"
    if kind == "a decimal comma":
        advice += ", or regression if they are numbers"
    row = next(row for row in column.proteins if example in (column.sole_entry(row.label), *column.entries(row.label)))
    return TableError(column.path, found, advice, line=row.line)


def _are_values(column: Column, labels: Sequence[str]) -> bool:
    """Return whether labels or entries are values, not classes; raise an error for numbers in an unusual notation."""
    unusual = {label: kind for label in labels if (kind := unusual_number(label))}
    num_numbers = sum(label in unusual or looks_like_number(label) for label in labels)
    if unusual and num_numbers >= MIN_FRACTION_ALIKE * len(labels):
        raise _unusual_numbers_error(column, unusual)
    if not are_numbers(labels):
        return False
    numbers = {value for label in labels if (value := read_number(label)) is not None}
    return len(numbers) > _MAX_NUMBERED_CLASSES or not all(value.is_integer() for value in numbers)


def _check_not_annotated(column: Column) -> None:
    """Check for many numbers with a unit, an error or a limit; few of them may be the names of classes."""
    annotated = {label: kind for label in column.known_labels if (kind := annotated_number(label))}
    num_numbers = sum(label in annotated or looks_like_number(label) for label in column.known_labels)
    are_few = len(column.known_labels) <= _MAX_NUMBERED_CLASSES
    if not annotated or are_few or num_numbers < MIN_FRACTION_ALIKE * len(column.known_labels):
        return
    label = next(label for label in column.known_labels if label in annotated)
    advice = "write plain numbers such as 0.5, or pass `task` classification if they are names"
    row = next(row for row in column.proteins if column.sole_entry(row.label) == label)
    found = f"the labels seem to be numbers, but {label!r} is {annotated[label]}"
    raise TableError(column.path, found, advice, line=row.line)


def _check_leading_zeros(column: Column) -> None:
    """Check for labels of residues, ones and zeros, that lost leading zeros in a spreadsheet or pandas."""
    are_flags = all(set(label) <= set("01") for label in column.labels)
    if not are_flags or any(len(protein.label) > len(protein.sequence) for protein in column.proteins):
        return
    for protein in column.proteins:
        if 0 < len(protein.label) < len(protein.sequence):
            found = f"has the label {quoted(protein.label)} for {len(protein.sequence)} residues; its leading"
            found += " zeros seem to be lost, as when a program reads ones and zeros as numbers"
            advice = "export labels as text, or pass `task` regression if they are values"
            raise column.error(protein.label, found, advice)


def _infer_task(column: Column, choice: TaskChoice, separator: str | None) -> Task:
    """Apply the rules in their order."""
    _check_lists_complete(column)
    if choice != "auto":
        return TASKS[choice]
    if separator is not None:
        return TASKS["multilabel"]
    if are_per_residue(column):
        are_values = _are_values(column, column.known_entries())
        return TASKS["residue-regression" if are_values else "residue-classification"]
    if _are_lists(column):
        _check_label_sets(column, LABEL_SEPARATOR)
        return TASKS["multilabel"]
    if _are_values(column, column.known_labels):
        _check_leading_zeros(column)
        return TASKS["regression"]
    inferred = None if are_numbers(column.known_labels) else find_separator(column.known_labels)
    if inferred is not None:
        _check_label_sets(column, inferred)
        return TASKS["multilabel"]
    _check_not_annotated(column)
    return TASKS["classification"]


# Normalized labels


def _class_names(column: Column) -> dict[str, str]:
    for label in column.labels:
        name = column.sole_entry(label)
        if name.startswith("[") or name.endswith(",") or label in column.lists and name == label:
            found = f"has the class {quoted(label)}, which is a list or part of one"
            advice = "write one name without brackets or a comma at its end, or pass `task` multilabel"
            raise column.error(label, found, advice)
    names = {label: column.sole_entry(label) for label in column.labels}
    canonical = canonical_integers(set(names.values()))
    return {label: canonical.get(name, name) for label, name in names.items()}


def _separator(column: Column, *, is_chosen: bool) -> str:
    """Choose the separator of several labels; lists in brackets do not need it."""
    labels = [label for label in column.labels if label not in column.lists]
    if any(LABEL_SEPARATOR in label for label in labels):
        return LABEL_SEPARATOR
    separator = find_separator(labels)
    if separator is None and (is_chosen or column.lists):
        # Proteins are known to have several labels, so a cell with a separator holds several.
        candidates = (text for text in RECOGNISED_SEPARATORS if any(text in label for label in labels))
        separator = next(candidates, None)
    return separator or LABEL_SEPARATOR


def _check_separable(column: Column, names: dict[str, list[str]]) -> None:
    for label, row in names.items():
        for name in row:
            if LABEL_SEPARATOR in name or name.startswith("[") or name.endswith(","):
                found = f"has the label {quoted(name)}, which holds ';', begins with '[' or ends with ','"
                raise column.error(label, found, "rename it, or separate labels by ';' as in predictions")


def _split_labels(column: Column, separator: str | None, *, is_chosen: bool) -> dict[str, str]:
    if separator is None and are_multi_hot(column):
        ones = {label: np.flatnonzero(np.array(column.entries(label)) == "1") for label in column.labels}
        return {label: LABEL_SEPARATOR.join(map(str, positions)) for label, positions in ones.items()}
    if separator is None:
        separator = _separator(column, is_chosen=is_chosen)
    names = {label: split_names(label, separator) for label in column.labels}
    _check_separable(column, names)
    canonical = canonical_integers({name for row in names.values() for name in row})

    def normalize(label: str) -> str:
        renamed = [canonical.get(name, name) for name in names[label]]
        if LABEL_SEPARATOR.join(renamed) == label:
            return label
        return LABEL_SEPARATOR.join(sorted(set(renamed), key=class_sort_key))

    return {label: normalize(label) for label in column.labels}


def _per_residue_labels(column: Column, task: Task) -> dict[str, str]:
    different = {entry for label in column.labels for entry in column.entries(label)}
    names = canonical_integers(different) if task.label_kind == "class" else {}
    as_letters = all(len(names.get(entry, entry)) == 1 for entry in different)

    def normalize(label: str) -> str:
        entries = column.entries(label)
        renamed = [names.get(entry, entry) for entry in entries]
        is_normal = renamed == entries and label not in column.lists and not re.search("[,|]", label)
        return label if is_normal else join_entries(renamed, as_letters=as_letters)

    return {label: normalize(label) for label in column.labels}


def _normalize(column: Column, task: Task, separator: str | None, *, is_chosen: bool) -> dict[str, str]:
    """Map the different cells to labels, written as predictions are."""
    if task.per_residue:
        return _per_residue_labels(column, task)
    if task.label_kind == "labels":
        return _split_labels(column, separator, is_chosen=is_chosen)
    if task.label_kind == "class":
        return _class_names(column)
    return {label: column.sole_entry(label) for label in column.labels}


# How cells were read


def _shorten(text: str) -> str:
    return text if len(text) <= _MAX_EXAMPLE_LETTERS else f"{text[:_MAX_EXAMPLE_LETTERS]}…"


def _shorten_list(entries: Sequence[str], separator: str) -> str:
    more = f"{separator}…" if len(entries) > _MAX_EXAMPLE_ENTRIES else ""
    return separator.join(_shorten(entry or "nan") for entry in entries[:_MAX_EXAMPLE_ENTRIES]) + more


def _describe(label: str, task: Task) -> str:
    if task.per_residue:
        entries = residue_entries(label)
        noun = "value" if task.label_kind == "value" else "class"
        plural = "" if len(entries) == 1 else "s" if noun == "value" else "es"
        return f"{len(entries):,} residue {noun}{plural} {_shorten_list(entries, ' ')}"
    if task.label_kind == "labels":
        names = split_names(label, LABEL_SEPARATOR)
        return f"{pluralize(len(names), 'label')} {_shorten_list(names, '; ')}" if names else "no label"
    if task.label_kind == "class":
        return f"class {_shorten(label)}"
    value = read_number(label)
    return "not a number" if value is None else f"value {value:g}"


def _describe_reading(before: Sequence[LabelledProtein], after: Sequence[LabelledProtein], task: Task) -> str:
    """Show how the first three different cells were read."""
    labels = {cell.label: protein.label for cell, protein in zip(before, after, strict=True)}
    may_be_empty = task.label_kind == "labels"
    examples = [(cell, label) for cell, label in labels.items() if label or may_be_empty][:_NUM_EXAMPLES]
    return "read " + ", ".join(f"{_shorten(cell)!r} as {_describe(label, task)}" for cell, label in examples)


# Doubts about the task


def _doubts_about_values(column: Column, task: Task) -> Iterator[str]:
    """Describe that numbers recur as classes do."""
    labels = column.known_entries() if task.per_residue else column.known_labels
    values = {value for label in labels if (value := read_number(label)) is not None}
    num_labelled = sum(len(protein.sequence) if task.per_residue else 1 for protein in column.proteins)
    are_whole = all(value.is_integer() for value in values)
    if len(values) > num_labelled / 2 or (len(values) > _MAX_NUMBERED_CLASSES and not are_whole):
        return
    other = "residue-classification" if task.per_residue else "classification"
    numbers = "whole numbers" if are_whole else "numbers"
    yield f"the labels are {len(values)} different {numbers}, read as values: if they are classes, pass --task {other}"


def _doubts_about_points(column: Column) -> Iterator[str]:
    """Describe that points may separate thousands, in a table whose decimal sign may be a comma."""
    with_points = [label for label in column.known_labels if "." in label and looks_like_number(label)]
    may_be_thousands = with_points and all(map(_MAYBE_THOUSANDS.fullmatch, with_points))
    if column.table.has_decimal_commas and may_be_thousands:
        value = f"{read_number(with_points[0]):g}"
        yield f"{with_points[0]!r} is read as {value}: if points separate thousands, write numbers without them"


def _doubts_about_separators(normalized: Sequence[str]) -> Iterator[str]:
    """Describe a second separator, whose names are also labels in other rows."""
    names = sorted({name for label in normalized for name in split_names(label, LABEL_SEPARATOR)})
    if separator := find_separator(names):
        name = next(name for name in names if len(split_names(name, separator)) > 1)
        found = f"labels such as {quoted(name)} look like several labels separated by {separator!r}"
        yield f"{found}, and others have another separator: if they are, separate all by ';'"


def _doubts(column: Column, task: Task, normalized: Sequence[str]) -> Iterator[str]:
    """Describe which other task the labels may mean, in sentences."""
    if length := ambiguous_peptide_length(column):
        found = f"the labels have as many letters as the sequences have residues ({length}), and were read as"
        if task.per_residue:
            yield f"{found} one letter per residue: if they are names or numbers, pass --task classification"
        else:
            yield f"{found} names or numbers: if each letter labels a residue, pass --task residue-classification"
    if task.label_kind == "value":
        yield from _doubts_about_values(column, task)
        yield from _doubts_about_points(column)
    is_named = task.name == "classification" and not are_numbers(column.known_labels)
    if is_named and (separator := suspect_separator(column.known_labels)):
        label = next(label for label in column.known_labels if len(split_names(label, separator)) > 1)
        found = f"labels such as {quoted(label)} look like several labels separated by {separator!r}"
        yield f"{found}: if they are, pass --label-separator {separator!r}"
    if task.label_kind != "labels":
        return
    yield from _doubts_about_separators(normalized)
    if column.lists and all(label and LABEL_SEPARATOR not in label for label in normalized):
        yield "each protein has exactly one label: if these are classes, write the name of its class in each row"


# The whole column


@dataclass(frozen=True, kw_only=True)
class InferredLabels:
    """A column of labels and the task inferred from it.

    Attributes:
        labels: The table with normalized labels and masks.
        reading: Sentence that shows how three cells were read.
        warnings: Doubts about the inference, in sentences that name the option to use.
    """

    labels: LabelledTable
    task: Task
    reading: str
    warnings: Sequence[str]


def infer_labels(labels: LabelledTable, choice: TaskChoice = "auto", separator: str | None = None) -> InferredLabels:
    """Infer the task from the labels of a table, and normalize the labels.

    Args:
        labels: Table as it was read.
        choice: Task that the user named, or `auto`.
        separator: Separator of several labels of a protein; None if the user named none.

    Raises:
        TableError: The labels can be read in several ways, or not at all.
    """
    column = Column(read_decimal_commas(labels, choice, separator))
    task = _infer_task(column, choice, separator)
    is_chosen = choice != "auto" or separator is not None
    normalized = _normalize(column, task, separator, is_chosen=is_chosen)
    proteins = [
        replace(protein, label=normalized.get(protein.label, ""), mask=protein.mask and normalize_mask(protein.mask))
        for protein in column.proteins
    ]
    return InferredLabels(
        labels=replace(column.table, proteins=proteins),
        task=task,
        reading=_describe_reading(labels.proteins, proteins, task),
        warnings=[] if is_chosen else list(_doubts(column, task, [protein.label for protein in proteins])),
    )
