"""What looks like a mistake in labels that can be read, in sentences, and how many proteins have each class."""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np

from protembed.config.common import Task
from protembed.finetuning.label_cells import read_number
from protembed.finetuning.labels import LabelledProtein, SplitTable
from protembed.finetuning.targets import Targets, label_set
from protembed.io.tables import is_stand_in
from protembed.io.text import pluralize

# Metrics of fewer test proteins, or of fewer of a class, are hardly more than chance.
_MIN_TEST_PROTEINS, _MIN_OF_A_CLASS = 20, 5
# With fewer proteins in all, a tenth of them makes a poor test part.
_MIN_FOR_A_TENTH = 500
_MAX_NAMES, _MAX_LETTERS = 5, 40


def few_tested_warnings(folds: Sequence[SplitTable], task: Task, *, is_drawn: bool) -> list[str]:
    """Put into sentences what the test part is too small for.

    Args:
        folds: The tables whose test parts are measured; one unless there are folds.
        task: The task that the labels pose.
        is_drawn: Whether the parts were drawn, and not given by a column.
    """
    in_folds = len(folds) > 1
    tested = [protein for fold in folds for protein in fold.splits["test"]]
    found = [*_few_proteins(len(tested), in_folds=in_folds), *_few_of_a_class(tested, task, in_folds=in_folds)]
    num_proteins = sum(len(part) for part in folds[0].splits.values())
    if is_drawn and not in_folds and not found and num_proteins < _MIN_FOR_A_TENTH:
        found.append(
            f"the test part is {len(tested):,} of {num_proteins:,} proteins; "
            "--split kfold measures all of them, and the intervals are narrower"
        )
    return found


def _few_proteins(number: int, *, in_folds: bool) -> Iterator[str]:
    if number < _MIN_TEST_PROTEINS:
        proteins = f"{number:,} test protein{'' if number == 1 else 's'}"
        advice = "add proteins" if in_folds else "add proteins, or use --split kfold"
        yield f"{proteins} only: metrics of fewer than {_MIN_TEST_PROTEINS} are very uncertain; {advice}"


def _few_of_a_class(tested: Sequence[LabelledProtein], task: Task, *, in_folds: bool) -> Iterator[str]:
    counts = Counter(name for protein in tested for name in label_set(protein, task))
    few = {name: number for name, number in counts.items() if number < _MIN_OF_A_CLASS}
    if not few:
        return
    kind = "label" if task.label_kind == "labels" else "class"
    has = f"{kind} has" if len(few) == 1 else f"{'labels' if kind == 'label' else 'classes'} have"
    advice = "" if in_folds else "; use --split kfold"
    yield (
        f"{len(few):,} {has} fewer than {_MIN_OF_A_CLASS} test proteins, {_listed_with_counts(few)}: "
        f"metrics that count them are uncertain{advice}"
    )


def _listed_with_counts(counts: Mapping[str, int]) -> str:
    names = sorted(counts, key=lambda name: (counts[name], name))
    shown = ", ".join(f"{name[:_MAX_LETTERS]!r} ({counts[name]})" for name in names[:_MAX_NAMES])
    return shown + (f" and {len(names) - _MAX_NAMES:,} more" if len(names) > _MAX_NAMES else "")


# Fewer proteins of a class say nothing about it.
_MIN_TRAINING_PROTEINS = 5
# Of the names that a sentence lists, and of the letters of each.
# Written for a missing value, whatever the others are; and how many others are needed to tell what is far from them.
_SENTINELS, _MIN_OTHERS = (999.0, 9999.0, 99999.0), 5
_IGNORED_BY_SIGN = "-1"


def class_counts(proteins: Iterable[LabelledProtein], task: Task) -> Counter[str]:
    """Count the proteins that have each class or label, of residues those that have a residue of it.

    Args:
        proteins: Rows, in the spelling of `label_inference`.
        task: The task that their labels pose.
    """
    return Counter(name for protein in proteins for name in label_set(protein, task))


def label_warnings(final: SplitTable, folds: Sequence[SplitTable], targets: Targets) -> list[str]:
    """Put into sentences what looks like a mistake in a table that can be read.

    Args:
        final: The parts of which the model is made.
        folds: The tables whose test parts are measured; `final` itself unless there are folds.
        targets: The labels of `final` as numbers.
    """
    task, proteins = targets.task, final.proteins
    found = list(_doubtful_values(targets)) if targets.classes is None else []
    if targets.classes is not None:
        counts = class_counts(proteins, task)
        found += [*_stand_ins(counts, task), *_near_names(counts), *_lost_letters(counts)]
        found += _rare_classes(class_counts(final.splits["train"], task), task)
        found += _untested_classes(folds, task, targets.classes)
    return [*found, *_repetitions(proteins)]


# Names


def _stand_ins(counts: Mapping[str, int], task: Task) -> Iterator[str]:
    names = [name for name in counts if is_stand_in(name) and not (name == "-" and "+" in counts)]
    others = [value for name in counts if (value := read_number(name)) is not None and name != _IGNORED_BY_SIGN]
    if task.per_residue and _IGNORED_BY_SIGN in counts and len(others) > 1 and min(others) >= 0:
        names.append(_IGNORED_BY_SIGN)
    for name in sorted(names):
        if task.per_residue:
            advice = "if it is, write nan in its place, or give a mask"
        else:
            advice = "if it is, remove its rows" if task.label_kind == "class" else "if it is, leave the cell empty"
        proteins = pluralize(counts[name], "protein")
        yield f"a class is named {_shown(name)} ({proteins}): is that a missing label? {advice}"


def _lost_letters(counts: Mapping[str, int]) -> Iterator[str]:
    for name in sorted(name for name in counts if "\ufffd" in name):
        lost = "letters that an earlier program could not read"
        yield f"the class {_shown(name)} holds U+FFFD in place of {lost}: export the table again, as UTF-8"


def _near_names(counts: Mapping[str, int]) -> Iterator[str]:
    """Find names that differ in case, white space, invisible characters or Unicode composition alone."""
    alike: dict[str, list[str]] = {}
    for name in sorted(counts):
        alike.setdefault(_plain(name), []).append(name)
    for names in alike.values():
        if len(names) > 1:
            spelled = " and ".join(f"{_shown(name)} ({counts[name]:,})" for name in names)
            yield f"{spelled} are different classes, though their names are nearly the same: write them alike"


def _plain(name: str) -> str:
    composed = unicodedata.normalize("NFC", name)
    visible = (letter for letter in composed if unicodedata.category(letter) not in ("Cf", "Cc"))
    return re.sub(r"\s+", "", "".join(visible)).casefold()


def _shown(name: str) -> str:
    """Quote a name, and show the characters by which it may differ from another that looks the same."""
    text = repr(name[:_MAX_LETTERS])
    is_plain = unicodedata.is_normalized("NFC", name) and "\ufffd" not in name
    return text if is_plain else text.encode("ascii", "backslashreplace").decode()


# Classes that few proteins have


def _rare_classes(counts: Mapping[str, int], task: Task) -> Iterator[str]:
    rare = {name: number for name, number in counts.items() if number < _MIN_TRAINING_PROTEINS}
    if rare:
        which = _listed(
            [f"{_shown(name)} ({rare[name]})" for name in sorted(rare, key=lambda name: (rare[name], name))]
        )
        has = "class has" if len(rare) == 1 else "classes have"
        yield (
            f"{len(rare):,} {has} fewer than {_MIN_TRAINING_PROTEINS} training proteins, {which}: "
            "add some, or leave the class out"
        )


def _untested_classes(folds: Sequence[SplitTable], task: Task, classes: Collection[str]) -> Iterator[str]:
    tested = class_counts((protein for fold in folds for protein in fold.splits["test"]), task)
    untested = [name for name in classes if name not in tested]
    advice = "add proteins to the test part" + ("" if len(folds) > 1 else ", or pass --split kfold")
    if task.label_kind == "class" and len(tested) == 1:
        yield f"the test part has one class only, {_shown(next(iter(tested)))}: its metrics say nothing; {advice}"
    elif untested:
        has, them = ("class has", "it") if len(untested) == 1 else ("classes have", "them")
        which = _listed([_shown(name) for name in untested])
        yield f"{len(untested):,} {has} no test protein, {which}: nothing is measured of {them}; {advice}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMES:,} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more


# Values


def _doubtful_values(targets: Targets) -> Iterator[str]:
    """Find a value that is far from all others, and recurs or is a usual stand-in for a missing one."""
    known = np.concatenate([targets.known_targets(split) for split, part in targets.by_split.items() if part])
    values, numbers = np.unique(known, return_counts=True)
    if len(values) <= _MIN_OTHERS:
        return
    for place, others in ((0, values[1:]), (-1, values[:-1])):
        value, number = values[place], numbers[place]
        is_far = abs(value - others[place]) > others[-1] - others[0]
        if is_far and (number > 1 or abs(value) in _SENTINELS):
            where = "residues" if targets.task.per_residue else "proteins"
            span = f"{others[0]:g} to {others[-1]:g}"
            advice = "write nan in its place" if targets.task.per_residue else "remove these rows"
            found = f"{number:,} {where} have the value {value:g}, and all others {span}"
            yield f"{found}: if it stands for a missing value, {advice}"


# Rows


def _repetitions(proteins: Sequence[LabelledProtein]) -> Iterator[str]:
    counts = Counter(protein.id for protein in proteins)
    repeated = [identifier for identifier, number in counts.items() if number > 1]
    if repeated:
        yield f"{pluralize(len(repeated), 'identifier')} of several rows, such as {repeated[0]!r}"
    first: dict[str, str] = {}
    differing = [one for one in proteins if first.setdefault(one.sequence, one.label) != one.label]
    if differing:
        number = len({protein.sequence for protein in differing})
        yield f"{pluralize(number, 'sequence')} with labels that differ from row to row, such as {differing[0].id!r}"
