"""Vectors that are read from disk when they are used, a block at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from protembed.io.arrays import ArrayFile

# Rows that are read at once.
BLOCK_ROWS = 1024


class Rows(Protocol):
    """Vectors that are read when they are used."""

    @property
    def dim(self) -> int:
        """Width of a vector."""

    def __len__(self) -> int: ...

    def rows(self, start: int, stop: int) -> NDArray[np.float64]:
        """Read consecutive rows, (rows, dim), float64."""

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Read the rows of some numbers, (numbers, dim), float64."""


class Vectors:
    """The rows of one array or of several, one after the other, read when they are used.

    Args:
        arrays: Arrays of the same width, (rows, dim), such as the files of the shards of one result.
    """

    def __init__(self, arrays: Sequence[NDArray[Any] | ArrayFile]) -> None:
        self._arrays = list(arrays)
        self._starts = np.cumsum([0, *map(len, self._arrays)])
        self.dim = self._arrays[0].shape[1]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def rows(self, start: int, stop: int) -> NDArray[np.float64]:
        """Read consecutive rows, (rows, dim), float64."""
        parts = [
            _read_rows(array, max(0, start - first), stop - first)
            for first, array in zip(self._starts[:-1].tolist(), self._arrays, strict=True)
            if first < stop and first + len(array) > start
        ]
        return np.concatenate([np.empty((0, self.dim)), *parts], dtype=np.float64)

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Read the rows of some numbers, (numbers, dim), float64."""
        taken = np.empty((len(rows), self.dim))
        for first, array in zip(self._starts[:-1].tolist(), self._arrays, strict=True):
            is_here = (rows >= first) & (rows < first + len(array))
            if is_here.any():
                here = rows[is_here] - first
                taken[is_here] = array.take(here) if isinstance(array, ArrayFile) else array[here]
        return taken


def _read_rows(array: NDArray[Any] | ArrayFile, start: int, stop: int) -> NDArray[Any]:
    return array.rows(start, stop) if isinstance(array, ArrayFile) else array[start:stop]


@dataclass(frozen=True)
class SelectedVectors:
    """Some rows of other vectors, such as those with a label.

    Attributes:
        vectors: The other vectors.
        selected: Which of their rows these are, (rows,), int64.
    """

    vectors: Rows
    selected: NDArray[np.int64]

    @property
    def dim(self) -> int:
        """Width of a vector."""
        return self.vectors.dim

    def __len__(self) -> int:
        return len(self.selected)

    def rows(self, start: int, stop: int) -> NDArray[np.float64]:
        """Read consecutive rows, (rows, dim), float64."""
        return self.vectors.take(self.selected[start:stop])

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Read the rows of some numbers, (numbers, dim), float64."""
        return self.vectors.take(self.selected[rows])


def blocks_of(vectors: Rows, size: int = BLOCK_ROWS) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Read all rows a block at a time; yield the number of each block's first row, and the block."""
    for start in range(0, len(vectors), size):
        yield start, vectors.rows(start, start + size)


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale vectors, (rows, dim), to length 1; a vector of zeros stays as it is, and its cosines are 0."""
    lengths = np.sqrt(np.square(vectors).sum(1, keepdims=True))
    units: NDArray[np.float64] = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return units
