"""The lines of a FASTA file, checked before Biopython's parser sees them."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from protembed.data.alphabet import RESIDUES
from protembed.errors import FormatError, IllegalResidueError
from protembed.io.delimited import visible
from protembed.io.sniffing import A3M_WITH_COMMENT, advise_fasta, detect_alignment, detect_text_format
from protembed.text import without_invisible

GAPS = "-."
# Files joined by `cat` keep their byte-order marks, each before the first header of its file.
_MARKED_HEADER = "\ufeff>"
# What web pages and word processors make of a `>`.
_LIKE_GREATER_THAN = tuple("\u203a\u00bb\uff1e\u276f")
# A line of a sequence, and words of a text in such a line.
_PROTEIN = re.compile(f"[{RESIDUES}J\\s]{{12,}}[*.]?", re.IGNORECASE)
_WORDS = re.compile(r"[A-Z]?[a-z]+(?: [A-Z]?[a-z]+)+")


def without_surrogates(text: str) -> str:
    r"""Escape bytes that are no UTF-8, so that different bytes stay different: `\xe9` becomes four characters."""
    return text if text.isascii() else text.encode(errors="surrogateescape").decode(errors="backslashreplace")


@dataclass
class RecordLines:
    """The lines of one record: the number of its header line, and its sequence lines as written, with their numbers."""

    line: int
    sequence_lines: list[tuple[int, str]] = field(default_factory=list)

    def illegal_residue(self, path: str, record_id: str, residue: int) -> IllegalResidueError:
        """Make the error about the residue at this index (from 0, white space not counted), with line and column."""
        letters = (
            (line, column, letter)
            for line, text in self.sequence_lines
            for column, letter in enumerate(text, start=1)
            if not letter.isspace() and without_invisible(letter)
        )
        line, column, letter = next(islice(letters, residue, None))
        alignment = detect_alignment("".join(text for _, text in self.sequence_lines)) if letter in GAPS else ""
        return IllegalResidueError(path, line, record_id, column, without_surrogates(letter), alignment=alignment)

    def check_header_ends(self, path: str, record_id: str) -> None:
        """Check that the first line of the sequence is not the end of the header, which a mail program wrapped.

        Then it holds words in lower case, and is shorter than the next line, which is in upper case.

        Raises:
            FormatError: It seems to be the end of the header.
        """
        if len(self.sequence_lines) < 2:
            return
        line, first = self.sequence_lines[0]
        first, second = first.strip(), self.sequence_lines[1][1].strip()
        if len(first) < len(second) and second.isupper() and _WORDS.fullmatch(first):
            found = f"{first[:40]!r} seems to be the end of the header of {record_id!r}"
            raise FormatError(path, found, "join it to the line above", line=line)


def _advise_first_line(line: str) -> str:
    """Say how to make FASTA of a file that begins with this line, if it is nearly FASTA."""
    text = visible(line)
    if text.startswith(">"):
        return "remove what precedes the '>'"
    if text[:1] in _LIKE_GREATER_THAN:
        return f"write '>' in place of {text[0]!r}"
    if _PROTEIN.fullmatch(text):
        return "write a header such as '>name' above each sequence"
    return advise_fasta()


class LineChecker:
    """Checks the lines of a FASTA file before the parser sees them, and remembers the lines of the two latest records.

    Two, because Biopython reads the header of the next record before it yields a record. If the file may be an
    alignment, it may begin with comments, as A3M does.
    """

    def __init__(self, text: Iterable[str], name: str, *, is_alignment: bool) -> None:
        self._text, self._name, self._is_alignment = text, name, is_alignment
        self._latest: list[RecordLines] = []
        self._num_records = self._num_lines = 0

    def finished_record(self, number: int) -> RecordLines:
        """Return the lines of the record with this number, from 1; only the two latest records are remembered."""
        return self._latest[number - 1 - self._num_records]

    def __iter__(self) -> Iterator[str]:
        # Biopython asks for an iterator twice, for the first header and for the rest; the counts continue.
        for line in self._text:
            self._num_lines += 1
            line = line[1:] if line.startswith(_MARKED_HEADER) else line
            if line.startswith(">"):
                self._latest = [*self._latest[-1:], RecordLines(self._num_lines)]
                self._num_records += 1
            elif self._is_comment(line):
                line = "\n"
            elif line.strip():
                self._check_is_fasta(line)
                self._latest[-1].sequence_lines.append((self._num_lines, line))
            yield line if line.strip() else "\n"

    def _is_comment(self, line: str) -> bool:
        may_be_comment = self._is_alignment and not self._latest and line.startswith("#")
        return may_be_comment and detect_text_format(line) in (None, A3M_WITH_COMMENT)

    def _check_is_fasta(self, line: str) -> None:
        if not self._latest:
            foreign = detect_text_format(line)
            found = f"this is {foreign}" if foreign else f"the first line is {line.rstrip()[:40]!r}, not a '>' header"
            advice = advise_fasta(foreign) if foreign else _advise_first_line(line)
            raise FormatError(self._name, found, advice, line=self._num_lines)
        if line.startswith((";", "#")):
            raise FormatError(
                self._name, f"a {line[0]!r} comment line", "FASTA has none, remove it", line=self._num_lines
            )
