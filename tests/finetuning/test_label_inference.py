import json
import re

import pytest
from hypothesis import assume, given, strategies as st

from protembed.errors import TableError
from protembed.finetuning.label_cells import residue_entries
from protembed.finetuning.label_inference import infer_labels
from protembed.finetuning.labels import LabelledProtein, LabelledTable
from protembed.finetuning.targets import label_set
from protembed.io.tables import read_number

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"


def sequence(row, length):
    """Make a different sequence for each row."""
    return "".join(AMINO_ACIDS[(row // 20**position + position) % 20] for position in range(length))


def column(*labels, length=40, masks=None):
    masks = masks or [None] * len(labels)
    proteins = [
        LabelledProtein(id=f"p{row}", sequence=sequence(row, length), label=label, split=None, line=row + 2, mask=mask)
        for row, (label, mask) in enumerate(zip(labels, masks, strict=True))
    ]
    return LabelledTable(path="labels.csv", target="target", proteins=proteins)


def infer(*labels, choice="auto", separator=None, **options):
    return infer_labels(column(*labels, **options), choice, separator)


def normalized(inferred):
    return [protein.label for protein in inferred.labels.proteins]


def classes_of(inferred):
    return set().union(*(label_set(protein, inferred.task) for protein in inferred.labels.proteins))


# Lists of residues

ROWS = [[1, 0, 1, 1, 0], [0, 0, 0, 1, 1], [1, 1, 1, 0, 0]]
LISTS = {
    "JSON": json.dumps,
    "Python": lambda row: repr(list(map(str, row))),
    "Python of NumPy's numbers": lambda row: "[" + ", ".join(f"np.int64({value})" for value in row) + "]",
    "NumPy": lambda row: "[" + " ".join(map(str, row)) + "]",
    "NumPy over two lines": lambda row: "[" + "\n ".join(map(str, row)) + "]",
    "NumPy's floats": lambda row: "[" + " ".join(f"{value}." for value in row) + "]",
    "array": lambda row: f"array({row}, dtype=int8)",
    "tuple": lambda row: str(tuple(row)),
    "MATLAB": lambda row: "[" + ";".join(map(str, row)) + "]",
    "commas and spaces": lambda row: ", ".join(map(str, row)),
    "commas": lambda row: ",".join(map(str, row)),
    "a comma at the end": lambda row: "".join(f"{value}," for value in row),
    "bars": lambda row: "|".join(map(str, row)),
    "semicolons": lambda row: ";".join(map(str, row)),
    "spaces": lambda row: " ".join(map(str, row)),
    "letters": lambda row: "".join(map(str, row)),
    "floats": lambda row: str([float(value) for value in row]),
}


@pytest.mark.parametrize("form", LISTS.values(), ids=LISTS)
def test_labels_of_residues_are_read_the_same_in_every_form_of_a_list(form):
    inferred = infer(*map(form, ROWS), length=5)

    assert inferred.task.name == "residue-classification"
    assert classes_of(inferred) == {"0", "1"}
    assert [residue_entries(label) for label in normalized(inferred)] == [list(map(str, row)) for row in ROWS]


@pytest.mark.parametrize("form", LISTS.values(), ids=LISTS)
def test_masks_are_read_the_same_in_every_form_of_a_list(form):
    inferred = infer("HHEEC", "HEHEC", "CCCHH", length=5, masks=list(map(form, ROWS)))

    assert [residue_entries(protein.mask) for protein in inferred.labels.proteins] == [
        list(map(str, row)) for row in ROWS
    ]


def test_a_mask_of_true_and_false_is_read():
    inferred = infer(
        "HHEEC", "HEHEC", length=5, masks=["[True, False, True, True, False]", "True False True True True"]
    )

    assert [protein.mask for protein in inferred.labels.proteins] == ["10110", "10111"]


def test_lists_of_values_are_residue_regression():
    inferred = infer("[0.25, 0.5, 1, 2, null]", "0.1, 0.2, 0.3, 0.4, 0.5", "[1. 2. 3. 4. nan]", length=5)

    assert inferred.task.name == "residue-regression"
    assert normalized(inferred) == ["0.25;0.5;1;2;nan", "0.1;0.2;0.3;0.4;0.5", "1.;2.;3.;4.;nan"]


def test_quoted_entries_keep_their_spaces_and_quotation_marks():
    label = '["5\' end", "alpha helix", \'b"c\', "coil", "coil"]'

    assert residue_entries(label) == ["5' end", "alpha helix", 'b"c', "coil", "coil"]
    assert infer(label, "[a, b, c, d, coil]", length=5).task.name == "residue-classification"


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("[0, 1, 1", "begins with '[' but is not a complete list"),
        ("[[0, 1], [1, 0]]", "begins with '[' but is not a complete list"),
        ("['a, b]", "begins with '[' but is not a complete list"),
        ("[2Fe-2S] ferredoxin", "begins with '[' but is not a complete list"),
        ("[0 0 1 ... 1 0 0]", "which is abbreviated by '...'"),
    ],
)
@pytest.mark.parametrize("choice", ["auto", "classification", "residue-classification"])
def test_an_incomplete_list_is_rejected_with_its_line(rejected, label, message, choice):
    with rejected(message, line=4):
        infer("[0, 1]", "[1, 0]", label, choice=choice)


@pytest.mark.parametrize("separator", [";", ",", "|"])
def test_lists_of_the_wrong_length_are_rejected_not_read_as_label_sets(rejected, separator):
    with rejected("row 'p0' has 6 labels for 5 residues, some of them repeated; give each residue one", line=2):
        infer(*[separator.join("011010")] * 3, length=5)


def test_several_values_of_a_protein_are_rejected(rejected):
    with rejected(
        "row 'p0' has the label '[0.1, 2.5]', which holds several values; give a column with one value", line=2
    ):
        infer("[0.1, 2.5]", "[0.3, 1.5]", "[0.2, 3.5]")


# Names as long as peptides


@pytest.mark.parametrize(
    ("labels", "length", "task"),
    [
        (["HLA-A0201", "HLA-B0702"] * 10, 9, "classification"),
        (["membrane", "cytosole"] * 10, 8, "classification"),
        (["binder", "nonbin"] * 10, 6, "classification"),
        (["50000", "5E-05"] * 10, 5, "regression"),
        ([str(54321 + 7 * row) for row in range(30)], 5, "regression"),
        ([f"{row:05b}" for row in range(20)], 5, "residue-classification"),
        ([f"1{row:05b}" for row in range(20)], 6, "residue-classification"),
        (["HHEEC" * 20, "HHECC" * 20] * 10, 100, "residue-classification"),
    ],
)
def test_recurring_labels_as_long_as_peptides_are_names_or_numbers(labels, length, task):
    assert infer(*labels, length=length).task.name == task


def test_labels_as_long_as_peptides_give_a_warning_with_the_other_task():
    names = infer(*["binder", "nonbin"] * 10, length=6)
    residues = infer(*[f"{row:06b}" for row in range(20)], length=6)
    proteins = infer(*[f"{row:060b}" for row in range(20)], length=60)

    assert names.warnings == [
        "the labels have as many letters as the sequences have residues (6), and were read as names or numbers: "
        "if each letter labels a residue, pass --task residue-classification"
    ]
    assert len(residues.warnings) == 1 and residues.warnings[0].endswith("pass --task classification")
    assert proteins.warnings == []


# Several labels


@pytest.mark.parametrize(
    ("labels", "separator"),
    [
        (["nucleus", "cytosol", "nucleus, cytosol", "cytosol, nucleus"], None),
        (["nucleus", "cytosol", "nucleus,cytosol", "cytosol,nucleus,"], None),
        (["nucleus", "cytosol", "nucleus|cytosol", "cytosol | nucleus"], None),
        (['["nucleus"]', "['cytosol']", '["nucleus", "cytosol"]', "{'cytosol', 'nucleus'}"], None),
        (["[nucleus]", "cytosol", "[nucleus, cytosol]", "[cytosol nucleus]"], None),
        (["nucleus", "cytosol", "nucleus;cytosol", "cytosol;nucleus"], None),
        (["nucleus", "cytosol", "nucleus / cytosol", "cytosol/nucleus"], "/"),
    ],
)
def test_several_labels_are_read_the_same_with_any_separator(labels, separator):
    inferred = infer(*labels, separator=separator)

    sets = [label_set(protein, inferred.task) for protein in inferred.labels.proteins]
    assert inferred.task.name == "multilabel"
    assert sets == [{"nucleus"}, {"cytosol"}, {"nucleus", "cytosol"}, {"nucleus", "cytosol"}]


def test_multi_hot_lists_are_the_positions_of_their_ones():
    inferred = infer("[0, 1, 0]", "[1, 0, 0]", "[1, 1, 0]", "[0, 0, 0]")

    assert inferred.task.name == "multilabel"
    assert normalized(inferred) == ["1", "0", "0;1", ""]


def test_two_positions_that_may_be_two_names_are_rejected(rejected):
    with rejected("'[0, 1]', which may be the labels 0 and 1, or one of two positions", line=3):
        infer("[1, 0]", "[0, 1]")


def test_multi_hot_lists_with_one_label_each_give_a_warning():
    assert "each protein has exactly one label" in infer("[0, 1, 0]", "[1, 0, 0]", "[0, 0, 1]").warnings[0]


def test_names_with_a_separator_are_classes_with_a_warning():
    inferred = infer(*["Kinase, serine", "Kinase, tyrosine", "Lyase"] * 5)

    assert inferred.task.name == "classification"
    assert inferred.warnings == [
        "labels such as 'Kinase, serine' look like several labels separated by ',': "
        "if they are, pass --label-separator ','"
    ]
    assert infer(*["2,3-PGA", "pyruvate"] * 5).warnings == []
    assert "separated by '/'" in infer("a", "b", "a/b", "b/a").warnings[0]


def test_a_label_that_contains_the_separator_of_predictions_is_rejected(rejected):
    with rejected("row 'p1' has the label 'b;c', which holds ';'", line=3):
        infer("a,b", "a,b;c", separator=",")


@pytest.mark.parametrize("label", ["nucleus,", "[nucleus, cytosol]", "['nucleus,']"])
def test_a_class_that_is_a_list_or_part_of_one_is_rejected(rejected, label):
    with rejected("which is a list or part of one", line=2):
        infer(label, "cytosol", choice="classification")


# Numbers


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["0.0", "1.0"] * 4, {"0", "1"}),
        (["0", "1.0", "0.0", "1"] * 4, {"0", "1"}),
        (["0.", "1e0", "+1", "0"] * 4, {"0", "1"}),
        (["0.0", "1.0", "nan"] * 4, {"0", "1", "nan"}),
        (["+1", "-1"] * 4, {"+1", "-1"}),
        (["01", "02", "1"] * 4, {"01", "02", "1"}),
        ([f"{row:03d}" for row in range(50)] * 2, {f"{row:03d}" for row in range(50)}),
        (["1_1", "1_2", "2_1"] * 4, {"1_1", "1_2", "2_1"}),
        (["9007199254740993", "9007199254740992"] * 4, {"9007199254740993", "9007199254740992"}),
    ],
)
def test_whole_numbers_in_any_notation_are_classes(labels, classes):
    inferred = infer(*labels)

    assert inferred.task.name == "classification"
    assert set(normalized(inferred)) == classes
    assert inferred.warnings == []


def test_numbers_with_a_fraction_keep_their_names_as_classes():
    assert set(normalized(infer(*["1.0", "1.5"] * 4, choice="classification"))) == {"1.0", "1.5"}


@pytest.mark.parametrize(
    ("labels", "what"),
    [
        (["1.1", "2.7", "3.4"] * 4, "3 different numbers"),
        ([str(row % 30) for row in range(60)], "30 different whole numbers"),
    ],
)
def test_numbers_that_recur_like_classes_are_values_with_a_warning(labels, what):
    inferred = infer(*labels)

    assert inferred.task.name == "regression"
    assert inferred.warnings == [
        f"the labels are {what}, read as values: if they are classes, pass --task classification"
    ]


def test_values_that_do_not_recur_give_no_warning():
    assert infer(*(str(row) for row in range(40))).warnings == []
    assert infer(*(str(row / 7) for row in range(40))).warnings == []


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        (["0,5", "1,0", "1,5"], "a decimal comma"),
        ([f"0,{row:03d}" for row in range(40)] + ["0,5"], "a decimal comma"),
        (["1,142", "2,500", "312"], "thousands separators"),
        (["1,142,000.5", "312"], "thousands separators"),
        (["1.142,5", "2.142,5"], "thousands separators"),
        (["1 142", "2\u202f500", "3\xa0000,5"], "thousands separators"),
        (["1'142", "2\u2019500", "312"], "thousands separators"),
        (["45%", "7 %", "12.5%"], "a percent sign"),
        (["\u22120.3", "0.3", "1.5"], "a non-ASCII minus sign"),
        (["\u2013 0.3", "0.3", "1.5"], "a non-ASCII minus sign"),
        (["0,5", "0.5", "#N/A"], "a decimal comma"),
    ],
)
def test_numbers_in_an_unusual_notation_are_rejected_by_name(labels, kind):
    with pytest.raises(
        TableError, match=rf"line \d+: labels such as .* look like numbers with {kind}; write plain numbers"
    ):
        infer(*labels)


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        ("{} ± 0.3", "a number with its error"),
        ("{} nM", "a number with a unit"),
        (">{}", "a limit, not a number"),
        ("{}-99", "a range, not a number"),
    ],
)
def test_many_numbers_with_something_else_are_rejected_and_few_may_be_classes(rejected, form, kind):
    labels = [form.format(value) for value in range(21)]

    with rejected(f"the labels seem to be numbers, but {labels[0]!r} is {kind}; write plain numbers", line=2):
        infer(*labels)
    assert infer(*labels[:20]).task.name == infer(*labels, choice="classification").task.name == "classification"


def test_residue_values_with_a_decimal_comma_are_rejected(rejected):
    for separator in ("; ", " "):
        with rejected("labels such as '0,1' look like numbers with a decimal comma", line=2):
            infer(*[separator.join(["0,1", "0,2", "0,3", "0,4", "0,5"])] * 3, length=5)


def test_numbers_in_an_unusual_notation_are_names_on_request():
    assert set(normalized(infer("0,5", "1,0", choice="classification"))) == {"0,5", "1,0"}


def test_labels_of_residues_without_their_leading_zeros_are_rejected(rejected):
    flags = [f"{row * 37 % 512:09b}" for row in range(40)]
    numbers = [str(int(label)) for label in flags]

    assert infer(*flags, length=9).task.name == "residue-classification"
    with rejected("row 'p0' has the label '0' for 9 residues; its leading zeros seem to be lost", line=2):
        infer(*numbers, length=9)
    assert infer(*numbers, length=9, choice="regression").task.name == "regression"
    assert infer(*numbers[1:], "2", length=9).task.name == "regression"


def test_several_labels_are_normalized_as_in_predictions():
    assert normalized(infer("GO:2; GO:1", "GO:1;", "GO:2;GO:1", "")) == ["GO:1;GO:2", "GO:1", "GO:2;GO:1", ""]


def test_a_second_separator_gives_a_warning():
    assert infer("a;b", "a,b", "a", "b").warnings == [
        "labels such as 'a,b' look like several labels separated by ',', and others have another separator: "
        "if they are, separate all by ';'"
    ]
    assert infer("a;b", "Kinase, serine", "Kinase, tyrosine;a", "b").warnings == []


# How cells were read


def test_the_reading_shows_how_three_cells_were_read():
    long = "HHEEC" * 14
    assert infer(long, "HEEEC" * 14, length=70).reading == (
        f"read '{long[:20]}…' as 70 residue classes H H E E C …, '{'HEEEC' * 4}…' as 70 residue classes H E E E C …"
    )
    assert infer("b, a", "a", "b", "a, b").reading == (
        "read 'b, a' as 2 labels a; b, 'a' as 1 label a, 'b' as 1 label b"
    )
    assert infer("0.0", "1.0", "0.0").reading == "read '0.0' as class 0, '1.0' as class 1"
    assert infer("1.50", "2.25", "3.5", "4.5").reading == (
        "read '1.50' as value 1.5, '2.25' as value 2.25, '3.5' as value 3.5"
    )
    assert infer("", "a", "b", "c").reading == "read 'a' as class a, 'b' as class b, 'c' as class c"
    assert infer("a;b", "", "a").reading == "read 'a;b' as 2 labels a; b, '' as no label, 'a' as 1 label a"


# Properties of any labels

NAME = st.from_regex(re.compile(r"[a-z][a-z0-9_-]{0,5}"), fullmatch=True).filter(
    lambda name: name not in ("nan", "na", "null", "none")
)
CELLS = st.one_of(
    NAME,
    st.integers(-30, 30).map(str),
    st.floats(-9, 9).map(repr),
    st.lists(NAME, min_size=1, max_size=3).map(", ".join),
    st.lists(st.integers(0, 1), min_size=5, max_size=5).map(str),
    st.text("HEC", min_size=5, max_size=5),
    st.sampled_from(["", "0,5", "45%", "nan", "#N/A", "a|b", "a;b", "[a", "a,", "1_1", "(+)", "{a, b}"]),
)


def outcome(*labels, length=5):
    """Infer, and return what does not depend on the order of the rows: the task and classes, or an error."""
    try:
        inferred = infer(*labels, length=length)
    except TableError:
        return "error"
    return inferred.task.name, classes_of(inferred)


@pytest.mark.promise(24)
@given(data=st.data(), labels=st.lists(CELLS, min_size=2, max_size=12))
def test_the_order_of_the_rows_does_not_change_what_labels_are(data, labels):
    assert outcome(*data.draw(st.permutations(labels))) == outcome(*labels)


@pytest.mark.promise(24)
@given(labels=st.lists(CELLS, min_size=2, max_size=12))
def test_no_class_begins_with_a_bracket_or_ends_with_a_comma(labels):
    result = outcome(*labels)

    if result != "error":
        assert not any(name.startswith("[") or name.endswith(",") for name in result[1])


@pytest.mark.promise(24)
@given(labels=st.lists(CELLS, min_size=2, max_size=12))
def test_normalized_labels_are_unchanged_when_read_again(labels):
    try:
        inferred = infer(*labels, length=5)
    except TableError:
        return
    again = infer_labels(inferred.labels, inferred.task.name)

    assert classes_of(again) == classes_of(inferred)
    assert normalized(again) == normalized(inferred)


@pytest.mark.promise(24)
@given(data=st.data(), value=st.integers(-(10**6), 10**6))
def test_a_whole_number_is_one_class_in_all_notations(data, value):
    notations = [
        f"{value}.0",
        f"{value}.",
        f"{value}e0",
        f"{value}.00E+0",
        f"{value}",
        f"{value:+d}",
    ]
    labels = data.draw(st.permutations([*notations, "7000000", "7000000"]))
    assume(value != 7000000)

    assert {read_number(label) for label in labels} == {float(value), 7e6}
    assert outcome(*labels, length=40) == ("classification", {str(value), "7000000"})


@pytest.mark.promise(24)
@given(
    rows=st.lists(st.lists(NAME, min_size=6, max_size=6), min_size=2, max_size=6),
    forms=st.lists(st.sampled_from([name for name in LISTS if "floats" not in name and name != "letters"]), min_size=6),
)
def test_a_list_of_names_has_the_same_entries_in_every_form(rows, forms):
    for form in forms:
        if "numbers" in form:
            continue
        assert [residue_entries(LISTS[form](row)) for row in rows] == rows


@pytest.mark.promise(24)
@given(names=st.lists(st.text("ABCdef-_*:", min_size=9, max_size=9), min_size=2, max_size=4, unique=True))
def test_recurring_names_as_long_as_the_peptides_are_never_residue_labels(names):
    assert not infer(*names * 5, length=9).task.per_residue


@pytest.mark.promise(24)
@given(sets=st.lists(st.sets(st.sampled_from("abcde"), min_size=1), min_size=2, max_size=8), data=st.data())
def test_the_order_of_several_labels_in_a_cell_does_not_matter(sets, data):
    labels = [", ".join(sorted(names)) for names in sets]
    shuffled = [", ".join(data.draw(st.permutations(sorted(names)))) for names in sets]

    ordered, reordered = (infer(*cells, choice="multilabel") for cells in (labels, shuffled))

    assert normalized(ordered) == normalized(reordered) == [";".join(sorted(names)) for names in sets]
