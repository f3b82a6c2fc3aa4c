"""Screening: which rows of a database may be among the nearest of some queries, by products of rounded vectors.

A product of rounded vectors differs from that of the vectors by less than a tolerance, which follows from what rounding
took from them. A row whose product is below the k-th largest by more than twice the tolerance is no neighbour, whatever
the precision of the product; all others are candidates.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

# Rows of a block whose largest product is compared first. They are few at the beginning, when many rows are candidates.
_GROUP_ROWS, _FIRST_GROUPS = 32, 4
# Candidates that a query may have, and how many more than those it needs are collected before they are compared.
_CANDIDATES, _SPARE, _COLLECTED = 2, 54, 2


class Rounded(NamedTuple):
    """Vectors as they are multiplied, with two more columns: of a query 1 and 1, of a row its offset in two parts.

    Attributes:
        vectors: The rounded vectors, (rows, dim + 2).
        lengths: Length of each vector, (rows,), of the dtype before rounding, in which products are added up.
        errors: Length of what rounding took from each vector, (rows,), of the same dtype.
    """

    vectors: Tensor
    lengths: Tensor
    errors: Tensor

    @classmethod
    def of(cls, vectors: Tensor, offsets: Tensor | None, dtype: torch.dtype) -> "Rounded":
        """Round vectors, (rows, dim), and the offsets of rows, (rows,); None for queries."""
        rounded = vectors.new_ones((len(vectors), vectors.shape[1] + 2), dtype=dtype)
        rounded[:, :-2] = vectors
        if offsets is not None:
            rounded[:, -2] = offsets
            rounded[:, -1] = offsets - rounded[:, -2]  # of bfloat16, two parts have the digits of 16 bits
        return cls(rounded, vectors.norm(dim=1), (rounded[:, :-2] - vectors).norm(dim=1))


@dataclass(frozen=True)
class Bounds:
    """The largest values among the rows of a database.

    Attributes:
        length: Largest length of a vector.
        error: Largest length of what rounding took from a vector.
        offset: Largest absolute value of an offset.
    """

    length: float = 0.0
    error: float = 0.0
    offset: float = 0.0

    def including(self, rows: Rounded) -> "Bounds":
        """Return the bounds of these rows too."""
        offsets = rows.vectors[:, -2].abs()
        largest = (float(values.max()) for values in (rows.lengths, rows.errors, offsets))
        return Bounds(*map(max, (self.length, self.error, self.offset), largest))

    def tolerances(self, queries: Rounded) -> Tensor:
        """Bound the difference of the products with each query from exact ones before they are stored, (queries,)."""
        lengths, errors, dtype = queries.lengths, queries.errors, queries.vectors.dtype
        largest = lengths * self.length + self.offset
        rounding = errors * (self.length + self.error) + lengths * self.error
        rounding += self.offset * (torch.finfo(dtype).eps / 2) ** 2
        return rounding + queries.vectors.shape[1] * torch.finfo(lengths.dtype).eps * largest


class Screen:
    """The candidates of some queries, while the blocks of a database pass by.

    Args:
        queries: The queries.
        bounds: Bounds of the rows of the database.
        number: The number of neighbours that each query needs.
    """

    def __init__(self, queries: Rounded, bounds: Bounds, number: int) -> None:
        self._queries, self._number, self._size = queries.vectors.T, number, len(queries.vectors)
        self._tolerances = bounds.tolerances(queries)
        self._precision = torch.finfo(queries.vectors.dtype).eps
        self._most = _CANDIDATES * number + _SPARE
        # A row is a candidate from here on, and the products of those that were too many end below here.
        self._needed = self._tolerances.new_full((self._size,), -torch.inf)
        self._dropped = self._needed.clone()
        self._found: list[tuple[Tensor, Tensor, Tensor]] = []
        self._num_found = 0

    def products(self, rows: Tensor) -> Tensor:
        """Multiply the rows of a block, (rows, dim + 2), with all queries, (rows, queries)."""
        return torch.mm(rows, self._queries)

    def add(self, first: int, products: Tensor) -> None:
        """Collect the candidates among the rows of a block, whose first row has a number."""
        is_first = not self._found
        groups = products.unflatten(0, (-1, self._group_rows(len(products), is_first=is_first)))
        largest = self._largest(groups)
        limits = torch.maximum(self._needed, self._dropped)
        if is_first and len(largest) >= self._number:
            # As many groups have a product that is at least as large as the smallest of their largest ones.
            smallest = largest.T.topk(self._number).values[:, -1]
            limits = self._limits(smallest, self._tolerances)
        group, query = (largest >= limits).nonzero(as_tuple=True)
        among = groups[group, :, query].to(limits.dtype)  # (groups, group rows)
        index, row = (among >= limits[query, None]).nonzero(as_tuple=True)
        self._found.append((query[index], first + group[index] * groups.shape[1] + row, among[index, row]))
        self._num_found += len(index)
        if is_first or self._num_found > _COLLECTED * self._number * self._size:
            self._compare()

    def candidates(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the query and the row of each candidate, (candidates,), and whether a query has them all, (queries,).

        A query does not have them all if they are too many; it has the best of them.
        """
        self._compare()
        query, row, _ = self._found[0]
        return query, row, self._dropped <= self._needed

    def _group_rows(self, num_rows: int, *, is_first: bool) -> int:
        """Choose how many rows are compared at once, so that no row is left over."""
        most = num_rows // (_FIRST_GROUPS * self._number) if is_first else _GROUP_ROWS
        return math.gcd(num_rows, 1 << max(0, most.bit_length() - 1))

    def _largest(self, groups: Tensor) -> Tensor:
        """Return the largest product of each query in each group, (groups, queries)."""
        if groups.dtype == torch.bfloat16 and bool((self._needed > 0).all()):
            # Where no positive number is overlooked, 16-bit integers order as bfloat16 does, and are compared faster.
            return groups.view(torch.int16).amax(1).view(torch.bfloat16).to(self._needed.dtype)
        return groups.amax(1).to(self._needed.dtype)

    def _limits(self, nearest: Tensor, tolerances: Tensor) -> Tensor:
        """Return the smallest product of a candidate of each query whose k-th largest is known, (queries,)."""
        return nearest - 2 * (tolerances + self._precision * nearest.abs())

    def _compare(self) -> None:
        """Compare the candidates with one another, and keep those that still are."""
        query, row, product = (torch.cat(parts) for parts in zip(*self._found, strict=True))
        order = _order_by(query, product)
        query, row, product = query[order], row[order], product[order]
        counts = torch.bincount(query, minlength=self._size)
        rank = torch.arange(len(query), device=query.device) - (counts.cumsum(0) - counts)[query]
        is_last = rank == self._number - 1
        self._needed[query[is_last]] = self._limits(product[is_last], self._tolerances[query[is_last]])
        is_candidate = (product >= self._needed[query]) & (product > -torch.inf)
        is_full = is_candidate & (rank == self._most - 1)
        # Of equal products the first rows are kept.
        self._dropped[query[is_full]] = product[is_full].nextafter(product.new_tensor(torch.inf))
        is_kept = is_candidate & (rank < self._most)
        self._found, self._num_found = [(query[is_kept], row[is_kept], product[is_kept])], 0


def _order_by(query: Tensor, product: Tensor) -> Tensor:
    """Order by query, then by product, the largest first, then as before."""
    order = product.argsort(stable=True, descending=True)
    return order[query[order].argsort(stable=True)]


def join(parts: Sequence[tuple[Tensor, Tensor, Tensor]], size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Join the candidates of several screens of the same number of queries, in their order."""
    queries, rows, complete = zip(*parts, strict=True)
    shifted = [query + number * size for number, query in enumerate(queries)]
    return torch.cat(shifted), torch.cat(rows), torch.cat(complete)
