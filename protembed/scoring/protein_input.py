"""The proteins of a FASTA file that are scored: read record by record, and each sequence computed once. No torch."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from protembed.config.common import InputConfig
from protembed.data.alphabet import AMINO_ACIDS
from protembed.data.fasta import ReadStatistics, Record, read_fasta
from protembed.data.hashing import hash_texts
from protembed.errors import NoAminoAcidError


def count_amino_acids(sequence: str) -> int:
    """Count the standard residues of a sequence.

    >>> count_amino_acids("MKXU")
    2
    """
    return sum(map(sequence.count, AMINO_ACIDS))


def read_scorable(path: Path, reader: InputConfig, statistics: ReadStatistics) -> Iterator[Record]:
    """Read the proteins that have a likelihood; rows number those that are yielded.

    Raises:
        NoAminoAcidError: A protein has no standard residue, and `on_illegal` is not `skip`.
        ProtembedError: The file cannot be read; see `read_fasta`.
    """
    for record in read_fasta([path], on_illegal=reader.on_illegal, gaps=reader.gaps, statistics=statistics):
        if count_amino_acids(record.sequence):
            yield record
            continue
        statistics.num_records -= 1  # the next record gets its row
        statistics.num_residues -= len(record.sequence)
        error = NoAminoAcidError(record.path, record.line, record.id)
        statistics.skip_or_raise(record.id, error, reader.on_illegal)
    if not statistics.num_records:
        statistics.check_not_all_skipped("give at least one protein with standard residues")


@dataclass(frozen=True, kw_only=True)
class ProteinInput:
    """A FASTA file that was read once.

    Attributes:
        path: Path of the file, which can be read again.
        first_rows: Row of the first record with the same sequence as each record, (records,), int64.
        num_residues: Residues of all records.
    """

    path: Path
    reader: InputConfig
    first_rows: NDArray[np.int64]
    num_residues: int

    @classmethod
    def scan(cls, path: Path, reader: InputConfig) -> "ProteinInput":
        """Read all records, of each of which 64 bits of a hash are kept.

        Raises:
            ProtembedError: A record is invalid, or the file cannot be read.
        """
        statistics = ReadStatistics()
        hashes = hash_texts(record.sequence for record in read_scorable(path, reader, statistics))
        _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
        return cls(path=path, reader=reader, first_rows=first[inverse], num_residues=statistics.num_residues)

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
        return read_scorable(self.path, self.reader, statistics or ReadStatistics())

    def is_repeated(self, row: int) -> bool:
        """Return whether an earlier record has the same sequence."""
        return bool(self.first_rows[row] != row)
