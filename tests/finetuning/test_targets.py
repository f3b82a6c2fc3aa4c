import numpy as np
import pytest
from hypothesis import given, strategies as st

from protembed.config.common import TASKS, UNKNOWN_CLASS
from protembed.errors import TableError
from protembed.finetuning.label_inference import infer_labels
from protembed.finetuning.labels import LabelledProtein, LabelledTable, SplitTable
from protembed.finetuning.targets import TaskTable, label_set

SPLITS = ("train", "valid", "test")
SEQUENCES = ("MKTAYIAK", "MAYWPQRK", "MCCDEFGH", "MLLKRSTV")


def table(*labels, sequences=None, masks=None):
    """Make a table of as many rows as labels; the last two are valid and test."""
    sequences = sequences or [f"MKT{'A' * row}" for row in range(len(labels))]
    masks = masks or [None] * len(labels)
    proteins = [
        LabelledProtein(id=str(row), sequence=sequence, label=label, split=None, line=row + 1, mask=mask)
        for row, (sequence, label, mask) in enumerate(zip(sequences, labels, masks, strict=True), start=1)
    ]
    splits = {"train": proteins[:-2], "valid": proteins[-2:-1], "test": proteins[-1:]}
    return SplitTable(path="labels.csv", target="target", splits=splits)


def residues(*labels, masks=None):
    """Make a table of four proteins of eight residues: two to train on, one each for valid and test."""
    return table(*labels, sequences=SEQUENCES, masks=masks)


def inferred(table, choice="auto", separator=None):
    labels = LabelledTable(path=table.path, target=table.target, proteins=table.proteins)
    return infer_labels(labels, choice, separator)


def infer_task(proteins, choice="auto"):
    return infer_labels(LabelledTable(path="labels.csv", target="target", proteins=proteins), choice).task


def targets_of(table, choice="auto"):
    labels = inferred(table, choice)
    normalized = iter(labels.labels.proteins)
    splits = {split: [next(normalized) for _ in proteins] for split, proteins in table.splits.items()}
    return TaskTable.from_table(SplitTable(path=table.path, target=table.target, splits=splits), labels.task)


def plain(targets):
    return {split: [target.tolist() for target in targets.targets[split]] for split in SPLITS}


# Inference of the task


@pytest.mark.parametrize(
    ("labels", "task"),
    [
        (["a", "b", "a", "b"], "classification"),
        (["0", "1", "0", "1"], "classification"),
        (["-1", "+1", "-1", "1"], "classification"),
        ([*map(str, range(20)), "0", "1"], "classification"),
        ([*map(str, range(21)), "0", "1"], "regression"),
        (["0.5", "1", "1", "1"], "regression"),
        (["1e3", "1", "1", "1"], "classification"),
        (["1", "2", "x", "1", "2"], "classification"),
        (["a;b", "b", "a", "b"], "multilabel"),
        (["GO:1; GO:2", "GO:2", "", "GO:1"], "multilabel"),
        (["a b", "b a", "a b", "b a"], "classification"),
    ],
)
def test_the_task_is_inferred_from_the_labels_of_proteins(labels, task):
    assert infer_task(table(*labels).proteins, "auto") is TASKS[task]


@pytest.mark.parametrize(
    ("labels", "task"),
    [
        (["HHHEEECC", "EEHHCCHH", "HHHHEECC", "CCCHHEEE"], "residue-classification"),
        (["00110000", "11110000", "00001111", "01010101"], "residue-classification"),
        (["0;0;1;1;0;0;0;0"] * 4, "residue-classification"),
        (["a b a b a b a b"] * 4, "residue-classification"),
        (["buried;open;nan;open;open;open;open;;"] * 4, "residue-classification"),
        (["0.1;0.2;0.3;0.4;0.5;0.6;0.7;0.8"] * 4, "residue-regression"),
        (["0.1  0.2 0.3 0.4 0.5 0.6 0.7 nan"] * 4, "residue-regression"),
        (["1.5;;;NA;nan;-2;3e1;4;"] * 4, "residue-regression"),
        (["1101", "1100", "10", "111"], "classification"),
        (["a;b;c", "a;b;c", "a", "b"], "multilabel"),
        (["1.5", "2.5", "12.25", "9"], "regression"),
    ],
)
def test_labels_as_long_as_their_sequences_are_labels_of_residues(labels, task):
    assert infer_task(residues(*labels).proteins, "auto") is TASKS[task]


def test_labels_of_peptides_shorter_than_five_residues_are_labels_of_proteins():
    peptides = table("1.5", "2.5", "0.5", "0.7", sequences=["MKT", "MAY", "MCC", "MLL"])
    with_proteins = table("1.5", "HHHEE", "HHEEE", "EEHHH", sequences=["MKT", "MAYWP", "MCCDE", "MLLKR"])

    assert infer_task(peptides.proteins, "auto") is TASKS["regression"]
    assert infer_task(with_proteins.proteins, "auto") is TASKS["residue-classification"]


def test_values_as_long_as_their_peptides_are_values_of_proteins():
    peptides = table("0.123456", "0.654321", "1.345678", "0.987654", sequences=SEQUENCES)

    assert infer_task(peptides.proteins, "auto") is TASKS["regression"]


def test_one_mistake_among_many_residue_labels_does_not_change_the_task():
    labels = [f"{first}{second}EEC" for first in "HEC" for second in "HECTS"] + ["HHHHH", "HHHHE", "HHHHC", "HHHHT"]
    many = [LabelledProtein(id="1", sequence="MKTAY", label=label, split=None, line=2) for label in labels]
    short = LabelledProtein(id="2", sequence="MKTAY", label="HHEE", split=None, line=3)

    assert infer_task([*many, short], "auto") is TASKS["residue-classification"]
    assert infer_task([*many, *[short] * 3], "auto") is TASKS["classification"]


@pytest.mark.parametrize("choice", TASKS)
def test_the_chosen_task_overrides_the_inference(choice):
    assert infer_task(residues("HHHEEECC", "1", "a;b", "0.5").proteins, choice) is TASKS[choice]


# Targets


def test_classes_are_sorted_by_size_or_alphabetically():
    assert targets_of(table(*["10", "9", "-1"] * 2, "9", "10")).classes == ("-1", "9", "10")
    assert targets_of(table(*["b", "a", "C"] * 2, "b", "a")).classes == ("C", "a", "b")


def test_the_target_of_a_class_is_its_index():
    targets = targets_of(table("b", "a", "b", "b", "a", "b"))

    assert targets.classes == ("a", "b")
    assert plain(targets) == {"train": [1, 0, 1, 1], "valid": [0], "test": [1]}
    assert {(target.shape, target.dtype) for target in targets.targets["train"]} == {((), np.dtype(np.int64))}
    assert targets.known_targets("train").tolist() == [1, 0, 1, 1]


def test_the_target_of_a_value_is_the_value():
    targets = targets_of(table("1.5", "2.5", "1e3", "-4e1"))

    assert targets.classes is None
    assert plain(targets) == {"train": [1.5, 2.5], "valid": [1000.0], "test": [-40.0]}
    assert {(target.shape, target.dtype) for target in targets.targets["train"]} == {((), np.dtype(np.float64))}
    assert targets.known_targets("train").tolist() == [1.5, 2.5]


def test_few_whole_numbers_are_values_on_request():
    assert plain(targets_of(table("1", "2", "1", "2"), "regression"))["train"] == [1.0, 2.0]


def test_the_target_of_several_labels_is_multi_hot():
    targets = targets_of(table("b; a", "a", "", "c;", "b", "c", "a;b;a", "b"))

    assert targets.classes == ("a", "b", "c")
    assert plain(targets) == {
        "train": [[1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 0, 1]],
        "valid": [[1, 1, 0]],
        "test": [[0, 1, 0]],
    }
    assert {(target.shape, target.dtype) for target in targets.targets["train"]} == {((3,), np.dtype(np.float32))}
    assert targets.known_targets("train").shape == (6, 3)


def test_a_multilabel_table_can_have_as_many_labels_as_proteins():
    assert targets_of(table("a;b;c", "b;c", "a;c", "a", "b", "c")).classes == ("a", "b", "c")


def test_a_multilabel_table_can_have_a_single_label():
    targets = targets_of(table("kinase", "", "kinase", ""), "multilabel")

    assert plain(targets) == {"train": [[1], [0]], "valid": [[1]], "test": [[0]]}


@pytest.mark.parametrize(
    "labels",
    [
        ("HHHEEECC", "EEHHCCHH", "HHHHEECC", "CCCHHEEE"),
        ("H;H;H;E;E;E;C;C", "E; E;H;H;C;C;H;H;", "HHHHEECC", "C C C H H E E E"),
    ],
    ids=["letters", "lists"],
)
def test_the_targets_of_residue_classes_are_their_indices(labels):
    targets = targets_of(residues(*labels))

    assert targets.classes == ("C", "E", "H")
    assert plain(targets) == {
        "train": [[2, 2, 2, 1, 1, 1, 0, 0], [1, 1, 2, 2, 0, 0, 2, 2]],
        "valid": [[2, 2, 2, 2, 1, 1, 0, 0]],
        "test": [[0, 0, 0, 2, 2, 1, 1, 1]],
    }
    assert {target.dtype for target in targets.targets["train"]} == {np.dtype(np.int64)}
    assert targets.known_targets("train").tolist() == [*plain(targets)["train"][0], *plain(targets)["train"][1]]


def test_the_targets_of_residue_values_are_the_values():
    targets = targets_of(residues("1.5 2 3 4 5 6 7 8", "-1;2;3;4;5;6;7;8", *["1 2 3 4 5 6 7 8e1"] * 2))

    assert targets.classes is None
    assert plain(targets)["train"] == [[1.5, 2, 3, 4, 5, 6, 7, 8], [-1, 2, 3, 4, 5, 6, 7, 8]]
    assert {(target.shape, target.dtype) for target in targets.targets["test"]} == {((8,), np.dtype(np.float64))}


def test_an_empty_entry_or_nan_is_an_unknown_target():
    values = targets_of(residues("1.5;;nan;4;NaN;6;NA;8", *["1;2;3;4;5;6;7;8.5"] * 3))
    classes = targets_of(residues(";H;nan;E;NA;H;H;H", *["H;E;H;E;H;E;H;E"] * 3))

    np.testing.assert_array_equal(values.targets["train"][0], [1.5, np.nan, np.nan, 4, np.nan, 6, np.nan, 8])
    assert values.known_targets("train").tolist() == [1.5, 4, 6, 8, 1, 2, 3, 4, 5, 6, 7, 8.5]
    assert classes.classes == ("E", "H")
    assert plain(classes)["train"][0] == [UNKNOWN_CLASS, 1, UNKNOWN_CLASS, 0, UNKNOWN_CLASS, 1, 1, 1]
    assert classes.known_targets("train").tolist() == [1, 0, 1, 1, 1, *[1, 0] * 4]
    assert UNKNOWN_CLASS == -1


@pytest.mark.parametrize("mask", ["11100111", "1;1;1;0;0;1;1;1", "1 1 1 0 0 1 1 1"])
def test_a_zero_in_the_mask_makes_a_target_unknown(mask):
    masks = [mask, None, "", "11111111"]
    classes = targets_of(residues("HHHEEECC", "EEHHCCHH", "HHHHEECC", "CCCHHEEE", masks=masks))
    values = targets_of(residues(*["1;2;3;4;5;6;7;8.5"] * 4, masks=masks))

    assert plain(classes)["train"] == [[2, 2, 2, -1, -1, 1, 0, 0], [1, 1, 2, 2, 0, 0, 2, 2]]
    np.testing.assert_array_equal(values.targets["train"][0], [1, 2, 3, np.nan, np.nan, 6, 7, 8.5])
    assert [len(targets.known_targets("train")) for targets in (classes, values)] == [14, 14]
    assert [len(targets.known_targets(split)) for targets in (classes, values) for split in ("valid", "test")] == [
        8
    ] * 4


@pytest.mark.parametrize("row", [0, 2, 3])
def test_an_entry_of_masked_residues_only_is_no_class(row):
    labels, masks = ["HHHEEEHH", "EEHHHHHH", "HHHHEEEE", "EEEHHEEE"], [None] * 4
    labels[row], masks[row] = labels[row][:-1] + "?", "11111110"

    assert targets_of(residues(*labels, masks=masks)).classes == ("E", "H")


def test_the_label_set_of_a_protein_holds_its_classes():
    def classes(label, task):
        return label_set(LabelledProtein(id="1", sequence="MKTA", label=label, split=None, line=2), TASKS[task])

    assert classes("a;b", "classification") == {"a;b"}
    assert classes("a; b;", "multilabel") == {"a", "b"}
    assert classes("", "multilabel") == set()
    assert classes("H;nan;;E", "residue-classification") == {"H", "E"}
    assert classes("1.5", "regression") == classes("1;2;3;4", "residue-regression") == set()


# Errors


GOOD, VALUES = "HHHEEECC", "1;2;3;4;5;6;7;8.5"
BAD_PROTEINS = {
    "one class": (["a", "a", "a", "a"], "auto", None, "all training labels are 'a'"),
    "a class in test alone": (["a", "b", "a", "b", "a", "c"], "auto", 7, "the test protein '6' has the class 'c'"),
    "a class in valid alone": (["a", "b", "a", "b", "c", "a"], "auto", 6, "the valid protein '5' has the class 'c'"),
    "a class for each": (["a", "b", "c", "a", "b"], "auto", None, "3 training proteins have 3 different labels"),
    "an unlabelled protein": (["a", "", "b", "a", "b"], "auto", 3, "row '2' has no label"),
    "an unlabelled test protein": (["a", "b", "a", ""], "auto", 5, "row '4' has no label"),
    "an unlabelled value": (["0.5", "1.5", "", "2.5"], "auto", 4, "row '3' has no label"),
    "no labels at all": (
        ["", "", "", ""],
        "auto",
        None,
        "4 faults: line 2: row '1' has no label; line 3: row '2' has no label; line 4: row '3' has no label; line 5: ",
    ),
    "no label of several": (["", "", "", ""], "multilabel", None, "all training labels are ''"),
    "a label in test alone": (["a;b", "b", "a", "b", "a", "a;c"], "auto", 7, "the test protein '6' has the class 'c'"),
    "text": (["1", "x", "1", "2"], "regression", 3, "row '2' has the label 'x', which is not a finite number"),
    "text in test": (["1", "2", "1", "n/a"], "regression", 5, "row '4' has the label 'n/a'"),
    "nan": (["1", "2", "nan", "2"], "regression", 4, "row '3' has the label 'nan'"),
    "infinity": (["1", "-inf", "1", "2"], "regression", 3, "row '2' has the label '-inf'"),
    "overflow": (["1", "1e999", "1", "2"], "regression", 3, "row '2' has the label '1e999'"),
    "a constant": (["2", "2.0", "1", "3.5"], "auto", None, "all training labels are 2; there is nothing to learn"),
}


@pytest.mark.parametrize(("labels", "choice", "line", "message"), BAD_PROTEINS.values(), ids=BAD_PROTEINS)
def test_invalid_labels_of_proteins_are_rejected(rejected, labels, choice, line, message):
    with rejected(message, line):
        targets_of(table(*labels), choice)


BAD_RESIDUES = {
    "too few letters": ([GOOD, GOOD[1:], GOOD, GOOD], {}, 3, "row '2' has 7 labels for 8 residues"),
    "too many letters": ([GOOD, GOOD, GOOD, GOOD + "H"], {}, 5, "row '4' has 9 labels for 8 residues"),
    "too few entries": ([VALUES[2:], VALUES, VALUES, VALUES], {}, 2, "row '1' has 7 labels for 8 residues"),
    "no letters": ([GOOD, GOOD, "", GOOD], {}, 4, "row '3' has no label"),
    "no values": ([VALUES, VALUES, "", VALUES], {}, 4, "row '3' has no label"),
    "one class": (["HHHHHHHH"] * 4, {}, None, "all training labels are 'H'"),
    "one class to learn": (["HHHHHHHH", "HHHHHHHE"] * 2, {1: "11111110"}, None, "all training labels are 'H'"),
    "a class in test alone": ([GOOD, GOOD, GOOD, "HHHTTTCC"], {}, 5, "the test protein '4' has the class 'T'"),
    "a class in valid alone": ([GOOD, GOOD, "HHHTTTCC", GOOD], {}, 4, "the valid protein '3' has the class 'T'"),
    "text": ([VALUES, "1;2;x;4;5;6;7;8", VALUES, VALUES], {}, 3, "row '2' has the label 'x' at residue 3"),
    "infinity": ([VALUES, VALUES, VALUES, "1;2;3;4;5;6;7;inf"], {}, 5, "row '4' has the label 'inf' at residue 8"),
    "a constant": (["1;1.0;1;1;1;1;1;1e0"] * 2 + [VALUES] * 2, {}, None, "all training labels are 1"),
    "a short mask": ([GOOD] * 4, {1: "1111111"}, 3, "row '2' has a mask of 7 for 8 residues"),
    "a long mask": ([VALUES] * 4, {3: "1;1;1;1;1;1;1;1;1"}, 5, "row '4' has a mask of 9 for 8 residues"),
    "a letter in a mask": ([GOOD] * 4, {2: "1111111x"}, 4, "row '3' has 'x' in its mask"),
    "a two in a mask": ([VALUES] * 4, {0: "11111112"}, 2, "row '1' has '2' in its mask"),
    "train masked": ([VALUES] * 4, {0: "0" * 8, 1: "0" * 8}, None, "no residue of the train split has a label"),
    "valid masked": ([GOOD] * 4, {2: "0" * 8}, None, "no residue of the valid split has a label"),
    "test unknown": ([VALUES] * 3 + ["nan;" * 8], {}, None, "no residue of the test split has a label"),
}


@pytest.mark.parametrize(("labels", "masks", "line", "message"), BAD_RESIDUES.values(), ids=BAD_RESIDUES)
def test_invalid_labels_of_residues_are_rejected(rejected, labels, masks, line, message):
    choice = "residue-regression" if any(";" in label for label in labels) else "residue-classification"

    with rejected(message, line):
        targets_of(residues(*labels, masks=[masks.get(row) for row in range(4)]), choice)


def test_a_class_for_each_protein_is_accepted_if_the_user_named_the_task():
    few = table("a", "b", "c", "a", "b")

    assert TaskTable.from_table(few, TASKS["classification"], allows_rare=True).classes == ("a", "b", "c")


@pytest.mark.parametrize(
    ("label", "why"),
    [
        ("0,5", "a number with a decimal comma"),
        ("45%", "a number with a percent sign"),
        ("#N/A", "which seems to stand for a missing one"),
        (">100", "a limit, not a number"),
        ("5.2 nM", "a number with a unit"),
        ("1_000", "which is not a finite number up to 1e18"),
    ],
)
def test_a_label_that_is_not_a_value_is_rejected_with_the_reason(rejected, label, why):
    with rejected(f"row '2' has the label {label!r}, {why}; correct it, or pass `task` classification", line=3):
        targets_of(table("1.5", label, "2.5", "3.5"), "regression")


@pytest.mark.parametrize(
    ("labels", "example", "what"),
    [
        (["5.25 nM", "1.5 nM", "10 nM", "0.1 \u00b5M"], "0.1 \u00b5M", "a number with a unit"),
        (["1.5kcal/mol", "2.5kcal/mol", "3"], "1.5kcal/mol", "a number with a unit"),
        ([">100", "<0.1", "~3", "\u2265 5", ">100 nM"], "<0.1", "a limit, not a number"),
        (["1.5", "2.5", ">10"], ">10", "a limit, not a number"),
        (["0.5\u00b10.1", "0.5 +/- 0.2", "0.5 (0.1)"], "0.5 (0.1)", "a number with its error"),
        (["3-5", "6-8", "1..2"], "1..2", "a range, not a number"),
        (["'0.5", "'1.5", "'2"], "'0.5", "a number after an apostrophe"),
        (["2021-03-01", "1.3.2021", "03/01/2021"], "03/01/2021", "a date"),
    ],
)
def test_numbers_with_annotations_are_rejected_with_a_description(rejected, labels, example, what):
    message = f"different labels, such as {example!r}, {what}; write plain numbers if they are values, or pass `task`"

    with rejected(f"{message.replace('or pass', 'pass')} classification if they are classes nonetheless"):
        targets_of(table(*labels, *labels[:2]), "classification")


@pytest.mark.parametrize(
    "labels", [["1.1.1.1", "1.1.1.2", "2.7.1.-"], ["1AKI", "1A8O", "1EJG"], ["P1 kinase", "2 x", "x"]]
)
def test_codes_that_begin_with_a_digit_are_not_described_as_numbers(labels):
    with pytest.raises(TableError, match=f"3 different labels, such as '{min(labels)}'; pass `task` classification"):
        targets_of(table(*labels, *labels))


def test_secondary_structures_with_blanks_are_rejected_with_a_description(rejected):
    found = "different labels, such as 'EE TT EE', a secondary structure with blanks"

    with rejected(f"{found}; write a letter such as C for each residue without any"):
        targets_of(table("HHH  HHH", "EE TT EE", "HH HH", "T T", "H"), "classification")


def test_residue_labels_of_the_wrong_length_are_rejected_with_a_description(rejected):
    sequences = ["MKTAYIAK", "MAYWPQRK", "MCCDEFGH", "MLLKRSTV", "MKTAYIAW"]
    labels = ["HHHHHEEE*", "HHHEEEEE*", "EEEEEEHH*", "EHEHEHEH*", "HHHHHHHH*"]

    with rejected("3 different labels, such as 'EEEEEEHH*', which has 9 entries for 8 residues; pass `task`"):
        targets_of(table(*labels, sequences=sequences), "classification")


def test_a_mistake_among_values_does_not_make_them_classes(rejected):
    values = [str(row / 7) for row in range(30)]

    with rejected("row '31' has the label 'n/a'", line=32):
        targets_of(table(*values, "n/a", "0.5"))


def test_a_mistake_among_values_of_residues_does_not_make_them_classes(rejected):
    values = [";".join(f"{row + residue / 100}" for residue in range(8)) for row in range(4)]

    with rejected("row '4' has the label 'O.5' at residue 2", line=5):
        targets_of(residues(*values[:3], values[3].replace("3.01", "O.5")))


# Properties of any labels

# Without `-0`, another name of the number 0.
NAMES = st.text("abcxyzGO:0123456789-", min_size=1, max_size=6).filter(lambda name: name != "-0")
VALUES = st.floats(-1e17, 1e17, allow_nan=False)


def spread(labels):
    """Repeat each label twice for training, and add two for validation and test."""
    return [*labels, *labels, labels[0], labels[-1]]


@pytest.mark.promise(24)
@given(names=st.lists(NAMES, min_size=2, max_size=6, unique=True))
def test_any_classes_can_be_recovered_from_their_targets(names):
    targets = targets_of(table(*spread(names)), "classification")

    assert sorted(targets.classes) == sorted(names)
    read = [targets.classes[int(target)] for split in SPLITS for target in targets.targets[split]]
    assert read == spread(names)


@pytest.mark.promise(24)
@given(sets=st.lists(st.sets(NAMES, min_size=1, max_size=4), min_size=2, max_size=5))
def test_any_sets_of_labels_can_be_recovered_from_their_targets(sets):
    targets = targets_of(table(*(";".join(sorted(names)) for names in spread(sets))), "multilabel")

    rows = [target for split in SPLITS for target in targets.targets[split]]
    assert [{targets.classes[index] for index in target.nonzero()[0]} for target in rows] == spread(sets)


@pytest.mark.promise(24)
@given(values=st.lists(VALUES, min_size=2, max_size=8, unique=True))
def test_any_values_are_read_exactly_or_rejected_as_too_similar(values):
    try:
        targets = targets_of(table(*map(repr, spread(values))), "regression")
    except TableError as error:
        assert "the training labels differ by only" in str(error)
        assert np.ptp(values) < max(1e-3 * np.abs(values).max(), 1e-28)
    else:
        assert [float(target) for split in SPLITS for target in targets.targets[split]] == spread(values)


@pytest.mark.promise(24)
@given(data=st.data(), letters=st.sampled_from(["HEC", "01", "ab"]))
def test_any_residue_classes_can_be_recovered_unless_masked(data, letters):
    labels = ["".join(data.draw(st.permutations(letters * 4)))[:8] for _ in SEQUENCES]
    masks = [data.draw(st.text("01", min_size=8, max_size=8)) for _ in SEQUENCES]
    try:
        targets = targets_of(residues(*labels, masks=masks), "residue-classification")
    except TableError:
        return  # the training split has too few classes

    rows = [target for split in SPLITS for target in targets.targets[split]]
    for label, mask, target in zip(labels, masks, rows, strict=True):
        assert [flag == "1" for flag in mask] == (target != UNKNOWN_CLASS).tolist()
        unmasked = [(letter, index) for letter, flag, index in zip(label, mask, target, strict=True) if flag == "1"]
        assert all(targets.classes[index] == letter for letter, index in unmasked)
