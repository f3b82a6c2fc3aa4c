"""What is given in place of FASTA, known by how it begins, and in place of one-letter code, known by its case."""

import codecs
import re
from typing import BinaryIO

from Bio.Data.IUPACData import protein_letters_3to1

_PEEK = 512
_BYTES = {
    b"PK\x03\x04": "a zip archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}
_LINES = {
    "@": "FASTQ, SAM, or another format whose lines begin with '@'",
    ";": "the old FASTA dialect with ';' lines",
    "LOCUS": "GenBank",
    "ID   ": "EMBL or UniProt flat text",
    "# STOCKHOLM": "a Stockholm alignment",
    "CLUSTAL": "a Clustal alignment",
    "HEADER": "a PDB file",
    "data_": "an mmCIF file",
    "<": "HTML or XML",
    "{": "JSON",
}

ONE_LETTER_ADVICE = "write one letter for each amino acid"
_THREE_LETTERS = re.compile(rf"(?:{'|'.join(protein_letters_3to1)}){{2,}}")
_LETTER_PAIRS = re.compile("(?:[A-Z][a-z]){5,}")


def foreign_format(stream: BinaryIO) -> str | None:
    """Name the format of a file that is no text; None where it may be FASTA.

    Args:
        stream: of bytes, one that can peek; nothing is taken from it.
    """
    head: bytes = stream.peek(_PEEK)[:_PEEK]  # type: ignore[attr-defined]  # every stream of open_input can peek
    for magic, name in _BYTES.items():
        if head.startswith(magic):
            return name
    # In what begins as FASTA does the reader meets the NUL, and knows its line and column.
    begins_as_fasta = head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b">")
    return "a binary file" if b"\0" in head and not begins_as_fasta else None


def format_of_line(line: str) -> str | None:
    """Name the format of a text by its first line; None where it is not known."""
    return next((name for start, name in _LINES.items() if line.lstrip().startswith(start)), None)


def other_notation(sequence: str) -> str | None:
    """Name how a sequence is written whose letters are amino acids, though not one for each; None for other sequences.

    >>> other_notation("MetLysThr"), other_notation("MdEvVpQpLr"), other_notation("mktMKT")
    ('in three-letter code', 'of amino acids and letters of structure, as SaProt reads it', None)
    """
    if _THREE_LETTERS.fullmatch(sequence):
        return "in three-letter code"
    return "of amino acids and letters of structure, as SaProt reads it" if _LETTER_PAIRS.fullmatch(sequence) else None
