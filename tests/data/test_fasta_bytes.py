"""Every byte at every kind of position in a FASTA file, and all differences from Biopython."""

import io

import pytest
from Bio import SeqIO
from Bio.SeqIO.FastaIO import SimpleFastaParser
from hypothesis import given, settings, strategies as st

from protembed.config.common import InputConfig
from protembed.data.alphabet import RESIDUES
from protembed.data.fasta import ReadStatistics, read_fasta, read_fasta_stream
from protembed.errors import DataError, FormatError, IllegalResidueError, RecordError

BYTES = range(256)
NEWLINES = b"\n\r"
# Single bytes that Python regards as white space; within a sequence line they are ignored.
SPACES = b"\t\x0b\x0c\x1c\x1d\x1e\x1f "
LETTERS = (RESIDUES + RESIDUES.lower() + "Jj").encode()
BEFORE, AFTER = b">first\nMKT\n", b">last\nMRR\n"
# Gaps and separators of chains.
NEVER_MASKED = b"-.:/"


def read(content, on_illegal="error", statistics=None):
    stream = io.BufferedReader(io.BytesIO(content))
    return list(
        read_fasta_stream(stream, "bytes.fasta", InputConfig(on_illegal=on_illegal), statistics or ReadStatistics())
    )


def escaped(byte):
    return chr(byte) if byte < 128 else f"\\x{byte:02x}"


def upper(letter):
    return letter.upper().replace("J", "X")


# Any byte in a sequence


@pytest.mark.promise(15)
def test_every_byte_in_a_sequence_is_read_or_reported_with_record_line_and_column():
    for byte in BYTES:
        content = BEFORE + b">b odd\nMK\nAY" + bytes([byte]) + b"WK\n" + AFTER
        if byte in LETTERS:
            assert [record.sequence for record in read(content)] == ["MKT", f"MKAY{upper(chr(byte))}WK", "MRR"]
        elif byte in NEWLINES + SPACES:
            assert [record.sequence for record in read(content)] == ["MKT", "MKAYWK", "MRR"]
        else:
            with pytest.raises(IllegalResidueError) as caught:
                read(content)
            error = caught.value
            found = (error.path, error.record_id, error.line, error.column, error.letter)
            assert found == ("bytes.fasta", "b", 5, 3, escaped(byte))


@pytest.mark.promise(15)
def test_every_byte_at_the_start_of_a_sequence_line_is_read_or_reported():
    for byte in BYTES:
        content = BEFORE + b">b\nMK\n" + bytes([byte]) + b"W\n" + AFTER
        if byte == ord(">"):
            with pytest.raises(RecordError, match="line 5: record 3 .'W'. has no sequence"):
                read(content)
        elif byte in LETTERS + NEWLINES + SPACES:
            assert len(read(content)) == 3
        else:
            with pytest.raises((IllegalResidueError, FormatError)) as caught:
                read(content)
            assert caught.value.line == 5
            assert isinstance(caught.value, FormatError) == (byte in b"#;")


@pytest.mark.promise(15)
def test_every_byte_that_is_no_residue_can_be_masked_or_its_record_skipped():
    for byte in BYTES:
        if byte in LETTERS + NEWLINES + SPACES + NEVER_MASKED + b"\0>":
            continue
        content, statistics = BEFORE + b">b\nMK" + bytes([byte]) + b"W\n" + AFTER, ReadStatistics()

        assert [record.sequence for record in read(content, "mask")] == ["MKT", "MKXW", "MRR"]
        assert [record.id for record in read(content, "skip", statistics)] == ["first", "last"]
        assert [(record.id, record.line) for record in statistics.skipped] == [("b", 4)]


# Any byte in a header


@pytest.mark.promise(15)
def test_every_byte_in_a_header_is_kept_or_reported_with_record_line_and_column():
    for byte in BYTES:
        content = BEFORE + b">on" + bytes([byte]) + b"e 1\nMKT\n" + AFTER
        if byte == 0:
            with pytest.raises(RecordError, match="^bytes.fasta, line 3: record 2 has a NUL byte in column 4"):
                read(content)
        elif byte in NEWLINES:
            # The header ends there, and the rest of it is no sequence.
            with pytest.raises(IllegalResidueError, match="line 4: '1' in column 3 of record 'on'"):
                read(content)
        else:
            record = read(content)[1]
            assert record.description == f"on{escaped(byte)}e 1"
            assert record.id == ("on" if byte in SPACES else f"on{escaped(byte)}e")
            assert record.sequence == "MKT"


@pytest.mark.promise(15)
def test_every_byte_at_the_start_of_a_header_is_kept_or_reported():
    for byte in BYTES:
        content = BEFORE + b">" + bytes([byte]) + b"one\nMKT\n" + AFTER
        if byte == 0 or byte in NEWLINES:
            with pytest.raises(RecordError, match="^bytes.fasta, line 3: record 2 has"):
                read(content)
        else:
            assert read(content)[1].id == ("one" if byte in SPACES else f"{escaped(byte)}one")


@pytest.mark.promise(15)
def test_every_byte_at_the_start_of_a_file_is_read_or_reported():
    for byte in BYTES:
        content = bytes([byte]) + AFTER
        if byte in NEWLINES or byte == ord(">"):
            # A blank line; or a second `>`, which belongs to the identifier.
            assert [record.id for record in read(content)] == ["last" if byte in NEWLINES else ">last"]
        else:
            with pytest.raises(FormatError, match=r"^bytes\.fasta"):
                read(content)


# Biopython


WORDS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=6)
ODD_LETTERS = st.sampled_from([*"MKTAYmktjJXbzuo*", " ", "\t", "\x0b", "\x1c", "\u00a0", "\u2028", "-", "1", ">", "é"])
LINES = st.one_of(
    st.builds(">{}".format, WORDS), st.text(ODD_LETTERS, max_size=8), st.sampled_from(["", "  ", "*", "#x", ";x", "@x"])
)
ENDS = st.sampled_from(["\n", "\r\n", "\r"])


def as_protembed_reads(title, letters):
    """Convert what Biopython reads to what protembed reads; these are all the differences.

    Biopython keeps the blanks at the beginning of a header. In sequences it keeps lower case, J, a final `*`, and all
    white space except blanks at the end of a line. (A `Seq` can hold text that is not ASCII, but cannot print it.)
    """
    sequence = upper("".join(letters.split()).removesuffix("*"))
    return title.split()[0], title.strip(), sequence


@pytest.mark.promise(24)
@settings(deadline=None, max_examples=150)
@given(lines=st.lists(LINES, min_size=1, max_size=8), newline=ENDS, begins=st.sampled_from([">a\nMK\n", ""]))
def test_accepted_files_differ_from_biopython_only_as_documented(lines, newline, begins):
    content = (begins + newline.join(lines)).encode()
    try:
        records = read(content)
    except DataError:
        return

    text = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8").read()  # translates newlines
    of_biopython = list(SimpleFastaParser(io.StringIO(text)))
    of_seqio = list(SeqIO.parse(io.StringIO(text.lstrip()), "fasta"))

    assert [(record.id, record.description, record.sequence) for record in records] == [
        as_protembed_reads(*pair) for pair in of_biopython
    ]
    assert [record.id for record in records] == [record.id for record in of_seqio]
    assert [record.sequence for record in records] == [
        as_protembed_reads("a", bytes(record.seq).decode())[2] for record in of_seqio
    ]


@pytest.mark.promise(24)
@settings(deadline=None, max_examples=40)
@given(
    proteins=st.lists(
        st.tuples(st.text("abcXYZ0189|._-/=", min_size=1, max_size=9), st.text(RESIDUES, min_size=1, max_size=70)),
        min_size=1,
        max_size=5,
    ),
    width=st.integers(1, 60),
)
def test_ordinary_files_are_read_exactly_as_by_biopython(tmp_path_factory, proteins, width):
    path = tmp_path_factory.getbasetemp() / "ordinary.fasta"
    with path.open("w") as stream:
        for name, sequence in proteins:
            folded = "\n".join(sequence[start : start + width] for start in range(0, len(sequence), width))
            stream.write(f">{name}\n{folded}\n")

    records = [(record.id, record.description, record.sequence) for record in read_fasta([path])]

    with path.open() as stream:
        of_biopython = [(record.id, record.description, str(record.seq)) for record in SeqIO.parse(stream, "fasta")]
    assert records == of_biopython


@pytest.mark.promise(24)
def test_a_file_with_a_byte_order_mark_is_read_though_biopython_reads_nothing():
    content = ">a\nMK\n".encode("utf-8-sig")

    assert [record.id for record in read(content)] == ["a"]
    assert list(SimpleFastaParser(io.StringIO(content.decode()))) == []
