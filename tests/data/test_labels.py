import gzip

import pytest

from protembed.data.fasta import ReadReport, read_fasta
from protembed.data.labels import Columns, class_names, infer_task, label_values, read_labels
from protembed.data.splits import hash_share
from protembed.errors import DataError, FormatError, IllegalResidueError, TableError

SPLITS = ("train", "valid", "test")
SMALL = "id,sequence,target,split\na,MKT,1.5,train\nb,MKV,2.5,train\nc,MAY,3.5,valid\nd,MCC,4.5,test\n"


@pytest.fixture
def read(tmp_path):
    """Write a table and read it."""

    def write_and_read(content, *, name="labels.csv", columns=None, **options):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_labels(path, columns or Columns(), **options)

    return write_and_read


def ids(table):
    return {split: [protein.id for protein in table.parts[split]] for split in SPLITS}


def rows(*labels):
    """Make a table of as many rows as labels; the last two are valid and test."""
    splits = ["train"] * (len(labels) - 2) + ["valid", "test"]
    lines = [f"MKT{'A' * row},{label},{split}" for row, (label, split) in enumerate(zip(labels, splits, strict=True))]
    return "\n".join(["sequence,target,split", *lines])


# Formats


FORMS = {
    "csv": SMALL.encode(),
    "tsv": SMALL.replace(",", "\t").encode(),
    "gz": gzip.compress(SMALL.encode()),
    "crlf": SMALL.replace("\n", "\r\n").encode(),
    "cr": SMALL.replace("\n", "\r").encode(),
    "byte-order mark": b"\xef\xbb\xbf" + SMALL.encode(),
    "blank lines": SMALL.replace("\nb", "\n\n,,,\nb").encode(),
    "no newline at the end": SMALL.rstrip().encode(),
    "quotes": SMALL.replace("MKT", '"MKT"').encode(),
    "spaces": SMALL.replace(",", " , ").encode(),
    "upper-case header": SMALL.replace("id,sequence,target,split", "ID,Sequence,TARGET,Split").encode(),
    "lower-case sequences": SMALL.replace("MKT", "mkt*").encode(),
    "fasta": b">a SET=train TARGET=1.5\nMK\nT\n>b TARGET=2.5 SET=train\nMKV\n"
    b">c SET=valid TARGET=3.5\nMAY\n>d SET=test TARGET=4.5 more\nMCC\n",
    "fasta with a byte-order mark": b"\xef\xbb\xbf>a SET=train TARGET=1.5\nMKT\n>b SET=train TARGET=2.5\nMKV\n"
    b">c SET=valid TARGET=3.5\nMAY\n>d SET=test TARGET=4.5\nMCC\n",
    "fasta of FLIP": b">a SET=train TARGET=1.5 VALIDATION=False\nMKT\n>b SET=train TARGET=2.5 VALIDATION=False\nMKV\n"
    b">c SET=train TARGET=3.5 VALIDATION=True\nMAY\n>d SET=test TARGET=4.5 VALIDATION=False\nMCC\n",
}


@pytest.mark.parametrize("content", FORMS.values(), ids=FORMS)
def test_the_same_table_is_read_in_every_form(read, content):
    table = read(content, name="table.anything")

    assert ids(table) == {"train": ["a", "b"], "valid": ["c"], "test": ["d"]}
    assert [protein.sequence for protein in table.proteins] == ["MKT", "MKV", "MAY", "MCC"]
    assert label_values(table) == {"train": [1.5, 2.5], "valid": [3.5], "test": [4.5]}
    assert table.target.lower() == "target"
    assert table.notes == []


def test_fields_of_a_fasta_header_are_whole_words(read):
    content = FORMS["fasta"].replace(b">a SET=train", b">a OFFSET=3 SET=train MYTARGET=9 SUBSET=x")

    assert label_values(read(content)) == {"train": [1.5, 2.5], "valid": [3.5], "test": [4.5]}


def test_rows_without_identifiers_are_named_by_their_number(read):
    table = read("target,sequence,split\n1,MKT,train\n2,MKV,valid\n3,MAY,test\n")

    assert ids(table) == {"train": ["1"], "valid": ["2"], "test": ["3"]}
    assert [protein.line for protein in table.proteins] == [2, 3, 4]


def test_tables_of_flip_mark_validation_in_a_column_of_its_own(read):
    header = "sequence,target,set,validation\n"
    table = read(header + "MKT,1,train,False\nMKV,2,train,True\nMKA,3,train,\nMAY,4,test,True\n")

    assert ids(table) == {"train": ["1", "3"], "valid": ["2"], "test": ["4"]}


def test_a_very_long_protein_is_read(read):
    assert len(read(SMALL.replace("MKT", "M" * 200_000)).parts["train"][0].sequence) == 200_000


def test_labels_and_identifiers_are_kept_as_they_stand(read):
    table = read('id,sequence,target,split\n"=cmd()",MKT,"a, ""b""",train\n../x,MKV,é,valid\nc,MAY,-1,test\n')

    assert [(protein.id, protein.label) for protein in table.proteins] == [
        ("=cmd()", 'a, "b"'),
        ("../x", "é"),
        ("c", "-1"),
    ]


# Columns


def test_columns_can_be_named(read):
    table = read(
        "sequence,target,split,seq2,stability,part\nX,1,test,MKT,5,train\nX,1,test,MKV,6,dev\nX,1,test,MAY,7,test\n",
        columns=Columns(target="stability", sequence="seq2", split="part"),
    )

    assert table.target == "stability"
    assert [(protein.sequence, protein.label, protein.split) for protein in table.proteins] == [
        ("MKT", "5", "train"),
        ("MKV", "6", "valid"),
        ("MAY", "7", "test"),
    ]


def test_label_and_set_are_usual_names_too(read):
    table = read("label,sequence,set\n1,MKT,train\n2,MKV,valid\n3,MAY,test\n")

    assert (table.target, [protein.label for protein in table.proteins]) == ("label", ["1", "2", "3"])


@pytest.mark.parametrize(
    ("word", "split"),
    [("Train", "train"), ("training", "train"), ("VAL", "valid"), ("dev", "valid"), ("validation", "valid")],
)
def test_splits_have_several_spellings(read, word, split):
    table = read(SMALL + f"e,MWW,1,{word}\n")

    assert table.parts[split][-1].id == "e"


# Splits


def without_split(proteins, *, copies=1):
    lines = [f"{sequence},{row % 2}" for row, sequence in enumerate(proteins * copies)]
    return "\n".join(["sequence,target", *lines])


def test_a_table_without_splits_is_divided_by_sequence_hash(read, proteins):
    table = read(without_split(proteins))

    assert ids(table) == {
        "train": [str(row) for row, protein in enumerate(proteins, start=1) if hash_share(protein) >= 0.2],
        "valid": [str(row) for row, protein in enumerate(proteins, start=1) if 0.1 <= hash_share(protein) < 0.2],
        "test": [str(row) for row, protein in enumerate(proteins, start=1) if hash_share(protein) < 0.1],
    }
    assert ["no split column" in note for note in table.notes] == [True]


def test_a_table_without_a_validation_part_holds_a_tenth_of_train_out(read, proteins):
    lines = [f"{protein},{row % 2},train" for row, protein in enumerate(proteins)]

    table = read("\n".join(["sequence,target,split", *lines, "MKT,1,test"]))

    assert ids(table)["valid"] == [str(row) for row, protein in enumerate(proteins, 1) if hash_share(protein) < 0.1]
    assert len(table.parts["train"]) + len(table.parts["valid"]) == len(proteins)
    assert ids(table)["test"] == ["41"]
    assert ["no validation part" in note for note in table.notes] == [True]


def test_copies_of_a_sequence_are_never_parted_by_hash(read, proteins):
    table = read(without_split(proteins, copies=3))

    parts = [{protein.sequence for protein in table.parts[split]} for split in SPLITS]
    assert sum(map(len, parts)) == len(set(proteins))
    assert len(table.proteins) == 3 * len(proteins)


def test_test_sequences_that_also_stand_in_train_are_noted(read):
    table = read(SMALL + "e,MKT,1,test\n")

    assert table.notes == ["1 of 2 test sequences also stand in train"]


# Illegal residues and the report


def test_illegal_residues_are_masked_or_their_rows_skipped_on_request(read):
    content = SMALL + "e,MK1,5.5,train\n"
    masked_report, skipped_report = ReadReport(), ReadReport()

    masked = read(content, on_illegal="mask", report=masked_report)
    skipped = read(content, on_illegal="skip", report=skipped_report)

    assert masked.parts["train"][-1].sequence == "MKX"
    assert masked_report.num_masked == 1
    assert ids(skipped)["train"] == ["a", "b"]
    assert [(record.id, record.line) for record in skipped_report.refused] == [("e", 6)]
    assert (masked_report.num_records, skipped_report.num_records) == (5, 4)
    assert skipped_report.num_residues == 12


def test_a_labelled_fasta_has_the_same_report_as_a_fasta(tmp_path, read):
    report, plain = ReadReport(), ReadReport()
    read(FORMS["fasta"], name="labels.fasta", report=report)

    list(read_fasta([tmp_path / "labels.fasta"], report=plain))

    assert report == plain


# Tasks


@pytest.mark.parametrize(
    ("labels", "task"),
    [
        (["a", "b", "a", "b"], "classification"),
        (["0", "1", "0", "1"], "classification"),
        (["-1", "+1", "-1", "1"], "classification"),
        ([*map(str, range(20)), "0", "1"], "classification"),
        ([*map(str, range(21)), "0", "1"], "regression"),
        (["0.5", "1", "1", "1"], "regression"),
        (["1e3", "1", "1", "1"], "regression"),
        (["1", "2", "x", "1", "2"], "classification"),
        (["1.5", "2.5", "1", "x"], "regression"),
    ],
)
def test_the_training_labels_tell_classes_from_values(read, labels, task):
    assert infer_task(read(rows(*labels))) == task


def test_classes_are_sorted_numbers_by_size_and_names_by_letter(read):
    assert class_names(read(rows(*["10", "9", "-1"] * 2, "9", "10"))) == ("-1", "9", "10")
    assert class_names(read(rows(*["b", "a", "C"] * 2, "b", "a"))) == ("C", "a", "b")


# Tables that are refused


BAD = {
    "an empty file": ("", 1, "the first line is empty"),
    "an empty first line": ("\n" + SMALL, 1, "the first line is empty"),
    "a header alone": ("sequence,target\n", None, "the table has no rows"),
    "blank rows alone": ("sequence,target\n\n,\n", None, "the table has no rows"),
    "no sequence column": ("seq,target\nMKT,1\n", 1, "no sequence column among 'seq', 'target'"),
    "no target column": ("sequence,y\nMKT,1\n", 1, "no target column among 'sequence', 'y'"),
    "another delimiter": (SMALL.replace(",", ";"), 1, "no sequence column among 'id;sequence;target;split'"),
    "a column twice": ("sequence,target,target\nMKT,1,1\n", 1, "the header has 2 columns named 'target'"),
    "too few cells": (SMALL + "e,MKT\n", 6, "this row has 2 cells, the header 4"),
    "too many cells": (SMALL + "e,MKT,1,000,train\n", 6, "this row has 5 cells, the header 4"),
    "a stray quote": (SMALL + 'e,"MKT,1,train\nf,MKT,1,train\n', 7, "this row has 2 cells, the header 4"),
    "a stray quote in a large table": (SMALL + 'e,"MKT,1,train\n' + "f,MKT,1,train\n" * 20_000, None, ""),
    "no label": (SMALL + "e,MKT, ,train\n", 6, "row 'e' has no label"),
    "no sequence": (SMALL + "e,*,1,train\n", 6, "row 'e' has no sequence"),
    "no split": (SMALL + "e,MKT,1,\n", 6, "the split '' is unknown"),
    "an unknown split": (SMALL + "e,MKT,1,holdout\n", 6, "the split 'holdout' is unknown"),
    "an illegal residue": (SMALL + "e,mk t1,1,train\n", 6, "'1' in column 4 of record 'e' is no amino acid"),
    "no training part": (SMALL.replace("train", "valid"), None, "there is no train part"),
    "no test part": (SMALL.replace("test", "train"), None, "there is no test part"),
    "too few to divide": ("sequence,target\nMKT,1\n", None, "there is no valid part"),
    "a spreadsheet": (b"PK\x03\x04" + bytes(range(256)), 1, "no sequence column"),
    "a label without FASTA's TARGET": (">a SET=train\nMKT\n", 1, "the header of 'a' has no TARGET="),
    "an unknown SET": (">a TARGET=1 SET=train\nMKT\n>b TARGET=2 SET=x\nMKT\n", 3, "the split 'x' is unknown"),
}


@pytest.mark.parametrize(("content", "line", "message"), BAD.values(), ids=BAD)
def test_a_bad_table_is_refused_with_one_sentence_and_its_line(read, content, line, message):
    with pytest.raises(DataError) as caught:
        read(content)

    text = str(caught.value)
    assert message in text
    assert "\n" not in text
    assert (f"labels.csv, line {line}: " if line else "labels.csv") in text
    assert caught.value.exit_status == 65


def test_a_truncated_archive_is_refused(read):
    with pytest.raises(FormatError, match="truncated or damaged"):
        read(gzip.compress(SMALL.encode() + b"e,MKT,1,train\n" * 1000)[:-20])


def test_an_illegal_residue_is_known_by_its_place(read):
    with pytest.raises(IllegalResidueError) as caught:
        read(SMALL + "e,MK1,1,train\n")

    assert (caught.value.line, caught.value.record_id, caught.value.column, caught.value.found) == (6, "e", 3, "1")


@pytest.mark.parametrize("option", ["target", "sequence", "split"])
def test_a_named_column_that_is_not_there_is_refused(read, option):
    with pytest.raises(TableError, match=f"line 1: no column 'y' among 'id', .*; name the {option} column"):
        read(SMALL, columns=Columns(**{option: "y"}))


BAD_CLASSES = {
    "one class": (["a", "a", "a", "a"], "all training labels are 'a'"),
    "a class in test alone": (["a", "b", "a", "b", "a", "c"], "line 7: the test protein '6' has the class 'c'"),
    "a class in valid alone": (["a", "b", "a", "b", "c", "a"], "line 6: the valid protein '5' has the class 'c'"),
    "a label for each protein": (["a", "b", "c", "a", "b"], "3 training proteins have 3 different labels, such as 'a'"),
}


@pytest.mark.parametrize(("labels", "message"), BAD_CLASSES.values(), ids=BAD_CLASSES)
def test_classes_that_make_no_sense_are_refused(read, labels, message):
    with pytest.raises(TableError, match=message):
        class_names(read(rows(*labels)))


BAD_VALUES = {
    "text": (["1", "x", "1", "2"], "line 3: the label 'x' of '2' is no finite number"),
    "text in test": (["1", "2", "1", "n/a"], "line 5: the label 'n/a' of '4' is no finite number"),
    "nan": (["1", "2", "nan", "2"], "line 4: the label 'nan' of '3' is no finite number"),
    "infinity": (["1", "-inf", "1", "2"], "line 3: the label '-inf'"),
    "overflow": (["1", "1e999", "1", "2"], "line 3: the label '1e999'"),
    "constant": (["2", "2.0", "1", "3"], "all training labels are 2; there is nothing to learn"),
}


@pytest.mark.parametrize(("labels", "message"), BAD_VALUES.values(), ids=BAD_VALUES)
def test_values_that_make_no_sense_are_refused(read, labels, message):
    with pytest.raises(TableError, match=message):
        label_values(read(rows(*labels)))
