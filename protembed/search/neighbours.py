"""Exact nearest neighbours among vectors: products of blocks in float32 find candidates, float64 orders them.

Vectors stay on disk: a block of queries and a block of the database are in memory at a time, whatever their number.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from protembed.config.search import MetricName
from protembed.device import WorkerPool
from protembed.io.arrays import ArrayFile

# Queries and database rows that are compared at once: their products are 16 MB.
_QUERY_ROWS, DATABASE_ROWS = 8192, 512
# Queries whose candidates are compared in float64 at once.
_EXACT_ROWS = 256
# Float32 may order neighbours differently whose cosines differ by less than a millionth; so many more are kept.
_NUM_SPARE = 8
# Above so many times the needed scores, selecting the best of a whole block is faster than collecting better ones.
_SPARSE_WIDTH = 3
# Rounding alone gives equal cosines a standard deviation of less than this.
_MIN_DEVIATION = 1e-7


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


def blocks_of(vectors: Rows, size: int = DATABASE_ROWS) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Read all rows a block at a time; yield the number of each block's first row, and the block."""
    for start in range(0, len(vectors), size):
        yield start, vectors.rows(start, start + size)


class Neighbours(NamedTuple):
    """The nearest rows of the database for each of some queries, the nearest first; equally near ones by row.

    Attributes:
        rows: Rows of the database, (queries, k), int64; -1, after all others, where there are fewer.
        cosines: Cosines of the vectors, (queries, k), float64.
        distances: Euclidean distances of the vectors, (queries, k), float64; None where cosines order them.
        z_scores: Cosines in standard deviations above the mean of the query's cosines with the whole database,
            (queries, k), float64.
    """

    rows: NDArray[np.int64]
    cosines: NDArray[np.float64]
    distances: NDArray[np.float64] | None
    z_scores: NDArray[np.float64]


def concatenate(parts: Sequence[Neighbours]) -> Neighbours:
    """Join the neighbours of several blocks of queries."""
    rows, cosines, distances, z_scores = zip(*parts, strict=True)
    has_distances = distances[0] is not None
    return Neighbours(
        np.concatenate(rows),
        np.concatenate(cosines),
        np.concatenate(distances) if has_distances else None,
        np.concatenate(z_scores),
    )


class CandidateIndex(Protocol):
    """An index that finds rows that are probably among the nearest."""

    def find(self, queries: NDArray[np.float32], number: int) -> NDArray[np.int64]:
        """Find rows for queries, (queries, dim), as `prepare` made them: (queries, number), -1 where there is none."""


@dataclass(frozen=True, kw_only=True)
class NeighbourSearch:
    """Finds the nearest rows of a database.

    Attributes:
        database: The vectors that are searched.
        k: The number of neighbours of each query; fewer if the database is smaller.
        metric: `cosine` for the largest cosine, `euclidean` for the smallest distance.
        is_centred: Whether the database's mean is subtracted from all vectors first; distances do not change by it.
        own_rows: Row of each query in the database, which is none of its neighbours, (queries,), int64, -1 where it is
            not in the database; None if no query is.
        groups: Group of each row of the database, (rows,), int64: no row of a query's own group is its neighbour; None
            if there are no groups.
        device: The device that multiplies.
        index: An index that proposes candidates, so that not all rows are compared; None to compare all.
    """

    database: Rows
    k: int
    metric: MetricName = "cosine"
    is_centred: bool = False
    own_rows: NDArray[np.int64] | None = None
    groups: NDArray[np.int64] | None = None
    device: torch.device = torch.device("cpu")
    index: CandidateIndex | None = None

    def run(self, queries: Rows, pool: WorkerPool) -> Iterator[Neighbours]:
        """Find the neighbours of all queries; yield those of a block of queries at a time, in their order."""
        _ = self._background  # computed once, before several threads need it
        # Every worker gets equally many blocks, so that none waits for the last block of another.
        blocks = pool.num_workers * math.ceil(len(queries) / (pool.num_workers * _QUERY_ROWS))
        size = math.ceil(len(queries) / max(blocks, 1))
        yield from pool.map(lambda start: self._search(queries, start, size), range(0, len(queries), max(size, 1)))

    @property
    def num_neighbours(self) -> int:
        """The number of neighbours that each query gets, at most."""
        return min(self.k, len(self.database))

    @cached_property
    def mean(self) -> NDArray[np.float64]:
        """The mean of the database's vectors, (dim,), float64."""
        total = np.zeros(self.database.dim)
        for _, block in blocks_of(self.database):
            total += block.sum(0)
        return total / len(self.database)

    @property
    def _centre(self) -> NDArray[np.float64]:
        return self.mean if self.is_centred else np.zeros(self.database.dim)

    @cached_property
    def _background(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The mean of the database's unit vectors, (dim,), and the sum of squares about it, (dim, dim).

        They give the mean and the variance of the cosines of any query with the whole database, without these.
        """
        total, squares = np.zeros(self.database.dim), np.zeros((self.database.dim, self.database.dim))
        for _, block in blocks_of(self.database):
            total += _unit(block - self._centre).sum(0)
        mean = total / len(self.database)
        for _, block in blocks_of(self.database):
            deviations = _unit(block - self._centre) - mean
            squares += deviations.T @ deviations
        return mean, squares

    def prepare(self, vectors: NDArray[np.float64]) -> NDArray[np.float32]:
        """Prepare vectors, (rows, dim), so that their products, or their distances, order neighbours."""
        prepared = vectors - self.mean if self.metric == "euclidean" else _unit(vectors - self._centre)
        as_float32: NDArray[np.float32] = prepared.astype(np.float32)
        return as_float32

    def _search(self, queries: Rows, start: int, size: int) -> Neighbours:
        vectors = queries.rows(start, start + size)
        own_rows = np.full(len(vectors), -1) if self.own_rows is None else self.own_rows[start : start + len(vectors)]
        candidates = self._candidates(vectors, own_rows) if self.index is None else self._proposed(vectors, own_rows)
        parts = [
            self._order(vectors[part], candidates[part], own_rows[part])
            for first in range(0, len(vectors), _EXACT_ROWS)
            for part in [slice(first, first + _EXACT_ROWS)]
        ]
        return concatenate(parts)

    def _proposed(self, vectors: NDArray[np.float64], own_rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Ask the index for candidates, (queries, candidates); -1 in place of those that may not be neighbours."""
        assert self.index is not None, "all rows are compared"
        rows = self.index.find(self.prepare(vectors), min(self.k + _NUM_SPARE, len(self.database)))
        is_excluded = rows == own_rows[:, None]
        if self.groups is not None:
            is_excluded |= (self.groups[rows] == self.groups[own_rows][:, None]) & (own_rows >= 0)[:, None]
        return np.where(is_excluded, -1, rows)

    def _candidates(self, vectors: NDArray[np.float64], own_rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Find the rows that are nearest in float32, and a few more: (queries, candidates), in any order."""
        queries = self._comparable(vectors)
        best = _Best(len(vectors), min(self.k + _NUM_SPARE, len(self.database)), self.device)
        products = torch.empty(len(vectors) * DATABASE_ROWS, device=self.device)
        for first, block in blocks_of(self.database):
            out = products[: len(vectors) * len(block)].view(len(vectors), len(block))
            scores = torch.mm(queries, self._comparable(block).T, out=out)
            if self.metric == "euclidean":  # |q - d|² = |q|² - 2 q · d + |d|², and |q|² changes no order
                squares = torch.from_numpy(np.square(block - self.mean).sum(1)).to(self.device, torch.float32)
                scores = scores.mul_(2).sub_(squares)
            self._exclude(scores, first, own_rows)
            best.add(first, scores)
        rows: NDArray[np.int64] = best.rows.cpu().numpy()
        return rows

    def _exclude(self, scores: Tensor, first: int, own_rows: NDArray[np.int64]) -> None:
        """Give the lowest score to rows of a block that may not be a query's neighbours."""
        stop = first + scores.shape[1]
        if self.groups is None:
            is_here = (own_rows >= first) & (own_rows < stop)
            scores[np.flatnonzero(is_here), own_rows[is_here] - first] = -torch.inf
        else:
            own_groups = np.where(own_rows >= 0, self.groups[own_rows], -1)
            is_same = torch.from_numpy(own_groups[:, None] == self.groups[None, first:stop])
            scores.masked_fill_(is_same.to(self.device), -torch.inf)

    def _comparable(self, vectors: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(self.prepare(vectors)).to(self.device)

    def _order(self, vectors: NDArray[np.float64], rows: NDArray[np.int64], own_rows: NDArray[np.int64]) -> Neighbours:
        """Compare queries with their candidates in float64, and keep the nearest."""
        distinct, inverse = np.unique(rows, return_inverse=True)
        known, shifted = self.database.take(np.maximum(distinct, 0)) - self._centre, vectors - self._centre
        places, unit = inverse.reshape(rows.shape), _unit(shifted)
        cosines = _products(unit, _unit(known), places)
        distances = np.sqrt(_square_distances(shifted, known, places)) if self.metric == "euclidean" else None
        # The last bits of a cosine depend on the row, so that equal ones are recognised by fewer digits.
        order = np.lexsort((rows, np.round(-cosines, 12) if distances is None else distances, rows < 0), axis=1)
        order = order[:, : self.num_neighbours]
        nearest = np.take_along_axis(cosines, order, axis=1)
        return Neighbours(
            rows=np.take_along_axis(rows, order, axis=1),
            cosines=nearest,
            distances=None if distances is None else np.take_along_axis(distances, order, axis=1),
            z_scores=self._z_scores(unit, nearest, own_rows >= 0),
        )

    def _z_scores(
        self, unit_queries: NDArray[np.float64], cosines: NDArray[np.float64], is_inside: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """Compare cosines with those of the query and the whole database, without the query if it is inside."""
        (mean_vector, sums), size = self._background, len(self.database)
        means, squares = unit_queries @ mean_vector, ((unit_queries @ sums) * unit_queries).sum(1)
        own = np.square(unit_queries).sum(1) - means  # a cosine with itself is 1, or 0 for a vector of zeros
        others = max(size - 1, 1)
        mean = np.where(is_inside, means - own / others, means)
        variance = np.where(is_inside, (squares - own**2 * size / others) / others, squares / size)
        deviation = np.sqrt(np.maximum(variance, 0.0))[:, None]
        z_scores = np.zeros_like(cosines)
        np.divide(cosines - mean[:, None], deviation, out=z_scores, where=deviation > _MIN_DEVIATION)
        return z_scores


def _products(
    queries: NDArray[np.float64], known: NDArray[np.float64], places: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Multiply each query, (queries, dim), with the known vectors at its places, (queries, k)."""
    return np.stack([known[of_query] @ query for query, of_query in zip(queries, places, strict=True)])


def _square_distances(
    queries: NDArray[np.float64], known: NDArray[np.float64], places: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Compute the squared distance of each query, (queries, dim), to the known vectors at its places, (queries, k)."""
    pairs = zip(queries, places, strict=True)
    return np.stack([np.square(known[of_query] - query).sum(1) for query, of_query in pairs])


class _Best:
    """The rows with the best scores so far, of each of some queries."""

    def __init__(self, num_queries: int, number: int, device: torch.device) -> None:
        self._scores = torch.full((num_queries, number), -torch.inf, device=device)
        self.rows = torch.full((num_queries, number), -1, device=device)

    def add(self, first: int, scores: Tensor) -> None:
        """Add the scores of a block of the database, (queries, rows), whose first row has a number."""
        number = self._scores.shape[1]
        # After a few blocks few queries have a better one in a block, and few of these many.
        improved = (scores.amax(1) > self._scores[:, -1]).nonzero()[:, 0]
        if not len(improved):
            return
        values, columns = _better_ones(scores[improved], self._scores[improved, -1:], number)
        columns = torch.where(values == -torch.inf, -1, columns + first)
        values = torch.cat((self._scores[improved], values), dim=1)
        rows = torch.cat((self.rows[improved], columns), dim=1)
        self._scores[improved], order = values.topk(number, dim=1)
        self.rows[improved] = rows.gather(1, order)


def _better_ones(scores: Tensor, lowest: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Select the best scores of each query in a block, all of a number of them that are above its lowest best one.

    Args:
        scores: Scores of a block, (queries, rows).
        lowest: Lowest of the best scores of each query so far, (queries, 1).
        number: How many of the selected ones may be needed.

    Returns:
        The scores and their columns, (queries, selected); the lowest possible score where there are fewer.
    """
    queries, columns = (scores > lowest).nonzero(as_tuple=True)
    counts = torch.bincount(queries, minlength=len(scores))
    width = int(counts.max())
    if width > _SPARSE_WIDTH * number:
        best = scores.topk(min(number, scores.shape[1]), dim=1)
        return best.values, best.indices
    places = torch.arange(len(queries), device=scores.device) - (counts.cumsum(0) - counts)[queries]
    selected = scores.new_full((len(scores), width), -torch.inf)
    selected_columns = columns.new_zeros((len(scores), width))
    selected[queries, places], selected_columns[queries, places] = scores[queries, columns], columns
    return selected, selected_columns


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale vectors, (rows, dim), to length 1; a vector of zeros stays as it is, and its cosines are 0."""
    lengths = np.sqrt(np.square(vectors).sum(1, keepdims=True))
    units: NDArray[np.float64] = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return units
