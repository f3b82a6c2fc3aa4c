"""What a small test part cannot tell, in sentences."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from protembed.config.common import Task
from protembed.data.labels import LabelledProtein, LabelTable
from protembed.data.targets import classes_in

# Metrics of fewer test proteins, or of fewer of a class, are hardly more than chance.
_MIN_TEST_PROTEINS, _MIN_OF_A_CLASS = 20, 5
# With fewer proteins in all, a tenth of them makes a poor test part.
_MIN_FOR_A_TENTH = 500
_MAX_NAMES, _MAX_LETTERS = 5, 40


def few_tested_warnings(folds: Sequence[LabelTable], task: Task, *, is_drawn: bool) -> list[str]:
    """Put into sentences what the test part is too small for.

    Args:
        folds: The tables whose test parts are measured; one unless there are folds.
        task: The task that the labels pose.
        is_drawn: Whether the parts were drawn, and not given by a column.
    """
    in_folds = len(folds) > 1
    tested = [protein for fold in folds for protein in fold.parts["test"]]
    found = [*_few_proteins(len(tested), in_folds=in_folds), *_few_of_a_class(tested, task, in_folds=in_folds)]
    num_proteins = sum(len(part) for part in folds[0].parts.values())
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
    counts = Counter(name for protein in tested for name in classes_in(protein, task))
    few = {name: number for name, number in counts.items() if number < _MIN_OF_A_CLASS}
    if not few:
        return
    kind = "label" if task.answer == "labels" else "class"
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
