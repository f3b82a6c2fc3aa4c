from dataclasses import replace

import pytest

from protembed.config.common import TASKS, Region
from protembed.data.fasta import ReadStatistics, read_fasta
from protembed.data.windows import cut_records
from protembed.embedding.selection import Selection
from protembed.errors import FormatError, TableError, TooShortError
from protembed.finetuning.labels import LabelledProtein, LabelledTable, SplitTable
from protembed.finetuning.targets import TaskTable, cut_table

CLASSES, VALUES = TASKS["residue-classification"], TASKS["residue-regression"]


@pytest.fixture
def fasta(tmp_path):
    path = tmp_path / "x.fasta"
    path.write_text(">a\nMKTAYI\n>b\nMKT\n>c\nMKTAYIAKQR\n")
    return path


def cut(fasta, region, on_illegal="error"):
    statistics = ReadStatistics()
    records = read_fasta([fasta], on_illegal=on_illegal, statistics=statistics)
    return list(cut_records(records, region, on_illegal, statistics)), statistics


def test_cutting_to_a_region_keeps_and_counts_its_residues_only(fasta):
    parts, statistics = cut(fasta, Region(2, 5))

    assert [(part.row, part.id, part.sequence) for part in parts] == [
        (0, "a", "KTAY"),
        (1, "b", "KT"),
        (2, "c", "KTAY"),
    ]
    assert (statistics.num_records, statistics.num_residues) == (3, 10)


def test_cutting_without_a_region_leaves_records_unchanged(fasta):
    assert cut(fasta, None)[0] == list(read_fasta([fasta]))


def test_a_protein_that_ends_before_the_region_raises_an_error_with_its_name(fasta):
    with pytest.raises(TooShortError, match="x.fasta, line 3: 'b' has 3 residues, and `region` begins at residue 4"):
        cut(fasta, Region(4, None))


def test_skipping_a_protein_that_ends_before_the_region_lists_it_and_renumbers_rows(fasta):
    parts, statistics = cut(fasta, Region(4, None), "skip")

    assert [(part.row, part.id, part.sequence) for part in parts] == [(0, "a", "AYI"), (1, "c", "AYIAKQR")]
    assert [(record.id, record.line, record.reason) for record in statistics.skipped] == [
        ("b", 3, "3 residues, and the region begins at residue 4")
    ]
    assert (statistics.num_records, statistics.num_residues) == (2, 10)


def test_a_region_beyond_every_protein_is_an_error_in_fasta_selections_and_tables(fasta):
    message = r"x.fasta: every record was left out, the first, 'a', in line 1: .* residue 11; choose another `region`$"
    selection = Selection(on_illegal="skip", long_proteins="skip", window_residues=4, region=Region(11, None))
    proteins = [LabelledProtein(id="a", sequence="MKTAYI", label="x", split="train", line=1)]
    table = LabelledTable(path="x.fasta", target="target", proteins=proteins)

    with pytest.raises(FormatError, match=message):
        cut(fasta, Region(11, None), "skip")
    with pytest.raises(FormatError, match=message):
        list(selection.read([fasta], ReadStatistics()))
    with pytest.raises(FormatError, match=message):
        cut_table(table, Region(11, None), TASKS["classification"], "skip", ReadStatistics())


def test_the_policy_for_long_proteins_applies_after_cutting_to_the_region(fasta):
    selection = Selection(on_illegal="error", long_proteins="error", window_residues=4, region=Region(1, 4))

    assert [record.sequence for record in selection.read([fasta], ReadStatistics())] == ["MKTA", "MKT", "MKTA"]


# Labels


def table_of(label, mask=None, sequence="MKTAY"):
    protein = LabelledProtein(id="p", sequence=sequence, label=label, split="train", line=2, mask=mask)
    return LabelledTable(path="x.csv", target="label", proteins=[protein])


def cut_labels(table, region, task):
    (protein,) = cut_table(table, region, task, "error", ReadStatistics()).proteins
    return protein


def test_cutting_to_a_region_leaves_labels_of_proteins_unchanged():
    protein = cut_labels(table_of("in;out"), Region(2, 3), TASKS["multilabel"])

    assert (protein.sequence, protein.label) == ("KT", "in;out")


@pytest.mark.parametrize(
    ("label", "mask", "expected"),
    [
        ("HHEEC", None, "HE"),
        ("H;H;E;E;C", "11111", "HE"),
        ("H H E E C", "1;1;0;1;1", "H-"),
        ("HHEEC", "10111", "-E"),
    ],
    ids=["letters", "a list", "a list and its mask", "letters and their mask"],
)
def test_labels_and_masks_of_residues_are_cut_with_the_sequence(label, mask, expected):
    whole = table_of(label, mask).proteins[0]
    part = cut_labels(table_of(label, mask), Region(2, 3), CLASSES)

    # The whole protein beside it keeps both classes in the training split.
    splits = {"train": [whole, part], "valid": [], "test": []}
    targets = TaskTable.from_table(SplitTable(path="x.csv", target="label", splits=splits), CLASSES)
    numbers = {name: number for number, name in enumerate(targets.classes)}
    assert part.sequence == "KT"
    assert targets.targets["train"][1].tolist() == [numbers.get(name, -1) for name in expected]


@pytest.mark.parametrize(("region", "values"), [(Region(2, 2), [21.5]), (Region(4, None), [4.0, 55.0])])
def test_values_of_residues_are_cut_with_the_sequence_even_to_one_residue(region, values):
    table = table_of("1;21.5;3;4;55")
    splits = {"train": [table.proteins[0], cut_labels(table, region, VALUES)], "valid": [], "test": []}

    targets = TaskTable.from_table(SplitTable(path="x.csv", target="label", splits=splits), VALUES)

    assert targets.targets["train"][1].tolist() == values


@pytest.mark.parametrize(("label", "mask"), [("HHEE", None), ("HHEEC", "1111")])
def test_cutting_labels_whose_number_differs_from_that_of_residues_is_an_error(label, mask):
    with pytest.raises(TableError, match=r"has a (label|mask) of 4 for 5 residues"):
        cut_labels(table_of(label, mask), Region(1, 3), CLASSES)


def test_a_row_that_ends_before_the_region_is_an_error_or_skipped():
    with pytest.raises(TooShortError, match="line 2: 'p' has 5 residues"):
        cut_labels(table_of("x"), Region(6, 9), TASKS["classification"])

    statistics, longer = ReadStatistics(), LabelledProtein(id="q", sequence="MKTAYI", label="y", split="train", line=3)
    table = replace(table_of("x"), proteins=[*table_of("x").proteins, longer])
    remaining = cut_table(table, Region(6, 9), TASKS["classification"], "skip", statistics).proteins
    assert [(protein.id, protein.sequence) for protein in remaining] == [("q", "I")]
    assert [record.id for record in statistics.skipped] == ["p"]
