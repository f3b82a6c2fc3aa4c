"""What is known of the proteins of a side beside their vectors; texts and 5-mers are in files until they are used."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from protembed.data.fasta import ReadStatistics
from protembed.data.hashing import hash_texts
from protembed.data.similarity import kmer_set, pair_similarities, stack_kmer_sets
from protembed.embedding.metadata import StoredProtein, read_proteins
from protembed.embedding.stored_vectors import StoredVectors
from protembed.errors import VerificationError
from protembed.io.arrays import ArrayFile, array_file
from protembed.io.writing import atomic_file
from protembed.search.sides import Side
from protembed.search.vectors import Vectors
from protembed.text import reason_of, unescape

# Pairs of proteins whose 5-mers are in memory at once.
_MAX_PAIRS = 2048


class Texts:
    """Texts in a file, read one at a time.

    Args:
        path: Path of the file that holds them, one after the other.
        ends: Where each text ends, in bytes.
    """

    def __init__(self, path: Path, ends: "array[int]") -> None:
        with path.open("rb") as stream:
            self._bytes = mmap(stream.fileno(), 0, access=ACCESS_READ)
        self._ends = ends

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        start = self._ends[index - 1] if index else 0
        return self._bytes[start : self._ends[index]].decode()


@dataclass(frozen=True, kw_only=True)
class KmerFile:
    """The 5-mers of proteins, in a file.

    Attributes:
        file: 5-mers of all known sequences, one set after the other, int32.
        starts: Where the 5-mers of each protein begin, (proteins,), int64.
        sizes: Number of 5-mers of each protein, (proteins,), int64; -1 where its sequence is not known.
    """

    file: ArrayFile
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]

    @property
    def is_known(self) -> NDArray[np.bool_]:
        """Whether the sequence of each protein is known, (proteins,)."""
        return np.asarray(self.sizes >= 0)

    def sets(self, rows: NDArray[np.int64]) -> list[NDArray[np.int32]]:
        """Read the 5-mers of some proteins whose sequences are known."""
        return self.file.spans(self.starts[rows], self.sizes[rows])


@dataclass(frozen=True, kw_only=True)
class Proteins:
    """The proteins of a side, in the order of its rows.

    Attributes:
        cells: Identifiers, as cells of a table.
        num_residues: Residues of each protein, (proteins,), int64.
        hashes: Hash of each sequence, (proteins,), uint64.
        kmers: 5-mers of the sequences that are known.
    """

    cells: Texts
    num_residues: NDArray[np.int64]
    hashes: NDArray[np.uint64]
    kmers: KmerFile

    @classmethod
    def read(cls, side: Side, fasta: Sequence[Path], scratch: Path) -> "Proteins":
        """Read the tables of identifiers of a side, and find its sequences in FASTA files.

        Args:
            side: The queries or the database.
            fasta: FASTA files that may hold sequences of the side.
            scratch: Beginning of the paths of the files that are written.

        Raises:
            VerificationError: A table of identifiers is damaged.
            ProtembedError: A FASTA file cannot be read.
        """
        ends, residues, hashes = array("q"), array("q"), array("Q")
        ids = scratch.with_name(f"{scratch.name}.ids")
        with atomic_file(ids) as stream:
            for protein in _read_ids(side):
                stream.write(protein.cell.encode())
                ends.append(stream.tell())
                residues.append(protein.num_residues)
                hashes.append(protein.sequence_hash)
            stream.write(b"\n")  # an empty file cannot be mapped
        sequence_hashes = np.frombuffer(hashes, np.uint64)
        return cls(
            cells=Texts(ids, ends),
            num_residues=np.frombuffer(residues, np.int64),
            hashes=sequence_hashes,
            kmers=_find_kmers(side, fasta, sequence_hashes, scratch.with_name(f"{scratch.name}.kmers.npy")),
        )

    def __len__(self) -> int:
        return len(self.num_residues)

    def record_id(self, row: int) -> str:
        """Return the identifier of a protein."""
        return unescape(self.cells[row])


def _read_ids(side: Side) -> Iterator[StoredProtein]:
    """Read the tables of identifiers, each of which must name as many proteins as its result has."""
    for part in side.parts:
        number = 0
        for protein in read_proteins(part.path):
            number += 1
            yield protein
        if number != part.num_proteins:
            found = f"it has {number:,} identifiers, but its meta file records {part.num_proteins:,} proteins"
            raise VerificationError(part.path, found)


def _find_kmers(side: Side, fasta: Sequence[Path], hashes: NDArray[np.uint64], path: Path) -> KmerFile:
    """Write the 5-mers of the sequences that belong to rows of a side."""
    starts, sizes = np.zeros(len(hashes), np.int64), np.full(len(hashes), -1)
    with array_file(path, (), "int32") as kmers:
        kmers.append(np.zeros(1, np.int32))  # an empty file cannot be mapped
        for rows, sequence in find_sequences(side, fasta, hashes):
            found = kmer_set(sequence)
            starts[rows], sizes[rows] = kmers.num_rows, len(found)
            kmers.append(found)
    return KmerFile(file=ArrayFile.from_mapped(np.load(path, mmap_mode="r")), starts=starts, sizes=sizes)


def find_sequences(
    side: Side, fasta: Sequence[Path], hashes: NDArray[np.uint64]
) -> Iterator[tuple[NDArray[np.int64], str]]:
    """Find the sequences of a side in FASTA files, which are read as the side's input was.

    Args:
        side: The queries or the database.
        fasta: FASTA files that may hold sequences of the side.
        hashes: Hash of each sequence of the side, (proteins,), uint64.

    Yields:
        The rows of the side that have a sequence, (rows,), int64, and the sequence, each once.
    """
    order, is_found = np.argsort(hashes, kind="stable"), np.zeros(len(hashes), np.bool_)
    ordered = hashes[order]
    for record in side.selection.read(fasta, ReadStatistics()) if fasta else ():
        key = hash_texts([record.sequence])[0]
        rows = order[np.searchsorted(ordered, key) : np.searchsorted(ordered, key, side="right")]
        if len(rows) and not is_found[rows[0]]:
            is_found[rows] = True
            yield rows, record.sequence


def pairwise_similarity(
    left: Proteins, left_rows: NDArray[np.int64], right: Proteins, right_rows: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Estimate the similarity of proteins by their 5-mers, (pairs,), float64; NaN where a sequence is not known."""
    similarities = np.full(len(left_rows), np.nan)
    known = np.flatnonzero(left.kmers.is_known[left_rows] & right.kmers.is_known[right_rows])
    for pairs in (known[start : start + _MAX_PAIRS] for start in range(0, len(known), _MAX_PAIRS)):
        sets = (left.kmers.sets(left_rows[pairs]), right.kmers.sets(right_rows[pairs]))
        similarities[pairs] = pair_similarities(*map(stack_kmer_sets, sets))
    similarities[known[left.hashes[left_rows[known]] == right.hashes[right_rows[known]]]] = 1.0
    return similarities


def open_vectors(side: Side, scratch: Path) -> Vectors:
    """Find the vectors of a side in its files; those of `.tsv` and `.h5` are copied into a file first.

    Raises:
        VerificationError: A result is damaged.
    """
    arrays: list[NDArray[np.float32] | ArrayFile] = [np.empty((0, side.dim), np.float32)]
    for number, part in enumerate(side.parts):
        if part.num_proteins:
            try:
                arrays.append(_find_vectors(part.vectors, side.dim, scratch.with_name(f"{scratch.name}.{number}.npy")))
            except (OSError, ValueError, KeyError) as error:
                raise VerificationError(part.path, f"it cannot be read ({reason_of(error)})") from error
    return Vectors(arrays)


def _find_vectors(vectors: StoredVectors, dim: int, path: Path) -> ArrayFile:
    if vectors.format_name in ("npy", "npz"):
        mapped = vectors.open()
        assert isinstance(mapped, np.ndarray), "there is a vector per protein"
        return ArrayFile.from_mapped(mapped)
    with array_file(path, (dim,), "float32") as rows:
        for block in vectors.blocks():
            rows.append(block)
    return ArrayFile.from_mapped(np.load(path, mmap_mode="r"))
