import pytest

from protembed.config.common import TASKS
from protembed.finetuning.label_warnings import label_warnings
from protembed.finetuning.labels import LabelledProtein, SplitTable
from protembed.finetuning.targets import TaskTable, class_counts

REST = ["a", "b"] * 5


def table(train, test, *, sequences=None):
    """Make a table of labelled proteins with a train and a test split."""
    labels = [*train, *test]
    sequences = sequences or [f"MKT{'A' * row}" for row in range(len(labels))]
    proteins = [
        LabelledProtein(id=f"p{row}", sequence=sequence, label=label, split=None, line=row + 2)
        for row, (label, sequence) in enumerate(zip(labels, sequences, strict=True))
    ]
    splits = {"train": proteins[: len(train)], "valid": [], "test": proteins[len(train) :]}
    return SplitTable(path="labels.csv", target="target", splits=splits)


def warnings_of(train, test=None, task="classification", **options):
    made = table(train, train if test is None else test, **options)
    return label_warnings(TaskTable.from_table(made, TASKS[task], allows_rare=True), [made])


def residues(*rows, task="residue-classification"):
    return warnings_of(rows, rows, task, sequences=[f"MKTA{letter}" for letter in "ACDEFGHIKL"[: 2 * len(rows)]])


def test_class_counts_count_the_proteins_of_each_class():
    made = table(["a", "b", "a", "a"], ["b"])
    several = table(["a;b", "b", ""], ["a;b"])
    classes = table(["HHE", "EEE"], ["HHH"], sequences=["MKT", "MKV", "MKA"])

    assert class_counts(made.proteins, TASKS["classification"]) == {"a": 3, "b": 2}
    assert class_counts(several.proteins, TASKS["multilabel"]) == {"a": 2, "b": 3}
    assert class_counts(classes.proteins, TASKS["residue-classification"]) == {"H": 2, "E": 2}


@pytest.mark.parametrize(
    "name",
    [
        "NaN",
        "n/a",
        "#N/A",
        "#VALUE!",
        "#REF!",
        "#DIV/0!",
        "#NAME?",
        "#NV",
        "#WERT!",
        "#N/D",
        "#¡VALOR!",
        "Err:502",
        "####",
        "None",
        "-",
        "?",
        ".",
        "X",
        "unknown",
        "-100",
    ],
)
def test_a_class_named_like_a_missing_label_gives_a_warning(name):
    assert warnings_of(REST + [name] * 5) == [
        f"a class is named {name!r} (10 proteins): if that means a missing label, remove its rows"
    ]


def test_a_minus_beside_a_plus_gives_no_warning():
    assert warnings_of(["+", "-"] * 5) == []
    assert warnings_of(["x", "other"] * 5) == []
    assert warnings_of(["-1", "1"] * 5) == []


@pytest.mark.parametrize("name", ["-100", "-1", "None", "unknown", "nothing"])
def test_a_residue_class_named_like_a_missing_label_gives_a_warning(name):
    warnings = residues(*[f"0;1;{name};0;1"] * 5)

    expected = f"a class is named {name!r} (10 proteins): if that means a missing label, write nan instead"
    assert warnings == ([] if name == "nothing" else [f"{expected}, or add a mask"])


def test_a_minus_one_among_negative_residue_classes_gives_no_warning():
    assert residues(*["-2;1;-1;0;1"] * 5) == []


@pytest.mark.parametrize(
    ("name", "similar", "listed"),
    [
        ("Yes", "yes", "'Yes' (10) and 'yes' (10)"),
        ("cell wall", "cell  wall", "'cell  wall' (10) and 'cell wall' (10)"),
        ("Kern", "Kern\u200b", "'Kern' (10) and 'Kern\\u200b' (10)"),
        ("K\u00e4rn", "Ka\u0308rn", "'Ka\\u0308rn' (10) and 'K\u00e4rn' (10)"),
        ("nucleus", "nucleus\u00ad", "'nucleus' (10) and 'nucleus\\xad' (10)"),
    ],
)
def test_names_that_look_the_same_give_a_warning(name, similar, listed):
    assert warnings_of([name, similar, "third"] * 5) == [
        f"{listed} are different classes with nearly the same name: if they are one class, use one name"
    ]


def test_a_name_with_undecodable_letters_gives_a_warning():
    (warning,) = warnings_of(["H\ufffdlle", "Kern"] * 5)

    assert warning.startswith("the class 'H\\ufffdlle' contains U+FFFD")


def test_classes_of_fewer_than_five_training_proteins_give_a_warning():
    assert warnings_of(REST + ["c"] * 4 + ["d"]) == [
        "2 classes have fewer than 5 training proteins, 'd' (1), 'c' (4): add some, or remove the class"
    ]
    many = warnings_of([f"c{row:02d}" for row in range(12)])
    assert many[0].startswith("12 classes have") and "'c04' (1) and 7 more: add some" in many[0]


def test_classes_without_a_test_protein_give_a_warning():
    advice = "add proteins to the test split, or pass --split kfold"

    assert warnings_of(REST, ["a", "a"]) == [
        f"the test split has only one class, 'a': its metrics mean nothing; {advice}"
    ]
    assert warnings_of(REST + ["c"] * 5, ["a", "b"]) == [
        f"1 class has no test protein, 'c': no metric covers it; {advice}"
    ]
    assert warnings_of(["a;b", "b;c"] * 5, ["a", "a"], "multilabel") == [
        f"2 classes have no test protein, 'b', 'c': no metric covers them; {advice}"
    ]


def test_a_class_that_is_tested_in_another_fold_gives_no_warning():
    first, second = table(REST, ["a"]), table(REST, ["b"])

    assert label_warnings(TaskTable.from_table(first, TASKS["classification"]), [first, second]) == []


@pytest.mark.parametrize(
    ("value", "number", "is_expected"), [("999", 2, True), ("-9999.0", 1, True), ("-20", 2, True), ("-20", 1, False)]
)
def test_an_outlying_value_gives_a_warning_if_it_recurs_or_is_a_sentinel(value, number, is_expected):
    values = [f"{row / 8}" for row in range(8)]

    warnings = warnings_of(values + [value] * number, values, "regression")

    expected = f"have the value {float(value):g}, and all others 0 to 0.875: if it means a missing value, remove"
    assert [expected in sentence for sentence in warnings] == [True] * is_expected


def test_values_that_recur_among_the_others_give_no_warning():
    assert warnings_of(["0"] * 5 + [str(row) for row in range(9)], ["3"] * 2, "regression") == []


def test_residues_with_an_outlying_value_give_a_warning():
    (warning,) = residues("0.1;0.2;0.3;999;0.5", "0.6;0.7;0.8;999;1.0", task="residue-regression")

    assert warning.startswith("4 residues have the value 999") and warning.endswith("write nan instead")


def test_repeated_identifiers_and_sequences_with_different_labels_give_warnings():
    proteins = [
        LabelledProtein(id=name, sequence=sequence, label=label, split=None, line=2)
        for name, sequence, label in [("a", "MKT", "x"), ("b", "MKV", "y"), ("b", "MKT", "y"), ("c", "MKA", "x")] * 5
    ]
    made = SplitTable(path="t", target="y", splits={"train": proteins, "valid": [], "test": proteins[:4]})

    assert label_warnings(TaskTable.from_table(made, TASKS["classification"]), [made]) == [
        "3 identifiers used by several rows, such as 'a'",
        "1 sequence with different labels in different rows, such as 'b'",
    ]
