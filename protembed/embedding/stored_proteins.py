"""What a finished result records about each protein beside its vectors, as arrays: a few numbers per protein."""

from array import array
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protembed.embedding.metadata import read_ids_lines, read_proteins
from protembed.embedding.stored_result import StoredResult
from protembed.text import unescape


@dataclass(frozen=True, kw_only=True)
class StoredProteins:
    """The proteins of a result, in the order of its rows.

    Attributes:
        num_residues: Residues of each protein, (proteins,), int64.
        num_windows: Windows in which each protein was computed, (proteins,), int64.
        agreements: Cosine of neighbouring windows where they overlap, (proteins,), float64; NaN for a single window.
        num_unknown: Occurrences of X in each protein, (proteins,), int64.
        sequences: Hash of each sequence, (proteins,), uint64.
        identifiers: Hash of each identifier, (proteins,), int64, which differs between processes.
    """

    num_residues: NDArray[np.int64]
    num_windows: NDArray[np.int64]
    agreements: NDArray[np.float64]
    num_unknown: NDArray[np.int64]
    sequences: NDArray[np.uint64]
    identifiers: NDArray[np.int64]

    @classmethod
    def read(cls, result: StoredResult) -> "StoredProteins":
        """Read the table of identifiers of a result.

        Raises:
            VerificationError: The table is damaged.
        """
        columns: list[array[Any]] = [array(kind) for kind in "qqdqQq"]
        for protein in read_proteins(result.path):
            numbers = (protein.num_residues, protein.num_windows, protein.overlap_cosine, protein.num_unknown)
            for column, value in zip(columns, (*numbers, protein.sequence_hash, hash(protein.cell)), strict=True):
                column.append(value)
        names = ("num_residues", "num_windows", "agreements", "num_unknown", "sequences", "identifiers")
        return cls(**{name: np.array(column) for name, column in zip(names, columns, strict=True)})

    def __len__(self) -> int:
        return len(self.num_residues)


def identifiers_of(result: StoredResult, indices: Collection[int]) -> dict[int, str]:
    """Read the identifiers of some proteins of a result, by their indices from 0."""
    lines = enumerate(read_ids_lines(result.path))
    return {index: unescape(line.split("\t", 2)[1]) for index, line in lines if index in indices}


@dataclass(frozen=True, kw_only=True)
class Repetitions:
    """Rows with equal hashes.

    Attributes:
        num_rows: Number of rows that share their hash with another row.
        num_groups: Number of hashes that several rows have.
        groups: Indices of the rows of each of the largest groups, ascending.
    """

    num_rows: int
    num_groups: int
    groups: list[list[int]]

    @property
    def num_repeats(self) -> int:
        """Number of rows whose hash a row before them has."""
        return self.num_rows - self.num_groups


def find_repetitions(hashes: NDArray[np.integer], max_groups: int = 20) -> Repetitions:
    """Find the rows with equal hashes, (rows,); the largest groups come first, and of equal ones the earliest.

    >>> find_repetitions(np.array([7, 3, 7, 5, 3, 7]))
    Repetitions(num_rows=5, num_groups=2, groups=[[0, 2, 5], [1, 4]])
    """
    order = np.argsort(hashes, kind="stable")
    is_new = np.diff(hashes[order], prepend=0) != 0
    is_new[:1] = True
    edges = np.append(np.flatnonzero(is_new), len(order))
    starts, sizes = edges[:-1][np.diff(edges) > 1], np.diff(edges)[np.diff(edges) > 1]
    largest = np.lexsort([order[starts], -sizes])[:max_groups]
    groups = [order[starts[index] : starts[index] + sizes[index]].tolist() for index in largest]
    return Repetitions(num_rows=int(sizes.sum()), num_groups=len(sizes), groups=groups)
