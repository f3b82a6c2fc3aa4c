"""`?` and `<mask>` in FASTA files: masked positions where the caller asks for them, and an error elsewhere."""

import pytest

from protembed.data.fasta import ReadStatistics, read_fasta
from protembed.data.sequences import read_sequences
from protembed.errors import FormatError, IllegalResidueError


@pytest.fixture
def fasta(tmp_path):
    def write(content):
        path = tmp_path / "proteins.fasta"
        path.write_text(content)
        return path

    return write


def sequences(path, **options):
    return [record.sequence for record in read_fasta([path], **options)]


def test_question_marks_and_mask_tokens_are_masked_positions_on_request(fasta):
    path = fasta(">a\nmk<mask>TA\n?J*\n>b\nMK<ma\nsk><MASK>\n>c\nMKT\n")

    assert sequences(path, with_masks=True) == ["MK?TA?X", "MK??", "MKT"]


def test_files_and_python_read_the_same_masked_positions(fasta):
    written = ["MK<mask>?TAY", "<mask>mk t", "????"]

    from_file = sequences(fasta("".join(f">a\n{sequence}\n" for sequence in written)), with_masks=True)

    assert from_file == [protein.sequence for protein in read_sequences(written)]


@pytest.mark.parametrize("gaps", ["error", "drop"])
@pytest.mark.parametrize(
    ("sequence", "line", "column", "letter"),
    [("MK<mask>T1A", 2, 10, "1"), ("MK<mask>\n?<mask>A\nK!", 4, 2, "!"), ("M<mask>\nK<masc", 3, 2, "<")],
)
def test_an_illegal_character_beside_masks_is_reported_with_its_column(fasta, sequence, line, column, letter, gaps):
    with pytest.raises(IllegalResidueError) as caught:
        sequences(fasta(f">a\n{sequence}\n"), with_masks=True, gaps=gaps)

    assert (caught.value.line, caught.value.column, caught.value.letter) == (line, column, letter)


def test_masked_positions_stay_masked_where_illegal_characters_become_x(fasta):
    statistics = ReadStatistics()

    read = sequences(fasta(">a\nM!<mask>K?\n"), with_masks=True, on_illegal="mask", statistics=statistics)

    assert (read, statistics.num_masked) == (["MX?K?"], 1)


def test_gaps_are_dropped_between_masks(fasta):
    assert sequences(fasta(">a\nM-<mask>--K?.\n"), with_masks=True, gaps="drop") == ["M?K?"]


@pytest.mark.parametrize("sequence", ["MK?TA", "MK<mask>TA", "MK<MASK>TA"])
def test_masked_positions_are_an_error_elsewhere_that_names_the_option(fasta, sequence):
    with pytest.raises(IllegalResidueError, match=r"line 2: '[?<]' in column 3 .*only `protembed score` with `fill`"):
        sequences(fasta(f">a\n{sequence}\n"))


def test_a_record_with_a_mask_token_can_be_skipped_and_is_never_read_as_six_residues(fasta):
    path = fasta(">a\nMK<mask>TA\n>b\nMKT\n")

    assert sequences(path, on_illegal="skip") == ["MKT"]
    with pytest.raises(IllegalResidueError, match="'<' in column 3"):
        sequences(path, on_illegal="mask")


def test_a_header_in_a_sequence_line_is_an_error_with_and_without_masks(fasta):
    for with_masks in (True, False):
        with pytest.raises((IllegalResidueError, FormatError)):
            sequences(fasta(">a\nMKT\n  >b\nM?\n"), with_masks=with_masks, on_illegal="skip")
