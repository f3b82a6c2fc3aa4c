from dataclasses import replace

import pytest

from protembed.finetuning.decimal_commas import read_decimal_commas
from protembed.finetuning.label_inference import infer_labels
from protembed.finetuning.labels import LabelledProtein, LabelledTable


def table(*labels, has_decimal_commas=True):
    proteins = [
        LabelledProtein(id=f"p{row}", sequence="MKTAYIAKQR", label=label, split=None, line=row + 2)
        for row, label in enumerate(labels)
    ]
    return LabelledTable(path="labels.csv", target="target", proteins=proteins, has_decimal_commas=has_decimal_commas)


def read(labels, choice="auto", separator=None):
    return [protein.label for protein in read_decimal_commas(labels, choice, separator).proteins]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["0,5", "1", "-12,25", ""], ["0.5", "1", "-12.25", ""]),
        (["1,142", "2,5"], ["1.142", "2.5"]),
        (["0,142", "#N/A", "1,5e-3"], ["0.142", "#N/A", "1.5e-3"]),
        (["0,5 0,7 nan", "1 2,5 3"], ["0.5 0.7 nan", "1 2.5 3"]),
        (["0,5;0,7", "1;2"], ["0.5;0.7", "1;2"]),
    ],
)
def test_decimal_commas_of_numbers_become_points(before, after):
    read_as = read_decimal_commas(table(*before), "auto", None)

    assert [protein.label for protein in read_as.proteins] == after
    assert read_as.traits == ["decimal commas"]


@pytest.mark.parametrize(
    "labels",
    [
        ["1,142", "2,310"],
        ["0,5", "0.7"],
        ["a", "b,c"],
        ["0,1,1", "1,0,1"],
        ["0, 1, 1", "1, 0, 1"],
        ["nucleus, cytosol", "nucleus"],
        ["[0, 1]", "[1, 0]"],
        ["1", "2"],
        ["", ""],
    ],
)
def test_commas_that_may_be_something_else_are_left(labels):
    assert read_decimal_commas(table(*labels), "auto", None) == table(*labels)


def test_decimal_commas_are_read_only_where_they_are_usual_or_the_labels_are_values():
    usual, unusual = table("0,5", "1,5"), table("0,5", "1,5", has_decimal_commas=False)

    assert read(unusual) == ["0,5", "1,5"]
    assert read(unusual, "regression") == read(unusual, "residue-regression") == ["0.5", "1.5"]
    assert read(usual, "classification") == read(usual, "multilabel") == ["0,5", "1,5"]
    assert read(usual, separator=",") == ["0,5", "1,5"]


def test_the_reading_shows_the_cells_as_they_were_written():
    inferred = infer_labels(table(*(f"{row},{row}" for row in range(1, 30))))

    assert (inferred.task.name, inferred.labels.traits) == ("regression", ["decimal commas"])
    assert inferred.reading.startswith("read '1,1' as value 1.1, ")
    assert inferred.labels == replace(inferred.labels, has_decimal_commas=True)


def test_points_that_may_separate_thousands_give_a_warning_in_tables_with_semicolons():
    numbers = [f"{row}.142" for row in range(1, 30)]
    warning = "'1.142' is read as 1.142: if points separate thousands, write numbers without them"

    assert infer_labels(table(*numbers, "950")).warnings == [warning]
    assert infer_labels(table(*numbers, "950", has_decimal_commas=False)).warnings == []
    assert infer_labels(table(*numbers, "0.5")).warnings == []
