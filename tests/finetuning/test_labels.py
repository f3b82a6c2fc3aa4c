import csv
import gzip
import io

import pytest
from hypothesis import given, settings, strategies as st

from protembed.config.common import InputConfig
from protembed.config.finetune import LabelTableConfig
from protembed.data.alphabet import RESIDUES
from protembed.data.fasta import ReadStatistics, read_fasta
from protembed.errors import ConfigError, DataError, FormatError, IllegalResidueError, TableError
from protembed.finetuning.labels import leave_out_unlabelled, read_labels
from protembed.io.tables import is_stand_in

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
    "a semicolon": SMALL.replace(",", ";").encode(),
    "a vertical bar": SMALL.replace(",", "|").encode(),
    "a declared separator": b"sep=;\r\n" + SMALL.replace(",", ";").encode(),
    "Unicode Text of Excel": SMALL.replace(",", "\t").replace("\n", "\r\n").encode("utf-16"),
    "a title": b"Table S1: melting points,,,\n,,,\n" + SMALL.encode(),
    "empty columns": SMALL.replace("\n", ",,\n").encode(),
    "empty cells": SMALL.replace("train\n", "train,,\n").encode(),
    "blank lines": SMALL.replace("\nb", "\n\n,,,\nb").encode(),
    "no newline at the end": SMALL.rstrip().encode(),
    "quotes": SMALL.replace("MKT", '"MKT"').encode(),
    "spaces": SMALL.replace(",", " , ").encode(),
    "upper-case header": SMALL.replace("id,sequence,target,split", "ID,Sequence,TARGET,Split").encode(),
    "lower-case sequences": SMALL.replace("MKT", "mkt*").encode(),
    "fasta": b">a SET=train TARGET=1.5\nMK\nT\n>b TARGET=2.5 SET=train\nMKV\n"
    b">c SET=valid TARGET=3.5\nMAY\n>d SET=test TARGET=4.5\nMCC\n",
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
def test_the_same_table_is_read_in_every_form(read_labelled, content):
    labels = read_labelled(content, name="table.anything")

    assert rows(labels) == SMALL_ROWS
    assert labels.target.lower() == "target"
    assert labels.path.endswith("table.anything")
    assert all(protein.mask is None for protein in labels.proteins)


def test_a_value_in_a_fasta_header_ends_at_the_next_key(read_labelled):
    labels = read_labelled(
        ">a some protein SET=train TARGET=Cell membrane MASK=1 0 1\nMKT\n"
        ">b TARGET=0.1 0.2 0.3 SET=test OS=Homo sapiens\nMKV\n>c TARGET=x=y z SET=valid\nMKA\n"
    )

    assert [(protein.label, protein.split, protein.mask) for protein in labels.proteins] == [
        ("Cell membrane", "train", "1 0 1"),
        ("0.1 0.2 0.3", "test", None),
        ("x=y z", "valid", None),
    ]


def test_keys_of_a_fasta_header_are_read_in_any_case(read_labelled):
    labels = read_labelled(">a set=train Target=x Validation=false mask=101\nMKT\n>b SeT=test tArGeT=y\nMKV\n")

    assert [(protein.label, protein.split, protein.mask) for protein in labels.proteins] == [
        ("x", "train", "101"),
        ("y", "test", None),
    ]
    assert labels.warnings == []


def test_a_likely_misspelled_key_gives_a_warning(read_labelled):
    labels = read_labelled(
        ">a SETS=train TARGET=x SEQ=1\nMKT\n>b SETS=test TARGET=y\nMKV\n>c SET=test TARGET=y SEX=f\nMKV\n".replace(
            "SETS", "SET"
        ).replace(" SEQ=1", " MASC=1")
    )

    assert labels.warnings == ["MASC= is ignored in 1 header, such as that of 'a': write MASK= if that is meant"]


def test_a_misspelled_split_key_gives_a_warning(read_labelled):
    labels = read_labelled(">a SETT=train TARGET=x\nMKT\n>b SETT=test TARGET=y\nMKV\n")

    assert not labels.has_splits
    assert labels.warnings == ["SETT= is ignored in 2 headers, such as that of 'a': write SET= if that is meant"]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("b TAGRET=1", "the header of 'b' has no TARGET= beside TAGRET="),
        ("b TARGET=1 target=2", "the header of 'b' has TARGET= twice"),
        ("b|SET=test|TARGET=1", "the header of 'b|SET=test|TARGET=1' has 'SET=' without a space before it"),
        ("b TARGET=1;SET=test", "the header of 'b' has 'SET=' without a space before it"),
        ("b TARGET=1 SET =test", "the header of 'b' has 'SET =' without a space before it, or with one before '='"),
    ],
)
def test_a_header_with_ambiguous_fields_is_rejected(read_labelled, rejected, header, message):
    with rejected(message, line=3):
        read_labelled(f">a TARGET=1\nMKT\n>{header}\nMKV\n")


def test_keys_within_longer_words_are_ignored(read_labelled):
    content = FORMS["fasta"].replace(b">a SET=train", b">a OFFSET=3 SET=train MYTARGET=9 SUBSET=x UNMASK=1")

    labels = read_labelled(content)

    assert rows(labels) == SMALL_ROWS
    assert labels.proteins[0].mask is None


def test_rows_without_identifiers_get_their_number(read_labelled):
    labels = read_labelled("target,sequence,split\n1,MKT,train\n2,MKV,valid\n3,MAY,test\n")

    assert rows(labels) == [("1", "MKT", "1", "train"), ("2", "MKV", "2", "valid"), ("3", "MAY", "3", "test")]


@pytest.mark.parametrize(
    "name",
    ["ID", "Identifier", "accession", "protein_id", "Protein ID", "protein-id", "Entry", "Entry Name", "UniProt_ID"]
    + ["name", "Protein", "seq_id", "Sequence ID"],
)
def test_identifiers_are_read_from_a_column_with_any_usual_name(read_labelled, name):
    labels = read_labelled(f"{name},sequence,target\na,MKT,1\nb,MKV,2\n")

    assert [protein.id for protein in labels.proteins] == ["a", "b"]
    assert labels.notes == []


def test_the_user_can_name_the_column_of_identifiers(read_labelled):
    labels = read_labelled("id,sequence,target,my key\na,MKT,1,x\nb,MKV,2,y\n", columns=LabelTableConfig(id="my key"))

    assert [protein.id for protein in labels.proteins] == ["x", "y"]


def test_numbering_rows_without_identifiers_adds_a_note(read_labelled):
    labels = read_labelled("my key,sequence,target\na,MKT,1\nb,MKV,2\n")

    assert [protein.id for protein in labels.proteins] == ["1", "2"]
    assert labels.notes == ["no identifier column: rows are numbered from 1; --id names the column"]


def test_a_second_possible_label_column_adds_a_note(read_labelled):
    content = "id,sequence,target,Label\na,MKTAY,GENE1,1.5\n"

    assert read_labelled(content).notes == [
        "the column 'Label' is not read, because there is 'target'; --target names the one to learn"
    ]
    assert read_labelled(content, columns=LabelTableConfig(target="Label")).notes == []
    assert read_labelled(content, columns=LabelTableConfig(id="Label")).notes == []


def test_a_column_with_another_meaning_is_not_read_as_identifiers(read_labelled):
    labels = read_labelled(
        "protein,sequence,name\nMKT,x,1\nMKV,x,2\n", columns=LabelTableConfig(sequence="protein", target="name")
    )

    assert [(protein.id, protein.sequence, protein.label) for protein in labels.proteins] == [
        ("1", "MKT", "1"),
        ("2", "MKV", "2"),
    ]


@pytest.mark.parametrize("name", ["stage", "Partition", "subset"])
def test_a_possible_split_column_is_read_only_if_all_cells_name_a_split(read_labelled, name):
    fits = read_labelled(f"id,sequence,target,{name}\na,MKT,1,train\nb,MKV,2,valid\nc,MKA,3,test\n")
    does_not = read_labelled(f"id,sequence,target,{name}\na,MKT,1,train\nb,MKV,2,larva\n")

    assert [protein.split for protein in fits.proteins] == ["train", "valid", "test"]
    assert not does_not.has_splits
    assert does_not.notes == [
        f"the column {name!r} has other values than train, valid and test, so it is not read as the split; "
        "--split-column names the column"
    ]


@pytest.mark.parametrize(("word", "split"), [("1.0", "valid"), ("t", "valid"), ("F", "train"), ("0.0", "train")])
def test_the_validation_column_accepts_several_spellings_of_true_and_false(read_labelled, word, split):
    assert read_labelled(f"sequence,target,set,validation\nMKT,1,train,{word}\n").proteins[0].split == split


def test_a_validation_cell_that_is_neither_true_nor_false_is_rejected(read_labelled, rejected):
    with rejected("'maybe' is neither true nor false", line=2):
        read_labelled("sequence,target,set,validation\nMKT,1,train,maybe\n")


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "mac-roman"])
def test_a_table_in_another_encoding_is_rejected_with_its_line(read_labelled, rejected, encoding):
    with rejected("is not UTF-8 (byte 0x", line=3):
        read_labelled("id,sequence,target\na,MKT,Kern\nb,MKV,Hülle\n".encode(encoding))


def test_a_labelled_fasta_in_another_encoding_is_rejected(read_labelled):
    with pytest.raises(DataError, match="UTF-8"):
        read_labelled(">a TARGET=Kern\nMKT\n>b TARGET=Hülle\nMKV\n".encode("cp1252"))


def test_lines_count_blank_lines_and_lines_within_cells(read_labelled):
    labels = read_labelled('id,sequence,target\na,"MK\nT",1\n\n,,\nb,MAY,2\n')

    assert [(protein.id, protein.sequence, protein.line) for protein in labels.proteins] == [
        ("a", "MKT", 3),
        ("b", "MAY", 6),
    ]


def test_the_validation_column_of_flip_moves_train_proteins_to_valid(read_labelled):
    header = "sequence,target,set,validation\n"
    labels = read_labelled(header + "MKT,1,train,False\nMKV,2,train,True\nMKA,3,train,\nMAY,4,test,True\n")

    assert [protein.split for protein in labels.proteins] == ["train", "valid", "train", "test"]


@pytest.mark.parametrize(
    "content",
    ["sequence,target,mask\nMKTAY,HHEEC,11001\n", ">a TARGET=HHEEC MASK=11001\nMKT\nAY\n"],
    ids=["csv", "fasta"],
)
def test_a_mask_is_read_from_a_column_or_a_header(read_labelled, content):
    (protein,) = read_labelled(content).proteins

    assert (protein.sequence, protein.label, protein.mask) == ("MKTAY", "HHEEC", "11001")


def test_has_splits_is_true_only_with_a_split_column_or_key(read_labelled):
    assert not read_labelled("sequence,target\nMKT,1\n").has_splits
    assert not read_labelled(">a TARGET=1\nMKT\n").has_splits
    assert read_labelled(SMALL).has_splits


def test_a_record_without_a_split_is_rejected_if_others_have_one(read_labelled, rejected):
    with rejected("'b' has no split, and others have one; add its SET=", line=3):
        read_labelled(">a TARGET=1 SET=test\nMKT\n>b TARGET=2\nMKV\n>c TARGET=3 SET=valid\nMKA\n")


@pytest.mark.parametrize("option", ["target", "id", "split_column"])
def test_naming_a_column_of_a_fasta_file_is_an_error(read_labelled, option):
    with pytest.raises(ConfigError, match=f"{option} is 'y', but a FASTA file has no columns"):
        read_labelled(">a TARGET=1\nMKT\n", columns=LabelTableConfig(**{option: "y"}))


@pytest.mark.parametrize("cell", ["nan", "NaN", "NA", "None", "null", "Unknown", "X"])
def test_a_stand_in_for_a_missing_sequence_is_rejected_with_its_row(read_labelled, rejected, cell):
    table = f"id,sequence,target\na,MKTAYIAKQR,1.5\nb,MKVAYIAKQRN,2.5\nc,MKVVYIAKQR,2\nd,{cell},3.5\n"
    fasta = f">a TARGET=1.5\nMKTAYIAKQR\n>b TARGET=2.5\nMKTAYIAKQW\n>d TARGET=2\n{cell}\n"

    for content in (table, fasta):
        with rejected(f"row 'd' has the sequence '{cell.upper()}', which seems to stand for a missing one", 5):
            read_labelled(content)


@pytest.mark.parametrize(
    ("sequence", "notation"),
    [("MetLysThrAlaTyr", "in three-letter code"), ("MdEvVpQpLrVy", "of amino acids and letters of structure")],
)
def test_a_sequence_not_in_one_letter_code_is_rejected(read_labelled, rejected, sequence, notation):
    with rejected(f"the sequence of row 'b' is {notation}", 3):
        read_labelled(f"id,sequence,target\na,mktMKT,1\nb,{sequence},2\n")


def test_stand_ins_are_sequences_if_most_proteins_are_short_peptides(read_labelled):
    labels = read_labelled("id,sequence,target\na,MK,1.5\nb,NA,2.5\nc,NAN,3.5\nd,VY,3.5\n")

    assert [protein.sequence for protein in labels.proteins] == ["MK", "NA", "NAN", "VY"]


def test_a_very_long_protein_is_read(read_labelled):
    assert len(read_labelled(SMALL.replace("MKT", "M" * 200_000)).proteins[0].sequence) == 200_000


def test_labels_and_identifiers_are_read_unchanged(read_labelled):
    labels = read_labelled('id,sequence,target,split\n"=cmd()",MKT,"a, ""b""",train\n../x,MKV,é,valid\nc,MAY,-1,test\n')

    assert [(protein.id, protein.label) for protein in labels.proteins] == [
        ("=cmd()", 'a, "b"'),
        ("../x", "é"),
        ("c", "-1"),
    ]


# Columns


def test_the_user_can_name_columns(read_labelled):
    labels = read_labelled(
        "sequence,target,split,seq2,stability,part\nX,1,test,MKT,5,train\nX,1,test,MKV,6,dev\nX,1,test,MAY,7,test\n",
        columns=LabelTableConfig(target="stability", sequence="seq2", split_column="part"),
    )

    assert labels.target == "stability"
    assert rows(labels) == [("1", "MKT", "5", "train"), ("2", "MKV", "6", "valid"), ("3", "MAY", "7", "test")]


def test_label_and_set_are_also_usual_names(read_labelled):
    labels = read_labelled("label,sequence,set\n1,MKT,train\n2,MKV,valid\n3,MAY,test\n")

    assert labels.target == "label"
    assert rows(labels) == [("1", "MKT", "1", "train"), ("2", "MKV", "2", "valid"), ("3", "MAY", "3", "test")]


@pytest.mark.parametrize(
    ("word", "split"),
    [("Train", "train"), ("training", "train"), ("VAL", "valid"), ("dev", "valid"), ("validation", "valid")],
)
def test_splits_have_several_spellings(read_labelled, word, split):
    assert rows(read_labelled(SMALL + f"e,MWW,1,{word}\n"))[-1] == ("e", "MWW", "1", split)


@pytest.mark.parametrize("word", ["test2", "Test_OOD", "test-long", "holdout", "hold-out", "held_out", "testing"])
def test_a_single_test_set_of_any_usual_name_is_the_test_split(read_labelled, word):
    labels = read_labelled(SMALL.replace("test", word))

    assert rows(labels) == SMALL_ROWS
    assert labels.notes == []


def test_of_several_test_sets_the_one_named_test_or_by_the_user_is_read(read_labelled):
    content = SMALL + "e,MWW,1,test2\nf,MWT,2,holdout\ng,MWA,2,Test2\n"
    fasta = "".join(
        f">{name} SET={split} TARGET={label}\n{sequence}\n"
        for name, sequence, label, split in (line.split(",") for line in content.splitlines()[1:])
    )

    for table in (content, fasta):
        labels, other = read_labelled(table), read_labelled(table, columns=LabelTableConfig(test_set="TEST2"))

        assert rows(labels) == SMALL_ROWS
        assert labels.notes == [
            "the test set 'test' is evaluated, and 'test2' (2 proteins), 'holdout' (1 protein) left out; --test-set "
            "names another one"
        ]
        assert [protein.id for protein in other.proteins] == ["a", "b", "c", "e", "g"]
        with pytest.raises(TableError, match="no test set is named 'test3', among 'test', 'test2', 'holdout'; name"):
            read_labelled(table, columns=LabelTableConfig(test_set="test3"))
    drawn = read_labelled(content, columns=LabelTableConfig(split="random"))
    assert len(drawn.proteins) == 7


@pytest.mark.parametrize("word", ["pred", "Predict", "prediction"])
def test_proteins_that_are_to_be_predicted_need_no_label_and_are_left_out(read_labelled, word):
    note = f"1 protein of the split {word!r} left out, because labels are unknown there; `protembed predict` needs none"
    table = read_labelled(SMALL + f"e,MWW,,{word}\n")
    fasta = read_labelled(FORMS["fasta"] + f">e SET={word}\nMWW\n".encode())

    assert rows(table) == rows(fasta) == SMALL_ROWS
    assert table.notes == fasta.notes == [note]
    assert rows(read_labelled((SMALL + f"e,MWW,,{word}\n").replace("split", "stage"))) == SMALL_ROWS


# Missing cells


HOLES = SMALL + "e,,1.5,train\nf,MWW,,train\ng,MWA,1.5,\nh,MK1,1.5,train\n"


def test_all_faulty_rows_are_reported_together(read_labelled, rejected):
    faults = (
        "3 faults: line 6: row 'e' has no sequence; line 8: row 'g' has no split; line 9: '1' in column 3 of record "
        "'h' is not an amino acid; complete or remove it, or pass `on_missing` skip (leave it out); if these"
    )
    with rejected(faults):
        read_labelled(HOLES)


def test_all_faulty_headers_of_fasta_are_reported_together(read_labelled, rejected):
    faults = "2 faults: line 3: the header of 'b' has TARGET= twice; line 5: the header of 'c' has no TARGET="
    with rejected(faults):
        read_labelled(">a TARGET=1\nMKT\n>b TARGET=1 TARGET=2\nMKV\n>c\nMKA\n")


def test_fasta_in_utf16_is_rejected_as_such(read_labelled):
    with pytest.raises(FormatError, match="this is UTF-16 text"):
        read_labelled(">a TARGET=1\nMKT\n".encode("utf-16"))


def test_rows_without_a_sequence_or_split_are_left_out_on_request(read_labelled):
    statistics = ReadStatistics()
    labels = read_labelled(
        HOLES, columns=LabelTableConfig(on_missing="skip"), reader=InputConfig(on_illegal="skip"), statistics=statistics
    )

    assert rows(labels) == [*SMALL_ROWS, ("f", "MWW", "", "train")]
    assert [(record.id, record.line, record.reason) for record in statistics.skipped] == [
        ("e", 6, "no sequence"),
        ("g", 8, "no split"),
        ("h", 9, "'1' in column 3 is no amino acid"),
    ]


def test_rows_of_units_and_sums_are_left_out_on_request(read_labelled):
    content = SMALL.replace("a,MKT", ",,°C,\na,MKT") + "Mean,,3,\n"

    assert rows(read_labelled(content, columns=LabelTableConfig(on_missing="skip"))) == SMALL_ROWS


def test_stand_ins_for_sequences_are_left_out_on_request(read_labelled):
    statistics = ReadStatistics()
    content = "id,sequence,target\na,MKTAYIAKQR,1.5\nb,MKVAYIAKQRN,2.5\nc,NA,2\n"

    labels = read_labelled(content, columns=LabelTableConfig(on_missing="skip"), statistics=statistics)

    assert [protein.id for protein in labels.proteins] == ["a", "b"]
    assert [record.reason for record in statistics.skipped] == ["no sequence but 'NA'"]


@pytest.mark.parametrize("cell", ["", "nan", "#N/A", "NA", "#NV", "#BEZUG!", "#N/D"])
def test_rows_without_a_label_are_left_out_on_request(read_labelled, cell):
    labels, statistics = read_labelled(SMALL + f"e,MWW,{cell},train\n"), ReadStatistics()
    skip = LabelTableConfig(on_missing="skip")

    assert leave_out_unlabelled(labels, LabelTableConfig(), statistics, can_be_empty=False) == labels
    assert rows(leave_out_unlabelled(labels, skip, statistics, can_be_empty=False)) == SMALL_ROWS
    assert [(record.id, record.line) for record in statistics.skipped] == [("e", 6)]
    several = leave_out_unlabelled(labels, skip, ReadStatistics(), can_be_empty=True)
    assert len(several.proteins) == (4 if cell else 5)


def test_a_table_of_which_every_row_is_left_out_is_rejected(read_labelled, rejected):
    with rejected("every row was left out"):
        read_labelled("id,sequence,target\na,,1\n", columns=LabelTableConfig(on_missing="skip"))
    with rejected("no row has a label; name another column with `target`"):
        labels = read_labelled("id,sequence,target\na,MKT,\n")
        leave_out_unlabelled(labels, LabelTableConfig(on_missing="skip"), ReadStatistics(), can_be_empty=False)


def test_the_header_of_labels_is_found_below_notes(read_labelled):
    content = "Author:,A. Author,,\nSequence data of the mutants,,,\nMy id,Sequence,Target,Split\na,MKT,1.5,train\n"

    labels = read_labelled(content)

    assert rows(labels) == [("1", "MKT", "1.5", "train")]
    assert labels.traits == ["its header in line 3"]


def test_a_table_without_a_split_column_assigns_no_splits(read_labelled):
    assert rows(read_labelled("id,sequence,target\na,MKT,1\n")) == [("a", "MKT", "1", None)]


def test_reading_accepts_a_missing_label(read_labelled):
    assert rows(read_labelled(SMALL + "e,MKT, ,train\n"))[-1] == ("e", "MKT", "", "train")


# Illegal residues and statistics


def test_illegal_residues_are_masked_or_their_rows_skipped_on_request(read_labelled):
    content = SMALL + "e,MK1,5.5,train\n"
    masked_statistics, skipped_statistics = ReadStatistics(), ReadStatistics()

    masked = read_labelled(content, reader=InputConfig(on_illegal="mask"), statistics=masked_statistics)
    skipped = read_labelled(content, reader=InputConfig(on_illegal="skip"), statistics=skipped_statistics)

    assert masked.proteins[-1].sequence == "MKX"
    assert masked_statistics.num_masked == 1
    assert rows(skipped) == SMALL_ROWS
    assert [(record.id, record.line) for record in skipped_statistics.skipped] == [("e", 6)]
    assert (masked_statistics.num_records, skipped_statistics.num_records) == (5, 4)
    assert skipped_statistics.num_residues == 12


def test_a_labelled_fasta_has_the_same_statistics_as_a_fasta(tmp_path, read_labelled):
    statistics, plain = ReadStatistics(), ReadStatistics()
    read_labelled(FORMS["fasta"], name="labels.fasta", statistics=statistics)

    list(read_fasta([tmp_path / "labels.fasta"], statistics=plain))

    assert statistics == plain


# Errors


BAD = {
    "an empty file": ("", 1, "the first line is empty"),
    "a header alone": ("sequence,target\n", None, "the table has no rows"),
    "blank rows alone": ("sequence,target\n\n,\n", None, "the table has no rows"),
    "no sequence column": ("residues,target\nMKT,1\n", 1, "no sequence column among 'residues', 'target'"),
    "no target column": ("sequence,y\nMKT,1\n", 1, "no target column among 'sequence', 'y'"),
    "another delimiter": (SMALL.replace(",", "!"), 1, "no sequence column among 'id!sequence!target!split'"),
    "a column twice": ("sequence,target,target\nMKT,1,1\n", 1, "the header has 2 columns named 'target'"),
    "too few cells": (SMALL + "e,MKT\n", 6, "this row has 2 cells, the header 4"),
    "too many cells": (SMALL + "e,MKT,1,000,train\n", 6, "this row has 5 cells, the header 4"),
    "a stray quote": (SMALL + 'e,"MKT,1,train\nf,MKT,1,train\n', 6, "that is not closed in this line"),
    "a stray quote in a large table": (SMALL + 'e,"MKT,1,train\n' + "f,MKT,1,train\n" * 20_000, 6, "not closed"),
    "no sequence": (SMALL + "e,*,1,train\n", 6, "row 'e' has no sequence"),
    "no split": (SMALL + "e,MKT,1,\n", 6, "row 'e' has no split"),
    "an unknown split": (SMALL + "e,MKT,1,fold1\n", 6, "the split 'fold1' is unknown"),
    "an illegal residue": (SMALL + "e,mk t1,1,train\n", 6, "'1' in column 4 of record 'e' is not an amino acid"),
    "a spreadsheet": (b"PK\x03\x04" + bytes(range(256)), None, "this is a zip archive"),
    "a label without FASTA's TARGET": (">a SET=train\nMKT\n", 1, "the header of 'a' has no TARGET="),
    "an unknown SET": (">a TARGET=1 SET=train\nMKT\n>b TARGET=2 SET=x\nMKT\n", 3, "the split 'x' is unknown"),
}


@pytest.mark.parametrize(("content", "line", "message"), BAD.values(), ids=BAD)
def test_an_invalid_table_is_rejected_in_one_sentence_with_its_line(read_labelled, rejected, content, line, message):
    with rejected(message, line):
        read_labelled(content)


@pytest.mark.promise(12)
def test_a_truncated_archive_is_rejected(read_labelled):
    with pytest.raises(FormatError, match="truncated or damaged"):
        read_labelled(gzip.compress(SMALL.encode() + b"e,MKT,1,train\n" * 1000)[:-20])


def test_an_illegal_residue_is_reported_with_row_and_column(read_labelled):
    with pytest.raises(IllegalResidueError) as caught:
        read_labelled(SMALL + "e,MK1,1,train\n")

    assert (caught.value.line, caught.value.record_id, caught.value.column, caught.value.letter) == (6, "e", 3, "1")


@pytest.mark.parametrize("option", ["target", "sequence", "split_column"])
def test_naming_a_column_that_does_not_exist_is_an_error(read_labelled, option):
    meaning = option.removesuffix("_column")
    with pytest.raises(TableError, match=f"line 1: no column 'y' among 'id', .*; name the {meaning} column"):
        read_labelled(SMALL, columns=LabelTableConfig(**{option: "y"}))


# Round trips

SEQUENCES = st.text(RESIDUES, min_size=1, max_size=30).filter(lambda sequence: not is_stand_in(sequence))
CELLS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=12)
ROWS = st.lists(
    st.tuples(CELLS, SEQUENCES, CELLS, st.sampled_from(["train", "valid", "test"])),
    min_size=1,
    max_size=5,
)


@pytest.mark.promise(24)
@settings(deadline=None, max_examples=80)
@given(
    table=ROWS,
    delimiter=st.sampled_from([",", "\t", ";", "|"]),
    encoding=st.sampled_from(["utf-8", "utf-16"]),
    title=st.sampled_from(["", "A title\n\n", "# a comment\n"]),
    compress=st.sampled_from([bytes, gzip.compress]),
)
def test_any_table_that_was_written_is_read_back(tmp_path_factory, table, delimiter, encoding, title, compress):
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows(
        [("id", "sequence", "target", "split"), *table]
    )
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(compress((title + text.getvalue()).encode(encoding)))

    if delimiter == "\t" and any(letter in cell for cells in table for cell in cells for letter in "\r\n"):
        with pytest.raises(TableError, match="a quotation mark that opens in line"):
            read_labels(path, LabelTableConfig())
    elif all(cells[0].strip() for cells in table):
        expected = [(name.strip(), sequence, label.strip(), split) for name, sequence, label, split in table]
        assert rows(read_labels(path, LabelTableConfig())) == expected
    else:
        with pytest.raises(TableError, match="no identifier"):
            read_labels(path, LabelTableConfig())


@pytest.mark.promise(24)
@settings(deadline=None, max_examples=80)
@given(
    noise=st.binary(max_size=60) | st.text('ab,;\t"\n\r\0>=é1', max_size=60).map(str.encode), has_header=st.booleans()
)
def test_arbitrary_bytes_are_read_or_raise_a_data_error(tmp_path_factory, noise, has_header):
    path = tmp_path_factory.getbasetemp() / "noise.csv"
    path.write_bytes(b"sequence,target\n" * has_header + noise)

    try:
        assert read_labels(path, LabelTableConfig()).proteins
    except DataError as error:
        assert str(error).startswith(str(path))
