"""What is given in place of FASTA, known by how it begins."""

import codecs
from typing import BinaryIO

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
