"""Targets: labels as numbers, of proteins or of residues. No torch."""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protembed.config.common import UNKNOWN_CLASS, Region, Task
from protembed.data.fasta import OnIllegal, ReadStatistics
from protembed.data.windows import CHOOSE_ANOTHER_REGION
from protembed.errors import MissingCellError, TableError, TooShortError
from protembed.finetuning.label_cells import (
    MAX_MISFIT,
    MIN_FRACTION_ALIKE,
    UNLABELLED_ENTRIES,
    annotated_number,
    class_sort_key,
    is_blank_coil,
    looks_like_number,
    quoted,
    residue_entries,
    split_names,
    unusual_number,
)
from protembed.finetuning.labels import LabelledProtein, LabelledTable, SplitTable
from protembed.finetuning.split_names import Split
from protembed.io.faults import Faults
from protembed.io.tables import LABEL_SEPARATOR, is_stand_in, read_number

# Smaller standard deviations than these, relative to the values and absolute, are lost in float32.
_MIN_RELATIVE_SPREAD, _MIN_SPREAD = 1e-5, 1e-30
_ADVICE_ON_MANY_CLASSES = (
    "pass `task` classification if they are classes nonetheless, `task` residue-classification if they label residues, "
    "or name another column with `target`"
)

# The target of a protein: its class, (), int64; its labels as zeros and ones, (labels,), float32; or its value, (),
# float64. If residues have labels: their classes, (residues,), int64; or their values, (residues,), float64.
Target = NDArray[Any]
# What is predicted for a target: probabilities, (classes,) or (labels,), or a value, (); with a first dimension of
# residues where each has a label.
Prediction = NDArray[Any]


def label_set(protein: LabelledProtein, task: Task) -> set[str]:
    """Return the classes or labels of a protein or its residues; an empty set if they are values."""
    if task.label_kind == "value":
        return set()
    if task.per_residue:
        entries, flags = residue_entries(protein.label), residue_entries(protein.mask or "")
        unmasked = [entry for entry, flag in zip_longest(entries, flags) if entry and flag != "0"]
        return {entry for entry in unmasked if entry.lower() not in UNLABELLED_ENTRIES}
    return set(split_names(protein.label, LABEL_SEPARATOR)) if task.label_kind == "labels" else {protein.label}


def class_counts(proteins: Iterable[LabelledProtein], task: Task) -> Counter[str]:
    """Count the proteins that have each class or label, or a residue of it."""
    return Counter(name for protein in proteins for name in label_set(protein, task))


def has_target(target: Target) -> NDArray[np.bool_]:
    """Return which residues of a protein have a known target, (residues,), bool."""
    return np.asarray(~np.isnan(target) if np.issubdtype(target.dtype, np.floating) else target != UNKNOWN_CLASS)


# Classes


def _unlabelled_split_error(path: str, split: Split) -> TableError:
    return TableError(path, f"no residue of the {split} split has a label", "check the mask")


def _misses_length(protein: LabelledProtein) -> bool:
    """Return whether a label has a few entries more or fewer than residues, as when only one includes a stop codon."""
    return 0 < abs(len(residue_entries(protein.label)) - len(protein.sequence)) <= MAX_MISFIT


def _many_classes_error(path: str, train: Sequence[LabelledProtein], names: Collection[str]) -> TableError:
    """Make the error about nearly as many classes as proteins, and describe what the labels seem to be instead."""
    example, seems, advice = min(names), "", ""
    numbers = {name: kind for name in sorted(names) if (kind := annotated_number(name))}
    if numbers and len(numbers) + sum(map(looks_like_number, names)) >= MIN_FRACTION_ALIKE * len(names):
        example, seems = next(iter(numbers.items()))
        advice = "write plain numbers if they are values, "
    elif sum(map(is_blank_coil, names)) >= MIN_FRACTION_ALIKE * len(names):
        seems, advice = "a secondary structure with blanks", "write a letter such as C for each residue without any, "
    elif sum(map(_misses_length, train)) >= MIN_FRACTION_ALIKE * len(train):
        protein = min(train, key=lambda protein: protein.label)
        seems = f"which has {len(residue_entries(protein.label))} entries for {len(protein.sequence)} residues"
    found = f"{len(train)} training proteins have {len(names)} different labels, such as {quoted(example)}"
    return TableError(path, found + (f", {seems}" if seems else ""), advice + _ADVICE_ON_MANY_CLASSES)


def _class_names(table: SplitTable, task: Task, faults: Faults, *, allows_rare: bool) -> tuple[str, ...]:
    """List the classes of the training split, numbers by size and names alphabetically."""
    train = table.splits["train"]
    known = set(class_counts(train, task))
    if task.per_residue and not known:
        raise _unlabelled_split_error(table.path, "train")
    min_classes = 1 if task.label_kind == "labels" else 2
    if len(known) < min_classes:
        found = f"all training labels are {next(iter(known), '')!r}"
        raise TableError(table.path, found, "a task needs at least two classes")
    if task.name == "classification" and len(known) > max(min_classes, len(train) / 2) and not allows_rare:
        raise _many_classes_error(table.path, train, known)
    for split, proteins in table.splits.items():
        for protein in proteins:
            if unseen := label_set(protein, task) - known:
                found = f"the {split} protein {protein.id!r} has the class {quoted(min(unseen))}"
                advice = "add training proteins of that class, or remove this protein"
                faults.add(TableError(table.path, f"{found}, which no training protein has", advice, line=protein.line))
    return tuple(sorted(known, key=class_sort_key))


# Targets


def _read_mask(table: SplitTable | LabelledTable, protein: LabelledProtein) -> NDArray[np.bool_]:
    if not protein.mask:
        return np.ones(len(protein.sequence), np.bool_)
    flags = residue_entries(protein.mask)
    if len(flags) != len(protein.sequence):
        found = f"has a mask of {len(flags)} for {len(protein.sequence)} residues"
        raise table.row_error(protein, found, "give each residue 1 (takes part) or 0")
    if not set(flags) <= {"0", "1"}:
        found = f"has {quoted(min(set(flags) - {'0', '1'}))} in its mask"
        raise table.row_error(protein, found, "1 (takes part) or 0 is expected for each residue")
    return np.array([flag == "1" for flag in flags])


def _why_not_a_number(text: str) -> str:
    if kind := unusual_number(text):
        return f"a number with {kind}"
    if kind := annotated_number(text):
        return kind
    return "which seems to stand for a missing one" if is_stand_in(text) else "which is not a finite number up to 1e18"


def _residue_target(
    table: SplitTable | LabelledTable, protein: LabelledProtein, task: Task, numbers: Mapping[str, int]
) -> Target:
    entries, num_residues = residue_entries(protein.label), len(protein.sequence)
    if len(entries) != num_residues:
        found = f"has {len(entries)} labels for {num_residues} residues"
        raise table.row_error(protein, found, "give each residue one, as letters or separated by ; or spaces")
    takes_part = _read_mask(table, protein)
    if task.label_kind == "class":
        # Entries that only masked residues have are no classes.
        classes = np.array([numbers.get(entry, UNKNOWN_CLASS) for entry in entries], np.int64)
        return np.where(takes_part, classes, UNKNOWN_CLASS)
    values = np.array(
        [math.nan if entry.lower() in UNLABELLED_ENTRIES else read_number(entry) for entry in entries], dtype=object
    )
    for entry, value, position in zip(entries, values, range(1, num_residues + 1), strict=True):
        if value is None:
            found = f"has the label {quoted(entry)} at residue {position}, {_why_not_a_number(entry)}"
            raise table.row_error(protein, found, "correct it, or write nan if it is unknown")
    return np.where(takes_part, values.astype(np.float64), math.nan)


def _target(
    table: SplitTable | LabelledTable, protein: LabelledProtein, task: Task, numbers: Mapping[str, int]
) -> Target:
    if task.per_residue:
        return _residue_target(table, protein, task, numbers)
    if task.label_kind == "labels":
        target = np.zeros(len(numbers), np.float32)
        target[[numbers[name] for name in label_set(protein, task)]] = 1.0
        return target
    if task.label_kind == "class":
        return np.array(numbers[protein.label])
    value = read_number(protein.label)
    if value is None:
        found = f"has the label {quoted(protein.label)}, {_why_not_a_number(protein.label)}"
        raise table.row_error(protein, found, "correct it, or pass `task` classification")
    return np.array(value)


def _check_labelled(table: SplitTable | LabelledTable, protein: LabelledProtein, task: Task) -> None:
    if not protein.label and task.label_kind != "labels":
        raise MissingCellError(table.path, protein.line, protein.id, "label")


def check_labels(table: LabelledTable, task: Task, faults: Faults) -> None:
    """Collect what is wrong with the labels of single rows, whatever the classes are."""
    for protein in table.proteins:
        with faults.collecting():
            _check_labelled(table, protein, task)
            if task.per_residue or task.label_kind == "value":
                _target(table, protein, task, {})


@dataclass(frozen=True, kw_only=True)
class TaskTable(SplitTable):
    """A split table whose labels are numbers: the targets of a task.

    Attributes:
        classes: Names of the classes or labels; None for values.
    """

    task: Task
    classes: tuple[str, ...] | None
    targets: Mapping[Split, Sequence[Target]]

    @classmethod
    def from_table(cls, table: SplitTable, task: Task, *, allows_rare: bool = False) -> "TaskTable":
        """Read the labels of a table.

        Args:
            table: Table with labels normalized by `label_inference`.
            task: Task of the labels.
            allows_rare: Whether nearly every protein may have another class, because the user named the task.

        Raises:
            TableError: The labels do not fit the task.
        """
        with Faults() as unlabelled:
            for protein in table.proteins:
                with unlabelled.collecting():
                    _check_labelled(table, protein, task)
        with Faults() as faults:
            has_classes = task.label_kind != "value"
            classes = _class_names(table, task, faults, allows_rare=allows_rare) if has_classes else None
        numbers = {name: number for number, name in enumerate(classes or ())}
        targets: dict[Split, list[Target]] = {split: [] for split in table.splits}
        with Faults() as faults:
            for split, proteins in table.splits.items():
                for protein in proteins:
                    with faults.collecting():
                        targets[split].append(_target(table, protein, task, numbers))
        read = cls(**vars(table), task=task, classes=classes, targets=targets)
        read._check_learnable()
        return read

    @property
    def num_classes(self) -> int:
        """Number of classes or labels; 0 for values."""
        return len(self.classes or ())

    def known_targets(self, split: Split) -> NDArray[Any]:
        """Join the known targets of a split: (proteins,), (proteins, labels), or (residues,) of all its proteins."""
        if not self.task.per_residue:
            return np.stack(self.targets[split])
        return np.concatenate([target[has_target(target)] for target in self.targets[split]])

    def _check_learnable(self) -> None:
        for split, proteins in self.splits.items():
            if proteins and not len(self.known_targets(split)):
                raise _unlabelled_split_error(self.path, split)
        if self.task.label_kind != "value":
            return
        known = self.known_targets("train")
        if len(np.unique(known)) == 1:
            raise TableError(self.path, f"all training labels are {known[0]:g}", "there is nothing to learn")
        if known.std() < max(_MIN_RELATIVE_SPREAD * np.abs(known).max(), _MIN_SPREAD):
            found = f"the training labels differ by only {known.std():.3g}, around {known.mean():.6g}"
            advice = "subtract their mean, or scale them, because models compute in float32"
            raise TableError(self.path, found, advice)


# Regions


def _cut_entries(table: LabelledTable, protein: LabelledProtein, name: str, text: str, residues: slice) -> str:
    entries = residue_entries(text)
    if len(entries) != len(protein.sequence):
        found = f"has a {name} of {len(entries)} for {len(protein.sequence)} residues"
        raise table.row_error(protein, found, "give each residue one")
    # Without the final separator, a single entry of several letters would be read as one entry per letter.
    is_letters = len(text) == len(entries)
    return "".join(entries[residues]) if is_letters else LABEL_SEPARATOR.join([*entries[residues], ""])


def cut_table(
    table: LabelledTable, region: Region | None, task: Task, on_illegal: OnIllegal, statistics: ReadStatistics
) -> LabelledTable:
    """Cut each protein of a labelled table to a region, and so the labels and the mask of its residues.

    Raises:
        TooShortError: A protein ends before the region begins, and `on_illegal` is not `skip`, which leaves it out and
            lists it in `statistics`.
        FormatError: Every protein was skipped.
        TableError: A protein has more or fewer labels, or entries of its mask, than residues.
    """
    if region is None:
        return table
    proteins = list[LabelledProtein]()
    for protein in table.proteins:
        num_residues = len(protein.sequence)
        residues = region.within(num_residues)
        if residues is None:
            error = TooShortError(table.path, protein.line, protein.id, num_residues, region.first)
            statistics.skip_or_raise(protein.id, error, on_illegal)
        else:
            of_residues: dict[str, Any] = {"label": protein.label, "mask": protein.mask} if task.per_residue else {}
            for name, text in of_residues.items():
                of_residues[name] = text and _cut_entries(table, protein, name, text, residues)
            proteins.append(replace(protein, sequence=protein.sequence[residues], **of_residues))
    if not proteins:
        statistics.check_not_all_skipped(CHOOSE_ANOTHER_REGION)
    return replace(table, proteins=proteins)
