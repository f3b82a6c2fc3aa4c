"""The strict streaming FASTA reader: Biopython's parser behind protembed's validation.

Biopython alone returns nothing for a file with a byte-order mark or for FASTQ, drops all text before the first `>`, and
joins comment lines to sequences; `LineChecker` sees every line before Biopython does, and rejects those.
"""

import io
import re
import string
from array import array
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np

from protembed.config.common import Gaps, InputConfig, OnIllegal as OnIllegal
from protembed.data.alphabet import MASK_LETTER, NONSTANDARD_RESIDUES, RESIDUES
from protembed.data.fasta_lines import GAPS, LineChecker, without_surrogates
from protembed.errors import (
    DamagedArchiveError,
    FormatError,
    IllegalResidueError,
    NoProteinError,
    RecordError,
    SkippableError,
)
from protembed.io.reading import Paths, as_paths, display_name, open_input
from protembed.io.sniffing import (
    advise_fasta,
    detect_binary_format,
)
from protembed.text import pluralize, without_invisible

_ACCEPTED = RESIDUES + "J"
_ILLEGAL = re.compile(f"[^{_ACCEPTED}]")
# The token of a masked position, as `clean_sequence` leaves it.
_MASK = "<MASK>"
_ILLEGAL_BESIDE_MASKS = re.compile(f"[^{_ACCEPTED}{MASK_LETTER}]")
# An error under any policy. Masking or skipping `>` would lose the record that a misplaced header begins; NUL bytes are
# what a failing disk leaves in place of data.
_NEVER_SKIPPED = re.compile(f"(?<!{_MASK[:-1]})>|\0")
_READ_AS_UNKNOWN = str.maketrans("J", "X")
# Masking a gap or the end of a chain would make a residue of it and shift the residues behind it; a letter still in
# lower case is one of SaProt's letters for structure; `<mask>` is one position, not six.
_NEVER_MASKED = re.compile(f"[-./:a-z]|{_MASK}")
_WITHOUT_GAPS = str.maketrans("", "", GAPS)
# HHsuite writes secondary structure, its confidence and its source into the alignments that it makes.
_STRUCTURE_RECORDS = ("ss_pred", "ss_conf", "ss_dssp", "sa_dssp")
# SaProt's tokens are an amino acid and a 3Di letter; soft-masked regions are runs of lower case.
_STRUCTURE_AWARE = re.compile("(?:[A-Z#][a-z#]){3,}[A-Z#]?|(?:[a-z#][A-Z#]){3,}[a-z#]?")
# str.upper would let foreign letters in: the dotless i becomes an I, the long s an S.
_UPPER_CASE = str.maketrans(string.ascii_lowercase, string.ascii_uppercase)
# Bases, and IUPAC's codes for ambiguous bases, of which there may be one in twenty letters.
_NUCLEOTIDES = re.compile("[ACGTUNRYSWKMBDHV]+")
_WITHOUT_BASES = str.maketrans("", "", "ACGTUN")
_MIN_LETTERS_PER_AMBIGUOUS_BASE = 20
# A shorter peptide may well consist of A, C, G and T only.
_MIN_NUCLEOTIDES = 12

# What follows the first `>` where a mail program put one before each line.
_QUOTED_MAIL = re.compile(r"\s+>")
# NBRF/PIR's codes for the type of a record.
_PIR = re.compile(r"(P1|F1|DL|DC|RL|RC|N1|N3|XX);\S")


@dataclass(frozen=True, kw_only=True)
class Record:
    """One protein of a FASTA file.

    Attributes:
        row: Index of the record among all that were read and not skipped, from 0; rows, not identifiers, identify
            records.
        id: First word of the header.
        description: Full header, without `>`.
        sequence: Amino-acid sequence, upper case, in the ESM-2 alphabet; J is read as X.
        path: Name of the file, for messages.
        line: Line of the header, from 1.
        written: Sequence as written in the file, without white space; None if it equals `sequence`.
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
    """A record that was left out on request; `line` is that of the illegal character, or of the header."""

    id: str
    path: str
    line: int
    reason: str


@dataclass
class ReadStatistics:
    """Counts of what was read; complete once the reader is exhausted.

    Attributes:
        num_records: Number of records that were not skipped.
        num_duplicate_ids: Number of records whose identifier was used before.
        num_masked: Number of illegal characters read as X under `--on-illegal mask`.
        num_gaps: Number of gaps of alignments that were removed under `--gaps drop`.
        num_gapped: Number of records that had such gaps.
        num_truncated: Number of records cut off at the model's window under `--long-proteins truncate`.
        num_nucleotide_like: Number of records of 12 and more residues that consist of A, C, G, T, U and N, except
            for one letter in twenty that may be another of IUPAC's codes for bases.
        num_three_letter: Number of records that consist of three-letter codes, as in `MetLysThrAla`.
        nonstandard: Number of occurrences of each of X, B, Z, U, O and J (read as X).
        skipped: Records left out on request.
    """

    num_records: int = 0
    num_residues: int = 0
    num_duplicate_ids: int = 0
    num_masked: int = 0
    num_gaps: int = 0
    num_gapped: int = 0
    num_truncated: int = 0
    num_nucleotide_like: int = 0
    num_three_letter: int = 0
    nonstandard: Counter[str] = field(default_factory=Counter)
    skipped: list[SkippedRecord] = field(default_factory=list)

    @property
    def num_read(self) -> int:
        """Number of records that were read, skipped ones included."""
        return self.num_records + len(self.skipped)

    def left_out(self) -> dict[str, list[dict[str, object]]]:
        """List the skipped records for the record of a result; empty if there are none."""
        listed: list[dict[str, object]] = [
            {"id": record.id, "file": Path(record.path).name, "line": record.line, "reason": record.reason}
            for record in self.skipped
        ]
        return {"left_out": listed} if listed else {}

    def skip_or_raise(self, record_id: str, error: SkippableError, policy: str) -> None:
        """List a record as left out if the policy is `skip`, or raise the error about it."""
        if policy != "skip":
            raise error
        self.skipped.append(SkippedRecord(id=record_id, path=error.path, line=error.line, reason=error.reason))

    def exclude(self, record: Record, error: SkippableError, policy: str) -> None:
        """Skip a record that was already counted, or raise the error about it; the next record gets its row."""
        self.num_records -= 1
        self.num_residues -= len(record.sequence)
        self.skip_or_raise(record.id, error, policy)

    def check_not_all_skipped(self, advice: str) -> None:
        """Check that an input of which no record is left was empty, and not skipped record by record.

        Raises:
            FormatError: Records were skipped; the message ends with the advice.
        """
        if self.skipped:
            first = self.skipped[0]
            found = f"every record was left out, the first, {first.id!r}, in line {first.line}: {first.reason}"
            raise FormatError(first.path, found, advice)

    def warnings(self) -> list[str]:
        """Describe what the user should know about the input, in sentences; an empty list if there is nothing."""
        messages = []
        if self.nonstandard:
            counts = ", ".join(f"{count} {letter}" for letter, count in sorted(self.nonstandard.items()))
            messages.append(f"non-standard residues: {counts}" + (" (J is read as X)" if self.nonstandard["J"] else ""))
        if self.num_masked:
            messages.append(f"{pluralize(self.num_masked, 'illegal character')} read as X")
        if self.num_gaps:
            messages.append(
                f"{pluralize(self.num_gaps, 'gap')} of an alignment removed from {pluralize(self.num_gapped, 'record')}"
            )
        if self.num_duplicate_ids:
            records = pluralize(self.num_duplicate_ids, "record")
            messages.append(f"{records} with an identifier used before; rows are identified by number")
        if self.num_truncated:
            messages.append(f"{pluralize(self.num_truncated, 'protein')} cut off at the window's length")
        if self.skipped:
            first = self.skipped[0]
            records = pluralize(len(self.skipped), "record")
            messages.append(f"{records} left out, the first: {first.id!r} ({first.reason})")
        if self.num_nucleotide_like > self.num_records / 2:
            messages.append(
                "most sequences look like nucleotides, but protembed reads them as proteins; translate genes first"
            )
        elif self.num_nucleotide_like:
            records = pluralize(self.num_nucleotide_like, "record")
            messages.append(f"sequences like nucleotides in {records}; protembed reads them as proteins")
        if self.num_three_letter:
            messages.append(
                f"three-letter codes (as in MetLysThr) are read as residues letter by letter in "
                f"{pluralize(self.num_three_letter, 'record')}: write proteins in one-letter code"
            )
        return messages


def is_nucleotide_like(sequence: str) -> bool:
    """Return whether a sequence in upper case consists of bases, with at most one ambiguous base in twenty.

    >>> is_nucleotide_like("ATGAAAACCGCGTAT"), is_nucleotide_like("MKTAYIAKQRQISFV")
    (True, False)
    """
    if len(sequence) < _MIN_NUCLEOTIDES or not _NUCLEOTIDES.fullmatch(sequence):
        return False
    return len(sequence.translate(_WITHOUT_BASES)) <= len(sequence) // _MIN_LETTERS_PER_AMBIGUOUS_BASE


def clean_sequence(letters: str) -> str:
    """Remove white space, characters without width and a trailing stop codon (`*` or `.`), and upper-case a sequence.

    A structure-aware sequence of SaProt keeps its lower case, so that `accept_sequence` rejects it.

    >>> clean_sequence("mkt ayi*"), clean_sequence("MdEvVpLd")
    ('MKTAYI', 'MdEvVpLd')
    """
    sequence = without_invisible("".join(letters.split()))
    if _STRUCTURE_AWARE.fullmatch(sequence):
        return sequence
    sequence = sequence.translate(_UPPER_CASE)
    return sequence[:-1] if sequence.endswith(("*", ".")) else sequence


def accept_sequence(
    sequence: str,
    reader: InputConfig,
    statistics: ReadStatistics,
    illegal_residue: Callable[[int], IllegalResidueError],
    *,
    with_masks: bool = False,
) -> str | None:
    """Remove the gaps of a sequence from `clean_sequence` on request, check its letters, and count the unusual ones.

    The function `illegal_residue` makes the error about the letter at an index, from 0.

    Returns:
        The sequence in residues of the alphabet, and `?` for a masked position if `with_masks` allows `?` and `<mask>`;
        None if its record is skipped.

    Raises:
        IllegalResidueError: A letter is not a residue and `on_illegal` is `error`; it is a gap, the end of a chain or
            SaProt's letter for structure, and `on_illegal` is `mask`; or it is a `>` or NUL.
        NoProteinError: The sequence consists of gaps, and is not to be skipped.
    """
    num_gaps = 0
    if with_masks and _MASK in sequence:
        illegal_residue = _with_mask_tokens(illegal_residue, sequence)
        sequence = sequence.replace(_MASK, MASK_LETTER)
    if reader.gaps == "drop" and (num_gaps := sum(map(sequence.count, GAPS))):
        illegal_residue = _with_gaps(illegal_residue, sequence)
        sequence = sequence.translate(_WITHOUT_GAPS).removesuffix("*")
        if not sequence:
            place = illegal_residue(0)
            error = NoProteinError(place.path, place.line, place.record_id, "consists of gaps")
            statistics.skip_or_raise(place.record_id, error, reader.on_illegal)
            return None
    illegal = _ILLEGAL_BESIDE_MASKS if with_masks else _ILLEGAL
    accepted = _accept_letters(sequence, illegal, reader.on_illegal, statistics, illegal_residue)
    if accepted is not None and num_gaps:
        statistics.num_gaps += num_gaps
        statistics.num_gapped += 1
    return accepted


def _accept_letters(
    sequence: str,
    illegal: re.Pattern[str],
    on_illegal: OnIllegal,
    statistics: ReadStatistics,
    illegal_residue: Callable[[int], IllegalResidueError],
) -> str | None:
    if found := illegal.search(sequence):
        unskippable, unmaskable = _NEVER_SKIPPED.search(sequence), _NEVER_MASKED.search(sequence)
        error = illegal_residue((unskippable or unmaskable or found).start())
        if unskippable or (unmaskable and on_illegal == "mask"):
            raise error
        if on_illegal != "mask":
            statistics.skip_or_raise(error.record_id, error, on_illegal)
            return None
        sequence, num_masked = illegal.subn("X", sequence)
        statistics.num_masked += num_masked
    _count_letters(sequence, statistics)
    return sequence.translate(_READ_AS_UNKNOWN)


@cache
def _three_letter_codes() -> re.Pattern[str]:
    # All letters of the codes are residues too, so only the pattern distinguishes `MetLysThrAla` from a protein. Four
    # codes in a row and no other letter are no coincidence: one in 10^10 proteins of twelve residues looks like that.
    from Bio.Data.IUPACData import protein_letters_1to3_extended

    return re.compile(f"(?:{'|'.join(protein_letters_1to3_extended.values()).upper()}){{4,}}")


def _count_letters(sequence: str, statistics: ReadStatistics) -> None:
    for letter in NONSTANDARD_RESIDUES + "J":
        if letter in sequence:
            statistics.nonstandard[letter] += sequence.count(letter)
    statistics.num_nucleotide_like += is_nucleotide_like(sequence)
    if _three_letter_codes().fullmatch(sequence):
        statistics.num_three_letter += 1


def _with_gaps(
    illegal_residue: Callable[[int], IllegalResidueError], gapped: str
) -> Callable[[int], IllegalResidueError]:
    """Make the error about a letter from its index in the sequence without gaps."""
    indices = (index for index, letter in enumerate(gapped) if letter not in GAPS)
    return lambda index: illegal_residue(next(islice(indices, index, None), 0))


def _with_mask_tokens(
    illegal_residue: Callable[[int], IllegalResidueError], written: str
) -> Callable[[int], IllegalResidueError]:
    """Make the error about a letter from its index in the sequence in which `?` replaces each `<mask>`."""
    starts = [part.start() for part in re.finditer(f"{_MASK}|.", written, re.DOTALL)]
    return lambda index: illegal_residue(starts[index])


@contextmanager
def open_records(path: Path, statistics: ReadStatistics) -> Iterator[BinaryIO]:
    """Open an input; if its archive proves to be damaged, the error counts the records that were read before.

    Raises:
        DamagedArchiveError: The archive is truncated or damaged.
    """
    num_before = statistics.num_read
    try:
        with open_input(path) as stream:
            yield stream
    except DamagedArchiveError as error:
        raise DamagedArchiveError(error.path, error.reason, num_records=statistics.num_read - num_before) from error


def _check_title(title: str, name: str, line: int, number: int) -> None:
    if not title.split():
        raise RecordError(name, line, number, "has no identifier after '>'", "name it")
    if number == 1 and _QUOTED_MAIL.match(title):
        advice = "remove the '>' that the mail put before each line"
        raise FormatError(name, f"the first header is {f'>{title}'[:40]!r}, as in a quoted mail", advice, line=line)
    if number == 1 and _PIR.match(title):
        raise FormatError(name, "this is PIR, whose records have a title line", advise_fasta())
    if (nul := title.find("\0")) >= 0:
        found = f"has a NUL byte in column {nul + 2} of its header"
        raise RecordError(name, line, number, found, "the file is binary or damaged")


def read_fasta_stream(
    stream: BinaryIO, name: str, reader: InputConfig, statistics: ReadStatistics, *, with_masks: bool = False
) -> Generator[Record]:
    """Read the proteins of one open, decompressed file; see `read_fasta`.

    The stream must be able to peek. Rows continue from the number of records in the statistics.
    """
    from Bio.SeqIO.FastaIO import SimpleFastaParser

    if foreign := detect_binary_format(stream):
        raise FormatError(name, f"this is {foreign}", advise_fasta(foreign))
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape")
    try:
        lines = LineChecker(text, name, is_alignment=reader.gaps == "drop")
        number = 0
        for number, (raw_title, letters) in enumerate(SimpleFastaParser(lines), start=1):
            title, record = without_surrogates(raw_title), lines.finished_record(number)
            _check_title(title, name, record.line, number)
            record_id = title.split()[0]
            record.check_header_ends(name, record_id)
            raw = clean_sequence(letters)
            if not raw:
                found = f"({record_id!r}) has no sequence"
                raise RecordError(name, record.line, number, found, "complete or remove it")
            if reader.gaps == "drop" and record_id in _STRUCTURE_RECORDS:
                reason = "is a secondary structure of HHsuite, not a protein"
                error = NoProteinError(name, record.line, record_id, reason)
                statistics.skip_or_raise(record_id, error, reader.on_illegal)
                continue
            illegal_residue = partial(record.illegal_residue, name, record_id)
            sequence = accept_sequence(raw, reader, statistics, illegal_residue, with_masks=with_masks)
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
                line=record.line,
                written=None if (written := "".join(letters.split())) == sequence else written,
            )
    finally:
        text.detach()
    if number == 0:
        raise FormatError(name, "the file is empty", advise_fasta())


def read_records(
    paths: Iterable[Path],
    statistics: ReadStatistics,
    read_stream: Callable[[BinaryIO, str], Generator[Record]],
) -> Iterator[Record]:
    """Read the records of files one after the other, and count repeated identifiers.

    The function `read_stream` reads one open, decompressed file of a name, and adds to the statistics.
    """
    fingerprints = array("q")  # hashes of identifiers in eight bytes each, because a file may hold a hundred million
    for path in paths:
        with (
            open_records(path, statistics) as stream,
            closing(read_stream(stream, display_name(path))) as records,
        ):
            for record in records:
                fingerprints.append(hash(record.id))
                yield record
    statistics.num_duplicate_ids += len(fingerprints) - len(np.unique(fingerprints))
    if not fingerprints:
        statistics.check_not_all_skipped("correct the file, or choose another `on_illegal`")


def read_fasta(
    paths: Paths,
    *,
    on_illegal: OnIllegal = "error",
    gaps: Gaps = "error",
    with_masks: bool = False,
    statistics: ReadStatistics | None = None,
) -> Iterator[Record]:
    r"""Read proteins one by one, in order, without holding a file in memory.

    Plain, gzip, bzip2, xz and zstd files are recognised by content; `-` is stdin. Lower case is upper-cased, a trailing
    `*` or `.` is dropped; CRLF, CR, byte-order marks, blank lines and white space within sequence lines are harmless.
    Bytes of a header that are no UTF-8 are escaped, as in `prot\xe9ine`.

    Args:
        paths: One file, or several that are read one after the other.
        on_illegal: Policy for a character that is not a residue: `error`, `mask` (read it as X), or `skip` (leave the
            record out and list it in `statistics`).
        gaps: Policy for the gaps of an alignment, `-` and `.`: `error`, or `drop` (read each protein without them).
        with_masks: Whether `?` and `<mask>` are masked positions, which become `?`; otherwise they are illegal.
        statistics: Counts to which this reading is added; None if the caller does not need them.

    Yields:
        The records, rows numbered from 0 over all files.

    Raises:
        ConfigError: `paths` is neither a path nor a list of paths, or is empty; or there is no such policy.
        InputNotFoundError: A file cannot be read.
        FormatError: A file is not FASTA, damaged, or empty; or every record of all files was skipped.
        RecordError: A record has no identifier, no sequence, or a NUL byte in its header.
        IllegalResidueError: A character is not an amino acid.
        NoProteinError: A record of an alignment consists of gaps, or is a secondary structure that HHsuite added.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".fasta") as file:
    ...     print(">P1 first\nMKTAYI\n>P2\nmsilv*", file=file, flush=True)
    ...     [(record.id, record.sequence) for record in read_fasta(file.name)]
    [('P1', 'MKTAYI'), ('P2', 'MSILV')]
    """
    reader = InputConfig(on_illegal=on_illegal, gaps=gaps)
    statistics = ReadStatistics() if statistics is None else statistics
    read = partial(read_fasta_stream, reader=reader, statistics=statistics, with_masks=with_masks)
    yield from read_records(as_paths("paths", paths), statistics, read)
