import bz2
import gzip
import io
import lzma
import string
import sys
import zipfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings, strategies as st

from protembed.data.alphabet import RESIDUES
from protembed.data.fasta import ReadStatistics, read_fasta
from protembed.errors import (
    ConfigError,
    DataError,
    FormatError,
    IllegalResidueError,
    InputNotFoundError,
    NoProteinError,
    RecordError,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

UNUSUAL = Path(__file__).parent / "fixtures" / "ugly"
# Of zstd, only the command's frames have a checksum unless it is asked for.
with_checksum = partial(zstd.compress, options={zstd.CompressionParameter.checksum_flag: True})
ARCHIVERS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": with_checksum}
TWO_PROTEINS = b">first one\nMKTAYIAKQR\n>second\nGSHMLEDPV\n"

archived = pytest.mark.parametrize("compress", ARCHIVERS.values(), ids=ARCHIVERS)


@pytest.fixture
def fasta(tmp_path):
    def write(content, name="proteins.fasta"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture
def stdin(monkeypatch):
    def feed(content):
        stream = io.BufferedReader(io.BytesIO(content))
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=stream))
        return stream

    return feed


def read(path, **options):
    return list(read_fasta([path], **options))


def sequences(path, **options):
    return [record.sequence for record in read(path, **options)]


# Reading


def test_real_proteins_are_read_in_order_with_their_full_headers(proteins_fasta):
    naive = [part.split("\n") for part in proteins_fasta.read_text().split(">")[1:]]

    records = read(proteins_fasta)

    assert [record.description for record in records] == [header for header, *_ in naive]
    assert [record.sequence for record in records] == ["".join(lines) for _, *lines in naive]
    assert [record.id for record in records] == [header.split()[0] for header, *_ in naive]
    assert [record.row for record in records] == list(range(40))


def test_each_record_has_the_line_of_its_header(proteins_fasta):
    lines = proteins_fasta.read_text().splitlines()

    assert all(lines[record.line - 1] == f">{record.description}" for record in read(proteins_fasta))


HARMLESS = {
    "unix": b">a b c\nMKT\nAYW\n",
    "crlf": b">a b c\r\nMKT\r\nAYW\r\n",
    "cr": b">a b c\rMKT\rAYW\r",
    "byte-order mark": b"\xef\xbb\xbf>a b c\nMKTAYW\n",
    "blank lines": b"\n\n>a b c\n\nMKT\n\n\nAYW\n\n",
    "lines of white space": b" \t\n>a b c\n  \t \nMKT\n   \nAYW\n \n",
    "lower case": b">a b c\nmktAYw\n",
    "trailing star": b">a b c\nMKTAYW*\n",
    "trailing star on a line of its own": b">a b c\nMKTAYW\n*\n",
    "spaces and tabs": b"> a b c  \n  MKT AYW\t\n",
    "no final newline": b">a b c\nMKTAYW",
    "one residue per line": b">a b c\nM\nK\nT\nA\nY\nW\n",
}


@pytest.mark.promise(13)
@pytest.mark.parametrize("content", HARMLESS.values(), ids=HARMLESS)
def test_the_layout_of_a_record_does_not_change_what_is_read(fasta, content):
    (record,) = read(fasta(content))

    assert (record.id, record.description, record.sequence) == ("a", "a b c", "MKTAYW")


@pytest.mark.promise(13)
def test_byte_order_marks_within_joined_files_are_ignored(fasta):
    records = read(fasta("\ufeff>a\nMKT\n\ufeff>b c\nMKV\n"))

    assert [(record.id, record.sequence, record.line) for record in records] == [("a", "MKT", 1), ("b", "MKV", 3)]


def test_j_is_read_as_x_and_all_nonstandard_residues_are_counted(fasta):
    statistics = ReadStatistics()

    assert sequences(fasta(">a\nMJKXX\n>b\nBZUOj\n"), statistics=statistics) == ["MXKXX", "BZUOX"]
    assert statistics.nonstandard == {"J": 2, "X": 2, "B": 1, "Z": 1, "U": 1, "O": 1}
    assert statistics.warnings() == ["non-standard residues: 1 B, 2 J, 1 O, 1 U, 2 X, 1 Z (J is read as X)"]


def test_several_files_are_read_as_one(fasta):
    statistics = ReadStatistics()
    paths = [fasta(">a\nMK\n>b\nMR\n", "one.fasta"), str(fasta(">c\nMS\n", "two.fasta"))]

    records = list(read_fasta(paths, statistics=statistics))

    assert [(record.row, record.id, Path(record.path).name) for record in records] == [
        (0, "a", "one.fasta"),
        (1, "b", "one.fasta"),
        (2, "c", "two.fasta"),
    ]
    assert (statistics.num_records, statistics.num_residues) == (3, 6)
    assert statistics.warnings() == []


@pytest.mark.promise(16)
def test_duplicate_identifiers_are_kept_and_counted_across_files(fasta):
    statistics = ReadStatistics()
    paths = [fasta(">a 1\nMK\n>a 2\nMR\n", "one.fasta"), fasta(">a\nMS\n>b\nMT\n", "two.fasta")]

    records = list(read_fasta(paths, statistics=statistics))

    assert [record.sequence for record in records] == ["MK", "MR", "MS", "MT"]
    assert statistics.num_duplicate_ids == 2
    assert "2 records with an identifier used before" in statistics.warnings()[0]


def test_records_are_yielded_before_later_ones_are_read(fasta):
    records = read_fasta([fasta(">a\nMK\n>b\nMR\n>c\nM1\n")])

    assert next(records).id == "a"
    records.close()


@pytest.mark.promise(14)
def test_a_file_of_nucleotides_gives_a_warning():
    statistics = ReadStatistics()
    read(UNUSUAL / "pyfaidx__issue_83.fasta", statistics=statistics)

    assert statistics.num_nucleotide_like == 2
    assert any("look like nucleotides, but protembed reads them as proteins" in line for line in statistics.warnings())


@pytest.mark.promise(14)
@pytest.mark.parametrize(
    "sequence", ["GATTACAGATTACA", "gauuacagauuacn", "GATTACAGATTACAGATTRC", "GATYACAGATTACAGATTACA"]
)
def test_nucleotides_among_proteins_give_a_warning_with_their_number(fasta, sequence):
    statistics = ReadStatistics()
    read(fasta(f">cds\n{sequence}\n>a\nMKTAYIAKQRQISF\n>b\nMKVRYYAWKSRDHA\n"), statistics=statistics)

    assert statistics.num_nucleotide_like == 1
    assert statistics.warnings()[-1] == "sequences like nucleotides in 1 record; protembed reads them as proteins"


@pytest.mark.parametrize("sequence", ["MetLysThrAla", "MET LYS THR\nALA XAA GLX", "METLYSTHRALA*"])
def test_three_letter_codes_give_a_warning(fasta, sequence):
    statistics = ReadStatistics()
    read(fasta(f">a\n{sequence}\n>b\nMKTAYIAKQR\n>c\nC{sequence}\n"), statistics=statistics)

    assert statistics.num_three_letter == 1
    assert "write proteins in one-letter code" in statistics.warnings()[-1]


def test_real_proteins_are_not_taken_for_three_letter_codes(proteins_fasta):
    statistics = ReadStatistics()
    read(proteins_fasta, statistics=statistics)

    assert statistics.num_three_letter == 0


def test_real_proteins_and_short_peptides_are_not_taken_for_nucleotides(proteins_fasta, fasta):
    statistics = ReadStatistics()
    list(read_fasta([proteins_fasta, fasta(">peptide\nGAGATTACAGA\n")], statistics=statistics))

    assert statistics.num_nucleotide_like == 0


# Archives and stdin


@pytest.mark.promise(12)
@archived
def test_archives_are_recognised_by_content_not_by_name(fasta, compress):
    assert sequences(fasta(compress(TWO_PROTEINS), "lies.fasta")) == ["MKTAYIAKQR", "GSHMLEDPV"]
    assert sequences(fasta(TWO_PROTEINS, "lies.fasta.gz")) == ["MKTAYIAKQR", "GSHMLEDPV"]


@pytest.mark.promise(12)
@archived
def test_all_members_of_an_archive_are_read(fasta, compress):
    members = compress(TWO_PROTEINS[:15]) + compress(b"") + compress(TWO_PROTEINS[15:])

    assert sequences(fasta(members)) == ["MKTAYIAKQR", "GSHMLEDPV"]


@pytest.mark.promise(12)
@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "zst"])
def test_archives_of_other_tools_are_read(kind):
    assert sequences(UNUSUAL / f"needletail__test.fa.{kind}") == sequences(UNUSUAL / "needletail__test.fa")


@pytest.mark.promise(12)
@archived
def test_an_archive_cut_anywhere_is_an_error(fasta, compress):
    archive = compress(TWO_PROTEINS[:15]) + compress(TWO_PROTEINS[15:])
    boundary = len(compress(TWO_PROTEINS[:15]))

    for length in set(range(len(archive))) - {boundary}:
        with pytest.raises(FormatError):
            read(fasta(archive[:length]))


@pytest.mark.promise(12)
@archived
def test_an_archive_with_a_flipped_byte_is_an_error_or_reads_unchanged(fasta, compress):
    archive = compress(TWO_PROTEINS[:15]) + compress(TWO_PROTEINS[15:])

    for position in range(len(archive)):
        damaged = bytearray(archive)
        damaged[position] ^= 0xFF
        try:
            assert sequences(fasta(bytes(damaged))) == ["MKTAYIAKQR", "GSHMLEDPV"], f"byte {position}"
        except DataError:
            continue


@pytest.mark.promise(12)
@archived
def test_an_archive_followed_by_other_bytes_is_an_error(fasta, compress):
    with pytest.raises(FormatError, match="damaged"):
        read(fasta(compress(TWO_PROTEINS) + b"rubbish"))


@pytest.mark.parametrize("compress", [bytes, *ARCHIVERS.values()], ids=["plain", *ARCHIVERS])
def test_stdin_is_read_like_a_file_and_left_open(stdin, compress):
    stream = stdin(compress(TWO_PROTEINS))

    records = read("-")

    assert [record.sequence for record in records] == ["MKTAYIAKQR", "GSHMLEDPV"]
    assert {record.path for record in records} == {"<stdin>"}
    assert not stream.closed


def test_errors_name_stdin(stdin):
    stdin(b">a\nM1\n")

    with pytest.raises(IllegalResidueError, match=r"^<stdin>, line 2: '1' in column 2 of record 'a'"):
        read("-")


# Errors


@pytest.mark.promise(15)
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (">a\nMKT\n>b\nMK1T\n>c\nMK\n", (4, "b", 3, "1")),
        (">a\nMKT\n>b\nMK\nM K-T\n", (5, "b", 4, "-")),
        (">a\nMKT\n\n>b\n\nMKT\n\tm.KT", (7, "b", 3, ".")),
        (">a\r\nMKT\r\n>b\r\nMKT!\r\n", (4, "b", 4, "!")),
        ("\ufeff>a\rMKT\rMK?\r", (3, "a", 3, "?")),
        (">a\nM*KT\n", (2, "a", 2, "*")),
        (">a\nMKT**\n", (2, "a", 4, "*")),
        (">a\nMKT\n  >b\nMR\n", (3, "a", 3, ">")),
    ],
)
def test_an_illegal_character_is_reported_with_record_line_and_column(fasta, content, expected):
    path = fasta(content)

    with pytest.raises(IllegalResidueError) as caught:
        read(path)

    error = caught.value
    assert (error.path, error.exit_status) == (str(path), 65)
    assert (error.line, error.record_id, error.column, error.letter) == expected


@pytest.mark.promise(15)
@pytest.mark.parametrize("letter", ["ſ", "ı", "İ", "ß", "Ａ", "Α", "é", "\x00"])
def test_letters_of_other_scripts_are_illegal_even_if_their_upper_case_is_a_residue(fasta, letter):
    with pytest.raises(IllegalResidueError):
        read(fasta(f">a\n{'MKT' * 200}{letter}\n"))


def test_characters_without_width_are_ignored_as_white_space_is(fasta):
    path = fasta(">a\nMK\u200bT\u00adAY\ufeff\n>b\nM\u2060K1\n")

    with pytest.raises(IllegalResidueError, match="line 4: '1' in column 4 of record 'b' .*positions .*remove them"):
        read(path)
    assert sequences(path, on_illegal="skip") == ["MKTAY"]


def test_the_error_names_a_letter_of_another_alphabet(fasta):
    with pytest.raises(IllegalResidueError, match=r"'\u0410' \(CYRILLIC CAPITAL LETTER A\) in column 3"):
        read(fasta(">a\nMK\u0410\n"))


NEARLY_FASTA = {
    "a quoted mail": ("> >a\n> MKTAY\n", "line 1: .* as in a quoted mail; remove the '>' that the mail put"),
    "an indented header": ("\u00a0>a\nMKTAY\n", "line 1: .*; remove what precedes the '>'"),
    "an angle quotation mark": ("›a\nMKTAY\n", "line 1: .*; write '>' in place of '›'"),
    "a wide character": ("＞a\nMKTAY\n", "line 1: .*; write '>' in place of '＞'"),
    "a sequence alone": ("MKTAYIAKQRQISFV\n", "line 1: .*; write a header such as '>name' above each sequence"),
    "a wrapped header": (
        ">a globin of\nMus musculus\nMKTAYIAKQRQISFV\n",
        "line 2: 'Mus musculus' seems to be the end of the header of 'a'; join it to the line above",
    ),
    "MEGA": ("#mega\n!Title x;\n#a\nMKT\n", "line 1: this is a MEGA alignment"),
    "a shortcut": ("L\0\0\0\1\x14\2\0\0\0", "this is a shortcut of Windows"),
    "SnapGene": ("\t\0\0\0\x0eSnapGene\0\1", "this is a SnapGene file"),
}


@pytest.mark.parametrize(("content", "message"), NEARLY_FASTA.values(), ids=NEARLY_FASTA)
def test_the_error_says_how_to_make_fasta_of_what_is_nearly_fasta(fasta, content, message):
    with pytest.raises(FormatError, match=message):
        read(fasta(content))


def test_lower_case_lines_of_full_length_and_groups_of_ten_are_sequence(fasta):
    path = fasta(">a\nmkt ayi\nMKT AYI\n>b\nmkt ay\nmkt ay\n>c\nmk\nMKT\n")

    assert sequences(path) == ["MKTAYIMKTAYI", "MKTAYMKTAY", "MKMKT"]


def test_illegal_characters_are_masked_and_counted(fasta):
    statistics = ReadStatistics()
    path = fasta(">a\nM*K?T\n>b\nMK\n>c\nſMK1\n")

    assert sequences(path, on_illegal="mask", statistics=statistics) == ["MXKXT", "MK", "XMKX"]
    assert statistics.num_masked == 4
    assert "4 illegal characters read as X" in statistics.warnings()


def test_an_undecodable_byte_is_one_illegal_character(fasta):
    path = fasta(b">a\nMK\xffT\n")

    assert sequences(path, on_illegal="mask") == ["MKXT"]
    with pytest.raises(IllegalResidueError) as caught:
        read(path)
    assert (caught.value.column, caught.value.letter) == (3, "\\xff")


GAPS_AND_CHAINS = {
    "MKT-YI": ("-", "this is an alignment: pass `gaps` drop"),
    "MKT..YI": (".", "if this is an alignment, pass `gaps` drop .*; if it is a stop codon, correct the translation"),
    "MKT:AYI": (":", "several chains: give each chain a separate record"),
    "MKT/AYI": ("/", "several chains: give each chain a separate record"),
    "-MKT": ("-", "this is an alignment"),
    "MKT--": ("-", "this is an alignment"),
    "MKT..": (".", "if this is an alignment"),
    "MdEvVpQp": ("d", "as in SaProt's structure-aware sequences: remove the lower-case letters"),
    "M#EvVpQpL": ("v", "as in SaProt's structure-aware sequences"),
    "M1T-Y": ("-", "this is an alignment"),
    "MKTakYI-S": ("-", "this is an A3M alignment: pass `gaps` drop"),
    "MKTak.Y-I": (".", "this is an A2M alignment: pass `gaps` drop"),
}


@pytest.mark.parametrize("on_illegal", ["error", "mask"])
@pytest.mark.parametrize(("sequence", "found", "advice"), [(key, *value) for key, value in GAPS_AND_CHAINS.items()])
def test_gaps_chain_separators_and_structure_letters_are_never_masked(fasta, sequence, found, advice, on_illegal):
    with pytest.raises(IllegalResidueError, match=advice) as caught:
        read(fasta(f">a\n{sequence}\n"), on_illegal=on_illegal)

    assert (caught.value.letter, caught.value.column) == (found, sequence.index(found) + 1)
    assert "mask" not in str(caught.value)


# Alignments


def test_gaps_of_an_alignment_are_removed_on_request_and_counted(fasta):
    statistics = ReadStatistics()
    path = fasta("#A3M#\n>query\nMKT-AYI\n>a3m\nMKTakAYI\n>a2m\nMKT..A-Y.\n>stops\n--MKT*--\n>gffread\nMKT.\n")

    assert sequences(path, gaps="drop", statistics=statistics) == ["MKTAYI", "MKTAKAYI", "MKTAY", "MKT", "MKT"]
    assert (statistics.num_gaps, statistics.num_gapped, statistics.num_residues) == (8, 3, 25)
    assert statistics.warnings()[0] == "8 gaps of an alignment removed from 3 records"


def test_removing_gaps_changes_nothing_in_a_file_without_gaps(proteins_fasta):
    statistics = ReadStatistics()

    assert read(proteins_fasta, gaps="drop", statistics=statistics) == read(proteins_fasta)
    assert (statistics.num_gaps, statistics.num_gapped) == (0, 0)


@pytest.mark.promise(15)
@pytest.mark.parametrize(
    ("content", "place"),
    [(">a\nMK--T\n-1-A\n", (3, 2, "1")), (">a\n-M--K:T\n", (2, 6, ":")), (">a\nM-*-K\n", (2, 3, "*"))],
)
def test_a_letter_behind_gaps_is_reported_with_its_line_and_column(fasta, content, place):
    with pytest.raises(IllegalResidueError) as caught:
        read(fasta(content), gaps="drop")

    assert (caught.value.line, caught.value.column, caught.value.letter) == place


@pytest.mark.parametrize(
    ("record", "found"),
    [
        (">b\n--\n-.-\n", "'b' consists of gaps"),
        (">ss_pred PSIPRED\nCCHHHEE\n", "'ss_pred' is a secondary structure of HHsuite, not a protein"),
    ],
)
def test_a_record_of_an_alignment_without_a_protein_is_an_error_or_left_out_on_request(fasta, record, found):
    path, statistics = fasta(f">a\nMK-T\n{record}>c\nMKV\n"), ReadStatistics()

    with pytest.raises(NoProteinError, match=f"record {found}; remove the record, or pass `on_illegal` skip"):
        read(path, gaps="drop")
    records = read(path, gaps="drop", on_illegal="skip", statistics=statistics)
    assert [record.sequence for record in records] == ["MKT", "MKV"]
    assert (statistics.num_gaps, len(statistics.skipped)) == (1, 1)


def test_an_alignment_of_another_format_is_an_error_when_gaps_are_removed_too(fasta):
    for content in (b"# STOCKHOLM 1.0\na MKT\n", b"#NEXUS\n"):
        with pytest.raises(FormatError, match="AlignIO"):
            read(fasta(content), gaps="drop")


def test_a_policy_for_gaps_that_does_not_exist_is_a_config_error(proteins_fasta):
    with pytest.raises(ConfigError, match="gaps is 'mask', but one of error, drop is expected"):
        read(proteins_fasta, gaps="mask")


def test_a_stop_codon_within_a_protein_is_reported_and_can_be_masked(fasta):
    path = fasta(">a\nMKT*AYI*\n")

    with pytest.raises(IllegalResidueError, match=r"a stop codon within a protein.*`on_illegal` mask"):
        read(path)
    assert sequences(path, on_illegal="mask") == ["MKTXAYI"]


@pytest.mark.parametrize("end", ["*", ".", "*\n", ".\r\n", " .\n\n"])
def test_one_stop_codon_at_the_end_of_a_protein_is_dropped(fasta, end):
    assert sequences(fasta(f">a\nMKT\nAYI{end}\n>b\nMK\n")) == ["MKTAYI", "MK"]


@pytest.mark.parametrize("sequence", ["mktayiakqr", "MKTAYIakqrqisFVK", "Mk", "MkTa", "mKtA", "MkTaYY", "mmKtAyI"])
def test_lower_case_that_does_not_alternate_to_the_end_is_upper_cased(fasta, sequence):
    assert sequences(fasta(f">a\n{sequence}\n")) == [sequence.upper()]


@pytest.mark.parametrize("sequence", ["MdEvVp", "mDeVvP", "MdEvVpQ", "MdE\nvVp"])
def test_strictly_alternating_case_is_rejected_as_structure_aware(fasta, sequence):
    with pytest.raises(IllegalResidueError, match="SaProt"):
        read(fasta(f">a\n{sequence}\n"))


# Headers


def test_identifiers_of_other_encodings_stay_different(fasta):
    statistics = ReadStatistics()
    records = read(
        fasta(b">prot\xe9ine \xe0 Lyon\nMKT\n>prot\xe8ine\nMKV\n>prot\xc3\xa9ine\nMKA\n"), statistics=statistics
    )

    assert [record.id for record in records] == ["prot\\xe9ine", "prot\\xe8ine", "protéine"]
    assert records[0].description == "prot\\xe9ine \\xe0 Lyon"
    assert statistics.num_duplicate_ids == 0


@pytest.mark.parametrize("paths", [b"a.fasta", 3, [], (), [None]])
def test_arguments_that_are_not_paths_raise_a_config_error(paths):
    with pytest.raises(ConfigError, match="paths? .*expected"):
        list(read_fasta(paths))


def test_paths_can_be_strings_and_one_needs_no_list(proteins_fasta):
    for paths in (proteins_fasta, str(proteins_fasta), [str(proteins_fasta)]):
        assert len(list(read_fasta(paths))) == 40


@pytest.mark.promise(10)
def test_records_with_illegal_characters_are_skipped_and_listed(fasta):
    statistics = ReadStatistics()
    path = fasta(">a\nMK\n>b\nM\n1K\n>c\nMR\n>d\nM K2\n")

    records = read(path, on_illegal="skip", statistics=statistics)

    assert [(record.row, record.id, record.line) for record in records] == [(0, "a", 1), (1, "c", 6)]
    assert [(record.id, record.path, record.line) for record in statistics.skipped] == [
        ("b", str(path), 5),
        ("d", str(path), 9),
    ]
    assert statistics.skipped[1].reason == "'2' in column 4 is no amino acid"
    assert statistics.num_records + len(statistics.skipped) == 4
    assert statistics.warnings()[0].startswith("2 records left out, the first: 'b'")


def test_skipping_every_record_is_an_error(fasta):
    with pytest.raises(FormatError, match="every record was left out, the first, 'a', in line 2: '-' in column 2"):
        read(fasta(">a\nM-\n>b\n1\n"), on_illegal="skip")


@pytest.mark.parametrize("on_illegal", ["error", "mask", "skip"])
@pytest.mark.parametrize("content", [">a\nMK\n>\nMR\n>c\nMS\n", ">a\nMK\n> \t \nMR\n", ">a\nMK\n>\n"])
def test_a_record_without_identifier_is_an_error(fasta, content, on_illegal):
    with pytest.raises(RecordError, match=r"line 3: record 2 has no identifier"):
        read(fasta(content), on_illegal=on_illegal)


@pytest.mark.parametrize("on_illegal", ["error", "mask", "skip"])
@pytest.mark.parametrize("content", [">a\nMK\n>b\n>c\nMS\n", ">a\nMK\n>b\n \n\n", ">a\nMK\n>b", ">a\nMK\n>b\n*\n"])
def test_a_record_without_sequence_is_an_error(fasta, content, on_illegal):
    with pytest.raises(RecordError, match=r"line 3: record 2 \('b'\) has no sequence") as caught:
        read(fasta(content), on_illegal=on_illegal)

    assert (caught.value.line, caught.value.record, caught.value.exit_status) == (3, 2, 65)


@pytest.mark.parametrize("mark", ["#", ";"])
def test_comment_lines_are_rejected_not_joined_to_sequences(fasta, mark):
    with pytest.raises(FormatError, match=f"line 3: a '{mark}' comment line"):
        read(fasta(f">a\nMKT\n{mark}CAT\nAYW\n"))


FOREIGN = {
    "FASTQ": b"@read\nMKT\n+\nIII\n",
    "GenBank": b"LOCUS       SCU49845     5028 bp    DNA\n",
    "EMBL": b"ID   100K_RAT   Reviewed;   889 AA.\n",
    "HTML": b"\n  <!DOCTYPE html>\n<html></html>\n",
    "Clustal": b"CLUSTAL W (1.82) multiple sequence alignment\n",
    "PDB": b"HEADER    HYDROLASE\n",
    "mmCIF": b"data_1ABC\n#\n",
    "PIR": b">P1;CRAB_ANAPL\nALPHA CRYSTALLIN B CHAIN\nMKT*\n",
    "JSON": b'{"sequence": "MKT"}\n',
    "binary": bytes(range(8)) + b">a\nMKT\n",
    "a binary file": b"\x17\xce\xe7\x05\x14bytes without a zero",
    "this is JSON": b'[{"sequence": "MKT"}]',
    "UTF-16": ">a\nMKT\n".encode("utf-16"),
    "UTF-16 text": ">a\nMKT\n".encode("utf-16-le"),
    "UTF-16 tex": ">a\nMKT\n".encode("utf-16-be"),
    "UTF-32": ">a\nMKT\n".encode("utf-32"),
    "a tar archive": b"proteins.fasta".ljust(257, b"\0") + b"ustar\x0000".ljust(255, b"\0") + b">a\nMKT\n",
    "an lz4 archive": b"\x04\x22\x4d\x18\x64\x40\xa7" + b">a\nMKT\n",
    "compress": b"\x1f\x9d\x90\x3e\xc2\x28\x68",
    "old .lzma": lzma.compress(b">a\nMKT\n", lzma.FORMAT_ALONE),
    "archive within another archive": gzip.compress(gzip.compress(b">a\nMKT\n")),
    "an lzip archive": b"LZIP\x01\x0c",
    "an old document of Word or Excel": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16),
    "HDF5, as of a result of `embed`": b"\x89HDF\r\n\x1a\n\0",
    "NumPy's .npy, as of a result of `embed`": b"\x93NUMPY\x01\0v\0",
    "a PHYLIP alignment": b" 2 6\nseq1      MKT-YI\nseq2      MKTAYI\n",
    "a Clustal alignment": b"MUSCLE (3.8) multiple sequence alignment\n\nseq1 MKT-YI\n",
    "an MSF alignment": b"!!AA_MULTIPLE_ALIGNMENT 1.0\n",
    "a NEXUS alignment": b"#NEXUS\nbegin data;\n",
    "an A3M alignment that begins with a comment": b"#42,58\t1,1\n>101\nMKT-YI\n",
    "RTF": b"{\\rtf1\\ansi >a\\par MKT}",
    "PDF": b"%PDF-1.7\n",
    "GFF": b"##gff-version 3\n##FASTA\n>a\nMKT\n",
    "web page": b"&gt;a\nMKT\n",
    "not a '>' header": b"MKTAYIAKQR\n>b\nMKT\n",
    "line is '  >a', not a '>' header": b"  >a\n  MKT\n",
    "empty": b"",
    "file is empty": b"\n \n\n",
}


@pytest.mark.promise(14)
@pytest.mark.parametrize(("found", "content"), FOREIGN.items(), ids=FOREIGN)
@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gz"])
def test_other_formats_are_rejected_by_name_in_one_line(fasta, found, content, compress):
    with pytest.raises(FormatError, match=found) as caught:
        read(fasta(compress(content)))

    assert caught.value.exit_status == 65
    assert "\n" not in str(caught.value)


@pytest.mark.promise(14)
@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["proteins.fasta"], "a zip archive; unpack it, and give the FASTA file that was in it"),
        ([], "an empty zip archive"),
        (["[Content_Types].xml", "xl/workbook.xml"], r"a document of Word, Excel or LibreOffice \(.*; give a FASTA"),
        (["mimetype", "content.xml"], "a document of Word, Excel or LibreOffice"),
    ],
)
def test_a_zip_archive_and_a_document_are_rejected_by_name(fasta, tmp_path, names, found):
    with zipfile.ZipFile(tmp_path / "proteins.fasta", "w") as archive:
        for name in names:
            archive.writestr(name, TWO_PROTEINS)

    with pytest.raises(FormatError, match=f"this is {found}"):
        read(tmp_path / "proteins.fasta")


@pytest.mark.parametrize("inner", ["gz", "bz2", "xz", "zst"])
@pytest.mark.parametrize("outer", ["gz", "zst"])
def test_an_archive_within_an_archive_is_rejected_by_name(fasta, inner, outer):
    name = {"gz": "a gzip", "bz2": "a bzip2", "xz": "an xz", "zst": "a zstd"}[inner]

    with pytest.raises(FormatError, match=f"this is {name} archive within another archive; unpack it"):
        read(fasta(ARCHIVERS[outer](ARCHIVERS[inner](TWO_PROTEINS))))


@pytest.mark.parametrize(("content", "name"), [(b"# STOCKHOLM 1.0\n", "stockholm"), (b"#NEXUS\n", "nexus")])
def test_an_alignment_of_another_format_is_rejected_with_a_command_that_converts_it(fasta, content, name):
    with pytest.raises(FormatError, match=f"AlignIO.convert.*'{name}'.*, and pass `gaps` drop"):
        read(fasta(content))


@pytest.mark.promise(14)
@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("easel__stockholm.1", FormatError, "a Stockholm alignment"),
        ("scikit-bio__fasta_invalid_legacy_format", FormatError, "';' lines"),
        ("dnaio__with_comment.fasta", FormatError, "line 1: the first line is '# a comment'"),
        ("easel__fasta.bad.2", RecordError, r"record 1 \('truncated_nam'\) has no sequence"),
        ("easel__fasta.odd.1", RecordError, "line 1: record 1"),
        ("scikit-bio__fasta_invalid_missing_seq_data_middle", RecordError, r"line 3: record 2 \('seq2'\)"),
        ("scikit-bio__fasta_prot_seqs_odd_labels", RecordError, "line 1: record 1 has no identifier"),
    ],
)
def test_malformed_files_of_other_projects_are_rejected(name, error, message):
    with pytest.raises(error, match=message):
        read(UNUSUAL / name)


@pytest.mark.parametrize(
    ("name", "ids", "lengths"),
    [
        ("easel__fasta.2", ["SNRPA_DROME", "SNRPA_HUMAN"], [216, 281]),
        ("scikit-bio__fasta_10_seqs", ["seq1"] * 10, [4] * 10),
        ("pyfaidx__issue_83.fasta", ["MT", "GL000207.1"], [119, 60]),
    ],
)
def test_unusual_but_valid_files_of_other_projects_are_read(name, ids, lengths):
    records = read(UNUSUAL / name)

    assert [record.id for record in records] == ids
    assert [len(record.sequence) for record in records] == lengths


@pytest.mark.promise(14)
def test_a_missing_file_or_a_directory_raises_input_not_found(tmp_path):
    for path in (tmp_path / "missing.fasta", tmp_path):
        with pytest.raises(InputNotFoundError, match=str(path)) as caught:
            read(path)
        assert caught.value.exit_status == 66


# Round trips

words = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=8)
headers = st.lists(words, min_size=1, max_size=4).map(" ".join)
residues = st.text(RESIDUES, min_size=1, max_size=60)


@pytest.mark.promise(13, 24)
@settings(deadline=None, max_examples=60)
@given(
    proteins=st.lists(st.tuples(headers, residues), min_size=1, max_size=5),
    width=st.integers(1, 61),
    newline=st.sampled_from(["\n", "\r\n", "\r"]),
    compress=st.sampled_from([bytes, *ARCHIVERS.values()]),
    lower_case=st.booleans(),
)
def test_any_proteins_written_in_any_layout_are_read_back(
    tmp_path_factory, proteins, width, newline, compress, lower_case
):
    lines = []
    for header, sequence in proteins:
        written = sequence.lower() if lower_case else sequence
        lines += [f">{header}", *(written[start : start + width] for start in range(0, len(written), width))]
    path = tmp_path_factory.getbasetemp() / "any.fasta"
    path.write_bytes(compress((newline.join(lines) + newline).encode()))

    assert [(record.description, record.sequence) for record in read(path)] == proteins


@pytest.mark.promise(15, 24)
@settings(deadline=None, max_examples=60)
@given(
    content=st.binary(max_size=60) | st.text(string.printable, max_size=60).map(lambda text: b">a\n" + text.encode())
)
def test_arbitrary_bytes_are_read_or_raise_a_data_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "noise.fasta"
    path.write_bytes(content)

    try:
        assert read(path)
    except DataError as error:
        assert str(error).startswith(str(path))


@pytest.mark.parametrize("on_illegal", ["mask", "skip"])
def test_a_header_within_a_line_is_rejected_under_every_policy(tmp_path, on_illegal):
    fasta = tmp_path / "glued.fasta"
    fasta.write_text(">a\nMK1\nMKT>b\nMRR\n")

    with pytest.raises(IllegalResidueError, match="line 3: '>' in column 4 of record 'a'.* on a separate line"):
        list(read_fasta([fasta], on_illegal=on_illegal))
