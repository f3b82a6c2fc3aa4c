"""The table of hits: read both sides, search, and write it."""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protembed.callbacks import Callbacks
from protembed.config.search import SearchOptions
from protembed.device import WorkerPool, choose_device, worker_pool
from protembed.errors import InputError
from protembed.io.result import Claim
from protembed.io.tables import separator_of
from protembed.io.writing import atomic_file
from protembed.search.approximate import approximate
from protembed.search.labels import Labels, read_labels_of
from protembed.search.neighbours import Neighbours, NeighbourSearch
from protembed.search.proteins import Proteins, open_vectors, pairwise_similarity
from protembed.search.sides import Side
from protembed.search.vectors import Vectors
from protembed.text import format_row, join_cells

# Queries whose hits are described at once.
_QUERY_ROWS = 256


@dataclass(frozen=True, kw_only=True)
class OpenedSides:
    """Both sides, with their files open; those of equal sides are opened once.

    Attributes:
        queries: The proteins that are searched for.
        database: The proteins that are searched in.
        query_vectors: Their vectors.
        database_vectors: Those of the database.
        is_same: Whether both sides are the same.
    """

    queries: Proteins
    database: Proteins
    query_vectors: Vectors
    database_vectors: Vectors
    is_same: bool

    @classmethod
    def open(cls, sides: tuple[Side, Side], sequences: Sequence[Path], scratch: Path) -> "OpenedSides":
        """Verify both sides, and open them.

        Args:
            sides: The queries and the database.
            sequences: FASTA files with more sequences of either side.
            scratch: Directory of the files that are written.

        Raises:
            VerificationError: A result has changed since it was written, or is damaged.
            InputError: The sequences belong to neither side.
        """
        queries, database = sides
        is_same = queries.is_same(database)
        opened = list[tuple[Proteins, Vectors]]()
        for name, side in (("queries", queries), ("database", database)):
            if not (opened and is_same):
                for part in side.parts:
                    part.verify()
                proteins = Proteins.read(side, [*side.fasta, *sequences], scratch / name)
                opened.append((proteins, open_vectors(side, scratch / name)))
        (of_queries, query_vectors), (of_database, database_vectors) = opened[0], opened[-1]
        if sequences and not (of_queries.kmers.is_known.any() or of_database.kmers.is_known.any()):
            advice = "pass the FASTA file that was embedded"
            raise InputError(sequences[0], "none of its sequences is that of a protein of either side", advice)
        return cls(
            queries=of_queries,
            database=of_database,
            query_vectors=query_vectors,
            database_vectors=database_vectors,
            is_same=is_same,
        )

    def search(self, options: SearchOptions) -> NeighbourSearch:
        """Make the search for the neighbours of all queries."""
        config = options.search
        return NeighbourSearch(
            database=self.database_vectors,
            k=config.num_neighbours,
            metric=config.metric,
            is_centred=config.centre,
            query_rows=np.arange(len(self.queries)) if self.is_same else None,
            device=choose_device(options.compute),
        )


@dataclass(frozen=True, kw_only=True)
class _HitTable:
    """The table of hits.

    Attributes:
        labels: Labels of the database; None if no table was given.
        separator: What separates the columns.
        nearest: Cosine and z-score of the nearest hit of each query that has one, in turn.
    """

    sides: OpenedSides
    options: SearchOptions
    labels: Labels | None
    separator: str
    nearest: "array[float]"

    @cached_property
    def header(self) -> list[str]:
        """Names of the columns."""
        has_distance = self.options.search.metric == "euclidean"
        return [
            *("query", "target", "rank", "cosine", "z_score"),
            *(["distance"] if has_distance else []),
            *("query_residues", "target_residues", "kmer_similarity"),
            *(["target_label"] if self.labels is not None else []),
        ]

    def lines(self, neighbours: Neighbours, first: int) -> list[bytes]:
        """Format the hits of some queries, the first of which has a number, a line each."""
        is_hit = neighbours.rows >= 0
        if self.options.search.min_cosine is not None:
            is_hit &= neighbours.cosines >= self.options.search.min_cosine
        hits = np.nonzero(is_hit)
        queries, targets = hits[0] + first, neighbours.rows[hits]
        cosines, z_scores, ranks = neighbours.cosines[hits], neighbours.z_scores[hits], is_hit.cumsum(1)[hits]
        self.nearest.extend(np.column_stack([cosines, z_scores])[ranks == 1].ravel().tolist())
        sides = self.sides
        similarities = pairwise_similarity(sides.queries, queries, sides.database, targets)
        columns: list[Iterable[str]] = [
            map(sides.queries.cells.__getitem__, queries.tolist()),
            map(sides.database.cells.__getitem__, targets.tolist()),
            map(str, ranks.tolist()),
            map("{:.7f}".format, cosines.tolist()),
            map("{:.3f}".format, z_scores.tolist()),
            *([] if neighbours.distances is None else [map("{:.7g}".format, neighbours.distances[hits].tolist())]),
            map(str, sides.queries.num_residues[queries].tolist()),
            map(str, sides.database.num_residues[targets].tolist()),
            ("" if value != value else f"{value:.4f}" for value in similarities.tolist()),  # NaN
            *([] if self.labels is None else [map(self.labels.cell, targets.tolist())]),
        ]
        return [join_cells(cells, self.separator) for cells in zip(*columns, strict=True)]


def write_hits(
    claim: Claim,
    sides: tuple[Side, Side],
    options: SearchOptions,
    others: Sequence[Path],
    callbacks: Callbacks,
) -> dict[str, Any]:
    """Search, and write the table of hits; return counts and warnings for its record.

    Args:
        claim: The table that is written.
        sides: The queries and the database.
        options: All options of the command.
        others: The table of labels, if there is one, and the files with sequences; pipes as their copies.
        callbacks: Functions that receive the progress.

    Raises:
        ProtembedError: A side or a table is unsuitable.
    """
    labels_path, sequences = divide_files(others, options)
    opened = OpenedSides.open(sides, sequences, claim.directory)
    labels = None if labels_path is None else read_labels_of(opened.database, options.labels, labels_path)
    separator = separator_of(claim.path)
    table = _HitTable(sides=opened, options=options, labels=labels, separator=separator, nearest=array("d"))
    with searching(opened, options) as (search, recall, pool), atomic_file(claim.path) as stream:
        num_hits = 0
        stream.write(format_row(table.header, separator))
        callbacks.on_start(len(opened.queries))
        for first, neighbours in in_parts(search.run(opened.query_vectors, pool)):
            lines = table.lines(neighbours, first)
            stream.writelines(lines)
            num_hits += len(lines)
            for _ in range(len(neighbours.rows)):
                callbacks.on_progress(1)
    nearest = np.reshape(table.nearest, (-1, 2))
    medians = np.median(nearest, axis=0).tolist() if len(nearest) else [None, None]
    return {
        "num_queries": len(opened.queries),
        "num_database": len(opened.database),
        "num_hits": num_hits,
        "is_same": opened.is_same,
        "median_cosine": medians[0],
        "median_z_score": medians[1],
        "recall": recall,
        "warnings": [*(labels.warnings if labels else ()), *_warnings(opened)],
    }


def divide_files(others: Sequence[Path], options: SearchOptions) -> tuple[Path | None, Sequence[Path]]:
    """Divide the files beside the sides into the table of labels and those with sequences."""
    return (None, others) if options.labels.labels is None else (others[0], others[1:])


@contextmanager
def searching(
    opened: OpenedSides,
    options: SearchOptions,
    restrict: Callable[[NeighbourSearch], NeighbourSearch] = lambda search: search,
) -> Iterator[tuple[NeighbourSearch, float | None, WorkerPool]]:
    """Make the search, its recall if it is approximate, and the threads that run it; `restrict` changes it before."""
    search, recall = restrict(opened.search(options)), None
    with worker_pool(options.compute, search.device) as pool:
        if options.search.approximate:
            search, recall = approximate(search, opened.query_vectors, pool)
        yield search, recall, pool


def in_parts(blocks: Iterator[Neighbours]) -> Iterator[tuple[int, Neighbours]]:
    """Divide the neighbours of many queries; yield the number of the first query of each part, and the part."""
    first = 0
    for block in blocks:
        for start in range(0, len(block.rows), _QUERY_ROWS):
            part = slice(start, start + _QUERY_ROWS)
            distances = None if block.distances is None else block.distances[part]
            yield first + start, Neighbours(block.rows[part], block.cosines[part], distances, block.z_scores[part])
        first += len(block.rows)


def _warnings(opened: OpenedSides) -> Iterator[str]:
    """Yield what the user should know about the sequences."""
    names = {"queries": opened.queries} if opened.is_same else {"queries": opened.queries, "database": opened.database}
    for name, proteins in names.items():
        missing = _count_unknown(proteins.kmers.is_known)
        if missing:
            yield (
                f"the sequences of {missing:,} of {len(proteins):,} proteins of the {name} are in none of the FASTA "
                "files, so their kmer_similarity is empty"
            )


def _count_unknown(is_known: NDArray[np.bool_]) -> int:
    """Count the proteins without a sequence; none if no sequence is known at all, because none was given."""
    return int((~is_known).sum()) if is_known.any() else 0
