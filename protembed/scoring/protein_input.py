"""The proteins of a FASTA file that are scored: read record by record, and each sequence computed once. No torch."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from protembed.config.common import InputConfig
from protembed.data.alphabet import AMINO_ACIDS
from protembed.data.fasta import ReadStatistics, Record, read_fasta
from protembed.data.hashing import hash_texts
from protembed.errors import NoAminoAcidError, SkippableError


def count_amino_acids(sequence: str) -> int:
    """Count the standard residues of a sequence.

    >>> count_amino_acids("MKXU")
    2
    """
    return sum(map(sequence.count, AMINO_ACIDS))


def check_likelihood(record: Record) -> None:
    """Check that a protein has a likelihood.

    Raises:
        NoAminoAcidError: It has no standard residue.
    """
    if not count_amino_acids(record.sequence):
        raise NoAminoAcidError(record.path, record.line, record.id)


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """What a record needs to be computed.

    Attributes:
        check: Function that raises a SkippableError if a record lacks it.
        advice: What to give where every record was left out.
        with_masks: Whether `?` and `<mask>` are masked positions.
    """

    check: Callable[[Record], None] = check_likelihood
    advice: str = "give at least one protein with standard residues"
    with_masks: bool = False

    def read(self, path: Path, reader: InputConfig, statistics: ReadStatistics) -> Iterator[Record]:
        """Read the records that can be computed; rows number those that are yielded.

        Raises:
            SkippableError: A record cannot be computed, and `on_illegal` is not `skip`.
            ProtembedError: The file cannot be read; see `read_fasta`.
        """
        records = read_fasta(
            path, on_illegal=reader.on_illegal, gaps=reader.gaps, with_masks=self.with_masks, statistics=statistics
        )
        for record in records:
            try:
                self.check(record)
            except SkippableError as error:
                statistics.exclude(record, error, reader.on_illegal)
            else:
                yield record
        if not statistics.num_records:
            statistics.check_not_all_skipped(self.advice)


@dataclass(frozen=True, kw_only=True)
class ProteinInput:
    """A FASTA file that was read once.

    Attributes:
        path: Path of the file, which can be read again.
        requirement: What its records need; the others are left out.
        first_rows: Row of the first record with the same sequence as each record, (records,), int64.
        num_residues: Residues of all records.
    """

    path: Path
    reader: InputConfig
    requirement: Requirement
    first_rows: NDArray[np.int64]
    num_residues: int

    @classmethod
    def scan(cls, path: Path, reader: InputConfig, requirement: Requirement | None = None) -> "ProteinInput":
        """Read all records, of each of which 64 bits of a hash are kept.

        Raises:
            ProtembedError: A record is invalid, or the file cannot be read.
        """
        statistics, requirement = ReadStatistics(), requirement or Requirement()
        hashes = hash_texts(record.sequence for record in requirement.read(path, reader, statistics))
        _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
        return cls(
            path=path,
            reader=reader,
            requirement=requirement,
            first_rows=first[inverse],
            num_residues=statistics.num_residues,
        )

    @property
    def num_proteins(self) -> int:
        """Number of records."""
        return len(self.first_rows)

    @property
    def num_distinct(self) -> int:
        """Number of different sequences."""
        return int((self.first_rows == np.arange(self.num_proteins)).sum())

    def read(self, statistics: ReadStatistics | None = None) -> Iterator[Record]:
        """Read the records again, adding to the statistics if there are any."""
        return self.requirement.read(self.path, self.reader, statistics or ReadStatistics())

    def is_repeated(self, row: int) -> bool:
        """Return whether an earlier record has the same sequence."""
        return bool(self.first_rows[row] != row)
