from dataclasses import replace

import pytest

from protembed.config.common import TASKS
from protembed.finetuning.label_warnings import few_tested_warnings
from protembed.finetuning.labels import LabelledProtein, SplitTable


def table(tested, num_others=600):
    """A table whose test part has these labels."""
    one = LabelledProtein(id="p", sequence="MKV", label="a", split=None, line=2)
    proteins = [replace(one, label=label) for label in tested]
    return SplitTable(path="t.csv", target="y", splits={"train": [one] * num_others, "valid": [], "test": proteins})


def warned(*tables, task="classification", is_drawn=False):
    return few_tested_warnings(tables, TASKS[task], is_drawn=is_drawn)


@pytest.mark.parametrize(("number", "said"), [(1, "only 1 test protein"), (19, "only 19 test proteins"), (20, None)])
def test_fewer_than_twenty_test_proteins_are_warned_of(number, said):
    expected = f"{said}: metrics of fewer than 20 are very uncertain; add proteins, or use --split kfold"

    assert warned(table(["1.5"] * number), task="regression") == ([expected] if said else [])


def test_classes_with_fewer_than_five_test_proteins_are_named_with_their_counts():
    (found,) = warned(table(["a"] * 30 + ["b"] * 5 + ["c"] * 4 + ["d"]))

    assert found == (
        "2 classes have fewer than 5 test proteins, 'd' (1), 'c' (4): "
        "metrics that count them are uncertain; use --split kfold"
    )


def test_no_more_than_five_of_many_rare_classes_are_named():
    (found,) = warned(table(["a"] * 30 + list("bcdefgh")))

    assert "7 classes have" in found
    assert "'f' (1) and 2 more: " in found


def test_proteins_of_all_folds_count_and_kfold_is_not_advised_again():
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
    ("num_others", "is_drawn", "is_said"), [(460, True, True), (460, False, False), (480, True, False)]
)
def test_folds_are_advised_for_a_drawn_part_of_few_proteins(num_others, is_drawn, is_said):
    found = warned(table(["1.5"] * 30, num_others), task="regression", is_drawn=is_drawn)

    advice = (
        "the test split has 30 of 490 proteins; --split kfold tests all of them, which makes the intervals narrower"
    )
    assert found == ([advice] if is_said else [])
