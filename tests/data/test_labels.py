import csv
import gzip
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protembed.data.alphabet import RESIDUES
from protembed.data.fasta import ReadReport, read_fasta
from protembed.data.labels import Columns, label_warnings, read_labels
from protembed.errors import ConfigError, DataError, FormatError, IllegalResidueError, TableError

SMALL = "id,sequence,target,split\na,MKT,1.5,train\nb,MKV,2.5,train\nc,MAY,3.5,valid\nd,MCC,4.5,test\n"


def rows(labels):
    return [(protein.id, protein.sequence, protein.label, protein.split) for protein in labels.proteins]


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


SMALL_ROWS = [
    ("a", "MKT", "1.5", "train"),
    ("b", "MKV", "2.5", "train"),
    ("c", "MAY", "3.5", "valid"),
    ("d", "MCC", "4.5", "test"),
]


@pytest.mark.parametrize("content", FORMS.values(), ids=FORMS)
def test_the_same_table_is_read_in_every_form(read, content):
    labels = read(content, name="table.anything")

    assert rows(labels) == SMALL_ROWS
    assert labels.target.lower() == "target"
    assert labels.path.endswith("table.anything")
    assert all(protein.mask is None for protein in labels.proteins)


def test_fields_of_a_fasta_header_are_whole_words(read):
    content = FORMS["fasta"].replace(b">a SET=train", b">a OFFSET=3 SET=train MYTARGET=9 SUBSET=x UNMASK=1")

    labels = read(content)

    assert rows(labels) == SMALL_ROWS
    assert labels.proteins[0].mask is None


def test_rows_without_identifiers_are_named_by_their_number(read):
    labels = read("target,sequence,split\n1,MKT,train\n2,MKV,valid\n3,MAY,test\n")

    assert rows(labels) == [("1", "MKT", "1", "train"), ("2", "MKV", "2", "valid"), ("3", "MAY", "3", "test")]


def test_lines_are_those_of_the_file_whatever_is_between(read):
    labels = read('id,sequence,target\na,"MK\nT",1\n\n,,\nb,MAY,2\n')

    assert [(protein.id, protein.sequence, protein.line) for protein in labels.proteins] == [
        ("a", "MKT", 3),
        ("b", "MAY", 6),
    ]


def test_tables_of_flip_mark_validation_in_a_column_of_its_own(read):
    header = "sequence,target,set,validation\n"
    labels = read(header + "MKT,1,train,False\nMKV,2,train,True\nMKA,3,train,\nMAY,4,test,True\n")

    assert [protein.split for protein in labels.proteins] == ["train", "valid", "train", "test"]


@pytest.mark.parametrize(
    "content",
    ["sequence,target,mask\nMKTAY,HHEEC,11001\n", ">a TARGET=HHEEC MASK=11001\nMKT\nAY\n"],
    ids=["csv", "fasta"],
)
def test_a_mask_stands_in_a_column_or_a_header(read, content):
    (protein,) = read(content).proteins

    assert (protein.sequence, protein.label, protein.mask) == ("MKTAY", "HHEEC", "11001")


def test_a_table_has_splits_or_none(read):
    assert not read("sequence,target\nMKT,1\n").has_splits
    assert not read(">a TARGET=1\nMKT\n").has_splits
    assert read(SMALL).has_splits


def test_a_record_that_does_not_say_its_part_where_others_do_is_refused(read, refused):
    with refused("'b' does not say which part it belongs to, and others do; add its SET=", line=3):
        read(">a TARGET=1 SET=test\nMKT\n>b TARGET=2\nMKV\n>c TARGET=3 SET=valid\nMKA\n")


def test_columns_are_not_named_where_there_are_none(read):
    with pytest.raises(ConfigError, match="--target is 'y', but a FASTA file has no columns"):
        read(">a TARGET=1\nMKT\n", columns=Columns(target="y"))


def test_a_very_long_protein_is_read(read):
    assert len(read(SMALL.replace("MKT", "M" * 200_000)).proteins[0].sequence) == 200_000


def test_labels_and_identifiers_are_kept_as_they_stand(read):
    labels = read('id,sequence,target,split\n"=cmd()",MKT,"a, ""b""",train\n../x,MKV,é,valid\nc,MAY,-1,test\n')

    assert [(protein.id, protein.label) for protein in labels.proteins] == [
        ("=cmd()", 'a, "b"'),
        ("../x", "é"),
        ("c", "-1"),
    ]


# Columns


def test_columns_can_be_named(read):
    labels = read(
        "sequence,target,split,seq2,stability,part\nX,1,test,MKT,5,train\nX,1,test,MKV,6,dev\nX,1,test,MAY,7,test\n",
        columns=Columns(target="stability", sequence="seq2", split="part"),
    )

    assert labels.target == "stability"
    assert rows(labels) == [("1", "MKT", "5", "train"), ("2", "MKV", "6", "valid"), ("3", "MAY", "7", "test")]


def test_label_and_set_are_usual_names_too(read):
    labels = read("label,sequence,set\n1,MKT,train\n2,MKV,valid\n3,MAY,test\n")

    assert labels.target == "label"
    assert rows(labels) == [("1", "MKT", "1", "train"), ("2", "MKV", "2", "valid"), ("3", "MAY", "3", "test")]


@pytest.mark.parametrize(
    ("word", "split"),
    [("Train", "train"), ("training", "train"), ("VAL", "valid"), ("dev", "valid"), ("validation", "valid")],
)
def test_splits_have_several_spellings(read, word, split):
    assert rows(read(SMALL + f"e,MWW,1,{word}\n"))[-1] == ("e", "MWW", "1", split)


def test_a_table_without_a_split_column_leaves_the_parts_open(read):
    assert rows(read("id,sequence,target\na,MKT,1\n")) == [("a", "MKT", "1", None)]


def test_a_label_may_be_missing_here_for_the_task_decides(read):
    assert rows(read(SMALL + "e,MKT, ,train\n"))[-1] == ("e", "MKT", "", "train")


# Illegal residues and the report


def test_illegal_residues_are_masked_or_their_rows_skipped_on_request(read):
    content = SMALL + "e,MK1,5.5,train\n"
    masked_report, skipped_report = ReadReport(), ReadReport()

    masked = read(content, on_illegal="mask", report=masked_report)
    skipped = read(content, on_illegal="skip", report=skipped_report)

    assert masked.proteins[-1].sequence == "MKX"
    assert masked_report.num_masked == 1
    assert rows(skipped) == SMALL_ROWS
    assert [(record.id, record.line) for record in skipped_report.refused] == [("e", 6)]
    assert (masked_report.num_records, skipped_report.num_records) == (5, 4)
    assert skipped_report.num_residues == 12


def test_a_labelled_fasta_has_the_same_report_as_a_fasta(tmp_path, read):
    report, plain = ReadReport(), ReadReport()
    read(FORMS["fasta"], name="labels.fasta", report=report)

    list(read_fasta([tmp_path / "labels.fasta"], report=plain))

    assert report == plain


# Tables that are refused


BAD = {
    "an empty file": ("", 1, "the first line is empty"),
    "an empty first line": ("\n" + SMALL, 1, "the first line is empty"),
    "a header alone": ("sequence,target\n", None, "the table has no rows"),
    "blank rows alone": ("sequence,target\n\n,\n", None, "the table has no rows"),
    "no sequence column": ("seq,target\nMKT,1\n", 1, "no sequence column among 'seq', 'target'"),
    "no target column": ("sequence,y\nMKT,1\n", 1, "no target column among 'sequence', 'y'"),
    "another delimiter": (SMALL.replace(",", ";"), 1, "its columns seem to be divided by semicolons"),
    "a column twice": ("sequence,target,target\nMKT,1,1\n", 1, "the header has 2 columns named 'target'"),
    "too few cells": (SMALL + "e,MKT\n", 6, "this row has 2 cells, the header 4"),
    "too many cells": (SMALL + "e,MKT,1,000,train\n", 6, "this row has 5 cells, the header 4"),
    "a stray quote": (SMALL + 'e,"MKT,1,train\nf,MKT,1,train\n', 6, "that is not closed in this line"),
    "a stray quote in a large table": (SMALL + 'e,"MKT,1,train\n' + "f,MKT,1,train\n" * 20_000, 6, "not closed"),
    "no sequence": (SMALL + "e,*,1,train\n", 6, "row 'e' has no sequence"),
    "no split": (SMALL + "e,MKT,1,\n", 6, "the split '' is unknown"),
    "an unknown split": (SMALL + "e,MKT,1,holdout\n", 6, "the split 'holdout' is unknown"),
    "an illegal residue": (SMALL + "e,mk t1,1,train\n", 6, "'1' in column 4 of record 'e' is no amino acid"),
    "a spreadsheet": (b"PK\x03\x04" + bytes(range(256)), None, "this is a zip archive"),
    "a label without FASTA's TARGET": (">a SET=train\nMKT\n", 1, "the header of 'a' has no TARGET="),
    "an unknown SET": (">a TARGET=1 SET=train\nMKT\n>b TARGET=2 SET=x\nMKT\n", 3, "the split 'x' is unknown"),
}


@pytest.mark.parametrize(("content", "line", "message"), BAD.values(), ids=BAD)
def test_a_bad_table_is_refused_with_one_sentence_and_its_line(read, refused, content, line, message):
    with refused(message, line):
        read(content)


@pytest.mark.promise(12)
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


# Whatever was written is read back

CELLS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=12)
ROWS = st.lists(
    st.tuples(CELLS, st.text(RESIDUES, min_size=1, max_size=30), CELLS, st.sampled_from(["train", "valid", "test"])),
    min_size=1,
    max_size=5,
)


@pytest.mark.promise(24)
@settings(deadline=None, max_examples=80)
@given(table=ROWS, delimiter=st.sampled_from([",", "\t"]), compress=st.sampled_from([bytes, gzip.compress]))
def test_any_table_is_read_back(tmp_path_factory, table, delimiter, compress):
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows(
        [("id", "sequence", "target", "split"), *table]
    )
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(compress(text.getvalue().encode()))

    if delimiter == "\t" and any(letter in cell for cells in table for cell in cells for letter in "\r\n"):
        with pytest.raises(TableError, match="a quotation mark that opens in line"):
            read_labels(path, Columns())
    elif all(cells[0].strip() for cells in table):
        expected = [(name.strip(), sequence, label.strip(), split) for name, sequence, label, split in table]
        assert rows(read_labels(path, Columns())) == expected
    else:
        with pytest.raises(TableError, match="no identifier"):
            read_labels(path, Columns())


@pytest.mark.promise(24)
@settings(deadline=None, max_examples=80)
@given(
    noise=st.binary(max_size=60) | st.text('ab,;\t"\n\r\0>=é1', max_size=60).map(str.encode), has_header=st.booleans()
)
def test_no_bytes_of_a_table_end_in_a_traceback(tmp_path_factory, noise, has_header):
    path = tmp_path_factory.getbasetemp() / "noise.csv"
    path.write_bytes(b"sequence,target\n" * has_header + noise)

    try:
        assert read_labels(path, Columns()).proteins
    except DataError as error:
        assert str(error).startswith(str(path))


def test_what_looks_like_a_mistake_is_told(read):
    doubtful = read("id,sequence,target\na,MKT,x\nb,MKV,NaN\nb,MKT,y\n").proteins

    assert label_warnings(doubtful, ["NaN", "x", "y"]) == [
        "a class is named 'NaN': is that a missing label?",
        "1 identifier of several rows, such as 'b'",
        "1 sequence with labels that differ from row to row, such as 'b'",
    ]
    assert label_warnings(doubtful[:2], ["x"]) == []
