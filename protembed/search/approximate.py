"""Approximate search with faiss: each query is compared with the nearest of many cells of the database.

How many of the exact neighbours are found is measured on a sample of the queries. The number of cells that are compared
grows until nearly all are.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protembed.device import WorkerPool
from protembed.errors import ConfigError
from protembed.search.neighbours import Neighbours, NeighbourSearch
from protembed.search.vectors import Rows, SelectedVectors, blocks_of

# The share of exact neighbours that is enough.
_ENOUGH = 0.95
_MAX_SAMPLED = 500
# Vectors of each cell by which it is found, as faiss recommends, and rows that are added at once.
_NUM_TRAINED, _ROWS = 64, 65_536


class CellIndex:
    """Vectors in cells around centres that k-means finds, in memory, in half precision.

    Source: Jégou et al. 2011, "Product quantization for nearest neighbor search", section IV, the inverted file.
    """

    def __init__(self, search: NeighbourSearch, num_threads: int) -> None:
        faiss = _import_faiss()
        faiss.omp_set_num_threads(num_threads)
        database, dim = search.database, search.database.dim
        self.num_cells = max(1, min(round(4 * len(database) ** 0.5), len(database) // 40))
        is_cosine = search.metric == "cosine"
        metric = faiss.METRIC_INNER_PRODUCT if is_cosine else faiss.METRIC_L2
        self._quantizer = faiss.IndexFlatIP(dim) if is_cosine else faiss.IndexFlatL2(dim)
        kind = faiss.ScalarQuantizer.QT_fp16
        self._index = faiss.IndexIVFScalarQuantizer(self._quantizer, dim, self.num_cells, kind, metric)
        number = min(len(database), _NUM_TRAINED * self.num_cells)
        rows = np.sort(np.random.default_rng(0).choice(len(database), number, replace=False))
        self._index.train(search.prepare(database.take(rows)))
        for _, block in blocks_of(database, _ROWS):
            self._index.add(search.prepare(block))

    def compare_cells(self, number: int) -> None:
        """Compare each query with the rows of this many cells."""
        self._index.nprobe = number

    def find(self, queries: NDArray[np.float32], number: int) -> NDArray[np.int64]:
        """Find rows that are probably among the nearest, (queries, number), int64; -1 where there are fewer."""
        rows: NDArray[np.int64] = self._index.search(queries, number)[1]
        return rows


def _import_faiss() -> Any:
    """Import faiss, which is an extra.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        expected = "it needs faiss: pip install 'protembed[approximate]'"
        raise ConfigError("approximate", True, expected) from error
    return faiss


def approximate(search: NeighbourSearch, queries: Rows, pool: WorkerPool) -> tuple[NeighbourSearch, float]:
    """Make an approximate search of an exact one.

    Args:
        search: The exact search.
        queries: The queries, a sample of which is searched exactly.
        pool: The threads that search.

    Returns:
        The approximate search, and its recall: the share of the exact neighbours of the sampled queries that it finds.

    Raises:
        ConfigError: faiss is not installed.
    """
    index = CellIndex(search, pool.num_workers)
    number = min(len(queries), _MAX_SAMPLED)
    rows = np.sort(np.random.default_rng(0).choice(len(queries), number, replace=False))
    sample = SelectedVectors(queries, rows)
    of_sample = replace(search, query_rows=None if search.query_rows is None else search.query_rows[rows])
    exact = list(of_sample.run(sample, pool))
    num_cells, recall = 1, 0.0
    while True:
        index.compare_cells(num_cells)
        found = list(replace(of_sample, index=index).run(sample, pool))
        recall = _recall(exact, found)
        if recall >= _ENOUGH or num_cells >= index.num_cells:
            return replace(search, index=index), recall
        num_cells = min(2 * num_cells, index.num_cells)


def _recall(exact: list[Neighbours], found: list[Neighbours]) -> float:
    """Compute the share of the exact neighbours that were found."""
    right, total = 0, 0
    for blocks in zip(exact, found, strict=True):
        for known, proposed in zip(*(block.rows for block in blocks), strict=True):
            known = known[known >= 0]
            right, total = right + int(np.isin(known, proposed).sum()), total + len(known)
    return right / max(total, 1)
