"""Exact nearest neighbours among vectors: products of low precision select candidates, float64 orders them.

Vectors stay on disk: a block of queries and a block of the database are in memory at a time, whatever their number.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from protembed.config.search import MetricName
from protembed.device import WorkerPool, fast_product_dtype
from protembed.search.screening import Bounds, Rounded, Screen, join
from protembed.search.vectors import Rows, blocks_of, unit

# Queries of a worker, for which the database is read and prepared once, and those that are multiplied at once: with a
# block of the database, their products stay in the cache.
_QUERY_ROWS, _SCREEN_ROWS = 8192, 1024
# Pairs of a query and a candidate that are compared in float64 at once.
_NUM_PAIRS = 2048
# An index may order rows differently; so many more are compared.
_NUM_SPARE = 8
# Rounding alone gives equal cosines a standard deviation of less than this.
_MIN_DEVIATION = 1e-7


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
        query_rows: Row of each query in the database, which is none of its neighbours, (queries,), int64, -1 where it
            is not in the database; None if no query is.
        groups: Group of each row of the database, (rows,), int64: no row of a query's own group is its neighbour; None
            if there are no groups.
        device: The device that multiplies.
        index: An index that proposes candidates, so that not all rows are compared; None to compare all.
    """

    database: Rows
    k: int
    metric: MetricName = "cosine"
    is_centred: bool = False
    query_rows: NDArray[np.int64] | None = None
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
    def _mean_unit(self) -> NDArray[np.float64]:
        """The mean of the database's unit vectors, (dim,)."""
        total = np.zeros(self.database.dim)
        for _, block in blocks_of(self.database):
            total += unit(block - self._centre).sum(0)
        return total / len(self.database)

    @cached_property
    def _background(self) -> "_Background":
        squares, bounds = np.zeros((self.database.dim, self.database.dim)), Bounds()
        for _, block in blocks_of(self.database):
            deviations = unit(block - self._centre) - self._mean_unit
            squares += deviations.T @ deviations
            bounds = bounds.including(self._round(block, _precisions(self.device)[0], are_queries=False))
        return _Background(self._mean_unit, squares, bounds)

    def prepare(self, vectors: NDArray[np.float64]) -> NDArray[np.float32]:
        """Prepare vectors, (rows, dim), so that their products, or their distances, order neighbours."""
        prepared = vectors - self.mean if self.metric == "euclidean" else unit(vectors - self._centre)
        as_float32: NDArray[np.float32] = prepared.astype(np.float32)
        return as_float32

    def _round(self, vectors: NDArray[np.float64], dtype: torch.dtype, *, are_queries: bool) -> Rounded:
        """Round vectors, (rows, dim), so that the products of queries and rows order neighbours.

        What all vectors have in common is subtracted, because rounding is relative to what is left. Of unit vectors q
        and d with the mean m, q · d = (q - m) · (d - m) + m · (d - m) + q · m, and the last changes no order. Of
        distances, -|q - d|² / 2 = q · d - |d|² / 2 - |q|² / 2.
        """
        if self.metric == "euclidean":
            shifted = vectors - self.mean
            offsets = -np.einsum("rd,rd->r", shifted, shifted) / 2
        else:
            shifted = unit(vectors - self._centre) - self._mean_unit
            offsets = shifted @ self._mean_unit
        sums = np.float64 if dtype == torch.float64 else np.float32
        prepared, of_rows = (torch.from_numpy(values.astype(sums)).to(self.device) for values in (shifted, offsets))
        return Rounded.of(prepared, None if are_queries else of_rows, dtype)

    def _search(self, queries: Rows, start: int, size: int) -> Neighbours:
        vectors = queries.rows(start, start + size)
        query_rows = (
            np.full(len(vectors), -1) if self.query_rows is None else self.query_rows[start : start + len(vectors)]
        )
        pairs = self._candidates(vectors, query_rows) if self.index is None else self._proposed(vectors, query_rows)
        return self._order(vectors, *pairs, query_rows)

    def _proposed(self, vectors: NDArray[np.float64], query_rows: NDArray[np.int64]) -> "_Pairs":
        """Ask the index for candidates, without those that may not be neighbours."""
        assert self.index is not None, "all rows are compared"
        rows = self.index.find(self.prepare(vectors), min(self.k + _NUM_SPARE, len(self.database)))
        is_excluded = (rows < 0) | (rows == query_rows[:, None])
        if self.groups is not None:
            is_excluded |= (self.groups[rows] == self.groups[query_rows][:, None]) & (query_rows >= 0)[:, None]
        return np.nonzero(~is_excluded)[0], rows[~is_excluded]

    def _candidates(self, vectors: NDArray[np.float64], query_rows: NDArray[np.int64]) -> "_Pairs":
        """Find the rows that may be the nearest; where they are too many, with higher and higher precision."""
        pairs, incomplete = list[_Pairs](), np.arange(len(vectors))
        precisions = _precisions(self.device)
        for dtype in precisions:
            queries, rows, is_complete = self._screen(vectors[incomplete], query_rows[incomplete], dtype)
            is_kept = is_complete[queries] | (dtype == precisions[-1])
            pairs.append((incomplete[queries[is_kept]], rows[is_kept]))
            incomplete = incomplete[~is_complete]
            if not len(incomplete):
                break
        return np.concatenate([part[0] for part in pairs]), np.concatenate([part[1] for part in pairs])

    def _screen(
        self, vectors: NDArray[np.float64], query_rows: NDArray[np.int64], dtype: torch.dtype
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """Find candidates by products of a precision: query and row of each, and whether each query has all."""
        bounds = self._background.bounds
        bounds = bounds if dtype == torch.bfloat16 else replace(bounds, error=0.0)
        parts = [slice(first, first + _SCREEN_ROWS) for first in range(0, len(vectors), _SCREEN_ROWS)]
        rounded = (self._round(vectors[part], dtype, are_queries=True) for part in parts)
        screens = [Screen(queries, bounds, self.num_neighbours) for queries in rounded]
        for first, block in blocks_of(self.database):
            rows = self._round(block, dtype, are_queries=False).vectors
            for part, screen in zip(parts, screens, strict=True):
                products = screen.products(rows)
                self._exclude(products, first, query_rows[part])
                screen.add(first, products)
        queries, found, is_complete = join([screen.candidates() for screen in screens], _SCREEN_ROWS)
        return queries.cpu().numpy(), found.cpu().numpy(), is_complete.cpu().numpy()

    def _exclude(self, products: Tensor, first: int, query_rows: NDArray[np.int64]) -> None:
        """Give the lowest product to rows of a block, (rows, queries), that may not be a query's neighbours."""
        stop = first + len(products)
        if self.groups is None:
            is_here = (query_rows >= first) & (query_rows < stop)
            products[query_rows[is_here] - first, np.flatnonzero(is_here)] = -torch.inf
        else:
            query_groups = np.where(query_rows >= 0, self.groups[query_rows], -1)
            is_same = torch.from_numpy(self.groups[first:stop, None] == query_groups[None])
            products.masked_fill_(is_same.to(self.device), -torch.inf)

    def _order(
        self,
        vectors: NDArray[np.float64],
        queries: NDArray[np.int64],
        rows: NDArray[np.int64],
        query_rows: NDArray[np.int64],
    ) -> Neighbours:
        """Compare queries with their candidates in float64, and keep the nearest."""
        shifted = vectors - self._centre
        units = unit(shifted)
        cosines, distances = self._compare(shifted, units, queries, rows)
        # The last bits of a cosine depend on rounding, so that equal ones are recognised by fewer digits.
        order = np.lexsort((rows, np.round(-cosines, 12) if distances is None else distances, queries))
        counts = np.bincount(queries, minlength=len(vectors))
        rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        order, rank = order[rank < self.num_neighbours], rank[rank < self.num_neighbours]
        slots, shape = (queries[order], rank), (len(vectors), self.num_neighbours)
        nearest, nearest_rows = np.zeros(shape), np.full(shape, -1)
        nearest[slots], nearest_rows[slots] = cosines[order], rows[order]
        nearest_distances = None
        if distances is not None:
            nearest_distances = np.zeros(shape)
            nearest_distances[slots] = distances[order]
        z_scores = self._background.z_scores(units, nearest, query_rows >= 0, len(self.database))
        return Neighbours(nearest_rows, nearest, nearest_distances, z_scores)

    def _compare(
        self,
        shifted: NDArray[np.float64],
        units: NDArray[np.float64],
        queries: NDArray[np.int64],
        rows: NDArray[np.int64],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Compute cosine, and distance where it orders, of each pair of a query and a row; both (pairs,)."""
        cosines = np.empty(len(rows))
        distances = np.empty(len(rows)) if self.metric == "euclidean" else None
        by_row = np.argsort(rows, kind="stable")  # each row of the database is read about once
        for start in range(0, len(rows), _NUM_PAIRS):
            pairs = by_row[start : start + _NUM_PAIRS]
            distinct, inverse = np.unique(rows[pairs], return_inverse=True)
            known = self.database.take(distinct) - self._centre
            cosines[pairs] = _products(units[queries[pairs]], unit(known)[inverse])
            if distances is not None:
                differences = shifted[queries[pairs]] - known[inverse]
                distances[pairs] = np.sqrt(_products(differences, differences))
        return cosines, distances


_Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]


class _Background(NamedTuple):
    """What the whole database says about each query, without their cosines.

    Attributes:
        mean: The mean of the database's unit vectors, (dim,), float64.
        squares: The sum of squares of the unit vectors about their mean, (dim, dim), float64.
        bounds: Bounds of the rounded rows.
    """

    mean: NDArray[np.float64]
    squares: NDArray[np.float64]
    bounds: Bounds

    def z_scores(
        self, units: NDArray[np.float64], cosines: NDArray[np.float64], is_inside: NDArray[np.bool_], size: int
    ) -> NDArray[np.float64]:
        """Compare cosines with those of the query and the whole database, without the query if it is inside.

        Args:
            units: Unit vectors of the queries, (queries, dim), float64.
            cosines: Cosines of each query with its neighbours, (queries, k), float64.
            is_inside: Whether a query is in the database, (queries,).
            size: Number of rows of the database.

        Returns:
            The cosines in standard deviations above their mean, (queries, k), float64.
        """
        means, squares = units @ self.mean, ((units @ self.squares) * units).sum(1)
        own = np.square(units).sum(1) - means  # a cosine with itself is 1, or 0 for a vector of zeros
        others = max(size - 1, 1)
        mean = np.where(is_inside, means - own / others, means)
        variance = np.where(is_inside, (squares - own**2 * size / others) / others, squares / size)
        deviation = np.sqrt(np.maximum(variance, 0.0))[:, None]
        z_scores = np.zeros_like(cosines)
        np.divide(cosines - mean[:, None], deviation, out=z_scores, where=deviation > _MIN_DEVIATION)
        return z_scores


def _precisions(device: torch.device) -> list[torch.dtype]:
    """Return the precisions of products that select candidates, the fastest first."""
    exact = [torch.float32] if device.type == "mps" else [torch.float32, torch.float64]
    fast = fast_product_dtype(device)
    return exact if fast == torch.float32 else [fast, *exact]


def _products(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Multiply vectors pair by pair, (pairs, dim), so that the bits of a product depend on its pair alone: (pairs,)."""
    products: NDArray[np.float64] = np.einsum("pd,pd->p", left, right)
    return products
