"""What the labels of a table mean: which task they are, and their numbers."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from protembed.config.finetune import TaskChoice
from protembed.config.task import TASKS, Task
from protembed.data.labels import LabelledProtein, LabelTable, Split
from protembed.errors import TableError

# A residue without a class; one without a value is NaN.
UNKNOWN_CLASS = -1

_SEPARATOR = ";"
_MISSING = ("", "nan", "na")
# Whole numbers are taken for classes as long as there are no more of them than this.
_MAX_NUMBERED_CLASSES = 20
# Where so many of the labels are alike, as long as their sequences or numbers, the others are mistakes.
_SHARE_ALIKE = 0.9
# One value, however many residues a peptide has.
_DECIMAL = re.compile(r"[+-]?\d*\.\d+(e[+-]?\d+)?", re.IGNORECASE)
# What float32 can hold, with room for sums of squares; how little of a value it can tell from another; and from zero.
_LARGEST_VALUE, _LEAST_SPREAD, _SMALLEST_SPREAD = 1e18, 1e-5, 1e-30
# Shorter proteins say nothing: `1.5` is as long as MKT.
_MIN_RESIDUES = 5

# (), int64: a class. (labels,), float32: zeros and ones. (), float64: a value. (residues,), int64 or float64.
Answer = NDArray[Any]


def choose_task(proteins: Sequence[LabelledProtein], choice: TaskChoice) -> Task:
    """Tell the task from the labels, unless it was chosen.

    Labels with an entry for each residue are residues' classes or values; labels divided by `;` are several; numbers
    are values unless they are few whole ones.
    """
    if choice != "auto":
        return TASKS[choice]
    labels = {protein.label for protein in proteins if protein.label}
    if _are_per_residue(proteins):
        entries = {entry for protein in proteins for entry in _entries(protein.label) if entry.lower() not in _MISSING}
        return TASKS["residue-regression" if _are_values(entries) else "residue-classification"]
    if any(_SEPARATOR in label for label in labels):
        return TASKS["multilabel"]
    return TASKS["regression" if _are_values(labels) else "classification"]


@dataclass(frozen=True, kw_only=True)
class Targets:
    """The labels of a table as numbers.

    Attributes:
        task: what they are.
        classes: their names; None for values.
        of_split: the answer of each protein of each split.
    """

    task: Task
    classes: tuple[str, ...] | None
    of_split: Mapping[Split, Sequence[Answer]]

    @classmethod
    def of(cls, table: LabelTable, task: Task) -> "Targets":
        """Read the labels of a table.

        Raises:
            TableError: they make no sense as this task.
        """
        classes = None if task.answer == "value" else _class_names(table, task)
        numbers = {name: number for number, name in enumerate(classes or ())}
        of_split = {
            split: [_answer(table.path, protein, task, numbers) for protein in part]
            for split, part in table.parts.items()
        }
        targets = cls(task=task, classes=classes, of_split=of_split)
        targets._refuse_nothing_to_learn(table)
        return targets

    def known(self, split: Split) -> NDArray[Any]:
        """Join what is known of a part: (proteins,), (proteins, labels), or the (residues,) of all its proteins."""
        return known_answers(self.of_split[split], self.task)

    def _refuse_nothing_to_learn(self, table: LabelTable) -> None:
        for split, part in table.parts.items():
            if part and not len(self.known(split)):
                raise TableError(table.path, f"no residue of the {split} part has a label", "look at its mask")
        known = self.known("train")
        if self.task.answer != "value":
            return
        if len(np.unique(known)) == 1:
            found = f"all training labels are {known[0]:g}"
            raise TableError(table.path, found, "there is nothing to learn")
        if known.std() < max(_LEAST_SPREAD * np.abs(known).max(), _SMALLEST_SPREAD):
            found = f"the training labels differ by {known.std():.3g} only, around {known.mean():.6g}"
            raise TableError(
                table.path, found, "subtract what they have in common, or scale them: models compute in float32"
            )


def known_answers(answers: Sequence[Answer], task: Task) -> NDArray[Any]:
    """Join the answers of some proteins, without those that nobody knows; see `Targets.known`."""
    if not task.per_residue:
        return np.stack(answers)
    return np.concatenate([answer[is_known(answer)] for answer in answers])


def is_known(answer: Answer) -> NDArray[np.bool_]:
    """Tell which residues of a protein have an answer, (residues,)."""
    return np.asarray(~np.isnan(answer) if np.issubdtype(answer.dtype, np.floating) else answer != UNKNOWN_CLASS)


def classes_in(protein: LabelledProtein, task: Task) -> set[str]:
    """List the classes or labels that a protein has; none where the answers are values."""
    if task.answer == "value":
        return set()
    if task.per_residue:
        entries, flags = _entries(protein.label), _entries(protein.mask or "")
        shown = [entry for entry, flag in zip_longest(entries, flags) if entry and flag != "0"]
        return {entry for entry in shown if entry.lower() not in _MISSING}
    return {name for name in _names(protein.label) if name} if task.answer == "labels" else {protein.label}


def _names(label: str) -> list[str]:
    return [name.strip() for name in label.split(_SEPARATOR)]


def _entries(label: str) -> list[str]:
    """Divide a label into one entry for each residue: at `;`, else at spaces, else letter by letter."""
    if _SEPARATOR in label:
        return [entry.strip() for entry in label.removesuffix(_SEPARATOR).split(_SEPARATOR)]
    return label.split() if re.search(r"\s", label) else list(label)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) <= _LARGEST_VALUE else None


# Which task


def _are_per_residue(proteins: Sequence[LabelledProtein]) -> bool:
    long_enough = [protein for protein in proteins if len(protein.sequence) >= _MIN_RESIDUES]
    num_alike = sum(
        len(_entries(protein.label)) == len(protein.sequence) and not _DECIMAL.fullmatch(protein.label)
        for protein in long_enough
    )
    return bool(long_enough) and num_alike >= _SHARE_ALIKE * len(long_enough)


def _are_values(labels: set[str]) -> bool:
    numbers = [label for label in labels if _number(label) is not None]
    if not numbers or len(numbers) < _SHARE_ALIKE * len(labels):
        return False
    return len(numbers) > _MAX_NUMBERED_CLASSES or not all(re.fullmatch(r"[+-]?\d+", label) for label in numbers)


# Classes


def _class_names(table: LabelTable, task: Task) -> tuple[str, ...]:
    """List the classes of the training part, numbers by size and names by letter."""
    train = table.parts["train"]
    _refuse_unlabelled(table, task)
    known = set[str]().union(*(classes_in(protein, task) for protein in train))
    if task.per_residue and not known:
        raise TableError(table.path, "no residue of the train part has a label", "look at its mask")
    fewest = 1 if task.answer == "labels" else 2
    if len(known) < fewest:
        found = f"all training labels are {next(iter(known), '')!r}"
        raise TableError(table.path, found, "a task needs at least two classes")
    if task.name == "classification" and len(known) > max(fewest, len(train) / 2):
        found = f"{len(train)} training proteins have {len(known)} different labels, such as {min(known)[:40]!r}"
        raise TableError(table.path, found, "name the column of their classes by --target")
    for split, part in table.parts.items():
        for protein in part:
            if unseen := classes_in(protein, task) - known:
                found = (
                    f"the {split} protein {protein.id!r} has the class {min(unseen)[:40]!r}, which none in train has"
                )
                raise TableError(table.path, found, "add some there, or remove it", line=protein.line)
    return tuple(sorted(known, key=lambda name: (_number(name) is None, _number(name) or 0.0, name)))


def _refuse_unlabelled(table: LabelTable, task: Task) -> None:
    for protein in table.proteins:
        if not protein.label and task.answer != "labels":
            _refuse(table.path, protein, "has no label", "label or remove it")


# Answers


def _answer(path: str, protein: LabelledProtein, task: Task, numbers: Mapping[str, int]) -> Answer:
    if task.per_residue:
        return _residue_answers(path, protein, task, numbers)
    if task.answer == "labels":
        answer = np.zeros(len(numbers), np.float32)
        answer[[numbers[name] for name in classes_in(protein, task)]] = 1.0
        return answer
    if task.answer == "class":
        return np.array(numbers[protein.label])
    if not protein.label:
        _refuse(path, protein, "has no label", "label or remove it")
    value = _number(protein.label)
    if value is None:
        found = f"has the label {protein.label[:40]!r}, which is no finite number up to 1e18"
        _refuse(path, protein, found, "correct it, or pass --task classification")
    return np.array(value)


def _residue_answers(path: str, protein: LabelledProtein, task: Task, numbers: Mapping[str, int]) -> Answer:
    entries, num_residues = _entries(protein.label), len(protein.sequence)
    if len(entries) != num_residues:
        found = f"has {len(entries)} labels for {num_residues} residues"
        _refuse(path, protein, found, "give each residue one, as letters or divided by ; or spaces")
    takes_part = _read_mask(path, protein)
    if task.answer == "class":
        # What stands under a mask alone is no class.
        classes = np.array([numbers.get(entry, UNKNOWN_CLASS) for entry in entries], np.int64)
        return np.where(takes_part, classes, UNKNOWN_CLASS)
    values = np.array([math.nan if entry.lower() in _MISSING else _number(entry) for entry in entries], dtype=object)
    for place, value in enumerate(values):
        if value is None:
            found = (
                f"has the label {entries[place][:40]!r} at residue {place + 1}, which is no finite number up to 1e18"
            )
            _refuse(path, protein, found, "correct it, or write nan where none is known")
    return np.where(takes_part, values.astype(np.float64), math.nan)


def _read_mask(path: str, protein: LabelledProtein) -> NDArray[np.bool_]:
    if not protein.mask:
        return np.ones(len(protein.sequence), np.bool_)
    flags = _entries(protein.mask)
    if len(flags) != len(protein.sequence):
        found = f"has a mask of {len(flags)} for {len(protein.sequence)} residues"
        _refuse(path, protein, found, "give each residue 1 (takes part) or 0")
    if not set(flags) <= {"0", "1"}:
        found = f"has {min(set(flags) - {'0', '1'})[:40]!r} in its mask"
        _refuse(path, protein, found, "1 (takes part) or 0 is expected for each residue")
    return np.array([flag == "1" for flag in flags])


def _refuse(path: str, protein: LabelledProtein, found: str, advice: str) -> NoReturn:
    raise TableError(path, f"row {protein.id!r} {found}", advice, line=protein.line)
