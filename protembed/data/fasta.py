"""The strict streaming FASTA reader: Biopython's parser under our own validation.

Biopython alone returns nothing for a file with a byte-order mark or for FASTQ, drops whatever stands before the first
`>`, and glues comment lines into sequences; `_LineChecker` sees every line before Biopython does and refuses those.
"""

import io
import re
import string
from array import array
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from Bio.Data.IUPACData import protein_letters_1to3_extended
from Bio.SeqIO.FastaIO import SimpleFastaParser

from protembed.data.alphabet import NONSTANDARD_RESIDUES, RESIDUES
from protembed.errors import DamagedArchiveError, FormatError, IllegalResidueError, RecordError
from protembed.io.reading import PathLike, as_paths, display_name, open_input
from protembed.io.sniffing import foreign_format, format_of_line
from protembed.io.text import pluralize

OnIllegal = Literal["error", "mask", "skip"]

_ACCEPTED = RESIDUES + "J"
_ILLEGAL = re.compile(f"[^{_ACCEPTED}]")
# Under any policy: masked or skipped, the record that a misplaced header begins would vanish, and so would whatever
# stood where a disk has left nothing but zeros.
_NEVER_SKIPPED = re.compile(">|\0")
_READ_AS_UNKNOWN = str.maketrans("J", "X")
# Masked, a gap or the end of a chain would become a residue, and shift those behind it; a letter that is still lower
# case is one of a structure.
_NEVER_MASKED = re.compile("[-./:a-z]")
# SaProt's tokens are an amino acid and a letter of 3Di; soft-masked regions are runs of lower case.
_STRUCTURE_AWARE = re.compile("(?:[A-Z#][a-z#]){3,}[A-Z#]?|(?:[a-z#][A-Z#]){3,}[a-z#]?")
# str.upper would let foreign letters in: the dotless i becomes an I, the long s an S.
_UPPER_CASE = str.maketrans(string.ascii_lowercase, string.ascii_uppercase)
# With IUPAC's codes for ambiguous bases, which may be one letter in twenty.
_NUCLEOTIDES = re.compile("[ACGTUNRYSWKMBDHV]+")
_WITHOUT_BASES = str.maketrans("", "", "ACGTUN")
_MOST_AMBIGUOUS = 20
# Shorter than this, a peptide may well consist of A, C, G and T only.
_NUCLEOTIDE_MIN_RESIDUES = 12

# All letters of the codes are residues too, so nothing else tells `MetLysThrAla` from a protein. Four codes in a row
# and no other letter are no chance: one protein of twelve residues in 10^10 would look so.
_THREE_LETTER_CODES = re.compile(f"(?:{'|'.join(protein_letters_1to3_extended.values()).upper()}){{4,}}")
# `cat` leaves the byte-order mark of each file before its first header.
_MARKED_HEADER = "\ufeff>"

_FASTA_ADVICE = "give a FASTA file, whose records begin with '>'"
# The codes of NBRF/PIR for what a record holds.
_PIR = re.compile(r"(P1|F1|DL|DC|RL|RC|N1|N3|XX);\S")


@dataclass(frozen=True, kw_only=True)
class Record:
    """One protein as it stands in a file.

    Attributes:
        row: the number of the record among all that were read and kept, from 0; rows, not identifiers, name records.
        id: the header's first word.
        description: the full header, without `>`.
        sequence: upper-case residues of the ESM-2 alphabet; J is read as X.
        path: the file's name, for messages.
        line: the line of the header, from 1.
        written: the sequence as it is written, without white space; None where that is `sequence`.
    """

    row: int
    id: str
    description: str
    sequence: str
    path: str
    line: int
    written: str | None = None


@dataclass(frozen=True, kw_only=True)
class SkippedRecord:
    """A record that was left out on request; the line is that of the illegal character, or of the header."""

    id: str
    path: str
    line: int
    reason: str


@dataclass
class ReadStatistics:
    """What a reading met; complete once the reader is exhausted.

    Attributes:
        num_records: records kept.
        num_residues: residues kept.
        num_duplicate_ids: records whose identifier had been seen before.
        num_masked: illegal characters read as X under `--on-illegal mask`.
        num_truncated: records that were cut off at the model's window, under `--long-proteins truncate`.
        num_nucleotide_like: Records of 12 and more residues that consist of A, C, G, T, U and N, but for one letter
            in twenty that may be another of IUPAC's codes for bases.
        num_three_letter: Records that consist of three-letter codes, as in `MetLysThrAla`.
        nonstandard: how often each of X, B, Z, U, O and J (read as X) was met.
        skipped: the records left out on request.
    """

    num_records: int = 0
    num_residues: int = 0
    num_duplicate_ids: int = 0
    num_masked: int = 0
    num_truncated: int = 0
    num_nucleotide_like: int = 0
    num_three_letter: int = 0
    nonstandard: Counter[str] = field(default_factory=Counter)
    skipped: list[SkippedRecord] = field(default_factory=list)

    @property
    def num_met(self) -> int:
        """Records that were read, kept or not."""
        return self.num_records + len(self.skipped)

    def warnings(self) -> list[str]:
        """Put into sentences what the user should know about the input; empty when there is nothing."""
        found = []
        if self.nonstandard:
            counts = ", ".join(f"{count} {letter}" for letter, count in sorted(self.nonstandard.items()))
            found.append(f"non-standard residues: {counts}" + (" (J is read as X)" if self.nonstandard["J"] else ""))
        if self.num_masked:
            found.append(f"{pluralize(self.num_masked, 'illegal character')} read as X")
        if self.num_duplicate_ids:
            records = pluralize(self.num_duplicate_ids, "record")
            found.append(f"{records} with an identifier used before; rows are told apart by number")
        if self.num_truncated:
            found.append(f"{pluralize(self.num_truncated, 'protein')} cut off at the window's length")
        if self.skipped:
            first = self.skipped[0]
            found.append(f"{pluralize(len(self.skipped), 'record')} left out, the first: {first.id!r} ({first.reason})")
        if self.num_nucleotide_like > self.num_records / 2:
            found.append("most sequences look like nucleotides; protembed reads them as proteins")
        elif self.num_nucleotide_like:
            records = pluralize(self.num_nucleotide_like, "record")
            found.append(f"nucleotides, by their letters, in {records}; protembed reads them as proteins")
        if self.num_three_letter:
            found.append(
                f"three-letter codes (as in MetLysThr) are read as residues letter by letter in "
                f"{pluralize(self.num_three_letter, 'record')}: write proteins in one-letter code"
            )
        return found


def read_fasta(
    paths: Iterable[PathLike], *, on_illegal: OnIllegal = "error", statistics: ReadStatistics | None = None
) -> Iterator[Record]:
    r"""Read proteins one by one, in order, without holding a file in memory.

    Plain, gzip, bzip2 and xz files are told apart by content; `-` is stdin. Lower case is upper-cased, a trailing `*`
    or `.` dropped; CRLF, CR, byte-order marks, blank lines and white space within sequence lines are harmless. Bytes
    of a header that are no UTF-8 are escaped, as in `prot\xe9ine`.

    Args:
        paths: the files, one at least, read one after the other.
        on_illegal: what to do about a record with a character that is no residue: an error, read it as X, or leave the
            record out and list it in `statistics`.
        statistics: counts what was met; make one to see it.

    Yields:
        The records, rows numbered from 0 over all files.

    Raises:
        ConfigError: `paths` is no list, or an empty one.
        InputNotFoundError: a file cannot be read.
        FormatError: a file is no FASTA, damaged, or empty; or of all files every record was left out.
        RecordError: a record has no identifier, no sequence, or a NUL byte in its header.
        IllegalResidueError: a character is no amino acid.
    """
    statistics = ReadStatistics() if statistics is None else statistics
    fingerprints = array("q")  # of the identifiers: eight bytes each, for a file may hold a hundred million
    for path in as_paths("paths", paths):
        with (
            open_records(path, statistics) as stream,
            closing(read_fasta_stream(stream, display_name(path), on_illegal, statistics)) as records,
        ):
            for record in records:
                fingerprints.append(hash(record.id))
                yield record
    statistics.num_duplicate_ids += len(fingerprints) - len(np.unique(fingerprints))
    if not fingerprints:
        check_not_all_skipped(statistics, "correct the file, or choose another --on-illegal")


def check_not_all_skipped(statistics: ReadStatistics, advice: str) -> None:
    """Refuse an input of which no record was kept.

    Raises:
        FormatError: records were left out; `statistics` lists them.
    """
    if statistics.skipped:
        first = statistics.skipped[0]
        found = f"every record was left out, the first, {first.id!r}, in line {first.line}: {first.reason}"
        raise FormatError(first.path, found, advice)


@contextmanager
def open_records(path: Path, statistics: ReadStatistics) -> Iterator[BinaryIO]:
    """Open an input; if its archive turns out to be damaged, the error names the records that were read before.

    Args:
        path: the file; `-` is stdin.
        statistics: counts the records while the stream is read.

    Raises:
        DamagedArchiveError: the archive is truncated or damaged.
    """
    num_before = statistics.num_met
    try:
        with open_input(path) as stream:
            yield stream
    except DamagedArchiveError as error:
        raise DamagedArchiveError(error.path, error.reason, num_records=statistics.num_met - num_before) from error


def read_fasta_stream(
    stream: BinaryIO, name: str, on_illegal: OnIllegal, statistics: ReadStatistics
) -> Generator[Record]:
    """Read the proteins of one open, decompressed file; see `read_fasta`.

    Args:
        stream: of bytes, one that can peek.
        name: of the file, for messages.
        on_illegal: what to do about a letter that is no residue.
        statistics: counts what was met; its number of records is the next row.
    """
    if foreign := foreign_format(stream):
        raise FormatError(name, f"this is {foreign}", _FASTA_ADVICE)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape")
    try:
        lines = _LineChecker(text, name)
        number = 0
        for number, (raw_title, letters) in enumerate(SimpleFastaParser(lines), start=1):
            title, place = _without_surrogates(raw_title), lines.finished_record(number)
            if not title.split():
                raise RecordError(name, place.line, number, "has no identifier after '>'", "name it")
            if number == 1 and _PIR.match(title):
                raise FormatError(name, "this is PIR, whose records have a line of title", _FASTA_ADVICE)
            if (nul := title.find("\0")) >= 0:
                found = f"has a NUL byte in column {nul + 2} of its header"
                raise RecordError(name, place.line, number, found, "the file is binary or damaged")
            record_id = title.split()[0]
            raw = clean_sequence(letters)
            if not raw:
                raise RecordError(name, place.line, number, f"({record_id!r}) has no sequence", "complete or remove it")
            sequence = accept_sequence(raw, on_illegal, statistics, partial(place.illegal_residue, name, record_id))
            if sequence is None:
                continue
            statistics.num_records += 1
            statistics.num_residues += len(sequence)
            yield Record(
                row=statistics.num_records - 1,
                id=record_id,
                description=title.strip(),
                sequence=sequence,
                path=name,
                line=place.line,
                written=None if (written := "".join(letters.split())) == sequence else written,
            )
    finally:
        text.detach()
    if number == 0:
        raise FormatError(name, "the file is empty", _FASTA_ADVICE)


def clean_sequence(letters: str) -> str:
    """Take away white space and a trailing `*` or `.`, a stop codon, and upper-case a sequence.

    A structure-aware sequence of SaProt keeps its lower case, so that `accept_sequence` refuses it.

    >>> clean_sequence("mkt ayi*"), clean_sequence("MdEvVpLd")
    ('MKTAYI', 'MdEvVpLd')
    """
    sequence = "".join(letters.split())
    if _STRUCTURE_AWARE.fullmatch(sequence):
        return sequence
    sequence = sequence.translate(_UPPER_CASE)
    return sequence[:-1] if sequence.endswith(("*", ".")) else sequence


def accept_sequence(
    sequence: str,
    on_illegal: OnIllegal,
    statistics: ReadStatistics,
    illegal_residue: Callable[[int], IllegalResidueError],
) -> str | None:
    """Check the letters of a clean sequence, and count the unusual ones.

    Args:
        sequence: from `clean_sequence`.
        on_illegal: what to do about a letter that is no residue.
        statistics: counts what was met.
        illegal_residue: makes the error for the letter with this number, from 0.

    Returns:
        The sequence in residues of the alphabet; None if its record is to be left out.

    Raises:
        IllegalResidueError: a letter is no residue and `on_illegal` is `error`; it is a gap, the end of a chain or
            SaProt's and `on_illegal` is `mask`; or it is a `>` or NUL.
    """
    if illegal := _ILLEGAL.search(sequence):
        hopeless, unmaskable = _NEVER_SKIPPED.search(sequence), _NEVER_MASKED.search(sequence)
        error = illegal_residue((hopeless or unmaskable or illegal).start())
        if hopeless or on_illegal == "error" or (unmaskable and on_illegal == "mask"):
            raise error
        if on_illegal == "skip":
            reason = f"{error.found!r} in column {error.column} is no amino acid"
            statistics.skipped.append(
                SkippedRecord(id=error.record_id, path=error.path, line=error.line, reason=reason)
            )
            return None
        sequence, num_masked = _ILLEGAL.subn("X", sequence)
        statistics.num_masked += num_masked
    _count_letters(sequence, statistics)
    return sequence.translate(_READ_AS_UNKNOWN)


def _count_letters(sequence: str, statistics: ReadStatistics) -> None:
    for letter in NONSTANDARD_RESIDUES + "J":
        if letter in sequence:
            statistics.nonstandard[letter] += sequence.count(letter)
    if len(sequence) >= _NUCLEOTIDE_MIN_RESIDUES and _NUCLEOTIDES.fullmatch(sequence):
        statistics.num_nucleotide_like += len(sequence.translate(_WITHOUT_BASES)) <= len(sequence) // _MOST_AMBIGUOUS
    if _THREE_LETTER_CODES.fullmatch(sequence):
        statistics.num_three_letter += 1


def _without_surrogates(text: str) -> str:
    r"""Escape the bytes that are no UTF-8, so that different ones stay different: `\xe9` becomes four characters."""
    return text if text.isascii() else text.encode(errors="surrogateescape").decode(errors="backslashreplace")


@dataclass
class _RecordLines:
    """Where a record's letters stand in its file: its header's line, and its sequence lines as they were written."""

    line: int
    sequence_lines: list[tuple[int, str]] = field(default_factory=list)

    def illegal_residue(self, path: str, record_id: str, residue: int) -> IllegalResidueError:
        """Report the residue with this number (from 0, white space not counted) with its line and column."""
        for line, text in self.sequence_lines:
            for column, letter in enumerate(text, start=1):
                if letter.isspace():
                    continue
                if residue == 0:
                    return IllegalResidueError(path, line, record_id, column, _without_surrogates(letter))
                residue -= 1
        raise AssertionError("the residue lies within the record")


class _LineChecker:
    """The lines of a FASTA file, each looked at before the parser sees it, with the place of the two latest records.

    Biopython reads the header of the next record before it yields one, hence two.
    """

    def __init__(self, text: Iterable[str], name: str) -> None:
        self._text, self._name = text, name
        self._places: list[_RecordLines] = []
        self._num_records = self._num_lines = 0

    def finished_record(self, number: int) -> _RecordLines:
        """Return the place of the record with this number, from 1; it or its successor was read last."""
        return self._places[number - 1 - self._num_records]

    def __iter__(self) -> Iterator[str]:
        # Biopython asks for an iterator twice, for the first header and for the rest; the count goes on.
        for line in self._text:
            self._num_lines += 1
            line = line[1:] if line.startswith(_MARKED_HEADER) else line
            if line.startswith(">"):
                self._places = [*self._places[-1:], _RecordLines(self._num_lines)]
                self._num_records += 1
            elif line.strip():
                self._check_is_fasta(line)
                self._places[-1].sequence_lines.append((self._num_lines, line))
            yield line if line.strip() else "\n"

    def _check_is_fasta(self, line: str) -> None:
        if not self._places:
            foreign = format_of_line(line)
            found = f"this is {foreign}" if foreign else f"the first line is {line.rstrip()[:40]!r}, not a '>' header"
            raise FormatError(self._name, found, _FASTA_ADVICE, line=self._num_lines)
        if line.startswith((";", "#")):
            raise FormatError(
                self._name, f"a {line[0]!r} comment line", "FASTA has none, remove it", line=self._num_lines
            )
