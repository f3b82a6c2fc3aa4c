"""The labels of a table as numbers: classes, several labels, or values, of proteins or of their residues."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any, Literal, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray

from protembed.config.common import MICRO_BATCH_TOKENS, Region, Task
from protembed.data.batching import UNKNOWN_CLASS, LabelledBatch, Tokens, concatenate, make_crop, split_by_budget
from protembed.data.fasta import OnIllegal, ReadStatistics, check_not_all_skipped
from protembed.data.sampling import EpochSampler, UniformSampler
from protembed.data.windows import CHOOSE_ANOTHER_REGION, Span, skip_short, window_spans
from protembed.errors import TableError, TooShortError
from protembed.finetuning.label_cells import (
    FRACTION_ALIKE,
    MAX_MISFIT,
    SEVERAL,
    UNLABELLED_ENTRIES,
    class_order,
    divide_names,
    is_blank_coil,
    looks_like_number,
    number_and_more,
    read_number,
    residue_entries,
    unusual_number,
)
from protembed.finetuning.labels import LabelledProtein, LabelledTable, Split, SplitTable
from protembed.io.tables import is_stand_in

# How little of a value float32 can tell from another; and from zero.
_LEAST_SPREAD, _SMALLEST_SPREAD = 1e-5, 1e-30

_MAX_LETTERS = 40  # of a label, in messages
_ADVICE_ON_MANY_CLASSES = (
    "pass --task classification if they are classes nonetheless, --task residue-classification if they label residues, "
    "or name another column by --target"
)

# (), int64: a class. (labels,), float32: zeros and ones. (), float64: a value. (residues,), int64 or float64.
Target = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Targets:
    """The labels of a table as numbers.

    Attributes:
        task: what they are.
        classes: their names; None for values.
        by_split: the answer of each protein of each split.
    """

    task: Task
    classes: tuple[str, ...] | None
    by_split: Mapping[Split, Sequence[Target]]

    @classmethod
    def from_table(cls, table: SplitTable, task: Task, *, allows_rare: bool = False) -> "Targets":
        """Read the labels of a table.

        Args:
            table: The labels, in the spelling of `label_inference`.
            task: The task that they pose.
            allows_rare: Whether a protein may have a class nearly of its own, because the user named the task.

        Raises:
            TableError: they make no sense as this task.
        """
        classes = None if task.label_kind == "value" else _class_names(table, task, allows_rare=allows_rare)
        numbers = {name: number for number, name in enumerate(classes or ())}
        by_split = {
            split: [_answer(table.path, protein, task, numbers) for protein in part]
            for split, part in table.splits.items()
        }
        targets = cls(task=task, classes=classes, by_split=by_split)
        targets._check_learnable(table)
        return targets

    def known_targets(self, split: Split) -> NDArray[Any]:
        """Join what is known of a part: (proteins,), (proteins, labels), or the (residues,) of all its proteins."""
        return known_answers(self.by_split[split], self.task)

    def _check_learnable(self, table: SplitTable) -> None:
        for split, part in table.splits.items():
            if part and not len(self.known_targets(split)):
                raise TableError(table.path, f"no residue of the {split} part has a label", "look at its mask")
        known = self.known_targets("train")
        if self.task.label_kind != "value":
            return
        if len(np.unique(known)) == 1:
            found = f"all training labels are {known[0]:g}"
            raise TableError(table.path, found, "there is nothing to learn")
        if known.std() < max(_LEAST_SPREAD * np.abs(known).max(), _SMALLEST_SPREAD):
            found = f"the training labels differ by {known.std():.3g} only, around {known.mean():.6g}"
            raise TableError(
                table.path, found, "subtract what they have in common, or scale them: models compute in float32"
            )


def known_answers(answers: Sequence[Target], task: Task) -> NDArray[Any]:
    """Join the answers of some proteins, without those that nobody knows; see `Targets.known`."""
    if not task.per_residue:
        return np.stack(answers)
    return np.concatenate([answer[has_target(answer)] for answer in answers])


def has_target(answer: Target) -> NDArray[np.bool_]:
    """Tell which residues of a protein have an answer, (residues,)."""
    return np.asarray(~np.isnan(answer) if np.issubdtype(answer.dtype, np.floating) else answer != UNKNOWN_CLASS)


def label_set(protein: LabelledProtein, task: Task) -> set[str]:
    """List the classes or labels that a protein has; none where the answers are values."""
    if task.label_kind == "value":
        return set()
    if task.per_residue:
        entries, flags = residue_entries(protein.label), residue_entries(protein.mask or "")
        shown = [entry for entry, flag in zip_longest(entries, flags) if entry and flag != "0"]
        return {entry for entry in shown if entry.lower() not in UNLABELLED_ENTRIES}
    return set(divide_names(protein.label, SEVERAL)) if task.label_kind == "labels" else {protein.label}


# Classes


def _class_names(table: SplitTable, task: Task, *, allows_rare: bool) -> tuple[str, ...]:
    """List the classes of the training part, numbers by size and names by letter."""
    train = table.splits["train"]
    _check_labelled(table, task)
    known = set[str]().union(*(label_set(protein, task) for protein in train))
    if task.per_residue and not known:
        raise TableError(table.path, "no residue of the train part has a label", "look at its mask")
    fewest = 1 if task.label_kind == "labels" else 2
    if len(known) < fewest:
        found = f"all training labels are {next(iter(known), '')!r}"
        raise TableError(table.path, found, "a task needs at least two classes")
    if task.name == "classification" and len(known) > max(fewest, len(train) / 2) and not allows_rare:
        raise _many_classes_error(table.path, train, known)
    for split, part in table.splits.items():
        for protein in part:
            if unseen := label_set(protein, task) - known:
                found = (
                    f"the {split} protein {protein.id!r} has the class {min(unseen)[:40]!r}, which none in train has"
                )
                raise TableError(table.path, found, "add some there, or remove it", line=protein.line)
    return tuple(sorted(known, key=class_order))


def _many_classes_error(path: str, train: Sequence[LabelledProtein], names: Collection[str]) -> TableError:
    """Make the error about classes of nearly one protein each, and say so where they seem to be something else."""
    example, seems, advice = min(names), "", ""
    numbers = {name: kind for name in sorted(names) if (kind := number_and_more(name))}
    if numbers and len(numbers) + sum(map(looks_like_number, names)) >= FRACTION_ALIKE * len(names):
        example, seems = next(iter(numbers.items()))
        advice = "write plain numbers if they are values, "
    elif sum(map(is_blank_coil, names)) >= FRACTION_ALIKE * len(names):
        seems, advice = "a secondary structure with blanks", "write a letter such as C for each residue without any, "
    elif sum(map(_misses_length, train)) >= FRACTION_ALIKE * len(train):
        protein = min(train, key=lambda protein: protein.label)
        seems = f"which has {len(residue_entries(protein.label))} entries for {len(protein.sequence)} residues"
    found = f"{len(train)} training proteins have {len(names)} different labels, such as {example[:_MAX_LETTERS]!r}"
    return TableError(path, found + (f", {seems}" if seems else ""), advice + _ADVICE_ON_MANY_CLASSES)


def _misses_length(protein: LabelledProtein) -> bool:
    """Tell whether a label has a few entries more or less than residues, as where one of the two has a stop."""
    return 0 < abs(len(residue_entries(protein.label)) - len(protein.sequence)) <= MAX_MISFIT


def _check_labelled(table: SplitTable, task: Task) -> None:
    for protein in table.proteins:
        if not protein.label and task.label_kind != "labels":
            _refuse(table.path, protein, "has no label", "label or remove it")


# Answers


def _answer(path: str, protein: LabelledProtein, task: Task, numbers: Mapping[str, int]) -> Target:
    if task.per_residue:
        return _residue_answers(path, protein, task, numbers)
    if task.label_kind == "labels":
        answer = np.zeros(len(numbers), np.float32)
        answer[[numbers[name] for name in label_set(protein, task)]] = 1.0
        return answer
    if task.label_kind == "class":
        return np.array(numbers[protein.label])
    if not protein.label:
        _refuse(path, protein, "has no label", "label or remove it")
    value = read_number(protein.label)
    if value is None:
        found = f"has the label {protein.label[:40]!r}, {_no_number(protein.label)}"
        _refuse(path, protein, found, "correct it, or pass --task classification")
    return np.array(value)


def _no_number(text: str) -> str:
    """Say why a label is no value."""
    if kind := unusual_number(text):
        return f"a number with {kind}"
    if kind := number_and_more(text):
        return kind
    return "which seems to stand for a missing one" if is_stand_in(text) else "which is no finite number up to 1e18"


def _residue_answers(path: str, protein: LabelledProtein, task: Task, numbers: Mapping[str, int]) -> Target:
    entries, num_residues = residue_entries(protein.label), len(protein.sequence)
    if len(entries) != num_residues:
        found = f"has {len(entries)} labels for {num_residues} residues"
        _refuse(path, protein, found, "give each residue one, as letters or divided by ; or spaces")
    takes_part = _read_mask(path, protein)
    if task.label_kind == "class":
        # What stands under a mask alone is no class.
        classes = np.array([numbers.get(entry, UNKNOWN_CLASS) for entry in entries], np.int64)
        return np.where(takes_part, classes, UNKNOWN_CLASS)
    values = np.array(
        [math.nan if entry.lower() in UNLABELLED_ENTRIES else read_number(entry) for entry in entries], dtype=object
    )
    for place, value in enumerate(values):
        if value is None:
            found = f"has the label {entries[place][:40]!r} at residue {place + 1}, {_no_number(entries[place])}"
            _refuse(path, protein, found, "correct it, or write nan where none is known")
    return np.where(takes_part, values.astype(np.float64), math.nan)


def cut_labels(path: str, protein: LabelledProtein, part: slice) -> LabelledProtein:
    """Cut a protein whose residues have labels, and its labels and mask alike.

    Raises:
        TableError: There are not as many labels, or entries of the mask, as residues.
    """
    label, mask = _cut(path, protein, "label", part), _cut(path, protein, "mask", part)
    return replace(protein, sequence=protein.sequence[part], label=label, mask=mask if protein.mask else protein.mask)


def _cut(path: str, protein: LabelledProtein, name: Literal["label", "mask"], part: slice) -> str:
    text: str = getattr(protein, name) or ""
    entries = residue_entries(text)
    if text and len(entries) != len(protein.sequence):
        found = f"has a {name} of {len(entries)} for {len(protein.sequence)} residues"
        _refuse(path, protein, found, "give each residue one")
    # The last separator tells one entry of several letters from an entry for each letter.
    return "".join(entries[part]) if len(text) == len(entries) else SEVERAL.join([*entries[part], ""])


def _read_mask(path: str, protein: LabelledProtein) -> NDArray[np.bool_]:
    if not protein.mask:
        return np.ones(len(protein.sequence), np.bool_)
    flags = residue_entries(protein.mask)
    if len(flags) != len(protein.sequence):
        found = f"has a mask of {len(flags)} for {len(protein.sequence)} residues"
        _refuse(path, protein, found, "give each residue 1 (takes part) or 0")
    if not set(flags) <= {"0", "1"}:
        found = f"has {min(set(flags) - {'0', '1'})[:40]!r} in its mask"
        _refuse(path, protein, found, "1 (takes part) or 0 is expected for each residue")
    return np.array([flag == "1" for flag in flags])


def _refuse(path: str, protein: LabelledProtein, found: str, advice: str) -> NoReturn:
    raise TableError(path, f"row {protein.id!r} {found}", advice, line=protein.line)


def cut_table(
    table: LabelledTable, region: Region | None, task: Task, on_illegal: OnIllegal, statistics: ReadStatistics
) -> LabelledTable:
    """Cut each protein of a labelled table to a region, with the labels and the mask of its residues.

    Args:
        table: The proteins.
        region: Which residues; None is the whole protein.
        task: What the labels are; only where each residue has one are they cut.
        on_illegal: As for `cut_records`.
        statistics: As for `cut_records`.

    Raises:
        TooShortError, FormatError: As for `cut_records`.
        TableError: Labels or masks are not as many as residues.
    """
    if region is None:
        return table
    kept = list[LabelledProtein]()
    for protein in table.proteins:
        num_residues = len(protein.sequence)
        part = region.within(num_residues)
        if part is None:
            error = TooShortError(table.path, protein.line, protein.id, num_residues, region.first)
            skip_short(error, on_illegal, statistics)
        elif task.per_residue:
            kept.append(cut_labels(table.path, protein, part))
        else:
            kept.append(replace(protein, sequence=protein.sequence[part]))
    if not kept:
        check_not_all_skipped(statistics, CHOOSE_ANOTHER_REGION)
    return replace(table, proteins=kept)


@dataclass(frozen=True, kw_only=True)
class LabelledDataset:
    """What a task is learned from.

    Attributes:
        residues: of each protein, (residues,), uint8.
        targets: of each protein; see `protembed.finetuning.targets`.
        task: what the answers are.
        window_residues: longer proteins are cut into windows of this length.
        micro_batch_tokens: the most tokens of a micro-batch; only one protein alone can exceed it.
    """

    residues: Sequence[Tokens]
    targets: Sequence[Target]
    task: Task
    window_residues: int
    micro_batch_tokens: int = MICRO_BATCH_TOKENS

    def spans(self, row: int) -> list[Span]:
        """Lay windows over a protein."""
        return window_spans(len(self.residues[row]), self.window_residues)

    def num_tokens(self, row: int) -> int:
        """Count the tokens that a protein costs, those that two windows share twice."""
        return sum(stop - start for start, stop in self.spans(row)) + 2

    def micro_batches(self, rows: Sequence[int]) -> list[LabelledBatch]:
        """Concatenate some of the proteins, in their order."""
        parts = split_by_budget([self.num_tokens(row) for row in rows], self.micro_batch_tokens)
        return [self._concatenate(rows[part]) for part in parts]

    def _concatenate(self, rows: Sequence[int]) -> LabelledBatch:
        spans = [self.spans(row) for row in rows]
        crops = [
            (row, make_crop(self.residues[row], *span))
            for row, windows in zip(rows, spans, strict=True)
            for span in windows
        ]
        batch = concatenate([crop for _, crop in crops], [row for row, _ in crops])
        answers = [self.targets[row] for row in rows]
        targets = torch.from_numpy((np.concatenate if self.task.per_residue else np.stack)(answers))
        return LabelledBatch(
            tokens=batch.tokens,
            offsets=batch.offsets,
            rows=batch.rows,
            spans=spans,
            targets=targets if targets.dtype == torch.int64 else targets.float(),
            num_residues=sum(len(self.residues[row]) for row in rows),
        )


class FinetuningBatches:
    """What each step of fine-tuning sees: proteins and their labels in a seeded order.

    Args:
        proteins: to learn from.
        tokens_per_batch: the most tokens of a step; only a protein longer than half of it can make a step exceed it.
        seed: the run's seed.
    """

    def __init__(self, proteins: LabelledDataset, batch_tokens: int, seed: int) -> None:
        self._proteins = proteins
        num_proteins = len(proteins.residues)
        lengths = np.array([proteins.num_tokens(row) for row in range(num_proteins)], dtype=np.int64)
        sampler = UniformSampler(num_proteins)
        self._order = EpochSampler(sampler, lengths.__getitem__, int(lengths.max()), batch_tokens, seed)
        self.steps_per_epoch = self._order.steps_per_epoch

    def micro_batches(self, step: int) -> list[LabelledBatch]:
        """Return the micro-batches of a step; none where an earlier step's giant protein filled its share."""
        return self._proteins.micro_batches(self._order.rows(step).tolist())
