"""The table of transferred labels: calibrate on the database, search, and write a row for each query."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protembed.callbacks import Callbacks
from protembed.config.search import SearchOptions
from protembed.data.similarity import KmerSets, greedy_clusters, nearest_sets, stack_kmer_sets
from protembed.device import WorkerPool
from protembed.errors import ConfigError, TableError
from protembed.io.result import Claim
from protembed.io.tables import separator_of
from protembed.io.writing import atomic_file
from protembed.search.calibration import Calibration
from protembed.search.job import OpenedSides, divide_files, in_parts, searching
from protembed.search.labels import read_labels_of
from protembed.search.neighbours import Neighbours, NeighbourSearch, concatenate
from protembed.search.proteins import find_sequences
from protembed.search.sides import Side
from protembed.search.transfer import Guesses, KnownLabels
from protembed.search.vectors import SelectedVectors
from protembed.text import LabelText, format_row

# Labelled proteins that are tested, at most, and numbers in the table of their votes.
_MAX_TESTED, _MAX_VOTES = 5000, 20_000_000
_MIN_PROTEINS, _MIN_CLUSTERS = 20, 10


@dataclass(frozen=True, kw_only=True)
class _Labelled:
    """The labelled proteins of the database.

    Attributes:
        sides: Both sides.
        rows: Rows of the labelled proteins in the database, (labelled,), int64.
        known: Their labels.
        kmers: Their 5-mers.
    """

    sides: OpenedSides
    rows: NDArray[np.int64]
    known: KnownLabels
    kmers: KmerSets

    def search(self, search: NeighbourSearch) -> NeighbourSearch:
        """Restrict a search to these proteins, in which each query that is one of them is not its own neighbour."""
        query_rows = None if search.query_rows is None else self.indices_of(search.query_rows)
        database = SelectedVectors(self.sides.database_vectors, self.rows)
        return replace(search, database=database, query_rows=query_rows)

    def indices_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Find rows of the database among these proteins, (rows,), int64; -1 for those without a label."""
        indices = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        return np.where(self.rows[indices] == rows, indices, -1)

    def nearest_by_kmers(self, queries: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Find the nearest of these proteins by k-mers for some queries, as indices, and their similarity.

        The index is -1 where none shares more k-mers than unrelated proteins do, or the query's sequence is not known.
        """
        kmers = self.sides.queries.kmers
        indices, similarities = np.full(len(queries), -1), np.full(len(queries), np.nan)
        is_known = kmers.is_known[queries]
        chosen = queries[is_known]
        if len(chosen):
            own = self.indices_of(chosen) if self.sides.is_same else np.full(len(chosen), -1)
            groups = (np.where(own >= 0, own, -2), np.arange(len(self.rows)))
            found = nearest_sets(stack_kmer_sets(kmers.sets(chosen)), self.kmers, groups=groups)
            indices[is_known], similarities[is_known] = np.where(found[1] > 0, found[0], -1), np.maximum(found[1], 0.0)
        return indices, similarities


def write_labels(
    claim: Claim, sides: tuple[Side, Side], options: SearchOptions, others: Sequence[Path], callbacks: Callbacks
) -> dict[str, Any]:
    """Transfer labels, and write the table; return what was measured, and counts and warnings for its record.

    The arguments are those of `write_hits`.

    Raises:
        ConfigError: The sequences of the database are not known.
        TableError: Too few proteins have a label.
        ProtembedError: A side or a table is unsuitable.
    """
    labels_path, sequences = divide_files(others, options)
    assert labels_path is not None, "the options check it"
    opened = OpenedSides.open(sides, sequences, claim.directory)
    labels = read_labels_of(opened.database, options.labels, labels_path)
    rows = labels.labelled[opened.database.kmers.is_known[labels.labelled]]
    if not len(rows):
        expected = "it needs the sequences of the database: pass FASTA, or its sequences with `sequences`"
        raise ConfigError("transfer", True, expected)
    known = KnownLabels.make(labels.texts, labels.codes[rows], options.labels.label_kind, str(labels_path))
    labelled = _Labelled(sides=opened, rows=rows, known=known, kmers=stack_kmer_sets(opened.database.kmers.sets(rows)))
    clusters = _clusters(labelled, sides[1], sequences, options.labels.cluster_identity)
    with searching(opened, options, labelled.search) as (search, recall, pool):
        calibration = _calibrate(labelled, clusters, search, pool, str(labels_path))
        callbacks.on_start(len(opened.queries))
        table = _LabelTable(labelled=labelled, calibration=calibration)
        reliabilities = list[float]()
        with atomic_file(claim.path) as stream:
            separator = separator_of(claim.path)
            stream.write(format_row(table.header, separator))
            for first, neighbours in in_parts(search.run(opened.query_vectors, pool)):
                for cells in table.rows(neighbours, first, reliabilities):
                    stream.write(format_row(cells, separator))
                    callbacks.on_progress(1)
    return {
        "num_queries": len(opened.queries),
        "num_database": len(opened.database),
        "num_hits": len(reliabilities),
        "is_same": opened.is_same,
        "median_reliability": float(np.median(reliabilities)) if reliabilities else None,
        "recall": recall,
        "measured": calibration.record(),
        "findings": calibration.sentences(),
        "warnings": list(labels.warnings),
    }


def _clusters(
    labelled: _Labelled, database: Side, sequences: Sequence[Path], min_similarity: float
) -> NDArray[np.int64]:
    """Cluster the labelled proteins by similarity, (labelled,), int64."""
    texts = [""] * len(labelled.rows)
    hashes = labelled.sides.database.hashes[labelled.rows]
    for indices, sequence in find_sequences(database, [*database.fasta, *sequences], hashes):
        for index in indices.tolist():
            texts[index] = sequence
    representatives = greedy_clusters(texts, min_similarity)
    number_of = {name: number for number, name in enumerate(dict.fromkeys(representatives))}
    return np.array([number_of[name] for name in representatives])


def _calibrate(
    labelled: _Labelled, clusters: NDArray[np.int64], search: NeighbourSearch, pool: WorkerPool, path: str
) -> Calibration:
    """Test labelled proteins, with their clusters left out.

    Raises:
        TableError: There are too few proteins or clusters.
    """
    num_proteins, num_clusters = len(clusters), len(np.unique(clusters))
    if num_proteins < _MIN_PROTEINS or num_clusters < _MIN_CLUSTERS:
        found = f"{num_proteins:,} proteins of the database with a label are in {num_clusters:,} clusters"
        advice = f"give at least {_MIN_PROTEINS} in {_MIN_CLUSTERS} clusters, or search without `transfer`"
        raise TableError(path, found, advice)
    number = min(num_proteins, _MAX_TESTED, max(_MIN_PROTEINS, _MAX_VOTES // max(len(labelled.known.names), 1)))
    tested = np.sort(np.random.default_rng(0).choice(num_proteins, number, replace=False))
    left_out = replace(search, query_rows=tested, groups=clusters, index=None)  # an index knows nothing of clusters
    neighbours = concatenate(list(left_out.run(SelectedVectors(search.database, tested), pool)))
    groups = (clusters[tested], clusters)
    indices, similarities = nearest_sets(labelled.kmers[tested], labelled.kmers, groups=groups)
    nearest = np.where(similarities > 0, indices, -1)
    return Calibration.measure(labelled.known, tested, clusters[tested], neighbours, nearest)


@dataclass(frozen=True, kw_only=True)
class _LabelTable:
    """The table of transferred labels."""

    labelled: _Labelled
    calibration: Calibration

    @property
    def header(self) -> list[str]:
        """Names of the columns."""
        return [
            *("query", "label", "reliability", "reliability_low", "reliability_high"),
            *(["value_low", "value_high"] if self.calibration.half_width is not None else []),
            *("target", "cosine", "z_score", "kmer_label", "kmer_target", "kmer_similarity", "query_residues"),
        ]

    def rows(self, neighbours: Neighbours, first: int, reliabilities: list[float]) -> Iterator[list[object]]:
        """Yield the cells of each query of a part, the first of which has a number, and collect reliabilities."""
        guesses, intervals = self.calibration.transfer(neighbours)
        queries = np.arange(first, first + len(neighbours.rows))
        indices, similarities = self.labelled.nearest_by_kmers(queries)
        of_kmers, sides = self.labelled.known.of(indices), self.labelled.sides
        for row, query in enumerate(queries.tolist()):
            reliabilities.append(float(intervals[row, 0]))
            yield [
                sides.queries.record_id(query),
                LabelText(self.labelled.known.text(guesses, row)),
                *(f"{value:.4f}" for value in intervals[row]),
                *self._value_interval(guesses, row),
                *self._nearest(neighbours, row),
                *self._nearest_by_kmers(of_kmers, row, int(indices[row])),
                "" if np.isnan(similarities[row]) else f"{similarities[row]:.4f}",
                sides.queries.num_residues[query],
            ]

    def _value_interval(self, guesses: Guesses, row: int) -> list[str]:
        """Write the interval that holds 95 % of the values; nothing for labels."""
        half, values = self.calibration.half_width, guesses.values
        return [] if half is None or values is None else [f"{values[row] + sign * half:.6g}" for sign in (-1, 1)]

    def _nearest(self, neighbours: Neighbours, row: int) -> list[str]:
        index = int(neighbours.rows[row, 0])
        if index < 0:
            return ["", "", ""]
        target = self.labelled.sides.database.record_id(int(self.labelled.rows[index]))
        return [target, f"{neighbours.cosines[row, 0]:.7f}", f"{neighbours.z_scores[row, 0]:.3f}"]

    def _nearest_by_kmers(self, of_kmers: Guesses, row: int, index: int) -> list[str]:
        if index < 0:
            return ["", ""]
        target = self.labelled.sides.database.record_id(int(self.labelled.rows[index]))
        return [LabelText(self.labelled.known.text(of_kmers, row)), target]
