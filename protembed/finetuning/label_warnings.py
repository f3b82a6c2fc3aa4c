"""Warnings about labels that look like mistakes, about rare classes, and about test splits that are too small."""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from protembed.config.common import Task
from protembed.finetuning.label_cells import quoted
from protembed.finetuning.labels import LabelledProtein, SplitTable
from protembed.finetuning.targets import TaskTable, class_counts
from protembed.io.tables import is_stand_in, read_number
from protembed.text import pluralize

# Metrics of fewer test proteins are hardly better than chance; nor are those of a class with fewer.
_MIN_TEST_PROTEINS, _MIN_TEST_PROTEINS_OF_A_CLASS = 20, 5
# Of fewer proteins, a tenth is a poor test split.
_MIN_PROTEINS_FOR_A_TENTH = 500
# A class of fewer training proteins cannot be learned.
_MIN_TRAINING_PROTEINS = 5
# Absolute values that often mean a missing value.
_SENTINELS = (999.0, 9999.0, 99999.0)
# A value can only be called far from all others if there are more of these.
_MIN_OTHER_VALUES = 5
# The class that many tools use for residues to ignore.
_IGNORED_CLASS = "-1"
# Names in a sentence.
_MAX_NAMES = 5


# Names


def _fold(name: str) -> str:
    composed = unicodedata.normalize("NFC", name)
    visible = (letter for letter in composed if unicodedata.category(letter) not in ("Cf", "Cc"))
    return re.sub(r"\s+", "", "".join(visible)).casefold()


def _quote(name: str) -> str:
    """Quote a name, and escape characters by which it may differ from another that looks the same."""
    text = quoted(name)
    is_plain = unicodedata.is_normalized("NFC", name) and "\ufffd" not in name
    return text if is_plain else text.encode("ascii", "backslashreplace").decode()


def _listed(names: Sequence[str], counts: Mapping[str, int] | None = None) -> str:
    """List names for a message, each with its count, and the number of names that are left out."""
    listed = [_quote(name) + (f" ({counts[name]})" if counts else "") for name in names[:_MAX_NAMES]]
    return ", ".join(listed) + (f" and {len(names) - _MAX_NAMES:,} more" if len(names) > _MAX_NAMES else "")


def _stand_ins(counts: Mapping[str, int], task: Task) -> Iterator[str]:
    names = [name for name in counts if is_stand_in(name) and not (name == "-" and "+" in counts)]
    others = [value for name in counts if (value := read_number(name)) is not None and name != _IGNORED_CLASS]
    if task.per_residue and _IGNORED_CLASS in counts and len(others) > 1 and min(others) >= 0:
        names.append(_IGNORED_CLASS)
    for name in sorted(names):
        if task.per_residue:
            advice = "write nan instead, or add a mask"
        else:
            advice = "remove its rows" if task.label_kind == "class" else "leave the cell empty"
        proteins = pluralize(counts[name], "protein")
        yield f"a class is named {_quote(name)} ({proteins}): if that means a missing label, {advice}"


def _lost_letters(counts: Mapping[str, int]) -> Iterator[str]:
    for name in sorted(name for name in counts if "\ufffd" in name):
        found = "contains U+FFFD, which replaces a letter that another program could not decode"
        yield f"the class {_quote(name)} {found}: export the table again, as UTF-8"


def _similar_names(counts: Mapping[str, int]) -> Iterator[str]:
    """Find names that differ only in case, white space, invisible characters or Unicode composition."""
    alike: dict[str, list[str]] = {}
    for name in sorted(counts):
        alike.setdefault(_fold(name), []).append(name)
    for names in alike.values():
        if len(names) > 1:
            listed = " and ".join(f"{_quote(name)} ({counts[name]:,})" for name in names)
            yield f"{listed} are different classes with nearly the same name: if they are one class, use one name"


# Rare classes


def _rare_classes(counts: Mapping[str, int], limit: int, split: str, advice: str, noun: str = "class") -> Iterator[str]:
    rare = {name: number for name, number in counts.items() if number < limit}
    if rare:
        has = f"{noun} has" if len(rare) == 1 else f"{'classes' if noun == 'class' else 'labels'} have"
        listed = _listed(sorted(rare, key=lambda name: (rare[name], name)), rare)
        yield f"{len(rare):,} {has} fewer than {limit} {split} proteins, {listed}: {advice}"


def _untested_classes(folds: Sequence[SplitTable], task: Task, classes: Collection[str]) -> Iterator[str]:
    tested = class_counts((protein for fold in folds for protein in fold.splits["test"]), task)
    untested = [name for name in classes if name not in tested]
    advice = "add proteins to the test split" + ("" if len(folds) > 1 else ", or pass --split kfold")
    if task.label_kind == "class" and len(tested) == 1:
        yield f"the test split has only one class, {_quote(next(iter(tested)))}: its metrics mean nothing; {advice}"
    elif untested:
        has, them = ("class has", "it") if len(untested) == 1 else ("classes have", "them")
        yield f"{len(untested):,} {has} no test protein, {_listed(untested)}: no metric covers {them}; {advice}"


def _few_test_proteins(number: int, *, has_folds: bool) -> Iterator[str]:
    if number < _MIN_TEST_PROTEINS:
        advice = "add proteins" if has_folds else "add proteins, or use --split kfold"
        proteins = pluralize(number, "test protein")
        yield f"only {proteins}: metrics of fewer than {_MIN_TEST_PROTEINS} are very uncertain; {advice}"


# Values and rows


def _outlying_values(table: TaskTable) -> Iterator[str]:
    """Find a value that is far from all others, and occurs several times or often means a missing value."""
    of_splits = [table.known_targets(split) for split, of_proteins in table.targets.items() if of_proteins]
    values, counts = np.unique(np.concatenate(of_splits), return_counts=True)
    if len(values) <= _MIN_OTHER_VALUES:
        return
    for end, others in ((0, values[1:]), (-1, values[:-1])):
        value, count = values[end], counts[end]
        is_far = abs(value - others[end]) > others[-1] - others[0]
        if is_far and (count > 1 or abs(value) in _SENTINELS):
            kind = "residues" if table.task.per_residue else "proteins"
            advice = "write nan instead" if table.task.per_residue else "remove these rows"
            found = f"{count:,} {kind} have the value {value:g}, and all others {others[0]:g} to {others[-1]:g}"
            yield f"{found}: if it means a missing value, {advice}"


def _repeated_rows(proteins: Sequence[LabelledProtein]) -> Iterator[str]:
    counts = Counter(protein.id for protein in proteins)
    repeated = [identifier for identifier, number in counts.items() if number > 1]
    if repeated:
        yield f"{pluralize(len(repeated), 'identifier')} used by several rows, such as {repeated[0]!r}"
    first: dict[str, str] = {}
    differing = [protein for protein in proteins if first.setdefault(protein.sequence, protein.label) != protein.label]
    if differing:
        number = len({protein.sequence for protein in differing})
        yield f"{pluralize(number, 'sequence')} with different labels in different rows, such as {differing[0].id!r}"


# All warnings


def few_tested_warnings(folds: Sequence[TaskTable], *, is_drawn: bool) -> list[str]:
    """Describe what the test splits are too small for, in sentences; they are drawn, or read from a column."""
    has_folds, task = len(folds) > 1, folds[0].task
    tested = [protein for fold in folds for protein in fold.splits["test"]]
    noun = "label" if task.label_kind == "labels" else "class"
    advice = "metrics that count them are uncertain" + ("" if has_folds else "; use --split kfold")
    warnings = [
        *_few_test_proteins(len(tested), has_folds=has_folds),
        *_rare_classes(class_counts(tested, task), _MIN_TEST_PROTEINS_OF_A_CLASS, "test", advice, noun),
    ]
    num_proteins = len(folds[0].proteins)
    if is_drawn and not has_folds and not warnings and num_proteins < _MIN_PROTEINS_FOR_A_TENTH:
        warnings.append(
            f"the test split has {len(tested):,} of {num_proteins:,} proteins; "
            "--split kfold tests all of them, which makes the intervals narrower"
        )
    return warnings


def label_warnings(final: TaskTable, folds: Sequence[SplitTable]) -> list[str]:
    """Describe what looks like a mistake in the table of the final model, or in its folds, in sentences."""
    task, proteins = final.task, final.proteins
    if final.classes is None:
        return [*_outlying_values(final), *_repeated_rows(proteins)]
    counts = class_counts(proteins, task)
    return [
        *_stand_ins(counts, task),
        *_similar_names(counts),
        *_lost_letters(counts),
        *_rare_classes(
            class_counts(final.splits["train"], task),
            _MIN_TRAINING_PROTEINS,
            "training",
            "add some, or remove the class",
        ),
        *_untested_classes(folds, task, final.classes),
        *_repeated_rows(proteins),
    ]
