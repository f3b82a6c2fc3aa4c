"""Statistics of the vectors of a finished result, in one pass over its file: norms, dimensions, and a sample of them.

The memory that this takes grows with the number of proteins, but not with what the file holds of each.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protembed.embedding.stored_result import StoredResult
from protembed.embedding.stored_vectors import StoredVectors
from protembed.errors import VerificationError
from protembed.text import reason_of

# A sample of this many vectors gives two million pairs; it has fewer if the vectors are very wide.
_MAX_SAMPLED, _MAX_SAMPLED_NUMBERS = 2000, 1 << 24
# Numbers that are looked at together: HDF5 and TSV yield one protein at a time.
_BLOCK_NUMBERS = 1 << 18
# Numbers that rounding alone makes unequal differ by a few units in the last digit.
_ROUNDING = 8


@dataclass(frozen=True, kw_only=True)
class VectorStatistics:
    """Statistics of the vectors of a result; the last five attributes leave out vectors that are not finite.

    Attributes:
        norms: Norm of each protein's vector, or mean norm of its residues' vectors, (proteins,), float64; NaN if a
            number is not finite.
        hashes: Hash of each protein's vector, (proteins,), uint64; None if there is one vector per residue.
        num_rows: Number of vectors.
        num_not_finite: Number of vectors that hold NaN or infinity.
        mean: Mean of all vectors, (dim,), float64.
        mean_squares: Mean of the squares of each dimension, (dim,), float64.
        num_constant: Number of dimensions in which all vectors have the same number, except for rounding.
        sample: Vectors that were drawn at random, (sampled, dim), float64.
        sampled: Indices of these vectors, ascending, (sampled,), int64.
    """

    norms: NDArray[np.float64]
    hashes: NDArray[np.uint64] | None
    num_rows: int
    num_not_finite: int
    mean: NDArray[np.float64]
    mean_squares: NDArray[np.float64]
    num_constant: int
    sample: NDArray[np.float64]
    sampled: NDArray[np.int64]

    @classmethod
    def read(cls, result: StoredResult, num_residues: NDArray[np.int64]) -> "VectorStatistics":
        """Read all vectors of a result.

        Args:
            result: The result.
            num_residues: Residues of each protein, (proteins,), int64.

        Raises:
            VerificationError: The file is damaged.
        """
        per_residue = bool(result.meta["per_residue"])
        collector = _Collector(num_residues if per_residue else np.ones_like(num_residues), result.meta["dim"])
        try:
            for block in _blocks(result.vectors):
                collector.add(block, has_hashes=not per_residue)
        except (OSError, ValueError, KeyError, IndexError) as error:
            raise VerificationError(result.path, f"it cannot be read ({reason_of(error)})") from error
        if collector.num_read != collector.num_rows:
            found = f"it contains {collector.num_read:,} vectors, but {collector.num_rows:,} are recorded"
            raise VerificationError(result.path, found)
        return collector.statistics(np.finfo(result.meta["dtype"]).eps)


def choose_sample(num_rows: int, dim: int) -> NDArray[np.int64]:
    """Choose which vectors of a result are sampled: their indices, ascending, (sampled,), the same each time."""
    num_sampled = min(num_rows, _MAX_SAMPLED, max(1, _MAX_SAMPLED_NUMBERS // dim))
    return np.sort(np.random.default_rng(0).choice(num_rows, num_sampled, replace=False))


def _blocks(vectors: StoredVectors) -> Iterator[NDArray[np.float64]]:
    """Read all vectors in blocks of many rows, (rows, dim)."""
    held, num_held = list[NDArray[np.float64]](), 0
    for block in vectors.blocks():
        held.append(block.astype(np.float64))
        num_held += block.size
        if num_held >= _BLOCK_NUMBERS:
            yield np.concatenate(held)
            held, num_held = [], 0
    if held:
        yield np.concatenate(held)


class _Collector:
    """Adds blocks of vectors up.

    Args:
        rows_of_each: Number of vectors of each protein, (proteins,), int64.
        dim: Width of a vector.
    """

    def __init__(self, rows_of_each: NDArray[np.int64], dim: int) -> None:
        self._rows_of_each, self._ends = rows_of_each, rows_of_each.cumsum()
        self.num_rows, self.num_read, self._num_finite = int(rows_of_each.sum()), 0, 0
        self._norms, self._hashes = np.zeros(len(rows_of_each)), list[bytes]()
        self._sums, self._squares = np.zeros(dim), np.zeros(dim)
        self._low, self._high = np.full(dim, np.inf), np.full(dim, -np.inf)
        self._to_sample = choose_sample(self.num_rows, dim)
        self._samples, self._sampled = list[NDArray[np.float64]](), list[NDArray[np.int64]]()

    def add(self, block: NDArray[np.float64], *, has_hashes: bool) -> None:
        """Add vectors, (rows, dim)."""
        start, stop = self.num_read, self.num_read + len(block)
        self.num_read = stop
        is_finite = np.asarray(np.isfinite(block).all(1))
        with np.errstate(over="ignore", invalid="ignore"):
            norms = np.where(is_finite, np.linalg.norm(block, axis=1), np.nan)
        owners = np.searchsorted(self._ends, np.arange(start, stop), side="right")
        np.add.at(self._norms, owners, norms)
        if has_hashes:
            self._hashes += [hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in block]
        sampled = self._to_sample[np.searchsorted(self._to_sample, start) : np.searchsorted(self._to_sample, stop)]
        sampled = sampled[is_finite[sampled - start]]
        self._sampled.append(sampled)
        self._samples.append(block[sampled - start])
        self._add_dimensions(block if is_finite.all() else block[is_finite])

    def _add_dimensions(self, block: NDArray[np.float64]) -> None:
        self._num_finite += len(block)
        self._sums += block.sum(0)
        self._squares += np.square(block).sum(0)
        self._low = np.minimum(self._low, block.min(0, initial=np.inf))
        self._high = np.maximum(self._high, block.max(0, initial=-np.inf))

    def statistics(self, epsilon: float) -> VectorStatistics:
        """Make the statistics of everything added, which was stored with this relative precision."""
        num_finite = max(1, self._num_finite)
        largest = np.maximum(np.abs(self._low), np.abs(self._high))
        with np.errstate(invalid="ignore"):
            is_constant = self._high - self._low <= _ROUNDING * epsilon * largest
        dim = len(self._sums)
        return VectorStatistics(
            norms=self._norms / np.maximum(1, self._rows_of_each),
            hashes=np.frombuffer(b"".join(self._hashes), np.uint64) if self._hashes else None,
            num_rows=self.num_rows,
            num_not_finite=self.num_rows - self._num_finite,
            mean=self._sums / num_finite,
            mean_squares=self._squares / num_finite,
            num_constant=int(is_constant.sum()),
            sample=np.concatenate([np.zeros((0, dim)), *self._samples]),
            sampled=np.concatenate([np.zeros(0, np.int64), *self._sampled]),
        )
