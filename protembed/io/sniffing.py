"""Detection of other formats by how they begin, and of other notations of sequences by their case."""

import codecs
import re
from functools import cache
from typing import BinaryIO

_PEEK = 512
_MAGIC_BYTES = {
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "an old document of Word or Excel (.doc, .xls)",
    b"PK\x03\x04": "a zip archive",
    b"PK\x05\x06": "an empty zip archive",
    b"\x04\x22\x4d\x18": "an lz4 archive",
    b"L\0\0\0\x01\x14\x02\0": "a shortcut of Windows, not the file that it leads to",
    b"\t\0\0\0\x0eSnapGene": "a SnapGene file",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"LZIP": "an lzip archive",
    b"\x89LZO\0": "an lzop archive",
    b"\x1f\x9d": "an archive of compress (.Z)",
    b"]\0\0": "an archive in the old .lzma format",
    # The first layer of compression was removed before these bytes are examined.
    b"\x1f\x8b": "a gzip archive within another archive",
    b"BZh": "a bzip2 archive within another archive",
    b"\xfd7zXZ\0": "an xz archive within another archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive within another archive",
    b"\x89HDF\r\n": "HDF5, as of a result of `embed`",
    b"\x93NUMPY": "NumPy's .npy, as of a result of `embed`",
    b"SQLite format 3\0": "an SQLite database",
    b"BAM\1": "BAM",
    b"PAR1": "Parquet",
    b"%PDF": "PDF",
    b"{\\rtf": "RTF, the text of a word processor",
    codecs.BOM_UTF32_LE: "UTF-32 text",
    codecs.BOM_UTF32_BE: "UTF-32 text",
    codecs.BOM_UTF16_LE: "UTF-16 text",
    codecs.BOM_UTF16_BE: "UTF-16 text",
}
# The first file within a document of Word, Excel or LibreOffice, which is a zip archive; its name is at offset 30.
_ZIP, _ZIP_NAME_OFFSET = b"PK\x03\x04", 30
_IN_DOCUMENTS = (b"[Content_Types].xml", b"_rels/", b"docProps/", b"word/", b"xl/", b"mimetype")
# A tar archive describes each file in a block of 512 bytes, which has this mark at offset 257.
_TAR, _TAR_OFFSET = b"ustar", 257
# UTF-16 without a byte-order mark, in either byte order: four letters of ASCII, or a header's `>` and one more letter.
_UTF16 = re.compile(rb"(?:[\t\n\r -~]\0){4}|(?:\0[\t\n\r -~]){4}|>\0[^\0]\0|\0>\0[^\0]", re.DOTALL)
# Control characters other than white space, the end of a file in DOS, and codes of terminals: a tenth of random bytes.
_CONTROL_CHARACTERS = bytes([*range(0x09), *range(0x0E, 0x1A), *range(0x1C, 0x20)])
_MAX_CONTROL_FRACTION = 0.02
_LINE_STARTS = {
    "@": "FASTQ, SAM, or another format whose lines begin with '@'",
    ";": "the old FASTA dialect with ';' lines",
    "LOCUS": "GenBank",
    "ID   ": "EMBL or UniProt flat text",
    "# STOCKHOLM": "a Stockholm alignment",
    **dict.fromkeys(("CLUSTAL", "MUSCLE (", "PROBCONS ", "MSAPROBS ", "Kalign "), "a Clustal alignment"),
    "HEADER": "a PDB file",
    "data_": "an mmCIF file",
    "##gff": "GFF",
    "#NEXUS": "a NEXUS alignment",
    **dict.fromkeys(("#mega", "#MEGA", "#Mega"), "a MEGA alignment"),
    **dict.fromkeys(("!!AA", "PileUp"), "an MSF alignment"),
    "<": "HTML or XML",
    "&gt;": "text of a web page, in which each '>' became '&gt;'",
    "{": "JSON",
    "[{": "JSON",
}

# The number of sequences and of columns, and perhaps how the rows are laid out.
_PHYLIP = re.compile(r"\s*\d+\s+\d+(\s+[IS])?\s*", re.IGNORECASE)
# The comment of HHsuite, and that of ColabFold: the lengths of the chains, a tab, and their numbers of copies.
_A3M_COMMENT = re.compile(r"#A3M#|#\d+(,\d+)*\t")
A3M_WITH_COMMENT = "an A3M alignment that begins with a comment"
# What Biopython calls the formats of alignments.
_ALIGNMENTS = {
    "a Stockholm alignment": "stockholm",
    "a Clustal alignment": "clustal",
    "a PHYLIP alignment": "phylip-relaxed",
    "a NEXUS alignment": "nexus",
    "an MSF alignment": "msf",
}

ONE_LETTER_ADVICE = "write one letter for each amino acid"
_LETTER_PAIRS = re.compile("(?:[A-Z][a-z]){5,}")


def detect_binary_format(stream: BinaryIO) -> str | None:
    """Return the format of a stream that is not text, without reading from it; None if it may be text."""
    head: bytes = stream.peek(_PEEK)[:_PEEK]  # type: ignore[attr-defined]  # every stream of open_input can peek
    if head.startswith(_ZIP) and head.startswith(_IN_DOCUMENTS, _ZIP_NAME_OFFSET):
        return "a document of Word, Excel or LibreOffice (.docx, .xlsx, .ods)"
    for magic, name in _MAGIC_BYTES.items():
        if head.startswith(magic):
            return name
    if head.startswith(_TAR, _TAR_OFFSET):
        return "a tar archive"
    if _UTF16.match(head):
        return "UTF-16 text"
    # If a file begins as FASTA does, the reader reports the NUL with its line and column.
    begins_as_fasta = head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b">")
    return "a binary file" if _is_binary(head) and not begins_as_fasta else None


def _is_binary(head: bytes) -> bool:
    """Return whether the first bytes of a file have a NUL, or control characters and cannot be UTF-8."""
    num_control = len(head) - len(head.translate(None, _CONTROL_CHARACTERS))
    if b"\0" in head or num_control <= _MAX_CONTROL_FRACTION * len(head):
        return b"\0" in head
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return True
    return False


def detect_text_format(line: str) -> str | None:
    """Return the format of a text by its first line; None if it is not recognised.

    >>> detect_text_format("# STOCKHOLM 1.0"), detect_text_format(" 2 60"), detect_text_format("#A3M#")
    ('a Stockholm alignment', 'a PHYLIP alignment', 'an A3M alignment that begins with a comment')
    """
    if _PHYLIP.fullmatch(line):
        return "a PHYLIP alignment"
    if _A3M_COMMENT.match(line):
        return A3M_WITH_COMMENT
    return next((name for start, name in _LINE_STARTS.items() if line.lstrip().startswith(start)), None)


def detect_alignment(sequence: str) -> str:
    """Return the format of alignments that a sequence with gaps is from; empty if its letters do not say.

    Lower case stands for insertions; in A2M the other sequences have dots there.

    >>> detect_alignment("MKTak-YI"), detect_alignment("MKTakY..I-"), detect_alignment("MK-TYI")
    ('an A3M alignment', 'an A2M alignment', '')
    """
    if sequence.upper() == sequence or sequence.lower() == sequence:
        return ""
    return "an A2M alignment" if "." in sequence else "an A3M alignment"


def advise_fasta(found: str | None = None) -> str:
    """Say how to get FASTA from a format that `detect_binary_format` or `detect_text_format` found.

    >>> advise_fasta("a tar archive")
    'unpack it, and give the FASTA file that was in it'
    """
    if found is not None and "archive" in found:
        return "unpack it, and give the FASTA file that was in it"
    if found in _ALIGNMENTS:
        convert = f"AlignIO.convert('FILE', '{_ALIGNMENTS[found]}', 'FILE.fasta', 'fasta')"
        return f'convert it to FASTA (`python -c "from Bio import AlignIO; {convert}"`), and pass `gaps` drop'
    if found == A3M_WITH_COMMENT:
        return "pass `gaps` drop, which reads proteins without their gaps"
    return "give a FASTA file, whose records begin with '>'"


@cache
def _three_letter_codes() -> re.Pattern[str]:
    from Bio.Data.IUPACData import protein_letters_3to1

    return re.compile(rf"(?:{'|'.join(protein_letters_3to1)}){{2,}}")


def detect_notation(sequence: str) -> str | None:
    """Return the notation of a sequence whose letters are not one for each amino acid; None for other sequences.

    >>> detect_notation("MetLysThr"), detect_notation("MdEvVpQpLr"), detect_notation("mktMKT")
    ('in three-letter code', 'of amino acids and letters of structure, as SaProt reads it', None)
    """
    if _three_letter_codes().fullmatch(sequence):
        return "in three-letter code"
    return "of amino acids and letters of structure, as SaProt reads it" if _LETTER_PAIRS.fullmatch(sequence) else None
