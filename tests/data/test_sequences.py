from pathlib import Path

import numpy as np
import pytest
from Bio.Seq import Seq
from Bio.SeqRecord import SeqRecord

from protembed.config.common import Region
from protembed.data.fasta import read_fasta
from protembed.data.sequences import is_one_sequence, read_one_sequence, read_sequences
from protembed.errors import SequenceError


def test_records_give_the_sequences_and_identifiers_of_their_file(proteins_fasta):
    records = list(read_fasta(proteins_fasta))
    proteins = read_sequences(records)

    assert [(protein.id, protein.sequence) for protein in proteins] == [
        (record.id, record.sequence) for record in records
    ]


@pytest.mark.parametrize(
    ("given", "identifier"),
    [
        ("mkt ayi*", "1"),
        (np.str_("MKTAYI"), "1"),
        (Seq("MKTAYI"), "1"),
        (SeqRecord(Seq("mktayi"), id="P1"), "P1"),
    ],
)
def test_a_text_and_a_record_of_biopython_are_one_sequence(given, identifier):
    [protein] = read_sequences(given)

    assert is_one_sequence(given)
    assert (protein.id, protein.sequence) == (identifier, "MKTAYI")


@pytest.mark.parametrize("several", [["MKT", "AYI"], ("MKT", "AYI"), iter(["MKT", "AYI"]), np.array(["MKT", "AYI"])])
def test_lists_iterators_and_arrays_are_several_sequences(several):
    assert [protein.sequence for protein in read_sequences(several)] == ["MKT", "AYI"]


def test_question_marks_and_mask_tokens_are_masked_positions():
    assert read_one_sequence("M<mask>T?<mask>J").sequence == "M?T??X"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["MKT", "MK1"], "sequence 2: '1' at position 3 is not an amino acid"),
        ("MK*T", "sequence 1: '*' at position 3 is not an amino acid"),
        ("proteins.fasta", "sequence 1: '.' at position 9 is not an amino acid"),
        (
            [SeqRecord(Seq("MK-T"), id="P1")],
            "sequence 1 ('P1'): '-' at position 3 is not an amino acid; remove the gaps",
        ),
        (["MKT", " "], "sequence 2: it is empty"),
        (["MKT", float("nan")], "sequence 2: it is of type float"),
        ([b"MKT"], "sequence 1: it is of type bytes"),
        (Path("proteins.fasta"), "the sequences: they are of type PosixPath"),
        ({"P1": "MKT"}, "the sequences: they are of type dict"),
        (None, "the sequences: they are of type NoneType"),
        (np.array("MKT"), "the sequences: they are of type ndarray"),
    ],
)
def test_anything_else_is_an_error_that_names_sequence_position_and_character(given, message):
    with pytest.raises(SequenceError) as caught:
        read_sequences(given)

    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("given", [[], ["MKT", "AYI"]])
def test_a_method_for_one_sequence_rejects_several(given):
    with pytest.raises(SequenceError, match="not one; give them one at a time"):
        read_one_sequence(given)


def test_proteins_are_cut_to_the_region_and_one_that_ends_before_it_is_an_error():
    assert [protein.sequence for protein in read_sequences(["MKTAYI", "MKT"], Region(2, 4))] == ["KTA", "KT"]
    with pytest.raises(SequenceError, match="sequence 2: it has 3 residues, but the model uses residues 4-9"):
        read_sequences(["MKTAYI", "MKT"], Region(4, 9))
