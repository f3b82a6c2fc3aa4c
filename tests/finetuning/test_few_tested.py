from dataclasses import replace

import pytest

from protembed.config.common import TASKS
from protembed.finetuning.label_warnings import few_tested_warnings
from protembed.finetuning.labels import LabelledProtein, SplitTable
from protembed.finetuning.targets import TaskTable


def table(tested, num_others=600):
    """Make a table whose test split has these labels."""
    protein = LabelledProtein(id="p", sequence="MKV", label="a", split=None, line=2)
    test = [replace(protein, label=label) for label in tested]
    return SplitTable(path="t.csv", target="y", splits={"train": [protein] * num_others, "valid": [], "test": test})


def warned(*tables, task="classification", is_drawn=False):
    folds = [TaskTable(**vars(table), task=TASKS[task], classes=None, targets={}) for table in tables]
    return few_tested_warnings(folds, is_drawn=is_drawn)


@pytest.mark.parametrize(
    ("number", "proteins"), [(1, "only 1 test protein"), (19, "only 19 test proteins"), (20, None)]
)
def test_fewer_than_twenty_test_proteins_give_a_warning(number, proteins):
    expected = f"{proteins}: metrics of fewer than 20 are very uncertain; add proteins, or use --split kfold"

    assert warned(table(["1.5"] * number), task="regression") == ([expected] if proteins else [])


def test_classes_with_fewer_than_five_test_proteins_are_listed_with_counts():
    (warning,) = warned(table(["a"] * 30 + ["b"] * 5 + ["c"] * 4 + ["d"]))

    assert warning == (
        "2 classes have fewer than 5 test proteins, 'd' (1), 'c' (4): "
        "metrics that count them are uncertain; use --split kfold"
    )


def test_at_most_five_rare_classes_are_listed():
    (warning,) = warned(table(["a"] * 30 + list("bcdefgh")))

    assert "7 classes have" in warning
    assert "'f' (1) and 2 more: " in warning


def test_test_proteins_of_all_folds_are_counted_together():
    folds = [table(["a"] * 6 + ["b"]) for _ in range(5)]
    few = [table(["1.5"]) for _ in range(5)]

    assert warned(*folds) == []
    assert warned(*folds[:3]) == [
        "1 class has fewer than 5 test proteins, 'b' (3): metrics that count them are uncertain"
    ]
    assert warned(*few, task="regression") == [
        "only 5 test proteins: metrics of fewer than 20 are very uncertain; add proteins"
    ]


@pytest.mark.parametrize(
    ("num_others", "is_drawn", "is_advised"), [(460, True, True), (460, False, False), (480, True, False)]
)
def test_kfold_is_advised_if_the_drawn_test_split_is_small(num_others, is_drawn, is_advised):
    warnings = warned(table(["1.5"] * 30, num_others), task="regression", is_drawn=is_drawn)

    advice = (
        "the test split has 30 of 490 proteins; --split kfold tests all of them, which makes the intervals narrower"
    )
    assert warnings == ([advice] if is_advised else [])
